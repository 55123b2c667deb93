//! Skeleton: bodies follow.
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use etcfs_proto::etcdserverpb::{WatchCreateRequest, WatchResponse};
use futures_util::Stream;

use crate::mvcc::{RevisionEvents, Store};

#[derive(Clone, Debug)]
pub struct HubOptions {
    /// Events queued for one stream; beyond it a watcher catches up from the store.
    pub stream_bytes_max: usize,
    /// A response at least this long is split for watchers that ask for fragments.
    pub fragment_bytes: usize,
}

impl Default for HubOptions {
    fn default() -> Self {
        Self { stream_bytes_max: 16 << 20, fragment_bytes: 1_572_864 + (512 << 10) }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HubMetrics {
    pub streams: u64,
    pub watchers: u64,
    pub slow_watchers: u64,
    pub pending_events: u64,
    pub events_total: u64,
}

#[derive(Clone, Debug)]
pub struct Hub {}

impl Hub {
    /// Starts the hub's two threads; they end with `shutdown` or the last handle.
    pub fn new(_store: Arc<Store>, _options: HubOptions) -> Self {
        unimplemented!()
    }
    /// Never blocks. Call after `Machine::publish`.
    pub fn publish(&self, _events: Vec<RevisionEvents>) {
        unimplemented!()
    }
    /// The store was replaced by a snapshot's: every watcher catches up from it.
    pub fn replaced(&self) {
        unimplemented!()
    }
    pub fn open(&self) -> (WatchControl, WatchStream) {
        unimplemented!()
    }
    /// Tells quiet watchers with progress_notify how far they are. Call once per notify interval.
    pub fn tick_progress(&self) {
        unimplemented!()
    }
    pub fn metrics(&self) -> HubMetrics {
        unimplemented!()
    }
    /// Ends all streams and both threads.
    pub fn shutdown(&self) {
        unimplemented!()
    }
}

/// The requests of one gRPC stream. Dropping it cancels its watchers and ends the stream.
#[derive(Debug)]
pub struct WatchControl {}

impl WatchControl {
    /// Waits until answers can be queued: call before reading the next request, so that a client
    /// that does not read its answers cannot fill memory with them.
    pub async fn room(&self) {
        unimplemented!()
    }
    /// The answer comes through the stream, before the watcher's events.
    pub fn create(&self, _request: WatchCreateRequest) {
        unimplemented!()
    }
    pub fn cancel(&self, _watch_id: i64) {
        unimplemented!()
    }
    pub fn progress(&self) {
        unimplemented!()
    }
}

/// Answers and events of one gRPC stream; headers hold the revision alone.
#[derive(Debug)]
pub struct WatchStream {}

impl Stream for WatchStream {
    type Item = WatchResponse;

    fn poll_next(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Option<WatchResponse>> {
        unimplemented!()
    }
}
