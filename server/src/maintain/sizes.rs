//! How large the store is.

use std::sync::Arc;

use crate::{
    mvcc::Store,
    storage::{engine::Engine, error::StorageError},
};

#[derive(Clone, Debug)]
pub struct Sizes {
    store: Arc<Store>,
    engine: Arc<dyn Engine>,
}

impl Sizes {
    pub fn new(store: Arc<Store>, engine: Arc<dyn Engine>) -> Self {
        Self { store, engine }
    }

    pub fn revision(&self) -> i64 {
        self.store.revision()
    }

    /// Bytes of all revisions that are not compacted away; the quota's measure.
    pub fn in_use(&self) -> u64 {
        self.store.size_in_use()
    }

    /// Bytes that the image takes on disk.
    pub fn allocated(&self) -> Result<u64, StorageError> {
        self.engine.size_on_disk()
    }
}
