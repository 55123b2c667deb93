//! The rules: what is stored, what a change makes of it, and who may ask for what.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;

use bytes::Bytes;
use etcfs_proto::key::{KeyRange, KeySet};
use tokio::time::Instant;

use crate::map::Key;
use crate::remote::{
    Answer, Change, Changed, Committed, Compare, Event, Freshness, KeyValue, Lease, LeaseId, Move, Op,
    RemoteError, Revision,
};

/// What one transaction may carry, as etcd has it by default.
const REQUEST_BYTES_MAX: usize = 3 * 512 * 1024;

#[derive(Debug, Default)]
pub(super) struct State {
    /// Newest; the store begins at 1.
    pub(super) head: i64,
    pub(super) compacted: i64,
    pub(super) keys: BTreeMap<Key, Vec<(i64, Option<KeyValue>)>>,
    pub(super) log: Vec<Changed>,
    pub(super) leases: HashMap<i64, Held>,
    pub(super) next_lease: i64,
    pub(super) away: bool,
    pub(super) failures: VecDeque<RemoteError>,
    pub(super) commits: u64,
    /// It is as etcd is.
    pub(super) plain: bool,
    /// What may be asked for, where that is not everything.
    pub(super) readable: Option<KeySet>,
}

#[derive(Debug)]
pub(super) struct Held {
    pub(super) granted_seconds: i64,
    pub(super) ends: Instant,
    pub(super) renewals: usize,
}

impl State {
    pub(super) fn may_read(&self, range: &KeyRange) -> Result<(), RemoteError> {
        let may = self.readable.as_ref().is_none_or(|readable| readable.covers(range));
        may.then_some(()).ok_or(RemoteError::PermissionDenied)
    }

    pub(super) fn may_read_key(&self, key: &Key) -> Result<(), RemoteError> {
        self.may_read(&KeyRange::single(&key.bytes()))
    }

    pub(super) fn may_change(&self, change: &Change) -> Result<(), RemoteError> {
        change.compares.iter().try_for_each(|compare| match compare {
            Compare::Unchanged(key, _)
            | Compare::Absent(key)
            | Compare::Present(key)
            | Compare::SameSince(key, _) => self.may_read_key(key),
            Compare::NothingIn(range) | Compare::NotPutSince(range, _) => self.may_read(range),
        })?;
        change.then.iter().chain(&change.otherwise).try_for_each(|op| match op {
            Op::Put { key, .. } | Op::Attach { key, .. } | Op::Delete(key) | Op::Get(key) => {
                self.may_read_key(key)
            }
            Op::DeleteRange(range) | Op::Keys { range, .. } => self.may_read(range),
            Op::Move(Move { from, to, .. }) => {
                [from, to].iter().try_for_each(|prefix| self.may_read(&KeyRange::prefix(prefix)))
            }
        })
    }

    pub(super) fn at(&self, key: &Key, revision: i64) -> Option<&KeyValue> {
        let versions = self.keys.get(key)?;
        let past = versions.partition_point(|(made, _)| *made <= revision);
        versions[..past].last()?.1.as_ref()
    }

    pub(super) fn range(&self, range: &KeyRange, revision: i64) -> impl Iterator<Item = &KeyValue> {
        let end = range.end.clone().map_or(Bound::Unbounded, |end| Bound::Excluded(Key::from(end)));
        let bounds = (Bound::Included(Key::from(range.start.clone())), end);
        let keys = (!range.is_empty()).then(|| self.keys.range(bounds));
        keys.into_iter().flatten().filter_map(move |(key, _)| self.at(key, revision))
    }

    pub(super) fn revision(&self, how: Freshness) -> Result<i64, RemoteError> {
        match how {
            Freshness::Linearizable => Ok(self.head),
            Freshness::AtLeast(revision) | Freshness::Exactly(revision) if revision.0 > self.head => {
                Err(RemoteError::FutureRevision)
            }
            Freshness::AtLeast(_) => Ok(self.head),
            Freshness::Exactly(revision) if revision.0 < self.compacted => {
                Err(RemoteError::Compacted(Some(Revision(self.compacted))))
            }
            Freshness::Exactly(revision) => Ok(revision.0),
        }
    }

    fn holds(&self, compare: &Compare) -> bool {
        let now = |key| self.at(key, self.head);
        match compare {
            Compare::Unchanged(key, revision) => now(key).is_some_and(|kv| kv.mod_revision == *revision),
            Compare::Absent(key) => now(key).is_none(),
            Compare::Present(key) => now(key).is_some(),
            Compare::SameSince(key, revision) => now(key).is_some_and(|kv| kv.create_revision == *revision),
            Compare::NothingIn(range) => self.range(range, self.head).next().is_none(),
            Compare::NotPutSince(range, revision) => {
                self.range(range, self.head).all(|kv| kv.mod_revision <= *revision)
            }
        }
    }

    pub(super) fn commit(&mut self, change: Change) -> Result<Committed, RemoteError> {
        let succeeded = change.compares.iter().all(|compare| self.holds(compare));
        let ops = if succeeded { change.then } else { change.otherwise };
        let mut made = Made { revision: self.head + 1, events: Vec::new() };
        self.admit(&ops)?;
        let answers = ops.into_iter().map(|op| self.apply(op, &mut made)).collect();
        if !made.events.is_empty() {
            self.head = made.revision;
            self.log.push(Changed { revision: Revision(made.revision), events: made.events });
        }
        Ok(Committed { revision: Revision(self.head), succeeded, answers })
    }

