//! What other members say to this one: the Peer service on top of openraft.

use std::sync::Arc;

use etcfs_proto::etcfs::peer::{
    self, append_entries_response as append, append_entries_response::Outcome, peer_server,
};
use futures_util::StreamExt;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, TransferLeaderRequest, VoteRequest};
use tokio::sync::Mutex;
use tonic::{Request, Response, Status, Streaming};

use super::{
    Node, network, snapshots,
    types::{self, TypeConfig},
};
use crate::storage::IncomingSnapshot;

/// The service, for a gRPC router.
#[derive(Clone, Debug)]
pub struct PeerService {
    node: Node,
    /// One snapshot comes in at a time, for there is one file that it goes to.
    incoming: Arc<Mutex<()>>,
}

impl PeerService {
    pub fn new(node: &Node) -> Self {
        Self { node: node.clone(), incoming: Arc::default() }
    }

    /// With the limits that members keep among themselves.
    pub fn into_server(self) -> peer_server::PeerServer<Self> {
        peer_server::PeerServer::new(self)
            .max_decoding_message_size(network::MESSAGE_BYTES_MAX)
            .max_encoding_message_size(network::MESSAGE_BYTES_MAX)
    }
}

fn stopped(error: impl std::fmt::Display) -> Status {
    Status::unavailable(error.to_string())
}

fn vote_request(request: &peer::VoteRequest) -> VoteRequest<TypeConfig> {
    VoteRequest {
        vote: types::from_vote(&request.vote.unwrap_or_default()),
        last_log_id: request.last_log.as_ref().map(types::from_id),
        leadership_transfer: request.leadership_transfer,
    }
}

fn vote_response(response: &openraft::raft::VoteResponse<TypeConfig>) -> peer::VoteResponse {
    peer::VoteResponse {
        vote: Some(types::to_vote(&response.vote)),
        granted: response.vote_granted,
        last_log: response.last_log_id.as_ref().map(types::to_id),
    }
}

#[tonic::async_trait]
impl peer_server::Peer for PeerService {
    async fn append_entries(
        &self,
        request: Request<peer::AppendEntriesRequest>,
    ) -> Result<Response<peer::AppendEntriesResponse>, Status> {
        let request = request.into_inner();
        let entries = request.entries.into_iter().map(types::from_entry).collect::<Result<_, _>>();
        let rpc = AppendEntriesRequest {
            vote: types::from_vote(&request.vote.unwrap_or_default()),
            prev_log_id: request.prev.as_ref().map(types::from_id),
            entries: entries.map_err(|error| Status::invalid_argument(error.to_string()))?,
            leader_commit: request.committed.as_ref().map(types::from_id),
        };
        let outcome = match self.node.inner.raft.append_entries(rpc).await.map_err(stopped)? {
            AppendEntriesResponse::Success => Outcome::Success(append::Success {}),
            AppendEntriesResponse::PartialSuccess(Some(id)) => Outcome::Partial(types::to_id(&id)),
            // Nothing of it is here: the leader looks again where the logs part.
            AppendEntriesResponse::PartialSuccess(None) | AppendEntriesResponse::Conflict => {
                Outcome::Conflict(append::Conflict {})
            }
            AppendEntriesResponse::HigherVote(vote) => Outcome::HigherVote(types::to_vote(&vote)),
        };
        Ok(Response::new(peer::AppendEntriesResponse { outcome: Some(outcome) }))
    }

    async fn vote(
        &self,
        request: Request<peer::VoteRequest>,
    ) -> Result<Response<peer::VoteResponse>, Status> {
        let response = self.node.inner.raft.vote(vote_request(request.get_ref())).await.map_err(stopped)?;
        Ok(Response::new(vote_response(&response)))
    }

    async fn pre_vote(
        &self,
        request: Request<peer::VoteRequest>,
    ) -> Result<Response<peer::VoteResponse>, Status> {
        let response =
            self.node.inner.raft.pre_vote(vote_request(request.get_ref())).await.map_err(stopped)?;
        Ok(Response::new(vote_response(&response)))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<peer::SnapshotChunk>>,
    ) -> Result<Response<peer::SnapshotResponse>, Status> {
        let Ok(_only) = self.incoming.try_lock() else {
            return Err(Status::aborted("another snapshot is coming in"));
        };
        let mut chunks = request.into_inner();
        let first = chunks.next().await.ok_or_else(|| Status::invalid_argument("no chunk"))??;
        let vote = first.vote.ok_or_else(|| Status::invalid_argument("the first chunk has no vote"))?;
        let failed = |error: &dyn std::fmt::Display| Status::internal(error.to_string());
        let dir = self.node.inner.snapshots.dir();
        let mut incoming = IncomingSnapshot::create(dir).map_err(|error| failed(&error))?;
        incoming.write(&first.data).map_err(|error| failed(&error))?;
        while let Some(chunk) = chunks.next().await {
            incoming.write(&chunk?.data).map_err(|error| failed(&error))?;
        }
        let file = tokio::task::spawn_blocking(|| incoming.finish()).await.map_err(stopped)?;
        let file = file.map_err(|error| failed(&error))?;
        let snapshot = snapshots::described(file).map_err(|error| failed(&error))?;
        let raft = &self.node.inner.raft;
        let response =
            raft.install_full_snapshot(types::from_vote(&vote), snapshot).await.map_err(stopped)?;
        Ok(Response::new(peer::SnapshotResponse { vote: Some(types::to_vote(&response.vote)) }))
    }

    async fn transfer_leader(
        &self,
        request: Request<peer::TransferLeaderRequest>,
    ) -> Result<Response<peer::TransferLeaderResponse>, Status> {
        let request = request.into_inner();
        let rpc = TransferLeaderRequest::new(
            types::from_vote(&request.vote.unwrap_or_default()),
            request.to,
            request.last_log.as_ref().map(types::from_id),
        );
        let refused = self.node.inner.raft.handle_transfer_leader(rpc).await.map_err(stopped)?;
        refused.map_err(|error| Status::failed_precondition(error.to_string()))?;
        Ok(Response::new(peer::TransferLeaderResponse {}))
    }

    async fn read_index(
        &self,
        _request: Request<peer::ReadIndexRequest>,
    ) -> Result<Response<peer::ReadIndexResponse>, Status> {
        let read = self.node.leader_read_index().await.map_err(stopped)?;
        Ok(Response::new(peer::ReadIndexResponse { read: Some(types::to_id(&read)) }))
    }
}
