//! The Lease service: keys that end with their lease, and its renewal.

mod keep_alive;

use etcfs_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseLeasesRequest,
    LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse, LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse, lease_client::LeaseClient,
};
use tonic::{Response, Status};

pub use keep_alive::KeepAlive;

use crate::{Client, ClientError, call::Repeat, connection::Connection};

/// Requests on leases.
#[derive(Clone, Copy, Debug)]
pub struct Lease<'a> {
    client: &'a Client,
}

fn stub(connection: Connection) -> LeaseClient<Connection> {
    let (origin, answer_bytes_max) = (connection.origin(), connection.answer_bytes_max);
    LeaseClient::with_origin(connection, origin).max_decoding_message_size(answer_bytes_max)
}

impl<'a> Lease<'a> {
    pub(crate) fn new(client: &'a Client) -> Self {
        Self { client }
    }

    pub async fn grant(&self, request: LeaseGrantRequest) -> Result<LeaseGrantResponse, ClientError> {
        self.client
            .call(Repeat::Unsafe, |connection| async move { stub(connection).lease_grant(request).await })
            .await
    }

    pub async fn revoke(&self, id: i64) -> Result<LeaseRevokeResponse, ClientError> {
        let request = LeaseRevokeRequest { id };
        self.client
            .call(Repeat::Unsafe, |connection| async move { stub(connection).lease_revoke(request).await })
            .await
    }

    /// What is left of a lease; TTL -1 for one that does not exist.
    pub async fn time_to_live(
        &self,
        request: LeaseTimeToLiveRequest,
    ) -> Result<LeaseTimeToLiveResponse, ClientError> {
        self.client
            .call(
                Repeat::Safe,
                |connection| async move { stub(connection).lease_time_to_live(request).await },
            )
            .await
    }

    pub async fn leases(&self) -> Result<LeaseLeasesResponse, ClientError> {
        self.client
            .call(Repeat::Safe, |connection| async move {
                stub(connection).lease_leases(LeaseLeasesRequest {}).await
            })
            .await
    }

    /// Renews once; [`ClientError::LeaseGone`] if there is nothing to renew.
    pub async fn keep_alive_once(&self, id: i64) -> Result<LeaseKeepAliveResponse, ClientError> {
        let renewed = self.client.call(Repeat::Safe, |connection| renew_once(connection, id)).await?;
        if renewed.ttl <= 0 { Err(ClientError::LeaseGone { id }) } else { Ok(renewed) }
    }

    /// Renews at once and then at every third of the TTL, until the lease ends
    /// or the handle is dropped.
    pub fn keep_alive(&self, id: i64) -> KeepAlive {
        KeepAlive::start(self.client.clone(), id)
    }
}

async fn renew_once(connection: Connection, id: i64) -> Result<Response<LeaseKeepAliveResponse>, Status> {
    let requests = tokio_stream::once(LeaseKeepAliveRequest { id });
    let mut answers = stub(connection).lease_keep_alive(requests).await?.into_inner();
    answers
        .message()
        .await?
        .map(Response::new)
        .ok_or_else(|| Status::unavailable("the renewal was not answered"))
}
