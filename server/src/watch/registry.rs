//! All streams and watchers, and how far events have been handed out.
//!
//! Pure bookkeeping behind the hub's lock: registering, handing out events,
//! letting watchers lag and taking them back. Every rule about which watcher
//! gets which revision is in here and in [`catchup`](super::catchup).

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, atomic::Ordering},
};

use etcfs_proto::etcdserverpb::{ResponseHeader, WatchCreateRequest, WatchResponse};

use super::{
    group::Groups,
    outbox::{Events, Outbox, weight},
    watcher::{StreamId, Watcher, WatcherId, Wish, range_of},
};
use crate::mvcc::{EventKind, ReadError, RevisionEvents, WatchEvent};

/// The id in answers that speak of no watcher.
const NO_WATCHER: i64 = -1;

#[derive(Debug, Default)]
pub(super) struct Registry {
    /// First revision not handed out. Every synced watcher has all before it queued.
    pub(super) next: i64,
    pub(super) watchers: HashMap<WatcherId, Watcher>,
    pub(super) streams: HashMap<StreamId, StreamState>,
    /// Synced watchers by what they watch.
    groups: Groups,
    /// Streams with lagging watchers; their turns go round by id.
    pub(super) lagging: BTreeSet<StreamId>,
    /// The stream whose turn it is to catch up.
    pub(super) turn: StreamId,
    /// Streams that asked how far they are, with the revision that must be handed out first.
    pub(super) asked: Vec<(StreamId, i64)>,
    last_id: u64,
    pub(super) events_total: u64,
    /// Kept for its buffer.
    found: Vec<(u64, usize)>,
}

#[derive(Debug)]
pub(super) struct StreamState {
    pub(super) outbox: Arc<Outbox>,
    /// By the id that the client knows.
    pub(super) watchers: HashMap<i64, WatcherId>,
    pub(super) lagging: BTreeSet<WatcherId>,
    next_watch_id: i64,
}

impl Registry {
    pub(super) fn starting_at(next: i64) -> Self {
        Self { next, ..Self::default() }
    }

    pub(super) fn open(&mut self, outbox: Arc<Outbox>) -> StreamId {
        self.last_id += 1;
        let id = StreamId(self.last_id);
        let state =
            StreamState { outbox, watchers: HashMap::new(), lagging: BTreeSet::new(), next_watch_id: 0 };
        self.streams.insert(id, state);
        id
    }

    pub(super) fn close(&mut self, stream: StreamId) {
        let Some(state) = self.streams.get(&stream) else { return };
        let watchers: Vec<_> = state.watchers.values().copied().collect();
        state.outbox.close();
        for watcher in watchers {
            self.remove(watcher);
        }
        self.streams.remove(&stream);
        self.lagging.remove(&stream);
        self.asked.retain(|(asker, _)| *asker != stream);
    }

    /// Registers a watcher and answers; `current` and `compacted` are the store's revisions.
    pub(super) fn create(
        &mut self,
        stream: StreamId,
        request: &WatchCreateRequest,
        current: i64,
        compacted: i64,
    ) {
        let Some(state) = self.streams.get_mut(&stream) else { return };
        let outbox = Arc::clone(&state.outbox);
        let created = WatchResponse { header: header(current), created: true, ..WatchResponse::default() };
        let refuse = |reason: String| {
            let id = NO_WATCHER;
            outbox.answer(WatchResponse {
                watch_id: id,
                canceled: true,
                cancel_reason: reason,
                ..created.clone()
            });
        };
        if request.start_revision < 0 {
            return refuse(format!("etcdserver: {}", ReadError::Compacted));
        }
        let Some(range) = range_of(request) else {
            return refuse("mvcc: watcher range is empty".into());
        };
        let Some(watch_id) = state.free_id(request.watch_id) else {
            return refuse("mvcc: duplicate watch ID provided on the WatchStream".into());
        };
        outbox.answer(WatchResponse { watch_id, ..created.clone() });
        let next = if request.start_revision == 0 { current + 1 } else { request.start_revision };
        if self.watchers.is_empty() {
            // Nobody was told of what was published until now, and nobody needs to be.
            self.next = self.next.max(current + 1);
        }
        if next < compacted {
            outbox.answer(compacted_answer(watch_id, compacted));
            return;
        }
        self.last_id += 1;
        let id = WatcherId(self.last_id);
        state.watchers.insert(watch_id, id);
        // What is published but not handed out yet is left out by `next`.
        let synced = next > current;
        if synced {
            self.groups.insert(&range, id);
        } else {
            lag(state, &mut self.lagging, stream, id);
        }
        let watcher = Watcher {
            stream,
            outbox,
            range,
            wish: Wish::of(request, watch_id),
            next,
            synced,
            progress_notify: request.progress_notify,
            quiet: true,
        };
        self.watchers.insert(id, watcher);
    }

