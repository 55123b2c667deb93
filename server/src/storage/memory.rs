//! Rows in memory: the engine of tests and of simulations.

use std::{collections::BTreeMap, ops::Bound};

use bytes::Bytes;
use parking_lot::RwLock;

use super::{
    Batch, Engine, StorageError,
    engine::{RowIter, Take},
};

/// An engine that keeps everything and has nothing on disk.
#[derive(Debug, Default)]
pub struct MemoryEngine {
    // Held for one call of the trait; no other lock is taken under it.
    rows: RwLock<BTreeMap<Bytes, Bytes>>,
}

impl MemoryEngine {
    pub fn new() -> Self {
        Self::default()
    }

    /// Every row in order, to compare two engines by.
    pub fn rows(&self) -> Vec<(Bytes, Bytes)> {
        self.rows.read().iter().map(|(key, value)| (key.clone(), value.clone())).collect()
    }
}

impl Engine for MemoryEngine {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        Ok(self.rows.read().get(key).cloned())
    }

    fn walk(&self, start: &[u8], end: &[u8], take: Take<'_>) -> Result<(), StorageError> {
        if start < end {
            let rows = self.rows.read();
            let mut within = rows.range::<[u8], _>((Bound::Included(start), Bound::Excluded(end)));
            within.find(|(key, value)| take(key, value).is_break());
        }
        Ok(())
    }

    fn write(&self, batch: &Batch) -> Result<(), StorageError> {
        let mut rows = self.rows.write();
        for (key, change) in batch.ops() {
            match change {
                Some(value) => rows.insert(key.clone(), value.clone()),
                None => rows.remove(key),
            };
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), StorageError> {
        Ok(())
    }

    fn replace(&self, rows: RowIter<'_>) -> Result<(), StorageError> {
        let new = rows.collect::<Result<BTreeMap<_, _>, _>>()?;
        *self.rows.write() = new;
        Ok(())
    }

    fn rewrite(&self) -> Result<bool, StorageError> {
        Ok(true)
    }

    fn size_on_disk(&self) -> Result<u64, StorageError> {
        Ok(self.rows.read().iter().map(|(key, value)| (key.len() + value.len()) as u64).sum())
    }
}
