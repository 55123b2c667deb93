//! Data without a server: what a snapshot file holds, a member out of it, and a member's directory
//! made smaller.
//!
//! For the command line, which knows nothing of what lies on disk. The settings
//! of the new member are checked as the server's own flags are.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

pub use crate::mvcc::KvHash;
use crate::{
    apply::Machine,
    config::{self, ConfigError, Invocation},
    mvcc::{ReadError, StoreOptions},
    raft::{self, Bootstrap, InitialMember, Restore, RestoreError},
    storage::{
        Backup, BackupError, DataDir, DataDirError, DiskEngine, Engine as _, Identity, MemoryEngine,
        StorageError,
    },
    version,
};

/// What a snapshot file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Over all that is stored.
    pub hash: u32,
    pub revision: i64,
    /// Of all kinds: revisions of keys, leases, users, roles, members.
    pub rows: u64,
    pub bytes: u64,
    pub version: &'static str,
}

/// Reads all of a file, and checks it.
pub fn status(snapshot: &Path) -> Result<Status, BackupError> {
    let backup = Backup::inspect(snapshot)?;
    Ok(Status {
        hash: backup.checksum(),
        revision: backup.meta().revision,
        rows: backup.len(),
        bytes: backup.bytes(),
        version: version::STORAGE,
    })
}

/// Why a snapshot has no hash.
#[derive(Debug, thiserror::Error)]
pub enum HashError {
    #[error(transparent)]
    Backup(#[from] BackupError),
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// The hash over the keys and their history in a snapshot at `revision`, at the newest for 0: the one
/// that members tell. Takes memory for all rows.
pub fn hash_kv(snapshot: &Path, revision: i64) -> Result<KvHash, HashError> {
    let backup = Backup::inspect(snapshot)?;
    let engine = Arc::new(MemoryEngine::new());
    engine.replace(&mut backup.rows()?)?;
    let (_machine, state) = Machine::open(engine, StoreOptions::default())?;
    Ok(state.store.hash_kv(revision)?)
}

/// Why a data directory is as large as it was.
#[derive(Debug, thiserror::Error)]
pub enum DefragmentError {
    #[error("there is no data of a member in {}", .0.display())]
    NoMember(PathBuf),
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Gives back the disk space of what was deleted in the data directory of a member that does not run.
pub fn defragment(data_dir: &Path) -> Result<(), DefragmentError> {
    if !DataDir::has_identity(data_dir) {
        return Err(DefragmentError::NoMember(data_dir.to_owned()));
    }
    let dir = DataDir::open(data_dir)?;
    let engine = DiskEngine::open(&dir.image())?;
    engine.verify()?;
    while !engine.rewrite()? {}
    Ok(())
}

/// The new member, as etcd's flags say it.
#[derive(Clone, Debug)]
pub struct Member {
    pub name: String,
    /// `NAME.etcd` if not given.
    pub data_dir: Option<PathBuf>,
    pub initial_cluster: Option<String>,
    pub initial_cluster_token: String,
    pub initial_advertise_peer_urls: String,
}

/// How a snapshot is taken.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    pub skip_hash_check: bool,
    pub bump_revision: u64,
    pub mark_compacted: bool,
}

/// Where it went, and who it is.
#[derive(Clone, Debug)]
pub struct Restored {
    pub data_dir: PathBuf,
    pub member_id: u64,
    pub cluster_id: u64,
}

/// Why there is no new member.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Settings(#[from] ConfigError),
    #[error(transparent)]
    Restore(#[from] RestoreError),
}

/// Makes a member's data directory out of a snapshot.
pub fn member(snapshot: &Path, member: &Member, options: Options) -> Result<Restored, Error> {
    let mut argv = vec![
        "etcfsd".to_owned(),
        format!("--name={}", member.name),
        format!("--initial-cluster-token={}", member.initial_cluster_token),
        format!("--initial-advertise-peer-urls={}", member.initial_advertise_peer_urls),
        // Members may speak TLS; with which certificates is said when they start.
        "--peer-auto-tls".to_owned(),
    ];
    argv.extend(member.initial_cluster.iter().map(|cluster| format!("--initial-cluster={cluster}")));
    let config = match config::parse(argv.into_iter().map(Into::into), std::iter::empty())? {
        Invocation::Serve(config) => config,
        Invocation::Version | Invocation::Help(_) | Invocation::Print(_) => unreachable!("none is asked for"),
    };
    let founders = config.founders.iter();
    let bootstrap = Bootstrap {
        name: config.name.clone(),
        members: founders
            .map(|one| InitialMember { name: one.name.clone(), peer_urls: one.peer_urls.clone() })
            .collect(),
        token: config.cluster_token.clone(),
        existing: false,
    };
    let data_dir = member.data_dir.clone().unwrap_or(config.data_dir);
    let Identity { member_id, cluster_id } = raft::restore(&Restore {
        snapshot: snapshot.to_owned(),
        data_dir: data_dir.clone(),
        bootstrap,
        check_hash: !options.skip_hash_check,
        bump_revision: options.bump_revision,
        mark_compacted: options.mark_compacted,
    })?;
    Ok(Restored { data_dir, member_id, cluster_id })
}
