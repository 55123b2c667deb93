//! What this member says to others: openraft's calls as RPCs of the Peer service.

use std::{future::Future, sync::Arc, time::Duration};

use etcfs_proto::etcfs::peer::{
    self, append_entries_response::Outcome, replicate_response::Outcome as Replicated,
};
use futures_util::{Stream, StreamExt as _, future, stream};
use openraft::{
    OptionalSend, RaftNetworkFactory,
    base::{BoxFuture, BoxStream},
    errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable},
    network::{Backoff, RPCOption, RaftNetworkV2, stream_append_sequential},
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError, StreamAppendResult,
        TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
    },
};
use tokio::{
    sync::Semaphore,
    time::{self, Instant},
};
use tonic::{Code, Request, Status, Streaming};

use super::{
    chunks,
    links::{Link, Links, within},
    types::{self, Peer, Snapshot, TypeConfig, Vote},
};
use crate::storage::SnapshotFile;

/// Appends sent to one member and not answered yet. Each holds at most what the
/// log gives at once, so this bounds what waits on either side.
const APPENDS_IN_FLIGHT_MAX: usize = 16;
/// A stream of appends that does not open is given up, to look whether this member still leads.
const OPEN_TIMEOUT: Duration = Duration::from_secs(2);
/// A snapshot that takes longer has lost its way.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(3600);
/// Pause before a member that could not be reached is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Makes clients; each connects when first used, and again after a loss.
#[derive(Clone, Debug)]
pub(super) struct Network {
    pub(super) links: Links,
}

