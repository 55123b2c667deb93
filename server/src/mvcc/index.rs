//! Every key in order, with its history; counts keys without walking them.
//!
//! The keys lie in sorted blocks of at most [`BLOCK_KEYS_MAX`], and the blocks in
//! groups of at most [`GROUP_BLOCKS_MAX`]; each knows how many live keys it has. So
//! the count that etcd's Range reports beside a limited answer adds up some hundred
//! small numbers for a million keys instead of visiting them, and a key costs
//! little beyond its bytes: a `BTreeMap` loaded in key order leaves almost half of
//! its slots empty, a block here none.

use super::{
    key_index::KeyHistory,
    revision::Stamp,
    sorted::{Keyed, Sorted},
};

/// Keys in a block. Larger ones make inserts move more, smaller ones make counts add up more.
const BLOCK_KEYS_MAX: usize = 256;

/// Slots that a full block's buffer grows by, so that little stays empty.
const BLOCK_GROWTH: usize = 32;

const GROUP_BLOCKS_MAX: usize = 128;

#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) key: Box<[u8]>,
    pub(crate) history: KeyHistory,
}

/// Where a key is, or would go. Good until the index is changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    group: usize,
    block: usize,
    slot: usize,
}

#[derive(Debug)]
struct Block {
    entries: Sorted<Entry>,
    live: u64,
}

#[derive(Debug)]
struct Group {
    blocks: Sorted<Block>,
    live: u64,
}

/// Keys in order. No block and no group is empty.
#[derive(Debug, Default)]
pub(crate) struct Index {
    groups: Sorted<Group>,
    live: u64,
}

/// What a chunk of [`Index::compact`] did.
#[derive(Debug)]
pub(crate) struct Compacted {
    pub(crate) dropped: Vec<Stamp>,
    /// Where to go on; `None` at the end.
    pub(crate) next: Option<Box<[u8]>>,
}

impl Keyed for Entry {
    fn key(&self) -> &[u8] {
        &self.key
    }
}

impl Keyed for Block {
    fn key(&self) -> &[u8] {
        self.entries.items()[0].key()
    }
}

impl Keyed for Group {
    fn key(&self) -> &[u8] {
        self.blocks.items()[0].key()
    }
}

impl Block {
    fn of(entries: Sorted<Entry>) -> Self {
        let live = live_in(entries.items());
        Self { entries, live }
    }

    /// Gives the upper part of a block that was full.
    fn insert(&mut self, slot: usize, entry: Entry) -> Option<Self> {
        let length = self.entries.len();
        if length < BLOCK_KEYS_MAX {
            self.live += u64::from(entry.history.is_live());
            add(&mut self.entries, slot, entry);
            return None;
        }
        // Keys that come in order fill block after block; only others split one.
        let middle = if slot == length { length } else { length / 2 };
        let mut upper = self.entries.split_off(middle);
        self.entries.shrink_to_fit();
        let (half, slot) =
            if slot < middle { (&mut self.entries, slot) } else { (&mut upper, slot - middle) };
        add(half, slot, entry);
        self.live = live_in(self.entries.items());
        Some(Self::of(upper))
    }
}

impl Group {
    fn of(blocks: Sorted<Block>) -> Self {
        let live = blocks.items().iter().map(|block| block.live).sum();
        Self { blocks, live }
    }

    /// Gives the upper part of a group that was full.
    fn insert(&mut self, at: Position, entry: Entry) -> Option<Self> {
        let block = at.block;
        self.live += u64::from(entry.history.is_live());
        let upper = self.blocks.item_mut(block).insert(at.slot, entry);
        if at.slot == 0 {
            self.blocks.rekey(block);
        }
        self.blocks.insert(block + 1, upper?);
        let length = self.blocks.len();
        if length <= GROUP_BLOCKS_MAX {
            return None;
        }
        let is_last = block + 2 == length;
        let upper = Self::of(self.blocks.split_off(if is_last { length - 1 } else { length / 2 }));
        self.live -= upper.live;
        Some(upper)
    }

    /// Removes an empty block, or joins a half-empty one to the block before it. True: it is gone.
    fn fold(&mut self, block: usize) -> bool {
        let length = self.blocks.items()[block].entries.len();
        let before = block
            .checked_sub(1)
            .filter(|&before| length + self.blocks.items()[before].entries.len() <= BLOCK_KEYS_MAX / 2);
        if length > 0 && before.is_none() {
            self.blocks.rekey(block);
            return false;
        }
        let folded = self.blocks.remove(block);
        if let Some(before) = before {
            let before = self.blocks.item_mut(before);
            before.entries.append(folded.entries);
            before.live += folded.live;
        }
        true
    }
}