    fn admit_move(&self, one: &Move) -> Result<(), RemoteError> {
        let below = |prefix| -> Vec<&KeyValue> { self.range(&KeyRange::prefix(prefix), self.head).collect() };
        if self.plain {
            return Err(RemoteError::UnknownCall("moves".to_owned()));
        }
        if !one.replace && !below(&one.to).is_empty() {
            return Err(RemoteError::Unsupported("keys lie below the new prefix".to_owned()));
        }
        let size: usize = below(&one.from).iter().map(|kv| 3 * kv.key.len() + kv.value.len()).sum();
        if size > REQUEST_BYTES_MAX { Err(RemoteError::TooLarge) } else { Ok(()) }
    }

    fn move_below(&mut self, one: &Move, made: &mut Made) {
        let below =
            |prefix| -> Vec<KeyValue> { self.range(&KeyRange::prefix(prefix), self.head).cloned().collect() };
        let (kvs, there) = (below(&one.from), below(&one.to));
        let renamed = |kv: &KeyValue| Key::from(Bytes::from([&one.to, &kv.key[one.from.len()..]].concat()));
        let new: Vec<Key> = kvs.iter().map(renamed).collect();
        kvs.iter().for_each(|kv| self.remove(kv.key.clone(), made));
        there.into_iter().filter(|kv| !new.contains(&kv.key)).for_each(|kv| self.remove(kv.key, made));
        for (kv, key) in kvs.into_iter().zip(new) {
            self.write(key, kv.value, kv.lease, made);
        }
    }

    /// What the server refuses, it refuses whole.
    fn admit(&self, ops: &[Op]) -> Result<(), RemoteError> {
        let mut written = Vec::new();
        let mut size = 0;
        for op in ops {
            let lease = match op {
                Op::Put { lease: Lease::To(lease), .. } => Some(*lease),
                Op::Attach { lease, .. } => *lease,
                _ => None,
            };
            if lease.is_some_and(|lease| !self.leases.contains_key(&lease.0)) {
                return Err(RemoteError::NoSuchLease);
            }
            if let Op::Move(one) = op {
                self.admit_move(one)?;
            }
            match op {
                Op::Put { key, lease: Lease::Keep, .. } | Op::Attach { key, .. }
                    if self.at(key, self.head).is_none() =>
                {
                    return Err(RemoteError::Invalid("etcdserver: key not found".to_owned()));
                }
                Op::Put { key, value, .. } => size += key.len() + value.len(),
                _ => {}
            }
            if let Op::Put { key, .. } | Op::Attach { key, .. } = op {
                if key.is_empty() {
                    return Err(RemoteError::Invalid("etcdserver: key is not provided".to_owned()));
                }
                if written.contains(&key) {
                    return Err(RemoteError::Invalid(
                        "etcdserver: duplicate key given in txn request".to_owned(),
                    ));
                }
                written.push(key);
            }
        }
        if size > REQUEST_BYTES_MAX { Err(RemoteError::TooLarge) } else { Ok(()) }
    }

    fn apply(&mut self, op: Op, made: &mut Made) -> Answer {
        let now = made.revision;
        match op {
            Op::Put { key, value, lease } => {
                let lease = match lease {
                    Lease::None => None,
                    Lease::Keep => self.at(&key, now).and_then(|kv| kv.lease),
                    Lease::To(lease) => Some(lease),
                };
                self.write(key, value, lease, made);
            }
            Op::Attach { key, lease } => {
                let value = self.at(&key, now).map(|kv| kv.value.clone()).unwrap_or_default();
                self.write(key, value, lease, made);
            }
            Op::Delete(key) => self.remove(key, made),
            Op::Move(one) => self.move_below(&one, made),
            Op::DeleteRange(range) => {
                let keys: Vec<Key> = self.range(&range, now).map(|kv| kv.key.clone()).collect();
                for key in keys {
                    self.remove(key, made);
                }
            }
            Op::Get(key) => return Answer::Got(self.at(&key, now).cloned()),
            Op::Keys { range, limit } => {
                let keys = self.range(&range, now).take(limit as usize).map(|kv| kv.key.clone());
                return Answer::Keys(keys.collect());
            }
        }
        Answer::Done
    }

    fn write(&mut self, key: Key, value: Bytes, lease: Option<LeaseId>, made: &mut Made) {
        let revision = Revision(made.revision);
        let (create_revision, version) = match self.at(&key, made.revision) {
            Some(old) => (old.create_revision, old.version + 1),
            None => (revision, 1),
        };
        let kv =
            KeyValue { key: key.clone(), value, create_revision, mod_revision: revision, version, lease };
        made.events.push(Event::Put(kv.clone()));
        self.keys.entry(key).or_default().push((made.revision, Some(kv)));
    }

    fn remove(&mut self, key: Key, made: &mut Made) {
        if self.at(&key, made.revision).is_some() {
            made.events.push(Event::Delete(key.clone()));
            self.keys.entry(key).or_default().push((made.revision, None));
        }
    }

    pub(super) fn end_lease(&mut self, lease: LeaseId) {
        if self.leases.remove(&lease.0).is_none() {
            return;
        }
        let all = KeyRange::prefix(&Bytes::new());
        let attached = self.range(&all, self.head).filter(|kv| kv.lease == Some(lease));
        let then: Vec<Op> = attached.map(|kv| Op::Delete(kv.key.clone())).collect();
        self.commit(Change { then, ..Change::default() }).expect("deletes are never refused");
    }
}

/// A revision in the making.
struct Made {
    revision: i64,
    events: Vec<Event>,
}
