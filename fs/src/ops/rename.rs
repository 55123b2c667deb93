//! rename(2): of a file one transaction; of a directory one where it fits or the server
//! moves it all, else EXDEV, so that mv copies. Never half.
//!
//! The source's value and lease go with it. A scratch file renamed onto a key is one
//! save of that key, which keeps the key's own lease.

use std::collections::HashSet;
use std::ffi::OsStr;

use bytes::Bytes;
use etcfs_proto::key::{KeyRange, successor};

use super::lookup::Named;
use super::{Fs, key, put_value};
use crate::errno::OpError;
use crate::map::{DIR_RECORDS, Dir, Key};
use crate::node::{Known, Moment, NodeId, Value};
use crate::remote::{
    At, Change, Committed, Compare, Freshness, KeyValue, Lease, LeaseId, Move, Op, Page, PageRequest,
    RemoteError, Revision,
};

/// Keys and records that a directory may have to be renamed in one transaction: etcd
/// takes 128 operations, and each needs two beside the mount's own record.
const MOVED_MAX: usize = 60;

/// The same where the server moves them, whose only limit is a request's size.
const MOVED_BY_SERVER_MAX: usize = 20_000;

/// Pairs read at a time, whose values may be large.
const PAGE_KEYS_FIRST: usize = 64;
const PAGE_KEYS_MAX: usize = 2000;

/// What renameat2(2) asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RenameHow {
    Replace,
    NoReplace,
    Exchange,
}

/// One end of a rename.
#[derive(Clone, Debug)]
struct End {
    parent: NodeId,
    dir: Dir,
    named: Named,
}

impl Fs {
    pub(crate) async fn rename(
        &self,
        from: (NodeId, &OsStr),
        to: (NodeId, &OsStr),
        how: RenameHow,
    ) -> Result<(), OpError> {
        let source = self.end(from.0, from.1).await?;
        let target_dir = self.dir_to_fill(to.0).await?;
        self.name_to_make(&target_dir, to.1)?;
        let named = self.named(&target_dir, to.1).await?;
        let target = End { parent: to.0, dir: target_dir, named };
        if how == RenameHow::NoReplace && !matches!(target.named, Named::Nothing(_) | Named::NoValue(_)) {
            return Err(OpError::Exists);
        }
        match (&source.named, &target.named) {
            (Named::Nothing(_) | Named::NoValue(_), _) => Err(OpError::NotFound),
            (Named::Link(_), _) | (_, Named::Link(_)) => {
                Err(OpError::NotPermitted("the root's links show keys; they can't be renamed"))
            }
            _ if how == RenameHow::Exchange => self.exchange(&source, &target).await,
            (Named::File { .. }, Named::Dir { .. }) => Err(OpError::IsDirectory),
            (Named::Dir { .. }, Named::File { .. } | Named::NoValue(_)) => Err(OpError::NotDirectory),
            (Named::File { key, in_itself, .. }, _) => {
                self.rename_file(&source, (key, *in_itself), &target, to.1, how).await
            }
            (Named::Dir { dir, .. }, _) => self.rename_dir(&source, dir, &target, to.1, how).await,
        }
    }

    async fn end(&self, parent: NodeId, name: &OsStr) -> Result<End, OpError> {
        let dir = self.dir_of(parent)?;
        let named = self.named(&dir, name).await?;
        Ok(End { parent, dir, named })
    }