impl Network {
    fn client(&self, target: u64, peer: &Peer, pipelined: bool) -> PeerLink {
        PeerLink { links: self.links.clone(), link: self.links.to(target, peer), pipelined }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = PeerLink;

    async fn new_client(&mut self, target: u64, peer: &Peer) -> PeerLink {
        self.client(target, peer, true)
    }

    async fn new_heartbeat_client(&mut self, target: u64, peer: &Peer) -> PeerLink {
        self.client(target, peer, false)
    }
}

/// The way to one member, as openraft takes it.
#[derive(Debug)]
pub(super) struct PeerLink {
    links: Links,
    link: Arc<Link>,
    /// Appends go over one stream, each without waiting for the last.
    pipelined: bool,
}

/// Of a kind after which openraft waits before it tries again, or does not.
fn rpc_error(status: Status) -> RPCError<TypeConfig> {
    match status.code() {
        Code::Aborted | Code::Internal => NetworkError::new(&status).into(),
        _ => Unreachable::new(&status).into(),
    }
}

fn append_request(rpc: &AppendEntriesRequest<TypeConfig>) -> peer::AppendEntriesRequest {
    peer::AppendEntriesRequest {
        vote: Some(types::to_vote(&rpc.vote)),
        prev: rpc.prev_log_id.as_ref().map(types::to_id),
        entries: rpc.entries.iter().map(types::to_entry).collect(),
        committed: rpc.leader_commit.as_ref().map(types::to_id),
    }
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

impl PeerLink {
    /// Sends appends as they come, and gives the answers as they come.
    async fn replicate<S>(
        &self,
        input: S,
    ) -> Result<impl Stream<Item = Result<StreamAppendResult<TypeConfig>, Status>> + Send + use<S>, Status>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
    {
        let in_flight = Arc::new(Semaphore::new(APPENDS_IN_FLIGHT_MAX));
        let (slots, traffic) = (in_flight.clone(), self.link.traffic.clone());
        let requests = input.then(move |rpc| {
            let (slots, traffic) = (slots.clone(), traffic.clone());
            async move {
                slots.acquire().await.expect("the semaphore is never closed").forget();
                let request = append_request(&rpc);
                traffic.sends(&request);
                request
            }
        });
        let mut client = self.link.bulk()?;
        let opened = time::timeout(OPEN_TIMEOUT, client.replicate(requests)).await;
        let opened = opened.unwrap_or_else(|_| Err(Status::deadline_exceeded("the stream does not open")));
        let answers = match self.links.noted(&self.link, opened) {
            Ok(answers) => answers.into_inner(),
            Err(status) => {
                // openraft's own pause comes with the first request, and none was asked for.
                time::sleep(RETRY_PAUSE).await;
                return Err(status);
            }
        };
        let (links, link) = (self.links.clone(), self.link.clone());
        Ok(stream::unfold(Some(answers), move |answers| {
            let (links, link, in_flight) = (links.clone(), link.clone(), in_flight.clone());
            async move {
                let mut answers: Streaming<peer::ReplicateResponse> = answers?;
                match links.noted(&link, answers.message().await) {
                    Ok(answer) => {
                        in_flight.add_permits(1);
                        let answer = answer?;
                        link.traffic.receives(&answer);
                        Some((Ok(replicated(answer)), Some(answers)))
                    }
                    Err(status) => Some((Err(status), None)),
                }
            }
        }))
    }
}

fn replicated(answer: peer::ReplicateResponse) -> StreamAppendResult<TypeConfig> {
    match answer.outcome {
        Some(Replicated::Matching(id)) => Ok(Some(types::from_id(&id))),
        Some(Replicated::Nothing(_)) | None => Ok(None),
        Some(Replicated::Conflict(id)) => Err(StreamAppendError::Conflict(types::from_id(&id))),
        Some(Replicated::HigherVote(vote)) => Err(StreamAppendError::HigherVote(types::from_vote(&vote))),
    }
}

impl RaftNetworkV2<TypeConfig> for PeerLink {
    type SnapshotData = SnapshotFile;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        // No deadline: openraft drops a heartbeat that takes too long, and a connection that is dead
        // is found by its pings.
        let heartbeat = self.link.heartbeat();
        let mut client = self.link.control().map_err(rpc_error)?;
        let request = append_request(&rpc);
        self.link.traffic.sends(&request);
        let began = Instant::now();
        let answer = client.append_entries(request).await;
        let answer = self.links.noted(&self.link, answer).map_err(rpc_error)?.into_inner();
        heartbeat.answered();
        self.links.round_trip(&self.link, began.elapsed());
        self.link.traffic.receives(&answer);
        match answer.outcome {
            Some(Outcome::Success(_)) => Ok(AppendEntriesResponse::Success),
            Some(Outcome::Partial(id)) => {
                Ok(AppendEntriesResponse::PartialSuccess(Some(types::from_id(&id))))
            }
            Some(Outcome::Conflict(_)) => Ok(AppendEntriesResponse::Conflict),
            Some(Outcome::HigherVote(vote)) => Ok(AppendEntriesResponse::HigherVote(types::from_vote(&vote))),
            None => Err(NetworkError::from_string("the answer says nothing").into()),
        }
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<
        's,
        Result<
            BoxStream<'s, Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>>,
            RPCError<TypeConfig>,
        >,
    >
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        if !self.pipelined {
            return stream_append_sequential(self, input, option);
        }
        Box::pin(async move {
            let answers = self.replicate(input).await.map_err(rpc_error)?;
            let answers = answers.map(|answer| answer.map_err(rpc_error));
            Ok(Box::pin(answers) as BoxStream<'s, _>)
        })
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let mut client = self.link.control().map_err(rpc_error)?;
        let answer = client.vote(within(vote_request(&rpc), option.soft_ttl())).await;
        let answer = self.links.noted(&self.link, answer).map_err(rpc_error)?.into_inner();
        let (term, granted) = (rpc.vote.leader_id.term, answer.granted);
        tracing::info!(term, of = %self.link, granted, "asked for a vote");
        Ok(vote_response(answer))
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let mut client = self.link.control().map_err(rpc_error)?;
        let answer = client.pre_vote(within(vote_request(&rpc), option.soft_ttl())).await;
        let answer = self.links.noted(&self.link, answer).map_err(rpc_error)?;
        Ok(vote_response(answer.into_inner()))
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
        let traffic = self.link.traffic.clone();
        let chunks = chunks::of(vote, &snapshot.snapshot).inspect(move |chunk| traffic.sends(chunk));
        let mut request = Request::new(stream::iter(chunks));
        request.set_timeout(SNAPSHOT_TIMEOUT);
        let (index, bytes) = (snapshot.snapshot.index(), snapshot.snapshot.bytes().unwrap_or(0));
        tracing::info!(to = %self.link, index, bytes, "sending a snapshot");
        let mut client = self.link.bulk().map_err(streaming_error)?;
        let sent = client.install_snapshot(request);
        match future::select(Box::pin(sent), Box::pin(cancel)).await {
            future::Either::Left((Ok(response), _)) => {
                tracing::info!(to = %self.link, index, "the snapshot is installed");
                let vote = response.into_inner().vote.unwrap_or_default();
                Ok(SnapshotResponse::new(types::from_vote(&vote)))
            }
            future::Either::Left((Err(status), _)) => {
                tracing::warn!(to = %self.link, index, error = status.message(), "could not send the snapshot");
                Err(streaming_error(status))
            }
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
        let mut client = self.link.control().map_err(rpc_error)?;
        let answer = client.transfer_leader(within(request, option.soft_ttl())).await;
        self.links.noted(&self.link, answer).map_err(rpc_error)?;
        Ok(Ok(()))
    }

    fn backoff(&self) -> Option<Backoff> {
        Some(Backoff::new(std::iter::repeat(RETRY_PAUSE)))
    }
}
