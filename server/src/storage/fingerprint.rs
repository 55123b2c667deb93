//! What all rows of an image add up to, kept beside them.
//!
//! sled reads past a fragment of its file whose checksum is wrong, as if it had
//! never been written: a row may then be missing, or old, in the middle of good
//! ones. The sum says so. It is a count and a sum of hashes, so that a batch
//! changes it by its own rows alone, in any order.

use std::collections::HashMap;

use super::{Batch, StorageError, keyspace};

/// Length of a stored fingerprint.
const BYTES: usize = 16;

/// How many rows there are, and the sum of their hashes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fingerprint {
    rows: u64,
    sum: u64,
}

impl Fingerprint {
    pub(super) fn decode(stored: &[u8]) -> Option<Self> {
        let stored: &[u8; BYTES] = stored.try_into().ok()?;
        let (rows, sum) = stored.split_at(BYTES / 2);
        Some(Self {
            rows: u64::from_be_bytes(rows.try_into().ok()?),
            sum: u64::from_be_bytes(sum.try_into().ok()?),
        })
    }

    pub(super) fn encode(self) -> [u8; BYTES] {
        let mut stored = [0; BYTES];
        stored[..BYTES / 2].copy_from_slice(&self.rows.to_be_bytes());
        stored[BYTES / 2..].copy_from_slice(&self.sum.to_be_bytes());
        stored
    }

    /// An error unless the rows `found` are those that were written to `what`.
    pub(super) fn check(self, found: Self, what: impl FnOnce() -> String) -> Result<(), StorageError> {
        if self == found {
            return Ok(());
        }
        let reason = format!("of {} rows written, {} are found", self.rows, found.rows);
        Err(StorageError::Corrupt { what: what(), reason })
    }

    pub(super) fn add(&mut self, key: &[u8], value: &[u8]) {
        self.put(hash(key, value));
    }

    /// The fingerprint once `batch` is in; `stored` looks up what a row holds before it.
    pub(super) fn after<E>(
        mut self,
        batch: &Batch,
        stored: impl Fn(&[u8]) -> Result<Option<u64>, E>,
    ) -> Result<Self, E> {
        // What the batch itself has made of a row so far.
        let mut made: HashMap<&[u8], Option<u64>> = HashMap::with_capacity(batch.len());
        for (key, change) in batch.ops() {
            let new = change.as_ref().map(|value| hash(key, value));
            let old = match made.insert(key, new) {
                Some(old) => old,
                // Nothing to look up, for most of what is ever written.
                None if new.is_some() && keyspace::is_revision(key) => None,
                None => stored(key)?,
            };
            if let Some(old) = old {
                self.rows = self.rows.wrapping_sub(1);
                self.sum = self.sum.wrapping_sub(old);
            }
            if let Some(new) = new {
                self.put(new);
            }
        }
        Ok(self)
    }

    fn put(&mut self, hash: u64) {
        self.rows = self.rows.wrapping_add(1);
        self.sum = self.sum.wrapping_add(hash);
    }
}

/// A hash of a row that any build computes alike.
pub(super) fn hash(key: &[u8], value: &[u8]) -> u64 {
    // Sums of checksums would cancel out where checksums do; the steps after them don't add up.
    let mut hash = u64::from(crc32c::crc32c(key)) << 32 | u64::from(crc32c::crc32c(value));
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, convert::Infallible};

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    fn of(rows: &BTreeMap<Bytes, Bytes>) -> Fingerprint {
        let mut fingerprint = Fingerprint::default();
        rows.iter().for_each(|(key, value)| fingerprint.add(key, value));
        fingerprint
    }

    proptest! {
        #[test]
        fn batches_keep_the_fingerprint_of_all_rows(
            batches in prop::collection::vec(
                prop::collection::vec((0_u8..12, prop::option::of(0_u8..4)), 0..12), 0..8)
        ) {
            let mut rows: BTreeMap<Bytes, Bytes> = BTreeMap::new();
            let mut kept = Fingerprint::default();
            for changes in batches {
                let mut batch = Batch::default();
                let before = rows.clone();
                for (key, value) in changes {
                    let key = Bytes::from(vec![b'l', key]);
                    match value {
                        Some(value) => {
                            rows.insert(key.clone(), vec![value].into());
                            batch.put(key, vec![value].into());
                        }
                        None => {
                            rows.remove(&key);
                            batch.delete(key);
                        }
                    }
                }
                let stored = |key: &[u8]| Ok::<_, Infallible>(before.get(key).map(|value| hash(key, value)));
                kept = kept.after(&batch, stored).expect("infallible");
                prop_assert_eq!(kept, of(&rows));
            }
        }
    }

    #[test]
    fn a_revision_put_and_deleted_in_one_batch_leaves_nothing() {
        let mut batch = Batch::default();
        batch.put(keyspace::revision(5, 0), "value".into());
        batch.delete(keyspace::revision(5, 0));
        let none = |_: &[u8]| Ok::<_, Infallible>(None);
        assert_eq!(Fingerprint::default().after(&batch, none), Ok(Fingerprint::default()));
    }

    #[test]
    fn a_missing_and_an_old_row_show() {
        let whole: BTreeMap<Bytes, Bytes> =
            (0..100).map(|n| (keyspace::revision(n, 0), format!("{n}").into())).collect();
        let mut missing = whole.clone();
        missing.remove(&keyspace::revision(50, 0));
        assert_ne!(of(&missing), of(&whole));
        let mut old = whole.clone();
        old.insert(keyspace::revision(50, 0), "49".into());
        assert_ne!(of(&old), of(&whole));
        let mut swapped = whole.clone();
        swapped.insert(keyspace::revision(50, 0), "51".into());
        swapped.insert(keyspace::revision(51, 0), "50".into());
        assert_ne!(of(&swapped), of(&whole));
        assert_eq!(Fingerprint::decode(&of(&whole).encode()), Some(of(&whole)));
    }
}
