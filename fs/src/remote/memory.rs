//! A store in this process with the server's rules: revisions, history, compaction, leases, whole transactions,
//! watches from the past. It stands in for a server wherever a test is about the mount.
//!
//! Beside [`Remote`] it has what a test does behind the mount's back: other clients' changes, compaction, a lease
//! that ends, a server that goes away, an answer that is an error.

mod state;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use etcfs_proto::key::{KeyRange, KeySet};
use futures_util::FutureExt;
use futures_util::stream::{self, StreamExt};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use self::state::{Held, State};
use super::times::Times;
use super::{
    At, Call, Change, Changed, Child, Children, ChildrenRequest, Committed, Event, Freshness, KeyValue,
    LeaseFacts, LeaseId, Lookup, Op, Page, PageRequest, Probe, Remote, RemoteError, Renewal, Revision,
    ServerFacts, Usage, Watch, Watched,
};
use crate::map::Key;

/// Names in one answer.
const CHILDREN_PAGE: usize = 3;

/// A store in memory.
#[derive(Clone, Debug)]
pub struct Memory {
    state: Arc<Mutex<State>>,
    /// Counts what a waiting watch or call has to look at again.
    moved: watch::Sender<u64>,
    times: Arc<Times>,
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl Memory {
    pub fn new() -> Self {
        let state = State { head: 1, next_lease: 0x7000, ..State::default() };
        Self { state: Arc::new(Mutex::new(state)), moved: watch::Sender::new(0), times: Arc::default() }
    }

    /// From now on it has etcd's API and no more.
    pub fn be_plain(&self) {
        self.state.lock().plain = true;
    }

    /// From now on the mount's user may read this, or all, and write what he may read.
    pub fn allow(&self, readable: Option<KeySet>) {
        self.state.lock().readable = readable;
        self.wake();
    }

    /// Another client's put.
    pub fn put(&self, key: &str, value: &str) -> Revision {
        let key = Key::from(Bytes::copy_from_slice(key.as_bytes()));
        self.change(Change {
            then: vec![Op::put(key, Bytes::copy_from_slice(value.as_bytes()))],
            ..Change::default()
        })
        .expect("a put without compares is done")
        .revision
    }

    /// Another client's delete.
    pub fn delete(&self, key: &str) -> Revision {
        let key = Key::from(Bytes::copy_from_slice(key.as_bytes()));
        self.change(Change { then: vec![Op::Delete(key)], ..Change::default() })
            .expect("a delete without compares is done")
            .revision
    }

    /// Another client's transaction, also while the server is away for the mount.
    pub fn change(&self, change: Change) -> Result<Committed, RemoteError> {
        let done = self.state.lock().commit(change);
        self.wake();
        done
    }

    pub fn value(&self, key: &str) -> Option<Bytes> {
        Some(self.key_value(key)?.value)
    }

    pub fn key_value(&self, key: &str) -> Option<KeyValue> {
        let state = self.state.lock();
        state.at(&Key::from(Bytes::copy_from_slice(key.as_bytes())), state.head).cloned()
    }

    pub fn revision(&self) -> Revision {
        Revision(self.state.lock().head)
    }

    /// Transactions that the mount has sent.
    pub fn commits(&self) -> u64 {
        self.state.lock().commits
    }

    /// Every key with its value, the mount's records too.
    pub fn dump(&self) -> BTreeMap<Key, Bytes> {
        let state = self.state.lock();
        state
            .range(&KeyRange::prefix(&Bytes::new()), state.head)
            .map(|kv| (kv.key.clone(), kv.value.clone()))
            .collect()
    }

    pub fn compact(&self, revision: Revision) {
        let mut state = self.state.lock();
        state.compacted = state.compacted.max(revision.0);
        state.log.retain(|changed| changed.revision > revision);
    }

    /// Ends a lease as its expiry does.
    pub fn expire(&self, lease: LeaseId) {
        self.state.lock().end_lease(lease);
        self.wake();
    }

    /// Ends every lease whose time is over by tokio's clock.
    pub fn expire_due(&self) {
        let mut state = self.state.lock();
        let now = Instant::now();
        let due: Vec<i64> = state
            .leases
            .iter()
            .filter(|(_, held)| held.ends <= now && held.renewals == 0)
            .map(|(&id, _)| id)
            .collect();
        for id in due {
            state.end_lease(LeaseId(id));
        }
        drop(state);
        self.wake();
    }

    pub fn is_renewed(&self, lease: LeaseId) -> bool {
        self.state.lock().leases.get(&lease.0).is_some_and(|held| held.renewals > 0)
    }

    /// From now on no call is answered, until [`Memory::come_back`].
    pub fn go_away(&self) {
        self.state.lock().away = true;
        self.wake();
    }

    pub fn come_back(&self) {
        self.state.lock().away = false;
        self.wake();
    }

    /// The next call of the mount is answered with this.
    pub fn fail_next(&self, error: RemoteError) {
        self.state.lock().failures.push_back(error);
    }

    fn wake(&self) {
        self.moved.send_modify(|count| *count += 1);
    }

    fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut State) -> Result<T, RemoteError> + Send + 'static,
    ) -> Call<'_, T> {
        let mut moved = self.moved.subscribe();
        async move {
            // As a test's other tasks would see it: a call to a server gives up the thread.
            tokio::task::yield_now().await;
            loop {
                moved.borrow_and_update();
                if !self.state.lock().away {
                    break;
                }
                moved.changed().await.map_err(|_| RemoteError::Closed)?;
            }
            let (done, head) = {
                let mut state = self.state.lock();
                let done = match state.failures.pop_front() {
                    Some(error) => Err(error),
                    None => work(&mut state),
                };
                (done, state.head)
            };
            self.times.note(Revision(head), SystemTime::now());
            self.wake();
            done
        }
        .boxed()
    }
}

