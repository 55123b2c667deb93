//! A server of whose keys the mount's user may read some: `-o visible=mine` shows those as if there were no others.
//!
//! What may not be read is never asked for: a range becomes its parts that may be. The directories at and above what
//! was granted are always there: each has a record that is kept here and can't be taken away. What was granted when
//! the mount began is all that it ever shows; the server is asked again for the rights once it refuses something, and
//! what they no longer hold is refused here, but for those directories.

mod change;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use etcfs_proto::key::{KeyRange, KeySet};
use futures_util::{FutureExt as _, StreamExt as _, stream};
use tokio::sync::watch;
use tokio::time::Instant;

use super::{
    At, Call, Change, Changed, Children, ChildrenRequest, Committed, Event, Freshness, KeyValue, LeaseFacts,
    LeaseId, Lookup, Page, PageRequest, Probe, Remote, RemoteError, Renewal, Revision, ServerFacts, Usage,
    Watch, Watched,
};
use crate::map::Key;

/// Where what is asked for is lost, the rights are asked for no more often.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Of the records that are kept here.
const ALWAYS: Revision = Revision(1);

/// The server, as far as its keys may be read.
#[derive(Debug)]
pub struct Visible(Arc<Inner>);

/// What may be asked for.
#[derive(Debug, Default)]
pub struct Limits {
    /// Keys that may be read when the mount begins, the mount's own records among them.
    pub read: KeySet,
    /// Keys that may be read and written.
    pub write: KeySet,
    /// Records that are never asked for, since they are kept in this process.
    pub kept: KeySet,
    /// Records of the directories that are always there.
    pub fixed: BTreeSet<Key>,
    /// The keys that the mount shows, for people.
    pub shown: KeySet,
}

#[derive(Debug)]
struct Inner {
    server: Arc<dyn Remote>,
    limits: Limits,
    rights: watch::Sender<Arc<Rights>>,
    /// When the server was asked for the rights last; held by who asks.
    asked: tokio::sync::Mutex<Instant>,
}

/// As of the last look.
#[derive(Debug, PartialEq, Eq)]
struct Rights {
    open: KeySet,
    /// What was open when the mount began and is no more.
    lost: KeySet,
}

impl Rights {
    /// The parts of a range that may be read; an error where all of it could be once.
    fn parts(&self, range: &KeyRange) -> Result<Vec<KeyRange>, RemoteError> {
        let parts = self.open.within(range);
        if parts.is_empty() && self.lost.covers(range) {
            return Err(RemoteError::PermissionDenied);
        }
        Ok(parts)
    }
}

/// What of the answers to the probes that were sent for a name is its own.
struct Place {
    /// So many were sent.
    count: usize,
    /// They ask for the name's key.
    key: bool,
    /// So many of them, from the first on, ask for what lies below, and for records.
    below: usize,
    records: usize,
    /// The record that is kept here.
    fixed: Option<Key>,
}

impl Place {
    fn found(self, answers: impl Iterator<Item = Lookup>) -> Lookup {
        let mut found = Lookup { record: self.fixed, ..Lookup::default() };
        for (at, answer) in answers.take(self.count).enumerate() {
            if at == 0 && self.key {
                found.kv = answer.kv;
            }
            if at < self.below {
                found.below = found.below.or(answer.below);
            }
            if at < self.records {
                found.record = found.record.or(answer.record);
            }
        }
        found
    }
}

impl Visible {
    pub fn new(server: Arc<dyn Remote>, limits: Limits) -> Self {
        let rights = Rights { open: limits.read.clone(), lost: KeySet::default() };
        let rights = watch::Sender::new(Arc::new(rights));
        Self(Arc::new(Inner { server, limits, rights, asked: Instant::now().into() }))
    }
}

impl Inner {
    fn rights(&self) -> Arc<Rights> {
        self.rights.borrow().clone()
    }

    /// Does it; where that is refused, once more if the rights turn out to be others than they were.
    async fn ask<T, F>(&self, ask: impl Fn(Arc<Rights>) -> F) -> Result<T, RemoteError>
    where
        F: Future<Output = Result<T, RemoteError>>,
    {
        let before = self.rights();
        match ask(before.clone()).await {
            Err(RemoteError::PermissionDenied) if self.have_changed(&before).await => {
                ask(self.rights()).await
            }
            answer => answer,
        }
    }

