//! Telling clients how far they are, never further than they are.
//!
//! A progress answer stands in the stream's queue behind every event up to its
//! revision: it names the last revision handed out, and goes only to watchers
//! that are synced.

use std::sync::Arc;

use etcfs_proto::etcdserverpb::WatchResponse;

use super::{
    registry::{Registry, header},
    watcher::StreamId,
};

/// The id of an answer that holds for all watchers of the stream.
const ALL_WATCHERS: i64 = -1;

impl Registry {
    /// Answers a progress request once everything published by now (`current`) is handed out; not
    /// at all if a watcher of the stream lags, or if there is none.
    pub(super) fn ask_progress(&mut self, stream: StreamId, current: i64) {
        if !self.asked.contains(&(stream, current)) {
            self.asked.push((stream, current));
        }
        self.answer_askers();
    }

    /// Answers those who asked and whose revision has been handed out.
    pub(super) fn answer_askers(&mut self) {
        let next = self.next;
        let Self { asked, streams, .. } = self;
        asked.retain(|(stream, revision)| {
            let Some(state) = streams.get(stream) else { return false };
            if !state.lagging.is_empty() || state.watchers.is_empty() {
                return false;
            }
            if next > *revision {
                state.outbox.answer(progress(ALL_WATCHERS, next - 1));
            }
            next <= *revision
        });
    }

    /// Tells quiet watchers that asked for it, and begins the next interval.
    pub(super) fn tick(&mut self) {
        let next = self.next;
        for watcher in self.watchers.values_mut().filter(|watcher| watcher.progress_notify) {
            // One that read ahead of what was handed out, or whose reader is slow, has had or will
            // have better news than this.
            if watcher.quiet && watcher.synced && watcher.next <= next && watcher.outbox.has_room() {
                Arc::clone(&watcher.outbox).answer(progress(watcher.wish.watch_id, next - 1));
            }
            watcher.quiet = true;
        }
    }
}

fn progress(watch_id: i64, revision: i64) -> WatchResponse {
    WatchResponse { header: header(revision), watch_id, ..WatchResponse::default() }
}