impl Remote for Memory {
    fn get(&self, key: Key, how: Freshness) -> Call<'_, At<Option<KeyValue>>> {
        self.call(move |state| {
            state.may_read_key(&key)?;
            let revision = state.revision(how)?;
            Ok(At { revision: Revision(revision), found: state.at(&key, revision).cloned() })
        })
    }

    fn lookup(&self, probes: Vec<Probe>, how: Freshness) -> Call<'_, At<Vec<Lookup>>> {
        self.call(move |state| {
            for probe in &probes {
                state.may_read_key(&probe.key)?;
                state.may_read(&probe.below)?;
                state.may_read(&probe.records)?;
            }
            let revision = state.revision(how)?;
            let found = probes.iter().map(|probe| Lookup {
                kv: state.at(&probe.key, revision).cloned(),
                below: state.range(&probe.below, revision).next().map(|kv| kv.key.clone()),
                record: state.range(&probe.records, revision).next().map(|kv| kv.key.clone()),
            });
            Ok(At { revision: Revision(revision), found: found.collect() })
        })
    }

    fn page(&self, page: PageRequest) -> Call<'_, At<Page>> {
        self.call(move |state| {
            state.may_read(&page.range)?;
            let revision = state.revision(page.how)?;
            let limit = page.limit.max(1) as usize;
            let mut kvs: Vec<KeyValue> =
                state.range(&page.range, revision).take(limit + 1).cloned().collect();
            let more = kvs.len() > limit;
            kvs.truncate(limit);
            if page.keys_only {
                kvs.iter_mut().for_each(|kv| kv.value = Bytes::new());
            }
            Ok(At { revision: Revision(revision), found: Page { kvs, more } })
        })
    }

    fn children(&self, request: ChildrenRequest) -> Call<'_, Option<At<Children>>> {
        self.call(move |state| {
            if state.plain {
                return Ok(None);
            }
            state.may_read(&KeyRange::prefix(&request.prefix))?;
            let revision = state.revision(request.how)?;
            let prefix = &request.prefix;
            let from = if request.from.is_empty() { prefix } else { &request.from };
            let mut range = KeyRange { start: from.clone(), ..KeyRange::prefix(prefix) };
            let mut found = Children::default();
            loop {
                let first = state.range(&range, revision).next().map(|kv| kv.key.clone());
                let Some(key) = first else { break };
                // Pages are short, so that there are some.
                if found.children.len() == CHILDREN_PAGE {
                    found.next = Some(range.start);
                    break;
                }
                let rest = key.bytes().slice(prefix.len()..);
                let slash = rest.iter().position(|&byte| byte == b'/');
                let name = rest.slice(..slash.unwrap_or(rest.len()));
                range.start = match slash {
                    None => etcfs_proto::key::successor(&key),
                    Some(_) => [prefix, &name, &b"0"[..]].concat().into(),
                };
                match found.children.iter_mut().find(|child| child.name == name) {
                    Some(child) => child.below = true,
                    None => {
                        found.children.push(Child { name, is_key: slash.is_none(), below: slash.is_some() });
                    }
                }
            }
            Ok(Some(At { revision: Revision(revision), found }))
        })
    }

    fn moves(&self) -> bool {
        !self.state.lock().plain
    }

    fn commit(&self, change: Change) -> Call<'_, Committed> {
        debug_assert!(!change.otherwise.iter().any(Op::writes), "the other branch only reads");
        self.call(move |state| {
            state.commits += 1;
            state.may_change(&change)?;
            state.commit(change)
        })
    }

    fn watch(&self, ranges: Vec<KeyRange>, from: Revision) -> Watch {
        let watcher = Watcher {
            memory: self.clone(),
            moved: self.moved.subscribe(),
            ranges,
            next: from.0,
            told: 0,
            lost: false,
            ended: false,
        };
        stream::unfold(watcher, |mut watcher| async move {
            let watched = watcher.next().await?;
            Some((watched, watcher))
        })
        .boxed()
    }

    fn lease_grant(&self, ttl_seconds: i64) -> Call<'_, LeaseId> {
        self.call(move |state| {
            if ttl_seconds > 9_000_000_000 {
                return Err(RemoteError::LeaseTooLong);
            }
            let id = state.next_lease;
            state.next_lease += 1;
            let ends = Instant::now() + Duration::from_secs(ttl_seconds.max(1).unsigned_abs());
            state.leases.insert(id, Held { granted_seconds: ttl_seconds, ends, renewals: 0 });
            Ok(LeaseId(id))
        })
    }

    fn lease_facts(&self, lease: LeaseId) -> Call<'_, Option<LeaseFacts>> {
        self.call(move |state| {
            Ok(state.leases.get(&lease.0).map(|held| LeaseFacts {
                granted_seconds: held.granted_seconds,
                left_seconds: held.ends.saturating_duration_since(Instant::now()).as_secs() as i64,
            }))
        })
    }

    fn leases(&self) -> Call<'_, Vec<LeaseId>> {
        self.call(|state| Ok(state.leases.keys().copied().map(LeaseId).collect()))
    }

    fn lease_keys(&self, lease: LeaseId) -> Call<'_, Option<Vec<Key>>> {
        self.call(move |state| {
            let all = KeyRange::prefix(&Bytes::new());
            let attached = state.range(&all, state.head).filter(|kv| kv.lease == Some(lease));
            let keys = attached.map(|kv| kv.key.clone()).collect();
            Ok(state.leases.contains_key(&lease.0).then_some(keys))
        })
    }

    fn lease_revoke(&self, lease: LeaseId) -> Call<'_, ()> {
        self.call(move |state| {
            if !state.leases.contains_key(&lease.0) {
                return Err(RemoteError::NoSuchLease);
            }
            state.end_lease(lease);
            Ok(())
        })
    }

    fn keep_alive(&self, lease: LeaseId) -> Renewal {
        struct Ends(Arc<Mutex<State>>, LeaseId);
        impl Drop for Ends {
            fn drop(&mut self) {
                if let Some(held) = self.0.lock().leases.get_mut(&self.1.0) {
                    held.renewals -= 1;
                    held.ends = Instant::now() + Duration::from_secs(held.granted_seconds.unsigned_abs());
                }
            }
        }
        if let Some(held) = self.state.lock().leases.get_mut(&lease.0) {
            held.renewals += 1;
        }
        Renewal::new(Ends(self.state.clone(), lease))
    }

    fn usage(&self, ranges: Vec<KeyRange>) -> Call<'_, Usage> {
        self.call(move |state| {
            let all = KeyRange::prefix(&Bytes::new());
            let in_use = state.range(&all, state.head).map(|kv| kv.key.len() + kv.value.len()).sum::<usize>();
            let keys = ranges.iter().map(|range| state.range(range, state.head).count()).sum::<usize>();
            Ok(Usage { quota_bytes: Some(2 << 30), in_use_bytes: in_use as u64, keys: keys as u64 })
        })
    }

    fn server(&self) -> Call<'_, ServerFacts> {
        self.call(|state| {
            let revision = Revision(state.head);
            Ok(ServerFacts { version: "memory".to_owned(), member: 1, leader: 1, revision })
        })
    }

    fn changes(&self) -> String {
        crate::map::rights::changes_of(None)
    }

    fn readable(&self) -> Call<'_, Option<KeySet>> {
        let readable = self.state.lock().readable.clone();
        async { Ok(readable) }.boxed()
    }

    fn may_write(&self, _key: &[u8]) -> bool {
        true
    }

    fn shown(&self) -> Option<String> {
        None
    }

    fn heard(&self) -> Revision {
        Revision(self.state.lock().head)
    }

    fn endpoints(&self) -> Vec<String> {
        vec!["memory".to_owned()]
    }

    fn time_of(&self, revision: Revision) -> SystemTime {
        self.times.time_of(revision, SystemTime::now())
    }

    fn time_of_next(&self) -> SystemTime {
        self.times.time_of_next(SystemTime::now())
    }

    fn close(&self) -> Call<'_, ()> {
        async { Ok(()) }.boxed()
    }
}

