//! What a member stands on: where its loops run, its log and its rows lie, and
//! how it dies.

use std::{
    fmt,
    path::Path,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use crate::{
    storage::{Disk, DiskEngine, Engine, OsDisk, StorageError},
    threads::{OsThreads, Threads},
};

/// Opens the rows in a directory.
pub type OpenEngine = dyn Fn(&Path) -> Result<Arc<dyn Engine>, StorageError> + Send + Sync;

/// The machine, by default; or another that a simulation makes up.
#[derive(Clone)]
pub struct Host {
    pub threads: Arc<dyn Threads>,
    /// For the log alone.
    pub disk: Arc<dyn Disk>,
    /// Of one file of the log.
    pub segment_bytes: usize,
    pub open_engine: Arc<OpenEngine>,
    /// Milliseconds since 1970. What revisions are told to be made at, and nothing else, follows from it.
    pub clock: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// Ends the member at once, with nothing written or told any more.
    pub die: Arc<dyn Fn() + Send + Sync>,
}

impl Default for Host {
    fn default() -> Self {
        Self {
            threads: Arc::new(OsThreads),
            disk: Arc::new(OsDisk),
            segment_bytes: 16 << 20,
            open_engine: Arc::new(|dir| Ok(Arc::new(DiskEngine::open(dir)?))),
            clock: Arc::new(|| {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                u64::try_from(since.as_millis()).unwrap_or_default()
            }),
            die: Arc::new(|| std::process::abort()),
        }
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { threads, disk, .. } = self;
        f.debug_struct("Host").field("threads", threads).field("disk", disk).finish_non_exhaustive()
    }
}
