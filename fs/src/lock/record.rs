//! A lock as a key and a value.
//!
//! The key's suffix is NUL, the session in 16 hex digits, `h` (holds) or `w` (waits), the owner's or the request's
//! number in 16 hex digits. Its length is fixed, so no key of a file is taken for another's. The value is lines of
//! text: process and host, then a line of mode, start and end for each range.

use std::fmt::Write as _;

use bytes::Bytes;
use etcfs_proto::key::KeyRange;

use super::{Holder, LOCK_RECORDS, Mode, Span, Spans};
use crate::map::Key;
use crate::remote::{KeyValue, LeaseId, Revision};

/// NUL, session, kind, number.
const SUFFIX_BYTES: usize = 1 + 16 + 1 + 16;

/// What a record says of its holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Holds,
    Waits,
}

/// The ranges that are held, or asked for, and by whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) spans: Spans,
    pub(crate) pid: u32,
    pub(crate) host: String,
}

/// One record, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) kind: Kind,
    /// Of a record that waits, the number is its request's.
    pub(crate) holder: Holder,
    pub(crate) held: Held,
    pub(crate) created: Revision,
    /// At which it got what it has.
    pub(crate) revision: Revision,
}

/// Where the records of a file's locks lie, and maybe some of other files'.
pub(crate) fn range_of(file: &[u8]) -> KeyRange {
    KeyRange::prefix(&[LOCK_RECORDS, file, b"\0"].concat().into())
}

pub(crate) fn held_key(file: &[u8], holder: Holder) -> Key {
    record_key(file, holder, 'h')
}

pub(crate) fn waiting_key(file: &[u8], holder: Holder) -> Key {
    record_key(file, holder, 'w')
}

fn record_key(file: &[u8], holder: Holder, kind: char) -> Key {
    let suffix = format!("\0{}{kind}{:016x}", holder.session, holder.owner);
    Key::from(Bytes::from([LOCK_RECORDS, file, suffix.as_bytes()].concat()))
}

/// The file whose lock a record is.
pub(crate) fn file_of(record: &[u8]) -> Option<&[u8]> {
    let rest = record.strip_prefix(LOCK_RECORDS)?;
    rest.len().checked_sub(SUFFIX_BYTES).filter(|&at| rest[at] == 0).map(|at| &rest[..at])
}

impl Held {
    pub(crate) fn value(&self) -> Bytes {
        let mut text = format!("{} {}\n", self.pid, self.host);
        for (Span { start, end }, mode) in self.spans.iter() {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{} {start} {end}", word(mode));
        }
        text.into()
    }

    fn read(value: &[u8]) -> Option<Self> {
        let mut lines = std::str::from_utf8(value).ok()?.lines();
        let (pid, host) = lines.next()?.split_once(' ')?;
        let mut spans = Spans::default();
        for line in lines {
            let mut words = line.split(' ');
            let mode = match words.next()? {
                "shared" => Mode::Shared,
                "exclusive" => Mode::Exclusive,
                _ => return None,
            };
            let span = Span { start: words.next()?.parse().ok()?, end: words.next()?.parse().ok()? };
            spans.set(span, Some(mode));
        }
        Some(Self { spans, pid: pid.parse().ok()?, host: host.to_owned() })
    }
}

fn word(mode: Mode) -> &'static str {
    match mode {
        Mode::Shared => "shared",
        Mode::Exclusive => "exclusive",
    }
}

impl Record {
    /// Reads what lies below [`LOCK_RECORDS`]; what no mount has put there is no lock.
    pub(crate) fn read(kv: &KeyValue) -> Option<Self> {
        let file = file_of(&kv.key)?;
        let suffix = std::str::from_utf8(&kv.key[LOCK_RECORDS.len() + file.len() + 1..]).ok()?;
        let (session, rest) = suffix.split_at_checked(16)?;
        let (kind, number) = rest.split_at_checked(1)?;
        let kind = match kind {
            "h" => Kind::Holds,
            "w" => Kind::Waits,
            _ => return None,
        };
        let session = LeaseId(i64::from_str_radix(session, 16).ok()?);
        let holder = Holder { session, owner: u64::from_str_radix(number, 16).ok()? };
        let held = Held::read(&kv.value)?;
        Some(Self { kind, holder, held, created: kv.create_revision, revision: kv.mod_revision })
    }
}

/// A record as `%locks` shows it: key, host, process, revision, and what it has or waits for.
pub(crate) fn line(file: &[u8], record: &Record) -> String {
    let Held { spans, pid, host } = &record.held;
    let mut line = format!("{}\t{host}\t{pid}\t{}\t", file.escape_ascii(), record.revision);
    line.push_str(match record.kind {
        Kind::Holds => "holds",
        Kind::Waits => "waits",
    });
    for (Span { start, end }, mode) in spans.iter() {
        let _ = match end {
            // What both flock and a lock to the end of the file ask for.
            end if end >= i64::MAX as u64 => write!(line, " {} {start}-", word(mode)),
            end => write!(line, " {} {start}-{end}", word(mode)),
        };
    }
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kv(key: Key, value: Bytes) -> KeyValue {
        let (create_revision, mod_revision) = (Revision(5), Revision(7));
        KeyValue { key, value, create_revision, mod_revision, version: 2, lease: None }
    }

    proptest! {
        #[test]
        fn a_record_is_read_as_it_was_put_and_belongs_to_one_file(
            file in prop::collection::vec(any::<u8>(), 0..60), session in 1..i64::MAX, owner in any::<u64>(),
        ) {
            let holder = Holder { session: LeaseId(session), owner };
            let mut spans = Spans::default();
            spans.set(Span { start: 3, end: 9 }, Some(Mode::Shared));
            spans.set(Span { start: 20, end: u64::MAX }, Some(Mode::Exclusive));
            let held = Held { spans, pid: 77, host: "a host".into() };
            for (key, kind) in [
                (held_key(&file, holder), Kind::Holds),
                (waiting_key(&file, holder), Kind::Waits),
            ] {
                prop_assert!(range_of(&file).contains(&key));
                prop_assert_eq!(file_of(&key), Some(file.as_slice()));
                let (created, revision) = (Revision(5), Revision(7));
                let record = Record { kind, holder, held: held.clone(), created, revision };
                prop_assert_eq!(Record::read(&kv(key, held.value())), Some(record));
            }
        }
    }

    #[test]
    fn what_no_mount_has_put_is_no_lock() {
        for (key, value) in [
            (".etcfs/lock//a", "1 host\n"),
            (".etcfs/lock//a\x00000000000000000fz0000000000000001", "1 host\n"),
            (".etcfs/lock//a\x00000000000000000fh0000000000000001", "1"),
            (".etcfs/lock//a\x00000000000000000fh0000000000000001", "1 host\nmine 0 9\n"),
        ] {
            assert_eq!(Record::read(&kv(Key::from(key), value.into())), None, "{key}");
        }
    }
}