    async fn rename_file(
        &self,
        source: &End,
        (from, in_itself): (&Bytes, bool),
        target: &End,
        name: &OsStr,
        how: RenameHow,
    ) -> Result<(), OpError> {
        let to = match &target.named {
            Named::File { key, .. } | Named::NoValue(key) => key.clone(),
            Named::Nothing(entry) => entry.key.bytes(),
            Named::Dir { .. } | Named::Link(_) => return Err(OpError::IsDirectory),
        };
        // A directory's own value is none of what is in it.
        let into_itself = matches!(&target.named, Named::NoValue(_) | Named::File { in_itself: true, .. });
        self.writable(from)?;
        self.writable(&to)?;
        if *from == to {
            return Ok(());
        }
        // In order of keys, so that two renames never wait for each other.
        let (first, second) = if *from < to { (from, &to) } else { (&to, from) };
        let _first = self.turn(first).await;
        let _second = self.turn(second).await;
        self.settle(from).await?;
        loop {
            let facts = self.nodes.with(|table| table.facts(from));
            let Some(value) = facts.known.value().cloned() else { return Err(OpError::NotFound) };
            let replaced = self.nodes.with(|table| table.facts(&to));
            // Also where it has come since it was looked up.
            if how == RenameHow::NoReplace && replaced.known.value().is_some() {
                return Err(OpError::Exists);
            }
            let replaced = replaced.known.value().filter(|_| !replaced.local).cloned();
            let mut change = Change::default();
            change.compares.push(match &replaced {
                Some(old) => Compare::Unchanged(key(&to), Revision(old.rev)),
                None => Compare::Absent(key(&to)),
            });
            let mut keep = super::remove::Keep::default();
            let (lease, held) = if facts.local {
                match &replaced {
                    Some(old) => (Lease::Keep, old.lease),
                    None => (Lease::None, 0),
                }
            } else {
                change.compares.push(Compare::Unchanged(key(from), Revision(value.rev)));
                change.then.push(Op::Delete(key(from)));
                if !in_itself && (source.dir != target.dir || into_itself) {
                    keep = self.keep_dir(&source.dir, from).await?;
                }
                (if value.lease == 0 { Lease::None } else { Lease::To(LeaseId(value.lease)) }, value.lease)
            };
            change.then.push(Op::Put { key: key(&to), value: value.bytes.clone(), lease });
            keep.add(&mut change);
            let Committed { revision, succeeded, answers } = self.commit(change).await?;
            if !succeeded {
                // One of the two was changed: look again, at what there is now.
                self.refresh(from, revision.0).await?;
                self.refresh(&to, revision.0).await?;
                continue;
            }
            let new = put_value(value.bytes.clone(), revision.0, replaced.as_ref(), held);
            let create = new.create;
            self.nodes.with(|table| {
                table.unlink_handles(&to);
                let moved = table.rename_node(from, &to, (target.parent, name));
                if facts.local {
                    table.change_local(from, None);
                } else {
                    table.own_event_now(from, revision.0, None);
                }
                table.own_event_now(&to, revision.0, Some(new));
                if let Some(moved) = moved {
                    table.renamed(&to, moved, create);
                }
            });
            return self.kept(&keep, &source.dir, revision.0, &answers).await;
        }
    }

    /// A file that is just being made is put before it moves.
    async fn settle(&self, name: &Bytes) -> Result<(), OpError> {
        let facts = self.nodes.with(|table| table.facts(name));
        if facts.local && !facts.scratch {
            for fh in self.nodes.with(|table| table.writers_of(name)) {
                let _renamed_at_once = self.put_if_due(fh, Moment::Fsync).await?;
            }
        }
        Ok(())
    }

    /// Waits until what is known of a key is as new as `revision`.
    pub(super) async fn refresh(&self, name: &Bytes, revision: i64) -> Result<(), OpError> {
        let At { found, .. } = self.remote.get(key(name), Freshness::AtLeast(Revision(revision))).await?;
        let value = found.as_ref().map(Value::from);
        self.nodes.with(|table| {
            let rev = value.as_ref().map_or(revision, |value| value.rev);
            table.change(name, rev, value);
        });
        Ok(())
    }

