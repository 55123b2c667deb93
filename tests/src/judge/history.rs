//! What the clients of one run asked and saw: the judge's whole input.
//!
//! Times are read from one monotonic clock. Three things make a history easy to
//! judge, and whoever records one keeps to them: a value is put by one operation
//! only, a deletion of several keys is part of a transaction that puts as well,
//! and some watcher saw every revision of the store.

use std::time::Duration;

use etcfs_proto::{
    etcdserverpb::{
        CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, LeaseGrantRequest,
        LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseLeasesRequest,
        LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse, LeaseTimeToLiveRequest,
        LeaseTimeToLiveResponse, PutRequest, PutResponse, RangeRequest, RangeResponse, RequestOp,
        ResponseHeader, TxnRequest, TxnResponse, WatchCreateRequest, WatchResponse, request_op, response_op,
    },
    mvccpb::KeyValue,
};

/// Time since the run began, on the one clock of all its clients.
pub type Moment = Duration;

/// Everything that the clients of one run saw.
#[derive(Clone, Debug, Default)]
pub struct History {
    pub operations: Vec<Operation>,
    pub streams: Vec<Stream>,
    pub end: End,
}

/// One call of a client.
#[derive(Clone, Debug)]
pub struct Operation {
    pub asked: Moment,
    /// When its answer came, or when the client gave up.
    pub answered: Moment,
    /// The member that was asked.
    pub member: usize,
    pub call: Call,
}

/// What was asked, and what came of it.
#[derive(Clone, Debug)]
pub enum Call {
    Put(PutRequest, Outcome<PutResponse>),
    Delete(DeleteRangeRequest, Outcome<DeleteRangeResponse>),
    Range(RangeRequest, Outcome<RangeResponse>),
    Txn(TxnRequest, Outcome<TxnResponse>),
    Compact(CompactionRequest, Outcome<CompactionResponse>),
    Grant(LeaseGrantRequest, Outcome<LeaseGrantResponse>),
    /// A time to live of zero says that there is no such lease.
    KeepAlive(LeaseKeepAliveRequest, Outcome<LeaseKeepAliveResponse>),
    Revoke(LeaseRevokeRequest, Outcome<LeaseRevokeResponse>),
    /// A time to live below zero says that there is no such lease.
    TimeToLive(LeaseTimeToLiveRequest, Outcome<LeaseTimeToLiveResponse>),
    Leases(LeaseLeasesRequest, Outcome<LeaseLeasesResponse>),
}

/// What a client knows of its call.
#[derive(Clone, Debug)]
pub enum Outcome<T> {
    Answered(T),
    /// The server said that it did not, and never will.
    Refused(Refusal),
    /// Nobody answered: it may have happened, or may yet.
    Lost,
}

/// Why a server did not do as it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The revision is compacted.
    Compacted,
    /// The revision is not made yet.
    Future,
    /// There is no such lease.
    NoLease,
    /// It takes no more for now, or finds the request wrong.
    Other,
}

/// One watch on one stream, from its creation until it broke.
#[derive(Clone, Debug)]
pub struct Stream {
    /// Who watched.
    pub name: String,
    pub member: usize,
    pub request: WatchCreateRequest,
    pub responses: Vec<(Moment, WatchResponse)>,
    /// The revision that it should have told of in the end and did not, for all the time it was given.
    pub stalled_before: Option<i64>,
}

/// The cluster when all faults were healed and all clients silent.
#[derive(Clone, Debug, Default)]
pub struct End {
    pub members: Vec<MemberEnd>,
    /// What should have ended with its lease by then, and was still there.
    pub outlived: Vec<KeyValue>,
    /// Members that ended without being made to, and how.
    pub fallen: Vec<String>,
}

/// What one member holds in the end.
#[derive(Clone, Debug, Default)]
pub struct MemberEnd {
    pub revision: i64,
    pub keys: Vec<KeyValue>,
    /// HashKV at that revision, and the compaction that it is counted from.
    pub hash: u32,
    pub compact_revision: i64,
}

