//! Reading the past for watchers that are behind.
//!
//! One pass takes lagging watchers of streams that have room, reads one stretch
//! of history for all of them and queues it. The store is read with the hub
//! unlocked; a watcher that was cancelled meanwhile is passed over.

use std::{collections::HashMap, sync::Arc};

use super::{
    group::Groups,
    hub::Shared,
    registry::{Batch, Registry},
    watcher::WatcherId,
};
use crate::mvcc::{History, HistoryLimits, ReadError, WatchEvent};

/// Watchers served in one pass.
const PASS_WATCHERS_MAX: usize = 512;
/// Bytes of wanted history read in one pass.
const PASS_BYTES_MAX: usize = 4 << 20;

/// The watchers of one pass.
#[derive(Debug)]
struct Pass {
    watchers: Vec<(WatcherId, i64)>,
    groups: Groups,
    from: i64,
}

impl Shared {
    /// Serves some lagging watchers. False: there is none that could be served now.
    pub(super) fn catch_up(&self) -> bool {
        let Some(pass) = self.registry.lock().pass() else { return false };
        let limits = HistoryLimits { rows: self.options.pass_rows_max, bytes: PASS_BYTES_MAX };
        match self.store.events_since(pass.from, limits, |key| pass.groups.contains(key)) {
            Ok(history) => self.queue(&pass, &history),
            Err(ReadError::Compacted | ReadError::FutureRevision) => {
                let compacted = self.store.compact_revision();
                let mut registry = self.registry.lock();
                for &(id, next) in &pass.watchers {
                    if next < compacted {
                        registry.cancel_compacted(id, compacted);
                    }
                }
                true
            }
            Err(ReadError::Storage(error)) => {
                tracing::error!(%error, from = pass.from, "history for watchers cannot be read");
                let mut registry = self.registry.lock();
                for &(id, _) in &pass.watchers {
                    registry.cancel_failed(id, error.to_string());
                }
                true
            }
        }
    }

    /// Gives the pass's watchers what was read. False: nobody could take anything.
    fn queue(&self, pass: &Pass, history: &History) -> bool {
        let mut of_watcher: HashMap<WatcherId, Vec<WatchEvent>> = HashMap::new();
        let first: HashMap<_, _> = pass.watchers.iter().copied().collect();
        let mut found = Vec::new();
        for events in &history.events {
            pass.groups.matches(events, &mut found);
            for &(group, place) in &found {
                for id in pass.groups.members(group) {
                    if first[&id] <= events.revision {
                        of_watcher.entry(id).or_default().push(events.events[place].clone());
                    }
                }
            }
        }
        let mut moved = false;
        let mut registry = self.registry.lock();
        let registry = &mut *registry;
        for &(id, next) in &pass.watchers {
            let Some(watcher) = registry.watchers.get_mut(&id) else { continue };
            if watcher.synced || watcher.next != next {
                continue;
            }
            if history.next > next {
                let events: Arc<[WatchEvent]> = of_watcher.remove(&id).unwrap_or_default().into();
                let Some(count) = watcher.give(&Batch::of(history.next - 1, events)) else { continue };
                registry.events_total += count;
                moved = true;
            }
            let before = registry.lagging.len();
            registry.sync_if_level(id);
            moved |= registry.watchers[&id].synced || registry.lagging.len() != before;
        }
        moved
    }
}

impl Registry {
    /// Takes the next lagging watchers whose streams have room; the streams taken go to the end.
    fn pass(&mut self) -> Option<Pass> {
        let mut pass = Pass { watchers: Vec::new(), groups: Groups::default(), from: i64::MAX };
        // Round and round: begin behind the stream that was served last.
        let (after, before) = (self.lagging.range(self.turn..), self.lagging.range(..self.turn));
        let mut turn = self.turn;
        for stream in after.chain(before) {
            let state = &self.streams[stream];
            if !state.outbox.has_room() {
                continue;
            }
            for id in &state.lagging {
                if pass.watchers.len() == PASS_WATCHERS_MAX {
                    break;
                }
                let watcher = &self.watchers[id];
                pass.watchers.push((*id, watcher.next));
                pass.groups.insert(&watcher.range, *id);
                pass.from = pass.from.min(watcher.next);
            }
            if pass.watchers.len() == PASS_WATCHERS_MAX {
                break;
            }
            turn = super::watcher::StreamId(stream.0 + 1);
        }
        self.turn = turn;
        (!pass.watchers.is_empty()).then_some(pass)
    }
}
