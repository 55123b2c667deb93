//! Waiting for a condition, with a deadline and a sentence for the failure.

use std::time::{Duration, Instant};

/// Time that anything local may take on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Time between two looks at a condition.
const STEP: Duration = Duration::from_millis(5);

/// Returns what `probe` finds; panics with `what` when it finds nothing in `patience`.
pub fn within<T>(patience: Duration, what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {patience:?} in vain until {what}");
        std::thread::sleep(STEP);
    }
}

/// True once `holds` does; false if it does not in `patience`.
pub fn poll(patience: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + patience;
    while !holds() {
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(STEP);
    }
    true
}

/// Returns what `probe` finds within [`PATIENCE`].
pub fn until<T>(what: &str, probe: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, what, probe)
}

/// Returns once `holds` does, within [`PATIENCE`].
pub fn until_true(what: &str, mut holds: impl FnMut() -> bool) {
    until(what, || holds().then_some(()));
}
