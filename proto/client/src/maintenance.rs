//! The Maintenance service, of the member that the client is connected to.

use etcfs_proto::etcdserverpb::{
    AlarmRequest, AlarmResponse, DefragmentRequest, DefragmentResponse, DowngradeRequest, DowngradeResponse,
    HashKvRequest, HashKvResponse, HashRequest, HashResponse, MoveLeaderRequest, MoveLeaderResponse,
    SnapshotRequest, SnapshotResponse, StatusRequest, StatusResponse, maintenance_client::MaintenanceClient,
};
use tonic::Streaming;

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

    /// Of everything that the member stores; for tests.
    pub async fn hash(&self) -> Result<HashResponse, ClientError> {
        self.client
            .call(Repeat::Safe, |connection| async move { stub(connection).hash(HashRequest {}).await })
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

    /// Gives back the space of what was deleted. It may take long: see
    /// [`Client::with_request_timeout`].
    pub async fn defragment(&self) -> Result<DefragmentResponse, ClientError> {
        self.client
            .call(Repeat::Unsafe, |connection| async move {
                stub(connection).defragment(DefragmentRequest {}).await
            })
            .await
    }

    /// Hands leadership over; only the leader does.
    pub async fn move_leader(&self, target_id: u64) -> Result<MoveLeaderResponse, ClientError> {
        self.client
            .call(Repeat::Unsafe, |connection| async move {
                stub(connection).move_leader(MoveLeaderRequest { target_id }).await
            })
            .await
    }

    pub async fn downgrade(&self, request: DowngradeRequest) -> Result<DowngradeResponse, ClientError> {
        self.client
            .call(Repeat::Unsafe, |connection| {
                let request = request.clone();
                async move { stub(connection).downgrade(request).await }
            })
            .await
    }

    /// All that the member stores, as a stream of one file.
    pub async fn snapshot(&self) -> Result<Snapshot, ClientError> {
        let parts = self.client.call(Repeat::Safe, |connection| async move {
            stub(connection).snapshot(SnapshotRequest {}).await
        });
        Ok(Snapshot { parts: parts.await? })
    }
}

/// A snapshot on its way. The bytes of all parts, in order, are the file; the
/// last 32 of them are the SHA-256 of those before.
#[derive(Debug)]
pub struct Snapshot {
    parts: Streaming<SnapshotResponse>,
}

impl Snapshot {
    /// The next part; none at the end.
    pub async fn next(&mut self) -> Result<Option<SnapshotResponse>, ClientError> {
        Ok(self.parts.message().await?)
    }
}
