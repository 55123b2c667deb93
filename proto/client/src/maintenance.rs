//! The Maintenance service, of the member that the client is connected to.

use etcfs_proto::etcdserverpb::{
    AlarmRequest, AlarmResponse, HashKvRequest, HashKvResponse, StatusRequest, StatusResponse,
    maintenance_client::MaintenanceClient,
};

use crate::{Client, ClientError, call::Repeat, connection::Connection};

/// Requests on one member's state.
#[derive(Clone, Copy, Debug)]
pub struct Maintenance<'a> {
    client: &'a Client,
}

fn stub(connection: Connection) -> MaintenanceClient<Connection> {
    let origin = connection.origin();
    MaintenanceClient::with_origin(connection, origin)
}

impl<'a> Maintenance<'a> {
    pub(crate) fn new(client: &'a Client) -> Self {
        Self { client }
    }

    pub async fn status(&self) -> Result<StatusResponse, ClientError> {
        self.client
            .call(Repeat::Safe, |connection| async move { stub(connection).status(StatusRequest {}).await })
            .await
    }

    pub async fn hash_kv(&self, request: HashKvRequest) -> Result<HashKvResponse, ClientError> {
        self.client
            .call(Repeat::Safe, |connection| async move { stub(connection).hash_kv(request).await })
            .await
    }

    /// Lists or changes alarms; to raise or clear one twice is the same as once.
    pub async fn alarm(&self, request: AlarmRequest) -> Result<AlarmResponse, ClientError> {
        self.client
            .call(Repeat::Safe, |connection| async move { stub(connection).alarm(request).await })
            .await
    }
}
