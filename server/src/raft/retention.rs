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
/// A snapshot as large as this is taken by the count of entries alone. It has all
/// rows: a larger one waits until the log has grown by as much, or many keys and
/// small writes would have it written over and over, and every write wait.
const SMALL_BYTES: u64 = 16 << 20;
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Pause after a snapshot that could not be built.
const RETRY_PAUSE: Duration = Duration::from_secs(10);
/// How long openraft may take to note a snapshot that is ready.
const NOTE_TIMEOUT: Duration = Duration::from_secs(10);

/// Looks after the log until `shutdown`.
pub(super) async fn run(node: Node, snapshots: Snapshots, snapshot_count: u64, shutdown: CancellationToken) {
    loop {
        let mut pause = LOOK_INTERVAL;
        let image_bytes = || node.inner.engine.size_on_disk().unwrap_or(u64::MAX);
        if Log::of(&node).is_due(snapshot_count, || snapshots.bytes(), image_bytes)
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

/// What has come since the last snapshot.
#[derive(Clone, Copy, Debug)]
struct Log {
    entries: u64,
    bytes: u64,
}

impl Log {
    fn of(node: &Node) -> Self {
        let (applied, snapshot) = {
            let metrics = node.inner.metrics.borrow_watched();
            (metrics.last_applied.map(|id| id.index), metrics.snapshot.map(|id| id.index))
        };
        let applied = applied.unwrap_or(0);
        let entries = applied - snapshot.unwrap_or(0).min(applied);
        Self { entries, bytes: node.inner.wal.bytes_after(snapshot) }
    }

    /// What the last snapshot and the image have in bytes is asked for only if it matters: that reads the disk.
    fn is_due(self, count: u64, snapshot_bytes: impl Fn() -> u64, image_bytes: impl Fn() -> u64) -> bool {
        let pays = || {
            let written = snapshot_bytes();
            written <= SMALL_BYTES || self.bytes >= written
        };
        (self.entries >= count && pays()) || (self.bytes >= SNAPSHOT_BYTES && self.bytes >= image_bytes())
    }
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
    fn a_large_snapshot_waits_until_the_log_has_grown_by_as_much() {
        const MIB: u64 = 1 << 20;
        let is_due = |entries, log: u64, snapshot: u64| {
            Log { entries, bytes: log * MIB }.is_due(10_000, || snapshot * MIB, || 3 * snapshot * MIB)
        };
        assert_eq!([is_due(9_999, 100, 0), is_due(10_000, 0, 0), is_due(10_000, 1, 16)], [false, true, true]);
        assert_eq!(
            [is_due(10_000, 4, 80), is_due(90_000, 79, 80), is_due(90_000, 80, 80)],
            [false, false, true]
        );
        assert_eq!([is_due(100, 255, 10), is_due(100, 256, 10)], [false, true], "few large entries");
        assert_eq!([is_due(100, 256, 500), is_due(100, 1500, 500)], [false, true]);
        let unasked = || -> u64 { panic!("it does not matter") };
        assert!(!Log { entries: 9_999, bytes: 255 * MIB }.is_due(10_000, unasked, unasked));
    }

    #[test]
    fn few_large_entries_are_kept_and_many_small_ones() {
        let entry_bytes = |bytes| move |from: u64| (100_000 - from) * bytes;
        assert_eq!(kept(100_000, 100_000, entry_bytes(100)), KEEP_ENTRIES);
        assert_eq!(kept(100_000, 100_000, entry_bytes(100 << 10)), 2500);
        assert_eq!(kept(100_000, 100_000, entry_bytes(1 << 20)), KEEP_ENTRIES_MIN);
        assert_eq!(kept(100_000, 50, entry_bytes(1 << 20)), 50);
    }
}
