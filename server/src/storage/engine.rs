//! The one thing asked of a storage engine: ordered rows, atomic batches.
//!
//! An engine is written by one thread at a time (the image's) and read by any.
//! It may lose what was written since the last `flush`, but only whole batches
//! from the newest back: a batch survives with all its rows or not at all, and
//! never without the ones before it.

use std::fmt;

use bytes::Bytes;

use super::{Batch, StorageError};

/// Rows from elsewhere, any of which may turn out unreadable.
pub type RowIter<'a> = &'a mut dyn Iterator<Item = Result<(Bytes, Bytes), StorageError>>;

/// Ordered rows of bytes.
pub trait Engine: Send + Sync + fmt::Debug + 'static {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError>;

    /// Rows of `[start, end)` in order, at most `limit` of them; for more, call
    /// again from the successor of the last key.
    fn range(&self, start: &[u8], end: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, StorageError>;

    /// Stores all of the batch or nothing; survives a kill of the process, and
    /// a power cut only after `flush`.
    fn write(&self, batch: &Batch) -> Result<(), StorageError>;

    /// Returns once everything written before is on disk.
    fn flush(&self) -> Result<(), StorageError>;

    fn size_on_disk(&self) -> Result<u64, StorageError>;

    /// Reads every row and compares with what was written, where rows may rot
    /// unseen. To be asked before the first write; readers may go on beside it.
    fn verify(&self) -> Result<(), StorageError> {
        Ok(())
    }

    /// Stores `rows`, which ascend, in place of all there are; on disk when it
    /// returns. Should it fail, the old rows stand. A reader between two calls
    /// may see old rows and then new ones.
    fn replace(&self, rows: RowIter<'_>) -> Result<(), StorageError>;

    /// Copies some more rows to a fresh place, where those that were deleted take
    /// no space. What is written between two calls is in both places. True once
    /// the fresh one holds all rows, is on disk and has taken over; the next call
    /// then begins anew. So it does after a failure, and the old rows stand.
    fn rewrite(&self) -> Result<bool, StorageError>;
}
