//! Pauses between attempts: short at first, doubling up to a bound.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(25);
/// Short enough that a server that is back is found at once by a person's clock.
const LONGEST: Duration = Duration::from_millis(250);

#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
}

impl Backoff {
    pub(crate) fn new() -> Self {
        Self { next: FIRST }
    }

    /// The pause before the coming attempt.
    pub(crate) fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (self.next * 2).min(LONGEST);
        pause
    }

    pub(crate) fn reset(&mut self) {
        self.next = FIRST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_start_over_after_a_reset() {
        let mut backoff = Backoff::new();
        let pauses: Vec<_> = (0..8).map(|_| backoff.pause().as_millis()).collect();
        assert_eq!(pauses, [25, 50, 100, 200, 250, 250, 250, 250]);
        backoff.reset();
        assert_eq!(backoff.pause(), FIRST);
    }
}
