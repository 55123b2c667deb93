//! Files of the log: made of zeros beforehand, so that a sync of a record moves
//! no metadata, and used again once nobody needs their entries.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::WalError;
use crate::storage::disk::{Disk, DiskFile};

const SUFFIX: &str = ".wal";
const SPARE: &str = "spare.tmp";
static ZEROS: [u8; 256 << 10] = [0; 256 << 10];

/// One open segment. Reads may go on while the writer appends.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) number: u64,
    pub(super) path: PathBuf,
    pub(super) file: Box<dyn DiskFile>,
}

impl Segment {
    pub(super) fn open(disk: &dyn Disk, dir: &Path, number: u64) -> Result<Self, WalError> {
        let path = path_of(dir, number);
        let file = disk.open(&path).map_err(WalError::io("open", &path))?;
        Ok(Self { number, path, file })
    }

    /// Makes `spare` the segment `number`, with `head` as its first bytes; on
    /// disk under its name when this returns.
    pub(super) fn create(
        disk: &dyn Disk,
        dir: &Path,
        spare: Spare,
        number: u64,
        head: &[u8],
    ) -> Result<Self, WalError> {
        let path = path_of(dir, number);
        spare.file.write_all_at(head, 0).map_err(WalError::io("write", &spare.path))?;
        spare.file.sync_data().map_err(WalError::io("sync", &spare.path))?;
        disk.rename(&spare.path, &path).map_err(WalError::io("rename", &spare.path))?;
        sync_dir(disk, dir)?;
        Ok(Self { number, path, file: spare.file })
    }

    pub(super) fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), WalError> {
        self.file.write_all_at(bytes, offset).map_err(WalError::io("write", &self.path))
    }

    pub(super) fn read_at(&self, offset: u32, bytes: usize) -> Result<Vec<u8>, WalError> {
        let mut buffer = vec![0; bytes];
        self.file.read_exact_at(&mut buffer, u64::from(offset)).map_err(WalError::io("read", &self.path))?;
        Ok(buffer)
    }

    /// Takes its name away; who has it open goes on reading.
    pub(super) fn remove(&self, disk: &dyn Disk) -> Result<(), WalError> {
        disk.remove(&self.path).map_err(WalError::io("remove", &self.path))
    }

    pub(super) fn corrupt(&self, offset: usize, reason: &'static str) -> WalError {
        WalError::Corrupt { path: self.path.clone(), offset: offset as u64, reason }
    }
}

/// A file of zeros on disk, waiting to become a segment. One exists at a time.
#[derive(Debug)]
pub(super) struct Spare {
    path: PathBuf,
    file: Box<dyn DiskFile>,
}

impl Spare {
    /// Makes one from nothing.
    pub(super) fn create(disk: &dyn Disk, dir: &Path, bytes: usize) -> Result<Self, WalError> {
        let path = dir.join(SPARE);
        let file = disk.create(&path).map_err(WalError::io("create", &path))?;
        Self { file, path }.fill(bytes)
    }

    /// Takes a segment that nobody reads any more; it still must be filled. Its blocks stay.
    pub(super) fn recycle(disk: &dyn Disk, dir: &Path, old: Segment) -> Result<Self, WalError> {
        let path = dir.join(SPARE);
        disk.rename(&old.path, &path).map_err(WalError::io("rename", &old.path))?;
        // Else a power cut might leave the zeros under the old name.
        sync_dir(disk, dir)?;
        Ok(Self { file: old.file, path })
    }

    /// Overwrites it with zeros, on disk.
    pub(super) fn fill(self, bytes: usize) -> Result<Self, WalError> {
        zero(&*self.file, 0, bytes as u64).map_err(WalError::io("write", &self.path))?;
        self.file.sync_all().map_err(WalError::io("sync", &self.path))?;
        Ok(self)
    }
}

/// Writes zeros over `[start, end)`.
pub(super) fn zero(file: &dyn DiskFile, mut start: u64, end: u64) -> io::Result<()> {
    while start < end {
        let chunk = ZEROS.len().min(usize::try_from(end - start).unwrap_or(usize::MAX));
        file.write_all_at(&ZEROS[..chunk], start)?;
        start += chunk as u64;
    }
    Ok(())
}

/// Removes a spare that a former process left, made or half-made.
pub(super) fn remove_spare(disk: &dyn Disk, dir: &Path) -> Result<(), WalError> {
    let path = dir.join(SPARE);
    match disk.remove(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(WalError::io("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Numbers of the segments in `dir`, lowest first.
pub(super) fn list(disk: &dyn Disk, dir: &Path) -> Result<Vec<u64>, WalError> {
    let mut numbers = Vec::new();
    for name in disk.list(dir).map_err(WalError::io("list", dir))? {
        let Some(name) = name.to_str() else { continue };
        if let Some(number) = name.strip_suffix(SUFFIX).and_then(|hex| u64::from_str_radix(hex, 16).ok()) {
            numbers.push(number);
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

pub(super) fn path_of(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:016x}{SUFFIX}"))
}

/// Makes names in `dir` durable.
pub(super) fn sync_dir(disk: &dyn Disk, dir: &Path) -> Result<(), WalError> {
    disk.sync_dir(dir).map_err(WalError::io("sync", dir))
}