    async fn exchange(&self, a: &End, b: &End) -> Result<(), OpError> {
        let (Named::File { key: one, local: false, .. }, Named::File { key: two, local: false, .. }) =
            (&a.named, &b.named)
        else {
            return Err(OpError::NotInOneStep);
        };
        self.writable(one)?;
        self.writable(two)?;
        if one == two {
            return Ok(());
        }
        let known = self.nodes.with(|table| (table.known(one), table.known(two)));
        let (Known::Present(of_one), Known::Present(of_two)) = &known else {
            // Gone since their names were looked up.
            return Err(OpError::Stale);
        };
        self.check_len((of_one.bytes.len() + of_two.bytes.len()) as u64)?;
        let lease = |value: &Value| match value.lease {
            0 => Lease::None,
            id => Lease::To(LeaseId(id)),
        };
        let change = Change {
            compares: vec![
                Compare::Unchanged(key(one), Revision(of_one.rev)),
                Compare::Unchanged(key(two), Revision(of_two.rev)),
            ],
            then: vec![
                Op::Put { key: key(one), value: of_two.bytes.clone(), lease: lease(of_two) },
                Op::Put { key: key(two), value: of_one.bytes.clone(), lease: lease(of_one) },
            ],
            otherwise: Vec::new(),
        };
        let Committed { revision, succeeded, .. } = self.commit(change).await?;
        if !succeeded {
            // The kernel tries again only for ESTALE, with names looked up anew.
            return Err(OpError::Stale);
        }
        let first = put_value(of_two.bytes.clone(), revision.0, Some(of_one), of_two.lease);
        let second = put_value(of_one.bytes.clone(), revision.0, Some(of_two), of_one.lease);
        self.nodes.with(|table| {
            table.own_event_now(one, revision.0, Some(first));
            table.own_event_now(two, revision.0, Some(second));
        });
        Ok(())
    }