    /// Answers a request for a watcher that nobody may have.
    pub(super) fn refuse(&self, stream: StreamId, reason: String, current: i64) {
        if let Some(state) = self.streams.get(&stream) {
            state.outbox.answer(WatchResponse {
                header: header(current),
                watch_id: NO_WATCHER,
                created: true,
                canceled: true,
                cancel_reason: reason,
                ..WatchResponse::default()
            });
        }
    }

    /// Ends a watcher that its client knows, and says why.
    pub(super) fn end(&mut self, stream: StreamId, watch_id: i64, reason: String) {
        let state = self.streams.get(&stream);
        if let Some(id) = state.and_then(|state| state.watchers.get(&watch_id)).copied() {
            self.cancel_failed(id, reason);
        }
    }

    /// Cancels a watcher that its client knows; another gets no answer.
    pub(super) fn cancel(&mut self, stream: StreamId, watch_id: i64, current: i64) {
        let Some(state) = self.streams.get(&stream) else { return };
        let Some(&id) = state.watchers.get(&watch_id) else { return };
        let outbox = Arc::clone(&state.outbox);
        self.remove(id);
        outbox.answer(WatchResponse {
            header: header(current),
            watch_id,
            canceled: true,
            ..WatchResponse::default()
        });
    }

    /// Tells a watcher that what it needs is compacted, and forgets it.
    pub(super) fn cancel_compacted(&mut self, id: WatcherId, compacted: i64) {
        if let Some(watcher) = self.watchers.get(&id) {
            let answer = compacted_answer(watcher.wish.watch_id, compacted);
            let outbox = Arc::clone(&watcher.outbox);
            self.remove(id);
            outbox.answer(answer);
        }
    }

    /// Gives up a watcher whose history can't be read, or may not be.
    pub(super) fn cancel_failed(&mut self, id: WatcherId, reason: String) {
        if let Some(watcher) = self.watchers.get(&id) {
            let watch_id = watcher.wish.watch_id;
            let outbox = Arc::clone(&watcher.outbox);
            self.remove(id);
            outbox.answer(WatchResponse {
                header: header(0),
                watch_id,
                canceled: true,
                cancel_reason: reason,
                ..WatchResponse::default()
            });
        }
    }

    fn remove(&mut self, id: WatcherId) {
        let Some(watcher) = self.watchers.remove(&id) else { return };
        if watcher.synced {
            self.groups.remove(&watcher.range, id);
        }
        if let Some(state) = self.streams.get_mut(&watcher.stream) {
            state.watchers.remove(&watcher.wish.watch_id);
            state.lagging.remove(&id);
            if state.lagging.is_empty() {
                state.outbox.lagging.store(false, Ordering::Release);
                self.lagging.remove(&watcher.stream);
            }
        }
    }

    /// Queues the events of the next revision on the streams of the synced watchers that they
    /// concern. False: those are more than `watchers_max`, and nothing was done.
    pub(super) fn hand_out(&mut self, events: &RevisionEvents, watchers_max: usize) -> bool {
        if events.revision < self.next {
            // Handed over to catching up when the hub had fallen behind, or there was nobody to tell.
            return true;
        }
        let mut found = std::mem::take(&mut self.found);
        self.groups.matches(events, &mut found);
        if watchers_max < usize::MAX && self.groups.members_of(&found) > watchers_max {
            self.found = found;
            return false;
        }
        self.next = events.revision + 1;
        let mut full = Vec::new();
        for places in found.chunk_by(|one, other| one.0 == other.0) {
            let shared = part(events, places);
            let batch = Batch::of(events.revision, shared);
            for id in self.groups.members(places[0].0) {
                let watcher = self.watchers.get_mut(&id).expect("a group's members are registered");
                if watcher.next <= events.revision {
                    match watcher.give(&batch) {
                        Some(count) => self.events_total += count,
                        None => full.push(id),
                    }
                }
            }
        }
        self.found = found;
        for id in full {
            self.let_lag(id, events.revision);
        }
        true
    }

