//! One key's history: at which revisions it was put and deleted.
//!
//! A key lives in generations: a generation begins with the put that creates
//! the key and ends with its tombstone. The newest change lies inline, since
//! most keys have no other; the ones before it lie in a boxed list.
//!
//! Worked example. `put k` at 2, 3 and 5, `delete k` at 7, `put k` at 9:
//!
//! ```text
//!   past: 2 3 5 7x     last: 9     (created 9, version 1)
//!         `-- generation 1 --'     `- generation 2
//! ```
//!
//! Read at 4 gives 3 (created 2, version 2); at 7 and 8 nothing; at 9 the new
//! key. A compaction keeps what a reader at that revision or later can see, and
//! every change made at that very revision, for a watch may begin there:
//!
//! ```text
//!   compact 2:  nothing goes
//!   compact 4:  2 goes; 3 is what a reader at 4 sees
//!   compact 5:  2 3 go
//!   compact 7:  2 3 5 go, the tombstone 7 stays: a watch from 7 must see it
//!   compact 8:  2 3 5 7x go; a reader at 8 sees nothing, and nothing is left
//! ```
//!
//! The first stamp that is left of a generation whose beginning was compacted
//! no longer tells when the key was created, so the list keeps those facts of
//! its first stamp; later ones follow by counting.

use super::{Revision, revision::Stamp};

/// Every change of one key that is not compacted away; never empty.
#[derive(Debug)]
pub(crate) struct KeyHistory {
    /// Facts of `last`; both 0 for a tombstone.
    created: i64,
    version: i64,
    last: Stamp,
    past: Option<Box<Past>>,
}

/// The changes before the newest, oldest first; never empty.
#[derive(Debug)]
struct Past {
    /// Facts of `stamps[0]`; both 0 for a tombstone.
    created: i64,
    version: i64,
    stamps: Vec<Stamp>,
}

/// What the index knows of a pair without its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) revision: Revision,
    pub(crate) created: i64,
    pub(crate) version: i64,
    /// The pair hangs on a lease; its row says which.
    pub(crate) leased: bool,
    /// How long its row is.
    pub(crate) row_bytes: usize,
}

impl KeyHistory {
    /// The history of a key whose first known change is `stamp`.
    pub(crate) fn new(stamp: Stamp, created: i64, version: i64) -> Self {
        Self { created, version, last: stamp, past: None }
    }

    /// Adds the newest change. `created` and `version` are those of its row.
    pub(crate) fn push(&mut self, stamp: Stamp, created: i64, version: i64) {
        debug_assert!(self.last.revision() < stamp.revision());
        match &mut self.past {
            Some(past) => past.stamps.push(self.last),
            None => {
                let past = Past { created: self.created, version: self.version, stamps: vec![self.last] };
                self.past = Some(Box::new(past));
            }
        }
        (self.last, self.created, self.version) = (stamp, created, version);
    }

    /// True iff the key exists as of its newest change.
    pub(crate) fn is_live(&self) -> bool {
        !self.last.is_tombstone()
    }

    pub(crate) fn last(&self) -> Stamp {
        self.last
    }

    /// Facts of the newest change; `None` for a deleted key.
    pub(crate) fn live(&self) -> Option<Facts> {
        self.is_live().then(|| facts(self.last, self.created, self.version))
    }

    /// The put that a reader at revision `at` sees.
    pub(crate) fn visible(&self, at: i64) -> Option<Stamp> {
        let stamp = if self.last.main() <= at {
            self.last
        } else {
            let past = self.past.as_ref()?;
            past.stamps[past.newest_at(at)?]
        };
        (!stamp.is_tombstone()).then_some(stamp)
    }

    /// The facts of what a reader at revision `at` sees. Counts back to where the generation begins.
    pub(crate) fn facts(&self, at: i64) -> Option<Facts> {
        if self.last.main() <= at {
            return self.live();
        }
        let past = self.past.as_ref()?;
        let place = past.newest_at(at)?;
        let (created, version) = past.counted(place);
        (!past.stamps[place].is_tombstone()).then(|| facts(past.stamps[place], created, version))
    }

    /// True iff a compaction at `at` leaves the change `revision` of this key.
    pub(crate) fn outlives(&self, revision: Revision, at: i64) -> bool {
        if revision.main >= at {
            return true;
        }
        self.visible(at).is_some_and(|stamp| stamp.revision() == revision)
    }

    /// Tells each revision up to `at` that is left.
    pub(crate) fn upto(&self, at: i64, tell: &mut impl FnMut(i64)) {
        let past = self.past.iter().flat_map(|past| &past.stamps);
        past.chain([&self.last]).map(|stamp| stamp.main()).take_while(|&main| main <= at).for_each(tell);
    }

