//! Why a read cannot be answered.

use crate::storage::StorageError;

/// A read's refusal, in etcd's words, or the image's failure.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("mvcc: required revision has been compacted")]
    Compacted,
    #[error("mvcc: required revision is a future revision")]
    FutureRevision,
    #[error(transparent)]
    Storage(#[from] StorageError),
}
