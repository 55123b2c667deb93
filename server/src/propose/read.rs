//! When a linearizable read may go on, and whether this member still leads.
//!
//! All that arrive while a round is under way share the next one: a round that
//! began before a read arrived proves nothing for it. A read's round that fails
//! for want of a leader is gone through again, as long as somebody waits.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::{
    sync::oneshot,
    time::{self, Instant},
};

use super::{ProposeError, news::news};
use crate::raft::{BarrierError, Node};

/// Callers that may wait for one round.
const WAITING_MAX: usize = 65_536;
/// A round that takes longer is told, as etcd does.
const SLOW_ROUND: Duration = Duration::from_millis(500);
/// Pause before the next round after one that failed, unless a leader is found earlier.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// The cluster's read barrier; clones share its rounds.
#[derive(Clone, Debug)]
pub struct ReadBarrier {
    node: Node,
    reads: Arc<Rounds<()>>,
    leads: Arc<Rounds<u64>>,
}

impl ReadBarrier {
    pub fn new(node: &Node, timeout: Duration) -> Self {
        let reads = Rounds::new(node, timeout, true, |node, timeout| {
            Box::pin(async move { node.read_barrier(timeout).await })
        });
        let leads = Rounds::new(node, timeout, false, |node, timeout| {
            Box::pin(async move { node.confirm_leadership(timeout).await })
        });
        Self { node: node.clone(), reads, leads }
    }

    /// Returns once all that was acknowledged before the call can be read here.
    pub async fn wait(&self) -> Result<(), ProposeError> {
        if self.node.leads_alone() {
            return Ok(());
        }
        let began = Instant::now();
        self.reads.join().await.unwrap_or_else(|| Err(self.node.why_late(began).into()))
    }

    /// Rounds of reads that took long.
    pub fn slow(&self) -> u64 {
        self.reads.slow.load(Ordering::Relaxed)
    }

    /// Rounds of reads that came to nothing.
    pub fn failed(&self) -> u64 {
        self.reads.failed.load(Ordering::Relaxed)
    }

    /// True if this member surely led in `term` at some moment after the call, and
    /// has applied all that was acknowledged in terms before.
    pub async fn leads(&self, term: u64) -> bool {
        if self.node.leads_alone() {
            return self.node.status().term == term;
        }
        matches!(self.leads.join().await, Some(Ok(confirmed)) if confirmed == term)
    }
}

type Told<T> = oneshot::Sender<Result<T, ProposeError>>;
type Round<T> = fn(Node, Duration) -> BoxFuture<'static, Result<T, BarrierError>>;

/// Callers that share rounds of one kind.
struct Rounds<T> {
    node: Node,
    timeout: Duration,
    /// Whether one that failed for want of a leader is repeated.
    repeats: bool,
    round: Round<T>,
    slow: AtomicU64,
    failed: AtomicU64,
    // Held to push or to take all.
    state: Mutex<State<T>>,
}

struct State<T> {
    waiting: Vec<Told<T>>,
    /// Whether a task goes from round to round.
    running: bool,
}

impl<T> fmt::Debug for Rounds<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rounds").field("waiting", &self.state.lock().waiting.len()).finish_non_exhaustive()
    }
}

impl<T: Clone + Send + 'static> Rounds<T> {
    fn new(node: &Node, timeout: Duration, repeats: bool, round: Round<T>) -> Arc<Self> {
        let state = Mutex::new(State { waiting: Vec::new(), running: false });
        let (slow, failed) = (AtomicU64::new(0), AtomicU64::new(0));
        Arc::new(Self { node: node.clone(), timeout, repeats, round, slow, failed, state })
    }

    /// What the next round comes to; nothing if that takes too long.
    async fn join(self: &Arc<Self>) -> Option<Result<T, ProposeError>> {
        let (told, answer) = oneshot::channel();
        {
            let mut state = self.state.lock();
            if state.waiting.len() >= WAITING_MAX {
                return Some(Err(ProposeError::TooManyRequests));
            }
            state.waiting.push(told);
            if !std::mem::replace(&mut state.running, true) {
                tokio::spawn(self.clone().go_round());
            }
        }
        let answer = time::timeout(self.timeout, answer).await.ok()?;
        Some(answer.unwrap_or(Err(ProposeError::Stopped)))
    }

    fn count(&self, took: Duration, result: &Result<T, BarrierError>, callers: usize) {
        if let Err(error) = result {
            self.failed.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(%error, ?took, callers, "a round for linearizable reads came to nothing");
        }
        if took >= SLOW_ROUND {
            self.slow.fetch_add(1, Ordering::Relaxed);
            let leader = self.node.status().leader.map(|id| format!("{id:x}"));
            tracing::warn!(?took, ?leader, callers, "waiting for ReadIndex response took too long");
        }
    }

    /// Serves rounds until nobody waits.
    async fn go_round(self: Arc<Self>) {
        loop {
            let waiting = {
                let mut state = self.state.lock();
                if state.waiting.is_empty() {
                    state.running = false;
                    return;
                }
                std::mem::take(&mut state.waiting)
            };
            let began = Instant::now();
            let result = (self.round)(self.node.clone(), self.timeout).await;
            self.count(began.elapsed(), &result, waiting.len());
            let result = match result {
                Err(BarrierError::NoLeader | BarrierError::NoQuorum) if self.repeats => {
                    news(self.node.watch(), RETRY_PAUSE).await;
                    let mut state = self.state.lock();
                    state.waiting.extend(waiting.into_iter().filter(|told| !told.is_closed()));
                    continue;
                }
                Ok(done) => Ok(done),
                Err(BarrierError::NoLeader | BarrierError::NoQuorum) => Err(ProposeError::NoLeader),
                Err(BarrierError::Stopped) => Err(ProposeError::Stopped),
            };
            for told in waiting {
                // Who has given up needs no answer.
                drop(told.send(result.clone()));
            }
        }
    }
}
