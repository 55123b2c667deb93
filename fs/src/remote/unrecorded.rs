//! A server on which the mount's user may keep no records of directories: they are kept here instead, so that empty
//! directories last as long as the mount does, and no other mount sees them.
//!
//! What is about records is answered here and never sent; all else goes to the server as it is. A change that is
//! about both is made here once the server has made its part of it; those that touch records take turns.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use etcfs_proto::key::{KeyRange, KeySet};
use futures_util::FutureExt as _;
use parking_lot::Mutex;

use super::{
    Answer, At, Call, Change, Children, ChildrenRequest, Committed, Compare, Freshness, KeyValue, LeaseFacts,
    LeaseId, Lookup, Move, Op, Page, PageRequest, Probe, Remote, RemoteError, Renewal, Revision, ServerFacts,
    Usage, Watch,
};
use crate::map::{DIR_RECORDS, Key};

/// The server, and the records that it is not asked for.
#[derive(Debug)]
pub struct Unrecorded {
    server: Arc<dyn Remote>,
    records: Records,
    /// Held by a change that touches records.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Records(Mutex<BTreeMap<Key, KeyValue>>);

impl Unrecorded {
    pub fn new(server: Arc<dyn Remote>) -> Self {
        Self { server, records: Records::default(), turn: tokio::sync::Mutex::default() }
    }

    /// The revision that an answer from here is of.
    fn revision(&self, how: Freshness) -> Revision {
        match how {
            Freshness::Linearizable => self.server.heard(),
            Freshness::AtLeast(revision) => self.server.heard().max(revision),
            Freshness::Exactly(revision) => revision,
        }
    }

    async fn change_both(&self, change: Change) -> Result<Committed, RemoteError> {
        let _turn = self.turn.lock().await;
        let Change { compares, then, otherwise } = change;
        let (ours, compares): (Vec<_>, Vec<_>) = compares.into_iter().partition(compares_records);
        if !ours.iter().all(|compare| self.records.hold(compare)) {
            let mut answers = Vec::with_capacity(otherwise.len());
            for op in otherwise {
                answers.push(self.ask(op).await?);
            }
            return Ok(Committed { revision: self.server.heard(), succeeded: false, answers });
        }
        let theirs = |ops: &[Op]| ops.iter().filter(|op| !is_about_records(op)).cloned().collect();
        let sent = Change { compares, then: theirs(&then), otherwise: theirs(&otherwise) };
        let Committed { revision, succeeded, answers } = self.server.commit(sent).await?;
        let mut theirs = answers.into_iter();
        let branch = if succeeded { then } else { otherwise };
        let answers = branch.into_iter().map(|op| {
            if is_about_records(&op) {
                Ok(self.records.apply(op, revision))
            } else {
                theirs.next().ok_or(RemoteError::Protocol("fewer answers than there were questions"))
            }
        });
        Ok(Committed { revision, succeeded, answers: answers.collect::<Result<_, _>>()? })
    }

    /// What a change reads where it is not made.
    async fn ask(&self, op: Op) -> Result<Answer, RemoteError> {
        let how = Freshness::Linearizable;
        Ok(match op {
            Op::Get(key) => Answer::Got(self.get(key, how).await?.found),
            Op::Keys { range, limit } => {
                let page = self.page(PageRequest { range, limit, keys_only: true, how }).await?;
                Answer::Keys(page.found.kvs.into_iter().map(|kv| kv.key).collect())
            }
            Op::Put { .. } | Op::Attach { .. } | Op::Delete(_) | Op::DeleteRange(_) | Op::Move(_) => {
                Answer::Done
            }
        })
    }
}

impl Records {
    fn get(&self, key: &Key, at: Revision) -> Option<KeyValue> {
        self.0.lock().get(key).filter(|kv| kv.create_revision <= at).cloned()
    }

    fn page(&self, range: &KeyRange, limit: u32, at: Revision) -> Page {
        let records = self.0.lock();
        let inside = |kv: &&KeyValue| range.contains(&kv.key) && kv.create_revision <= at;
        let mut found = records.values().filter(inside);
        let kvs = found.by_ref().take(limit.max(1) as usize).cloned().collect();
        Page { kvs, more: found.next().is_some() }
    }

    fn hold(&self, compare: &Compare) -> bool {
        let records = self.0.lock();
        match compare {
            Compare::Unchanged(key, revision) => {
                records.get(key).is_some_and(|kv| kv.mod_revision == *revision)
            }
            Compare::Absent(key) => !records.contains_key(key),
            Compare::Present(key) => records.contains_key(key),
            Compare::SameSince(key, revision) => {
                records.get(key).is_some_and(|kv| kv.create_revision == *revision)
            }
            Compare::NothingIn(range) => !records.keys().any(|key| range.contains(key)),
            Compare::NotPutSince(range, revision) => {
                records.values().all(|kv| !range.contains(&kv.key) || kv.mod_revision <= *revision)
            }
        }
    }

