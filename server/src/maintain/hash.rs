//! The hash over all keys and their history: members that agree have the same.
//!
//! It reads everything, so it runs on a thread that may block, one at a time:
//! a second caller waits rather than doubling the load.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::mvcc::{KvHash, ReadError, Store};

#[derive(Clone, Debug)]
pub struct Hash {
    store: Arc<Store>,
    turn: Arc<Semaphore>,
}

impl Hash {
    pub fn new(store: Arc<Store>) -> Self {
        Self { store, turn: Arc::new(Semaphore::new(1)) }
    }

    /// At `revision`; at the newest for 0.
    pub async fn of_keys(&self, revision: i64) -> Result<KvHash, ReadError> {
        let _turn = self.turn.acquire().await.expect("the semaphore is never closed");
        let store = self.store.clone();
        let hash = tokio::task::spawn_blocking(move || store.hash_kv(revision));
        hash.await.expect("a hash runs to its end: a panic in it ends the process")
    }
}
