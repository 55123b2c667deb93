//! When a linearizable read may go on.
//!
//! All that arrive while a round is under way share the next one: a round that
//! began before a read arrived proves nothing for it.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{sync::oneshot, time};

use super::ProposeError;
use crate::raft::Node;

/// Reads that may wait for one round.
const WAITING_MAX: usize = 65_536;

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
            Err(_) => Err(ProposeError::Timeout),
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
        let result = shared.node.read_barrier(shared.timeout).await.map_err(ProposeError::from);
        for told in waiting {
            // Who has given up needs no answer.
            drop(told.send(result.clone()));
        }
    }
}
