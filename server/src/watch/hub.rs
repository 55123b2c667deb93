//! Where events come in and streams are opened.
//!
//! Apply never waits for a watcher, however many there are. Events that concern
//! a few are queued for them where they are published; those that concern many
//! go to a list, from which a loop of its own hands them out. A second loop reads the
//! store for watchers that lag. If events come in faster than they can be
//! handed out, they are dropped from the list and all watchers catch up from
//! the store: memory stays bounded.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering, fence},
    },
};

use parking_lot::Mutex;

use super::{
    outbox::{Outbox, weight},
    registry::Registry,
    stream::{WatchControl, WatchStream},
    watcher::StreamId,
};
use crate::{
    mvcc::{RevisionEvents, Store},
    threads::{Bell, Join, OsThreads, Threads, Turn},
};

#[derive(Clone, Debug)]
pub struct HubOptions {
    /// Events queued for one stream; beyond it a watcher catches up from the store.
    pub stream_bytes_max: usize,
    /// Events that wait to be handed out; beyond it all watchers catch up from the store.
    pub inbox_bytes_max: usize,
    /// Events for at most so many watchers are handed out by the publisher itself.
    pub direct_watchers_max: usize,
    /// Rows of history read at a time for watchers that are behind.
    pub pass_rows_max: usize,
    /// A response at least this long is split for watchers that ask for fragments.
    pub fragment_bytes: usize,
    pub threads: Arc<dyn Threads>,
}

