//! Equal watchers, found by the key of an event.
//!
//! Watchers of the same key or range are one group: an event looks once for
//! each group that it concerns, however many watchers there are of others.

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;
use etcfs_proto::key::KeyRange;

use super::{ranges::Ranges, watcher::WatcherId};
use crate::mvcc::RevisionEvents;

/// Watchers by what they watch.
#[derive(Debug, Default)]
pub(super) struct Groups {
    /// Groups of one key.
    keys: HashMap<Bytes, u64>,
    /// Groups of ranges.
    ranges: Ranges,
    by_range: HashMap<KeyRange, u64>,
    members: HashMap<u64, BTreeSet<WatcherId>>,
    next_group: u64,
}

impl Groups {
    pub(super) fn insert(&mut self, range: &KeyRange, watcher: WatcherId) {
        let group = match self.group(range) {
            Some(group) => group,
            None => self.add(range),
        };
        self.members.entry(group).or_default().insert(watcher);
    }

    pub(super) fn remove(&mut self, range: &KeyRange, watcher: WatcherId) {
        let Some(group) = self.group(range) else { return };
        let Some(members) = self.members.get_mut(&group) else { return };
        members.remove(&watcher);
        if !members.is_empty() {
            return;
        }
        self.members.remove(&group);
        if range.is_single() {
            self.keys.remove(&range.start);
        } else {
            self.by_range.remove(range);
            self.ranges.remove(range);
        }
    }

    /// True iff some watcher watches `key`.
    pub(super) fn contains(&self, key: &[u8]) -> bool {
        let mut any = false;
        self.concerned(key, |_| any = true);
        any
    }

    pub(super) fn members(&self, group: u64) -> impl Iterator<Item = WatcherId> {
        self.members.get(&group).into_iter().flatten().copied()
    }

    /// How many watchers the matches of a revision concern, counted once for each event.
    pub(super) fn members_of(&self, found: &[(u64, usize)]) -> usize {
        found.iter().filter_map(|(group, _)| self.members.get(group)).map(BTreeSet::len).sum()
    }

    /// For each group that one of the events concerns, the places of those events, ascending.
    pub(super) fn matches(&self, events: &RevisionEvents, found: &mut Vec<(u64, usize)>) {
        found.clear();
        for (place, event) in events.events.iter().enumerate() {
            self.concerned(&event.kv.key, |group| found.push((group, place)));
        }
        if events.events.len() > 1 {
            found.sort_unstable();
        }
    }

    fn concerned(&self, key: &[u8], mut visit: impl FnMut(u64)) {
        if let Some(group) = self.keys.get(key) {
            visit(*group);
        }
        self.ranges.containing(key, visit);
    }

    fn group(&self, range: &KeyRange) -> Option<u64> {
        if range.is_single() { self.keys.get(&range.start) } else { self.by_range.get(range) }.copied()
    }

    fn add(&mut self, range: &KeyRange) -> u64 {
        self.next_group += 1;
        if range.is_single() {
            self.keys.insert(range.start.clone(), self.next_group);
        } else {
            self.by_range.insert(range.clone(), self.next_group);
            self.ranges.insert(range.clone(), self.next_group);
        }
        self.next_group
    }
}
