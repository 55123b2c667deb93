//! Consensus: one order of all changes, on disk before anyone is told.
//!
//! The only place that names openraft. [`start`](start()) opens a data directory and
//! gives a [`Node`]; [`state_machine`] is what happens to each committed entry,
//! [`log`] how entries reach the disk, [`retention`] how long they stay there.

mod badge;
mod bootstrap;
mod chunks;
mod contact;
mod dial;
mod host;
pub mod id;
mod links;
mod log;
mod membership;
mod network;
mod outcomes;
mod peer_service;
mod removal;
mod restore;
mod retention;
mod snapshots;
mod start;
mod state_machine;
mod status;
#[cfg(test)]
mod tests;
mod types;

use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

pub use badge::{Badge, Guard};
pub use bootstrap::{Bootstrap, InitialMember};
pub use dial::{Connecting, Dialer, Network, Stream, Tcp};
use etcfs_proto::etcfs::{command, record};
use futures_util::future::join_all;
pub use host::{Host, OpenEngine};
pub use links::{ErrandsClient, PeerReading, RoundTripFn};
pub use membership::{ChangeError, MemberChange, MemberRules};
use openraft::{
    Raft, ReadPolicy, ServerState,
    errors::{ClientWriteError, LinearizableReadError, RaftError},
    metrics::RaftMetrics,
    raft::{
        ClientWriteResult,
        linearizable_read::{Linearizer, ReadLogId},
    },
    type_config::{alias::WatchReceiverOf, async_runtime::WatchReceiver as _},
};
pub use peer_service::PeerService;
pub use restore::{Restore, RestoreError, restore};
pub use start::{RaftOptions, StartError, start};
pub use state_machine::ApplyFn;
pub use status::MemberStatus;
use tokio::{
    sync::{oneshot, watch},
    time::{self, Instant},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::Status;
use types::{Command, LogId, Reply, TypeConfig};

pub use crate::apply::{Alarms, ApplyError, Outcome, Response, State};
use crate::{
    storage::{DataDir, Engine, Identity, Image, Wal},
    threads,
    watch::Hub,
};

/// What became of a batch: the outcome of each request and the term, or why there is none.
pub type BatchResult = Result<(Vec<Outcome>, u64), SubmitError>;

/// Why a batch has no outcome.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SubmitError {
    /// Not in the log, and never to be: the requests may go again.
    #[error("no leader took the request")]
    NotAppended(Vec<command::Request>),
    #[error("what became of the request is unknown")]
    Unknown,
}

/// Why a read can't be known to be up to date.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BarrierError {
    #[error("no leader is known")]
    NoLeader,
    #[error("the leader could not make sure that it still leads")]
    NoQuorum,
    #[error("the member is stopping")]
    Stopped,
}

/// What made a request late, as far as this member can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Late {
    LeaderFailed,
    ConnectionLost,
    Unknown,
}

/// A running member. Clones are handles of the same.
#[derive(Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

struct Inner {
    identity: Identity,
    version: &'static str,
    rules: MemberRules,
    /// The cluster's, from which the ids of further members derive.
    token: String,
    /// Held while the members are changed.
    changing: tokio::sync::Mutex<()>,
    raft: Raft<TypeConfig, state_machine::StateMachine>,
    metrics: WatchReceiverOf<TypeConfig, RaftMetrics<TypeConfig>>,
    contact: contact::Contact,
    election_timeout: Duration,
    links: links::Links,
    outcomes: outcomes::Outcomes,
    /// Cancelled once this member is known to have been removed.
    removed: CancellationToken,
    /// Cancelled once a full disk has cost rows that only a start makes again.
    start_anew: CancellationToken,
    member_status: watch::Receiver<MemberStatus>,
    leader_changes: Arc<AtomicU64>,
    slow_applies: Arc<AtomicU64>,
    host: Host,
    wal: Wal,
    engine: Arc<dyn Engine>,
    image: Image,
    state: State,
    hub: Hub,
    snapshots: snapshots::Snapshots,
    shutdown: CancellationToken,
    tasks: TaskTracker,
    /// Holds the lock of the directory.
    _data_dir: DataDir,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("identity", &self.inner.identity).finish_non_exhaustive()
    }
}

impl Node {
    pub fn member_id(&self) -> u64 {
        self.inner.identity.member_id
    }

    pub fn cluster_id(&self) -> u64 {
        self.inner.identity.cluster_id
    }

    /// Read handles of the applied state.
    pub fn state(&self) -> State {
        self.inner.state.clone()
    }

    pub fn hub(&self) -> Hub {
        self.inner.hub.clone()
    }

