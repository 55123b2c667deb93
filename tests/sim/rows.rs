//! Rows that a power cut takes back to some batch since the last flush.
//!
//! In place of sled, whose threads and files know no simulated time: what an
//! [`Engine`] may lose is just what this one does.

use std::sync::Arc;

use bytes::Bytes;
use etcfs_server::storage::{
    Batch, Engine, MemoryEngine, StorageError,
    engine::{RowIter, Take},
};
use parking_lot::Mutex;
use rand::RngExt as _;

/// The rows of one member; clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct SimRows {
    parts: Arc<Parts>,
}

#[derive(Debug, Default)]
struct Parts {
    now: MemoryEngine,
    flushed: MemoryEngine,
    /// Written since the last flush.
    unflushed: Mutex<Vec<Batch>>,
}

impl SimRows {
    /// After a power cut: some of the newest batches are gone.
    pub(crate) fn restore(&self, random: &mut impl rand::Rng) {
        let unflushed = std::mem::take(&mut *self.parts.unflushed.lock());
        let kept = random.random_range(0..=unflushed.len());
        for batch in &unflushed[..kept] {
            self.parts.flushed.write(batch).expect("in memory");
        }
        let rows = self.parts.flushed.rows();
        self.parts.now.replace(&mut rows.into_iter().map(Ok)).expect("in memory");
    }

    /// Others in their place, of which there is none.
    pub(crate) fn empty(&self) {
        self.replace(&mut std::iter::empty()).expect("in memory");
    }
}

impl Engine for SimRows {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        self.parts.now.get(key)
    }

    fn walk(&self, start: &[u8], end: &[u8], take: Take<'_>) -> Result<(), StorageError> {
        self.parts.now.walk(start, end, take)
    }

    fn write(&self, batch: &Batch) -> Result<(), StorageError> {
        self.parts.unflushed.lock().push(batch.clone());
        self.parts.now.write(batch)
    }

    fn flush(&self) -> Result<(), StorageError> {
        for batch in std::mem::take(&mut *self.parts.unflushed.lock()) {
            self.parts.flushed.write(&batch)?;
        }
        Ok(())
    }

    fn size_on_disk(&self) -> Result<u64, StorageError> {
        self.parts.now.size_on_disk()
    }

    fn rewrite(&self) -> Result<bool, StorageError> {
        self.parts.now.rewrite()
    }

    fn replace(&self, rows: RowIter<'_>) -> Result<(), StorageError> {
        self.parts.now.replace(rows)?;
        self.parts.unflushed.lock().clear();
        self.parts.flushed.replace(&mut self.parts.now.rows().into_iter().map(Ok))
    }
}
