//! One watcher: what it asked for and how far it is.

use std::sync::Arc;

use bytes::Bytes;
use etcfs_proto::{
    etcdserverpb::{WatchCreateRequest, watch_create_request::FilterType},
    key::KeyRange,
};

use super::outbox::Outbox;
use crate::mvcc::{EventKind, WatchEvent};

/// Names a watcher among all of the hub's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct WatcherId(pub(super) u64);

/// Names a stream among all of the hub's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct StreamId(pub(super) u64);

#[derive(Debug)]
pub(super) struct Watcher {
    pub(super) stream: StreamId,
    pub(super) outbox: Arc<Outbox>,
    pub(super) range: KeyRange,
    pub(super) wish: Wish,
    /// First revision that it has not been given. While it is synced, revisions that do not
    /// concern it do not move this.
    pub(super) next: i64,
    pub(super) synced: bool,
    pub(super) progress_notify: bool,
    /// No event since the last tick of the progress clock.
    pub(super) quiet: bool,
}

/// What a watcher wants of events that concern it, and under which number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish {
    pub(super) watch_id: i64,
    pub(super) puts: bool,
    pub(super) deletes: bool,
    pub(super) prev_kv: bool,
    pub(super) fragment: bool,
}

impl Wish {
    pub(super) fn of(request: &WatchCreateRequest, watch_id: i64) -> Self {
        let without = |filter: FilterType| request.filters().any(|given| given == filter);
        Self {
            watch_id,
            puts: !without(FilterType::Noput),
            deletes: !without(FilterType::Nodelete),
            prev_kv: request.prev_kv,
            fragment: request.fragment,
        }
    }

    pub(super) fn wants(self, event: &WatchEvent) -> bool {
        match event.kind {
            EventKind::Put => self.puts,
            EventKind::Delete => self.deletes,
        }
    }
}

/// The keys that a request names; here the empty key stands for the first there can be. `None`:
/// there are none.
pub(super) fn range_of(request: &WatchCreateRequest) -> Option<KeyRange> {
    // A copy: the request may be part of a larger buffer, and a watcher lives long.
    let own = |bytes: &Bytes| Bytes::copy_from_slice(bytes);
    let key = if request.key.is_empty() { Bytes::from_static(&[0]) } else { own(&request.key) };
    let range = KeyRange::from_request(&key, &own(&request.range_end));
    (!range.is_empty()).then_some(range)
}
