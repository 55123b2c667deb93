//! A list of keyed items in order, in which a search reads few lines of memory.
//!
//! What all keys begin with is told once. Of each the eight bytes behind that, its head, lie beside each other: a
//! search compares numbers there and looks at one key, whereas each step of one among keys waits for memory twice.

/// What has a key.
pub(super) trait Keyed {
    fn key(&self) -> &[u8];
}

/// Items whose keys ascend.
#[derive(Debug)]
pub(super) struct Sorted<T> {
    /// All keys begin with it.
    prefix: Box<[u8]>,
    /// The head of each key.
    heads: Vec<u64>,
    items: Vec<T>,
}

impl<T> Default for Sorted<T> {
    fn default() -> Self {
        Self { prefix: Box::default(), heads: Vec::new(), items: Vec::new() }
    }
}

impl<T> Sorted<T> {
    pub(super) fn items(&self) -> &[T] {
        &self.items
    }

    /// An item; [`Self::rekey`] must follow if its key becomes another.
    pub(super) fn item_mut(&mut self, at: usize) -> &mut T {
        &mut self.items[at]
    }

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    /// Makes room for `more` items and no others.
    pub(super) fn reserve_exact(&mut self, more: usize) {
        self.heads.reserve_exact(more);
        self.items.reserve_exact(more);
    }

    pub(super) fn is_full(&self) -> bool {
        self.items.len() == self.items.capacity()
    }

    pub(super) fn shrink_to_fit(&mut self) {
        self.heads.shrink_to_fit();
        self.items.shrink_to_fit();
    }

    pub(super) fn remove(&mut self, at: usize) -> T {
        self.heads.remove(at);
        self.items.remove(at)
    }

    /// Keeps the items for which `keep` says so; it must leave their keys as they are.
    pub(super) fn retain_mut(&mut self, mut keep: impl FnMut(&mut T) -> bool) {
        let mut heads = self.heads.iter().copied();
        let mut kept = Vec::with_capacity(self.heads.len());
        self.items.retain_mut(|item| {
            let head = heads.next();
            let keep = keep(item);
            kept.extend(head.filter(|_| keep));
            keep
        });
        if kept.len() < self.heads.len() {
            self.heads = kept;
        }
    }
}

impl<T: Keyed> Sorted<T> {
    /// `Ok` with the place of `key`, or `Err` with the place to insert it at.
    pub(super) fn find(&self, key: &[u8]) -> Result<usize, usize> {
        let Some(rest) = key.strip_prefix(&*self.prefix) else {
            return Err(if key < &*self.prefix { 0 } else { self.len() });
        };
        let head = head(rest);
        let first = self.heads.partition_point(|&other| other < head);
        let alike = self.heads[first..].iter().take_while(|&&other| other == head).count();
        let found = self.items[first..first + alike].binary_search_by(|item| item.key().cmp(key));
        found.map(|at| first + at).map_err(|at| first + at)
    }

    /// The last item whose key is not greater; `None` if all are.
    pub(super) fn last_upto(&self, key: &[u8]) -> Option<usize> {
        match self.find(key) {
            Ok(at) => Some(at),
            Err(after) => after.checked_sub(1),
        }
    }

    pub(super) fn insert(&mut self, at: usize, item: T) {
        if self.items.is_empty() {
            self.prefix = item.key().into();
        }
        self.shorten(common(&self.prefix, item.key()));
        self.heads.insert(at, head(&item.key()[self.prefix.len()..]));
        self.items.insert(at, item);
    }

    /// Notes that an item's key is another than before, in the same place.
    pub(super) fn rekey(&mut self, at: usize) {
        self.shorten(common(&self.prefix, self.items[at].key()));
        self.heads[at] = head(&self.items[at].key()[self.prefix.len()..]);
    }

    /// Takes away the items from `at` on.
    pub(super) fn split_off(&mut self, at: usize) -> Self {
        let (heads, items) = (self.heads.split_off(at), self.items.split_off(at));
        let mut rest = Self { prefix: self.prefix.clone(), heads, items };
        self.lengthen();
        rest.lengthen();
        rest
    }

