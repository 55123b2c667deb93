//! Several watches as one stream of whole revisions. Pure.
//!
//! A revision may change keys in more than one of the ranges, and each range's events arrive by themselves. So what
//! one range brings for revision R waits until every other range is known to have brought all it has up to R: by
//! an event of its own at R or later, or by the server's word about its progress.

use std::collections::BTreeMap;

use crate::remote::{Changed, Event, Revision, Watched};

#[derive(Debug)]
pub(super) struct Merge {
    /// Up to which each range has brought all.
    known: Vec<Revision>,
    waiting: BTreeMap<Revision, Vec<Event>>,
    /// Up to which the reader knows all.
    told: Revision,
    /// At least up to which the reader is to know all before the watch counts as standing.
    expected: Revision,
}

impl Merge {
    pub(super) fn new(ranges: usize, from: Revision) -> Self {
        let before = Revision(from.0 - 1);
        Self { known: vec![before; ranges], waiting: BTreeMap::new(), told: before, expected: Revision(0) }
    }

    /// Takes some events of one revision.
    pub(super) fn event(&mut self, revision: Revision, event: Event) {
        self.waiting.entry(revision).or_default().push(event);
    }

    /// A range has brought everything up to there.
    pub(super) fn know(&mut self, range: usize, revision: Revision) {
        self.known[range] = self.known[range].max(revision);
    }

    /// The server was at this revision when the watch was taken up again.
    pub(super) fn expect(&mut self, revision: Revision) {
        self.expected = self.expected.max(revision);
    }

    /// True once everything up to what is expected has been told.
    pub(super) fn has_caught_up(&self) -> bool {
        self.told >= self.expected
    }

    /// The ranges whose progress something waits for.
    pub(super) fn behind(&self) -> impl Iterator<Item = usize> {
        let waiting = self.waiting.keys().next().copied();
        let wanted = waiting.or_else(|| (!self.has_caught_up()).then_some(self.expected));
        self.known
            .iter()
            .enumerate()
            .filter(move |(_, known)| wanted.is_some_and(|at| **known < at))
            .map(|(at, _)| at)
    }

    /// The next thing that is certain.
    pub(super) fn next(&mut self) -> Option<Watched> {
        let certain = self.known.iter().copied().min()?;
        if let Some(first) = self.waiting.first_entry()
            && *first.key() <= certain
        {
            let (revision, events) = first.remove_entry();
            self.told = self.told.max(revision);
            return Some(Watched::Changed(Changed { revision, events }));
        }
        (certain > self.told).then(|| {
            self.told = certain;
            Watched::UpTo(certain)
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::map::Key;

    fn event(range: usize) -> Event {
        Event::Delete(Key::from(if range == 0 { "a" } else { "b" }))
    }

    #[test]
    fn a_revision_waits_for_the_other_range() {
        let mut merge = Merge::new(2, Revision(5));
        merge.event(Revision(5), event(0));
        merge.know(0, Revision(5));
        assert_eq!(merge.next(), None);
        assert_eq!(merge.behind().collect::<Vec<_>>(), [1]);
        merge.event(Revision(5), event(1));
        merge.know(1, Revision(5));
        let whole = Changed { revision: Revision(5), events: vec![event(0), event(1)] };
        assert_eq!(merge.next(), Some(Watched::Changed(whole)));
        merge.know(0, Revision(9));
        assert_eq!(merge.next(), None);
        merge.know(1, Revision(7));
        assert_eq!(merge.next(), Some(Watched::UpTo(Revision(7))));
        assert_eq!(merge.behind().count(), 0);
    }

    #[test]
    fn a_watch_that_was_taken_up_again_stands_once_it_has_caught_up() {
        let mut merge = Merge::new(2, Revision(5));
        merge.expect(Revision(8));
        assert_eq!(merge.behind().collect::<Vec<_>>(), [0, 1]);
        merge.know(0, Revision(9));
        assert!(!merge.has_caught_up());
        merge.know(1, Revision(8));
        assert_eq!(merge.next(), Some(Watched::UpTo(Revision(8))));
        assert!(merge.has_caught_up() && merge.behind().count() == 0);
    }

    proptest! {
        /// Each range brings its own revisions in order, in any interleaving with the other: the reader sees each
        /// revision once, whole, in order.
        #[test]
        fn revisions_come_whole_and_in_order(
            touched in prop::collection::vec((any::<bool>(), any::<bool>()), 1..30),
            turns in prop::collection::vec(0usize..2, 0..80),
        ) {
            let mut merge = Merge::new(2, Revision(1));
            let mut next = [0, 0];
            let mut seen = Vec::new();
            for range in turns.into_iter().chain([0; 30]).chain([1; 30]) {
                if let Some(touch) = touched.get(next[range]) {
                    next[range] += 1;
                    let revision = Revision(next[range] as i64);
                    if [touch.0, touch.1][range] {
                        merge.event(revision, event(range));
                    }
                    merge.know(range, revision);
                }
                while let Some(watched) = merge.next() {
                    if let Watched::Changed(changed) = watched {
                        seen.push((changed.revision.0, changed.events.len()));
                    }
                }
            }
            let whole = touched.iter().zip(1..).map(|(touch, at)| (at, usize::from(touch.0) + usize::from(touch.1)));
            prop_assert_eq!(seen, whole.filter(|(_, events)| *events > 0).collect::<Vec<_>>());
        }
    }
}
