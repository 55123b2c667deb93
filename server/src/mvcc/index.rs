//! Every key in order, with its history; counts keys without walking them.
//!
//! The keys lie in sorted blocks of at most [`BLOCK_KEYS_MAX`], and for each
//! block the number of its live keys stands in an array of its own. So the
//! count that etcd's Range reports beside a limited answer adds up some
//! thousand small numbers for a million keys instead of visiting them, and a
//! key costs little beyond its bytes: a `BTreeMap` loaded in key order leaves
//! almost half of its slots empty, a block here none.
//!
//! Splitting a block moves the handles of the blocks behind it; with millions
//! of keys that is some hundred kilobytes every hundredth insert or so.

use super::{key_index::KeyHistory, revision::Stamp};

/// Keys in a block. Larger ones make inserts move more, smaller ones make counts add up more.
const BLOCK_KEYS_MAX: usize = 256;

/// Slots that a full block's buffer grows by, so that little stays empty.
const BLOCK_GROWTH: usize = 32;

#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) key: Box<[u8]>,
    pub(crate) history: KeyHistory,
}

/// Where a key is, or would go. Good until the index is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    block: usize,
    slot: usize,
}

/// Keys in order. No block is empty.
#[derive(Debug, Default)]
pub(crate) struct Index {
    blocks: Vec<Vec<Entry>>,
    /// Live keys of each block.
    live: Vec<u32>,
    total_live: u64,
}

/// What a chunk of [`Index::compact`] did.
#[derive(Debug)]
pub(crate) struct Compacted {
    pub(crate) dropped: Vec<Stamp>,
    /// Where to go on; `None` at the end.
    pub(crate) next: Option<Box<[u8]>>,
}

impl Index {
    /// `Ok` with the place of `key`, or `Err` with the place to insert it at.
    pub(crate) fn find(&self, key: &[u8]) -> Result<Position, Position> {
        // The block that may hold it is the last whose first key is not greater.
        let after = self.blocks.partition_point(|block| block[0].key.as_ref() <= key);
        let Some(block) = after.checked_sub(1) else {
            return Err(Position { block: 0, slot: 0 });
        };
        match self.blocks[block].binary_search_by(|entry| entry.key.as_ref().cmp(key)) {
            Ok(slot) => Ok(Position { block, slot }),
            Err(slot) => Err(Position { block, slot }),
        }
    }

    pub(crate) fn at(&self, position: Position) -> &Entry {
        &self.blocks[position.block][position.slot]
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<&KeyHistory> {
        self.find(key).ok().map(|position| &self.at(position).history)
    }

    /// Keys that exist as of the newest change.
    pub(crate) fn live(&self) -> u64 {
        self.total_live
    }

    /// Keys, deleted ones with a history among them.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.blocks.iter().map(Vec::len).sum()
    }

    /// Adds the newest change of a key, whose place `find` has just given.
    pub(crate) fn push(
        &mut self,
        place: Result<Position, Position>,
        key: &[u8],
        stamp: Stamp,
        created: i64,
        version: i64,
    ) {
        let (block, before) = match place {
            Ok(at) => {
                let history = &mut self.blocks[at.block][at.slot].history;
                let before = history.is_live();
                history.push(stamp, created, version);
                (at.block, before)
            }
            Err(at) => {
                let entry = Entry { key: key.into(), history: KeyHistory::new(stamp, created, version) };
                (self.insert(at, entry), false)
            }
        };
        self.count(block, before, !stamp.is_tombstone());
    }

    fn insert(&mut self, at: Position, entry: Entry) -> usize {
        let Position { mut block, mut slot } = at;
        if self.blocks.is_empty() {
            self.blocks.push(Vec::new());
            self.live.push(0);
        }
        if self.blocks[block].len() == BLOCK_KEYS_MAX {
            // Keys that come in order fill block after block; only others split one.
            let middle = if slot == BLOCK_KEYS_MAX { slot } else { BLOCK_KEYS_MAX / 2 };
            let upper = self.blocks[block].split_off(middle);
            self.blocks[block].shrink_to_fit();
            let live = live_in(&upper);
            self.live[block] -= live;
            self.blocks.insert(block + 1, upper);
            self.live.insert(block + 1, live);
            if slot >= middle {
                (block, slot) = (block + 1, slot - middle);
            }
        }
        let entries = &mut self.blocks[block];
        if entries.len() == entries.capacity() {
            entries.reserve_exact(BLOCK_GROWTH.min(BLOCK_KEYS_MAX - entries.len()));
        }
        entries.insert(slot, entry);
        block
    }