    pub fn engine(&self) -> Arc<dyn Engine> {
        self.inner.engine.clone()
    }

    /// The write-behind thread, for its lag.
    pub fn image(&self) -> Image {
        self.inner.image.clone()
    }

    pub fn status(&self) -> MemberStatus {
        status::of(&self.inner.metrics.borrow_watched(), &self.inner.contact)
    }

    /// The newest term that this member knows of.
    pub fn term(&self) -> u64 {
        self.inner.metrics.borrow_watched().current_term
    }

    /// Changes with leader, term and role. The indexes in it are not kept up: ask [`Self::status`].
    pub fn watch(&self) -> watch::Receiver<MemberStatus> {
        let mut status = self.inner.member_status.clone();
        // What there is may be looked at; what is waited for is what comes.
        status.mark_unchanged();
        status
    }

    /// Why something that began at `since` may have taken too long.
    pub fn why_late(&self, since: Instant) -> Late {
        let Inner { contact, links, election_timeout, metrics, .. } = &*self.inner;
        // As etcd reckons: a leader is missed for two timeouts before the next is there.
        let lost = contact.found_at().map(|found| (found.checked_sub(2 * *election_timeout), found));
        if lost.is_some_and(|(lost, found)| lost.is_none_or(|lost| since > lost) && since < found) {
            return Late::LeaderFailed;
        }
        let connected = |id: u64| id == self.member_id() || links.is_connected_since(id, since);
        let is_connected = match self.status().leader {
            None => return Late::Unknown,
            Some(leader) if leader == self.member_id() => {
                let membership = metrics.borrow_watched().membership_config.clone();
                let voters: Vec<u64> = membership.voter_ids().collect();
                2 * voters.iter().filter(|&&id| connected(id)).count() > voters.len()
            }
            Some(leader) => connected(leader),
        };
        if is_connected { Late::Unknown } else { Late::ConnectionLost }
    }

    /// How often a leader was found since the start.
    pub fn leader_changes(&self) -> u64 {
        self.inner.leader_changes.load(Ordering::Relaxed)
    }

    /// Entries that took long to apply.
    pub fn slow_applies(&self) -> u64 {
        self.inner.slow_applies.load(Ordering::Relaxed)
    }

    /// How each other member that was spoken to is reached.
    pub fn peers(&self) -> Vec<PeerReading> {
        self.inner.links.readings()
    }

    /// Brings a batch into the log, here or at the leader. `done` is called once
    /// it is applied here, where that happens, so it must be quick; if the member
    /// stops before, it is dropped uncalled. `slot` is dropped when nothing of the
    /// batch is on its way any more.
    ///
    /// Does not wait, and may be called by `done` itself. Needs a runtime.
    pub fn submit(
        &self,
        requests: Vec<command::Request>,
        timeout: Duration,
        slot: impl Send + 'static,
        done: impl FnOnce(BatchResult) + Send + 'static,
    ) {
        let status = self.status();
        let Some(leader) = status.leader else { return done(Err(SubmitError::NotAppended(requests))) };
        // One clock for each term, so that members' differences do not show within it.
        let unix_ms = if leader == self.member_id() { self.unix_ms() } else { 0 };
        let expected = self.inner.outcomes.expect(status.term, requests, unix_ms, Box::new(done));
        let Some((number, command)) = expected else {
            return;
        };
        if leader != self.member_id() {
            tokio::spawn(self.clone().forward(leader, status.term, number, command, timeout, slot));
            return;
        }
        let outcomes = self.inner.outcomes.clone();
        self.append(status.term, command, move |result| {
            if let Err(ClientWriteError::ForwardToLeader(_)) = result {
                outcomes.refused(number);
            }
            drop(slot);
        });
    }

    /// Milliseconds since 1970.
    fn unix_ms(&self) -> u64 {
        (self.inner.host.clock)()
    }

    /// As the leader of `term`, which is looked at again where it counts.
    fn append(
        &self,
        term: u64,
        command: Command,
        reply: impl FnOnce(ClientWriteResult<TypeConfig>) + Send + 'static,
    ) {
        let raft = self.inner.raft.clone();
        let reply = Reply(Box::new(reply));
        let mut sending = Box::pin(async move {
            // An error says that the core has ended; the reply is then dropped with the rest.
            drop(raft.write(command).with_leader(term).responder(reply).await);
        });
        // Its queue has room but for the rarest case: no task is worth that.
        let mut now = Context::from_waker(Waker::noop());
        if Pin::new(&mut sending).poll(&mut now) == Poll::Pending {
            tokio::spawn(sending);
        }
    }

