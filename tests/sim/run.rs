//! What all lives of all members share in one run: the notes of the
//! clients, and how far the run has come.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
};

use etcfs_proto::etcdserverpb::{WatchCreateRequest, WatchResponse};
use etcfs_tests::judge::{Call, History, Moment, Operation, Stream};
use parking_lot::Mutex;

use crate::{clock, still::FAST_MAX};

/// The time by a clock that none of the members' is ahead of: a lease ends by its leader's.
fn now() -> Moment {
    clock::now() * (1000 + FAST_MAX + FAST_MAX / 4) / 1000
}

/// One run; clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Run {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    history: Mutex<History>,
    quiet: AtomicBool,
    values: AtomicU64,
    /// The newest compaction that was acknowledged.
    compacted: AtomicI64,
    /// The newest revision that anybody has seen.
    seen: AtomicI64,
    /// Who makes the last revision, plus one.
    closer: AtomicU64,
    /// Calls that wait for their answers.
    open: AtomicU64,
    /// The last revision, once it is made.
    goal: AtomicI64,
}

impl Run {
    /// From here on nobody begins anything.
    pub(crate) fn hush(&self) {
        self.shared.quiet.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.shared.quiet.load(Ordering::Relaxed)
    }

    /// Has `member` make the last revision.
    pub(crate) fn have_closed(&self, member: usize) {
        self.shared.closer.store(member as u64 + 1, Ordering::Relaxed);
    }

    pub(crate) fn closer(&self) -> Option<usize> {
        let member = self.shared.closer.load(Ordering::Relaxed).checked_sub(1)?;
        usize::try_from(member).ok()
    }

    pub(crate) fn set_goal(&self, revision: i64) {
        self.shared.goal.store(revision, Ordering::Relaxed);
    }

    pub(crate) fn goal(&self) -> Option<i64> {
        Some(self.shared.goal.load(Ordering::Relaxed)).filter(|&goal| goal > 0)
    }

    /// True while a call is neither answered nor given up.
    pub(crate) fn has_open_calls(&self) -> bool {
        self.shared.open.load(Ordering::Relaxed) > 0
    }

    /// A number that nobody else gets.
    pub(crate) fn number(&self) -> u64 {
        self.shared.values.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn compacted(&self) -> i64 {
        self.shared.compacted.load(Ordering::Relaxed)
    }

    pub(crate) fn note_compacted(&self, revision: i64) {
        self.shared.compacted.fetch_max(revision, Ordering::Relaxed);
    }

    pub(crate) fn seen(&self) -> i64 {
        self.shared.seen.load(Ordering::Relaxed)
    }

    /// Notes that a member is asked; what it answers is told to what is given back.
    pub(crate) fn asks(&self, member: usize, call: Call) -> Asked {
        let now = now();
        self.shared.open.fetch_add(1, Ordering::Relaxed);
        let mut history = self.shared.history.lock();
        history.operations.push(Operation { asked: now, answered: now, member, call });
        Asked { run: self.clone(), place: history.operations.len() - 1 }
    }

    /// Notes a new watch, and gives it its place among them.
    pub(crate) fn watches(&self, name: String, member: usize, request: WatchCreateRequest) -> usize {
        let mut history = self.shared.history.lock();
        let stream = Stream { name, member, request, responses: Vec::new(), stalled_before: None };
        history.streams.push(stream);
        history.streams.len() - 1
    }

    pub(crate) fn hears(&self, stream: usize, response: WatchResponse) {
        let newest = response.events.iter().filter_map(|event| Some(event.kv.as_ref()?.mod_revision)).max();
        self.shared.seen.fetch_max(newest.unwrap_or(0), Ordering::Relaxed);
        let now = now();
        self.shared.history.lock().streams[stream].responses.push((now, response));
    }

    pub(crate) fn with_history<T>(&self, act: impl FnOnce(&mut History) -> T) -> T {
        act(&mut self.shared.history.lock())
    }
}

/// A call that was not answered yet. Dropped without an answer, it was given up then.
#[derive(Debug)]
pub(crate) struct Asked {
    run: Run,
    place: usize,
}

impl Asked {
    pub(crate) fn answered(self, call: Call) {
        self.run.with_history(|history| history.operations[self.place].call = call);
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        let now = now();
        self.run.shared.open.fetch_sub(1, Ordering::Relaxed);
        self.run.with_history(|history| history.operations[self.place].answered = now);
    }
}
