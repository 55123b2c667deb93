//! Skeleton: bodies follow.
use std::sync::Arc;

use etcfs_proto::etcfs::{command, record};

use super::{Alarms, Applied, Cluster};
use crate::{
    lease::TableHandle,
    mvcc::{Store, StoreOptions},
    storage::{Batch, Engine, StorageError},
};

/// The replicated state's only writer.
#[derive(Debug)]
pub struct Machine {}

/// Cheap read handles of what the machine keeps.
#[derive(Clone, Debug)]
pub struct State {
    pub store: Arc<Store>,
    pub leases: TableHandle,
    pub cluster: Cluster,
    pub alarms: Alarms,
}

impl Machine {
    pub fn open(_engine: Arc<dyn Engine>, _options: StoreOptions) -> Result<(Self, State), StorageError> {
        unimplemented!()
    }
    /// Applied log id, membership and counters as of the last applied entry.
    pub fn meta(&self) -> &record::Meta {
        unimplemented!()
    }
    /// Names the cluster; stored with the next entry.
    pub fn set_cluster_id(&mut self, _cluster_id: u64) {
        unimplemented!()
    }
    pub fn apply(&mut self, _id: &record::LogId, _batch: &command::Batch) -> Result<Applied, StorageError> {
        unimplemented!()
    }
    pub fn apply_blank(&mut self, _id: &record::LogId) -> Applied {
        unimplemented!()
    }
    pub fn apply_membership(&mut self, _id: &record::LogId, _membership: record::Membership) -> Applied {
        unimplemented!()
    }
    /// Lets readers see everything up to `revision`.
    pub fn publish(&self, _revision: i64) {
        unimplemented!()
    }
    /// True while a compaction's rows are still to be deleted.
    pub fn scrub_pending(&self) -> bool {
        unimplemented!()
    }
    /// Deletes one chunk of compacted rows: a batch for the image, to submit after those of the
    /// entries applied so far. `None`: nothing to do, or a pinned reader is in the way.
    pub fn scrub(&mut self) -> Option<Batch> {
        unimplemented!()
    }
    /// Replaces the whole state by that of an engine which a snapshot filled; handles stay valid.
    pub fn install(&mut self, _engine: Arc<dyn Engine>) -> Result<(), StorageError> {
        unimplemented!()
    }
}
