//! What raised alarms forbid.
//!
//! NOSPACE refuses what adds data; reading, deleting, compacting and revoking
//! are the way out of it. CORRUPT refuses everything that clients do.

use etcfs_proto::{
    etcdserverpb::{AlarmType, RequestOp, TxnRequest, request_op},
    etcfs::command::request::Body,
};

use super::{Alarms, ApplyError};

pub(super) fn admit(alarms: &Alarms, body: &Body) -> Result<(), ApplyError> {
    let client = match body {
        Body::Put(_)
        | Body::DeleteRange(_)
        | Body::Txn(_)
        | Body::Compaction(_)
        | Body::LeaseGrant(_)
        | Body::LeaseRevoke(_) => true,
        // The cluster's own: a lease ends, an alarm is disarmed, whatever is raised.
        Body::LeaseExpire(_)
        | Body::LeaseCheckpoint(_)
        | Body::Alarm(_)
        | Body::MemberAttributes(_)
        | Body::ClusterVersion(_) => false,
    };
    if client && alarms.is_raised(AlarmType::Corrupt) {
        return Err(ApplyError::Corrupt);
    }
    if adds_data(body) && alarms.is_raised(AlarmType::Nospace) {
        return Err(ApplyError::NoSpace);
    }
    Ok(())
}

fn adds_data(body: &Body) -> bool {
    match body {
        Body::Put(_) | Body::LeaseGrant(_) => true,
        Body::Txn(txn) => puts(txn),
        _ => false,
    }
}

/// True iff either branch, or one nested in it, holds a put.
fn puts(txn: &TxnRequest) -> bool {
    let put = |op: &RequestOp| match &op.request {
        Some(request_op::Request::RequestPut(_)) => true,
        Some(request_op::Request::RequestTxn(inner)) => puts(inner),
        _ => false,
    };
    txn.success.iter().chain(&txn.failure).any(put)
}
