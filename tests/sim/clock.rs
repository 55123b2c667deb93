//! The simulated time, for all who note when something was.
//!
//! turmoil knows it exactly while a host has its turn. Between turns, when hosts
//! are crashed and what they held is dropped, it would ask a clock that is not
//! simulated: so then it is the time at which the last step ended.

use std::{cell::Cell, time::Duration};

thread_local! {
    static BETWEEN: Cell<Option<Duration>> = const { Cell::new(Some(Duration::ZERO)) };
}

/// Time since the run began.
pub(crate) fn now() -> Duration {
    BETWEEN.get().or_else(turmoil::sim_elapsed).unwrap_or_default()
}

/// The hosts have their turns now.
pub(crate) fn begin_step() {
    BETWEEN.set(None);
}

/// They have had them, and so much time has passed.
pub(crate) fn end_step(now: Duration) {
    BETWEEN.set(Some(now));
}