    /// Whether the rights are not those of `before`, after a refusal.
    async fn have_changed(&self, before: &Arc<Rights>) -> bool {
        let mut asked = self.asked.lock().await;
        if !Arc::ptr_eq(before, &self.rights()) {
            return true;
        }
        // With something lost, what is refused is refused here, as a rule.
        if before.lost.ranges().next().is_some() && asked.elapsed() < LOOK_AGAIN {
            return false;
        }
        let readable = self.server.readable().await;
        *asked = Instant::now();
        let lost = match readable {
            Ok(Some(mut readable)) => {
                readable.merge(self.limits.kept.clone());
                self.limits.read.without(&readable)
            }
            Ok(None) => KeySet::default(),
            Err(error) => {
                tracing::warn!(%error, "the user's rights can't be asked for");
                return false;
            }
        };
        let now = Rights { open: self.limits.read.without(&lost), lost };
        if now == **before {
            return false;
        }
        tracing::warn!(lost = spelled(&now.lost), "the user's rights to what the mount shows have changed");
        self.rights.send_replace(Arc::new(now));
        true
    }

    /// The revision that an answer from here is of.
    fn revision(&self, how: Freshness) -> Revision {
        match how {
            Freshness::Linearizable => self.server.heard(),
            Freshness::AtLeast(revision) => self.server.heard().max(revision),
            Freshness::Exactly(revision) => revision,
        }
    }

    /// The records of a range that are kept here.
    fn fixed(&self, range: &KeyRange) -> impl Iterator<Item = &Key> {
        self.limits.fixed.iter().filter(|key| range.contains(key))
    }

    fn is_fixed(&self, key: &Key) -> bool {
        self.limits.fixed.contains(key)
    }

    async fn lookup(
        &self,
        rights: &Rights,
        probes: &[Probe],
        how: Freshness,
    ) -> Result<At<Vec<Lookup>>, RemoteError> {
        let mut asked: Vec<Probe> = Vec::new();
        let mut places = Vec::with_capacity(probes.len());
        for probe in probes {
            let fixed = self.fixed(&probe.records).next().cloned();
            let key = match rights.parts(&KeyRange::single(&probe.key.bytes())) {
                Err(_) if fixed.is_some() => false,
                parts => !parts?.is_empty(),
            };
            let below = rights.open.within(&probe.below);
            let records = if fixed.is_none() { rights.open.within(&probe.records) } else { Vec::new() };
            let first = asked.len();
            for at in 0..below.len().max(records.len()).max(usize::from(key)) {
                let own = KeyRange::single(&probe.key.bytes());
                // In the place of what there is no more of, something that the server may be asked for: records may
                // be kept on the way to it, and then there are keys.
                let any = below.get(at).or(below.first()).or(records.get(at)).unwrap_or(&own).clone();
                asked.push(Probe {
                    key: if key { probe.key.clone() } else { first_key(&any) },
                    below: below.get(at).unwrap_or(&any).clone(),
                    records: records.get(at).unwrap_or(&any).clone(),
                });
            }
            let count = asked.len() - first;
            places.push(Place { count, key, below: below.len(), records: records.len(), fixed });
        }
        let At { revision, found } = if asked.is_empty() {
            At { revision: self.revision(how), found: Vec::new() }
        } else {
            self.server.lookup(asked, how).await?
        };
        let mut answers = found.into_iter();
        let found = places.into_iter().map(|place| place.found(answers.by_ref()));
        Ok(At { revision, found: found.collect() })
    }

    async fn page(&self, rights: &Rights, request: &PageRequest) -> Result<At<Page>, RemoteError> {
        let mut page = Page::default();
        let mut revision = None;
        for range in rights.parts(&request.range)? {
            let limit = request.limit.saturating_sub(page.kvs.len() as u32);
            if limit == 0 {
                page.more = true;
                break;
            }
            let how = revision.map_or(request.how, Freshness::Exactly);
            let part = PageRequest { range, limit, how, ..request.clone() };
            let At { revision: at, found } = self.server.page(part).await?;
            revision = Some(at);
            page.kvs.extend(found.kvs);
            page.more = found.more;
            if page.more {
                break;
            }
        }
        self.add_fixed(&request.range, request.limit, &mut page);
        Ok(At { revision: revision.unwrap_or_else(|| self.revision(request.how)), found: page })
    }

