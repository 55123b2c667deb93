//! What all roles of a user allow together.

use bytes::Bytes;
use etcfs_proto::{
    authpb::{Permission, permission},
    key::{KeyRange, KeySet},
};

/// What one may want to do with keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
}

/// The union of a user's permissions: adjacent ranges count as one.
#[derive(Clone, Debug, Default)]
pub struct Rights {
    pub(super) root: bool,
    read: KeySet,
    write: KeySet,
}

impl Rights {
    pub(super) fn add(&mut self, permission: &Permission) {
        let range = KeyRange::from_request(&permission.key, &permission.range_end);
        let (read, write) = match permission.perm_type() {
            permission::Type::Read => (true, false),
            permission::Type::Write => (false, true),
            permission::Type::Readwrite => (true, true),
        };
        if read {
            self.read.insert(&range);
        }
        if write {
            self.write.insert(&range);
        }
    }

    pub fn is_root(&self) -> bool {
        self.root
    }

    /// True iff all of the range that a request names may be accessed.
    pub fn permit(&self, access: Access, key: &Bytes, range_end: &Bytes) -> bool {
        let set = match access {
            Access::Read => &self.read,
            Access::Write => &self.write,
        };
        self.root || set.covers(&KeyRange::from_request(key, range_end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rights(permissions: &[(permission::Type, &str, &str)]) -> Rights {
        let mut rights = Rights::default();
        for &(kind, key, end) in permissions {
            let (key, range_end) = (Bytes::copy_from_slice(key.as_bytes()), end.to_owned().into());
            rights.add(&Permission { perm_type: kind as i32, key, range_end });
        }
        rights
    }

    fn may_read(rights: &Rights, key: &str, end: &str) -> bool {
        rights.permit(Access::Read, &key.to_owned().into(), &end.to_owned().into())
    }

    /// The four forms of an end: none, a bound, `\0` and one at or below the key.
    #[test]
    fn a_right_on_one_key_is_one_on_no_range_in_any_form() {
        let one = rights(&[(permission::Type::Read, "a", "")]);
        assert!(may_read(&one, "a", "") && may_read(&one, "a", "a\0"));
        for (key, end) in [("a", "\0"), ("a", "b"), ("\0", "\0"), ("a\0", ""), ("b", "a"), ("b", "")] {
            assert!(!may_read(&one, key, end), "{key:?} {end:?}");
        }
        assert!(!one.permit(Access::Write, &"a".into(), &Bytes::new()));
    }

    #[test]
    fn a_right_on_a_range_holds_for_what_lies_within_in_every_form() {
        let bounded = rights(&[(permission::Type::Readwrite, "b", "d")]);
        assert!(may_read(&bounded, "b", "d") && may_read(&bounded, "c", "") && may_read(&bounded, "c", "cz"));
        for (key, end) in [("b", "\0"), ("b", "d\0"), ("a", "c"), ("d", ""), ("\0", "\0")] {
            assert!(!may_read(&bounded, key, end), "{key:?} {end:?}");
        }
        let open = rights(&[(permission::Type::Read, "b", "\0")]);
        assert!(may_read(&open, "b", "\0") && may_read(&open, "x", "y") && may_read(&open, "x", "\0"));
        assert!(!may_read(&open, "a", "\0") && !may_read(&open, "\0", "\0"));
        let all = rights(&[(permission::Type::Read, "\0", "\0")]);
        assert!(may_read(&all, "\0", "\0") && may_read(&all, "a", ""));
    }

    #[test]
    fn adjacent_rights_join_and_kinds_do_not_mix() {
        let joined = rights(&[(permission::Type::Read, "a", "b"), (permission::Type::Readwrite, "b", "c")]);
        assert!(may_read(&joined, "a", "c"));
        assert!(!joined.permit(Access::Write, &"a".into(), &"c".into()));
        let apart = rights(&[(permission::Type::Read, "a", "b"), (permission::Type::Read, "c", "d")]);
        assert!(!may_read(&apart, "a", "d"));
    }
}
