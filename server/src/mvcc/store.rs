//! Skeleton: bodies follow.
use std::sync::Arc;

use etcfs_proto::{
    etcdserverpb::{RangeRequest, RangeResponse, TxnRequest, TxnResponse},
    key::KeyRange,
};

use super::{ReadError, RevisionEvents};
use crate::storage::{Engine, StorageError};

#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Budget of the values kept in memory; those not yet in the image come on top.
    pub value_cache_bytes: u64,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self { value_cache_bytes: 128 << 20 }
    }
}

#[derive(Debug)]
pub struct Store {}

/// What `HashKV` answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvHash {
    pub hash: u32,
    /// -1 where the store was never compacted.
    pub compact_revision: i64,
    pub hash_revision: i64,
}

/// A piece of history for watchers that are behind.
#[derive(Clone, Debug)]
pub struct History {
    pub events: Vec<RevisionEvents>,
    /// First revision not looked at.
    pub next: i64,
}

impl Store {
    pub fn open(_engine: Arc<dyn Engine>, _options: StoreOptions) -> Result<Self, StorageError> {
        unimplemented!()
    }
    /// Newest published revision.
    pub fn revision(&self) -> i64 {
        unimplemented!()
    }
    /// Reads below it are refused; 0 where the store was never compacted.
    pub fn compact_revision(&self) -> i64 {
        unimplemented!()
    }
    /// The header holds the revision alone.
    pub fn range(&self, _request: &RangeRequest) -> Result<RangeResponse, ReadError> {
        unimplemented!()
    }
    pub fn read_txn(&self, _request: &TxnRequest) -> Result<TxnResponse, ReadError> {
        unimplemented!()
    }
    /// Revision 0 or below is the newest. Long: for a thread that may block.
    pub fn hash_kv(&self, _revision: i64) -> Result<KvHash, ReadError> {
        unimplemented!()
    }
    /// Bytes of all revisions that are not compacted away, the quota's measure.
    pub fn size_in_use(&self) -> u64 {
        unimplemented!()
    }
    /// Keys that exist now.
    pub fn keys(&self) -> u64 {
        unimplemented!()
    }
    pub fn events_since(
        &self,
        _revision: i64,
        _range: Option<&KeyRange>,
        _limit: usize,
    ) -> Result<History, ReadError> {
        unimplemented!()
    }
    /// The image holds everything up to `revision`: its values may leave memory.
    pub fn written(&self, _revision: i64) {
        unimplemented!()
    }
    /// Calls `done` once the compaction at `revision` has deleted its rows, at once if it has.
    pub fn when_scrubbed(&self, _revision: i64, _done: Box<dyn FnOnce() + Send>) {
        unimplemented!()
    }
}
