//! What can go wrong with stored rows.

use std::{io, path::PathBuf};

/// A failure of the image or of a row in it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    #[error("{doing} {}: {source}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    /// The engine's own words; an I/O error below it is kept as such.
    #[error("storage engine cannot {doing}: {source}")]
    Engine { doing: &'static str, source: io::Error },
    #[error("row {row} cannot be decoded: {source}")]
    Decode { row: String, source: prost::DecodeError },
    #[error("{what} is corrupt: {reason}")]
    Corrupt { what: String, reason: String },
    /// Neither the disk nor the engine has them; the log does.
    #[error("{what} lacks rows that a full disk did not take: only a start makes them again")]
    Unwritten { what: String },
    /// The write-behind thread has ended; nothing more will be stored.
    #[error("the image of the store is closed")]
    Closed,
}

impl StorageError {
    pub(crate) fn io(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { doing, path, source }
    }

    /// The same failure again, for a second one who must know of it.
    pub(crate) fn echo(&self) -> Self {
        match self {
            Self::Io { doing, path, source } => Self::Io { doing, path: path.clone(), source: again(source) },
            Self::Engine { doing, source } => Self::Engine { doing, source: again(source) },
            Self::Decode { row, source } => Self::Decode { row: row.clone(), source: source.clone() },
            Self::Corrupt { what, reason } => Self::Corrupt { what: what.clone(), reason: reason.clone() },
            Self::Unwritten { what } => Self::Unwritten { what: what.clone() },
            Self::Closed => Self::Closed,
        }
    }

    /// True where freeing space on the disk would cure it.
    pub fn is_no_space(&self) -> bool {
        let (Self::Io { source, .. } | Self::Engine { source, .. }) = self else { return false };
        source.kind() == io::ErrorKind::StorageFull || source.raw_os_error() == Some(libc::ENOSPC)
    }
}

fn again(source: &io::Error) -> io::Error {
    match source.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(source.kind(), source.to_string()),
    }
}
