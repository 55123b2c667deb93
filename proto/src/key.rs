//! Keys and ranges of keys, as the etcd API spells them.
//!
//! A range is `[key, range_end)`. An empty `range_end` is the one key, and the
//! single byte 0 stands for "to the end of the key space".

use std::collections::BTreeMap;

use bytes::Bytes;

/// `range_end` that stands for "every key from `key` on".
pub const TO_END: &[u8] = b"\0";

/// A set of keys between two bounds.
///
/// `end: None` is the end of the key space. An `end` at or below `start` is an
/// empty range, which the API allows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeyRange {
    pub start: Bytes,
    pub end: Option<Bytes>,
}

impl KeyRange {
    /// The range that a request's `key` and `range_end` name.
    pub fn from_request(key: &Bytes, range_end: &Bytes) -> Self {
        let end = match range_end.as_ref() {
            [] => Some(successor(key)),
            TO_END => None,
            _ => Some(range_end.clone()),
        };
        // `\0` names every key, the empty one too, which can't exist.
        Self { start: key.clone(), end }
    }

    /// Every key that starts with `prefix`; all keys for the empty prefix.
    pub fn prefix(prefix: &Bytes) -> Self {
        let end = prefix_end(prefix);
        Self { start: prefix.clone(), end: (end != TO_END).then_some(end) }
    }

    pub fn contains(&self, key: &[u8]) -> bool {
        self.start.as_ref() <= key && self.end.as_ref().is_none_or(|end| key < end.as_ref())
    }

    pub fn is_empty(&self) -> bool {
        self.end.as_ref().is_some_and(|end| *end <= self.start)
    }

    /// The keys that are in both, if there is room for any.
    pub fn and(&self, other: &Self) -> Option<Self> {
        let start = self.start.clone().max(other.start.clone());
        let end = match (&self.end, &other.end) {
            (Some(one), Some(two)) => Some(one.min(two).clone()),
            (one, two) => one.clone().or_else(|| two.clone()),
        };
        Some(Self { start, end }).filter(|both| !both.is_empty())
    }

    /// This key alone.
    pub fn single(key: &Bytes) -> Self {
        Self { start: key.clone(), end: Some(successor(key)) }
    }

    /// True iff the range was, or could have been, given as one key.
    pub fn is_single(&self) -> bool {
        self.end.as_ref().is_some_and(|end| {
            end.len() == self.start.len() + 1 && end.starts_with(&self.start) && end.ends_with(&[0])
        })
    }
}

/// Keys of any number of ranges; none touches another, so that a lookup is one
/// step however many were put in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeySet(BTreeMap<Bytes, Option<Bytes>>);

impl KeySet {
    /// Adds the keys of a range; an empty one adds nothing.
    pub fn insert(&mut self, range: &KeyRange) {
        if range.is_empty() {
            return;
        }
        let (mut start, mut end) = (range.start.clone(), range.end.clone());
        // Swallows every range that touches this one, from the last back.
        while let Some((other, other_end)) = self.last_from(end.as_ref()) {
            if other_end.as_ref().is_some_and(|other_end| *other_end < start) {
                break;
            }
            self.0.remove(&other);
            start = start.min(other);
            end = end.zip(other_end).map(|(one, two)| one.max(two));
        }
        self.0.insert(start, end);
    }

    /// Adds all keys of another set.
    pub fn merge(&mut self, other: Self) {
        for (start, end) in other.0 {
            self.insert(&KeyRange { start, end });
        }
    }

    pub fn contains(&self, key: &Bytes) -> bool {
        let last = self.0.range::<Bytes, _>(..=key).next_back();
        last.is_some_and(|(_, end)| end.as_ref().is_none_or(|end| key < end))
    }

