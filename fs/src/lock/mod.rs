//! Cluster-wide file locks, as records in the key space. Pure: no server, no clock.
//!
//! A file's locks are the keys of one range, `.etcfs/lock/` + the file's key + NUL + a suffix of fixed length:
//! one record of what each owner holds, one of each request that waits. All are attached to the lease of their
//! mount's session, so they go when the mount, its host or its connection does.
//!
//! Who may have a lock is decided by the mount that asks, from the records as of one revision, and made so by a
//! transaction which compares that no record of the file was put since. Of two that decide at once, one begins
//! again. First come, first served: a request that holds nothing of the file waits for those that waited before it.
//!
//! The kernel says of a request neither flock nor fcntl (the library drops that bit), so the two are one class: they
//! exclude each other, as over NFS.

mod queue;
mod record;
mod span;

pub(crate) use queue::{Obstacle, Queue, Request};
pub(crate) use record::{Held, Kind, Record, file_of, held_key, line, range_of, waiting_key};
pub(crate) use span::{Mode, Span, Spans};

/// Records of locks: this, then the key of the file.
pub(crate) const LOCK_RECORDS: &[u8] = b".etcfs/lock/";

/// Who holds or asks, cluster-wide: a mount's session and a number in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Holder {
    pub(crate) session: crate::remote::LeaseId,
    pub(crate) owner: u64,
}
