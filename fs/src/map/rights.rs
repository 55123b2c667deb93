//! Which keys a mount's user must be allowed to read and write. Pure.

use std::collections::BTreeSet;

use bytes::Bytes;
use etcfs_proto::key::{KeyRange, KeySet, prefix_end};

use super::escape::encode;
use super::{DIR_RECORDS, Key, KeyMap, OWN_RECORDS};

/// Where mounts keep their locks.
const LOCKS: &[u8] = b".etcfs/lock/";

/// What a mount keeps in a range of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    Keys,
    Directories,
    Locks,
    Changes,
}

/// Where a user's mounts keep what they remember of their changes; without authentication there is one user, `-`.
pub fn changes_of(user: Option<&str>) -> String {
    let user = user.map_or_else(|| "-".to_owned(), |user| encode(user.as_bytes()).replace('/', "%2F"));
    format!(".etcfs/op/{user}/")
}

/// What a mount must be allowed; a read-only mount needs keys and directories alone, to read.
/// `changes` is where its user's mounts remember theirs.
pub fn ranges(prefix: &Bytes, read_only: bool, changes: &str) -> Vec<(Need, KeyRange)> {
    let records = |records: &[u8]| Bytes::from([records, prefix].concat());
    let mut needed = vec![(Need::Keys, prefix.clone()), (Need::Directories, records(DIR_RECORDS))];
    if !read_only {
        needed.push((Need::Locks, records(LOCKS)));
        needed.push((Need::Changes, Bytes::copy_from_slice(changes.as_bytes())));
    }
    needed.into_iter().map(|(need, prefix)| (need, KeyRange::prefix(&prefix))).collect()
}

/// What a mount shows to a user who may read some of its keys, and write some of those.
#[derive(Debug, Default)]
pub struct Granted {
    /// Keys of the mount that may be read, and those that may be written too.
    pub shown: KeySet,
    pub written: KeySet,
    /// Where the records of the directories among those are that may be made and removed.
    pub directories: KeySet,
    /// Records of the directories that are always there, since a right lies at them or below.
    pub fixed: BTreeSet<Key>,
}

/// Of the keys in `range`, those that may be read and written, and what follows for directories.
pub fn granted(range: &KeyRange, read: &KeySet, write: &KeySet) -> Granted {
    let mut granted = Granted::default();
    let own = KeyRange::prefix(&Bytes::from_static(OWN_RECORDS));
    let inside = |part: &KeyRange| part.and(&own).as_ref() != Some(part);
    read.within(range).iter().filter(|part| inside(part)).for_each(|part| granted.shown.insert(part));
    for part in granted.shown.ranges().flat_map(|part| write.within(&part)) {
        granted.written.insert(&part);
    }
    // One key has no directory of its own.
    for part in granted.written.ranges().filter(|part| !part.is_single()) {
        granted.directories.insert(&records_of(&part, DIR_RECORDS));
    }
    for part in granted.shown.ranges().chain(granted.written.ranges()) {
        let below = range.start.len()..part.start.len();
        let slashes = below.filter(|&at| part.start[at] == b'/');
        granted
            .fixed
            .extend(slashes.map(|at| Key::from(Bytes::from([DIR_RECORDS, &part.start[..=at]].concat()))));
    }
    granted
}

/// Where the locks of the files are whose keys lie in a range.
pub fn locks_of(part: &KeyRange) -> KeyRange {
    if part.is_single() {
        return KeyRange::prefix(&[LOCKS, &part.start, b"\0"].concat().into());
    }
    records_of(part, LOCKS)
}

/// What begins with `before` and goes on as the keys of `part` do.
fn records_of(part: &KeyRange, before: &[u8]) -> KeyRange {
    let end = match &part.end {
        Some(end) => Bytes::from([before, end].concat()),
        None => prefix_end(before),
    };
    KeyRange { start: [before, &part.start].concat().into(), end: Some(end) }
}