    async fn rename_dir(
        &self,
        source: &End,
        from: &Dir,
        target: &End,
        name: &OsStr,
        how: RenameHow,
    ) -> Result<(), OpError> {
        let to = match &target.named {
            Named::Nothing(entry) => entry.dir.clone(),
            Named::Dir { dir, .. } => dir.clone(),
            Named::File { .. } | Named::Link(_) | Named::NoValue(_) => return Err(OpError::NotDirectory),
        };
        let (Some(old), Some(new)) = (from.prefix(), to.prefix()) else { return Err(OpError::NotInOneStep) };
        let (Some(own), Some(own_new)) = (self.map.value_key(from), self.map.value_key(&to)) else {
            return Err(OpError::NotPermitted("this directory is always there"));
        };
        if old == new {
            return Ok(());
        }
        if new.starts_with(old) {
            return Err(OpError::Malformed("a directory can't be moved into itself"));
        }
        self.writable(&own)?;
        self.writable(&own_new)?;
        if self.holds_local(from) {
            return Err(OpError::NotInOneStep);
        }
        if self.holds_local(&to)
            || !self.first_keys(self.map.key_range(&to), 1).await?.is_empty()
            || self.remote.get(own_new.clone(), Freshness::Linearizable).await?.found.is_some()
            || self
                .first_keys(self.map.record_range(&to), 2)
                .await?
                .iter()
                .any(|key| Some(key) != self.map.record_of(&to).as_ref())
        {
            return Err(OpError::NotEmpty);
        }
        let mut moved = self.to_move(from, &to, MOVED_MAX).await?;
        let by_server = moved.is_none();
        if by_server && self.remote.moves() {
            moved = self.to_move(from, &to, MOVED_BY_SERVER_MAX).await?;
        }
        let Some(Moving { since, own: own_kv, below, records }) = moved else {
            return Err(OpError::NotInOneStep);
        };
        let outer = match self.map.record_of(from) {
            // What moves within a directory keeps it.
            Some(record) if source.dir.prefix().is_none_or(|outer| !new.starts_with(outer)) => {
                let count = below.len() + records.len() + 1;
                self.keep_after_move(&source.dir, from, &record, count).await?
            }
            _ => None,
        };
        let mut change = Change {
            // Nothing came into the old place since it was read, and nothing is at the new one.
            compares: vec![
                Compare::NotPutSince(self.map.key_range(from), since),
                Compare::NotPutSince(self.map.record_range(from), since),
                Compare::NothingIn(self.map.key_range(&to)),
                Compare::NothingIn(self.map.records_below(&to)),
                Compare::Absent(own_new.clone()),
            ],
            ..Change::default()
        };
        if how == RenameHow::NoReplace {
            change.compares.extend(self.map.record_of(&to).map(Compare::Absent));
        }
        if by_server {
            if let Some((kv, name)) = &own_kv {
                one_by_one(&mut change, kv, name);
            }
            let keys = |pairs: &[(KeyValue, Bytes)]| {
                pairs.iter().flat_map(|(kv, name)| [kv.key.bytes(), name.clone()]).collect()
            };
            let record = |prefix: &Bytes| [DIR_RECORDS, prefix].concat().into();
            change.then.extend([
                Op::Move(Move { from: old.clone(), to: new.clone(), replace: false, keys: keys(&below) }),
                Op::Move(Move { from: record(old), to: record(new), replace: true, keys: keys(&records) }),
            ]);
        } else {
            let all = own_kv.iter().chain(&below).chain(&records);
            all.for_each(|(kv, name)| one_by_one(&mut change, kv, name));
            let replaced = self.map.record_of(&to);
            let stays = |record: &Key| records.iter().all(|(_, name)| *name != record.bytes());
            change.then.extend(replaced.filter(stays).map(Op::Delete));
        }
        if let Some(record) = &outer {
            change.then.push(Op::put(record.clone(), Bytes::new()));
        }
        let Committed { revision, succeeded, .. } = match self.commit(change).await {
            // It has no such call after all, or finds it to be too much.
            Err(OpError::Remote(
                RemoteError::UnknownCall(_) | RemoteError::Unsupported(_) | RemoteError::TooLarge,
            )) if by_server => return Err(OpError::NotInOneStep),
            committed => committed?,
        };
        if !succeeded {
            return Err(OpError::NotInOneStep);
        }
        let mut moved: Vec<(KeyValue, Bytes)> = below.into_iter().chain(records).chain(own_kv).collect();
        if by_server {
            self.drop_unmoved(&mut moved, &to, revision).await?;
        }
        self.nodes.with(|table| {
            for (kv, name) in &moved {
                table.own_event_now(&kv.key.bytes(), revision.0, None);
                let new = Value { create: revision.0, rev: revision.0, version: 1, ..Value::from(kv) };
                table.own_event_now(name, revision.0, Some(new));
            }
            table.rename_dir(from, &to, target.parent, name);
        });
        if let Some(record) = &outer {
            self.record_made(record, revision.0);
        }
        Ok(())
    }

    /// What a directory's rename moves, if that is no more than so many keys and fits one request.
    async fn to_move(&self, from: &Dir, to: &Dir, keys_max: usize) -> Result<Option<Moving>, OpError> {
        let (Some(old), Some(new)) = (from.prefix(), to.prefix()) else { return Ok(None) };
        let (Some(own), Some(own_new)) = (self.map.value_key(from), self.map.value_key(to)) else {
            return Ok(None);
        };
        let mut room = Room { keys: keys_max, bytes: self.view.value_bytes_max };
        let Some((since, below)) = self.all_of(self.map.key_range(from), &mut room).await? else {
            return Ok(None);
        };
        let Some((_, records)) = self.all_of(self.map.record_range(from), &mut room).await? else {
            return Ok(None);
        };
        let own = self.remote.get(own, Freshness::Linearizable).await?.found;
        if own.as_ref().is_some_and(|kv| !room.takes(kv)) {
            return Ok(None);
        }
        let moved = |before: &[u8], kvs: Vec<KeyValue>| -> Vec<(KeyValue, Bytes)> {
            let named = |kv: KeyValue| {
                let name = [before, new, &kv.key[before.len() + old.len()..]].concat().into();
                (kv, name)
            };
            kvs.into_iter().map(named).collect()
        };
        Ok(Some(Moving {
            since,
            own: own.map(|kv| (kv, own_new.bytes())),
            below: moved(b"", below),
            records: moved(DIR_RECORDS, records),
        }))
    }

