//! Snapshot files that were taken away: a member's own, filled up with zeroes to
//! a block, with the SHA-256 of all that behind it; or one copied out of a data
//! directory, which lacks that hash.
//!
//! The file's own hash lies behind its last row, so its rows are read twice:
//! once to know that they are whole, and once for use.

use std::{
    fs::{self, File},
    io::{self, BufReader, Read, Seek as _},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use etcfs_proto::etcfs::record::Meta;
use sha2::{Digest, Sha256};

use super::{StorageError, snapshot};

const HASH_BYTES: u64 = 32;
/// What a file is filled up to before its hash, by which one with a hash is known.
pub const BLOCK_BYTES: u64 = 512;
const BUFFER_BYTES: usize = 1 << 20;

/// A file whose rows are whole.
#[derive(Debug)]
pub struct Backup {
    path: PathBuf,
    meta: Meta,
    rows: u64,
    bytes: u64,
    checksum: u32,
}

/// Why a file is not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// In etcd's words.
    #[error("snapshot missing hash but --skip-hash-check=false")]
    NoHash,
    #[error(
        "{} is a database of etcd itself (bbolt), and only files of etcfsd are read: etcdutl reads that one, \
         and `etcfs migrate` takes over a running etcd", .0.display()
    )]
    Bbolt(PathBuf),
    #[error("expected sha256 {expected}, got {found}")]
    Hash { expected: String, found: String },
}

impl Backup {
    /// Reads all of it, with the hash behind it if there is one.
    pub fn inspect(path: &Path) -> Result<Self, BackupError> {
        let bytes = fs::metadata(path).map_err(StorageError::io("open", path))?.len();
        Self::open(path, has_hash(bytes))
    }

    /// Reads all of it. With `check_hash` the hash behind the file must be there, and right.
    pub fn open(path: &Path, check_hash: bool) -> Result<Self, BackupError> {
        let io = |error| StorageError::io("read", path)(error);
        let mut file = File::open(path).map_err(StorageError::io("open", path))?;
        let bytes = file.metadata().map_err(io)?.len();
        if is_bbolt(&mut file).map_err(io)? {
            return Err(BackupError::Bbolt(path.to_owned()));
        }
        if check_hash {
            check(&mut file, bytes, path)?;
            file.rewind().map_err(io)?;
        }
        let corrupt = |reason: &str| StorageError::Corrupt {
            what: path.display().to_string(),
            reason: reason.to_owned(),
        };
        let mut reader = Hashing { inner: BufReader::with_capacity(BUFFER_BYTES, file), hash: Sha256::new() };
        let meta = snapshot::read_meta(&mut reader, path)?;
        let (mut rows, mut checksum) = (0, 0);
        while let Some((key, value)) = snapshot::read_row(&mut reader).map_err(io)? {
            checksum = crc32c::crc32c_append(crc32c::crc32c_append(checksum, &key), &value);
            rows += 1;
        }
        let mut counted = [0; 8];
        reader.read_exact(&mut counted).map_err(io)?;
        if u64::from_le_bytes(counted) != rows {
            return Err(corrupt("it does not have as many rows as it says").into());
        }
        let found = reader.hash.finalize();
        let mut expected = [0; HASH_BYTES as usize];
        reader.inner.read_exact(&mut expected).map_err(io)?;
        if found[..] != expected {
            return Err(corrupt("its hash does not match").into());
        }
        Ok(Self { path: path.to_owned(), meta, rows, bytes, checksum })
    }

    /// How far the state in it has come.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// How many rows it has, of all kinds.
    pub fn len(&self) -> u64 {
        self.rows
    }

    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Over keys and values of all rows.
    pub fn checksum(&self) -> u32 {
        self.checksum
    }

    /// Its rows in order.
    pub fn rows(
        &self,
    ) -> Result<impl Iterator<Item = Result<(Bytes, Bytes), StorageError>> + use<>, StorageError> {
        let file = File::open(&self.path).map_err(StorageError::io("open", &self.path))?;
        let mut reader = BufReader::with_capacity(BUFFER_BYTES, file);
        snapshot::read_meta(&mut reader, &self.path)?;
        let path = self.path.clone();
        let mut left = self.rows;
        Ok(std::iter::from_fn(move || {
            left = left.checked_sub(1)?;
            snapshot::read_row(&mut reader).map_err(StorageError::io("read", &path)).transpose()
        }))
    }
}