/// A range as the prefix of a mount's source, if it is what a mount shows.
pub fn spelled(range: &KeyRange) -> Option<String> {
    let prefix = &range.start;
    if *range != KeyRange::prefix(prefix) || !(prefix.is_empty() || prefix.ends_with(b"/")) {
        return None;
    }
    let (slash, rest) = match prefix.strip_prefix(b"/") {
        Some(rest) => ("/", rest),
        None => ("", prefix.as_ref()),
    };
    let rest = rest.strip_suffix(b"/").unwrap_or(rest);
    let names: Vec<String> =
        if rest.is_empty() { Vec::new() } else { rest.split(|&byte| byte == b'/').map(encode).collect() };
    let text = format!("{slash}{}", names.join("/"));
    // Nothing but what the source takes: no name that is too long, none of the mount's own records.
    KeyMap::parse_prefix(&text).is_ok_and(|read| read == *prefix).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_spelled_as_a_source_takes_it() {
        let spelled = |prefix: &'static str| spelled(&KeyRange::prefix(&prefix.into()));
        assert_eq!(spelled("/a/b c/").as_deref(), Some("/a/b c"));
        assert_eq!(spelled("/").as_deref(), Some("/"));
        assert_eq!(spelled("").as_deref(), Some(""));
        assert_eq!(spelled("/50%/").as_deref(), Some("/50%25"));
        assert_eq!(spelled("jobs/").as_deref(), Some("jobs"));
        for none in ["/a", ".etcfs/dir/", "/a//b"] {
            assert_eq!(spelled(none), None, "{none}");
        }
        assert_eq!(super::spelled(&KeyRange { start: "/a/".into(), end: Some("/a/z".into()) }), None);
    }

    #[test]
    fn what_may_be_read_shows_below_directories_that_are_always_there() {
        let set = |ranges: &[(&'static str, &'static str)]| {
            let mut set = KeySet::default();
            for (start, end) in ranges {
                set.insert(&KeyRange::from_request(&Bytes::from(*start), &Bytes::from(*end)));
            }
            set
        };
        let read = set(&[
            ("/a/b/", "/a/b0"),
            ("/a/x", ""),
            ("/proj", "/prok"),
            ("jobs", ""),
            (".etcfs/op/", ".etcfs/op0"),
        ]);
        let write = set(&[("/a/b/c/", "/a/b/c0"), ("/a/x", ""), ("/z", "")]);
        let found = granted(&KeyRange::prefix(&"/".into()), &read, &write);
        assert_eq!(found.shown, set(&[("/a/b/", "/a/b0"), ("/a/x", ""), ("/proj", "/prok")]));
        assert_eq!(found.written, set(&[("/a/b/c/", "/a/b/c0"), ("/a/x", "")]));
        assert_eq!(found.directories, set(&[(".etcfs/dir//a/b/c/", ".etcfs/dir//a/b/c0")]));
        let fixed: Vec<String> = found.fixed.iter().map(ToString::to_string).collect();
        assert_eq!(fixed, [".etcfs/dir//a/", ".etcfs/dir//a/b/", ".etcfs/dir//a/b/c/"]);
        // In a mount of less, only what lies in it.
        let found = granted(&KeyRange::prefix(&"/a/b/".into()), &read, &write);
        assert_eq!((found.shown, found.fixed.len()), (set(&[("/a/b/", "/a/b0")]), 1));
        // All keys: what is not the mount's own.
        let found = granted(&KeyRange::prefix(&Bytes::new()), &read, &write);
        assert!(found.shown.contains(&"jobs".into()) && !found.shown.contains(&".etcfs/op/x".into()));
    }

    #[test]
    fn a_mount_needs_its_keys_and_its_own_records_of_them() {
        let starts = |read_only| -> Vec<Bytes> {
            let changes = changes_of(Some("joe/%"));
            ranges(&"/p/".into(), read_only, &changes).into_iter().map(|(_, range)| range.start).collect()
        };
        assert_eq!(starts(false), ["/p/", ".etcfs/dir//p/", ".etcfs/lock//p/", ".etcfs/op/joe%2F%25/"]);
        assert_eq!(starts(true), ["/p/", ".etcfs/dir//p/"]);
        assert_eq!(changes_of(None), ".etcfs/op/-/");
    }
}