struct Watcher {
    memory: Memory,
    moved: watch::Receiver<u64>,
    ranges: Vec<KeyRange>,
    /// First revision not brought yet.
    next: i64,
    /// Newest that `UpTo` has told.
    told: i64,
    lost: bool,
    ended: bool,
}

impl Watcher {
    async fn next(&mut self) -> Option<Result<Watched, RemoteError>> {
        while !self.ended {
            self.moved.borrow_and_update();
            if let Some(watched) = self.look() {
                return Some(watched);
            }
            self.moved.changed().await.ok()?;
        }
        None
    }

    fn look(&mut self) -> Option<Result<Watched, RemoteError>> {
        let state = self.memory.state.lock();
        if state.away != self.lost {
            self.lost = state.away;
            return Some(Ok(if self.lost { Watched::Lost } else { Watched::Back }));
        }
        if self.lost {
            return None;
        }
        if let Err(error) = self.ranges.iter().try_for_each(|range| state.may_read(range)) {
            self.ended = true;
            return Some(Err(error));
        }
        if self.next <= state.compacted {
            self.ended = true;
            return Some(Err(RemoteError::Compacted(Some(Revision(state.compacted)))));
        }
        let from = state.log.partition_point(|changed| changed.revision.0 < self.next);
        for changed in &state.log[from..] {
            self.next = changed.revision.0 + 1;
            let events: Vec<Event> =
                changed.events.iter().filter(|event| self.watches(event)).cloned().collect();
            if !events.is_empty() {
                self.told = changed.revision.0;
                return Some(Ok(Watched::Changed(Changed { revision: changed.revision, events })));
            }
        }
        if state.head > self.told && state.head >= self.next - 1 {
            self.told = state.head;
            return Some(Ok(Watched::UpTo(Revision(state.head))));
        }
        None
    }

