//! What other members say to this one: the Peer service on top of openraft, and
//! the Roster for those who want to join.

use std::{pin::Pin, sync::Arc};

use etcfs_proto::etcfs::peer::{
    self, append_entries_response as append, append_entries_response::Outcome, peer_server,
    replicate_response as replicate, roster_server,
};
use futures_util::{Stream, StreamExt as _, TryStreamExt as _};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, StreamAppendError, StreamAppendResult,
    TransferLeaderRequest, VoteRequest,
};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming, service::interceptor::InterceptedService};

use super::{
    Node,
    badge::{self, Guard},
    chunks, links, snapshots,
    types::{self, Command, TypeConfig},
};
use crate::{storage::IncomingSnapshot, threads};

/// Both services, for a gRPC router.
#[derive(Clone, Debug)]
pub struct PeerService {
    node: Node,
    /// One snapshot comes in at a time, for there is one file that it goes to.
    incoming: Arc<Mutex<()>>,
    ending: CancellationToken,
}

impl PeerService {
    /// Once `ending` is cancelled, the streams of a leader end; single calls are answered.
    pub fn new(node: &Node, ending: CancellationToken) -> Self {
        Self { node: node.clone(), incoming: Arc::default(), ending }
    }

    /// The Raft transport, for members of this cluster alone and with the limits
    /// that they keep among themselves.
    pub fn transport(&self) -> InterceptedService<peer_server::PeerServer<Self>, Guard> {
        let server = peer_server::PeerServer::new(self.clone())
            .max_decoding_message_size(links::MESSAGE_BYTES_MAX)
            .max_encoding_message_size(links::MESSAGE_BYTES_MAX);
        InterceptedService::new(server, self.node.guard())
    }

    /// For whoever asks.
    pub fn roster(&self) -> roster_server::RosterServer<Self> {
        roster_server::RosterServer::new(self.clone())
    }
}

impl PeerService {
    /// What passes between this member and the one that calls.
    fn traffic<T>(&self, request: &Request<T>) -> Arc<links::Traffic> {
        self.node.inner.links.traffic(badge::from(request.metadata()))
    }
}

fn stopped(error: impl std::fmt::Display) -> Status {
    Status::unavailable(error.to_string())
}

fn append_request(request: peer::AppendEntriesRequest) -> Result<AppendEntriesRequest<TypeConfig>, Status> {
    let entries = request.entries.into_iter().map(types::from_entry).collect::<Result<_, _>>();
    Ok(AppendEntriesRequest {
        vote: types::from_vote(&request.vote.unwrap_or_default()),
        prev_log_id: request.prev.as_ref().map(types::from_id),
        entries: entries.map_err(|error| Status::invalid_argument(error.to_string()))?,
        leader_commit: request.committed.as_ref().map(types::from_id),
    })
}

