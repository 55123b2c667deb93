//! How large the store is, and making it smaller.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use super::Space;
use crate::{
    mvcc::Store,
    storage::{Image, engine::Engine, error::StorageError},
};

#[derive(Clone, Debug)]
pub struct Sizes {
    store: Arc<Store>,
    engine: Arc<dyn Engine>,
    image: Image,
    /// Something did not fit, and the alarm that says so was raised for it.
    short: Arc<AtomicBool>,
    data_dir: PathBuf,
    /// Taken on since the disk was last asked for room.
    unasked_bytes: Arc<AtomicU64>,
}

/// The disk is asked for room each time so much was taken on.
const ASK_BYTES: u64 = 1 << 20;
/// What a byte that waits for the image may come to take there, with the copies that sled keeps.
const IMAGE_FACTOR: u64 = 4;

impl Sizes {
    pub fn new(store: Arc<Store>, engine: Arc<dyn Engine>, image: Image, data_dir: PathBuf) -> Self {
        Self { store, engine, image, short: Arc::default(), data_dir, unasked_bytes: Arc::default() }
    }

    pub fn revision(&self) -> i64 {
        self.store.revision()
    }

    /// Bytes of all revisions that are not compacted away; the quota's measure.
    pub fn in_use(&self) -> u64 {
        self.store.size_in_use()
    }

    /// Bytes that the image takes on disk, or will as soon as it has what is in use.
    pub fn allocated(&self) -> Result<u64, StorageError> {
        Ok(self.engine.size_on_disk()?.max(self.in_use()))
    }

    /// The disk as it will be once what waits for the image is there.
    pub fn disk(&self) -> Space {
        let disk = Space::of(&self.data_dir);
        Space { free: disk.free.saturating_sub(IMAGE_FACTOR * self.image.lag_bytes()), ..disk }
    }

    /// True if the disk has no room for `bytes` more; it is not asked each time.
    pub fn disk_is_full_for(&self, bytes: u64) -> bool {
        if self.unasked_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes < ASK_BYTES {
            return false;
        }
        self.unasked_bytes.store(0, Ordering::Relaxed);
        self.disk().is_full()
    }

    /// Notes whether something did not fit.
    pub fn note_shortage(&self, short: bool) {
        self.short.store(short, Ordering::Relaxed);
    }

    /// True if something did not fit, and nobody has noted since that there is room.
    pub fn is_short(&self) -> bool {
        self.short.load(Ordering::Relaxed)
    }

    /// Gives back what deleted rows took on disk.
    pub async fn defragment(&self) -> Result<(), StorageError> {
        self.image.defragment().await
    }
}
