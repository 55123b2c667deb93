//! What a revision changed, as watchers are told of it.

use std::sync::Arc;

use bytes::Bytes;
use etcfs_proto::mvccpb::KeyValue;

use super::Revision;

/// All changes of one revision, in the order in which they were made.
#[derive(Clone, Debug)]
pub struct RevisionEvents {
    pub revision: i64,
    pub events: Arc<[WatchEvent]>,
}

/// One change of one key.
#[derive(Clone, Debug)]
pub struct WatchEvent {
    pub kind: EventKind,
    /// PUT: the whole pair. DELETE: key and mod_revision alone.
    pub kv: KeyValue,
    pub previous: Previous,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    Put,
    Delete,
}

/// The pair that an event replaced, as far as it is at hand.
#[derive(Clone, Debug)]
pub enum Previous {
    /// The key did not exist.
    None,
    /// The encoded pair, still in memory when the change was made.
    Row(Bytes),
    /// To be read from the store; gone if that revision is compacted.
    At(Revision),
    /// Not looked up yet.
    Unknown,
}