impl Default for HubOptions {
    fn default() -> Self {
        Self {
            stream_bytes_max: 16 << 20,
            inbox_bytes_max: 64 << 20,
            direct_watchers_max: 16,
            pass_rows_max: 1000,
            fragment_bytes: 1_572_864 + (512 << 10),
            threads: Arc::new(OsThreads),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HubMetrics {
    pub streams: u64,
    pub watchers: u64,
    /// Watchers that are behind.
    pub slow_watchers: u64,
    /// Queued for the streams and not taken yet.
    pub pending_events: u64,
    pub events_total: u64,
}

/// Every watcher of this server; clones are handles of the same.
#[derive(Clone)]
pub struct Hub {
    shared: Arc<Shared>,
    /// Ends the loops with the last handle.
    _loops: Option<Arc<Loops>>,
}

pub(super) struct Shared {
    pub(super) store: Arc<Store>,
    pub(super) options: HubOptions,
    /// Taken after the inbox and before a stream's queue.
    pub(super) registry: Mutex<Registry>,
    /// How many watchers there are, or are about to be: without any, nothing is published.
    pub(super) watchers: AtomicUsize,
    /// Locks of the outermost kind: held while the publisher hands out directly.
    inbox: Mutex<Inbox>,
    arrived: Bell,
    /// Rung when a lagging watcher may have room.
    roomy: Bell,
    stopped: AtomicBool,
}

#[derive(Debug, Default)]
struct Inbox {
    events: Vec<RevisionEvents>,
    bytes: usize,
    /// Something was dropped: all watchers must catch up.
    lost: bool,
    /// The loop is handing out what it took: what comes now must wait behind that.
    busy: bool,
}

/// Revisions handed out under one hold of the registry's lock.
const HAND_OUT_CHUNK: usize = 128;

impl Hub {
    /// Starts the hub's two loops; they end with `shutdown` or the last handle.
    pub fn new(store: Arc<Store>, options: HubOptions) -> Self {
        let shared = Arc::new(Shared::new(store, options));
        let start = |name: &str, bell: &Bell, turn: fn(&Shared) -> Turn| {
            let work = Arc::clone(&shared);
            let started = shared.options.threads.start(name, bell.clone(), Box::new(move || turn(&work)));
            started.expect("the process may have two more threads")
        };
        let running = vec![
            start("watch-hand-out", &shared.arrived, Shared::hand_out_turn),
            start("watch-catch-up", &shared.roomy, Shared::catch_up_turn),
        ];
        let loops = Loops { shared: Arc::clone(&shared), running: Mutex::new(running) };
        Self { shared, _loops: Some(Arc::new(loops)) }
    }

    /// A hub whose work is done by the test's calls alone.
    #[cfg(test)]
    pub(super) fn without_loops(store: Arc<Store>, options: HubOptions) -> Self {
        Self { shared: Arc::new(Shared::new(store, options)), _loops: None }
    }

    #[cfg(test)]
    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Takes the events of published revisions, in order; never waits for a watcher.
    pub fn publish(&self, events: Vec<RevisionEvents>) {
        // The store's revision was published before this; see `Shared::expect_watcher`.
        fence(Ordering::SeqCst);
        if events.is_empty() || self.shared.watchers.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut inbox = self.shared.inbox.lock();
        let idle = inbox.events.is_empty() && !inbox.busy && !inbox.lost;
        let events = if idle { self.shared.hand_out_directly(events) } else { events };
        if events.is_empty() {
            return;
        }
        inbox.bytes += events.iter().map(|events| weight(&events.events)).sum::<usize>();
        if inbox.events.is_empty() {
            inbox.events = events;
        } else {
            inbox.events.extend(events);
        }
        if inbox.bytes > self.shared.options.inbox_bytes_max {
            *inbox = Inbox { lost: true, busy: inbox.busy, ..Inbox::default() };
        }
        drop(inbox);
        self.shared.arrived.ring();
    }

    /// The store was replaced by a snapshot's: every watcher catches up from it.
    pub fn replaced(&self) {
        let mut inbox = self.shared.inbox.lock();
        *inbox = Inbox { lost: true, busy: inbox.busy, ..Inbox::default() };
        drop(inbox);
        self.shared.arrived.ring();
    }

    /// Opens what one gRPC stream needs: its requests go in left, its answers come out right.
    pub fn open(&self) -> (WatchControl, WatchStream) {
        let outbox = Arc::new(Outbox::new(self.shared.options.stream_bytes_max));
        let id = self.shared.registry.lock().open(Arc::clone(&outbox));
        if self.shared.stopped.load(Ordering::Acquire) {
            outbox.close();
        }
        let control = WatchControl::new(Arc::clone(&self.shared), id, Arc::clone(&outbox));
        (control, WatchStream::new(Arc::clone(&self.shared), id, outbox))
    }

    /// Tells quiet watchers with progress_notify how far they are. Call once per notify interval.
    pub fn tick_progress(&self) {
        self.shared.registry.lock().tick();
    }

    pub fn metrics(&self) -> HubMetrics {
        let registry = self.shared.registry.lock();
        let streams = || registry.streams.values();
        HubMetrics {
            streams: registry.streams.len() as u64,
            watchers: registry.watchers.len() as u64,
            slow_watchers: streams().map(|stream| stream.lagging.len() as u64).sum(),
            pending_events: streams().map(|stream| stream.outbox.queued_events() as u64).sum(),
            events_total: registry.events_total,
        }
    }

    /// Ends all streams and both loops.
    pub fn shutdown(&self) {
        self.shared.stop();
    }
}

impl Shared {
    fn new(store: Arc<Store>, options: HubOptions) -> Self {
        let registry = Registry::starting_at(store.revision() + 1);
        Self {
            store,
            options,
            registry: Mutex::new(registry),
            watchers: AtomicUsize::new(0),
            inbox: Mutex::default(),
            arrived: Bell::default(),
            roomy: Bell::default(),
            stopped: AtomicBool::new(false),
        }
    }

    fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.arrived.ring();
        self.tell_room();
        for stream in self.registry.lock().streams.values() {
            stream.outbox.close();
        }
    }

    /// Ends a stream and forgets its watchers.
    pub(super) fn close(&self, stream: StreamId) {
        let mut registry = self.registry.lock();
        registry.close(stream);
        self.count_watchers(&registry);
    }

    /// A lagging watcher may be served: a new one, or one whose stream has room again.
    pub(super) fn tell_room(&self) {
        self.roomy.ring();
    }

    /// Says that a watcher is about to be registered, and gives the store's revision.
    ///
    /// A publisher first moves the store's revision and then looks for watchers; here it is the
    /// other way round. So either it sees the watcher, or the watcher begins behind its events.
    pub(super) fn expect_watcher(&self) -> i64 {
        self.watchers.fetch_add(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        self.store.revision()
    }

    /// Sets the count right after watchers came or went; call with the registry locked.
    pub(super) fn count_watchers(&self, registry: &Registry) {
        self.watchers.store(registry.watchers.len(), Ordering::Relaxed);
    }

    /// Hands out what concerns few watchers, up to the first revision that doesn't; gives the rest.
    fn hand_out_directly(&self, events: Vec<RevisionEvents>) -> Vec<RevisionEvents> {
        let Some(mut registry) = self.registry.try_lock() else { return events };
        let max = self.options.direct_watchers_max;
        let done = events.iter().take_while(|one| registry.hand_out(one, max)).count();
        if done > 0 {
            registry.answer_askers();
        }
        let lagging = !registry.lagging.is_empty();
        drop(registry);
        if lagging {
            self.tell_room();
        }
        if done == events.len() { Vec::new() } else { events.into_iter().skip(done).collect() }
    }

    /// Hands out what is on the list. False: nothing is.
    pub(super) fn hand_out(&self) -> bool {
        let Inbox { events, lost, .. } =
            std::mem::replace(&mut *self.inbox.lock(), Inbox { busy: true, ..Inbox::default() });
        if lost {
            self.registry.lock().all_lag(self.store.revision());
        }
        for chunk in events.chunks(HAND_OUT_CHUNK) {
            let mut registry = self.registry.lock();
            for one in chunk {
                registry.hand_out(one, usize::MAX);
            }
            registry.answer_askers();
        }
        self.inbox.lock().busy = false;
        // Those who found their stream full lag from now on; it may have been read meanwhile.
        let lagging = lost || !self.registry.lock().lagging.is_empty();
        if lagging {
            self.tell_room();
        }
        lost || !events.is_empty()
    }

    fn hand_out_turn(&self) -> Turn {
        let idle = {
            let inbox = self.inbox.lock();
            inbox.events.is_empty() && !inbox.lost
        };
        match idle {
            false => {
                self.hand_out();
                Turn::Again
            }
            true if self.stopped.load(Ordering::Acquire) => Turn::End,
            true => Turn::Wait,
        }
    }

    fn catch_up_turn(&self) -> Turn {
        match self.stopped.load(Ordering::Acquire) {
            true => Turn::End,
            false if self.catch_up() => Turn::Again,
            false => Turn::Wait,
        }
    }
}

struct Loops {
    shared: Arc<Shared>,
    running: Mutex<Vec<Join>>,
}

impl Drop for Loops {
    fn drop(&mut self) {
        self.shared.stop();
        self.running.get_mut().drain(..).for_each(|join| join());
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").field("metrics", &self.metrics()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("options", &self.options).finish_non_exhaustive()
    }
}
