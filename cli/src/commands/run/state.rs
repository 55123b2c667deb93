//! When a command is due, from when changes came and how its last run ended. Pure: times are given.

use std::time::{Duration, Instant};

/// A stream of changes that never rests does not put a run off for longer than so many times the quiet that it needs.
const PATIENCE: u32 = 10;
/// Before a command that failed is run again: the first time, and at most.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// The changes that no successful run has followed yet.
#[derive(Debug)]
pub(super) struct Changes {
    quiet: Duration,
    waiting: Option<Waiting>,
    /// The newest change that a run, under way or ended, began after.
    covered: i64,
    retry: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    newest: i64,
    due: Instant,
    due_max: Instant,
}

impl Changes {
    pub(super) fn new(quiet: Duration) -> Self {
        Self { quiet, waiting: None, covered: 0, retry: RETRY_MIN }
    }

    /// Something changed, at a revision.
    pub(super) fn seen(&mut self, revision: i64, now: Instant) {
        let due_max = self.waiting.map_or(now + self.quiet * PATIENCE, |waiting| waiting.due_max);
        let due = (now + self.quiet).min(due_max);
        self.waiting = Some(Waiting { newest: revision, due, due_max });
    }

    /// When the command is to run.
    pub(super) fn due(&self) -> Option<Instant> {
        self.waiting.map(|waiting| waiting.due)
    }

    /// A run begins; gives the newest revision that it follows.
    pub(super) fn begin(&mut self) -> i64 {
        if let Some(waiting) = self.waiting.take() {
            self.covered = self.covered.max(waiting.newest);
        }
        self.covered
    }

    pub(super) fn succeeded(&mut self) {
        self.retry = RETRY_MIN;
    }

    /// The run that ended has to be repeated, after the time that this gives.
    pub(super) fn failed(&mut self, now: Instant) -> Duration {
        let wait = self.retry;
        let newest = self.waiting.map_or(self.covered, |waiting| waiting.newest);
        self.waiting = Some(Waiting { newest, due: now + wait, due_max: now + wait });
        self.retry = (wait * 2).min(RETRY_MAX);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Duration = Duration::from_millis(100);

    fn after(start: Instant, millis: u64) -> Instant {
        start + Duration::from_millis(millis)
    }

    #[test]
    fn a_run_waits_for_quiet_but_not_for_ever() {
        let start = Instant::now();
        let mut changes = Changes::new(QUIET);
        assert_eq!(changes.due(), None);
        changes.seen(5, start);
        assert_eq!(changes.due(), Some(after(start, 100)));
        changes.seen(6, after(start, 90));
        assert_eq!(changes.due(), Some(after(start, 190)));
        for step in 2..50 {
            changes.seen(6 + i64::try_from(step).unwrap(), after(start, 90 * step));
        }
        assert_eq!(changes.due(), Some(after(start, 1000)));
        assert_eq!(changes.begin(), 55);
        assert_eq!(changes.due(), None);
    }

    #[test]
    fn a_change_during_a_run_makes_another() {
        let start = Instant::now();
        let mut changes = Changes::new(QUIET);
        changes.seen(5, start);
        assert_eq!(changes.begin(), 5);
        changes.seen(6, after(start, 300));
        changes.succeeded();
        assert_eq!(changes.due(), Some(after(start, 400)));
        assert_eq!(changes.begin(), 6);
    }

    #[test]
    fn a_failed_run_is_repeated_later_and_later() {
        let start = Instant::now();
        let mut changes = Changes::new(QUIET);
        changes.seen(5, start);
        for wait in [1, 2, 4, 8, 16, 32, 60, 60] {
            assert_eq!(changes.begin(), 5);
            assert_eq!(changes.failed(start), Duration::from_secs(wait));
            assert_eq!(changes.due(), Some(start + Duration::from_secs(wait)));
        }
        changes.begin();
        changes.succeeded();
        changes.seen(6, start);
        changes.begin();
        assert_eq!(changes.failed(start), RETRY_MIN);
    }

    #[test]
    fn a_change_does_not_put_a_repetition_off() {
        let start = Instant::now();
        let mut changes = Changes::new(QUIET);
        changes.seen(5, start);
        changes.begin();
        changes.failed(start);
        changes.seen(6, after(start, 990));
        assert_eq!(changes.due(), Some(after(start, 1000)));
        assert_eq!(changes.begin(), 6);
    }
}
