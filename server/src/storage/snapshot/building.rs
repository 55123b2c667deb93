//! A snapshot in the making: the rows of one moment, read in parts between the writes.
//!
//! Rows of revisions are only ever added, at the end, or deleted. So those of the moment stay where
//! they are, newer ones are passed over, and of the few others the old ones are kept before a write
//! changes them. What was read adds up to what the engine had at that moment, or it is no snapshot.

use std::{collections::BTreeMap, io, ops::ControlFlow, path::Path};

use bytes::Bytes;
use etcfs_proto::etcfs::record::{Meta, SnapshotHeader};
use prost::Message as _;
use sha2::Digest as _;

use super::{BUILDING, Durability, END_OF_ROWS, FORMAT, IncomingSnapshot, MAGIC, SnapshotFile, length};
use crate::storage::{
    Batch, Engine, Fingerprint, StorageError, codec,
    keyspace::{self, REVISIONS},
};

/// Read at once, by whoever has writes to make.
const PART_BYTES: usize = 512 << 10;

/// Dropped before its end, it leaves a file that the next one begins anew.
#[derive(Debug)]
pub(in crate::storage) struct Building {
    file: IncomingSnapshot,
    /// The newest of the moment.
    revision: i64,
    /// The first key that was not read yet.
    next: Bytes,
    /// What rows from `next` on were, if anything, that have changed since.
    kept: BTreeMap<Bytes, Option<Bytes>>,
    rows: u64,
    found: Fingerprint,
    written: Option<Fingerprint>,
}

impl Building {
    /// Begins one of the rows as they are now, in `dir`.
    pub(in crate::storage) fn begin(
        engine: &dyn Engine,
        dir: &Path,
        durability: Durability,
    ) -> Result<Self, StorageError> {
        let meta: Meta = match engine.get(keyspace::META)? {
            Some(row) => codec::decode(keyspace::META, row)?,
            // Of a state to which nothing was applied yet.
            None if engine.range(keyspace::ALL.start, keyspace::ALL.end, 1)?.is_empty() => Meta::default(),
            None => {
                let reason = "it has rows but does not say how far it has come".into();
                return Err(StorageError::Corrupt { what: "image".into(), reason });
            }
        };
        let revision = meta.revision;
        let mut file = IncomingSnapshot::begin(dir, BUILDING, durability)?;
        let header = SnapshotHeader { format: FORMAT, meta: Some(meta), rows: 0 }.encode_to_vec();
        for part in [MAGIC, &length(header.len())[..], &header] {
            file.write(part).map_err(StorageError::io("write", &file.temporary))?;
        }
        Ok(Self {
            file,
            revision,
            next: Bytes::from_static(keyspace::ALL.start),
            kept: BTreeMap::new(),
            rows: 0,
            found: Fingerprint::default(),
            written: engine.fingerprint(),
        })
    }

    /// Keeps what `batch`, which is about to be written, changes of rows that are still to be read.
    pub(in crate::storage) fn keep(
        &mut self,
        engine: &dyn Engine,
        batch: &Batch,
    ) -> Result<(), StorageError> {
        for (key, _) in batch.ops() {
            if *key >= self.next && !self.is_newer(key) && !self.kept.contains_key(key) {
                self.kept.insert(key.clone(), engine.get(key)?);
            }
        }
        Ok(())
    }

