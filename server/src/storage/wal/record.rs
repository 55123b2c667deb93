//! One record of the log file: its bytes, and how to know them again.
//!
//! ```text
//!  0  payload length    u32      12  synced   u32   bytes of this segment that were
//!  4  crc32c            u32                         on disk when this was written
//!  8  kind              u8       16  term     u64
//!  9  flags             u8       24  node     u64
//! 10  zero              u16      32  index    u64
//! 40  payload, zeros to a multiple of 8 less 4, then the end mark
//! ```
//!
//! All little endian. The checksum covers what follows it, and its seed is the
//! segment's number and the record's offset, so that bytes of another place or
//! of a former life of the file are never taken for a record.

use bytes::Bytes;
use etcfs_proto::etcfs::record::{LogId, Vote};

pub(super) const HEADER_BYTES: usize = 40;
/// Records start at multiples of it.
pub(super) const ALIGN: usize = 8;
const END_MARK: u32 = 0x5eed_10c5;
const END_MARK_BYTES: usize = 4;

const VOTE_COMMITTED: u8 = 1;
const VOTE_HAS_NODE: u8 = 2;
const NOTHING: u8 = 4;
const PROOF: u8 = 8;

/// What a record says.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Record {
    /// First of every segment.
    Head {
        format: u64,
        segment: u64,
    },
    /// In a segment's head: the newest entry of the log before this segment.
    Last(Option<LogId>),
    Entry {
        id: LogId,
        kind: u8,
        payload: Bytes,
    },
    Vote(Vote),
    Committed(Option<LogId>),
    /// Stands behind the last sync until the next record comes in its place: what is in the header
    /// of every record is all that it is for, and it says how far the log is committed too.
    Proof(Option<LogId>),
    /// Entries after this one are no longer part of the log.
    Truncate(Option<LogId>),
    /// Entries up to this one are no longer needed.
    Purge(LogId),
    /// Last of a segment: the next one exists.
    Seal,
}

/// A record and what its header says of the file around it.
#[derive(Debug)]
pub(super) struct Parsed {
    pub(super) record: Record,
    pub(super) synced: u32,
    /// Offset right after it.
    pub(super) end: usize,
}

/// Length on disk of a record with a payload of so many bytes.
pub(super) fn framed_bytes(payload: usize) -> usize {
    (HEADER_BYTES + payload + END_MARK_BYTES).next_multiple_of(ALIGN)
}

/// Appends `record` to `out` as it must stand at `offset` of `segment`.
pub(super) fn encode(record: &Record, segment: u64, offset: usize, synced: u32, out: &mut Vec<u8>) {
    let none = LogId { term: 0, node: 0, index: 0 };
    let optional = |id: &Option<LogId>| id.map_or((NOTHING, none), |id| (0, id));
    let (kind, (flags, id), payload): (u8, (u8, LogId), &[u8]) = match record {
        Record::Head { format, segment } => (1, (0, LogId { term: *format, node: 0, index: *segment }), &[]),
        Record::Entry { id, kind, payload } => (2, (*kind, *id), payload),
        Record::Vote(vote) => {
            let committed = if vote.committed { VOTE_COMMITTED } else { 0 };
            let node = if vote.node.is_some() { VOTE_HAS_NODE } else { 0 };
            let id = LogId { term: vote.term, node: vote.node.unwrap_or(0), index: 0 };
            (3, (committed | node, id), &[])
        }
        Record::Committed(id) => (4, optional(id), &[]),
        Record::Proof(id) => {
            let (flags, id) = optional(id);
            (4, (flags | PROOF, id), &[])
        }
        Record::Truncate(id) => (5, optional(id), &[]),
        Record::Purge(id) => (6, (0, *id), &[]),
        Record::Seal => (7, (0, none), &[]),
        Record::Last(id) => (8, optional(id), &[]),
    };
    let start = out.len();
    let length = u32::try_from(payload.len()).expect("a payload is smaller than a segment");
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&[kind, flags, 0, 0]);
    out.extend_from_slice(&synced.to_le_bytes());
    out.extend_from_slice(&id.term.to_le_bytes());
    out.extend_from_slice(&id.node.to_le_bytes());
    out.extend_from_slice(&id.index.to_le_bytes());
    out.extend_from_slice(payload);
    out.resize(start + framed_bytes(payload.len()) - END_MARK_BYTES, 0);
    out.extend_from_slice(&END_MARK.to_le_bytes());
    let crc = checksum(segment, offset, &out[start..]);
    out[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
}

/// The record whose bytes alone are given, and which stands at `offset`.
pub(super) fn parse_at(bytes: &Bytes, segment: u64, offset: usize) -> Option<Record> {
    parse_in(bytes, segment, 0, offset).map(|parsed| parsed.record)
}