    fn count(&mut self, block: usize, before: bool, after: bool) {
        match (before, after) {
            (false, true) => {
                self.live[block] += 1;
                self.total_live += 1;
            }
            (true, false) => {
                self.live[block] -= 1;
                self.total_live -= 1;
            }
            (true, true) | (false, false) => {}
        }
    }

    /// Entries from `start` on, ascending.
    pub(crate) fn from<'a>(&'a self, start: &[u8]) -> impl Iterator<Item = &'a Entry> + use<'a> {
        let Position { block, slot } = self.place(start);
        let rest = self.blocks.get(block).map_or(&[][..], |entries| &entries[slot..]);
        rest.iter().chain(self.blocks.get(block + 1..).unwrap_or_default().iter().flatten())
    }

    /// Entries below `end` (`None`: all), descending.
    pub(crate) fn below<'a>(&'a self, end: Option<&[u8]>) -> impl Iterator<Item = &'a Entry> + use<'a> {
        let Position { block, slot } = end.map_or(self.end(), |end| self.place(end));
        let head = self.blocks.get(block).map_or(&[][..], |entries| &entries[..slot]);
        head.iter().rev().chain(self.blocks[..block].iter().rev().flat_map(|entries| entries.iter().rev()))
    }

    /// Live keys in `[start, end)`, adding up blocks.
    pub(crate) fn live_between(&self, start: &[u8], end: Option<&[u8]>) -> u64 {
        let from = self.place(start);
        let to = end.map_or(self.end(), |end| self.place(end));
        if from >= to {
            return 0;
        }
        let part = |block: usize, slots: std::ops::Range<usize>| {
            self.blocks.get(block).map_or(0, |entries| u64::from(live_in(&entries[slots])))
        };
        if from.block == to.block {
            return part(from.block, from.slot..to.slot);
        }
        let whole: u64 = self.live[from.block + 1..to.block].iter().map(|&live| u64::from(live)).sum();
        part(from.block, from.slot..self.blocks[from.block].len()) + whole + part(to.block, 0..to.slot)
    }

    /// An upper bound for the entries in `[start, end)`, deleted ones among them; cheap.
    pub(crate) fn entries_between_at_most(&self, start: &[u8], end: Option<&[u8]>) -> usize {
        let from = self.place(start);
        let to = end.map_or(self.end(), |end| self.place(end));
        (to.block + 1).saturating_sub(from.block) * BLOCK_KEYS_MAX
    }

    /// Drops what a compaction at `at` drops, from `start` on, until about `visits` entries are
    /// seen or `drops` stamps dropped. Tells the revisions up to `at` that stay, an entry's perhaps more than once.
    pub(crate) fn compact(
        &mut self,
        start: &[u8],
        at: i64,
        visits: usize,
        drops: usize,
        mut stays: impl FnMut(i64),
    ) -> Compacted {
        let mut block = self.place(start).block;
        let (mut seen, mut dropped) = (0, Vec::new());
        while block < self.blocks.len() && seen < visits && dropped.len() < drops {
            let entries = &mut self.blocks[block];
            seen += entries.len();
            // A dropped key was deleted before, so the live counts stand.
            entries.retain_mut(|entry| !entry.history.compact(at, |stamp| dropped.push(stamp)));
            entries.iter().for_each(|entry| entry.history.upto(at, &mut stays));
            if !self.fold(block) {
                block += 1;
            }
        }
        let next = self.blocks.get(block).map(|entries| entries[0].key.clone());
        Compacted { dropped, next }
    }

    /// Removes an empty block, or joins a half-empty one to the block before it. True: it is gone.
    fn fold(&mut self, block: usize) -> bool {
        let length = self.blocks[block].len();
        let joins = block > 0 && self.blocks[block - 1].len() + length <= BLOCK_KEYS_MAX / 2;
        if length > 0 && !joins {
            return false;
        }
        let entries = self.blocks.remove(block);
        let live = self.live.remove(block);
        if length > 0 {
            self.blocks[block - 1].extend(entries);
            self.live[block - 1] += live;
        }
        true
    }

    fn place(&self, key: &[u8]) -> Position {
        let (Ok(place) | Err(place)) = self.find(key);
        place
    }

    fn end(&self) -> Position {
        Position { block: self.blocks.len(), slot: 0 }
    }
}

