//! What this member says to others: openraft's calls as RPCs of the Peer service.

use std::{fmt, future::Future, io::Read, time::Duration};

use etcfs_proto::etcfs::{
    peer::{self, append_entries_response::Outcome, peer_client::PeerClient},
    record,
};
use futures_util::{future, stream};
use openraft::{
    RaftNetworkFactory,
    errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable},
    network::{RPCOption, RaftNetworkV2},
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
        TransferLeaderResponse, VoteRequest, VoteResponse,
    },
};
use tonic::{
    Code, Request, Status,
    transport::{Channel, Endpoint},
};

use super::types::{self, Peer, Snapshot, TypeConfig, Vote};
use crate::storage::SnapshotFile;

/// Largest message between members: some entries of the largest size.
pub(super) const MESSAGE_BYTES_MAX: usize = 64 << 20;
const CHUNK_BYTES: usize = 1 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A chunk that takes longer to get through has lost its way.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(600);

/// Makes clients; each connects when first used, and again after a loss.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Network;

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = PeerLink;

    async fn new_client(&mut self, target: u64, peer: &Peer) -> PeerLink {
        PeerLink::new(target, peer)
    }
}

/// The way to one member.
pub(super) struct PeerLink {
    target: u64,
    /// `None` where the member's URL can't be used.
    client: Option<PeerClient<Channel>>,
}

impl fmt::Debug for PeerLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerLink").field("target", &self.target).finish_non_exhaustive()
    }
}

impl PeerLink {
    pub(super) fn new(target: u64, peer: &Peer) -> Self {
        // Members list the same listener under several names; the first is as good as any.
        let endpoint = peer.urls.first().and_then(|url| Endpoint::from_shared(url.clone()).ok());
        let client = endpoint.map(|endpoint| {
            let channel = endpoint.connect_timeout(CONNECT_TIMEOUT).tcp_nodelay(true).connect_lazy();
            PeerClient::new(channel)
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX)
        });
        Self { target, client }
    }

    /// Asks the leader up to where a linearizable read must wait.
    pub(super) async fn read_index(&mut self, timeout: Duration) -> Result<Option<record::LogId>, Status> {
        let mut request = Request::new(peer::ReadIndexRequest {});
        request.set_timeout(timeout);
        Ok(self.client()?.read_index(request).await?.into_inner().read)
    }

    fn client(&mut self) -> Result<&mut PeerClient<Channel>, Status> {
        let target = self.target;
        self.client
            .as_mut()
            .ok_or_else(|| Status::unavailable(format!("member {target:x} has no usable URL")))
    }
}

/// Of a kind after which openraft waits before it tries again, or does not.
fn rpc_error(status: Status) -> RPCError<TypeConfig> {
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::Unimplemented => Unreachable::new(&status).into(),
        _ => NetworkError::new(&status).into(),
    }
}

fn with_timeout<T>(message: T, option: &RPCOption) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(option.soft_ttl());
    request
}

fn vote_response(response: peer::VoteResponse) -> VoteResponse<TypeConfig> {
    VoteResponse {
        vote: types::from_vote(&response.vote.unwrap_or_default()),
        vote_granted: response.granted,
        last_log_id: response.last_log.as_ref().map(types::from_id),
    }
}

fn vote_request(request: &VoteRequest<TypeConfig>) -> peer::VoteRequest {
    peer::VoteRequest {
        vote: Some(types::to_vote(&request.vote)),
        last_log: request.last_log_id.as_ref().map(types::to_id),
        leadership_transfer: request.leadership_transfer,
    }
}

impl RaftNetworkV2<TypeConfig> for PeerLink {
    type SnapshotData = SnapshotFile;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let request = peer::AppendEntriesRequest {
            vote: Some(types::to_vote(&rpc.vote)),
            prev: rpc.prev_log_id.as_ref().map(types::to_id),
            entries: rpc.entries.iter().map(types::to_entry).collect(),
            committed: rpc.leader_commit.as_ref().map(types::to_id),
        };
        let client = self.client().map_err(rpc_error)?;
        let response = client.append_entries(with_timeout(request, &option)).await.map_err(rpc_error)?;
        match response.into_inner().outcome {
            Some(Outcome::Success(_)) => Ok(AppendEntriesResponse::Success),
            Some(Outcome::Partial(id)) => {
                Ok(AppendEntriesResponse::PartialSuccess(Some(types::from_id(&id))))
            }
            Some(Outcome::Conflict(_)) => Ok(AppendEntriesResponse::Conflict),
            Some(Outcome::HigherVote(vote)) => Ok(AppendEntriesResponse::HigherVote(types::from_vote(&vote))),
            None => Err(NetworkError::from_string("the answer says nothing").into()),
        }
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let client = self.client().map_err(rpc_error)?;
        let response = client.vote(with_timeout(vote_request(&rpc), &option)).await.map_err(rpc_error)?;
        Ok(vote_response(response.into_inner()))
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let client = self.client().map_err(rpc_error)?;
        let response = client.pre_vote(with_timeout(vote_request(&rpc), &option)).await.map_err(rpc_error)?;
        Ok(vote_response(response.into_inner()))
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let streaming_error = |status: Status| match rpc_error(status) {
            RPCError::Unreachable(error) => StreamingError::Unreachable(error),
            RPCError::Network(error) => StreamingError::Network(error),
            RPCError::Timeout(error) => StreamingError::Timeout(error),
            RPCError::RemoteError(error) => match error.source {},
        };
        let mut request = Request::new(stream::iter(chunks(vote, &snapshot.snapshot)));
        request.set_timeout(SNAPSHOT_TIMEOUT);
        let sent = self.client().map_err(streaming_error)?.install_snapshot(request);
        match future::select(Box::pin(sent), Box::pin(cancel)).await {
            future::Either::Left((Ok(response), _)) => {
                let vote = response.into_inner().vote.unwrap_or_default();
                Ok(SnapshotResponse::new(types::from_vote(&vote)))
            }
            future::Either::Left((Err(status), _)) => Err(streaming_error(status)),
            future::Either::Right((closed, _)) => Err(StreamingError::Closed(closed)),
        }
    }

    async fn transfer_leader(
        &mut self,
        rpc: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let request = peer::TransferLeaderRequest {
            vote: Some(types::to_vote(rpc.from_leader())),
            to: *rpc.to_node_id(),
            last_log: rpc.last_log_id().map(types::to_id),
        };
        let client = self.client().map_err(rpc_error)?;
        client.transfer_leader(with_timeout(request, &option)).await.map_err(rpc_error)?;
        Ok(Ok(()))
    }
}

/// The file in pieces; one that can't be read ends the stream early, which its
/// receiver notices by the hash.
fn chunks(vote: Vote, snapshot: &SnapshotFile) -> impl Iterator<Item = peer::SnapshotChunk> + Send + use<> {
    let header = record::SnapshotHeader { meta: Some(snapshot.meta().clone()), ..Default::default() };
    let first = peer::SnapshotChunk {
        vote: Some(types::to_vote(&vote)),
        header: Some(header),
        data: Vec::new().into(),
    };
    let mut reader = snapshot.reader();
    let rest = std::iter::from_fn(move || {
        let mut data = Vec::with_capacity(CHUNK_BYTES);
        match reader.by_ref().take(CHUNK_BYTES as u64).read_to_end(&mut data) {
            Ok(0) => None,
            Ok(_) => Some(peer::SnapshotChunk { data: data.into(), ..Default::default() }),
            Err(error) => {
                tracing::warn!(%error, "cannot read the snapshot to send");
                None
            }
        }
    });
    std::iter::once(first).chain(rest)
}