fn replicated(result: &StreamAppendResult<TypeConfig>) -> peer::ReplicateResponse {
    let outcome = match result {
        Ok(Some(id)) => replicate::Outcome::Matching(types::to_id(id)),
        Ok(None) => replicate::Outcome::Nothing(replicate::Nothing {}),
        Err(StreamAppendError::Conflict(id)) => replicate::Outcome::Conflict(types::to_id(id)),
        Err(StreamAppendError::HigherVote(vote)) => replicate::Outcome::HigherVote(types::to_vote(vote)),
    };
    peer::ReplicateResponse { outcome: Some(outcome) }
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
        let traffic = self.traffic(&request);
        traffic.receives(request.get_ref());
        let rpc = append_request(request.into_inner())?;
        let outcome = match self.node.inner.raft.append_entries(rpc).await.map_err(stopped)? {
            AppendEntriesResponse::Success => Outcome::Success(append::Success {}),
            AppendEntriesResponse::PartialSuccess(Some(id)) => Outcome::Partial(types::to_id(&id)),
            // Nothing of it is here: the leader looks again where the logs part.
            AppendEntriesResponse::PartialSuccess(None) | AppendEntriesResponse::Conflict => {
                Outcome::Conflict(append::Conflict {})
            }
            AppendEntriesResponse::HigherVote(vote) => Outcome::HigherVote(types::to_vote(&vote)),
        };
        if !matches!(outcome, Outcome::HigherVote(_)) {
            self.node.inner.contact.heard();
        }
        let answer = peer::AppendEntriesResponse { outcome: Some(outcome) };
        traffic.sends(&answer);
        Ok(Response::new(answer))
    }

    type ReplicateStream = Pin<Box<dyn Stream<Item = Result<peer::ReplicateResponse, Status>> + Send>>;

    async fn replicate(
        &self,
        request: Request<Streaming<peer::AppendEntriesRequest>>,
    ) -> Result<Response<Self::ReplicateStream>, Status> {
        let traffic = self.traffic(&request);
        let coming = traffic.clone();
        let requests = request.into_inner().map(move |request| {
            let request = request?;
            coming.receives(&request);
            append_request(request)
        });
        // A request that does not make sense ends the stream, as a broken connection does.
        let requests = requests.take_while(|request| {
            if let Err(error) = request {
                tracing::debug!(%error, "the stream of a leader has ended");
            }
            std::future::ready(request.is_ok())
        });
        let requests = requests.filter_map(|request| std::future::ready(request.ok()));
        let answers = self.node.inner.raft.stream_append(requests);
        let contact = self.node.inner.contact.clone();
        let answers = answers.map(move |answer| {
            let answer = answer.map_err(stopped)?;
            if !matches!(answer, Err(StreamAppendError::HigherVote(_))) {
                contact.heard();
            }
            let answer = replicated(&answer);
            traffic.sends(&answer);
            Ok(answer)
        });
        // A leader would never end it, and hold up the end of this member.
        Ok(Response::new(Box::pin(answers.take_until(self.ending.clone().cancelled_owned()))))
    }

    async fn vote(
        &self,
        request: Request<peer::VoteRequest>,
    ) -> Result<Response<peer::VoteResponse>, Status> {
        let rpc = vote_request(request.get_ref());
        let term = rpc.vote.leader_id.term;
        let response = self.node.inner.raft.vote(rpc).await.map_err(stopped)?;
        tracing::info!(term, granted = response.vote_granted, "was asked for a vote");
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
        let traffic = self.traffic(&request);
        let mut coming = request.into_inner().inspect_ok(move |chunk| traffic.receives(chunk));
        let first = coming.next().await.ok_or_else(|| Status::invalid_argument("no chunk"))??;
        let vote = first.vote.ok_or_else(|| Status::invalid_argument("the first chunk has no vote"))?;
        let failed = |error: &dyn std::fmt::Display| Status::internal(error.to_string());
        let dir = self.node.inner.snapshots.dir();
        let mut incoming = IncomingSnapshot::create(dir).map_err(|error| failed(&error))?;
        incoming.write(&chunks::unfold(&first)?).map_err(|error| failed(&error))?;
        while let Some(chunk) = coming.next().await {
            incoming.write(&chunks::unfold(&chunk?)?).map_err(|error| failed(&error))?;
        }
        let threads = &*self.node.inner.host.threads;
        let file = threads::aside(threads, "take-snapshot", || incoming.finish()).await.map_err(stopped)?;
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

    async fn propose(
        &self,
        request: Request<peer::ProposeRequest>,
    ) -> Result<Response<peer::ProposeResponse>, Status> {
        self.traffic(&request).receives(request.get_ref());
        let peer::ProposeRequest { term, batch } = request.into_inner();
        let command = Command::decode(batch).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let refused = self.node.accept(term, command).await?;
        Ok(Response::new(peer::ProposeResponse { refused }))
    }
}

#[tonic::async_trait]
impl roster_server::Roster for PeerService {
    async fn members(
        &self,
        request: Request<peer::MembersRequest>,
    ) -> Result<Response<peer::MembersResponse>, Status> {
        let cluster = &self.node.inner.state.cluster;
        let members = cluster.members();
        if members.is_empty() {
            return Err(Status::unavailable("this member has not found its cluster yet"));
        }
        Ok(Response::new(peer::MembersResponse {
            cluster_id: self.node.cluster_id(),
            member_id: self.node.member_id(),
            members,
            version: self.node.inner.version.to_owned(),
            asker_removed: cluster.is_removed(request.get_ref().asker),
            cluster_version: cluster.version(),
        }))
    }
}
