//! The Auth service: users, roles and their rights, and who a client is.
//!
//! Passwords are in the requests and nowhere else: nothing here prints or keeps
//! one.

use etcfs_proto::etcdserverpb::{
    AuthDisableRequest, AuthDisableResponse, AuthEnableRequest, AuthEnableResponse, AuthRoleAddRequest,
    AuthRoleAddResponse, AuthRoleDeleteRequest, AuthRoleDeleteResponse, AuthRoleGetRequest,
    AuthRoleGetResponse, AuthRoleGrantPermissionRequest, AuthRoleGrantPermissionResponse,
    AuthRoleListRequest, AuthRoleListResponse, AuthRoleRevokePermissionRequest,
    AuthRoleRevokePermissionResponse, AuthStatusRequest, AuthStatusResponse, AuthUserAddRequest,
    AuthUserAddResponse, AuthUserChangePasswordRequest, AuthUserChangePasswordResponse,
    AuthUserDeleteRequest, AuthUserDeleteResponse, AuthUserGetRequest, AuthUserGetResponse,
    AuthUserGrantRoleRequest, AuthUserGrantRoleResponse, AuthUserListRequest, AuthUserListResponse,
    AuthUserRevokeRoleRequest, AuthUserRevokeRoleResponse, AuthenticateRequest, AuthenticateResponse,
    auth_client::AuthClient,
};

use crate::{Client, ClientError, call::Repeat, connection::Connection};

/// Requests on users, roles and rights.
#[derive(Clone, Copy, Debug)]
pub struct Auth<'a> {
    client: &'a Client,
}

pub(crate) fn stub(connection: Connection) -> AuthClient<Connection> {
    let origin = connection.origin();
    AuthClient::with_origin(connection, origin)
}

macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident($request:ty) -> $response:ty, $repeat:ident;)*) => {
        $($(#[$doc])* pub async fn $name(&self, request: $request) -> Result<$response, ClientError> {
            self.client
                .call(Repeat::$repeat, |connection| {
                    let request = request.clone();
                    async move { stub(connection).$name(request).await }
                })
                .await
        })*
    };
}

impl<'a> Auth<'a> {
    pub(crate) fn new(client: &'a Client) -> Self {
        Self { client }
    }

    /// Needs the user root with the role root; to enable twice is the same as once.
    pub async fn auth_enable(&self) -> Result<AuthEnableResponse, ClientError> {
        self.client
            .call(Repeat::Safe, |connection| async move {
                stub(connection).auth_enable(AuthEnableRequest {}).await
            })
            .await
    }

    pub async fn auth_disable(&self) -> Result<AuthDisableResponse, ClientError> {
        self.client
            .call(Repeat::Safe, |connection| async move {
                stub(connection).auth_disable(AuthDisableRequest {}).await
            })
            .await
    }

    pub async fn auth_status(&self) -> Result<AuthStatusResponse, ClientError> {
        self.client
            .call(Repeat::Safe, |connection| async move {
                stub(connection).auth_status(AuthStatusRequest {}).await
            })
            .await
    }

    pub async fn user_list(&self) -> Result<AuthUserListResponse, ClientError> {
        self.client
            .call(Repeat::Safe, |connection| async move {
                stub(connection).user_list(AuthUserListRequest {}).await
            })
            .await
    }

    pub async fn role_list(&self) -> Result<AuthRoleListResponse, ClientError> {
        self.client
            .call(Repeat::Safe, |connection| async move {
                stub(connection).role_list(AuthRoleListRequest {}).await
            })
            .await
    }

    calls! {
        /// A token for a user; the client's own credentials are sent by themselves.
        authenticate(AuthenticateRequest) -> AuthenticateResponse, Safe;
        user_add(AuthUserAddRequest) -> AuthUserAddResponse, Unsafe;
        user_get(AuthUserGetRequest) -> AuthUserGetResponse, Safe;
        user_delete(AuthUserDeleteRequest) -> AuthUserDeleteResponse, Unsafe;
        user_change_password(AuthUserChangePasswordRequest) -> AuthUserChangePasswordResponse, Unsafe;
        user_grant_role(AuthUserGrantRoleRequest) -> AuthUserGrantRoleResponse, Unsafe;
        user_revoke_role(AuthUserRevokeRoleRequest) -> AuthUserRevokeRoleResponse, Unsafe;
        role_add(AuthRoleAddRequest) -> AuthRoleAddResponse, Unsafe;
        role_get(AuthRoleGetRequest) -> AuthRoleGetResponse, Safe;
        role_delete(AuthRoleDeleteRequest) -> AuthRoleDeleteResponse, Unsafe;
        role_grant_permission(AuthRoleGrantPermissionRequest) -> AuthRoleGrantPermissionResponse, Unsafe;
        role_revoke_permission(AuthRoleRevokePermissionRequest) -> AuthRoleRevokePermissionResponse, Unsafe;
    }
}