    /// Drops what a compaction at `at` drops, telling each dropped stamp. True: nothing is left.
    pub(crate) fn compact(&mut self, at: i64, mut dropped: impl FnMut(Stamp)) -> bool {
        if let Some(past) = &mut self.past {
            let upto = past.stamps.partition_point(|stamp| stamp.main() <= at);
            // The newest at or below `at` stays if a reader at `at` sees it, and so do all made at `at`.
            let seen_in_past = self.last.main() > at;
            let mut kept = past.stamps[..upto].partition_point(|stamp| stamp.main() < at);
            if seen_in_past && kept == upto && kept > 0 && !past.stamps[kept - 1].is_tombstone() {
                kept -= 1;
            }
            if kept == past.stamps.len() {
                past.stamps.drain(..).for_each(&mut dropped);
                self.past = None;
            } else if kept > 0 {
                (past.created, past.version) = past.counted(kept);
                past.stamps.drain(..kept).for_each(&mut dropped);
                past.stamps.shrink_to_fit();
            }
        }
        let gone = self.past.is_none() && self.last.is_tombstone() && self.last.main() < at;
        if gone {
            dropped(self.last);
        }
        gone
    }
}

impl Past {
    /// Place of the newest stamp at or below `at`.
    fn newest_at(&self, at: i64) -> Option<usize> {
        self.stamps.partition_point(|stamp| stamp.main() <= at).checked_sub(1)
    }

    /// `(created, version)` of the stamp at `place`.
    fn counted(&self, place: usize) -> (i64, i64) {
        if self.stamps[place].is_tombstone() {
            return (0, 0);
        }
        let puts = |count: usize| i64::try_from(count).expect("a list's length is an i64");
        match self.stamps[..place].iter().rposition(|stamp| stamp.is_tombstone()) {
            Some(end) => (self.stamps[end + 1].main(), puts(place - end)),
            None => (self.created, self.version + puts(place)),
        }
    }
}

pub(crate) fn facts(stamp: Stamp, created: i64, version: i64) -> Facts {
    let (revision, leased, row_bytes) = (stamp.revision(), stamp.is_leased(), stamp.row_bytes());
    Facts { revision, created, version, leased, row_bytes }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(main: i64) -> Revision {
        Revision { main, sub: 0 }
    }

    /// The history of the module's example.
    fn example() -> KeyHistory {
        let put = |main| Stamp::put(at(main), 10, false);
        let mut history = KeyHistory::new(put(2), 2, 1);
        history.push(put(3), 2, 2);
        history.push(put(5), 2, 3);
        history.push(Stamp::tombstone(at(7), 5), 0, 0);
        history.push(put(9), 9, 1);
        history
    }

    fn seen(history: &KeyHistory, main: i64) -> Option<(i64, i64, i64)> {
        let facts = history.facts(main);
        assert_eq!(history.visible(main).map(Stamp::revision), facts.map(|facts| facts.revision));
        facts.map(|facts| (facts.revision.main, facts.created, facts.version))
    }

    #[test]
    fn the_example_reads_as_its_text_says() {
        let history = example();
        let expected = [
            (1, None),
            (2, Some((2, 2, 1))),
            (4, Some((3, 2, 2))),
            (6, Some((5, 2, 3))),
            (7, None),
            (8, None),
            (9, Some((9, 9, 1))),
            (50, Some((9, 9, 1))),
        ];
        for (main, facts) in expected {
            assert_eq!(seen(&history, main), facts, "at {main}");
        }
    }

    #[test]
    fn the_example_compacts_as_its_text_says() {
        for (compact, gone) in [
            (2, vec![]),
            (3, vec![2]),
            (4, vec![2]),
            (5, vec![2, 3]),
            (6, vec![2, 3]),
            (7, vec![2, 3, 5]),
            (8, vec![2, 3, 5, 7]),
            (9, vec![2, 3, 5, 7]),
            (99, vec![2, 3, 5, 7]),
        ] {
            let (mut history, mut dropped) = (example(), Vec::new());
            for main in [2, 3, 5, 7, 9] {
                assert_eq!(history.outlives(at(main), compact), !gone.contains(&main), "{main} at {compact}");
            }
            assert!(!history.compact(compact, |stamp| dropped.push(stamp.main())));
            assert_eq!(dropped, gone, "compacted at {compact}");
            for main in compact..12 {
                assert_eq!(seen(&history, main), seen(&example(), main), "at {main} compacted at {compact}");
            }
        }
    }

    #[test]
    fn a_deleted_key_goes_with_the_compaction_after_its_tombstone() {
        let mut history = KeyHistory::new(Stamp::put(at(2), 1, false), 2, 1);
        history.push(Stamp::tombstone(at(4), 1), 0, 0);
        let mut dropped = Vec::new();
        assert!(!history.compact(4, |stamp| dropped.push(stamp.main())));
        assert!(history.compact(5, |stamp| dropped.push(stamp.main())));
        assert_eq!(dropped, [2, 4]);
    }

    #[test]
    fn a_history_of_one_change_is_small() {
        assert_eq!(size_of::<KeyHistory>(), 40);
    }
}