    /// Adds items whose keys are greater than all here.
    pub(super) fn append(&mut self, items: Self) {
        for item in items.items {
            self.insert(self.len(), item);
        }
    }

    /// Has the prefix be no longer than that.
    fn shorten(&mut self, shared: usize) {
        if shared < self.prefix.len() {
            self.prefix = self.prefix[..shared].into();
            self.heads = self.heads_behind(shared);
        }
    }

    /// Has the prefix be all that the keys begin with.
    fn lengthen(&mut self) {
        let (Some(first), Some(last)) = (self.items.first(), self.items.last()) else { return };
        let shared = common(first.key(), last.key());
        if shared > self.prefix.len() {
            self.prefix = first.key()[..shared].into();
            self.heads = self.heads_behind(shared);
        }
    }

    fn heads_behind(&self, prefix: usize) -> Vec<u64> {
        let mut heads = Vec::with_capacity(self.items.capacity());
        heads.extend(self.items.iter().map(|item| head(&item.key()[prefix..])));
        heads
    }
}

/// The first eight bytes as a number: keys whose numbers differ compare as these do.
fn head(rest: &[u8]) -> u64 {
    let bytes = rest.first_chunk().copied().unwrap_or_else(|| {
        let mut bytes = [0; 8];
        bytes[..rest.len()].copy_from_slice(rest);
        bytes
    });
    u64::from_be_bytes(bytes)
}

/// The length of what both begin with.
fn common(one: &[u8], other: &[u8]) -> usize {
    one.iter().zip(other).take_while(|(one, other)| one == other).count()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    impl Keyed for Vec<u8> {
        fn key(&self) -> &[u8] {
            self
        }
    }

    /// Keys that share much, are each other's beginning, end in zeroes, or have nothing in common.
    fn key() -> impl Strategy<Value = Vec<u8>> {
        let parts =
            prop::sample::select(vec!["/registry/pods/", "/registry/", "a", "aaaaaaaa", "\0", "\u{7f}"]);
        prop::collection::vec(parts, 0..5).prop_map(|parts| parts.concat().into_bytes())
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(Vec<u8>),
        Remove(usize),
        /// Drops each of so many.
        Retain(usize),
        /// Takes the end away, and adds it again.
        Split(usize),
        /// Gives the first item a smaller key.
        Rekey,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => key().prop_map(Step::Insert),
            1 => (0..50_usize).prop_map(Step::Remove),
            1 => (2..5_usize).prop_map(Step::Retain),
            1 => (0..50_usize).prop_map(Step::Split),
            1 => Just(Step::Rekey),
        ]
    }

    proptest! {
        #[test]
        fn a_sorted_list_finds_what_a_set_has(
            steps in prop::collection::vec(step(), 0..80),
            asked in prop::collection::vec(key(), 0..20),
        ) {
            let (mut sorted, mut model) = (Sorted::default(), BTreeSet::new());
            for step in steps {
                let length = model.len();
                match step {
                    Step::Insert(key) => {
                        if let Err(at) = sorted.find(&key) {
                            sorted.insert(at, key.clone());
                        }
                        model.insert(key);
                    }
                    Step::Remove(at) if at < length => {
                        model.remove(&sorted.remove(at));
                    }
                    Step::Retain(every) => {
                        let mut nth = 0;
                        sorted.retain_mut(|key| {
                            nth += 1;
                            if nth % every == 0 {
                                model.remove(key);
                            }
                            nth % every != 0
                        });
                    }
                    Step::Split(at) if at <= length => {
                        let rest = sorted.split_off(at);
                        sorted.append(rest);
                    }
                    Step::Rekey if length > 0 => {
                        let key = sorted.item_mut(0);
                        model.remove(key);
                        *key = key[..key.len() / 2].to_vec();
                        model.insert(key.clone());
                        sorted.rekey(0);
                    }
                    Step::Remove(_) | Step::Split(_) | Step::Rekey => {}
                }
                let keys: Vec<_> = model.iter().cloned().collect();
                prop_assert_eq!(sorted.items(), &keys[..]);
                for key in keys.iter().chain(&asked) {
                    prop_assert_eq!(sorted.find(key), keys.binary_search(key));
                }
            }
        }
    }
}