/// The record at `offset`, or `None` where no whole and true one stands.
pub(super) fn parse(file: &Bytes, segment: u64, offset: usize) -> Option<Parsed> {
    parse_in(file, segment, offset, offset)
}

fn parse_in(file: &Bytes, segment: u64, offset: usize, stands_at: usize) -> Option<Parsed> {
    let header = file.get(offset..offset.checked_add(HEADER_BYTES)?)?;
    let u32_at = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
    let u64_at = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("eight bytes"));
    let length = u32_at(0) as usize;
    let end = offset.checked_add(framed_bytes(length))?;
    let bytes = file.get(offset..end)?;
    // Cheap checks first: the search for records after damage tries every place.
    if header[8] == 0
        || header[8] > 8
        || header[10..12] != [0, 0]
        // One that none can follow.
        || u64_at(32) == u64::MAX
        || u32_at(4) != checksum(segment, stands_at, bytes)
    {
        return None;
    }
    let (flags, id) = (header[9], LogId { term: u64_at(16), node: u64_at(24), index: u64_at(32) });
    let optional = (flags & NOTHING == 0).then_some(id);
    let record = match header[8] {
        1 => Record::Head { format: id.term, segment: id.index },
        2 => Record::Entry {
            id,
            kind: flags,
            payload: file.slice(offset + HEADER_BYTES..offset + HEADER_BYTES + length),
        },
        3 => Record::Vote(Vote {
            term: id.term,
            node: (flags & VOTE_HAS_NODE != 0).then_some(id.node),
            committed: flags & VOTE_COMMITTED != 0,
        }),
        4 if flags & PROOF != 0 => Record::Proof(optional),
        4 => Record::Committed(optional),
        5 => Record::Truncate(optional),
        6 => Record::Purge(id),
        7 => Record::Seal,
        8 => Record::Last(optional),
        _ => return None,
    };
    Some(Parsed { record, synced: u32_at(12), end })
}

fn checksum(segment: u64, offset: usize, record: &[u8]) -> u32 {
    let seed = crc32c::crc32c_append(crc32c::crc32c(&segment.to_le_bytes()), &(offset as u64).to_le_bytes());
    // Length first: it stands before the checksum, which cannot cover itself.
    crc32c::crc32c_append(crc32c::crc32c_append(seed, &record[..4]), &record[8..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<Record> {
        let id = LogId { term: 3, node: 7, index: 99 };
        vec![
            Record::Head { format: 1, segment: 5 },
            Record::Last(None),
            Record::Last(Some(id)),
            Record::Entry { id, kind: 2, payload: "payload of no round length".into() },
            Record::Entry { id, kind: 0, payload: Bytes::new() },
            Record::Vote(Vote { term: 4, node: Some(0), committed: false }),
            Record::Vote(Vote { term: 4, node: None, committed: true }),
            Record::Committed(Some(id)),
            Record::Committed(None),
            Record::Proof(Some(id)),
            Record::Proof(None),
            Record::Truncate(None),
            Record::Purge(id),
            Record::Seal,
        ]
    }

    #[test]
    fn every_kind_of_record_reads_back_at_its_place_and_at_no_other() {
        for record in samples() {
            let mut bytes = vec![0; 64];
            encode(&record, 5, 64, 48, &mut bytes);
            assert_eq!(bytes.len() % ALIGN, 0);
            let file = Bytes::from(bytes);
            let parsed = parse(&file, 5, 64).expect("whole");
            assert_eq!((&parsed.record, parsed.synced, parsed.end), (&record, 48, file.len()));
            assert!(parse(&file, 6, 64).is_none(), "of another segment");
            assert!(parse(&file.slice(8..), 5, 56).is_none(), "at another offset");
        }
    }

    /// Found by `fuzz`: counting on from it overflowed.
    #[test]
    fn an_index_that_none_can_follow_is_no_records() {
        let id = LogId { term: 1, node: 0, index: u64::MAX };
        let mut bytes = Vec::new();
        encode(&Record::Purge(id), 1, 0, 0, &mut bytes);
        assert!(parse(&bytes.into(), 1, 0).is_none());
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        let record = samples().swap_remove(3);
        let mut bytes = Vec::new();
        encode(&record, 5, 0, 0, &mut bytes);
        for bit in 0..bytes.len() * 8 {
            let mut broken = bytes.clone();
            broken[bit / 8] ^= 1 << (bit % 8);
            assert!(parse(&broken.into(), 5, 0).is_none(), "bit {bit}");
        }
    }
}
