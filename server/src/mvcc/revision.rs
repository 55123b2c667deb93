//! The number of a change, and what the index remembers of one.

/// One change: `main` is the store's revision, `sub` tells apart the changes of
/// one transaction, which share it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision {
    pub main: i64,
    pub sub: u32,
}

/// Stands for the compaction of a store that was never compacted; 0 is one that drops nothing.
pub const NEVER_COMPACTED: i64 = -1;

/// Revision of a store that nobody has written to.
pub const FIRST_REVISION: i64 = 1;

/// A change of one key as the index holds it: its revision, how long its row
/// is, and whether it deleted the key or hung it on a lease.
///
/// 16 bytes, because there is one for every revision in memory.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    main: i64,
    sub: u32,
    /// Row length, shifted past the two flags.
    bits: u32,
}

const TOMBSTONE: u32 = 1;
const LEASED: u32 = 2;
const FLAG_BITS: u32 = 2;
/// Longer than any request may be; a row that long would be counted short, no worse.
const ROW_BYTES_MAX: usize = (u32::MAX >> FLAG_BITS) as usize;

impl Stamp {
    pub(crate) fn put(revision: Revision, row_bytes: usize, leased: bool) -> Self {
        Self::new(revision, row_bytes, if leased { LEASED } else { 0 })
    }

    pub(crate) fn tombstone(revision: Revision, row_bytes: usize) -> Self {
        Self::new(revision, row_bytes, TOMBSTONE)
    }

    fn new(revision: Revision, row_bytes: usize, flags: u32) -> Self {
        let bytes = u32::try_from(row_bytes.min(ROW_BYTES_MAX)).expect("capped right before");
        Self { main: revision.main, sub: revision.sub, bits: bytes << FLAG_BITS | flags }
    }

    pub(crate) fn main(self) -> i64 {
        self.main
    }

    pub(crate) fn revision(self) -> Revision {
        Revision { main: self.main, sub: self.sub }
    }

    pub(crate) fn is_tombstone(self) -> bool {
        self.bits & TOMBSTONE != 0
    }

    pub(crate) fn is_leased(self) -> bool {
        self.bits & LEASED != 0
    }

    pub(crate) fn row_bytes(self) -> usize {
        (self.bits >> FLAG_BITS) as usize
    }
}

impl std::fmt::Debug for Stamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = if self.is_tombstone() { "x" } else { "" };
        write!(f, "{}.{}{kind}", self.main, self.sub)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_small_and_keeps_what_it_is_given() {
        assert_eq!(size_of::<Stamp>(), 16);
        let revision = Revision { main: i64::MAX, sub: u32::MAX };
        let put = Stamp::put(revision, 1_500_000, true);
        assert_eq!((put.revision(), put.row_bytes()), (revision, 1_500_000));
        assert!(put.is_leased() && !put.is_tombstone());
        assert!(Stamp::tombstone(revision, usize::MAX).is_tombstone());
    }
}