    /// Adds the records that are kept here to some that were read.
    fn add_fixed(&self, range: &KeyRange, limit: u32, page: &mut Page) {
        let read_to = page.kvs.last().filter(|_| page.more).map(|kv| kv.key.clone());
        page.kvs.retain(|kv| !self.is_fixed(&kv.key));
        let added = self.fixed(range).filter(|key| read_to.as_ref().is_none_or(|last| *key <= last));
        page.kvs.extend(added.map(record));
        page.kvs.sort_by(|one, two| one.key.cmp(&two.key));
        if page.kvs.len() > limit as usize {
            page.kvs.truncate(limit as usize);
            page.more = true;
        }
    }

    async fn get(
        &self,
        rights: &Rights,
        key: &Key,
        how: Freshness,
    ) -> Result<At<Option<KeyValue>>, RemoteError> {
        if self.is_fixed(key) {
            return Ok(At { revision: self.revision(how), found: Some(record(key)) });
        }
        if rights.parts(&KeyRange::single(&key.bytes()))?.is_empty() {
            return Ok(At { revision: self.revision(how), found: None });
        }
        self.server.get(key.clone(), how).await
    }

    /// What is left of the events of some ranges, and nothing that is not asked for.
    fn seen(&self, watched: Watched, ranges: &[KeyRange]) -> Watched {
        let Watched::Changed(Changed { revision, mut events }) = watched else { return watched };
        events.retain(|event| {
            let (Event::Put(KeyValue { key, .. }) | Event::Delete(key)) = event;
            !self.is_fixed(key) && ranges.iter().any(|range| range.contains(key))
        });
        Watched::Changed(Changed { revision, events })
    }
}

/// A record that is kept here.
fn record(key: &Key) -> KeyValue {
    KeyValue {
        key: key.clone(),
        value: Bytes::new(),
        create_revision: ALWAYS,
        mod_revision: ALWAYS,
        version: 1,
        lease: None,
    }
}

/// The first key that a range may hold: the empty one is none.
fn first_key(range: &KeyRange) -> Key {
    Key::from(if range.start.is_empty() { Bytes::from_static(b"\0") } else { range.start.clone() })
}

/// Ranges of keys, for people.
pub fn spelled(keys: &KeySet) -> String {
    let mut text = String::new();
    for range in keys.ranges() {
        if !text.is_empty() {
            text.push_str(", ");
        }
        let start = range.start.escape_ascii();
        // Writing into a string never fails.
        let _ok = match &range.end {
            _ if range.is_single() => write!(text, "key `{start}`"),
            _ if range == KeyRange::prefix(&range.start) => write!(text, "`{start}`"),
            Some(end) => write!(text, "`{start}` to before `{}`", end.escape_ascii()),
            None => write!(text, "from `{start}` on"),
        };
    }
    text
}

