//! When a linearizable read may go on.
//!
//! All that arrive while a round is under way share the next one: a round that
//! began before a read arrived proves nothing for it. A round that fails for want
//! of a leader is gone through again, as long as somebody waits.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    sync::oneshot,
    time::{self, Instant},
};

use super::ProposeError;
use crate::raft::{BarrierError, Node};

/// Reads that may wait for one round.
const WAITING_MAX: usize = 65_536;
/// Pause before the next round after one that failed, unless a leader is found earlier.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// The cluster's read barrier; clones share its rounds.
#[derive(Clone, Debug)]
pub struct ReadBarrier {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    node: Node,
    timeout: Duration,
    // Held to push or to take all.
    rounds: Mutex<Rounds>,
}

#[derive(Debug, Default)]
struct Rounds {
    waiting: Vec<oneshot::Sender<Result<(), ProposeError>>>,
    /// Whether a task goes from round to round.
    running: bool,
}

impl ReadBarrier {
    pub fn new(node: &Node, timeout: Duration) -> Self {
        Self { shared: Arc::new(Shared { node: node.clone(), timeout, rounds: Mutex::default() }) }
    }

    /// Returns once all that was acknowledged before the call can be read here.
    pub async fn wait(&self) -> Result<(), ProposeError> {
        if self.shared.node.leads_alone() {
            return Ok(());
        }
        let (told, answer) = oneshot::channel();
        let began = Instant::now();
        {
            let mut rounds = self.shared.rounds.lock();
            if rounds.waiting.len() >= WAITING_MAX {
                return Err(ProposeError::TooManyRequests);
            }
            rounds.waiting.push(told);
            if !std::mem::replace(&mut rounds.running, true) {
                tokio::spawn(go_round(self.shared.clone()));
            }
        }
        match time::timeout(self.shared.timeout, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(ProposeError::Stopped),
            Err(_) => Err(self.shared.node.why_late(began).into()),
        }
    }
}

/// Serves rounds until nobody waits.
async fn go_round(shared: Arc<Shared>) {
    loop {
        let waiting = {
            let mut rounds = shared.rounds.lock();
            if rounds.waiting.is_empty() {
                rounds.running = false;
                return;
            }
            std::mem::take(&mut rounds.waiting)
        };
        let result = match shared.node.read_barrier(shared.timeout).await {
            Ok(()) => Ok(()),
            Err(BarrierError::NoLeader | BarrierError::NoQuorum) => {
                let mut status = shared.node.watch();
                drop(time::timeout(RETRY_PAUSE, status.changed()).await);
                let mut rounds = shared.rounds.lock();
                rounds.waiting.extend(waiting.into_iter().filter(|told| !told.is_closed()));
                continue;
            }
            Err(BarrierError::Stopped) => Err(ProposeError::Stopped),
        };
        for told in waiting {
            // Who has given up needs no answer.
            drop(told.send(result.clone()));
        }
    }
}
