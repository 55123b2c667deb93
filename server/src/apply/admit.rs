//! What raised alarms forbid, and what the caller's rights do.
//!
//! NOSPACE refuses what adds data; reading, deleting, compacting and revoking
//! are the way out of it. CORRUPT refuses everything that clients do.

use etcfs_proto::{
    etcdserverpb::{AlarmType, RequestOp, TxnRequest, request_op},
    etcfs::command::{OnBehalf, request::Body},
};

use super::{Alarms, ApplyError};
use crate::{
    auth::{Access, Auth, AuthError, Caller, Demand},
    lease::table::LeaseTable,
};

/// Refuses what the one on whose behalf it is done may not do. Without one it is the cluster's own, or
/// of a client of the time before authentication was enabled.
pub(super) fn permit(
    auth: &Auth,
    leases: &LeaseTable,
    caller: Option<&OnBehalf>,
    body: &Body,
) -> Result<(), AuthError> {
    if !auth.is_enabled() {
        return Ok(());
    }
    let Some(caller) = caller else {
        return if needs_a_user(body) { Err(AuthError::UserEmpty) } else { Ok(()) };
    };
    let caller = Caller::User { name: caller.user.as_str().into(), revision: Some(caller.auth_revision) };
    let Some(rights) = auth.rights_of(&caller)? else { return Ok(()) };
    let lease_keys = |id| leases.handle().keys(id).unwrap_or_default();
    let demand = Demand::new(&rights, &lease_keys);
    match body {
        Body::Put(request) => demand.put(request),
        Body::DeleteRange(request) => demand.delete_range(request),
        Body::Txn(request) => demand.txn(request),
        Body::LeaseRevoke(request) => demand.lease(Access::Write, request.id),
        Body::LeaseGrant(_) => Ok(()),
        // All else that users may ask for is root's; the cluster's own never comes on anybody's behalf.
        _ => demand.root(),
    }
}

fn needs_a_user(body: &Body) -> bool {
    match body {
        Body::Put(_)
        | Body::DeleteRange(_)
        | Body::Txn(_)
        | Body::LeaseGrant(_)
        | Body::LeaseRevoke(_)
        | Body::AuthEnable(_)
        | Body::AuthDisable(_)
        | Body::UserAdd(_)
        | Body::UserDelete(_)
        | Body::UserChangePassword(_)
        | Body::UserGrantRole(_)
        | Body::UserRevokeRole(_)
        | Body::RoleAdd(_)
        | Body::RoleDelete(_)
        | Body::RoleGrantPermission(_)
        | Body::RoleRevokePermission(_)
        | Body::SetDowngrade(_)
        | Body::OnBehalf(_) => true,
        // Compaction by rule, alarms of the quota, a login, and what members tell each other.
        Body::Compaction(_)
        | Body::Alarm(_)
        | Body::IssueToken(_)
        | Body::LeaseExpire(_)
        | Body::LeaseCheckpoint(_)
        | Body::MemberAttributes(_)
        | Body::ClusterVersion(_) => false,
    }
}

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
        | Body::ClusterVersion(_)
        // Who may come in is decided whatever the keys are like.
        | Body::OnBehalf(_)
        | Body::IssueToken(_)
        | Body::SetDowngrade(_)
        | Body::AuthEnable(_)
        | Body::AuthDisable(_)
        | Body::UserAdd(_)
        | Body::UserDelete(_)
        | Body::UserChangePassword(_)
        | Body::UserGrantRole(_)
        | Body::UserRevokeRole(_)
        | Body::RoleAdd(_)
        | Body::RoleDelete(_)
        | Body::RoleGrantPermission(_)
        | Body::RoleRevokePermission(_) => false,
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
