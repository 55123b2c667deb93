//! Reads the log back at start, and tells a torn tail from damage.
//!
//! What was never synced may be cut: nobody was told that it is there. What was
//! synced must be there whole, or the member refuses to start. Each record says
//! how much of its segment had been synced when it was written, and one is written
//! behind each sync. So a bad record is damage if a whole one says that its place
//! had been synced, or if a later segment has records; else it is the rest of a
//! write that a power cut interrupted, whatever it looks like. Only where the power
//! fails before the one behind the last sync is on disk, or while the next record
//! takes its place, and what that sync brought is damaged as well, the two can't be
//! told apart.

use std::{path::Path, sync::Arc};

use bytes::Bytes;

use super::{
    FORMAT, WalError,
    index::{Index, Position},
    record::{self, Record},
    segment::{self, Segment},
};
use crate::storage::disk::Disk;

/// The log as found.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) index: Index,
    /// Each with the newest index in it; the last is the one to go on with.
    pub(super) segments: Vec<(Arc<Segment>, Option<u64>)>,
    /// Where the next record goes.
    pub(super) tail: usize,
    /// Bytes that were cut off as never synced.
    pub(super) torn_bytes: u64,
}

/// Reads all segments of `dir`; `None` if there is none.
pub(super) fn recover(
    disk: &dyn Disk,
    dir: &Path,
    segment_bytes: usize,
) -> Result<Option<Recovered>, WalError> {
    let mut index = Index::default();
    let mut segments: Vec<(Arc<Segment>, Option<u64>)> = Vec::new();
    let mut stale = Vec::new();
    let mut scan = Scan::default();
    segment::remove_spare(disk, dir)?;
    let numbers = segment::list(disk, dir)?;
    for &number in &numbers {
        let segment = Arc::new(Segment::open(disk, dir, number)?);
        let file = read(&segment, segment_bytes)?;
        let follows = segments.last().is_some_and(|(before, _)| before.number + 1 == number);
        if follows && !scan.sealed {
            // The seal is on disk before anything is written after the next head.
            if !holds_only_a_head(&file, number) {
                let (before, _) = segments.last().expect("it follows one");
                return Err(before.corrupt(scan.end, "it ends without a seal and a later one has records"));
            }
            stale.push(segment);
            continue;
        }
        if !follows {
            // What lies before a gap counts for nothing; whether anything is
            // missing for it shows at the end.
            stale.extend(segments.drain(..).map(|(old, _)| old));
        }
        let may_be_torn = match numbers.contains(&(number + 1)) {
            true => {
                let next = Segment::open(disk, dir, number + 1)?;
                holds_only_a_head(&read(&next, segment_bytes)?, number + 1)
            }
            false => true,
        };
        scan = Scan::run(&segment, &file, &mut index, follows, may_be_torn)?;
        if may_be_torn {
            let rest = scan.rest as u64;
            segment::zero(&*segment.file, rest, rest + scan.torn_bytes)
                .map_err(WalError::io("write", &segment.path))?;
            // The process may have died between a write and its sync: what is
            // now taken as part of the log must be on disk.
            segment.file.sync_all().map_err(WalError::io("sync", &segment.path))?;
        }
        segments.push((segment, scan.newest));
    }
    let Some((last, _)) = segments.last() else { return Ok(None) };
    if scan.sealed {
        return Err(WalError::MissingSegment { path: segment::path_of(dir, last.number + 1) });
    }
    if !index.is_whole() {
        let (first, _) = segments.first().expect("has a last");
        return Err(WalError::MissingSegment { path: segment::path_of(dir, first.number.saturating_sub(1)) });
    }
    // A commit goes to disk without a sync: it may be there without the entries that it speaks of.
    if index.committed.map(|id| id.index) > index.last.map(|id| id.index) {
        index.committed = index.last;
    }
    for segment in stale {
        segment.remove(disk)?;
    }
    segment::sync_dir(disk, dir)?;
    Ok(Some(Recovered { index, segments, tail: scan.end, torn_bytes: scan.torn_bytes }))
}

#[derive(Debug, Default)]
struct Scan {
    end: usize,
    /// Where what is cut off begins: behind the proof, if one stands at the end.
    rest: usize,
    sealed: bool,
    newest: Option<u64>,
    torn_bytes: u64,
}

