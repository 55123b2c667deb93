//! Builds snapshot files for openraft, and finds the newest.
//!
//! To openraft a failure to build is the end of the member, while here it often
//! is a full disk. So [`retention`](super::retention) builds first, and asks
//! openraft to take a snapshot only once there is one to take.

use std::{io, path::PathBuf, sync::Arc};

use openraft::RaftSnapshotBuilder;
use parking_lot::Mutex;

use super::types::{self, Snapshot, TypeConfig};
use crate::storage::{Durability, Image, SnapshotFile, StorageError};

/// The member's snapshots; clones share them.
#[derive(Clone, Debug)]
pub(super) struct Snapshots {
    dir: PathBuf,
    image: Image,
    prepared: Arc<Mutex<Option<SnapshotFile>>>,
}

impl Snapshots {
    pub(super) fn new(dir: PathBuf, image: Image) -> Self {
        Self { dir, image, prepared: Arc::default() }
    }

    /// Builds one of all that was applied before, for the next who asks.
    pub(super) async fn prepare(&self) -> Result<SnapshotFile, StorageError> {
        let snapshot = self.image.build_snapshot(self.dir.clone(), Durability::OnDisk).await?;
        *self.prepared.lock() = Some(snapshot.clone());
        Ok(snapshot)
    }

    pub(super) fn current(&self) -> io::Result<Option<Snapshot>> {
        let newest = SnapshotFile::newest(&self.dir).map_err(io::Error::other)?;
        newest.map(described).transpose()
    }

    /// Bytes of the newest; 0 where there is none.
    pub(super) fn bytes(&self) -> u64 {
        let newest = SnapshotFile::newest(&self.dir).ok().flatten();
        newest.and_then(|snapshot| snapshot.bytes().ok()).unwrap_or(0)
    }

    /// The same snapshot as this member's own, copied if it lies elsewhere.
    pub(super) fn adopt(&self, snapshot: SnapshotFile) -> Result<SnapshotFile, StorageError> {
        match snapshot.path().parent() == Some(&self.dir) {
            true => Ok(snapshot),
            false => snapshot.copy_to(&self.dir),
        }
    }

    /// Where a snapshot from a peer is put together.
    pub(super) fn dir(&self) -> &PathBuf {
        &self.dir
    }
}

impl RaftSnapshotBuilder<TypeConfig> for Snapshots {
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let prepared = self.prepared.lock().take();
        let snapshot = match prepared {
            Some(prepared) => prepared,
            None => self
                .image
                .build_snapshot(self.dir.clone(), Durability::OnDisk)
                .await
                .map_err(io::Error::other)?,
        };
        described(snapshot)
    }
}

/// A file with what openraft wants to know of it.
pub(super) fn described(snapshot: SnapshotFile) -> io::Result<Snapshot> {
    let meta = types::snapshot_meta(snapshot.meta()).map_err(io::Error::other)?;
    Ok(Snapshot { meta, snapshot })
}
