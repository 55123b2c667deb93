//! A member's data directory out of a snapshot: the day after a disaster.
//!
//! All members of the new cluster are restored from the same file with the same
//! settings. So each begins with the same rows, at the same place of a log that has
//! no entries yet, and they find a leader as after any other stop. The ids are
//! those of a new cluster: no member of the old one can be taken for one of it.
//! Keys, leases, users and roles are those of the snapshot; members and their
//! alarms are not.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
};

use bytes::Bytes;
use etcfs_proto::etcfs::record::{self, LogId, Meta, StoredMembership, Vote};

use super::{bootstrap::Bootstrap, types::Peer};
use crate::storage::{
    Backup, BackupError, Batch, DataDir, DataDirError, DiskEngine, Engine as _, Identity, SnapshotFile,
    StorageError, Wal, WalError, WalOptions, codec,
    keyspace::{self, Rows},
};

/// The term in which all that the snapshot holds has come: the first election is in the next.
const TERM: u64 = 1;
/// Far more than any cluster has members and alarms.
const ROWS_MAX: usize = 1 << 16;

/// What to make of a snapshot.
#[derive(Clone, Debug)]
pub struct Restore {
    pub snapshot: PathBuf,
    /// Must not be there, or be empty.
    pub data_dir: PathBuf,
    /// The new cluster, and which of its members this is.
    pub bootstrap: Bootstrap,
    /// The hash behind the file must be there and right.
    pub check_hash: bool,
    /// What is added to the newest revision, so that clients see none twice.
    pub bump_revision: u64,
    /// Ends the history there: whoever watches from before is told so, and reads anew.
    pub mark_compacted: bool,
}

/// Why a snapshot was not restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    #[error("data-dir {:?} not empty or could not be read", path.display())]
    NotEmpty { path: PathBuf },
    #[error("the revision {revision} can't be raised by {by}")]
    Bump { revision: i64, by: u64 },
    #[error(transparent)]
    Backup(#[from] BackupError),
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    #[error(transparent)]
    Wal(#[from] WalError),
}

/// Makes the data directory; one that could not be made whole is taken away again.
pub fn restore(order: &Restore) -> Result<Identity, RestoreError> {
    let is_empty = match fs::read_dir(&order.data_dir) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    };
    if !is_empty {
        return Err(RestoreError::NotEmpty { path: order.data_dir.clone() });
    }
    let backup = Backup::open(&order.snapshot, order.check_hash)?;
    let restored = make(order, &backup);
    if restored.is_err()
        && let Err(error) = fs::remove_dir_all(&order.data_dir)
    {
        tracing::warn!(%error, dir = %order.data_dir.display(), "what is half restored could not be removed");
    }
    restored
}

fn make(order: &Restore, backup: &Backup) -> Result<Identity, RestoreError> {
    let (identity, founders) = order.bootstrap.founders();
    let mut dir = DataDir::open(&order.data_dir)?;
    let engine = DiskEngine::open(&dir.image())?;
    engine.replace(&mut backup.rows()?)?;
    let meta = meta(order, backup.meta(), identity, &founders)?;
    let mut batch = Batch::default();
    for Rows { start, end } in [keyspace::MEMBERS, keyspace::ALARMS] {
        for (key, _) in engine.range(start, end, ROWS_MAX)? {
            batch.delete(key);
        }
    }
    for (id, peer) in &founders {
        let named = order.bootstrap.members.iter().find(|member| member.peer_urls == peer.urls);
        let member = record::Member {
            id: *id,
            name: named.map(|member| member.name.clone()).unwrap_or_default(),
            peer_urls: peer.urls.clone(),
            ..record::Member::default()
        };
        batch.put(keyspace::member(*id), codec::encode(&member));
    }
    batch.put(Bytes::from_static(keyspace::META), codec::encode(&meta));
    engine.write(&batch)?;
    engine.flush()?;
    engine.verify()?;
    SnapshotFile::build(&engine, &dir.snapshots())?;
    drop(engine);
    let applied = meta.applied.unwrap_or_default();
    begin_log(&dir.wal(), applied, founders.keys().min().copied())?;
    // Last: before it, the directory is nobody's.
    dir.set_identity(identity)?;
    Ok(identity)
}

/// The meta row of the snapshot, as the new cluster's.
fn meta(
    order: &Restore,
    old: &Meta,
    identity: Identity,
    founders: &BTreeMap<u64, Peer>,
) -> Result<Meta, RestoreError> {
    let bump = RestoreError::Bump { revision: old.revision, by: order.bump_revision };
    let raised = i64::try_from(order.bump_revision).ok().and_then(|by| old.revision.max(1).checked_add(by));
    let revision = raised.ok_or(bump)?;
    let index = old.applied.map_or(1, |id| id.index.max(1));
    let applied = Some(LogId { term: TERM, node: 0, index });
    let membership = record::Membership {
        voters: vec![record::VoterSet { ids: founders.keys().copied().collect() }],
        nodes: founders
            .iter()
            .map(|(id, peer)| record::Node {
                id: *id,
                peer_urls: peer.urls.clone(),
                ..record::Node::default()
            })
            .collect(),
    };
    Ok(Meta {
        applied,
        membership: Some(StoredMembership { id: applied, membership: Some(membership) }),
        revision,
        compact_revision: if order.mark_compacted { revision } else { old.compact_revision },
        cluster_id: identity.cluster_id,
        downgrade_target: String::new(),
        ..old.clone()
    })
}

/// A log whose entries up to `applied` are purged, and in whose term somebody was voted for already.
fn begin_log(dir: &Path, applied: LogId, voted_for: Option<u64>) -> Result<(), RestoreError> {
    let options = WalOptions { on_failure: Arc::new(|_| ()), ..WalOptions::default() };
    let wal = Wal::open(dir, options)?;
    let (told, done) = mpsc::channel();
    wal.purge(applied);
    let vote = Vote { term: TERM, node: voted_for, committed: false };
    wal.save_vote(
        vote,
        Box::new(move |result| {
            // Nobody hears it only if this has given up already.
            drop(told.send(result));
        }),
    );
    let written = done.recv().unwrap_or(Err(WalError::Closed));
    wal.close();
    Ok(written?)
}