    /// Has the leader append a batch, once. Its outcome comes with the entry.
    async fn forward(
        self,
        leader: u64,
        term: u64,
        number: u64,
        command: Command,
        timeout: Duration,
        slot: impl Send + 'static,
    ) {
        let Inner { outcomes, links, shutdown, .. } = &*self.inner;
        let Some(link) = self.link(leader) else { return outcomes.refused(number) };
        let sent = links.propose(&link, term, command.encoded(), timeout).await;
        drop((slot, command));
        match sent {
            Ok(false) => {}
            Ok(true) => outcomes.refused(number),
            Err(status) if links::surely_not_done(&status) => outcomes.refused(number),
            Err(status) => {
                // In doubt until its entry, or a later term's, is applied here.
                tracing::debug!(error = status.message(), "the answer to a proposal was lost");
                // By then whoever waits has given up, by its own time, and knows why.
                shutdown.run_until_cancelled(time::sleep(2 * timeout)).await;
                outcomes.give_up(number);
            }
        }
    }

    /// Takes a batch of another member, as the leader of `term`; true if it is refused.
    async fn accept(&self, term: u64, mut command: Command) -> Result<bool, Status> {
        command.set_time(self.unix_ms());
        let (told, answer) = oneshot::channel();
        self.append(term, command, move |result| {
            let refused = match result {
                Ok(_) => Ok(false),
                Err(ClientWriteError::ForwardToLeader(_)) => Ok(true),
                Err(error) => Err(Status::aborted(error.to_string())),
            };
            drop(told.send(refused));
        });
        answer.await.unwrap_or_else(|_| Err(Status::unavailable("the leader has stopped")))
    }

    fn link(&self, member: u64) -> Option<Arc<links::Link>> {
        let membership = self.inner.metrics.borrow_watched().membership_config.clone();
        membership.get_node(&member).map(|peer| self.inner.links.to(member, peer))
    }

    /// What each other member speaks; `None` for one that does not answer.
    pub async fn versions(&self) -> Vec<(u64, Option<String>)> {
        let membership = self.inner.metrics.borrow_watched().membership_config.clone();
        let others = membership.nodes().map(|(id, _)| *id).filter(|id| *id != self.member_id());
        let asked = others.map(|id| async move {
            let Some(link) = self.link(id) else { return (id, None) };
            (id, self.inner.links.version(&link, self.inner.election_timeout).await.ok())
        });
        join_all(asked).await
    }

    /// Lets in other members of this cluster alone.
    pub fn guard(&self) -> Guard {
        Guard::new(self.inner.identity, self.inner.state.cluster.clone())
    }

    /// Returns once every change acknowledged before the call is applied here.
    pub async fn read_barrier(&self, timeout: Duration) -> Result<(), BarrierError> {
        let leader = self.status().leader.ok_or(BarrierError::NoLeader)?;
        let read = match leader == self.member_id() {
            true => self.leader_read_index().await?,
            false => self.ask_read_index(leader, timeout).await?,
        };
        self.applied(read, timeout).await
    }

    /// True iff this is the only voter, leads, and has applied all that was
    /// acknowledged before it began to lead.
    ///
    /// Then nobody else can acknowledge anything, and this member does so only
    /// after it has applied: no round is needed. A change to more voters shows
    /// in the metrics long before the others could do without this one, as a
    /// joint configuration needs its voice.
    pub fn leads_alone(&self) -> bool {
        let metrics = self.inner.metrics.borrow_watched();
        metrics.state == ServerState::Leader
            && status::is_sole_voter(&metrics)
            && metrics.last_applied.is_some_and(|id| id.leader_id.term == metrics.current_term)
    }

    /// The term in which this member surely led at some moment after the call. By
    /// then it has applied all that leaders before it acknowledged.
    pub async fn confirm_leadership(&self, timeout: Duration) -> Result<u64, BarrierError> {
        // A read index is of the term of the leader that gives it.
        let read = self.leader_read_index().await?;
        self.applied(read, timeout).await?;
        Ok(read.leader_id.term)
    }

    /// Waits until this member has applied what a linearizable read must see.
    async fn applied(&self, read: LogId, timeout: Duration) -> Result<(), BarrierError> {
        let applied = self.inner.metrics.borrow_watched().last_applied;
        let linearizer =
            Linearizer::<TypeConfig>::new(self.member_id(), ReadLogId::from_log_id(read), applied);
        let waited = linearizer.try_await_ready(&self.inner.raft, Some(timeout)).await;
        waited.map_err(|_| BarrierError::Stopped)?.map(drop).map_err(|_| BarrierError::NoQuorum)
    }

