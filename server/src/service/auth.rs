//! The Auth service: users, roles, logins. Also [`Access`]: who may call what.

use std::sync::Arc;

use etcfs_proto::{
    etcdserverpb::{
        AuthDisableResponse, AuthEnableResponse, AuthRoleAddRequest, AuthRoleAddResponse,
        AuthRoleDeleteRequest, AuthRoleDeleteResponse, AuthRoleGetRequest, AuthRoleGetResponse,
        AuthRoleGrantPermissionRequest, AuthRoleGrantPermissionResponse, AuthRoleListResponse,
        AuthRoleRevokePermissionRequest, AuthRoleRevokePermissionResponse, AuthStatusResponse,
        AuthUserAddRequest, AuthUserAddResponse, AuthUserChangePasswordRequest,
        AuthUserChangePasswordResponse, AuthUserDeleteRequest, AuthUserDeleteResponse, AuthUserGetRequest,
        AuthUserGetResponse, AuthUserGrantRoleRequest, AuthUserGrantRoleResponse, AuthUserListResponse,
        AuthUserRevokeRoleRequest, AuthUserRevokeRoleResponse, AuthenticateRequest, AuthenticateResponse,
        ResponseHeader,
    },
    etcfs::command::{OnBehalf, Request, request::Body},
};

use super::{Headers, Refusal, login::Logins};
use crate::{
    auth::{self, AuthError, Caller},
    lease::table::TableHandle,
    mvcc::Store,
    propose::{Proposer, ReadBarrier, Response},
};

/// Who may call a method at all; what its request then needs is asked for by the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// Anybody, without saying who he is.
    Open,
    /// Whoever is logged in.
    User,
    /// Whoever is logged in; the service looks at what the request touches.
    Own,
    /// Judged by the service, one request of the stream after another: a stream
    /// outlives those that are refused.
    Each,
    Root,
}

/// Judges callers; cheap to clone.
#[derive(Clone, Debug)]
pub struct Access {
    pub auth: auth::Auth,
    pub leases: TableHandle,
}

impl Access {
    pub(super) fn method(&self, right: Right, caller: &Caller) -> Result<(), Refusal> {
        if matches!(right, Right::Open | Right::Each) {
            return Ok(());
        }
        match self.auth.rights_of(caller)? {
            Some(rights) if right == Right::Root && !rights.is_root() => Err(Refusal::PermissionDenied),
            Some(_) | None => Ok(()),
        }
    }

    /// Asks for what a request needs.
    pub(super) fn demand(
        &self,
        caller: &Caller,
        what: impl FnOnce(auth::Demand<'_>) -> Result<(), AuthError>,
    ) -> Result<(), Refusal> {
        let Some(rights) = self.auth.rights_of(caller)? else { return Ok(()) };
        let lease_keys = |id| self.leases.keys(id).unwrap_or_default();
        Ok(what(auth::Demand::new(&rights, &lease_keys))?)
    }

    /// A request as it goes into the log: with the caller's name, where that matters.
    pub(super) fn sign(&self, caller: &Caller, body: Body) -> Request {
        let request = Request { body: Some(body) };
        match caller {
            Caller::User { name, revision } if self.auth.is_enabled() => {
                let auth_revision = revision.unwrap_or_else(|| self.auth.revision());
                let on_behalf =
                    OnBehalf { user: name.to_string(), auth_revision, request: Some(Box::new(request)) };
                Request { body: Some(Body::OnBehalf(Box::new(on_behalf))) }
            }
            Caller::User { .. } | Caller::Nobody => request,
        }
    }
}

#[derive(Clone, Debug)]
pub struct Auth {
    pub store: Arc<Store>,
    pub headers: Headers,
    pub access: Access,
    pub logins: Logins,
    pub proposer: Proposer,
    pub barrier: ReadBarrier,
}

/// Changes that go through the log as they are, and whose answer is a header alone.
macro_rules! changes {
    ($($name:ident($request:ty) -> $response:ident as $body:ident;)*) => {
        $(pub async fn $name(&self, request: $request, caller: &Caller) -> Result<$response, Refusal> {
            Ok($response { header: self.change(Body::$body(request), caller).await? })
        })*
    };
}

impl Auth {
    pub fn status(&self) -> AuthStatusResponse {
        let auth = &self.access.auth;
        AuthStatusResponse {
            header: self.header(),
            enabled: auth.is_enabled(),
            auth_revision: auth.revision(),
        }
    }

    pub async fn enable(&self, caller: &Caller) -> Result<AuthEnableResponse, Refusal> {
        let body = Body::AuthEnable(Default::default());
        Ok(AuthEnableResponse { header: self.change(body, caller).await? })
    }