    /// Takes a watcher out of the synced ones; it has everything before `next`.
    fn let_lag(&mut self, id: WatcherId, next: i64) {
        let Some(watcher) = self.watchers.get_mut(&id) else { return };
        if !watcher.synced {
            return;
        }
        watcher.synced = false;
        watcher.next = watcher.next.max(next);
        self.groups.remove(&watcher.range, id);
        let state = self.streams.get_mut(&watcher.stream).expect("a watcher's stream is registered");
        lag(state, &mut self.lagging, watcher.stream, id);
    }

    /// Lets all watchers catch up to `current`: events were lost on the way here.
    pub(super) fn all_lag(&mut self, current: i64) {
        let synced: Vec<_> =
            self.watchers.iter().filter(|(_, watcher)| watcher.synced).map(|(&id, _)| id).collect();
        for id in synced {
            self.let_lag(id, self.next);
        }
        self.next = self.next.max(current + 1);
    }

    /// Takes a lagging watcher back that has everything that was handed out.
    pub(super) fn sync_if_level(&mut self, id: WatcherId) {
        let Some(watcher) = self.watchers.get_mut(&id) else { return };
        if watcher.synced || watcher.next < self.next {
            return;
        }
        watcher.synced = true;
        self.groups.insert(&watcher.range, id);
        let state = self.streams.get_mut(&watcher.stream).expect("a watcher's stream is registered");
        state.lagging.remove(&id);
        if state.lagging.is_empty() {
            state.outbox.lagging.store(false, Ordering::Release);
            self.lagging.remove(&watcher.stream);
        }
    }
}

impl StreamState {
    /// The id to use: the one asked for, or for 0 the next that is free. `None`: it is in use.
    fn free_id(&mut self, asked: i64) -> Option<i64> {
        if asked != 0 {
            return (!self.watchers.contains_key(&asked)).then_some(asked);
        }
        while self.watchers.contains_key(&self.next_watch_id) {
            self.next_watch_id += 1;
        }
        self.next_watch_id += 1;
        Some(self.next_watch_id - 1)
    }
}

/// Events for all watchers of a group, made once.
#[derive(Debug)]
pub(super) struct Batch {
    /// Header revision; the watcher has everything up to it afterwards.
    revision: i64,
    events: Arc<[WatchEvent]>,
    puts: u64,
    deletes: u64,
    bytes: usize,
}

impl Batch {
    pub(super) fn of(revision: i64, events: Arc<[WatchEvent]>) -> Self {
        let puts = events.iter().filter(|event| event.kind == EventKind::Put).count() as u64;
        Self { revision, deletes: events.len() as u64 - puts, puts, bytes: weight(&events), events }
    }
}

impl Watcher {
    /// Queues what the watcher wants of the batch, and how many events that are. `None`: no room.
    pub(super) fn give(&mut self, batch: &Batch) -> Option<u64> {
        let wanted =
            if self.wish.puts { batch.puts } else { 0 } + if self.wish.deletes { batch.deletes } else { 0 };
        if wanted > 0 {
            let events = Events {
                wish: self.wish,
                revision: batch.revision,
                events: Arc::clone(&batch.events),
                bytes: batch.bytes,
            };
            if !self.outbox.events(events) {
                return None;
            }
            self.quiet = false;
        }
        self.next = self.next.max(batch.revision + 1);
        Some(wanted)
    }
}

/// The events at `places`, shared with the revision's if those are all.
fn part(events: &RevisionEvents, places: &[(u64, usize)]) -> Arc<[WatchEvent]> {
    if places.len() == events.events.len() {
        Arc::clone(&events.events)
    } else {
        places.iter().map(|&(_, place)| events.events[place].clone()).collect()
    }
}

fn lag(state: &mut StreamState, lagging: &mut BTreeSet<StreamId>, stream: StreamId, id: WatcherId) {
    state.lagging.insert(id);
    state.outbox.lagging.store(true, Ordering::Release);
    lagging.insert(stream);
}

pub(super) fn header(revision: i64) -> Option<ResponseHeader> {
    Some(ResponseHeader { revision, ..ResponseHeader::default() })
}

/// The header's revision is 0 and there is no reason given, as etcd has it.
fn compacted_answer(watch_id: i64, compacted: i64) -> WatchResponse {
    WatchResponse {
        header: header(0),
        watch_id,
        canceled: true,
        compact_revision: compacted,
        ..WatchResponse::default()
    }
}
