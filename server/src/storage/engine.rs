//! The one thing asked of a storage engine: ordered rows, atomic batches.
//!
//! An engine is written by one thread at a time (the image's) and read by any.
//! It may lose what was written since the last `flush`, but only whole batches
//! from the newest back: a batch survives with all its rows or not at all, and
//! never without the ones before it.

use std::{fmt, ops::ControlFlow};

use bytes::Bytes;

use super::{
    Batch, Fingerprint, StorageError,
    keyspace::{self, Rows},
};

/// Rows read at a time where all are wanted.
const PAGE_ROWS: usize = 1000;

/// Rows from elsewhere, any of which may turn out unreadable.
pub type RowIter<'a> = &'a mut dyn Iterator<Item = Result<(Bytes, Bytes), StorageError>>;

/// Takes a row, key and value, and says whether it wants more.
pub type Take<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>;

/// Ordered rows of bytes.
pub trait Engine: Send + Sync + fmt::Debug + 'static {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError>;

    /// Hands on the rows of `[start, end)` in order, until `take` has enough.
    fn walk(&self, start: &[u8], end: &[u8], take: Take<'_>) -> Result<(), StorageError>;

    /// Rows of `[start, end)` in order, at most `limit` of them; for more, call
    /// again from the successor of the last key.
    fn range(&self, start: &[u8], end: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, StorageError> {
        let mut rows = Vec::new();
        if limit == 0 {
            return Ok(rows);
        }
        self.walk(start, end, &mut |key, value| {
            rows.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
            if rows.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        Ok(rows)
    }

    /// What all rows that were written add up to; `None` where no row can rot unseen.
    fn fingerprint(&self) -> Option<Fingerprint> {
        None
    }

    /// Stores all of the batch or nothing; survives a kill of the process, and
    /// a power cut only after `flush`.
    fn write(&self, batch: &Batch) -> Result<(), StorageError>;

    /// Returns once everything written before is on disk.
    fn flush(&self) -> Result<(), StorageError>;

    fn size_on_disk(&self) -> Result<u64, StorageError>;

    /// Hands on every row in order, and fails in the end if they are not those that
    /// were written, where rows may rot unseen; not if `take` had enough before.
    /// Nothing may be written meanwhile; readers may go on beside it.
    fn scan(&self, take: Take<'_>) -> Result<(), StorageError> {
        self.walk(keyspace::ALL.start, keyspace::ALL.end, take)
    }

    /// Reads every row and compares with what was written, as [`scan`](Self::scan) does.
    fn verify(&self) -> Result<(), StorageError> {
        self.scan(&mut |_, _| ControlFlow::Continue(()))
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

/// The rows of one kind in order, read page by page; ends with the first error.
pub fn all(
    engine: &(impl Engine + ?Sized),
    rows: Rows,
) -> impl Iterator<Item = Result<(Bytes, Bytes), StorageError>> {
    let mut next = Some(Bytes::from_static(rows.start));
    let mut page = Vec::new().into_iter();
    std::iter::from_fn(move || {
        if let Some(row) = page.next() {
            return Some(Ok(row));
        }
        match engine.range(&next.take()?, rows.end, PAGE_ROWS) {
            Ok(rows) => {
                // A page that is not full is the last one.
                next = rows.get(PAGE_ROWS - 1).map(|(last, _)| keyspace::successor(last));
                page = rows.into_iter();
                page.next().map(Ok)
            }
            Err(error) => Some(Err(error)),
        }
    })
}
