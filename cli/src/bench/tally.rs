//! What a round has seen so far: latencies, errors, and how far it is.

use std::{
    cell::{Cell, RefCell},
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;

use super::plan::Plan;

/// Longest latency told apart from longer ones.
const LATENCY_NANOS_MAX: u64 = 100_000_000_000;
/// Of the latencies' digits, so many are kept.
const DIGITS: u8 = 3;

/// An empty collection of latencies, in nanoseconds.
pub(crate) fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_NANOS_MAX, DIGITS).expect("the bounds are in order")
}

/// Shared by all callers of a round, on one thread.
#[derive(Debug)]
pub(crate) struct Tally {
    begin: Cell<Instant>,
    total: u64,
    next: Cell<u64>,
    latencies: RefCell<Histogram<u64>>,
    errors: Cell<u64>,
    first_error: RefCell<Option<String>>,
}

impl Tally {
    pub(crate) fn new(total: u64) -> Self {
        Self {
            begin: Cell::new(Instant::now()),
            total,
            next: Cell::new(0),
            latencies: RefCell::new(latencies()),
            errors: Cell::new(0),
            first_error: RefCell::default(),
        }
    }

    /// The next request's number and when its clock starts; waits until it is
    /// due. None when all are given out.
    pub(crate) async fn next(&self, plan: &Plan) -> Option<(u64, Instant)> {
        let number = self.next.get();
        if number >= self.total {
            return None;
        }
        self.next.set(number + 1);
        let Some(due) = plan.due(number) else {
            return Some((number, Instant::now()));
        };
        // Timed from when it was due: a server that stalls is not spared the
        // requests that had to wait for it.
        let due = self.begin.get() + due;
        tokio::time::sleep_until(due.into()).await;
        Some((number, due))
    }

    pub(crate) fn answered(&self, since: Instant) {
        self.took(since.elapsed());
    }

    pub(crate) fn took(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).clamp(1, LATENCY_NANOS_MAX);
        self.latencies.borrow_mut().saturating_record(nanos);
    }

    pub(crate) fn failed(&self, error: &impl ToString) {
        self.errors.set(self.errors.get() + 1);
        self.first_error.borrow_mut().get_or_insert_with(|| error.to_string());
    }

    pub(crate) fn record<T, E: ToString>(&self, since: Instant, outcome: Result<T, E>) {
        match outcome {
            Ok(_) => self.answered(since),
            Err(error) => self.failed(&error),
        }
    }

    /// Requests answered or failed.
    pub(crate) fn done(&self) -> u64 {
        self.latencies.borrow().len() + self.errors.get()
    }

    /// Starts the round's clock, if making ready took part of it.
    pub(crate) fn restart(&self) {
        self.begin.set(Instant::now());
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.begin.get().elapsed()
    }

    pub(crate) fn take(&self) -> (Histogram<u64>, u64, Option<String>) {
        (self.latencies.borrow().clone(), self.errors.get(), self.first_error.borrow().clone())
    }
}
