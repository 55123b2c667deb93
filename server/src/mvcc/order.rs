//! Answers in an order that is not that of keys.
//!
//! The walk goes in the order of keys all the same, and each pair gets its rank from
//! what the index knows of it; only an order by values reads rows for that. With a
//! limit no more is held at a time than about twice as many pairs as are wanted.

use std::cmp::Ordering;

use etcfs_proto::etcdserverpb::range_request::SortTarget;

use super::{
    ReadError, View,
    key_index::Facts,
    read::{Bounds, Found, Plan, WALK_CHUNK},
    row,
};

/// By what, and whether from the highest rank down.
pub(super) type Sort = (SortTarget, bool);

impl View<'_> {
    /// What `keep` makes of each pair that the answer may be made of, in the answer's order, and how
    /// many keys the range has.
    pub(super) fn sorted<P>(
        &self,
        bounds: Bounds<'_>,
        plan: &Plan,
        (target, descending): Sort,
        keep: impl Fn(Found) -> P,
    ) -> Result<(Vec<P>, i64), ReadError> {
        let number: fn(&Facts) -> i64 = match target {
            SortTarget::Version => |facts: &Facts| facts.version,
            SortTarget::Create => |facts: &Facts| facts.created,
            SortTarget::Mod | SortTarget::Key => |facts: &Facts| facts.revision.main,
            SortTarget::Value => return self.sorted_by_value(bounds, plan, descending, keep),
        };
        let mut first = First::new(plan.wanted(), descending);
        let count = self.take(bounds, plan, |pair| {
            first.push(number(&pair.facts), keep(pair));
            Ok(())
        })?;
        Ok((first.sorted(), count))
    }

    fn sorted_by_value<P>(
        &self,
        bounds: Bounds<'_>,
        plan: &Plan,
        descending: bool,
        keep: impl Fn(Found) -> P,
    ) -> Result<(Vec<P>, i64), ReadError> {
        let mut first = First::new(plan.wanted(), descending);
        let mut unread = Vec::new();
        let mut rank = |unread: &mut Vec<Found>| -> Result<(), ReadError> {
            // What a short range reads is worth its place in the cache.
            let is_short = first.came == 0 && unread.len() < WALK_CHUNK;
            self.fill_keeping(unread, is_short)?;
            for pair in unread.drain(..) {
                let value = pair.row.as_ref().map(|row| row::decode(row).value);
                first.push(value, keep(pair));
            }
            Ok(())
        };
        let count = self.take(bounds, plan, |pair| {
            unread.push(pair);
            if unread.len() == WALK_CHUNK { rank(&mut unread) } else { Ok(()) }
        })?;
        rank(&mut unread)?;
        Ok((first.sorted(), count))
    }
}

/// What comes first by its rank and, among equals, by when it came; or last, if it descends.
#[derive(Debug)]
struct First<R, P> {
    /// None for all.
    wanted: Option<usize>,
    descending: bool,
    came: usize,
    held: Vec<(R, usize, P)>,
}

impl<R: Ord, P> First<R, P> {
    fn new(wanted: Option<usize>, descending: bool) -> Self {
        Self { wanted, descending, came: 0, held: Vec::new() }
    }

    fn push(&mut self, rank: R, pair: P) {
        if self.wanted.is_some_and(|wanted| self.held.len() >= wanted.saturating_mul(2).max(WALK_CHUNK)) {
            self.cut();
        }
        self.held.push((rank, self.came, pair));
        self.came += 1;
    }

    /// Lets go of what is not among the first.
    fn cut(&mut self) {
        let Some(wanted) = self.wanted.filter(|&wanted| wanted < self.held.len()) else { return };
        let descending = self.descending;
        self.held.select_nth_unstable_by(wanted, |a, b| order(a, b, descending));
        self.held.truncate(wanted);
    }

    fn sorted(mut self) -> Vec<P> {
        self.cut();
        self.held.sort_unstable_by(|a, b| order(a, b, self.descending));
        self.held.into_iter().map(|(.., pair)| pair).collect()
    }
}

fn order<R: Ord, P>(a: &(R, usize, P), b: &(R, usize, P), descending: bool) -> Ordering {
    let order = (&a.0, a.1).cmp(&(&b.0, b.1));
    if descending { order.reverse() } else { order }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_first_are_those_of_all_that_is_sorted(
            ranks in prop::collection::vec(0..50_i64, 0..5000),
            wanted in prop::option::of(1..1500_usize),
            descending: bool,
        ) {
            let mut first = First::new(wanted, descending);
            for (nth, rank) in ranks.iter().enumerate() {
                first.push(*rank, nth);
                let most = wanted.map_or(usize::MAX, |wanted| WALK_CHUNK.max(2 * wanted));
                prop_assert!(first.held.len() <= most);
            }
            let mut expected: Vec<usize> = (0..ranks.len()).collect();
            expected.sort_by_key(|&nth| ranks[nth]);
            if descending {
                expected.reverse();
            }
            expected.truncate(wanted.unwrap_or(usize::MAX));
            prop_assert_eq!(first.sorted(), expected);
        }
    }
}
