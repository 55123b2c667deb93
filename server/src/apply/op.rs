//! What etcd calls each kind of request, where it counts what was applied.

use etcfs_proto::etcfs::command::{Request, request::Body};

use super::{ApplyError, Outcome};

/// etcd's name for what a request does, on whosever behalf.
pub fn op(request: &Request) -> &'static str {
    let mut request = request;
    while let Some(Body::OnBehalf(on_behalf)) = &request.body {
        let Some(of_caller) = &on_behalf.request else { return UNKNOWN };
        request = of_caller;
    }
    let Some(body) = &request.body else { return UNKNOWN };
    match body {
        Body::Put(_) => "Put",
        Body::DeleteRange(_) => "DeleteRange",
        Body::Txn(_) => "Txn",
        Body::Compaction(_) => "Compaction",
        Body::LeaseGrant(_) => "LeaseGrant",
        // etcd's leader revokes what has expired like a client does.
        Body::LeaseRevoke(_) | Body::LeaseExpire(_) => "LeaseRevoke",
        Body::LeaseCheckpoint(_) => "LeaseCheckpoint",
        Body::Alarm(_) => "Alarm",
        Body::MemberAttributes(_) => "ClusterMemberAttrSet",
        Body::ClusterVersion(_) => "ClusterVersionSet",
        Body::SetDowngrade(_) => "DowngradeInfoSet",
        Body::IssueToken(_) => "Authenticate",
        Body::AuthEnable(_) => "AuthEnable",
        Body::AuthDisable(_) => "AuthDisable",
        Body::UserAdd(_) => "AuthUserAdd",
        Body::UserDelete(_) => "AuthUserDelete",
        Body::UserChangePassword(_) => "AuthUserChangePassword",
        Body::UserGrantRole(_) => "AuthUserGrantRole",
        Body::UserRevokeRole(_) => "AuthUserRevokeRole",
        Body::RoleAdd(_) => "AuthRoleAdd",
        Body::RoleDelete(_) => "AuthRoleDelete",
        Body::RoleGrantPermission(_) => "AuthRoleGrantPermission",
        Body::RoleRevokePermission(_) => "AuthRoleRevokePermission",
        Body::OnBehalf(_) => UNKNOWN,
    }
}

const UNKNOWN: &str = "unknown";

/// Whether etcd counts it as done: a revision that is compacted is nobody's failure.
pub fn succeeded(outcome: &Outcome) -> bool {
    matches!(outcome, Ok(_) | Err(ApplyError::Compacted))
}

#[cfg(test)]
mod tests {
    use etcfs_proto::{etcdserverpb::PutRequest, etcfs::command::OnBehalf};

    use super::*;

    #[test]
    fn a_request_on_behalf_of_a_user_is_named_for_what_it_does() {
        let put = Request { body: Some(Body::Put(PutRequest::default())) };
        let on_behalf = OnBehalf { request: Some(Box::new(put.clone())), ..OnBehalf::default() };
        assert_eq!(op(&Request { body: Some(Body::OnBehalf(Box::new(on_behalf))) }), op(&put));
        assert_eq!(op(&put), "Put");
        assert_eq!(op(&Request::default()), "unknown");
    }
}
