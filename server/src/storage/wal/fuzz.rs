//! The reader of the log on files of arbitrary records: it reads or refuses them.
//!
//! Checksums keep arbitrary bytes from being taken for records at all, so most of a
//! file is made of records that are whole and say anything; some of it is not.

use std::{
    ffi::OsString,
    io,
    path::Path,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use etcfs_proto::etcfs::record::{LogId, Vote};

use super::{
    record::{self, Record},
    recover::recover,
    segment::path_of,
};
use crate::storage::{Disk, DiskFile};

const SEGMENT: u64 = 1;
const SEGMENT_BYTES: usize = 16 << 10;
/// Entries that are read back of a log that was read.
const READ_MAX: u64 = 1000;

/// Reads a log that `data` describes.
pub fn log(data: &[u8]) {
    let disk = OneFile::new(file(&mut Source(data)));
    let Ok(Some(recovered)) = recover(&disk, Path::new("/"), SEGMENT_BYTES) else { return };
    let index = &recovered.index;
    let first = index.first;
    let Some(last) = index.last.map(|id| id.index) else { return };
    for nth in first..=last.min(first.saturating_add(READ_MAX)) {
        let Some(position) = index.get(nth) else { continue };
        let bytes = disk.read(position.offset as usize, position.bytes as usize);
        let read = record::parse_at(&bytes, SEGMENT, position.offset as usize);
        assert!(
            matches!(read, Some(Record::Entry { id, .. }) if id == position.id && id.index == nth),
            "{nth}"
        );
    }
}

/// What is left of the input.
struct Source<'a>(&'a [u8]);

impl<'a> Source<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn bytes(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// Mostly small, now and then at an end of what there is.
    fn number(&mut self) -> u64 {
        match self.byte().unwrap_or_default() {
            255 => u64::MAX,
            254 => u64::MAX - 1,
            253 => u64::from(u32::MAX) + 1,
            small => u64::from(small % 16),
        }
    }

    fn id(&mut self) -> LogId {
        LogId { term: self.number(), node: self.number(), index: self.number() }
    }

    fn maybe_id(&mut self) -> Option<LogId> {
        (!self.byte().unwrap_or_default().is_multiple_of(4)).then(|| self.id())
    }
}

fn file(source: &mut Source<'_>) -> Vec<u8> {
    let mut file = Vec::new();
    let mut next = source.number();
    while let Some(kind) = source.byte() {
        let record = match kind % 12 {
            0 => Record::Head { format: source.number(), segment: source.number() },
            1 => Record::Last(source.maybe_id()),
            2..=4 => {
                let id = LogId { term: 1, node: 0, index: next };
                next = next.wrapping_add(1);
                let length = usize::from(source.byte().unwrap_or_default());
                Record::Entry { id, kind, payload: Bytes::copy_from_slice(source.bytes(length)) }
            }
            5 => Record::Entry { id: source.id(), kind, payload: Bytes::new() },
            6 => Record::Vote(Vote {
                term: source.number(),
                node: Some(source.number()),
                committed: kind > 99,
            }),
            7 => Record::Committed(source.maybe_id()),
            8 => Record::Truncate(source.maybe_id()),
            9 => Record::Purge(source.id()),
            10 => {
                let length = usize::from(source.byte().unwrap_or_default());
                file.extend_from_slice(source.bytes(length));
                continue;
            }
            _ if kind > 200 => Record::Seal,
            _ => {
                let place = usize::from(source.byte().unwrap_or_default()) * 4;
                let byte = source.byte().unwrap_or_default();
                if let Some(at) = file.get_mut(place) {
                    *at = byte;
                }
                continue;
            }
        };
        let synced = u32::try_from(source.number()).unwrap_or(u32::MAX);
        record::encode(&record, SEGMENT, file.len(), synced, &mut file);
    }
    file.resize(SEGMENT_BYTES.max(file.len()), 0);
    file
}

/// A directory with one segment in it.
#[derive(Clone, Debug)]
struct OneFile(Arc<Mutex<Vec<u8>>>);

impl OneFile {
    fn new(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(bytes)))
    }

    fn read(&self, offset: usize, length: usize) -> Bytes {
        let file = self.0.lock().expect("nothing panics under it");
        Bytes::copy_from_slice(&file[offset..offset + length])
    }
}

impl Disk for OneFile {
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        if path == path_of(Path::new("/"), SEGMENT) {
            return Ok(Box::new(self.clone()));
        }
        Err(io::ErrorKind::NotFound.into())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.open(path)
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn remove(&self, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn list(&self, _: &Path) -> io::Result<Vec<OsString>> {
        Ok(path_of(Path::new("/"), SEGMENT).file_name().map(Into::into).into_iter().collect())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
}

impl DiskFile for OneFile {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.0.lock().expect("nothing panics under it").len() as u64)
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let file = self.0.lock().expect("nothing panics under it");
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let found = file.get(start..start + buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(found);
        Ok(())
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut file = self.0.lock().expect("nothing panics under it");
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let end = start + bytes.len();
        if file.len() < end {
            file.resize(end, 0);
        }
        file[start..end].copy_from_slice(bytes);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn sync_all(&self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn any_log_is_read_or_refused(
            head in any::<bool>(),
            data in prop::collection::vec(prop_oneof![3 => any::<u8>(), 2 => 0..16_u8, 1 => Just(255)], 0..200),
        ) {
            // The head that a segment begins with, or none.
            let good: &[u8] = if head { &[0, 0, 1, 1, 0, 1, 0, 0] } else { &[] };
            log(&[good, &data[..]].concat());
        }
    }

    /// So that the records above are what the reader meets.
    #[test]
    fn a_log_of_good_records_is_read() {
        // A number to begin with; head; nothing before it; two entries.
        let data = [0, 0, 1, 1, 0, 1, 0, 0, 2, 1, 7, 0, 2, 1, 7, 0];
        let disk = OneFile::new(file(&mut Source(&data)));
        let read = recover(&disk, Path::new("/"), SEGMENT_BYTES).unwrap().unwrap();
        assert_eq!(read.index.last.map(|id| id.index), Some(1));
    }
}
