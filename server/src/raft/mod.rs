//! Consensus: one order of all changes, on disk before anyone is told.
//!
//! The only place that names openraft. [`start`](start()) opens a data directory and
//! gives a [`Node`]; [`state_machine`] is what happens to each committed entry,
//! [`log`] how entries reach the disk, [`retention`] how long they stay there.

pub mod id;
mod log;
mod network;
mod peer_service;
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

use etcfs_proto::etcfs::{command, record};
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
pub use start::{RaftOptions, StartError, start};
pub use status::MemberStatus;
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use types::{Command, LogId, Reply, TypeConfig};

pub use crate::apply::{Alarms, ApplyError, Outcome, Response, State};
use crate::{
    storage::{DataDir, Engine, Identity, Image, Wal},
    watch::Hub,
};

/// What became of a batch: the outcome of each request and the term, or why there is none.
pub type BatchResult = Result<(Vec<Outcome>, u64), SubmitError>;

/// Why a batch has no outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// Surely not in the log.
    #[error("this member does not lead")]
    NotLeader,
    /// It was in this member's log and was replaced; another leader may have it.
    #[error("the leader changed, and what became of the request is unknown")]
    LeaderChanged,
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

/// A running member. Clones are handles of the same.
#[derive(Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

struct Inner {
    identity: Identity,
    raft: Raft<TypeConfig, state_machine::StateMachine>,
    metrics: WatchReceiverOf<TypeConfig, RaftMetrics<TypeConfig>>,
    member_status: watch::Receiver<MemberStatus>,
    leader_changes: Arc<AtomicU64>,
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
        status::of(&self.inner.metrics.borrow_watched())
    }

    /// Changes with leader, term and role. The indexes in it are not kept up: ask [`Self::status`].
    pub fn watch(&self) -> watch::Receiver<MemberStatus> {
        self.inner.member_status.clone()
    }

    /// How often a leader was found since the start.
    pub fn leader_changes(&self) -> u64 {
        self.inner.leader_changes.load(Ordering::Relaxed)
    }

    /// Puts a batch into the log. `done` is called where the outcome is made, so
    /// it must be quick; if the member stops before, it is dropped uncalled.
    ///
    /// Does not wait, and may be called by `done` itself. Needs a runtime.
    pub fn submit(&self, batch: command::Batch, done: impl FnOnce(BatchResult) + Send + 'static) {
        let reply = Reply(Box::new(move |result: ClientWriteResult<TypeConfig>| {
            done(match result {
                Ok(openraft::raft::ClientWriteResponse { log_id, data, .. }) => {
                    Ok((data, log_id.leader_id.term))
                }
                Err(ClientWriteError::ForwardToLeader(_)) => Err(SubmitError::NotLeader),
                Err(_) => Err(SubmitError::LeaderChanged),
            });
        }));
        let raft = self.inner.raft.clone();
        let mut sending = Box::pin(async move {
            // An error says that the core has ended; the reply is then dropped with the rest.
            drop(raft.write(Command::new(batch)).responder(reply).await);
        });
        // Its queue has room but for the rarest case: no task is worth that.
        let mut now = Context::from_waker(Waker::noop());
        if Pin::new(&mut sending).poll(&mut now) == Poll::Pending {
            tokio::spawn(sending);
        }
    }

    /// Returns once every change acknowledged before the call is applied here.
    pub async fn read_barrier(&self, timeout: Duration) -> Result<(), BarrierError> {
        let leader = self.inner.metrics.borrow_watched().current_leader.ok_or(BarrierError::NoLeader)?;
        let read = match leader == self.member_id() {
            true => self.leader_read_index().await?,
            false => self.ask_read_index(leader, timeout).await?,
        };
        let applied = self.inner.metrics.borrow_watched().last_applied;
        let linearizer =
            Linearizer::<TypeConfig>::new(self.member_id(), ReadLogId::from_log_id(read), applied);
        let waited = linearizer.try_await_ready(&self.inner.raft, Some(timeout)).await;
        waited.map_err(|_| BarrierError::Stopped)?.map(drop).map_err(|_| BarrierError::NoQuorum)
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
        let own = metrics.id;
        metrics.state == ServerState::Leader
            && metrics.membership_config.voter_ids().eq([own])
            && metrics.last_applied.is_some_and(|id| id.leader_id.term == metrics.current_term)
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
        let membership = self.inner.metrics.borrow_watched().membership_config.clone();
        let peer = membership.get_node(&leader).ok_or(BarrierError::NoLeader)?;
        let read = network::PeerLink::new(leader, peer).read_index(timeout).await;
        let read: Option<record::LogId> = read.map_err(|status| {
            tracing::debug!(%status, "the leader gave no read index");
            BarrierError::NoQuorum
        })?;
        read.as_ref().map(types::from_id).ok_or(BarrierError::NoLeader)
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
        let (image, wal) = (self.inner.image.clone(), self.inner.wal.clone());
        let closed = tokio::task::spawn_blocking(move || {
            image.close();
            wal.close();
        });
        if let Err(error) = closed.await {
            tracing::error!(%error, "storage did not close in order");
        }
    }
}