    /// Leaves out what had been deleted before the server moved the rest.
    async fn drop_unmoved(
        &self,
        moved: &mut Vec<(KeyValue, Bytes)>,
        to: &Dir,
        revision: Revision,
    ) -> Result<(), OpError> {
        let mut there = HashSet::new();
        for range in [self.map.key_range(to), self.map.record_range(to)] {
            let limit = MOVED_BY_SERVER_MAX as u32 + 1;
            let page = PageRequest { range, limit, keys_only: true, how: Freshness::AtLeast(revision) };
            there.extend(self.remote.page(page).await?.found.kvs.into_iter().map(|kv| kv.key.bytes()));
        }
        let own = self.map.value_key(to).map(|key| key.bytes());
        moved.retain(|(_, name)| there.contains(name) || Some(name) == own.as_ref());
        Ok(())
    }

    /// The outer directory's record, if nothing else of it is left.
    async fn keep_after_move(
        &self,
        outer: &Dir,
        leaving: &Dir,
        record: &Key,
        count: usize,
    ) -> Result<Option<Key>, OpError> {
        let Some(outer_record) = self.map.record_of(outer) else { return Ok(None) };
        let (inside, own) = (self.map.key_range(leaving), self.map.value_key(leaving));
        let limit = count as u32 + 1;
        let keys = self.first_keys(self.map.key_range(outer), limit).await?;
        let records = self.first_keys(self.map.record_range(outer), limit).await?;
        let below = self.map.record_range(leaving);
        let stays = keys.iter().any(|key| !inside.contains(key) && Some(key) != own.as_ref())
            || records.iter().any(|key| !below.contains(key) && key != record);
        Ok((!stays).then_some(outer_record))
    }

    /// All of a range, if there is room for it.
    async fn all_of(
        &self,
        range: KeyRange,
        room: &mut Room,
    ) -> Result<Option<(Revision, Vec<KeyValue>)>, OpError> {
        let mut page = PageRequest { range, limit: 0, keys_only: false, how: Freshness::Linearizable };
        let mut all: Vec<KeyValue> = Vec::new();
        loop {
            // As many as there may be room for, by how large they were.
            let bytes: usize = all.iter().map(|kv| kv.value.len()).sum();
            let likely = (room.bytes as usize).checked_div(bytes / all.len().max(1)).unwrap_or(PAGE_KEYS_MAX);
            let first = if all.is_empty() { PAGE_KEYS_FIRST } else { PAGE_KEYS_MAX };
            page.limit = likely.clamp(1, first) as u32;
            let At { revision, found: Page { kvs, more } } = self.remote.page(page.clone()).await?;
            if !kvs.iter().all(|kv| room.takes(kv)) {
                return Ok(None);
            }
            if let Some(last) = kvs.last() {
                page.range.start = successor(&last.key);
            }
            page.how = Freshness::Exactly(revision);
            all.extend(kvs);
            if !more {
                return Ok(Some((revision, all)));
            }
        }
    }
}

/// What moves with a directory: pairs, and the keys that they get.
struct Moving {
    /// As of which it was read.
    since: Revision,
    /// The key that is the directory's value.
    own: Option<(KeyValue, Bytes)>,
    below: Vec<(KeyValue, Bytes)>,
    records: Vec<(KeyValue, Bytes)>,
}

/// What more may be moved.
struct Room {
    keys: usize,
    bytes: u64,
}