/// As etcd tells, by the size alone.
fn has_hash(bytes: u64) -> bool {
    bytes % BLOCK_BYTES == HASH_BYTES
}

/// Whether it begins as etcd's own files do: a page header, and the magic number of bbolt's meta page.
fn is_bbolt(file: &mut File) -> io::Result<bool> {
    const MAGIC: [u8; 4] = 0xed0c_daed_u32.to_le_bytes();
    let mut begin = Vec::with_capacity(20);
    file.by_ref().take(20).read_to_end(&mut begin)?;
    file.rewind()?;
    Ok(begin.get(16..) == Some(&MAGIC[..]))
}

/// Compares the hash behind the file with that of all before it.
fn check(file: &mut File, bytes: u64, path: &Path) -> Result<(), BackupError> {
    if !has_hash(bytes) {
        return Err(BackupError::NoHash);
    }
    let io = |error| StorageError::io("read", path)(error);
    let mut before = Hashing { inner: file.by_ref().take(bytes - HASH_BYTES), hash: Sha256::new() };
    io::copy(&mut before, &mut io::sink()).map_err(io)?;
    let found = before.hash.finalize();
    let mut expected = [0; HASH_BYTES as usize];
    file.read_exact(&mut expected).map_err(io)?;
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    if found[..] == expected {
        Ok(())
    } else {
        Err(BackupError::Hash { expected: hex(&expected), found: hex(&found) })
    }
}

struct Hashing<R> {
    inner: R,
    hash: Sha256,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hash.update(&buffer[..read]);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{Batch, Engine as _, MemoryEngine, SnapshotFile, codec, keyspace};

    /// A member's snapshot with `rows` rows, and the bytes of it as they are sent.
    fn taken(dir: &Path, rows: i64) -> Vec<u8> {
        let engine = MemoryEngine::new();
        let mut batch = Batch::default();
        batch.put(
            Bytes::from_static(keyspace::META),
            codec::encode(&Meta { revision: rows, ..Meta::default() }),
        );
        (0..rows).for_each(|n| batch.put(keyspace::revision(n, 0), Bytes::from(vec![n as u8; 300])));
        engine.write(&batch).expect("written");
        let file = SnapshotFile::build(&engine, dir).expect("built");
        let mut bytes = fs::read(file.path()).expect("read");
        bytes.resize(bytes.len().next_multiple_of(BLOCK_BYTES as usize), 0);
        let hash = Sha256::digest(&bytes);
        bytes.extend_from_slice(&hash);
        bytes
    }

    #[test]
    fn a_file_with_its_hash_gives_back_every_row() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("taken");
        fs::write(&path, taken(dir.path(), 20)).expect("written");
        let backup = Backup::open(&path, true).expect("whole");
        assert_eq!((backup.len(), backup.meta().revision), (21, 20));
        let rows: Vec<_> = backup.rows().expect("opened").map(|row| row.expect("read")).collect();
        assert_eq!((rows.len(), &rows[3].0), (21, &keyspace::revision(3, 0)));
        // One out of a data directory has no hash behind it.
        let bare = SnapshotFile::newest(dir.path()).expect("listed").expect("one").path().to_owned();
        assert!(matches!(Backup::open(&bare, true), Err(BackupError::NoHash)));
        let bare = Backup::open(&bare, false).expect("whole");
        assert_eq!((bare.len(), bare.checksum()), (21, backup.checksum()));
    }

    #[test]
    fn a_damaged_or_cut_file_is_refused_with_and_without_its_hash() {
        let dir = tempfile::tempdir().expect("temp dir");
        let (path, whole) = (dir.path().join("taken"), taken(dir.path(), 5));
        let end = whole.len() - HASH_BYTES as usize;
        for at in (0..whole.len()).step_by(11) {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            fs::write(&path, &flipped).expect("written");
            Backup::open(&path, true).expect_err("flipped");
            fs::write(&path, &whole[..at]).expect("written");
            Backup::open(&path, true).expect_err("cut");
        }
        // What fills it up is no part of the file within.
        let rows_end = end - 512;
        for at in (0..rows_end).step_by(11) {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            fs::write(&path, &flipped).expect("written");
            Backup::open(&path, false).expect_err("flipped");
        }
    }
}
