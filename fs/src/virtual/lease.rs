//! Names in `%leases`: a lease's id, and the keys attached to it.

use std::ffi::{OsStr, OsString};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use crate::map::{KeyMap, NAME_BYTES_MAX};
use crate::remote::LeaseId;

/// What is left of a name that is too long, before its hash.
const CUT_BYTES: usize = NAME_BYTES_MAX - 5 - 16;

/// As etcdctl prints it.
pub(crate) fn lease_name(lease: LeaseId) -> OsString {
    lease.to_string().into()
}

pub(crate) fn parse_lease(name: &OsStr) -> Option<LeaseId> {
    let id = u64::from_str_radix(name.to_str()?, 16).ok()?;
    let lease = LeaseId(id.cast_signed());
    (id != 0 && lease_name(lease) == name).then_some(lease)
}

/// The name of an attached key: its path with `%2F` for the slashes, which no path has otherwise. One that is too
/// long for a name ends in `%more` and a hash. `None` for a key that this mount does not show.
pub(crate) fn link_name(map: &KeyMap, key: &[u8]) -> Option<OsString> {
    let path = map.path_of(key)?;
    let name = path.to_str()?.replace('/', "%2F");
    if name.len() <= NAME_BYTES_MAX {
        return Some(name.into());
    }
    let mut hash = DefaultHasher::new();
    key.hash(&mut hash);
    let cut = name.floor_char_boundary(CUT_BYTES);
    Some(format!("{}%more{:016x}", &name[..cut], hash.finish()).into())
}

/// Where its link points, from `%leases/ID` on; `is_dir` if the key is a directory too.
pub(crate) fn link_target(map: &KeyMap, key: &[u8], is_dir: bool) -> Option<OsString> {
    let path = std::path::Path::new("../..").join(map.path_of(key)?);
    Some(if is_dir { path.join("%value") } else { path }.into_os_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::{Percent, Rel};

    #[test]
    fn a_lease_has_one_name() {
        assert_eq!(parse_lease(OsStr::new("00000000000001ab")), Some(LeaseId(0x1ab)));
        for name in ["1ab", "00000000000001AB", "0000000000000000", "x", "+0000000000001ab", "ttl"] {
            assert_eq!(parse_lease(OsStr::new(name)), None, "{name}");
        }
        assert_eq!(parse_lease(&lease_name(LeaseId(-5))), Some(LeaseId(-5)));
    }

    #[test]
    fn an_attached_key_has_a_name_and_a_target() {
        let map = KeyMap::new("/".into(), Percent::Strict, Rel::Links);
        assert_eq!(link_name(&map, b"/a/b%c").unwrap(), "a%2Fb%25c");
        assert_eq!(link_name(&map, b"bare").unwrap(), "%rel%2Fbare");
        assert_eq!(link_target(&map, b"/a/b%c", false).unwrap(), "../../a/b%25c");
        assert_eq!(link_target(&map, b"/a", true).unwrap(), "../../a/%value");
        let (one, two) = (format!("/{}/1", "\u{e9}".repeat(300)), format!("/{}/2", "\u{e9}".repeat(300)));
        let (one, two) = (link_name(&map, one.as_bytes()).unwrap(), link_name(&map, two.as_bytes()).unwrap());
        assert!(one.len() <= NAME_BYTES_MAX && one != two);
        let prefixed = KeyMap::new("/p/".into(), Percent::Strict, Rel::Off);
        assert_eq!(link_name(&prefixed, b"/q/a"), None);
    }
}