impl Remote for Visible {
    fn get(&self, key: Key, how: Freshness) -> Call<'_, At<Option<KeyValue>>> {
        let inner = &self.0;
        async move {
            let key = &key;
            inner.ask(|rights| async move { inner.get(&rights, key, how).await }).await
        }
        .boxed()
    }

    fn lookup(&self, probes: Vec<Probe>, how: Freshness) -> Call<'_, At<Vec<Lookup>>> {
        let inner = &self.0;
        async move {
            let probes = probes.as_slice();
            inner.ask(|rights| async move { inner.lookup(&rights, probes, how).await }).await
        }
        .boxed()
    }

    fn page(&self, page: PageRequest) -> Call<'_, At<Page>> {
        let inner = &self.0;
        async move {
            let page = &page;
            inner.ask(|rights| async move { inner.page(&rights, page).await }).await
        }
        .boxed()
    }

    fn children(&self, request: ChildrenRequest) -> Call<'_, Option<At<Children>>> {
        let inner = &self.0;
        async move {
            let (range, request) = (&KeyRange::prefix(&request.prefix), &request);
            inner
                .ask(|rights| async move {
                    // Elsewhere by pages of what may be read.
                    if !rights.open.covers(range) || inner.fixed(range).next().is_some() {
                        return Ok(None);
                    }
                    inner.server.children(request.clone()).await
                })
                .await
        }
        .boxed()
    }

    fn moves(&self) -> bool {
        self.0.server.moves()
    }

    fn commit(&self, change: Change) -> Call<'_, Committed> {
        let inner = &self.0;
        async move {
            let change = &change;
            inner.ask(|rights| async move { inner.commit(&rights, change).await }).await
        }
        .boxed()
    }

    fn watch(&self, ranges: Vec<KeyRange>, from: Revision) -> Watch {
        let mut changes = self.0.rights.subscribe();
        let rights = changes.borrow_and_update().clone();
        let parts = |rights: &Rights| -> Result<Vec<KeyRange>, RemoteError> {
            ranges.iter().try_fold(Vec::new(), |mut all, range| {
                all.extend(rights.parts(range)?);
                Ok(all)
            })
        };
        let own = match parts(&rights) {
            Ok(own) => own,
            Err(error) => return stream::once(async { Err(error) }).boxed(),
        };
        // Where nothing may be seen, the server's revision is.
        let asked = match rights.open.ranges().next() {
            Some(any) if own.is_empty() => vec![KeyRange::single(&first_key(&any).bytes())],
            _ => own.clone(),
        };
        let watch =
            if asked.is_empty() { stream::pending().boxed() } else { self.0.server.watch(asked, from) };
        let open = (self.0.clone(), watch, changes, rights, own, ranges);
        stream::unfold(Some(open), |open| async move {
            let (inner, mut watch, mut changes, mut rights, own, ranges) = open?;
            loop {
                let watched = tokio::select! {
                    watched = watch.next() => watched?,
                    Ok(()) = changes.changed() => {
                        rights = changes.borrow_and_update().clone();
                        let now: Vec<KeyRange> =
                            ranges.iter().flat_map(|range| rights.open.within(range)).collect();
                        if now == own {
                            continue;
                        }
                        return Some((Err(RemoteError::PermissionDenied), None));
                    }
                };
                return Some(match watched {
                    Ok(watched) => {
                        let seen = inner.seen(watched, &own);
                        (Ok(seen), Some((inner, watch, changes, rights, own, ranges)))
                    }
                    Err(error) => {
                        if error == RemoteError::PermissionDenied {
                            // Whatever comes of it, who goes on begins again.
                            inner.have_changed(&rights).await;
                        }
                        (Err(error), None)
                    }
                });
            }
        })
        .boxed()
    }

    fn lease_grant(&self, ttl_seconds: i64) -> Call<'_, LeaseId> {
        self.0.server.lease_grant(ttl_seconds)
    }

    fn lease_facts(&self, lease: LeaseId) -> Call<'_, Option<LeaseFacts>> {
        self.0.server.lease_facts(lease)
    }

    fn leases(&self) -> Call<'_, Vec<LeaseId>> {
        self.0.server.leases()
    }

    fn lease_keys(&self, lease: LeaseId) -> Call<'_, Option<Vec<Key>>> {
        self.0.server.lease_keys(lease)
    }

    fn lease_revoke(&self, lease: LeaseId) -> Call<'_, ()> {
        self.0.server.lease_revoke(lease)
    }

    fn keep_alive(&self, lease: LeaseId) -> Renewal {
        self.0.server.keep_alive(lease)
    }

    fn usage(&self, ranges: Vec<KeyRange>) -> Call<'_, Usage> {
        let rights = self.0.rights();
        let parts = ranges.iter().flat_map(|range| rights.open.within(range)).collect();
        self.0.server.usage(parts)
    }

    fn server(&self) -> Call<'_, ServerFacts> {
        self.0.server.server()
    }

    fn changes(&self) -> String {
        self.0.server.changes()
    }

    fn readable(&self) -> Call<'_, Option<KeySet>> {
        self.0.server.readable()
    }

    fn may_write(&self, key: &[u8]) -> bool {
        let key = Bytes::copy_from_slice(key);
        self.0.limits.write.contains(&key) && self.0.limits.read.contains(&key)
    }

    fn shown(&self) -> Option<String> {
        let mut text = spelled(&self.0.limits.shown);
        let rights = self.0.rights();
        let lost: KeySet = self.0.limits.shown.without(&rights.open);
        if lost.ranges().next().is_some() {
            text = format!("{text}; taken away since: {}", spelled(&lost));
        }
        Some(text)
    }

    fn heard(&self) -> Revision {
        self.0.server.heard()
    }

    fn endpoints(&self) -> Vec<String> {
        self.0.server.endpoints()
    }

    fn time_of(&self, revision: Revision) -> SystemTime {
        self.0.server.time_of(revision)
    }

    fn time_of_next(&self) -> SystemTime {
        self.0.server.time_of_next()
    }

    fn close(&self) -> Call<'_, ()> {
        self.0.server.close()
    }
}
