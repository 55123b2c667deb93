//! Ranges that contain a key, found without looking at those that don't.
//!
//! A treap: ordered by range, balanced by random priorities, each node knowing
//! the greatest end below it. A search for a key goes only where a range may
//! reach beyond it.

use bytes::Bytes;
use etcfs_proto::key::KeyRange;

/// A set of ranges, each with a number of its owner's.
#[derive(Debug, Default)]
pub(super) struct Ranges {
    root: Link,
    /// State of the generator of priorities.
    seed: u64,
}

type Link = Option<Box<Node>>;

#[derive(Debug)]
struct Node {
    range: KeyRange,
    group: u64,
    priority: u64,
    /// Greatest end of this node and those below; `None` is the end of the key space.
    reach: Option<Bytes>,
    left: Link,
    right: Link,
}

impl Ranges {
    /// Adds a range that is not in the set.
    pub(super) fn insert(&mut self, range: KeyRange, group: u64) {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let reach = range.end.clone();
        let node = Node { range, group, priority: mix(self.seed), reach, left: None, right: None };
        self.root = Some(insert(self.root.take(), Box::new(node)));
    }

    pub(super) fn remove(&mut self, range: &KeyRange) {
        self.root = remove(self.root.take(), range);
    }

    /// Calls `visit` with the owner's number of each range that contains `key`.
    pub(super) fn containing(&self, key: &[u8], mut visit: impl FnMut(u64)) {
        containing(self.root.as_deref(), key, &mut visit);
    }
}

fn containing(node: Option<&Node>, key: &[u8], visit: &mut impl FnMut(u64)) {
    let Some(node) = node else { return };
    if node.reach.as_ref().is_some_and(|reach| reach.as_ref() <= key) {
        return;
    }
    containing(node.left.as_deref(), key, visit);
    if node.range.start.as_ref() > key {
        return;
    }
    if node.range.contains(key) {
        visit(node.group);
    }
    containing(node.right.as_deref(), key, visit);
}

fn insert(tree: Link, mut node: Box<Node>) -> Box<Node> {
    let Some(mut top) = tree else { return node };
    if node.priority > top.priority {
        (node.left, node.right) = split(Some(top), &node.range);
        node.update();
        return node;
    }
    if order(&node.range) < order(&top.range) {
        top.left = Some(insert(top.left.take(), node));
    } else {
        top.right = Some(insert(top.right.take(), node));
    }
    top.update();
    top
}

fn remove(tree: Link, range: &KeyRange) -> Link {
    let mut top = tree?;
    match order(range).cmp(&order(&top.range)) {
        std::cmp::Ordering::Less => top.left = remove(top.left.take(), range),
        std::cmp::Ordering::Greater => top.right = remove(top.right.take(), range),
        std::cmp::Ordering::Equal => return merge(top.left.take(), top.right.take()),
    }
    top.update();
    Some(top)
}

/// Parts below and above `range`.
fn split(tree: Link, range: &KeyRange) -> (Link, Link) {
    let Some(mut top) = tree else { return (None, None) };
    if order(&top.range) < order(range) {
        let (below, above) = split(top.right.take(), range);
        top.right = below;
        top.update();
        (Some(top), above)
    } else {
        let (below, above) = split(top.left.take(), range);
        top.left = above;
        top.update();
        (below, Some(top))
    }
}

/// Joins two trees of which one lies wholly below the other.
fn merge(below: Link, above: Link) -> Link {
    match (below, above) {
        (None, one) | (one, None) => one,
        (Some(mut below), Some(mut above)) => Some(if below.priority > above.priority {
            below.right = merge(below.right.take(), Some(above));
            below.update();
            below
        } else {
            above.left = merge(Some(below), above.left.take());
            above.update();
            above
        }),
    }
}

impl Node {
    fn update(&mut self) {
        let mut reach = &self.range.end;
        for child in [&self.left, &self.right].into_iter().flatten() {
            if beyond(&child.reach, reach) {
                reach = &child.reach;
            }
        }
        if *reach != self.reach {
            self.reach = reach.clone();
        }
    }
}

fn beyond(one: &Option<Bytes>, other: &Option<Bytes>) -> bool {
    match (one, other) {
        (_, None) => false,
        (None, Some(_)) => true,
        (Some(one), Some(other)) => one > other,
    }
}

/// Ranges sort by start, then end, the open end last.
fn order(range: &KeyRange) -> (&Bytes, bool, Option<&Bytes>) {
    (&range.start, range.end.is_none(), range.end.as_ref())
}

/// Spreads a counter over all bits (splitmix64).
fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_ranges_found_are_those_that_contain_the_key(
            changes in prop::collection::vec((0u8..30, prop::option::of(0u8..30), prop::bool::weighted(0.7)), 0..120),
        ) {
            let mut ranges = Ranges::default();
            let mut model: BTreeMap<(u8, Option<u8>), u64> = BTreeMap::new();
            for (number, (start, end, add)) in (0..).zip(changes) {
                let bytes = |byte: u8| Bytes::from(vec![byte]);
                let range = KeyRange { start: bytes(start), end: end.map(bytes) };
                if add && !model.contains_key(&(start, end)) {
                    ranges.insert(range, number);
                    model.insert((start, end), number);
                } else if !add {
                    ranges.remove(&range);
                    model.remove(&(start, end));
                }
            }
            for key in 0..31u8 {
                let mut found = Vec::new();
                ranges.containing(&[key], |group| found.push(group));
                found.sort_unstable();
                let mut expected: Vec<u64> = model
                    .iter()
                    .filter(|((start, end), _)| *start <= key && end.is_none_or(|end| key < end))
                    .map(|(_, number)| *number)
                    .collect();
                expected.sort_unstable();
                prop_assert_eq!(found, expected);
            }
        }
    }
}
