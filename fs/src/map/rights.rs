//! Which keys a mount's user must be allowed to read and write. Pure.

use bytes::Bytes;
use etcfs_proto::key::KeyRange;

use super::escape::encode;
use super::{DIR_RECORDS, KeyMap};

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
        needed.push((Need::Locks, records(b".etcfs/lock/")));
        needed.push((Need::Changes, Bytes::copy_from_slice(changes.as_bytes())));
    }
    needed.into_iter().map(|(need, prefix)| (need, KeyRange::prefix(&prefix))).collect()
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