    fn apply(&self, op: Op, revision: Revision) -> Answer {
        match op {
            Op::Put { key, value, .. } => {
                let mut records = self.0.lock();
                let before = records.get(&key).map(|kv| (kv.create_revision, kv.version));
                let (create_revision, version) = before.unwrap_or((revision, 0));
                let kv = KeyValue {
                    key: key.clone(),
                    value,
                    create_revision,
                    mod_revision: revision,
                    version: version + 1,
                    lease: None,
                };
                records.insert(key, kv);
            }
            Op::Delete(key) => drop(self.0.lock().remove(&key)),
            Op::DeleteRange(range) => self.0.lock().retain(|key, _| !range.contains(key)),
            Op::Get(key) => return Answer::Got(self.get(&key, revision)),
            Op::Keys { range, limit } => {
                let page = self.page(&range, limit, revision);
                return Answer::Keys(page.kvs.into_iter().map(|kv| kv.key).collect());
            }
            // Records have no leases, and nobody is told that there are moves.
            Op::Attach { .. } | Op::Move(_) => {}
        }
        Answer::Done
    }
}

fn is_record(key: &[u8]) -> bool {
    key.starts_with(DIR_RECORDS)
}

fn compares_records(compare: &Compare) -> bool {
    match compare {
        Compare::Unchanged(key, _)
        | Compare::Absent(key)
        | Compare::Present(key)
        | Compare::SameSince(key, _) => is_record(key),
        Compare::NothingIn(range) | Compare::NotPutSince(range, _) => is_record(&range.start),
    }
}

fn is_about_records(op: &Op) -> bool {
    match op {
        Op::Put { key, .. } | Op::Attach { key, .. } | Op::Delete(key) | Op::Get(key) => is_record(key),
        Op::DeleteRange(range) | Op::Keys { range, .. } => is_record(&range.start),
        Op::Move(Move { from, .. }) => is_record(from),
    }
}

impl Remote for Unrecorded {
    fn get(&self, key: Key, how: Freshness) -> Call<'_, At<Option<KeyValue>>> {
        if !is_record(&key) {
            return self.server.get(key, how);
        }
        let revision = self.revision(how);
        async move { Ok(At { revision, found: self.records.get(&key, revision) }) }.boxed()
    }