    /// True iff every key that the range could name is in the set. An empty
    /// range names none, but who asks for one speaks of its first key.
    pub fn covers(&self, range: &KeyRange) -> bool {
        if range.is_empty() {
            return self.contains(&range.start);
        }
        let last = self.0.range::<Bytes, _>(..=&range.start).next_back();
        last.is_some_and(|(_, end)| match (end, &range.end) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(end), Some(asked)) => asked <= end,
        })
    }

    /// Its ranges, in order.
    pub fn ranges(&self) -> impl Iterator<Item = KeyRange> {
        self.0.iter().map(|(start, end)| KeyRange { start: start.clone(), end: end.clone() })
    }

    /// The parts of a range that are in the set, in order.
    pub fn within(&self, range: &KeyRange) -> Vec<KeyRange> {
        self.ranges().filter_map(|part| part.and(range)).collect()
    }

    /// The keys that are not in another set.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        let mut rest = Self::default();
        for range in self.ranges() {
            let mut start = Some(range.start.clone());
            for cut in other.within(&range) {
                if let Some(start) = start {
                    rest.insert(&KeyRange { start, end: Some(cut.start) });
                }
                start = cut.end;
            }
            if let Some(start) = start {
                rest.insert(&KeyRange { start, end: range.end });
            }
        }
        rest
    }

    /// The last range that starts at or before `bound`.
    fn last_from(&self, bound: Option<&Bytes>) -> Option<(Bytes, Option<Bytes>)> {
        let last = match bound {
            Some(bound) => self.0.range::<Bytes, _>(..=bound).next_back(),
            None => self.0.last_key_value(),
        };
        last.map(|(start, end)| (start.clone(), end.clone()))
    }
}

/// The key right after `key`: nothing sorts between the two.
pub fn successor(key: &[u8]) -> Bytes {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    next.into()
}

/// The `range_end` for all keys that start with `prefix`: the last byte below
/// 0xff raised by one, what follows it dropped; [`TO_END`] where there is none.
pub fn prefix_end(prefix: &[u8]) -> Bytes {
    match prefix.iter().rposition(|&byte| byte < 0xff) {
        Some(at) => {
            let mut end = prefix[..=at].to_vec();
            end[at] += 1;
            end.into()
        }
        None => Bytes::from_static(TO_END),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn prefix_end_drops_trailing_ff() {
        assert_eq!(prefix_end(b"a"), "b");
        assert_eq!(prefix_end(b"a\xff\xff"), "b");
        assert_eq!(prefix_end(b"\xff"), Bytes::from_static(TO_END));
        assert_eq!(prefix_end(b""), Bytes::from_static(TO_END));
    }

    #[test]
    fn one_key_is_single_and_its_children_are_not() {
        let one = KeyRange::from_request(&"a".into(), &Bytes::new());
        assert!(one.is_single() && one.contains(b"a") && !one.contains(b"a\0"));
        assert!(!KeyRange::prefix(&"a".into()).is_single());
        assert!(KeyRange::from_request(&"b".into(), &"a".into()).is_empty());
        assert!(KeyRange::from_request(&"b".into(), &Bytes::from_static(TO_END)).contains(b"\xff\xff"));
    }

    fn range(start: u8, end: u8) -> KeyRange {
        KeyRange { start: vec![start].into(), end: (end < 9).then(|| vec![end].into()) }
    }

    proptest! {
        /// Against keys one by one; 9 stands for the end of the key space.
        #[test]
        fn a_set_holds_the_keys_put_in_and_covers_what_lies_within(
            ranges in prop::collection::vec((0_u8..9, 0_u8..10), 0..6), asked in (0_u8..9, 0_u8..10)
        ) {
            let mut set = KeySet::default();
            ranges.iter().for_each(|&(start, end)| set.insert(&range(start, end)));
            let holds = |key: u8| ranges.iter().any(|&(start, end)| (start..end).contains(&key));
            for key in 0..9 {
                prop_assert_eq!(set.contains(&vec![key].into()), holds(key));
            }
            let ends: Vec<_> = set.0.iter().collect();
            prop_assert!(ends.windows(2).all(|two| two[0].1.as_ref().is_some_and(|end| end < two[1].0)));
            let (start, end) = asked;
            let mut within = KeySet::default();
            set.within(&range(start, end)).iter().for_each(|part| within.insert(part));
            let mut rest = KeySet::default();
            rest.insert(&range(start, end));
            let rest = rest.without(&set);
            for key in 0..9 {
                let inside = (start..end).contains(&key);
                prop_assert_eq!(within.contains(&vec![key].into()), inside && holds(key));
                prop_assert_eq!(rest.contains(&vec![key].into()), inside && !holds(key));
            }
            if start < end {
                prop_assert_eq!(set.covers(&range(start, end)), (start..end).all(holds));
            }
        }

        #[test]
        fn a_prefix_range_holds_exactly_the_keys_with_that_prefix(prefix: Vec<u8>, key: Vec<u8>, tail: Vec<u8>) {
            let range = KeyRange::prefix(&prefix.clone().into());
            prop_assert_eq!(range.contains(&key), key.starts_with(&prefix));
            prop_assert!(range.contains(&[prefix, tail].concat()));
        }
    }
}