impl<T> Outcome<T> {
    pub fn answer(&self) -> Option<&T> {
        match self {
            Self::Answered(answer) => Some(answer),
            Self::Refused(_) | Self::Lost => None,
        }
    }
}

/// Does the same with the outcome of each kind of call.
macro_rules! outcome {
    ($call:expr, $outcome:ident => $then:expr) => {
        match $call {
            Call::Put(_, $outcome) => $then,
            Call::Delete(_, $outcome) => $then,
            Call::Range(_, $outcome) => $then,
            Call::Txn(_, $outcome) => $then,
            Call::Compact(_, $outcome) => $then,
            Call::Grant(_, $outcome) => $then,
            Call::KeepAlive(_, $outcome) => $then,
            Call::Revoke(_, $outcome) => $then,
            Call::TimeToLive(_, $outcome) => $then,
            Call::Leases(_, $outcome) => $then,
        }
    };
}

impl Call {
    /// The revision that the answer's header tells.
    pub fn revision(&self) -> Option<i64> {
        self.header().map(|header| header.revision)
    }

    /// The term that the answer's header tells.
    pub(super) fn term(&self) -> Option<u64> {
        self.header().map(|header| header.raft_term)
    }

    fn header(&self) -> Option<&ResponseHeader> {
        outcome!(self, outcome => outcome.answer()?.header.as_ref())
    }

    /// True if nobody answered it.
    pub fn is_lost(&self) -> bool {
        outcome!(self, outcome => matches!(outcome, Outcome::Lost))
    }

    /// Why the server did not do it, if it said so.
    pub fn refusal(&self) -> Option<Refusal> {
        outcome!(self, outcome => match outcome {
            Outcome::Refused(refusal) => Some(*refusal),
            Outcome::Answered(_) | Outcome::Lost => None,
        })
    }

    /// True if its answer says that it changed the store, and so made a revision of its own.
    pub fn changed(&self) -> bool {
        match self {
            Self::Put(_, outcome) => outcome.answer().is_some(),
            Self::Delete(_, outcome) => outcome.answer().is_some_and(|answer| answer.deleted > 0),
            Self::Txn(_, outcome) => outcome.answer().is_some_and(has_changed),
            _ => false,
        }
    }

    /// Every put that it may make, on whichever branch.
    pub(super) fn puts(&self) -> Vec<&PutRequest> {
        let mut puts = Vec::new();
        match self {
            Self::Put(put, _) => puts.push(put),
            Self::Txn(txn, _) => puts_of(txn, &mut puts),
            _ => {}
        }
        puts
    }

    /// The lease that it asks about or binds keys to.
    pub(super) fn lease(&self) -> Option<i64> {
        let lease = match self {
            Self::Grant(_, outcome) => outcome.answer()?.id,
            Self::KeepAlive(request, _) => request.id,
            Self::Revoke(request, _) => request.id,
            Self::TimeToLive(request, _) => request.id,
            Self::Put(..) | Self::Txn(..) => self.puts().iter().map(|put| put.lease).find(|&id| id != 0)?,
            Self::Delete(..) | Self::Range(..) | Self::Compact(..) | Self::Leases(..) => return None,
        };
        Some(lease)
    }
}

fn has_changed(answer: &TxnResponse) -> bool {
    answer.responses.iter().filter_map(|response| response.response.as_ref()).any(|response| match response {
        response_op::Response::ResponsePut(_) => true,
        response_op::Response::ResponseDeleteRange(answer) => answer.deleted > 0,
        response_op::Response::ResponseTxn(answer) => has_changed(answer),
        response_op::Response::ResponseRange(_) => false,
    })
}

fn puts_of<'txn>(txn: &'txn TxnRequest, puts: &mut Vec<&'txn PutRequest>) {
    for RequestOp { request } in txn.success.iter().chain(&txn.failure) {
        match request {
            Some(request_op::Request::RequestPut(put)) => puts.push(put),
            Some(request_op::Request::RequestTxn(txn)) => puts_of(txn, puts),
            _ => {}
        }
    }
}
