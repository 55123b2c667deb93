//! The Cluster service: who the members are.

use etcfs_proto::etcdserverpb::{MemberListRequest, MemberListResponse, cluster_client::ClusterClient};

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
}
