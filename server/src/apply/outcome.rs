//! What applying gives back.

use etcfs_proto::etcdserverpb::{
    AlarmResponse, CompactionResponse, DeleteRangeResponse, LeaseGrantResponse, LeaseRevokeResponse,
    PutResponse, TxnResponse,
};

use super::ApplyError;
use crate::{mvcc::RevisionEvents, storage::Batch};

/// What one log entry did.
#[derive(Debug, Default)]
pub struct Applied {
    /// Rows for the image, the applied index among them.
    pub batch: Batch,
    /// One for each request of the entry, by position.
    pub outcomes: Vec<Outcome>,
    /// Revisions that the entry made, ascending.
    pub events: Vec<RevisionEvents>,
    /// The store's revision after the entry.
    pub revision: i64,
}

pub type Outcome = Result<Response, ApplyError>;

/// The answer to one request. Its header holds the revision alone.
#[derive(Clone, Debug, PartialEq)]
pub enum Response {
    Put(PutResponse),
    DeleteRange(DeleteRangeResponse),
    Txn(TxnResponse),
    Compaction(CompactionResponse),
    LeaseGrant(LeaseGrantResponse),
    LeaseRevoke(LeaseRevokeResponse),
    Alarm(AlarmResponse),
    /// A command of the cluster's own, which has no answer.
    Done,
}