    pub async fn disable(&self, caller: &Caller) -> Result<AuthDisableResponse, Refusal> {
        let body = Body::AuthDisable(Default::default());
        Ok(AuthDisableResponse { header: self.change(body, caller).await? })
    }

    pub async fn authenticate(&self, request: AuthenticateRequest) -> Result<AuthenticateResponse, Refusal> {
        let token = self.logins.login(&request.name, request.password).await?;
        Ok(AuthenticateResponse { header: self.header(), token })
    }

    pub async fn user_add(
        &self,
        mut request: AuthUserAddRequest,
        caller: &Caller,
    ) -> Result<AuthUserAddResponse, Refusal> {
        let password = std::mem::take(&mut request.password);
        // A hash that came with the request is nobody's word for anything.
        request.hashed_password = String::new();
        if request.name.is_empty() {
            return Err(Refusal::UserEmpty);
        }
        if !request.options.is_some_and(|options| options.no_password) {
            request.hashed_password = self.logins.hash(&request.name, password).await?;
        }
        Ok(AuthUserAddResponse { header: self.change(Body::UserAdd(request), caller).await? })
    }

    pub async fn user_change_password(
        &self,
        mut request: AuthUserChangePasswordRequest,
        caller: &Caller,
    ) -> Result<AuthUserChangePasswordResponse, Refusal> {
        let password = std::mem::take(&mut request.password);
        request.hashed_password = self.logins.hash(&request.name, password).await?;
        let header = self.change(Body::UserChangePassword(request), caller).await?;
        Ok(AuthUserChangePasswordResponse { header })
    }

    changes! {
        user_delete(AuthUserDeleteRequest) -> AuthUserDeleteResponse as UserDelete;
        user_grant_role(AuthUserGrantRoleRequest) -> AuthUserGrantRoleResponse as UserGrantRole;
        user_revoke_role(AuthUserRevokeRoleRequest) -> AuthUserRevokeRoleResponse as UserRevokeRole;
        role_add(AuthRoleAddRequest) -> AuthRoleAddResponse as RoleAdd;
        role_delete(AuthRoleDeleteRequest) -> AuthRoleDeleteResponse as RoleDelete;
        role_grant_permission(AuthRoleGrantPermissionRequest) -> AuthRoleGrantPermissionResponse as RoleGrantPermission;
        role_revoke_permission(AuthRoleRevokePermissionRequest) -> AuthRoleRevokePermissionResponse as RoleRevokePermission;
    }

    /// Root's, and each user's own.
    pub async fn user_get(
        &self,
        request: AuthUserGetRequest,
        caller: &Caller,
    ) -> Result<AuthUserGetResponse, Refusal> {
        self.barrier.wait().await?;
        let own = matches!(caller, Caller::User { name, .. } if **name == *request.name);
        self.access.demand(caller, |demand| if own { Ok(()) } else { demand.root() })?;
        let roles = self.access.auth.roles_of(&request.name)?;
        Ok(AuthUserGetResponse { header: self.header(), roles })
    }

    pub async fn user_list(&self) -> Result<AuthUserListResponse, Refusal> {
        self.barrier.wait().await?;
        Ok(AuthUserListResponse { header: self.header(), users: self.access.auth.users() })
    }

    /// Root's, and that of those who have the role.
    pub async fn role_get(
        &self,
        request: AuthRoleGetRequest,
        caller: &Caller,
    ) -> Result<AuthRoleGetResponse, Refusal> {
        self.barrier.wait().await?;
        let auth = &self.access.auth;
        let held = match caller {
            Caller::User { name, .. } => auth.roles_of(name).is_ok_and(|roles| roles.contains(&request.role)),
            Caller::Nobody => false,
        };
        self.access.demand(caller, |demand| if held { Ok(()) } else { demand.root() })?;
        Ok(AuthRoleGetResponse { header: self.header(), perm: auth.permissions(&request.role)? })
    }

    pub async fn role_list(&self) -> Result<AuthRoleListResponse, Refusal> {
        self.barrier.wait().await?;
        Ok(AuthRoleListResponse { header: self.header(), roles: self.access.auth.roles() })
    }

    async fn change(&self, body: Body, caller: &Caller) -> Result<Option<ResponseHeader>, Refusal> {
        let (Response::Done, _term) = self.proposer.write(self.access.sign(caller, body)).await? else {
            unreachable!("apply answers a change of users or roles with nothing");
        };
        Ok(self.header())
    }

    fn header(&self) -> Option<ResponseHeader> {
        self.headers.at(self.store.revision())
    }
}
