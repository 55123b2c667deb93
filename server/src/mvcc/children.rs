//! What lies directly below a prefix, at the cost of what is told.
//!
//! Keys sort as `a`, `a-b`, `a/x`, `ab`: the walk takes them in order, and once it has met a key deeper down it goes
//! on behind all that share its name. So a directory costs one search of the index however much lies in it. Sizes
//! come from the index too, which knows how long each row is; only a key that hangs on a lease has its row read.

use bytes::Bytes;
use etcfs_proto::{
    etcfs::v1::{Child, KeyFacts},
    mvccpb::KeyValue,
};

use super::{
    ReadError, View,
    key_index::Facts,
    read::{Found, WALK_CHUNK},
    revision::Stamp,
    row,
};

const SEPARATOR: u8 = b'/';
/// The byte after the separator: no key that begins with a name and it is below that name.
const PAST_SEPARATOR: u8 = SEPARATOR + 1;

/// Children of one prefix.
#[derive(Debug, Default)]
pub struct Children {
    pub children: Vec<Child>,
    /// Where to go on; `None` at the end.
    pub next: Option<Bytes>,
}

/// A walk in the making.
struct Walk<'p> {
    prefix: &'p [u8],
    found: Children,
    /// Children whose lease, and with it their size, is in their row.
    leased: Vec<(usize, Found)>,
}

impl View<'_> {
    /// The first `limit` children of `prefix` from the key `from` on, which begins with it or is empty.
    pub fn children(&self, prefix: &[u8], from: &[u8], limit: usize) -> Result<Children, ReadError> {
        let mut walk = Walk { prefix, found: Children::default(), leased: Vec::new() };
        let mut cursor = Some(Bytes::copy_from_slice(from.max(prefix)));
        while let Some(at) = cursor.take() {
            if walk.found.children.len() == limit {
                walk.found.next = Some(at);
                break;
            }
            cursor = self.children_chunk(&mut walk, at, limit)?;
        }
        let Walk { found: mut children, leased, .. } = walk;
        let keys = children.children.iter().filter_map(|child| child.key.as_ref());
        let made = self.store.times(keys.map(|key| key.mod_revision));
        let keys = children.children.iter_mut().filter_map(|child| child.key.as_mut());
        keys.zip(made).for_each(|(key, made)| key.mod_unix_ns = made.at());
        let (places, mut pairs): (Vec<_>, Vec<_>) = leased.into_iter().unzip();
        self.fill(&mut pairs)?;
        for (place, pair) in places.into_iter().zip(pairs) {
            let kv = row::decode(&pair.row.expect("each row was filled in or its lack reported"));
            if let Some(facts) = &mut children.children[place].key {
                (facts.size, facts.lease) = (length(kv.value.len()), kv.lease);
            }
        }
        Ok(children)
    }

    /// Goes on from `cursor` with the lock held, for so long as others may wait for it; says where to go on.
    fn children_chunk(
        &self,
        walk: &mut Walk<'_>,
        mut cursor: Bytes,
        limit: usize,
    ) -> Result<Option<Bytes>, ReadError> {
        let inner = self.lock()?;
        let mut seen = 0;
        'search: loop {
            for entry in inner.index.from(&cursor) {
                if !entry.key.starts_with(walk.prefix) {
                    return Ok(None);
                }
                if seen == WALK_CHUNK || walk.found.children.len() == limit {
                    return Ok(Some(Bytes::copy_from_slice(&entry.key)));
                }
                seen += 1;
                let Some(stamp) = entry.history.visible(self.at()) else { continue };
                let rest = &entry.key[walk.prefix.len()..];
                let Some(length) = rest.iter().position(|&byte| byte == SEPARATOR) else {
                    let facts = entry.history.facts(self.at()).expect("it is visible");
                    let row = if facts.leased { inner.recent.get(facts.revision).cloned() } else { None };
                    walk.key(rest, stamp, facts, row);
                    continue;
                };
                walk.below(&rest[..length]);
                let mut past = entry.key[..walk.prefix.len() + length].to_vec();
                past.push(PAST_SEPARATOR);
                cursor = past.into();
                continue 'search;
            }
            return Ok(None);
        }
    }
}

impl Walk<'_> {
    /// `row`: of a key on a lease, where it is in memory.
    fn key(&mut self, name: &[u8], stamp: Stamp, facts: Facts, row: Option<Bytes>) {
        let mut key = KeyFacts {
            size: 0,
            create_revision: facts.created,
            mod_revision: facts.revision.main,
            version: facts.version,
            lease: 0,
            mod_unix_ns: 0,
        };
        if facts.leased {
            let place = self.found.children.len();
            self.leased.push((place, Found { facts, key: Bytes::new(), row }));
        } else {
            let pair = KeyValue {
                key: [self.prefix, name].concat().into(),
                create_revision: facts.created,
                mod_revision: facts.revision.main,
                version: facts.version,
                ..KeyValue::default()
            };
            key.size = length(row::value_bytes(stamp.row_bytes(), &pair));
        }
        self.found.children.push(Child { name: Bytes::copy_from_slice(name), key: Some(key), below: false });
    }

    fn below(&mut self, name: &[u8]) {
        // They are in the order of their first keys: a name's own key, else the first below it.
        let met = self.found.children.binary_search_by(|child| {
            let slash = child.key.is_none().then_some(&SEPARATOR);
            child.name.iter().chain(slash).cmp(name)
        });
        match met {
            Ok(place) => self.found.children[place].below = true,
            Err(_) => {
                let child = Child { name: Bytes::copy_from_slice(name), key: None, below: true };
                self.found.children.push(child);
            }
        }
    }
}

