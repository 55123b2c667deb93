//! What can go wrong with the log on disk.

use std::{io, path::PathBuf};

/// A failure of the log. Every one but `Purged` ends the process: after a failed
/// sync nobody knows what is on disk, and a damaged log must not be cut silently.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WalError {
    #[error("{doing} {}: {source}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("log segment {} is corrupt at byte {offset}: {reason}", path.display())]
    Corrupt { path: PathBuf, offset: u64, reason: &'static str },
    #[error("log segment {} is missing", path.display())]
    MissingSegment { path: PathBuf },
    #[error("log segment {} has format {found}, this build reads up to {known}", path.display())]
    Format { path: PathBuf, found: u64, known: u64 },
    #[error("log entry {index} is not on disk: it was purged or never written")]
    NoSuchEntry { index: u64 },
    #[error("log entry {index} has {bytes} bytes, more than a segment holds")]
    TooLarge { index: u64, bytes: usize },
    #[error("the log is closed")]
    Closed,
}

impl WalError {
    pub(super) fn io(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { doing, path, source }
    }

    /// True where freeing space on the disk would cure it.
    pub(super) fn is_no_space(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull)
    }
}