impl Index {
    /// `Ok` with the place of `key`, or `Err` with the place to insert it at.
    pub(crate) fn find(&self, key: &[u8]) -> Result<Position, Position> {
        // What may hold it is the last that begins with no greater key.
        let Some(group) = self.groups.last_upto(key) else {
            return Err(Position::default());
        };
        let blocks = &self.groups.items()[group].blocks;
        let block = blocks.last_upto(key).expect("a group begins as its first block does");
        let slot = blocks.items()[block].entries.find(key);
        slot.map(|slot| Position { group, block, slot }).map_err(|slot| Position { group, block, slot })
    }

    pub(crate) fn at(&self, position: Position) -> &Entry {
        let Position { group, block, slot } = position;
        &self.groups.items()[group].blocks.items()[block].entries.items()[slot]
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<&KeyHistory> {
        self.find(key).ok().map(|position| &self.at(position).history)
    }

    /// Keys that exist as of the newest change.
    pub(crate) fn live(&self) -> u64 {
        self.live
    }

    /// Keys, deleted ones with a history among them.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.from(b"").count()
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
        match place {
            Ok(at) => {
                let group = self.groups.item_mut(at.group);
                let block = group.blocks.item_mut(at.block);
                let history = &mut block.entries.item_mut(at.slot).history;
                let before = history.is_live();
                history.push(stamp, created, version);
                let after = history.is_live();
                for live in [&mut block.live, &mut group.live, &mut self.live] {
                    *live = *live + u64::from(after) - u64::from(before);
                }
            }
            Err(at) => {
                self.insert(at, Entry { key: key.into(), history: KeyHistory::new(stamp, created, version) });
            }
        }
    }

    fn insert(&mut self, at: Position, entry: Entry) {
        self.live += u64::from(entry.history.is_live());
        if self.groups.items().is_empty() {
            let (mut entries, mut blocks) = (Sorted::default(), Sorted::default());
            add(&mut entries, 0, entry);
            blocks.insert(0, Block::of(entries));
            self.groups.insert(0, Group::of(blocks));
            return;
        }
        let upper = self.groups.item_mut(at.group).insert(at, entry);
        if at.block == 0 && at.slot == 0 {
            self.groups.rekey(at.group);
        }
        if let Some(upper) = upper {
            self.groups.insert(at.group + 1, upper);
        }
    }

