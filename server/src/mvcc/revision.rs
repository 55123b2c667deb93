//! The number of a change.

/// One change: `main` is the store's revision, `sub` tells apart the changes of
/// one transaction, which share it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision {
    pub main: i64,
    pub sub: u32,
}

/// Revision of a store that nobody has written to.
pub const FIRST_REVISION: i64 = 1;