    /// The way to ask another member for something beyond Raft.
    pub fn errands(&self, member: u64) -> Result<ErrandsClient, Status> {
        let link = self.link(member).ok_or_else(|| Status::unavailable("no such member"))?;
        link.errands()
    }

    /// As the leader: the index that a linearizable read must wait for.
    async fn leader_read_index(&self) -> Result<LogId, BarrierError> {
        match self.inner.raft.get_read_linearizer(ReadPolicy::ReadIndex).await {
            Ok(linearizer) => Ok(*linearizer.read_log_id().log_id()),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(_))) => {
                Err(BarrierError::NoLeader)
            }
            Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => {
                Err(BarrierError::NoQuorum)
            }
            Err(RaftError::Fatal(_)) => Err(BarrierError::Stopped),
        }
    }

    async fn ask_read_index(&self, leader: u64, timeout: Duration) -> Result<LogId, BarrierError> {
        let link = self.link(leader).ok_or(BarrierError::NoLeader)?;
        let read = self.inner.links.read_index(&link, timeout.min(self.inner.election_timeout)).await;
        let read: Option<record::LogId> = read.map_err(|status| {
            tracing::debug!(%status, "the leader gave no read index");
            BarrierError::NoQuorum
        })?;
        read.as_ref().map(types::from_id).ok_or(BarrierError::NoLeader)
    }

    /// Has another voter lead, and waits until it does; false if that takes too long.
    pub async fn transfer_leadership(&self, to: u64, timeout: Duration) -> bool {
        // Who has no vote can't take it, and this member would have stepped down for nobody.
        if !self.is_voter(to) {
            return false;
        }
        let mut status = self.watch();
        if self.inner.raft.trigger().transfer_leader(to).await.is_err() {
            return false;
        }
        let led = |status: &MemberStatus| status.leader.is_some_and(|leader| leader != self.member_id());
        if matches!(time::timeout(timeout, status.wait_for(led)).await, Ok(Ok(_))) {
            return self.status().leader == Some(to);
        }
        // It stays the leader, and takes writes again in a term of its own.
        drop(self.inner.raft.trigger().elect(false).await);
        false
    }

    /// Before an end in order: lets another lead, so that nobody has to miss this member first.
    pub async fn hand_over(&self) {
        let best = {
            let metrics = self.inner.metrics.borrow_watched();
            let voters: Vec<u64> = metrics.membership_config.voter_ids().collect();
            let matched = metrics.replication.iter().flatten();
            let others = matched.filter(|(id, _)| **id != metrics.id && voters.contains(id));
            let best =
                others.max_by_key(|(_, matched)| matched.as_ref().map(|id| id.index)).map(|(id, _)| *id);
            best.filter(|_| metrics.state == ServerState::Leader)
        };
        let Some(to) = best else { return };
        let began = Instant::now();
        if self.transfer_leadership(to, self.inner.election_timeout).await {
            tracing::info!(to = format!("{to:x}"), took = ?began.elapsed(), "another member leads now");
        } else {
            tracing::warn!(to = format!("{to:x}"), "leadership could not be handed over");
        }
    }

    /// True for a member with a vote.
    pub fn is_voter(&self, id: u64) -> bool {
        self.inner.raft.voter_ids().any(|voter| voter == id)
    }

    /// Cancelled once this member has been removed from its cluster.
    pub fn removed(&self) -> CancellationToken {
        self.inner.removed.clone()
    }

    /// Cancelled once the disk was so full that this member can't go on, but for a stop and a start: that
    /// waits for room, and makes what is missing from the log.
    pub fn start_anew(&self) -> CancellationToken {
        self.inner.start_anew.clone()
    }

    /// Why openraft has ended, if it has.
    fn fatal(&self) -> Option<String> {
        let metrics = self.inner.metrics.borrow_watched();
        metrics.running_state.as_ref().err().map(ToString::to_string)
    }

    /// Stops, in order: what is applied is flushed to the image, what waits to the log.
    pub async fn shutdown(&self) {
        self.inner.shutdown.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
        if let Err(error) = self.inner.raft.shutdown().await {
            tracing::error!(%error, "raft did not end in order");
        }
        self.inner.outcomes.close();
        let (image, wal) = (self.inner.image.clone(), self.inner.wal.clone());
        let close = move || {
            image.close();
            wal.close();
        };
        if let Err(error) = threads::aside(&*self.inner.host.threads, "close", close).await {
            tracing::error!(%error, "storage did not close in order");
        }
    }
}