fn length(bytes: usize) -> i64 {
    i64::try_from(bytes).expect("a value's length is an i64")
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use etcfs_proto::etcfs::record;
    use proptest::prelude::*;

    use super::*;
    use crate::{
        mvcc::{FIRST_REVISION, NEVER_COMPACTED, Store, StoreOptions, Writer},
        storage::{Batch, Engine, MemoryEngine},
    };

    /// A store with what was put and deleted in it, each in its own revision.
    fn filled<'c>(changes: impl IntoIterator<Item = &'c (String, Option<usize>)>) -> (Arc<Store>, Writer) {
        let engine: Arc<dyn Engine> = Arc::new(MemoryEngine::new());
        let meta = record::Meta {
            revision: FIRST_REVISION,
            compact_revision: NEVER_COMPACTED,
            scrubbed_revision: NEVER_COMPACTED,
            ..record::Meta::default()
        };
        let (store, mut writer, _) = Store::open(engine, &meta, &StoreOptions::default()).unwrap();
        let mut batch = Batch::default();
        for (key, length) in changes {
            let mut txn = writer.begin(&mut batch);
            match length {
                Some(length) => txn.put(key.clone().into(), vec![7; *length].into(), (*length % 3) as i64),
                None => drop(txn.delete_range(key.as_bytes(), b"", false).unwrap()),
            }
            txn.finish();
            writer.publish(writer.revision());
        }
        (store, writer)
    }

    /// All children by name, page by page.
    fn read(view: &View<'_>, prefix: &str, limit: usize) -> BTreeMap<Bytes, Child> {
        let mut all: BTreeMap<Bytes, Child> = BTreeMap::new();
        let mut from = Bytes::new();
        loop {
            let page = view.children(prefix.as_bytes(), &from, limit).unwrap();
            assert!(page.children.len() <= limit);
            for child in page.children {
                let met = all.entry(child.name.clone()).or_default();
                assert!(met.key.is_none() || child.key.is_none(), "a key comes once");
                assert!(!met.below || !child.below, "and so do those below");
                met.below |= child.below;
                met.key = met.key.or(child.key);
                met.name = child.name;
            }
            match page.next {
                Some(next) => from = next,
                None => return all,
            }
        }
    }

    proptest! {
        #[test]
        fn children_are_what_a_walk_of_every_key_finds(
            changes in prop::collection::vec(("[ab/-]{1,6}", prop::option::weighted(0.8, 0usize..300)), 1..80),
            prefix in "[ab/-]{0,2}",
            limit in 1usize..5,
            back in 0i64..20,
        ) {
            let (store, _writer) = filled(&changes);
            let at = (store.revision() - back).max(FIRST_REVISION);
            let view = store.view(at).unwrap();
            let mut expected: BTreeMap<Bytes, Child> = BTreeMap::new();
            let all = etcfs_proto::etcdserverpb::RangeRequest {
                key: Bytes::from_static(b"\0"),
                range_end: Bytes::from_static(b"\0"),
                revision: at,
                ..Default::default()
            };
            for kv in store.range(&all).unwrap().kvs {
                let Some(rest) = kv.key.strip_prefix(prefix.as_bytes()) else { continue };
                let slash = rest.iter().position(|&byte| byte == SEPARATOR);
                let name = Bytes::copy_from_slice(&rest[..slash.unwrap_or(rest.len())]);
                let child = expected.entry(name.clone()).or_insert(Child { name, ..Child::default() });
                match slash {
                    Some(_) => child.below = true,
                    None => child.key = Some(KeyFacts {
                        size: kv.value.len() as i64,
                        create_revision: kv.create_revision,
                        mod_revision: kv.mod_revision,
                        version: kv.version,
                        lease: kv.lease,
                        mod_unix_ns: 0,
                    }),
                }
            }
            prop_assert_eq!(read(&view, &prefix, limit), expected);
        }
    }

    #[test]
    fn a_name_that_is_both_comes_once_in_a_page() {
        let changes = ["a", "a-b", "a/x", "ab"].map(|key| (key.to_owned(), Some(1)));
        let (store, _writer) = filled(&changes);
        let page = store.view(0).unwrap().children(b"", b"", 10).unwrap();
        let told: Vec<_> =
            page.children.iter().map(|child| (&*child.name, child.key.is_some(), child.below)).collect();
        assert_eq!(told, [(&b"a"[..], true, true), (b"a-b", true, false), (b"ab", true, false)]);
        assert_eq!(page.next, None);
    }
}
