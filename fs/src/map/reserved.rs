//! The words after `%` that no escape can spell, so that nothing virtual collides with a key.
//!
//! `%value`, `%empty`, `%rel` and `...%more` are data and listed; they are handled where paths are. The words
//! here are found by lookup only, so that find, grep -r, cp -r and rsync never meet them. What they show is not
//! this module's business: it only keeps their names free.

use super::{Dir, Key};

pub(super) const VALUE: &str = "%value";
pub(super) const EMPTY: &str = "%empty";
pub(super) const REL: &str = "%rel";
pub(super) const MORE: &str = "%more";
pub(super) const LOG: &str = "%log";
pub(super) const REV: &str = "%rev";

/// A reserved name that is listed nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reserved {
    /// `DIR/%log`
    Log(Dir),
    /// `%rev` in the root.
    Rev,
    /// `%leases` in the root.
    Leases,
    /// `%locks` in the root.
    Locks,
    /// `%status` in the root.
    Status,
    /// `KEY%log`
    KeyLog(Key),
    /// `KEY%rev`
    KeyRev(Key),
}

/// The word that only the root has under this name.
pub(super) fn of_root(name: &str) -> Option<Reserved> {
    match name {
        REV => Some(Reserved::Rev),
        "%leases" => Some(Reserved::Leases),
        "%locks" => Some(Reserved::Locks),
        "%status" => Some(Reserved::Status),
        _ => None,
    }
}