    fn watches(&self, event: &Event) -> bool {
        let key = match event {
            Event::Put(kv) => &kv.key,
            Event::Delete(key) => key,
        };
        self.ranges.iter().any(|range| range.contains(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remote::{Answer, Compare, Lease};

    fn key(text: &'static str) -> Key {
        Key::from(text)
    }

    #[tokio::test]
    async fn a_change_whose_compare_fails_changes_nothing_and_reads_what_is_there() {
        let memory = Memory::new();
        let made = memory.put("/a", "1");
        let change = Change {
            compares: vec![Compare::Absent(key("/a"))],
            then: vec![Op::put(key("/a"), "2".into())],
            otherwise: vec![Op::Get(key("/a"))],
        };
        let done = memory.commit(change).await.unwrap();
        assert!(!done.succeeded && done.revision == made);
        assert!(matches!(&done.answers[..], [Answer::Got(Some(kv))] if kv.value == "1"));
        assert_eq!(memory.revision(), made);
    }

    #[tokio::test]
    async fn versions_and_creation_start_again_after_a_delete() {
        let memory = Memory::new();
        memory.put("/a", "1");
        memory.put("/a", "2");
        let before = memory.key_value("/a").unwrap();
        memory.delete("/a");
        memory.put("/a", "3");
        let after = memory.key_value("/a").unwrap();
        assert_eq!((before.version, after.version), (2, 1));
        assert!(after.create_revision > before.mod_revision);
        let old = memory.get(key("/a"), Freshness::Exactly(before.mod_revision)).await.unwrap();
        assert_eq!(old.found, Some(before));
    }

    #[tokio::test]
    async fn a_watch_brings_whole_revisions_from_the_past_and_survives_an_absence() {
        let memory = Memory::new();
        let first = memory.put("/a", "1");
        memory.put("other", "x");
        let ranges = vec![KeyRange::prefix(&"/".into())];
        let mut watch = memory.watch(ranges.clone(), first);
        let Some(Ok(Watched::Changed(changed))) = watch.next().await else { panic!("the put of /a") };
        assert_eq!(changed.revision, first);
        assert_eq!(watch.next().await, Some(Ok(Watched::UpTo(memory.revision()))));
        memory.go_away();
        assert_eq!(watch.next().await, Some(Ok(Watched::Lost)));
        memory.put("/b", "2");
        memory.come_back();
        assert_eq!(watch.next().await, Some(Ok(Watched::Back)));
        assert!(matches!(watch.next().await, Some(Ok(Watched::Changed(_)))));
        memory.compact(memory.revision());
        let mut late = memory.watch(ranges, first);
        assert_eq!(late.next().await, Some(Err(RemoteError::Compacted(Some(memory.revision())))));
        assert_eq!(late.next().await, None);
    }

    #[tokio::test]
    async fn keys_go_with_their_lease_and_keep_it_over_a_put_that_says_so() {
        let memory = Memory::new();
        let lease = memory.lease_grant(20).await.unwrap();
        let put = |lease| Op::Put { key: key("/a"), value: "1".into(), lease };
        memory.change(Change { then: vec![put(Lease::To(lease))], ..Change::default() }).unwrap();
        memory.change(Change { then: vec![put(Lease::Keep)], ..Change::default() }).unwrap();
        assert_eq!(memory.key_value("/a").unwrap().lease, Some(lease));
        let renewal = memory.keep_alive(lease);
        assert!(memory.is_renewed(lease));
        drop(renewal);
        assert!(!memory.is_renewed(lease));
        memory.expire(lease);
        assert_eq!(memory.value("/a"), None);
        let refused = memory.change(Change { then: vec![put(Lease::To(lease))], ..Change::default() });
        assert_eq!(refused, Err(RemoteError::NoSuchLease));
    }
}
