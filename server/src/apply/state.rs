//! Skeleton: bodies follow.
use etcfs_proto::{etcdserverpb::AlarmType, etcfs::record};

/// Read handle of the cluster's members as applied here.
#[derive(Clone, Debug)]
pub struct Cluster {}

impl Cluster {
    pub fn cluster_id(&self) -> u64 {
        unimplemented!()
    }
    pub fn version(&self) -> String {
        unimplemented!()
    }
    /// By id.
    pub fn members(&self) -> Vec<record::Member> {
        unimplemented!()
    }
}

/// Read handle of the raised alarms.
#[derive(Clone, Debug)]
pub struct Alarms {}

impl Alarms {
    pub fn is_raised(&self, _kind: AlarmType) -> bool {
        unimplemented!()
    }
    /// `(member, kind)`.
    pub fn list(&self) -> Vec<(u64, AlarmType)> {
        unimplemented!()
    }
}
