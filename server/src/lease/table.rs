//! Skeleton: bodies follow.
use bytes::Bytes;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseFacts {
    pub id: i64,
    /// Granted, in seconds.
    pub ttl: i64,
    /// From the last checkpoint, in seconds; 0 for none.
    pub remaining_ttl: i64,
}

/// What the lessor must know of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseChange {
    Granted(LeaseFacts),
    Revoked(i64),
    Checkpointed(LeaseFacts),
    /// Everything may have changed (a snapshot was installed): read `all` again.
    Replaced,
}

/// Read handle of the lease table.
#[derive(Clone, Debug)]
pub struct TableHandle {}

impl TableHandle {
    pub fn lookup(&self, _id: i64) -> Option<LeaseFacts> {
        unimplemented!()
    }
    /// In key order; `None` for an unknown lease.
    pub fn keys(&self, _id: i64) -> Option<Vec<Bytes>> {
        unimplemented!()
    }
    pub fn ids(&self) -> Vec<i64> {
        unimplemented!()
    }
    pub fn all(&self) -> Vec<LeaseFacts> {
        unimplemented!()
    }
    /// Calls `listener` with every change from now on, in order, on the apply thread (it must not
    /// block: send to a channel); gives the leases that stand now, with nothing missed between.
    pub fn follow(&self, _listener: Box<dyn Fn(LeaseChange) + Send + Sync>) -> Vec<LeaseFacts> {
        unimplemented!()
    }
}
