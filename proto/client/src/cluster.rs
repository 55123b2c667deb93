//! The Cluster service: who the members are, and its changes.

use etcfs_proto::etcdserverpb::{
    MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse, MemberPromoteRequest,
    MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse, MemberUpdateRequest,
    MemberUpdateResponse, cluster_client::ClusterClient,
};

use crate::{Client, ClientError, call::Repeat, connection::Connection};

/// Requests on members.
#[derive(Clone, Copy, Debug)]
pub struct Cluster<'a> {
    client: &'a Client,
}

fn stub(connection: Connection) -> ClusterClient<Connection> {
    let origin = connection.origin();
    ClusterClient::with_origin(connection, origin)
}

impl<'a> Cluster<'a> {
    pub(crate) fn new(client: &'a Client) -> Self {
        Self { client }
    }

    pub async fn member_list(&self, request: MemberListRequest) -> Result<MemberListResponse, ClientError> {
        self.client
            .call(Repeat::Safe, |connection| async move { stub(connection).member_list(request).await })
            .await
    }

    /// A member to be: its id, and the settings with which it is to start. Once
    /// sent, it is not sent again: a second one would be refused, or be another.
    pub async fn member_add(&self, request: MemberAddRequest) -> Result<MemberAddResponse, ClientError> {
        self.client
            .call(Repeat::Unsafe, |connection| {
                let request = request.clone();
                async move { stub(connection).member_add(request).await }
            })
            .await
    }

    pub async fn member_remove(
        &self,
        request: MemberRemoveRequest,
    ) -> Result<MemberRemoveResponse, ClientError> {
        self.client
            .call(Repeat::Unsafe, |connection| async move { stub(connection).member_remove(request).await })
            .await
    }

    /// New peer URLs for a member.
    pub async fn member_update(
        &self,
        request: MemberUpdateRequest,
    ) -> Result<MemberUpdateResponse, ClientError> {
        self.client
            .call(Repeat::Unsafe, |connection| {
                let request = request.clone();
                async move { stub(connection).member_update(request).await }
            })
            .await
    }

    /// Lets a learner vote; refused until it has caught up.
    pub async fn member_promote(
        &self,
        request: MemberPromoteRequest,
    ) -> Result<MemberPromoteResponse, ClientError> {
        self.client
            .call(Repeat::Unsafe, |connection| async move { stub(connection).member_promote(request).await })
            .await
    }
}
