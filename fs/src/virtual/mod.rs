//! What the names after `%` show that are no keys: logs, the past, leases, locks, the mount's own state.
//!
//! Here is what they are ([`Place`]) and how it is written (lines, names, texts); `ops::virtuals` looks it up, opens
//! and reads it. Nothing here knows inodes, and nothing here is ever put.

mod journal;
mod lease;
mod line;
mod status;

use crate::map::{Dir, Key};
use crate::remote::{LeaseId, Revision};

pub(crate) use journal::{Journal, Place as ReadPlace, Scope, View};
pub(crate) use lease::{lease_name, link_name, link_target, parse_lease};
pub(crate) use line::{gap, render};
pub(crate) use status::Status;

/// One file or directory that is no key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    /// `%rev`
    Rev,
    /// `%rev/N` and the directories below it.
    Past {
        at: Revision,
        dir: Dir,
    },
    /// A file below `%rev/N` or `KEY%rev`: the key as of a revision.
    PastFile {
        at: Revision,
        key: Key,
    },
    /// A link in the root of `%rev/N`.
    PastLink {
        at: Revision,
        target: std::ffi::OsString,
    },
    /// `KEY%rev`
    KeyRev(Key),
    /// `%log`, from the mount's begin or from a revision on.
    Log {
        scope: Scope,
        from: Option<Revision>,
    },
    /// `%leases`
    Leases,
    /// `%leases/ID`
    Lease(LeaseId),
    LeaseTtl(LeaseId),
    LeaseGranted(LeaseId),
    /// A key attached to a lease, and what its link says.
    LeaseKey {
        lease: LeaseId,
        key: Key,
        target: std::ffi::OsString,
    },
    /// `%locks`
    Locks,
    /// `%status`
    Status,
}

/// The revision that a name in `%rev` or `KEY%rev` spells, in the one way there is.
pub(crate) fn parse_revision(name: &std::ffi::OsStr) -> Option<Revision> {
    let text = name.to_str()?;
    let revision: i64 = text.parse().ok()?;
    (revision > 0 && revision.to_string() == text).then_some(Revision(revision))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_has_one_spelling() {
        let parse = |text: &str| parse_revision(std::ffi::OsStr::new(text));
        assert_eq!(parse("17"), Some(Revision(17)));
        for text in ["", "0", "-1", "+1", "017", "1x", " 1", "99999999999999999999"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