fn live_in(entries: &[Entry]) -> u32 {
    let live = entries.iter().filter(|entry| entry.history.is_live()).count();
    u32::try_from(live).expect("a block is small")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::mvcc::Revision;

    /// Index and reference: key -> is live.
    #[derive(Default)]
    struct Pair {
        index: Index,
        model: BTreeMap<Vec<u8>, bool>,
        main: i64,
    }

    impl Pair {
        fn change(&mut self, key: &[u8], put: bool) {
            self.main += 1;
            let revision = Revision { main: self.main, sub: 0 };
            let place = self.index.find(key);
            let stamp = if put { Stamp::put(revision, 1, false) } else { Stamp::tombstone(revision, 1) };
            self.index.push(place, key, stamp, self.main, i64::from(put));
            self.model.insert(key.to_vec(), put);
        }

        fn check(&self, start: &[u8], end: Option<&[u8]>) {
            let within = |key: &[u8]| start <= key && end.is_none_or(|end| key < end);
            let expected: Vec<&[u8]> =
                self.model.keys().map(Vec::as_slice).filter(|key| within(key)).collect();
            let up: Vec<&[u8]> = self
                .index
                .from(start)
                .map(|entry| entry.key.as_ref())
                .take_while(|key| end.is_none_or(|end| *key < end))
                .collect();
            assert_eq!(up, expected);
            let mut down: Vec<&[u8]> = self
                .index
                .below(end)
                .map(|entry| entry.key.as_ref())
                .take_while(|key| start <= *key)
                .collect();
            down.reverse();
            if end.is_none_or(|end| start <= end) {
                assert_eq!(down, expected);
            }
            let live = self.model.iter().filter(|(key, live)| **live && within(key)).count();
            assert_eq!(self.index.live_between(start, end), live as u64);
            assert_eq!(self.index.live(), self.model.values().filter(|live| **live).count() as u64);
            assert_eq!(self.index.len(), self.model.len());
        }

        fn compact(&mut self, drops: usize) {
            let at = self.main + 1;
            let mut start: Box<[u8]> = Box::default();
            loop {
                let done = self.index.compact(&start, at, usize::MAX, drops, |_| ());
                match done.next {
                    Some(next) => start = next,
                    None => break,
                }
            }
            self.model.retain(|_, live| *live);
        }
    }

    #[test]
    fn a_key_costs_56_bytes_beside_its_own() {
        assert_eq!(size_of::<Entry>(), 56);
    }

    #[test]
    fn keys_that_come_in_order_fill_their_blocks() {
        let mut pair = Pair::default();
        for number in 0..10 * BLOCK_KEYS_MAX {
            pair.change(format!("{number:06}").as_bytes(), true);
        }
        assert_eq!(pair.index.blocks.len(), 10);
        pair.check(b"000100", Some(b"001900"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn the_index_is_an_ordered_map_that_counts(
            changes in prop::collection::vec((0u16..2000, prop::bool::weighted(0.7)), 0..3000),
            bounds in prop::collection::vec((0u16..2000, prop::option::of(0u16..2000)), 1..20),
            drops in 1usize..400,
        ) {
            let mut pair = Pair::default();
            for (key, put) in changes {
                pair.change(&key.to_be_bytes(), put);
            }
            let check = |pair: &Pair| for (start, end) in &bounds {
                pair.check(&start.to_be_bytes(), end.map(u16::to_be_bytes).as_ref().map(|end| &end[..]));
            };
            check(&pair);
            pair.compact(drops);
            check(&pair);
            for key in 0..500u16 {
                pair.change(&(key * 3).to_be_bytes(), key % 5 != 0);
            }
            check(&pair);
        }
    }
}