    /// Reads the next part; true once there is no more.
    pub(in crate::storage) fn go_on(&mut self, engine: &dyn Engine) -> Result<bool, StorageError> {
        let (mut read, mut written) = (0, Ok(()));
        let mut is_end = true;
        engine.walk(&self.next.clone(), keyspace::ALL.end, &mut |key, value| {
            is_end = false;
            if self.is_newer(key) {
                written = self.take_kept(REVISIONS.end);
                self.next = Bytes::from_static(REVISIONS.end);
                return ControlFlow::Break(());
            }
            written = self.take_kept(key).and_then(|()| match self.kept.remove(key) {
                None => self.take(key, value),
                Some(Some(value)) => self.take(key, &value),
                Some(None) => Ok(()),
            });
            self.next = keyspace::successor(key);
            read += key.len() + value.len();
            is_end = read < PART_BYTES;
            if is_end && written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        if is_end && written.is_ok() {
            written = self.take_kept(keyspace::ALL.end);
        }
        written.map_err(StorageError::io("write", &self.file.temporary))?;
        Ok(is_end)
    }

    /// Names it, once it is on disk if it is to be.
    pub(in crate::storage) fn finish(mut self) -> Result<SnapshotFile, StorageError> {
        // A row that was lost unseen must not be missing here as well, for the log goes next.
        if let Some(written) = self.written {
            written.check(self.found, || "image".into())?;
        }
        for part in [&END_OF_ROWS.to_le_bytes()[..], &self.rows.to_le_bytes()] {
            self.file.write(part).map_err(StorageError::io("write", &self.file.temporary))?;
        }
        let hash = self.file.hash.clone().finalize();
        self.file.write(&hash).map_err(StorageError::io("write", &self.file.temporary))?;
        self.file.name()
    }

    /// Whether the row has come since the moment.
    fn is_newer(&self, key: &[u8]) -> bool {
        keyspace::parse_revision(key).is_some_and(|(main, _)| main > self.revision)
    }

    /// Takes the kept rows that come before `key`.
    fn take_kept(&mut self, key: &[u8]) -> io::Result<()> {
        while let Some(first) = self.kept.first_entry().filter(|first| first.key()[..] < *key) {
            if let (key, Some(value)) = first.remove_entry() {
                self.take(&key, &value)?;
            }
        }
        Ok(())
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.rows += 1;
        self.found.add(key, value);
        self.file.write_row(key, value)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::storage::DiskEngine;

    /// A change between two parts; a row of the kind that `by` picks.
    #[derive(Clone, Debug)]
    enum Change {
        Revision,
        Put { by: u8, nth: i64, value: u8 },
        Delete { by: u8, nth: i64 },
    }

    fn change() -> impl Strategy<Value = Change> {
        prop_oneof![
            1 => Just(Change::Revision),
            2 => (0..4_u8, 0..20_i64, any::<u8>()).prop_map(|(by, nth, value)| Change::Put { by, nth, value }),
            2 => (0..5_u8, 0..20_i64).prop_map(|(by, nth)| Change::Delete { by, nth }),
        ]
    }

    fn key(by: u8, nth: i64) -> Bytes {
        match by {
            0 => keyspace::lease(nth),
            1 => keyspace::role(&nth.to_string()),
            2 => keyspace::user(&nth.to_string()),
            3 => keyspace::time(nth),
            _ => keyspace::revision(nth, 0),
        }
    }

    /// A few rows are a part.
    fn value(byte: u8) -> Bytes {
        vec![byte; PART_BYTES / 3].into()
    }

    fn batch(changes: &[Change], revision: &mut i64) -> Batch {
        let mut batch = Batch::default();
        for change in changes {
            match *change {
                Change::Revision => {
                    *revision += 1;
                    batch.put(keyspace::revision(*revision, 0), value(1));
                }
                Change::Put { by, nth, value: byte } => batch.put(key(by, nth), value(byte)),
                Change::Delete { by, nth } => batch.delete(key(by, nth)),
            }
        }
        let meta = Meta { revision: *revision, ..Meta::default() };
        batch.put(Bytes::from_static(keyspace::META), codec::encode(&meta));
        batch
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn a_snapshot_has_the_rows_of_its_moment_whatever_is_written_meanwhile(
            before in prop::collection::vec(change(), 0..40),
            between in prop::collection::vec(prop::collection::vec(change(), 0..10), 0..15),
        ) {
            let dir = tempfile::tempdir().expect("temp dir");
            let engine = DiskEngine::open(dir.path()).expect("opened");
            let mut revision = 20;
            engine.write(&batch(&before, &mut revision)).expect("written");
            let expected = engine.range(keyspace::ALL.start, keyspace::ALL.end, usize::MAX).expect("read");
            let snapshots = tempfile::tempdir().expect("temp dir");
            let mut building = Building::begin(&engine, snapshots.path(), Durability::OnDisk).expect("begun");
            for changes in between {
                let batch = batch(&changes, &mut revision);
                building.keep(&engine, &batch).expect("read");
                engine.write(&batch).expect("written");
                if building.go_on(&engine).expect("read") {
                    break;
                }
            }
            while !building.go_on(&engine).expect("read") {}
            let snapshot = building.finish().expect("all rows were found");
            snapshot.verify().expect("whole");
            let rows: Result<Vec<_>, _> = snapshot.rows().expect("opened").collect();
            prop_assert!(rows.expect("read") == expected);
        }
    }
}
