//! Snapshot files: every row of the image in one hashed file of our own.
//!
//! ```text
//! "etcfsnp1"
//! u32 length, record.SnapshotHeader        how far the state has come
//! u32 key length, u32 value length, key, value      for each row, ascending
//! u32 0xffffffff, u64 rows
//! sha-256 of everything before
//! ```
//!
//! Numbers are little endian. A file under its final name is whole, and on disk
//! unless it is built to be sent away; its hash is checked before any row of it is used.

mod building;

use std::{
    fs::{self, File},
    io::{self, BufReader, BufWriter, Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use etcfs_proto::etcfs::record::{LogId, Meta, SnapshotHeader};
use prost::Message;
use sha2::{Digest, Sha256};

use super::{Engine, StorageError, failpoint};
pub(super) use building::Building;

const MAGIC: &[u8; 8] = b"etcfsnp1";
const FORMAT: u32 = 1;
const END_OF_ROWS: u32 = u32::MAX;
const BUFFER_BYTES: usize = 1 << 20;
/// Brought to the disk each time so much was written: all at the end would hold up the log's own syncs.
const SYNC_BYTES: usize = 4 << 20;
/// Far above any key or value; a longer length is damage.
const FIELD_BYTES_MAX: usize = 1 << 30;
const SUFFIX: &str = ".snap";
/// Being built here, and coming from a peer; the two may go on at once.
const BUILDING: &str = "building.tmp";
const INCOMING: &str = "incoming.tmp";

/// Whether a snapshot outlives a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// On disk once it is built: what it has may then leave the log.
    OnDisk,
    /// Never synced, since whoever wants it reads it now: the log's syncs have the disk for themselves.
    Passing,
}

/// A snapshot on disk. Clones are the same file, which stays as long as one lives,
/// though perhaps without a name.
#[derive(Clone, Debug)]
pub struct SnapshotFile {
    path: PathBuf,
    file: Arc<File>,
    meta: Meta,
}

impl SnapshotFile {
    /// Writes the rows of `engine`, which nobody may change meanwhile, to `dir`.
    /// Whole, named and on disk when this returns; older ones are then removed.
    pub fn build(engine: &dyn Engine, dir: &Path) -> Result<Self, StorageError> {
        let mut building = Building::begin(engine, dir, Durability::OnDisk)?;
        while !building.go_on(engine)? {}
        building.finish()
    }

    /// The newest in `dir` that has a readable header.
    pub fn newest(dir: &Path) -> Result<Option<Self>, StorageError> {
        let mut newest: Option<Self> = None;
        for path in list(dir)? {
            match Self::open(&path) {
                Ok(found) if newest.as_ref().is_none_or(|newest| found.index() > newest.index()) => {
                    newest = Some(found);
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "a snapshot file is passed over"),
            }
        }
        Ok(newest)
    }

    fn open(path: &Path) -> Result<Self, StorageError> {
        let file = File::open(path).map_err(StorageError::io("open", path))?;
        let meta = read_meta(&mut BufReader::new(&file), path)?;
        Ok(Self { path: path.to_owned(), file: Arc::new(file), meta })
    }

    /// How far the state in it has come.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// Index of the newest log entry in it.
    pub fn index(&self) -> u64 {
        self.meta.applied.map_or(0, |id| id.index)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn bytes(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// The file from its first byte on, independent of other readers.
    pub fn reader(&self) -> impl Read + Send + use<> {
        ReadAt { file: self.file.clone(), at: 0 }
    }

    /// Makes it the snapshot in `dir` too.
    pub fn copy_to(&self, dir: &Path) -> Result<Self, StorageError> {
        let mut incoming = IncomingSnapshot::create(dir)?;
        let (mut reader, mut buffer) = (self.reader(), vec![0; BUFFER_BYTES]);
        loop {
            match reader.read(&mut buffer).map_err(StorageError::io("read", &self.path))? {
                0 => return incoming.finish(),
                read => incoming.write(&buffer[..read]).map_err(StorageError::io("write", dir))?,
            }
        }
    }

    /// Reads all of it and compares the hash.
    pub fn verify(&self) -> Result<(), StorageError> {
        let io = StorageError::io("read", &self.path);
        let check = || -> io::Result<bool> {
            let mut left = self.bytes()?.saturating_sub(32);
            let mut reader = self.reader();
            let (mut hash, mut buffer) = (Sha256::new(), vec![0; BUFFER_BYTES]);
            while left > 0 {
                let part = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
                reader.read_exact(&mut buffer[..part])?;
                hash.update(&buffer[..part]);
                left -= part as u64;
            }
            let mut stored = [0; 32];
            reader.read_exact(&mut stored)?;
            Ok(hash.finalize()[..] == stored)
        };
        match check() {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.corrupt("its hash does not match")),
            Err(error) => Err(io(error)),
        }
    }

    /// Its rows in order. For a file that was verified.
    pub fn rows(
        &self,
    ) -> Result<impl Iterator<Item = Result<(Bytes, Bytes), StorageError>> + use<>, StorageError> {
        let mut reader = BufReader::with_capacity(BUFFER_BYTES, self.reader());
        read_header(&mut reader).map_err(StorageError::io("read", &self.path))?;
        let path = self.path.clone();
        let mut ended = false;
        Ok(std::iter::from_fn(move || {
            if ended {
                return None;
            }
            let row = read_row(&mut reader).map_err(StorageError::io("read", &path)).transpose();
            ended = !matches!(row, Some(Ok(_)));
            row
        }))
    }

    fn corrupt(&self, reason: &str) -> StorageError {
        StorageError::Corrupt { what: self.path.display().to_string(), reason: reason.into() }
    }
}

/// A snapshot file that is being written, here or by a peer.
#[derive(Debug)]
pub struct IncomingSnapshot {
    dir: PathBuf,
    temporary: PathBuf,
    file: BufWriter<File>,
    hash: Sha256,
    durability: Durability,
    unsynced_bytes: usize,
}

impl IncomingSnapshot {
    /// Begins to take one from a peer; what an earlier attempt left is overwritten.
    pub fn create(dir: &Path) -> Result<Self, StorageError> {
        Self::begin(dir, INCOMING, Durability::OnDisk)
    }

    fn begin(dir: &Path, name: &str, durability: Durability) -> Result<Self, StorageError> {
        let temporary = dir.join(name);
        let file = File::create(&temporary).map_err(StorageError::io("create", &temporary))?;
        let file = BufWriter::with_capacity(BUFFER_BYTES, file);
        Ok(Self { dir: dir.to_owned(), temporary, file, hash: Sha256::new(), durability, unsynced_bytes: 0 })
    }

    /// Adds the next bytes of the file.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.file.write_all(bytes)?;
        self.unsynced_bytes += bytes.len();
        if self.unsynced_bytes >= SYNC_BYTES && self.durability == Durability::OnDisk {
            self.file.flush()?;
            self.file.get_ref().sync_data()?;
            self.unsynced_bytes = 0;
        }
        Ok(())
    }

    fn write_row(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        for part in [&length(key.len()), &length(value.len()), key, value] {
            self.write(part)?;
        }
        Ok(())
    }

    /// Checks what came, and takes it as the member's snapshot.
    pub fn finish(mut self) -> Result<SnapshotFile, StorageError> {
        self.file.flush().map_err(StorageError::io("write", &self.temporary))?;
        SnapshotFile::open(&self.temporary)?.verify()?;
        self.name()
    }

    /// Gives it its name, and removes the others in the directory.
    fn name(self) -> Result<SnapshotFile, StorageError> {
        let temporary = self.temporary;
        let file = self.file.into_inner();
        let file = file.map_err(|error| StorageError::io("write", &temporary)(error.into_error()))?;
        if self.durability == Durability::OnDisk {
            file.sync_all().map_err(StorageError::io("sync", &temporary))?;
        }
        let LogId { term, index, .. } = SnapshotFile::open(&temporary)?.meta.applied.unwrap_or_default();
        let path = self.dir.join(format!("{term:016x}-{index:016x}{SUFFIX}"));
        failpoint::kill("snapshot-before-rename");
        fs::rename(&temporary, &path).map_err(StorageError::io("rename", &temporary))?;
        if self.durability == Durability::OnDisk {
            sync_dir(&self.dir)?;
        }
        for other in list(&self.dir)? {
            if other != path {
                fs::remove_file(&other).map_err(StorageError::io("remove", &other))?;
            }
        }
        SnapshotFile::open(&path)
    }
}

struct ReadAt {
    file: Arc<File>,
    at: u64,
}

impl Read for ReadAt {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = std::os::unix::fs::FileExt::read_at(&*self.file, buffer, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// What comes before the rows.
pub(super) fn read_meta(reader: &mut impl Read, path: &Path) -> Result<Meta, StorageError> {
    let header = read_header(reader).map_err(StorageError::io("read", path))?;
    header.meta.filter(|_| header.format <= FORMAT).ok_or_else(|| StorageError::Corrupt {
        what: path.display().to_string(),
        reason: format!("format {} is not one that this build reads", header.format),
    })
}

fn read_header(reader: &mut impl Read) -> io::Result<SnapshotHeader> {
    let mut magic = [0; 8];
    reader.read_exact(&mut magic)?;
    if &magic != MAGIC {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not a snapshot file"));
    }
    let length = read_length(reader)? as usize;
    let header = read_field(reader, length)?;
    SnapshotHeader::decode(header).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// The next row; `None` where they end.
pub(super) fn read_row(reader: &mut impl Read) -> io::Result<Option<(Bytes, Bytes)>> {
    let key = read_length(reader)?;
    if key == END_OF_ROWS {
        return Ok(None);
    }
    let value = read_length(reader)?;
    Ok(Some((read_field(reader, key as usize)?, read_field(reader, value as usize)?)))
}

fn read_length(reader: &mut impl Read) -> io::Result<u32> {
    let mut bytes = [0; 4];
    reader.read_exact(&mut bytes)?;
    Ok(u32::from_le_bytes(bytes))
}

fn read_field(reader: &mut impl Read, length: usize) -> io::Result<Bytes> {
    if length > FIELD_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a field is longer than any can be"));
    }
    let mut field = vec![0; length];
    reader.read_exact(&mut field)?;
    Ok(field.into())
}

fn length(bytes: usize) -> [u8; 4] {
    u32::try_from(bytes).expect("a field is far below 4 GiB").to_le_bytes()
}

fn list(dir: &Path) -> Result<Vec<PathBuf>, StorageError> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir).map_err(StorageError::io("list", dir))? {
        let path = entry.map_err(StorageError::io("list", dir))?.path();
        if path.to_str().is_some_and(|path| path.ends_with(SUFFIX)) {
            paths.push(path);
        }
    }
    Ok(paths)
}

fn sync_dir(dir: &Path) -> Result<(), StorageError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(StorageError::io("sync", dir))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{Batch, MemoryEngine, codec, keyspace};

    fn engine(index: u64, rows: u32) -> MemoryEngine {
        let engine = MemoryEngine::new();
        let mut batch = Batch::default();
        let applied = Some(LogId { term: 2, node: 0, index });
        let meta = Meta { applied, revision: i64::from(rows), ..Meta::default() };
        batch.put(Bytes::from_static(keyspace::META), codec::encode(&meta));
        for nth in 0..rows {
            batch.put(keyspace::revision(i64::from(nth), 0), format!("row {nth}").into());
        }
        engine.write(&batch).expect("written");
        engine
    }

    #[test]
    fn a_snapshot_gives_back_every_row_and_removes_older_ones() {
        let dir = tempfile::tempdir().expect("temp dir");
        SnapshotFile::build(&engine(5, 1), dir.path()).expect("built");
        let from = engine(9, 2500);
        SnapshotFile::build(&from, dir.path()).expect("built");
        assert_eq!(list(dir.path()).expect("listed").len(), 1);
        let snapshot = SnapshotFile::newest(dir.path()).expect("listed").expect("one");
        assert_eq!(snapshot.index(), 9);
        snapshot.verify().expect("whole");
        let into = MemoryEngine::new();
        into.replace(&mut snapshot.rows().expect("opened")).expect("replaced");
        assert_eq!(into.rows(), from.rows());
    }

    #[test]
    fn a_damaged_or_cut_snapshot_fails_its_hash() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = SnapshotFile::build(&engine(5, 50), dir.path()).expect("built").path().to_owned();
        let whole = fs::read(&path).expect("read");
        for at in (0..whole.len()).step_by(7) {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            fs::write(&path, &flipped).expect("written");
            let verdict = SnapshotFile::open(&path).and_then(|snapshot| snapshot.verify());
            verdict.expect_err("flipped");
            fs::write(&path, &whole[..at]).expect("written");
            let verdict = SnapshotFile::open(&path).and_then(|snapshot| snapshot.verify());
            verdict.expect_err("cut");
        }
    }

    #[test]
    fn a_file_without_its_final_name_is_no_snapshot() {
        let dir = tempfile::tempdir().expect("temp dir");
        let mut incoming = IncomingSnapshot::create(dir.path()).expect("created");
        incoming.write(b"half").expect("written");
        assert!(SnapshotFile::newest(dir.path()).expect("listed").is_none());
        incoming.finish().expect_err("not a snapshot");
        assert!(SnapshotFile::newest(dir.path()).expect("listed").is_none());
        SnapshotFile::build(&engine(1, 1), dir.path()).expect("built");
    }
}