    /// Entries from `start` on, ascending.
    pub(crate) fn from<'a>(&'a self, start: &[u8]) -> impl Iterator<Item = &'a Entry> + use<'a> {
        self.ascending(self.place(start))
    }

    fn ascending(&self, from: Position) -> impl Iterator<Item = &Entry> {
        let group = self.groups.items().get(from.group);
        let block = group.and_then(|group| group.blocks.items().get(from.block));
        let mut entries = block.map_or(&[][..], |block| &block.entries.items()[from.slot..]).iter();
        let mut blocks = group.map_or(&[][..], |group| behind(group.blocks.items(), from.block)).iter();
        let mut groups = behind(self.groups.items(), from.group).iter();
        std::iter::from_fn(move || {
            loop {
                if let Some(entry) = entries.next() {
                    return Some(entry);
                }
                match blocks.next() {
                    Some(block) => entries = block.entries.items().iter(),
                    None => blocks = groups.next()?.blocks.items().iter(),
                }
            }
        })
    }

    /// Entries below `end` (`None`: all), descending.
    pub(crate) fn below<'a>(&'a self, end: Option<&[u8]>) -> impl Iterator<Item = &'a Entry> + use<'a> {
        let to = end.map_or(self.end(), |end| self.place(end));
        let group = self.groups.items().get(to.group);
        let block = group.and_then(|group| group.blocks.items().get(to.block));
        let mut entries = block.map_or(&[][..], |block| &block.entries.items()[..to.slot]).iter();
        let mut blocks = group.map_or(&[][..], |group| &group.blocks.items()[..to.block]).iter();
        let mut groups = self.groups.items()[..to.group].iter();
        std::iter::from_fn(move || {
            loop {
                if let Some(entry) = entries.next_back() {
                    return Some(entry);
                }
                match blocks.next_back() {
                    Some(block) => entries = block.entries.items().iter(),
                    None => blocks = groups.next_back()?.blocks.items().iter(),
                }
            }
        })
    }

    /// Live keys in `[start, end)`, adding up groups and blocks.
    pub(crate) fn live_between(&self, start: &[u8], end: Option<&[u8]>) -> u64 {
        let to = end.map_or(self.end(), |end| self.place(end));
        self.live_before(to).saturating_sub(self.live_before(self.place(start)))
    }

    fn live_before(&self, at: Position) -> u64 {
        let (groups, group) = before(self.groups.items(), at.group);
        let (blocks, block) = group.map_or((&[][..], None), |group| before(group.blocks.items(), at.block));
        let entries = block.map_or(&[][..], |block| &block.entries.items()[..at.slot]);
        let groups: u64 = groups.iter().map(|group| group.live).sum();
        let blocks: u64 = blocks.iter().map(|block| block.live).sum();
        groups + blocks + live_in(entries)
    }

    /// An upper bound for the entries in `[start, end)`, deleted ones among them; cheap.
    pub(crate) fn entries_between_at_most(&self, start: &[u8], end: Option<&[u8]>) -> usize {
        let blocks_before = |at: Position| {
            let groups = self.groups.items()[..at.group].iter();
            groups.map(|group| group.blocks.len()).sum::<usize>() + at.block
        };
        let to = end.map_or(self.end(), |end| self.place(end));
        (blocks_before(to) + 1).saturating_sub(blocks_before(self.place(start))) * BLOCK_KEYS_MAX
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
        let Position { group: mut nth, mut block, .. } = self.place(start);
        let (mut seen, mut dropped) = (0, Vec::new());
        while nth < self.groups.len() && seen < visits && dropped.len() < drops {
            let group = self.groups.item_mut(nth);
            if block == group.blocks.len() {
                (nth, block) = (nth + 1, 0);
                continue;
            }
            let entries = &mut group.blocks.item_mut(block).entries;
            seen += entries.len();
            // A dropped key was deleted before, so the live counts stand.
            entries.retain_mut(|entry| !entry.history.compact(at, |stamp| dropped.push(stamp)));
            entries.items().iter().for_each(|entry| entry.history.upto(at, &mut stays));
            let is_first = block == 0;
            if !group.fold(block) {
                block += 1;
            }
            if group.blocks.items().is_empty() {
                self.groups.remove(nth);
            } else if is_first {
                self.groups.rekey(nth);
            }
        }
        let next = self.ascending(Position { group: nth, block, slot: 0 }).next();
        Compacted { dropped, next: next.map(|entry| entry.key.clone()) }
    }

    fn place(&self, key: &[u8]) -> Position {
        let (Ok(place) | Err(place)) = self.find(key);
        place
    }

    fn end(&self) -> Position {
        Position { group: self.groups.len(), ..Position::default() }
    }
}

/// Inserts where a buffer that is full grows by little.
fn add(entries: &mut Sorted<Entry>, slot: usize, entry: Entry) {
    if entries.is_full() {
        entries.reserve_exact(BLOCK_GROWTH.min(BLOCK_KEYS_MAX - entries.len()));
    }
    entries.insert(slot, entry);
}

fn live_in(entries: &[Entry]) -> u64 {
    entries.iter().filter(|entry| entry.history.is_live()).count() as u64
}

/// What lies before an item, which may be one too many, and the item.
fn before<T>(items: &[T], at: usize) -> (&[T], Option<&T>) {
    (&items[..at], items.get(at))
}

fn behind<T>(items: &[T], at: usize) -> &[T] {
    items.get(at + 1..).unwrap_or_default()
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
    fn a_key_costs_64_bytes_beside_its_own() {
        // The other eight are its head.
        assert_eq!(size_of::<Entry>(), 56);
    }

    #[test]
    fn keys_that_come_in_order_fill_their_blocks() {
        let mut pair = Pair::default();
        for number in 0..(GROUP_BLOCKS_MAX + 2) * BLOCK_KEYS_MAX {
            pair.change(format!("{number:06}").as_bytes(), true);
        }
        let blocks: Vec<_> = pair.index.groups.items().iter().map(|group| group.blocks.len()).collect();
        assert_eq!(blocks, [GROUP_BLOCKS_MAX, 2]);
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
