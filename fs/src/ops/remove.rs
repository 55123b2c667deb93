//! Taking names away: unlink and rmdir.
//!
//! A directory that loses its last key through this mount gets a record in the same
//! transaction, so that it stays until rmdir. Whether a key is the last one is known
//! from a witness, else looked up with a limit: an unlink costs the same among ten
//! siblings and among a hundred thousand.

use std::ffi::OsStr;

use bytes::Bytes;
use etcfs_proto::key::KeyRange;

use super::lookup::Named;
use super::put::got;
use super::virtuals::is_virtual;
use super::{Fs, key};
use crate::errno::OpError;
use crate::map::{Dir, Key};
use crate::node::{Known, NodeId};
use crate::remote::{
    Answer, At, Change, Committed, Compare, Freshness, Op, Page, PageRequest, RemoteError, Revision,
};

/// What a change that takes a key out of a directory must do to keep the directory.
#[derive(Clone, Debug, Default)]
pub(super) struct Keep {
    /// Put this record: nothing else is left.
    pub(super) record: Option<Key>,
    /// The directory needs a record if this range turns out empty.
    pub(super) check: Option<(KeyRange, Key)>,
}

impl Fs {
    pub(crate) async fn unlink(&self, parent: NodeId, name: &OsStr) -> Result<(), OpError> {
        if is_virtual(parent) {
            return self.unlink_virtual(parent, name).await;
        }
        let dir = self.dir_of(parent)?;
        let (name_key, named_rev, local, in_itself) = match self.named(&dir, name).await? {
            Named::File { key, rev, local, in_itself } => (key, rev, local, in_itself),
            Named::Dir { .. } => return Err(OpError::IsDirectory),
            Named::Link(_) => {
                return Err(OpError::NotPermitted("the root's links show keys; they are no files"));
            }
            Named::Nothing(_) | Named::NoValue(_) => return Err(OpError::NotFound),
        };
        self.writable(&name_key)?;
        let _turn = self.turn(&name_key).await;
        if local && self.nodes.with(|table| table.facts(&name_key)).local {
            self.nodes.with(|table| {
                table.unlink_handles(&name_key);
                table.change_local(&name_key, None);
            });
            return Ok(());
        }
        let mut keep = if in_itself { Keep::default() } else { self.keep_dir(&dir, &name_key).await? };
        let mut rev = match self.nodes.with(|table| table.known_rev(&name_key)) {
            Known::Present(rev) => rev,
            Known::Unknown | Known::Absent => named_rev,
        };
        loop {
            let mut change = Change {
                compares: vec![Compare::Unchanged(key(&name_key), Revision(rev))],
                then: vec![Op::Delete(key(&name_key))],
                otherwise: vec![Op::Get(key(&name_key))],
            };
            keep.add(&mut change);
            let Committed { revision, succeeded, answers } = match self.commit(change).await {
                // What makes room goes before what stays: there is none for a record.
                Err(OpError::Remote(RemoteError::NoSpace)) if keep.record.is_some() => {
                    keep = Keep::default();
                    continue;
                }
                committed => committed?,
            };
            if !succeeded {
                // Whoever deletes deletes what is there by then.
                let newest = got(answers).ok_or(OpError::NotFound)?.rev;
                if newest == rev {
                    // Not the key: somebody made the directory's record meanwhile.
                    keep = Keep::default();
                }
                rev = newest;
                continue;
            }
            self.nodes.with(|table| table.unlink_handles(&name_key));
            let _the_kernel_drops_the_name = self.own_change(&name_key, revision.0, Some(rev), None);
            self.kept(&keep, &dir, revision.0, &answers).await?;
            return Ok(());
        }
    }

    /// What must be done so that `dir` stays when `leaving` goes.
    pub(super) async fn keep_dir(&self, dir: &Dir, leaving: &Bytes) -> Result<Keep, OpError> {
        let (Some(record), Some(prefix)) = (self.map.record_of(dir), dir.prefix()) else {
            return Ok(Keep::default());
        };
        if self.nodes.with(|table| table.dir_has_records(prefix)) {
            return Ok(Keep::default());
        }
        let range = self.map.key_range(dir);
        let check = Some((range.clone(), record.clone()));
        let witness = self.nodes.with(|table| table.dir_witness(prefix));
        if witness.is_some_and(|witness| witness != *leaving) {
            return Ok(Keep { record: None, check });
        }
        let page = PageRequest { range, limit: 2, keys_only: true, how: Freshness::Linearizable };
        let At { revision, found: Page { kvs, .. } } = self.remote.page(page).await?;
        match kvs.iter().find(|kv| *kv.key != **leaving) {
            Some(other) => {
                let other = other.key.bytes();
                self.nodes.with(|table| table.witnessed(prefix, revision.0, &other));
                Ok(Keep { record: None, check })
            }
            None if self.first_keys(self.map.record_range(dir), 1).await?.is_empty() => {
                Ok(Keep { record: Some(record), check: None })
            }
            None => Ok(Keep::default()),
        }
    }