    fn lookup(&self, probes: Vec<Probe>, how: Freshness) -> Call<'_, At<Vec<Lookup>>> {
        async move {
            // Asked for instead of records, since something must be: what the answer is known of anyway.
            let asked = probes.iter().map(|probe| Probe { records: probe.below.clone(), ..probe.clone() });
            let At { revision, mut found } = self.server.lookup(asked.collect(), how).await?;
            for (probe, found) in probes.iter().zip(&mut found) {
                let page = self.records.page(&probe.records, 1, revision);
                found.record = page.kvs.into_iter().next().map(|kv| kv.key);
            }
            Ok(At { revision, found })
        }
        .boxed()
    }

    fn page(&self, page: PageRequest) -> Call<'_, At<Page>> {
        if !is_record(&page.range.start) {
            return self.server.page(page);
        }
        let revision = self.revision(page.how);
        async move { Ok(At { revision, found: self.records.page(&page.range, page.limit, revision) }) }
            .boxed()
    }

    fn children(&self, request: ChildrenRequest) -> Call<'_, Option<At<Children>>> {
        if is_record(&request.prefix) { async { Ok(None) }.boxed() } else { self.server.children(request) }
    }

    fn moves(&self) -> bool {
        false
    }

    fn commit(&self, change: Change) -> Call<'_, Committed> {
        let mut ops = change.then.iter().chain(&change.otherwise);
        if ops.any(is_about_records) || change.compares.iter().any(compares_records) {
            self.change_both(change).boxed()
        } else {
            self.server.commit(change)
        }
    }

    fn watch(&self, ranges: Vec<KeyRange>, from: Revision) -> Watch {
        let sent = ranges.into_iter().filter(|range| !is_record(&range.start));
        self.server.watch(sent.collect(), from)
    }

    fn lease_grant(&self, ttl_seconds: i64) -> Call<'_, LeaseId> {
        self.server.lease_grant(ttl_seconds)
    }

    fn lease_facts(&self, lease: LeaseId) -> Call<'_, Option<LeaseFacts>> {
        self.server.lease_facts(lease)
    }

    fn leases(&self) -> Call<'_, Vec<LeaseId>> {
        self.server.leases()
    }

    fn lease_keys(&self, lease: LeaseId) -> Call<'_, Option<Vec<Key>>> {
        self.server.lease_keys(lease)
    }

    fn lease_revoke(&self, lease: LeaseId) -> Call<'_, ()> {
        self.server.lease_revoke(lease)
    }

    fn keep_alive(&self, lease: LeaseId) -> Renewal {
        self.server.keep_alive(lease)
    }

    fn usage(&self, ranges: Vec<KeyRange>) -> Call<'_, Usage> {
        self.server.usage(ranges.into_iter().filter(|range| !is_record(&range.start)).collect())
    }

    fn server(&self) -> Call<'_, ServerFacts> {
        self.server.server()
    }

    fn changes(&self) -> String {
        self.server.changes()
    }

    fn readable(&self) -> Call<'_, Option<KeySet>> {
        self.server.readable()
    }

    fn may_write(&self, key: &[u8]) -> bool {
        self.server.may_write(key)
    }

    fn shown(&self) -> Option<String> {
        self.server.shown()
    }

    fn heard(&self) -> Revision {
        self.server.heard()
    }

    fn endpoints(&self) -> Vec<String> {
        self.server.endpoints()
    }

    fn time_of(&self, revision: Revision) -> SystemTime {
        self.server.time_of(revision)
    }

    fn time_of_next(&self) -> SystemTime {
        self.server.time_of_next()
    }

    fn close(&self) -> Call<'_, ()> {
        self.server.close()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::StreamExt as _;

    use super::*;
    use crate::remote::{Event, Watched, memory::Memory};

    fn record(dir: &str) -> Key {
        Key::from(Bytes::from(format!(".etcfs/dir//{dir}/")))
    }

    #[tokio::test]
    async fn records_are_kept_here_and_a_change_of_both_is_made_whole_or_not_at_all() {
        let memory = Memory::new();
        let server = Unrecorded::new(Arc::new(memory.clone()));
        let made = Change {
            compares: vec![Compare::Absent("/a".into()), Compare::Absent(record("a"))],
            then: vec![Op::put(record("a"), Bytes::new()), Op::put("/x".into(), "1".into())],
            otherwise: vec![Op::Get(record("a")), Op::Get("/x".into())],
        };
        let first = server.commit(made.clone()).await.unwrap();
        assert!(first.succeeded);
        assert_eq!(first.answers, [Answer::Done, Answer::Done]);
        assert!(memory.dump().keys().all(|key| !is_record(key)), "the server has none of it");
        // A compare of ours fails: nothing is sent, and what was asked for is told.
        let again = server.commit(made.clone()).await.unwrap();
        assert!(!again.succeeded);
        let [Answer::Got(Some(ours)), Answer::Got(Some(theirs))] = &again.answers[..] else {
            panic!("{again:?}");
        };
        assert_eq!((&ours.key, ours.mod_revision), (&record("a"), first.revision));
        assert_eq!(theirs.value, "1");
        // A compare of the server's fails: nothing is changed here.
        let refused = Change {
            compares: vec![Compare::Absent("/x".into()), Compare::Present(record("a"))],
            then: vec![Op::Delete(record("a"))],
            otherwise: vec![Op::Keys { range: KeyRange::prefix(&record("a").bytes()), limit: 2 }],
        };
        let refused = server.commit(refused).await.unwrap();
        assert!(!refused.succeeded);
        assert_eq!(refused.answers, [Answer::Keys(vec![record("a")])]);
        let probe = Probe {
            key: "/a".into(),
            below: KeyRange::prefix(&Bytes::from_static(b"/a/")),
            records: KeyRange::prefix(&record("a").bytes()),
        };
        let found = server.lookup(vec![probe], Freshness::Linearizable).await.unwrap().found;
        assert_eq!(found[0].record, Some(record("a")));
    }

    /// Every watch used to be one of all that is shown: the revisions of a key were those of all keys, and who
    /// waited for a lock did not hear of its end.
    #[tokio::test]
    async fn a_watch_is_of_what_is_asked_for_but_records() {
        let memory = Memory::new();
        let server = Unrecorded::new(Arc::new(memory.clone()));
        let first = memory.put("/other", "1");
        memory.put(".etcfs/dir//a/", "");
        memory.put("/a", "1");
        memory.put(".etcfs/lock//a/1", "1");
        let range = |prefix: &'static str| KeyRange::prefix(&Bytes::from_static(prefix.as_bytes()));
        let mut watch =
            server.watch(vec![range("/a"), range(".etcfs/dir//a/"), range(".etcfs/lock//a")], first);
        let mut heard = Vec::new();
        while heard.len() < 2 {
            if let Watched::Changed(changed) = watch.next().await.unwrap().unwrap() {
                heard.extend(changed.events.into_iter().map(|event| match event {
                    Event::Put(kv) => kv.key.to_string(),
                    Event::Delete(key) => key.to_string(),
                }));
            }
        }
        assert_eq!(heard, ["/a", ".etcfs/lock//a/1"]);
    }
}
