//! The one place that spells row keys. One tree holds everything:
//!
//! | key | row |
//! |---|---|
//! | `r` main:u64 sub:u64 | `mvccpb.KeyValue`; a deletion has version 0 |
//! | `l` id:u64 | `record.Lease` |
//! | `m` id:u64 | `record.Member` |
//! | `a` type:u32 member:u64 | an alarm, empty value |
//! | `o` name | `authpb.Role` |
//! | `u` name | `authpb.User`, with the hash of the password |
//! | `t` main:u64 | `record.RevisionTime` |
//! | `x` `meta` | `record.Meta` |
//! | 0xff `sum` | the disk engine's own: what all other rows add up to |
//!
//! Numbers are big endian, so that rows sort by them. On disk those of revisions
//! are bundled (`bundle`). What must change together is in this one tree because
//! only a batch on one tree is atomic.

use bytes::{BufMut, Bytes, BytesMut};

/// Row of `record.Meta`: how far the image has come.
pub const META: &[u8] = b"xmeta";

/// Row of the disk engine's fingerprint; beyond [`ALL`], so in no snapshot.
pub const FINGERPRINT: &[u8] = b"\xffsum";

/// Length of a revision's row key.
pub const REVISION_KEY_BYTES: usize = 17;

/// All rows of one kind: `[start, end)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rows {
    pub start: &'static [u8],
    pub end: &'static [u8],
}

pub const REVISIONS: Rows = Rows { start: b"r", end: b"s" };
pub const LEASES: Rows = Rows { start: b"l", end: b"m" };
pub const MEMBERS: Rows = Rows { start: b"m", end: b"n" };
pub const ALARMS: Rows = Rows { start: b"a", end: b"b" };
pub const ROLES: Rows = Rows { start: b"o", end: b"p" };
pub const TIMES: Rows = Rows { start: b"t", end: b"u" };
pub const USERS: Rows = Rows { start: b"u", end: b"v" };
/// Every row there is.
pub const ALL: Rows = Rows { start: b"", end: b"\xff" };

/// Row of the change `(main, sub)`.
pub fn revision(main: i64, sub: i64) -> Bytes {
    let mut key = BytesMut::with_capacity(REVISION_KEY_BYTES);
    key.put_u8(b'r');
    key.put_i64(main);
    key.put_i64(sub);
    key.freeze()
}

/// The `(main, sub)` of a revision's row; `None` for another row.
pub fn parse_revision(key: &[u8]) -> Option<(i64, i64)> {
    let numbers = key.strip_prefix(b"r")?;
    let (main, sub) = numbers.split_first_chunk::<8>()?;
    Some((i64::from_be_bytes(*main), i64::from_be_bytes(sub.try_into().ok()?)))
}

/// True for the row of a revision, which never changes.
pub fn is_revision(key: &[u8]) -> bool {
    key.len() == REVISION_KEY_BYTES && key.starts_with(REVISIONS.start)
}

pub fn lease(id: i64) -> Bytes {
    tagged(b'l', id.cast_unsigned())
}

pub fn member(id: u64) -> Bytes {
    tagged(b'm', id)
}

/// Row of the time that begins with the revision `main`.
pub fn time(main: i64) -> Bytes {
    tagged(b't', main.cast_unsigned())
}

/// The revision of a time's row; `None` for another row.
pub fn parse_time(key: &[u8]) -> Option<i64> {
    Some(i64::from_be_bytes(key.strip_prefix(b"t")?.try_into().ok()?))
}

pub fn role(name: &str) -> Bytes {
    [b"o", name.as_bytes()].concat().into()
}

pub fn user(name: &str) -> Bytes {
    [b"u", name.as_bytes()].concat().into()
}

/// Row of one alarm; `kind` is the API's `AlarmType`.
pub fn alarm(kind: i32, member: u64) -> Bytes {
    let mut key = BytesMut::with_capacity(13);
    key.put_u8(b'a');
    key.put_i32(kind);
    key.put_u64(member);
    key.freeze()
}

/// The `(kind, member)` of an alarm's row.
pub fn parse_alarm(key: &[u8]) -> Option<(i32, u64)> {
    let (kind, member) = key.strip_prefix(b"a")?.split_first_chunk::<4>()?;
    Some((i32::from_be_bytes(*kind), u64::from_be_bytes(member.try_into().ok()?)))
}

/// The key that sorts right after `key`, to go on a range from.
pub fn successor(key: &[u8]) -> Bytes {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    next.into()
}

fn tagged(tag: u8, id: u64) -> Bytes {
    let mut key = BytesMut::with_capacity(9);
    key.put_u8(tag);
    key.put_u64(id);
    key.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revision_rows_sort_by_main_then_sub_and_parse_back() {
        let ordered = [(1, 0), (1, 1), (2, 0), (255, 3), (256, 0), (i64::MAX, i64::MAX)];
        for pair in ordered.windows(2) {
            assert!(revision(pair[0].0, pair[0].1) < revision(pair[1].0, pair[1].1));
        }
        for (main, sub) in ordered {
            let row = revision(main, sub);
            assert_eq!((parse_revision(&row), row.len()), (Some((main, sub)), REVISION_KEY_BYTES));
            assert!(REVISIONS.start <= row.as_ref() && row.as_ref() < REVISIONS.end);
        }
        assert_eq!(parse_revision(META), None);
    }

    #[test]
    fn rows_of_each_kind_lie_in_their_range_alone() {
        let rows = [
            (revision(i64::MAX, 1), REVISIONS),
            (lease(-1), LEASES),
            (member(u64::MAX), MEMBERS),
            (alarm(2, 7), ALARMS),
            (time(i64::MAX), TIMES),
            (role("\u{7f}"), ROLES),
            (user(""), USERS),
        ];
        let kinds = [REVISIONS, LEASES, MEMBERS, ALARMS, TIMES, ROLES, USERS];
        for (row, own) in rows {
            for kind in kinds {
                let within = kind.start <= row.as_ref() && row.as_ref() < kind.end;
                assert_eq!(within, kind == own, "{row:?} in {kind:?}");
            }
        }
        assert_eq!((parse_time(&time(7)), parse_time(META)), (Some(7), None));
        assert_eq!(parse_alarm(&alarm(2, 7)), Some((2, 7)));
    }
}
