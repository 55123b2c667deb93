//! When each revision was known to exist, by anything that a client saw.

use std::collections::BTreeMap;

use super::history::{Call, History, Moment};

/// Which revisions were seen, and when.
#[derive(Clone, Debug, Default)]
pub(super) struct Witness {
    /// Revision -> when it or a later one was first seen.
    first_seen: BTreeMap<i64, Moment>,
    /// Moment -> the highest revision seen until then.
    highest: BTreeMap<Moment, i64>,
}

impl Witness {
    /// Gathers what answers, events and progress told, and `more`.
    pub(super) fn of(history: &History, more: impl IntoIterator<Item = (Moment, i64)>) -> Self {
        let answers = history.operations.iter().filter_map(|op| Some((op.answered, op.call.revision()?)));
        let told = history.streams.iter().flat_map(|stream| &stream.responses);
        let told = told.filter_map(|(at, response)| Some((*at, response.header.as_ref()?.revision)));
        let mut seen: Vec<(Moment, i64)> = answers.chain(told).chain(more).collect();
        let highest = rising(seen.clone());
        seen.sort_unstable_by_key(|&(at, revision)| (std::cmp::Reverse(revision), at));
        let mut first_seen = BTreeMap::new();
        let mut earliest = Moment::MAX;
        for (at, revision) in seen {
            earliest = earliest.min(at);
            first_seen.insert(revision, earliest);
        }
        Self { first_seen, highest }
    }

    /// When `revision` was surely made: somebody had seen it or a later one.
    pub(super) fn first_seen(&self, revision: i64) -> Option<Moment> {
        self.first_seen.range(revision..).next().map(|(_, &at)| at)
    }

    /// The highest revision that anybody had seen before `at`.
    pub(super) fn known_before(&self, at: Moment) -> i64 {
        self.highest.range(..at).next_back().map_or(0, |(_, &revision)| revision)
    }
}

/// The compactions that were asked for, by when the highest so far was.
#[derive(Clone, Debug, Default)]
pub(super) struct Compactions {
    asked: BTreeMap<Moment, i64>,
    acknowledged: BTreeMap<Moment, i64>,
    revisions: Vec<i64>,
}

impl Compactions {
    pub(super) fn of(history: &History) -> Self {
        let mut all = Self::default();
        let (mut asked, mut acknowledged) = (Vec::new(), Vec::new());
        for operation in &history.operations {
            if let Call::Compact(request, outcome) = &operation.call {
                asked.push((operation.asked, request.revision));
                all.revisions.push(request.revision);
                if outcome.answer().is_some() {
                    acknowledged.push((operation.answered, request.revision));
                }
            }
        }
        all.asked = rising(asked);
        all.acknowledged = rising(acknowledged);
        all.revisions.sort_unstable();
        all
    }

    /// The highest revision that the store may have been compacted at by `at`.
    pub(super) fn possible_at(&self, at: Moment) -> i64 {
        self.asked.range(..=at).next_back().map_or(0, |(_, &revision)| revision)
    }

    /// The highest revision that the store was surely compacted at before `at`.
    pub(super) fn certain_before(&self, at: Moment) -> i64 {
        self.acknowledged.range(..at).next_back().map_or(0, |(_, &revision)| revision)
    }

    /// True if anybody asked for a compaction at `revision`.
    pub(super) fn at(&self, revision: i64) -> bool {
        self.revisions.binary_search(&revision).is_ok()
    }
}

/// Each moment with the highest number up to it.
fn rising(mut numbers: Vec<(Moment, i64)>) -> BTreeMap<Moment, i64> {
    numbers.sort_unstable();
    let mut highest = 0;
    let mut rise = |(at, number): (Moment, i64)| {
        highest = highest.max(number);
        (at, highest)
    };
    numbers.into_iter().map(&mut rise).collect()
}