    /// After a change with `keep`: learns what is left, and puts the record if nothing is.
    pub(super) async fn kept(
        &self,
        keep: &Keep,
        dir: &Dir,
        rev: i64,
        answers: &[Answer],
    ) -> Result<(), OpError> {
        if let Some(record) = &keep.record {
            self.record_made(record, rev);
        }
        let (Some((_, record)), Some(prefix)) = (&keep.check, dir.prefix()) else { return Ok(()) };
        let left = answers.iter().rev().find_map(|answer| match answer {
            Answer::Keys(keys) => Some(keys),
            Answer::Done | Answer::Got(_) => None,
        });
        // The second of two lives longer where names are removed in order.
        if let Some(last) = left.and_then(|keys| keys.last()) {
            let last = last.bytes();
            self.nodes.with(|table| table.witnessed(prefix, rev, &last));
            return Ok(());
        }
        let change = Change {
            compares: vec![Compare::Absent(record.clone())],
            then: vec![Op::put(record.clone(), Bytes::new())],
            otherwise: Vec::new(),
        };
        match self.commit(change).await {
            Ok(Committed { succeeded: true, revision, .. }) => self.record_made(record, revision.0),
            Ok(_) | Err(OpError::Remote(RemoteError::NoSpace)) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    pub(crate) async fn remove_dir(&self, parent: NodeId, name: &OsStr) -> Result<(), OpError> {
        if is_virtual(parent) {
            return self.remove_virtual_dir(parent, name).await;
        }
        let parent_dir = self.dir_of(parent)?;
        let dir = match self.named(&parent_dir, name).await? {
            Named::Dir { dir, .. } => dir,
            Named::File { .. } | Named::Link(_) => return Err(OpError::NotDirectory),
            Named::Nothing(_) | Named::NoValue(_) => return Err(OpError::NotFound),
        };
        let (Some(record), Some(own)) = (self.map.record_of(&dir), self.map.value_key(&dir)) else {
            return Err(OpError::NotPermitted("this directory is always there"));
        };
        self.writable(&own)?;
        let keys = self.map.key_range(&dir);
        let records = self.map.record_range(&dir);
        if self.holds_local(&dir) || !self.first_keys(keys.clone(), 1).await?.is_empty() {
            return Err(OpError::NotEmpty);
        }
        let below = self.first_keys(records, 2).await?;
        if below.iter().any(|key| *key != record)
            || self.remote.get(own.clone(), Freshness::Linearizable).await?.found.is_some()
        {
            return Err(OpError::NotEmpty);
        }
        let outer = self.keep_outer(&parent_dir, &record).await?;
        let mut change = Change {
            compares: vec![
                Compare::NothingIn(keys),
                Compare::NothingIn(self.map.records_below(&dir)),
                Compare::Absent(own.clone()),
                Compare::Present(record.clone()),
            ],
            then: vec![Op::Delete(record.clone())],
            otherwise: vec![Op::Get(record.clone())],
        };
        if let Some(outer) = &outer {
            change.then.push(Op::put(outer.clone(), Bytes::new()));
        }
        let Committed { revision, succeeded, answers } = self.commit(change).await?;
        if !succeeded {
            return Err(if got(answers).is_some() { OpError::NotEmpty } else { OpError::NotFound });
        }
        self.record_gone(&record, revision.0);
        if let Some(outer) = &outer {
            self.record_made(outer, revision.0);
        }
        self.nodes.with(|table| table.dir_gone(&dir));
        Ok(())
    }

    /// The record that the outer directory needs when the one of `leaving` goes.
    async fn keep_outer(&self, outer: &Dir, leaving: &Key) -> Result<Option<Key>, OpError> {
        let (Some(record), Some(prefix)) = (self.map.record_of(outer), outer.prefix()) else {
            return Ok(None);
        };
        if self.nodes.with(|table| table.dir_witness(prefix)).is_some() {
            return Ok(None);
        }
        let others = self.first_keys(self.map.record_range(outer), 2).await?;
        if others.iter().any(|key| key != leaving)
            || !self.first_keys(self.map.key_range(outer), 1).await?.is_empty()
        {
            return Ok(None);
        }
        Ok(Some(record))
    }

    pub(super) async fn first_keys(&self, range: KeyRange, limit: u32) -> Result<Vec<Key>, OpError> {
        let page = PageRequest { range, limit, keys_only: true, how: Freshness::Linearizable };
        let At { found, .. } = self.remote.page(page).await?;
        Ok(found.kvs.into_iter().map(|kv| kv.key).collect())
    }
}

impl Keep {
    /// Adds to a change what keeps the directory.
    pub(super) fn add(&self, change: &mut Change) {
        if let Some(record) = &self.record {
            change.compares.push(Compare::Absent(record.clone()));
            change.then.push(Op::put(record.clone(), Bytes::new()));
        }
        if let Some((range, _)) = &self.check {
            change.then.push(Op::Keys { range: range.clone(), limit: 2 });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::ROOT;
    use crate::ops::test_mount::{mount, polled};
    use crate::remote::memory::Memory;

    /// What another client makes in a directory, at any moment of its rmdir, keeps it: a directory's record did not.
    #[tokio::test]
    async fn a_directory_in_which_something_is_made_meanwhile_is_not_removed() {
        let mut refused = 0;
        for (made, polls) in
            [".etcfs/dir//d/x/", "/d/x", "/d"].iter().flat_map(|key| (0..16).map(move |n| (key, n)))
        {
            let memory = Memory::new();
            memory.put(".etcfs/dir//d/", "");
            let fs = mount(&memory).await;
            let before = memory.commits();
            let mut removal = Box::pin(fs.remove_dir(ROOT, OsStr::new("d")));
            let done = polled(&mut removal, polls).await;
            let removed = memory.commits() > before;
            memory.put(made, "");
            let outcome = match done {
                Some(outcome) => outcome,
                None => removal.await,
            };
            if removed {
                outcome.unwrap();
            } else {
                assert!(matches!(outcome, Err(OpError::NotEmpty)), "{made} after {polls} polls: {outcome:?}");
                refused += 1;
            }
            assert_eq!(memory.value(".etcfs/dir//d/").is_none(), removed);
        }
        assert!(refused > 12, "{refused} of 48");
    }
}
