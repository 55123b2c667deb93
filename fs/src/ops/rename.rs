//! rename(2): of a file one transaction; of a directory one where it fits, else EXDEV,
//! so that mv copies. Never half.
//!
//! The source's value and lease go with it. A scratch file renamed onto a key is one
//! save of that key, which keeps the key's own lease.

use std::ffi::OsStr;

use bytes::Bytes;
use etcfs_proto::key::KeyRange;

use super::lookup::Named;
use super::{Fs, key, put_value};
use crate::errno::OpError;
use crate::map::{DIR_RECORDS, Dir, Key};
use crate::node::{Moment, NodeId, Value};
use crate::remote::{
    At, Change, Committed, Compare, Freshness, KeyValue, Lease, LeaseId, Op, Page, PageRequest, Revision,
};

/// Keys and records that a directory may have to be renamed in one transaction: etcd
/// takes 128 operations, and each needs two beside the mount's own record.
const MOVED_MAX: usize = 60;

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
                self.rename_file(&source, key, *in_itself, &target, to.1).await
            }
            (Named::Dir { dir, .. }, _) => self.rename_dir(&source, dir, &target, to.1).await,
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
        from: &Bytes,
        in_itself: bool,
        target: &End,
        name: &OsStr,
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
                let place = (target.parent, name.to_owned());
                let moved = table.rename_node(from, &to, place);
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
        let (
            Named::File { key: one, value: of_one, local: false, .. },
            Named::File { key: two, value: of_two, local: false, .. },
        ) = (&a.named, &b.named)
        else {
            return Err(OpError::NotInOneStep);
        };
        self.writable(one)?;
        self.writable(two)?;
        if one == two {
            return Ok(());
        }
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

    async fn rename_dir(&self, source: &End, from: &Dir, target: &End, name: &OsStr) -> Result<(), OpError> {
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
        let (since, kvs) = self.all_of(self.map.key_range(from)).await?;
        let (_, records) = self.all_of(self.map.record_range(from)).await?;
        let mut moved: Vec<(KeyValue, Bytes)> = Vec::new();
        for kv in kvs {
            let renamed = [new.as_ref(), &kv.key[old.len()..]].concat().into();
            moved.push((kv, renamed));
        }
        if let Some(kv) = self.remote.get(own.clone(), Freshness::Linearizable).await?.found {
            moved.push((kv, own_new.bytes()));
        }
        for kv in records {
            let renamed = [DIR_RECORDS, new, &kv.key[DIR_RECORDS.len() + old.len()..]].concat().into();
            moved.push((kv, renamed));
        }
        let size: usize = moved.iter().map(|(kv, name)| kv.value.len() + kv.key.len() + name.len()).sum();
        if moved.len() > MOVED_MAX || size as u64 > self.view.value_bytes_max {
            return Err(OpError::NotInOneStep);
        }
        let outer = match self.map.record_of(from) {
            // What moves within a directory keeps it.
            Some(record) if source.dir.prefix().is_none_or(|outer| !new.starts_with(outer)) => {
                self.keep_after_move(&source.dir, from, &record).await?
            }
            _ => None,
        };
        let mut change = Change {
            // Nothing came into the old place since it was read, and nothing is at the new one.
            compares: vec![
                Compare::NotPutSince(self.map.key_range(from), since),
                Compare::NotPutSince(self.map.record_range(from), since),
                Compare::NothingIn(self.map.key_range(&to)),
                Compare::Absent(own_new),
            ],
            ..Change::default()
        };
        for (kv, name) in &moved {
            change.compares.push(Compare::Unchanged(kv.key.clone(), kv.mod_revision));
            change.then.push(Op::Delete(kv.key.clone()));
            let lease = kv.lease.map_or(Lease::None, Lease::To);
            change.then.push(Op::Put { key: key(name), value: kv.value.clone(), lease });
        }
        let replaced =
            self.map.record_of(&to).filter(|record| moved.iter().all(|(_, name)| *name != record.bytes()));
        if let Some(record) = &replaced {
            change.then.push(Op::Delete(record.clone()));
        }
        if let Some(record) = &outer {
            change.then.push(Op::put(record.clone(), Bytes::new()));
        }
        let Committed { revision, succeeded, .. } = self.commit(change).await?;
        if !succeeded {
            return Err(OpError::NotInOneStep);
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

    /// The outer directory's record, if nothing else of it is left.
    async fn keep_after_move(
        &self,
        outer: &Dir,
        leaving: &Dir,
        record: &Key,
    ) -> Result<Option<Key>, OpError> {
        let Some(outer_record) = self.map.record_of(outer) else { return Ok(None) };
        let inside = self.map.key_range(leaving);
        let limit = MOVED_MAX as u32 + 2;
        let keys = self.first_keys(self.map.key_range(outer), limit).await?;
        let records = self.first_keys(self.map.record_range(outer), limit).await?;
        let below = self.map.record_range(leaving);
        let stays = keys.iter().any(|key| !inside.contains(key))
            || records.iter().any(|key| !below.contains(key) && key != record);
        Ok((!stays).then_some(outer_record))
    }

    async fn all_of(&self, range: KeyRange) -> Result<(Revision, Vec<KeyValue>), OpError> {
        let limit = MOVED_MAX as u32 + 1;
        let page = PageRequest { range, limit, keys_only: true, how: Freshness::Linearizable };
        let At { revision, found: Page { kvs, more } } = self.remote.page(page.clone()).await?;
        if more || kvs.len() > MOVED_MAX {
            return Err(OpError::NotInOneStep);
        }
        let page = PageRequest { keys_only: false, how: Freshness::Exactly(revision), ..page };
        Ok((revision, self.remote.page(page).await?.found.kvs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::ROOT;
    use crate::ops::test_mount::mount;
    use crate::remote::memory::Memory;

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
            let handle = fs.open_dir(dir).unwrap();
            assert_eq!(fs.listing(handle, 0).await.unwrap().entries.len(), entries);
        }
        assert_eq!(walk(ROOT, "moved").await, copy);
        assert_eq!(walk(copy, "a").await, a);
        assert_eq!(walk(a, "b").await, b);
        assert!(fs.lookup(b, OsStr::new("deep")).await.is_ok());
        assert!(fs.lookup(ROOT, from).await.is_err());
    }
}