impl Scan {
    fn run(
        segment: &Arc<Segment>,
        file: &Bytes,
        index: &mut Index,
        follows: bool,
        may_be_torn: bool,
    ) -> Result<Self, WalError> {
        let Some(last_byte) = file.iter().rposition(|&byte| byte != 0) else {
            return Err(segment.corrupt(0, "it holds nothing"));
        };
        let mut scan = Self::default();
        let mut proven = 0;
        while scan.end <= last_byte {
            let Some(parsed) = record::parse(file, segment.number, scan.end) else {
                if scan.end == 0 {
                    return Err(segment.corrupt(0, "its head is damaged"));
                }
                if !may_be_torn {
                    return Err(segment.corrupt(scan.end, "the record is damaged and later segments exist"));
                }
                if proven_after(file, segment.number, scan.end, last_byte).max(proven) as usize > scan.end {
                    return Err(segment.corrupt(scan.end, "the record is damaged and had been synced"));
                }
                break;
            };
            if let Record::Proof(committed) = parsed.record {
                // The record that comes in its place is on disk in part at most.
                if proven_after(file, segment.number, scan.end, last_byte) as usize > scan.end {
                    return Err(segment.corrupt(scan.end, "the record is missing and had been synced"));
                }
                index.committed = committed;
                scan.rest = parsed.end;
                break;
            }
            let offset = scan.end;
            proven = proven.max(parsed.synced);
            scan.take(segment, parsed, index, follows).map_err(|reason| match reason {
                Refused::Damaged(reason) => segment.corrupt(offset, reason),
                Refused::Format(found) => {
                    WalError::Format { path: segment.path.clone(), found, known: FORMAT }
                }
            })?;
        }
        scan.rest = scan.rest.max(scan.end);
        scan.torn_bytes = (last_byte + 1).saturating_sub(scan.rest) as u64;
        Ok(scan)
    }

    fn take(
        &mut self,
        segment: &Arc<Segment>,
        parsed: record::Parsed,
        index: &mut Index,
        follows: bool,
    ) -> Result<(), Refused> {
        if self.sealed {
            return Err(Refused::Damaged("records after the seal"));
        }
        if matches!(parsed.record, Record::Head { .. }) != (self.end == 0) {
            return Err(Refused::Damaged("its head is not where it belongs"));
        }
        match parsed.record {
            Record::Head { format, .. } if format > FORMAT => return Err(Refused::Format(format)),
            Record::Head { segment: number, .. } if number != segment.number => {
                return Err(Refused::Damaged("it is another segment under this one's name"));
            }
            Record::Head { .. } => {}
            Record::Last(last) if !follows => index.restart(last),
            Record::Last(last) if last != index.last => {
                return Err(Refused::Damaged("it does not go on where the one before ends"));
            }
            Record::Last(_) => {}
            Record::Entry { id, .. } => {
                let offset = u32::try_from(self.end).expect("a segment is below 4 GiB");
                let bytes = u32::try_from(parsed.end - self.end).expect("a segment is below 4 GiB");
                if !index.put(Position { id, segment: segment.clone(), offset, bytes }) {
                    return Err(Refused::Damaged("an entry does not follow the one before"));
                }
                self.newest = self.newest.max(Some(id.index));
            }
            Record::Vote(vote) => index.vote = Some(vote),
            Record::Committed(id) | Record::Proof(id) => index.committed = id,
            Record::Truncate(after) => index.truncate(after),
            Record::Purge(id) => index.purge(id),
            Record::Seal => self.sealed = true,
        }
        self.end = parsed.end;
        Ok(())
    }
}

enum Refused {
    Damaged(&'static str),
    Format(u64),
}

/// How much of the file had been synced by what whole records after `bad` say.
fn proven_after(file: &Bytes, number: u64, bad: usize, last_byte: usize) -> u32 {
    (bad + record::ALIGN..=last_byte)
        .step_by(record::ALIGN)
        .filter_map(|offset| record::parse(file, number, offset))
        .map(|later| later.synced)
        .max()
        .unwrap_or(0)
}

/// The bytes of a segment; a file cut short reads as zeros beyond its end, and
/// is made whole so that later writes need no metadata.
fn read(segment: &Segment, segment_bytes: usize) -> Result<Bytes, WalError> {
    let bytes = segment.file.bytes().map_err(WalError::io("read", &segment.path))?;
    let bytes = usize::try_from(bytes).expect("a segment is below 4 GiB");
    let mut file = segment.read_at(0, bytes)?;
    if file.len() < segment_bytes {
        segment::zero(&*segment.file, file.len() as u64, segment_bytes as u64)
            .map_err(WalError::io("write", &segment.path))?;
        file.resize(segment_bytes, 0);
    }
    Ok(file.into())
}

/// True iff nothing but what a new segment starts with is in there.
fn holds_only_a_head(file: &Bytes, number: u64) -> bool {
    let mut offset = 0;
    while let Some(parsed) = record::parse(file, number, offset) {
        if matches!(parsed.record, Record::Entry { .. } | Record::Truncate(_) | Record::Seal) {
            return false;
        }
        offset = parsed.end;
    }
    offset > 0 && file[offset..].iter().all(|&byte| byte == 0)
}
