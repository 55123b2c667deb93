//! A checksum of history that members of one cluster compare.

use std::collections::HashMap;

use bytes::Bytes;

use super::{ReadError, Revision, Store, row};
use crate::storage::keyspace;

/// What `HashKV` answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvHash {
    pub hash: u32,
    /// -1 where the store was never compacted.
    pub compact_revision: i64,
    pub hash_revision: i64,
}

/// Rows read from the image at a time.
const ROWS_CHUNK: usize = 2048;

impl Store {
    /// CRC-32C over `(revision, row)` of all rows up to `revision`, 0 or below being the newest.
    ///
    /// Rows that the last compaction drops don't count, deleted already or not: so members agree
    /// whatever their scrubs have done. Long: for a thread that may block.
    pub fn hash_kv(&self, revision: i64) -> Result<KvHash, ReadError> {
        let view = self.view(revision)?;
        let inner = self.inner.read();
        let (compacted, epoch) = (inner.compacted, inner.epoch);
        let upto = if revision <= 0 { inner.published } else { revision };
        // A later compaction may drop what this one kept: hold it back.
        let pin = self.pins.pin(compacted);
        let engine = std::sync::Arc::clone(&inner.engine);
        drop(inner);
        let mut hash = 0;
        let mut start = row::row_key(Revision::default());
        loop {
            // What the image lacks is in memory, so look there first, and again for each chunk.
            let stored_upto = self.stored_upto(upto);
            let end = row::row_key(Revision { main: stored_upto + 1, sub: 0 });
            let rows = engine.range(&start, &end, ROWS_CHUNK)?;
            let full = rows.len() == ROWS_CHUNK;
            if let Some((last, _)) = rows.last() {
                start = keyspace::successor(last);
            }
            hash = self.hash_rows(hash, compacted, &rows);
            if !full {
                let next = row::row_key(Revision { main: stored_upto + 1, sub: 0 });
                if stored_upto == upto {
                    break;
                }
                start = next;
                if let Some(rows) = self.recent_rows(stored_upto + 1, upto) {
                    hash = self.hash_rows(hash, compacted, &rows);
                    break;
                }
            }
        }
        drop((pin, view));
        if self.inner.read().epoch != epoch {
            return Err(ReadError::Compacted);
        }
        Ok(KvHash { hash, compact_revision: compacted, hash_revision: upto })
    }

    /// The newest revision to read from the image: what is recent is taken from memory.
    fn stored_upto(&self, upto: i64) -> i64 {
        upto.min(self.inner.read().recent.first() - 1)
    }

    /// Rows of `from..=upto` if all are in memory still.
    fn recent_rows(&self, from: i64, upto: i64) -> Option<Vec<(Bytes, Bytes)>> {
        let inner = self.inner.read();
        let mut rows = Vec::new();
        for main in from..=upto {
            let of_main = inner.recent.revision(main)?;
            rows.extend(
                of_main.iter().zip(0..).map(|(row, sub)| (row::row_key(Revision { main, sub }), row.clone())),
            );
        }
        Some(rows)
    }

    fn hash_rows(&self, mut hash: u32, compacted: i64, rows: &[(Bytes, Bytes)]) -> u32 {
        let kept: HashMap<Revision, bool> = {
            let inner = self.inner.read();
            let old = rows.iter().filter_map(|(key, row)| Some((row::parse_row_key(key).ok()?, row)));
            old.filter(|(revision, _)| revision.main < compacted)
                .map(|(revision, row)| {
                    let history = inner.index.get(row::key(row));
                    (revision, history.is_some_and(|history| history.outlives(revision, compacted)))
                })
                .collect()
        };
        for (key, row) in rows {
            let revision = row::parse_row_key(key).unwrap_or_default();
            if kept.get(&revision).copied().unwrap_or(true) {
                hash = crc32c::crc32c_append(hash, key);
                hash = crc32c::crc32c_append(hash, row);
            }
        }
        hash
    }
}
