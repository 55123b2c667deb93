//! Rows in memory: the recent revisions, and older ones that are read often.
//!
//! [`Recent`] is the tail of history without a hole, found by number. Its
//! oldest rows leave when it is over budget and the image has them; such a row
//! that is still its key's newest goes on to [`Hot`], where the rows that are
//! read stay longest. What is in neither is read from the image.

use std::collections::VecDeque;

use bytes::Bytes;
use quick_cache::{Weighter, sync::Cache};

use super::Revision;

/// What a row costs beside its bytes: its handle, its allocation's header.
const ROW_OVERHEAD_BYTES: usize = 96;

/// All rows of the newest revisions.
#[derive(Debug)]
pub(crate) struct Recent {
    /// Revision of the first element; there is one element for each revision from there on.
    first: i64,
    rows: VecDeque<Rows>,
    bytes: usize,
}

#[derive(Debug)]
enum Rows {
    One(Bytes),
    /// Indexed by sub-revision.
    Many(Vec<Bytes>),
}

impl Rows {
    fn as_slice(&self) -> &[Bytes] {
        match self {
            Self::One(row) => std::slice::from_ref(row),
            Self::Many(rows) => rows,
        }
    }
}

impl Recent {
    /// Holds nothing yet; the next row will be of revision `first`.
    pub(crate) fn starting_at(first: i64) -> Self {
        Self { first, rows: VecDeque::new(), bytes: 0 }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The newest revision in here; with none, the one before the next.
    pub(crate) fn newest(&self) -> i64 {
        self.end() - 1
    }

    /// Adds the next row. A gap, which only compacted history has, lets go of all before it.
    pub(crate) fn push(&mut self, revision: Revision, row: Bytes) {
        let end = self.end();
        if revision.main != end && revision.main + 1 != end {
            self.clear();
        }
        if self.rows.is_empty() {
            self.first = revision.main;
        }
        self.bytes += row.len() + ROW_OVERHEAD_BYTES;
        if revision.main == self.end() {
            // A row of a revision whose first row is gone can't be found by its place.
            debug_assert_eq!(revision.sub, 0);
            self.rows.push_back(Rows::One(row));
            return;
        }
        let last = self.rows.back_mut().expect("the revision before the end is there");
        match last {
            Rows::One(first) => *last = Rows::Many(vec![std::mem::take(first), row]),
            Rows::Many(rows) => rows.push(row),
        }
    }

    pub(crate) fn get(&self, revision: Revision) -> Option<&Bytes> {
        self.revision(revision.main)?.get(revision.sub as usize)
    }

    /// All rows of one revision, by sub-revision.
    pub(crate) fn revision(&self, main: i64) -> Option<&[Bytes]> {
        let place = usize::try_from(main.checked_sub(self.first)?).ok()?;
        Some(self.rows.get(place)?.as_slice())
    }

    /// The oldest revision in here; with none, the one that would come next.
    pub(crate) fn first(&self) -> i64 {
        self.first
    }

    /// One past the newest.
    fn end(&self) -> i64 {
        self.first + i64::try_from(self.rows.len()).expect("a list's length is an i64")
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Lets go of the oldest revision, if it is at most `upto`.
    pub(crate) fn pop(&mut self, upto: i64) -> Option<(i64, Vec<Bytes>)> {
        if self.first > upto {
            return None;
        }
        let rows = self.rows.pop_front()?;
        let main = self.first;
        self.first += 1;
        self.bytes -= rows.as_slice().iter().map(|row| row.len() + ROW_OVERHEAD_BYTES).sum::<usize>();
        Some((
            main,
            match rows {
                Rows::One(row) => vec![row],
                Rows::Many(rows) => rows,
            },
        ))
    }

    fn clear(&mut self) {
        self.rows.clear();
        self.bytes = 0;
    }
}

/// Older rows that are worth their memory.
#[derive(Debug)]
pub(crate) struct Hot {
    rows: Cache<Revision, Bytes, RowWeight>,
}

#[derive(Clone, Debug)]
struct RowWeight;

impl Weighter<Revision, Bytes> for RowWeight {
    fn weight(&self, _: &Revision, row: &Bytes) -> u64 {
        (row.len() + ROW_OVERHEAD_BYTES) as u64
    }
}

/// Guess of a row's size, for the cache's tables.
const TYPICAL_ROW_BYTES: u64 = 512;

impl Hot {
    pub(crate) fn new(budget_bytes: u64) -> Self {
        let rows = usize::try_from(budget_bytes / TYPICAL_ROW_BYTES).unwrap_or(usize::MAX);
        Self { rows: Cache::with_weighter(rows, budget_bytes, RowWeight) }
    }

    pub(crate) fn get(&self, revision: Revision) -> Option<Bytes> {
        self.rows.get(&revision)
    }

    pub(crate) fn insert(&self, revision: Revision, row: Bytes) {
        self.rows.insert(revision, row);
    }

    pub(crate) fn clear(&self) {
        self.rows.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(main: i64, sub: u32) -> Revision {
        Revision { main, sub }
    }

    #[test]
    fn recent_rows_are_found_by_revision_and_leave_from_the_oldest() {
        let mut recent = Recent::starting_at(2);
        for (revision, row) in
            [(at(5, 0), "a"), (at(6, 0), "b"), (at(6, 1), "c"), (at(6, 2), "d"), (at(7, 0), "e")]
        {
            recent.push(revision, row.into());
        }
        assert_eq!(recent.get(at(6, 2)).map(Bytes::as_ref), Some(&b"d"[..]));
        assert_eq!((recent.get(at(6, 3)), recent.get(at(4, 0)), recent.get(at(8, 0))), (None, None, None));
        assert_eq!(recent.pop(4), None);
        assert_eq!(recent.pop(6), Some((5, vec!["a".into()])));
        assert_eq!(recent.pop(6).map(|(main, rows)| (main, rows.len())), Some((6, 3)));
        assert_eq!((recent.pop(6), recent.first()), (None, 7));
        assert_eq!(recent.get(at(7, 0)).map(Bytes::as_ref), Some(&b"e"[..]));
        assert_eq!(recent.bytes(), 1 + ROW_OVERHEAD_BYTES);
    }

    #[test]
    fn a_gap_lets_go_of_what_was_before_it() {
        let mut recent = Recent::starting_at(2);
        recent.push(at(2, 0), "a".into());
        recent.push(at(9, 0), "b".into());
        assert_eq!((recent.first(), recent.get(at(2, 0))), (9, None));
        assert_eq!(recent.bytes(), 1 + ROW_OVERHEAD_BYTES);
    }
}
