//! How much log is kept: when a snapshot is built, and what is then purged.
//!
//! An entry is purged once both the newest snapshot and the image on disk hold
//! it, and only with many newer ones left: a member that was away for a while
//! then needs entries, not a snapshot.

use std::time::Duration;

use openraft::type_config::async_runtime::WatchReceiver as _;
use tokio::time;
use tokio_util::sync::CancellationToken;

use super::{Node, snapshots::Snapshots};

/// Entries left behind a snapshot, where they are not too many bytes.
const KEEP_ENTRIES: u64 = 10_000;
/// Entries that are left in any case.
const KEEP_ENTRIES_MIN: u64 = 1000;
const KEEP_BYTES_MAX: u64 = 256 << 20;
/// Log since the last snapshot at which the next is due even with few entries,
/// though not before it is as large as what a snapshot must write.
const SNAPSHOT_BYTES: u64 = 256 << 20;
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Pause after a snapshot that could not be built.
const RETRY_PAUSE: Duration = Duration::from_secs(10);
/// How long openraft may take to note a snapshot that is ready.
const NOTE_TIMEOUT: Duration = Duration::from_secs(10);

/// Looks after the log until `shutdown`.
pub(super) async fn run(node: Node, snapshots: Snapshots, snapshot_count: u64, shutdown: CancellationToken) {
    loop {
        let mut pause = LOOK_INTERVAL;
        if is_due(&node, snapshot_count)
            && let Err(error) = advance(&node, &snapshots, snapshot_count).await
        {
            tracing::warn!(%error, "no snapshot could be built; the log grows until one can");
            pause = RETRY_PAUSE;
        }
        if shutdown.run_until_cancelled(time::sleep(pause)).await.is_none() {
            return;
        }
    }
}

fn is_due(node: &Node, snapshot_count: u64) -> bool {
    let (applied, snapshot) = {
        let metrics = node.inner.metrics.borrow_watched();
        (metrics.last_applied.map(|id| id.index), metrics.snapshot.map(|id| id.index))
    };
    let Some(applied) = applied else { return false };
    let entries = applied - snapshot.unwrap_or(0).min(applied);
    if entries >= snapshot_count {
        return true;
    }
    let bytes = node.inner.wal.bytes_after(snapshot);
    bytes >= SNAPSHOT_BYTES && bytes >= node.inner.engine.size_on_disk().unwrap_or(u64::MAX)
}

#[derive(Debug, thiserror::Error)]
enum AdvanceError {
    #[error(transparent)]
    Storage(#[from] crate::storage::StorageError),
    #[error("raft did not take note of the snapshot: {0}")]
    Raft(String),
}

async fn advance(node: &Node, snapshots: &Snapshots, snapshot_count: u64) -> Result<(), AdvanceError> {
    let raft = &node.inner.raft;
    let snapshot = snapshots.prepare().await?;
    let index = snapshot.index();
    tracing::info!(index, bytes = snapshot.bytes().unwrap_or(0), "snapshot built");
    let failed = |error: &dyn std::fmt::Display| AdvanceError::Raft(error.to_string());
    raft.trigger().snapshot().await.map_err(|error| failed(&error))?;
    let wait = raft.wait(Some(NOTE_TIMEOUT));
    let noted =
        wait.metrics(|metrics| metrics.snapshot.is_some_and(|id| id.index >= index), "the snapshot is noted");
    noted.await.map_err(|error| failed(&error))?;
    let keep = kept(index, snapshot_count, |from| node.inner.wal.bytes_after(Some(from)));
    let held = index.min(node.inner.image.durable_index());
    if let Some(upto) = held.checked_sub(keep).filter(|&upto| upto > 0) {
        raft.trigger().purge_log(upto).await.map_err(|error| failed(&error))?;
    }
    Ok(())
}

/// How many entries to keep behind a snapshot at `index`.
fn kept(index: u64, snapshot_count: u64, bytes_after: impl Fn(u64) -> u64) -> u64 {
    // Who asks for snapshots more often than that wants a short log.
    let mut keep = KEEP_ENTRIES.min(snapshot_count);
    while keep > KEEP_ENTRIES_MIN && bytes_after(index.saturating_sub(keep)) > KEEP_BYTES_MAX {
        keep = (keep / 2).max(KEEP_ENTRIES_MIN);
    }
    keep
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_large_entries_are_kept_and_many_small_ones() {
        let entry_bytes = |bytes| move |from: u64| (100_000 - from) * bytes;
        assert_eq!(kept(100_000, 100_000, entry_bytes(100)), KEEP_ENTRIES);
        assert_eq!(kept(100_000, 100_000, entry_bytes(100 << 10)), 2500);
        assert_eq!(kept(100_000, 100_000, entry_bytes(1 << 20)), KEEP_ENTRIES_MIN);
        assert_eq!(kept(100_000, 50, entry_bytes(1 << 20)), 50);
    }
}