impl Room {
    fn takes(&mut self, kv: &KeyValue) -> bool {
        let bytes = (kv.value.len() + 2 * kv.key.len()) as u64;
        match (self.keys.checked_sub(1), self.bytes.checked_sub(bytes)) {
            (Some(keys), Some(bytes)) => {
                *self = Self { keys, bytes };
                true
            }
            _ => false,
        }
    }
}

/// Moves one pair by a transaction's own means.
fn one_by_one(change: &mut Change, kv: &KeyValue, name: &Bytes) {
    change.compares.push(Compare::Unchanged(kv.key.clone(), kv.mod_revision));
    change.then.push(Op::Delete(kv.key.clone()));
    let lease = kv.lease.map_or(Lease::None, Lease::To);
    change.then.push(Op::Put { key: key(name), value: kv.value.clone(), lease });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::ROOT;
    use crate::ops::test_mount::{mount, polled};
    use crate::remote::memory::Memory;

    /// A rename that must not replace, as a claim, has one winner: what came to the name at any moment before it stays.
    /// A second look after a lost race once took it for something to be replaced.
    #[tokio::test]
    async fn a_rename_that_must_not_replace_replaces_nothing_that_comes_meanwhile() {
        let mut refused = 0;
        let made = [("f", "/to"), ("d", ".etcfs/dir//to/"), ("d", ".etcfs/dir//to/x/")];
        for ((from, made), polls) in made.iter().flat_map(|&made| (0..16).map(move |polls| (made, polls))) {
            let memory = Memory::new();
            memory.put("/f", "mine");
            memory.put("/d/x", "mine");
            let fs = mount(&memory).await;
            let (source, target) = (OsStr::new(from), OsStr::new("to"));
            let before = memory.commits();
            let mut renaming = Box::pin(fs.rename((ROOT, source), (ROOT, target), RenameHow::NoReplace));
            let done = polled(&mut renaming, polls).await;
            let renamed = memory.commits() > before;
            memory.put(made, "theirs");
            let outcome = match done {
                Some(outcome) => outcome,
                None => renaming.await,
            };
            assert_eq!(outcome.is_ok(), renamed, "{made} after {polls} polls: {outcome:?}");
            assert_eq!(memory.value(made).as_deref(), Some(b"theirs".as_ref()));
            assert_eq!(memory.value(if from == "f" { "/f" } else { "/d/x" }).is_none(), renamed);
            if from == "f" && !renamed {
                assert!(matches!(outcome, Err(OpError::Exists)), "{outcome:?}");
            }
            refused += usize::from(!renamed);
        }
        assert!(refused > 12, "{refused} of 48");
    }

    /// The kernel goes on with the inodes that it has: a directory in a renamed one was once listed as empty, until
    /// the kernel had been told to look again.
    #[tokio::test]
    async fn directories_in_a_renamed_one_are_its_own_at_once() {
        let memory = Memory::new();
        for key in ["/copy/a/b/deep", "/copy/a/f1", "/copy/a/f2", "/copy/top"] {
            memory.put(key, "1");
        }
        let fs = mount(&memory).await;
        let walk = async |parent, name: &str| fs.lookup(parent, OsStr::new(name)).await.unwrap().node;
        let copy = walk(ROOT, "copy").await;
        let a = walk(copy, "a").await;
        let b = walk(a, "b").await;
        let (from, to) = (OsStr::new("copy"), OsStr::new("moved"));
        fs.rename((ROOT, from), (ROOT, to), RenameHow::Replace).await.unwrap();
        for (dir, entries) in [(copy, 2), (a, 3), (b, 1)] {
            let handle = fs.open_dir(dir).unwrap().0;
            assert_eq!(fs.listing(handle, 0).await.unwrap().from(0).count(), entries);
        }
        assert_eq!(walk(ROOT, "moved").await, copy);
        assert_eq!(walk(copy, "a").await, a);
        assert_eq!(walk(a, "b").await, b);
        assert!(fs.lookup(b, OsStr::new("deep")).await.is_ok());
        assert!(fs.lookup(ROOT, from).await.is_err());
    }
}
