//! Reading the store as it was at one revision.
//!
//! A [`View`] is pinned: what it may see stays until it is dropped. It walks
//! the index in chunks, so that the writer waits for no long range, and reads
//! values that are not in memory from the image with no lock held. A key's
//! facts (revisions, version) come from the index alone; so filters, counts,
//! most sorts and keys_only read no value.

use std::{collections::HashSet, ops::ControlFlow, sync::Arc};

use bytes::Bytes;
use etcfs_proto::{
    etcdserverpb::{
        RangeRequest, RangeResponse, ResponseHeader,
        range_request::{SortOrder, SortTarget},
    },
    mvccpb::KeyValue,
};

use super::{
    ReadError, Revision, Store,
    index::Entry,
    key_index::{Facts, facts},
    order::Sort,
    pins::Pin,
    row,
    store::Inner,
};
use crate::storage::Engine;

/// Index entries looked at with the lock held.
pub(crate) const WALK_CHUNK: usize = 1024;
/// Below so many entries a count simply walks.
const COUNT_WALK_MAX: usize = 2048;
/// A count from block sums is corrected for at most so many newer revisions.
const COUNT_CORRECTIONS_MAX: i64 = 2048;
/// Answers up to so many pairs leave the rows they read from the image in the cache.
const CACHED_PAIRS_MAX: usize = 1000;
/// Rows read from the image in one scan, if they lie close together.
const SCAN_ROWS: usize = 512;

/// What a pair takes in an answer that is made whole, beside its key and value.
pub(super) const PAIR_BYTES: usize = size_of::<Found>() + size_of::<KeyValue>();

/// The store at one revision.
#[derive(Debug)]
pub struct View<'a> {
    pub(super) store: &'a Store,
    pub(super) engine: Arc<dyn Engine>,
    /// What it shows.
    pub(super) at: i64,
    /// What a header reports: the newest revision.
    pub(super) current: i64,
    /// Older revisions than this can't be asked for.
    pub(super) compacted: i64,
    pub(super) epoch: u64,
    /// None for the writer's own view, since it alone could scrub, and for one that is pinned elsewhere.
    pub(super) pin: Option<Pin<'a>>,
}

/// The keys that a request names.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bounds<'a> {
    One(&'a [u8]),
    /// `[start, end)`; `None` is the end of the key space.
    Between(&'a [u8], Option<&'a [u8]>),
}

impl<'a> Bounds<'a> {
    pub(crate) fn of(key: &'a [u8], range_end: &'a [u8]) -> Self {
        match range_end {
            [] => Self::One(key),
            [0] => Self::Between(key, None),
            _ => Self::Between(key, Some(range_end)),
        }
    }
}

/// One pair that a walk met.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) facts: Facts,
    /// Given where `Need::key` is set.
    pub(crate) key: Bytes,
    /// The encoded pair, if asked for and in memory.
    pub(crate) row: Option<Bytes>,
}

impl Found {
    /// What it takes in an answer that is made whole.
    pub(super) fn held_bytes(&self, keys_only: bool) -> usize {
        PAIR_BYTES + if keys_only { self.key.len() } else { self.facts.row_bytes }
    }

    /// The pair without its value, from what the index knows, and its lease.
    pub(super) fn with_lease(self, lease: i64) -> KeyValue {
        let Facts { revision, created, version, .. } = self.facts;
        KeyValue {
            key: self.key,
            create_revision: created,
            mod_revision: revision.main,
            version,
            value: Bytes::new(),
            lease,
        }
    }
}

/// What of a pair a walk should bring along.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Need {
    /// `created` and `version`, which old revisions must count.
    pub(crate) facts: bool,
    pub(crate) key: bool,
    pub(crate) row: bool,
    /// About how many pairs the visitor will take; 0 is all.
    pub(crate) pairs: usize,
}

impl Store {
    /// A pinned view of `revision`; 0 or below is the newest.
    pub fn view(&self, revision: i64) -> Result<View<'_>, ReadError> {
        let inner = self.inner.read();
        let at = readable(revision, inner.published, inner.compacted)?;
        Ok(View {
            store: self,
            engine: Arc::clone(&inner.engine),
            at,
            current: inner.published,
            compacted: inner.compacted,
            epoch: inner.epoch,
            pin: Some(self.pins.pin(at)),
        })
    }

    /// Answers a range; the header holds the revision alone.
    pub fn range(&self, request: &RangeRequest) -> Result<RangeResponse, ReadError> {
        if request.range_end.is_empty()
            && !filters(request)
            && let Some(response) = self.one_from_memory(request)?
        {
            return Ok(response);
        }
        self.view(request.revision)?.range(request)
    }

    /// The short way for one key: one hold of the lock, no pin. `None`: its row is not in memory.
    fn one_from_memory(&self, request: &RangeRequest) -> Result<Option<RangeResponse>, ReadError> {
        let inner = self.inner.read();
        let at = readable(request.revision, inner.published, inner.compacted)?;
        let mut response = RangeResponse { header: header(inner.published), ..RangeResponse::default() };
        let Some(stamp) = inner.index.get(&request.key).and_then(|history| history.visible(at)) else {
            return Ok(Some(response));
        };
        response.count = 1;
        if request.count_only {
            return Ok(Some(response));
        }
        let row = inner.recent.get(stamp.revision()).cloned();
        drop(inner);
        let Some(row) = row.or_else(|| self.hot.get(stamp.revision())) else { return Ok(None) };
        let mut kv = row::decode(&row);
        if request.keys_only {
            kv.value = Bytes::new();
        }
        response.kvs.push(kv);
        Ok(Some(response))
    }
}

impl<'a> View<'a> {
    /// The writer's view of all it has applied, unpublished changes included.
    pub(crate) fn of_writer(store: &'a Store, revision: i64) -> Self {
        let inner = store.inner.read();
        Self {
            store,
            engine: Arc::clone(&inner.engine),
            at: revision,
            current: revision,
            compacted: inner.compacting,
            epoch: inner.epoch,
            pin: None,
        }
    }

    /// The revision that a header reports.
    pub fn current(&self) -> i64 {
        self.current
    }

    /// The revision that it shows.
    pub fn at(&self) -> i64 {
        self.at
    }

    /// Refuses a revision that a range in here may not name.
    pub fn check_revision(&self, revision: i64) -> Result<(), ReadError> {
        readable(revision, self.current, self.compacted).map(drop)
    }

    /// Answers a range, at the view's revision or an older one that the request names.
    pub fn range(&self, request: &RangeRequest) -> Result<RangeResponse, ReadError> {
        let older = self.older(request.revision)?;
        older.as_ref().unwrap_or(self).range_here(request)
    }

    /// The same, if its pairs take no more than `room` bytes, which become so many fewer. `None`: they take more.
    pub fn range_within(
        &self,
        request: &RangeRequest,
        room: &mut usize,
    ) -> Result<Option<RangeResponse>, ReadError> {
        let older = self.older(request.revision)?;
        older.as_ref().unwrap_or(self).range_here_within(request, room)
    }

    /// A view of the older revision that a request names, if it does.
    pub(super) fn older(&self, revision: i64) -> Result<Option<Self>, ReadError> {
        let at = readable(revision, self.current, self.compacted)?;
        if revision <= 0 || at == self.at {
            return Ok(None);
        }
        let pin = match &self.pin {
            Some(_) => {
                let inner = self.store.inner.read();
                readable(revision, inner.published, inner.compacted)?;
                Some(self.store.pins.pin(at))
            }
            None => None,
        };
        Ok(Some(Self { engine: Arc::clone(&self.engine), at, pin, ..*self }))
    }

    pub(super) fn range_here(&self, request: &RangeRequest) -> Result<RangeResponse, ReadError> {
        let mut all = usize::MAX;
        let answer = self.range_here_within(request, &mut all)?;
        Ok(answer.expect("nothing in memory takes more"))
    }

    fn range_here_within(
        &self,
        request: &RangeRequest,
        room: &mut usize,
    ) -> Result<Option<RangeResponse>, ReadError> {
        let bounds = Bounds::of(&request.key, &request.range_end);
        if request.count_only {
            let (header, count) = (header(self.current), self.count(bounds)?);
            return Ok(Some(RangeResponse { header, count, ..RangeResponse::default() }));
        }
        let plan = Plan::of(request);
        let (found, count) = match plan.sort {
            Some(sort) => self.sorted(bounds, &plan, sort, |pair| pair)?,
            None => {
                let (mut found, mut held) = (Vec::new(), 0);
                let count = self.take(bounds, &plan, |pair| {
                    held += pair.held_bytes(request.keys_only);
                    if held <= *room {
                        found.push(pair);
                    } else {
                        found = Vec::new();
                    }
                    Ok(())
                })?;
                if held > *room {
                    return Ok(None);
                }
                (found, count)
            }
        };
        let held = found.iter().map(|pair| pair.held_bytes(request.keys_only)).sum();
        let Some(left) = room.checked_sub(held) else { return Ok(None) };
        *room = left;
        self.answer(found, &plan, request.keys_only, count).map(Some)
    }

    /// Gives `taken` each pair that the answer may be made of; how many keys the range has.
    pub(super) fn take(
        &self,
        bounds: Bounds<'_>,
        plan: &Plan,
        mut taken: impl FnMut(Found) -> Result<(), ReadError>,
    ) -> Result<i64, ReadError> {
        let mut pairs = 0;
        let mut visible = 0;
        let mut cut = false;
        self.walk(bounds, plan.descending_walk, plan.need, |pair| {
            visible += 1;
            if plan.keeps(&pair.facts) {
                if plan.take_max == Some(pairs) {
                    cut = true;
                    return Ok(ControlFlow::Break(()));
                }
                pairs += 1;
                taken(pair)?;
            }
            Ok(ControlFlow::Continue(()))
        })?;
        // A walk to the end has seen every key there is.
        if cut { self.count(bounds) } else { Ok(visible) }
    }

    /// The answer that what was taken makes, in its order.
    pub(super) fn answer(
        &self,
        mut found: Vec<Found>,
        plan: &Plan,
        keys_only: bool,
        count: i64,
    ) -> Result<RangeResponse, ReadError> {
        let more = plan.limit.is_some_and(|limit| found.len() > limit);
        if let Some(limit) = plan.limit {
            found.truncate(limit);
        }
        let kvs = self.pairs(found, keys_only)?;
        Ok(RangeResponse { header: header(self.current), kvs, more, count })
    }

    /// The pair of one key.
    pub fn get(&self, key: &[u8]) -> Result<Option<KeyValue>, ReadError> {
        let mut found = Vec::new();
        self.walk(Bounds::One(key), false, Need { row: true, ..Need::default() }, |pair| {
            found.push(pair);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(self.pairs(found, false)?.pop())
    }

    /// True iff the key exists; reads no value.
    pub fn exists(&self, key: &[u8]) -> Result<bool, ReadError> {
        self.count(Bounds::One(key)).map(|count| count > 0)
    }

    /// Keys within `bounds`.
    pub(crate) fn count(&self, bounds: Bounds<'_>) -> Result<i64, ReadError> {
        if let Bounds::Between(start, end) = bounds {
            let inner = self.lock()?;
            let empty = end.is_some_and(|end| end <= start);
            if empty {
                return Ok(0);
            }
            if inner.index.entries_between_at_most(start, end) > COUNT_WALK_MAX
                && let Some(count) = count_by_blocks(&inner, self.at, start, end)
            {
                return Ok(count);
            }
        }
        let mut count = 0;
        self.walk(bounds, false, Need::default(), |_| {
            count += 1;
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(count)
    }

    /// Shows each pair within `bounds` to `visit`, in key order, with no lock held.
    pub(crate) fn walk(
        &self,
        bounds: Bounds<'_>,
        descending: bool,
        need: Need,
        mut visit: impl FnMut(Found) -> Result<ControlFlow<()>, ReadError>,
    ) -> Result<(), ReadError> {
        let (start, end) = match bounds {
            Bounds::One(key) => {
                let inner = self.lock()?;
                let place = inner.index.find(key).ok();
                let found = place.and_then(|place| self.found(&inner, inner.index.at(place), need));
                drop(inner);
                return found.map_or(Ok(()), |pair| visit(pair).map(drop));
            }
            Bounds::Between(start, end) if end.is_none_or(|end| start < end) => (start, end),
            Bounds::Between(..) => return Ok(()),
        };
        // Few where few are wanted; more if those turn out to be deleted or filtered out.
        let mut entries_max = if need.pairs == 0 { WALK_CHUNK } else { need.pairs.min(WALK_CHUNK) };
        // Where the next chunk begins; ascending, the key itself is part of it.
        let mut from: Option<Box<[u8]>> = None;
        loop {
            let inner = self.lock()?;
            let (chunk, next) = if descending {
                let upto = from.as_deref().or(end);
                self.chunk(&inner, inner.index.below(upto), need, entries_max, |key| start <= key)
            } else {
                let entries = inner.index.from(from.as_deref().unwrap_or(start));
                self.chunk(&inner, entries, need, entries_max, |key| end.is_none_or(|end| key < end))
            };
            // Ascending, `next` is the first key of the next chunk; descending, the last of this one.
            from = next.map(|place| match (descending, place) {
                (false, (_, upcoming)) => upcoming.key.clone(),
                (true, (last, _)) => last.key.clone(),
            });
            drop(inner);
            entries_max = WALK_CHUNK.min(entries_max * 4);
            for pair in chunk {
                if visit(pair)?.is_break() {
                    return Ok(());
                }
            }
            if from.is_none() {
                return Ok(());
            }
        }
    }

    /// Pairs of the first entries; with the last one taken and the one after it if there are more.
    fn chunk<'i>(
        &self,
        inner: &Inner,
        entries: impl Iterator<Item = &'i Entry>,
        need: Need,
        entries_max: usize,
        within: impl Fn(&[u8]) -> bool,
    ) -> (Vec<Found>, Option<(&'i Entry, &'i Entry)>) {
        let mut pairs = Vec::new();
        let mut last: Option<&Entry> = None;
        for (entry, seen) in entries.zip(0..) {
            if !within(&entry.key) {
                break;
            }
            if seen == entries_max {
                return (pairs, last.map(|last| (last, entry)));
            }
            pairs.extend(self.found(inner, entry, need));
            last = Some(entry);
        }
        (pairs, None)
    }

    fn found(&self, inner: &Inner, entry: &Entry, need: Need) -> Option<Found> {
        let facts = if need.facts {
            entry.history.facts(self.at)?
        } else {
            facts(entry.history.visible(self.at)?, 0, 0)
        };
        let key = if need.key { Bytes::copy_from_slice(&entry.key) } else { Bytes::new() };
        // A pair without its value still says its lease, which only the row knows.
        let row = if need.row || (need.key && facts.leased) {
            inner.recent.get(facts.revision).cloned()
        } else {
            None
        };
        Some(Found { facts, key, row })
    }

    fn pairs(&self, mut found: Vec<Found>, keys_only: bool) -> Result<Vec<KeyValue>, ReadError> {
        if !keys_only {
            self.fill(&mut found)?;
            let row = |pair: Found| pair.row.expect("each row was filled in or its lack reported");
            return Ok(found.into_iter().map(|pair| row::decode(&row(pair))).collect());
        }
        found.into_iter().map(|pair| self.without_value(pair)).collect()
    }

    pub(super) fn without_value(&self, pair: Found) -> Result<KeyValue, ReadError> {
        let lease = if pair.facts.leased {
            let mut one = [pair.clone()];
            self.fill(&mut one)?;
            one[0].row.as_ref().map_or(0, |row| row::decode(row).lease)
        } else {
            0
        };
        Ok(pair.with_lease(lease))
    }

    /// Looks among the recent rows for pairs whose walk has not, as it was to bring no rows along.
    pub(super) fn recall(&self, found: &mut [Found]) -> Result<(), ReadError> {
        for chunk in found.chunks_mut(WALK_CHUNK) {
            let inner = self.lock()?;
            for pair in chunk {
                pair.row = inner.recent.get(pair.facts.revision).cloned();
            }
        }
        Ok(())
    }

    /// Reads the rows that were not among the recent ones.
    pub(crate) fn fill(&self, found: &mut [Found]) -> Result<(), ReadError> {
        self.fill_keeping(found, found.len() <= CACHED_PAIRS_MAX)
    }

    /// `keep`: what was read from the image is worth its place in the cache.
    pub(super) fn fill_keeping(&self, found: &mut [Found], keep: bool) -> Result<(), ReadError> {
        let mut missing: Vec<&mut Found> = Vec::new();
        for pair in found.iter_mut().filter(|pair| pair.row.is_none()) {
            pair.row = self.store.hot.get(pair.facts.revision);
            if pair.row.is_none() {
                missing.push(pair);
            }
        }
        // In the image's order: keys loaded together lie together.
        missing.sort_unstable_by_key(|pair| pair.facts.revision);
        for group in missing.chunks_mut(SCAN_ROWS) {
            self.scan(group)?;
            for pair in group {
                let revision = pair.facts.revision;
                if pair.row.is_none() {
                    pair.row = Some(self.store.row(&*self.engine, revision)?);
                }
                if keep && let Some(row) = &pair.row {
                    self.store.hot.insert(revision, row.clone());
                }
            }
        }
        // The rows of a state that was replaced meanwhile may be anything.
        self.lock().map(drop)
    }

    /// Reads rows that lie close together in one go; others are left.
    fn scan(&self, sorted: &mut [&mut Found]) -> Result<(), ReadError> {
        let (Some(first), Some(last)) = (sorted.first(), sorted.last()) else { return Ok(()) };
        let (first, last) = (first.facts.revision, last.facts.revision);
        let span = usize::try_from(last.main - first.main).unwrap_or(usize::MAX);
        if sorted.len() < 8 || span > 4 * sorted.len() {
            return Ok(());
        }
        let end = Revision { main: last.main, sub: last.sub + 1 };
        let rows = self.engine.range(&row::row_key(first), &row::row_key(end), 4 * SCAN_ROWS)?;
        let mut rows = rows.into_iter().peekable();
        for pair in sorted {
            let wanted = row::row_key(pair.facts.revision);
            while rows.next_if(|(key, _)| *key < wanted).is_some() {}
            pair.row = rows.next_if(|(key, _)| *key == wanted).map(|(_, row)| row);
        }
        Ok(())
    }

    pub(super) fn lock(&self) -> Result<parking_lot::RwLockReadGuard<'a, Inner>, ReadError> {
        let inner = self.store.inner.read();
        // A snapshot took the state's place: its history below the snapshot is gone.
        if inner.epoch == self.epoch { Ok(inner) } else { Err(ReadError::Compacted) }
    }
}

/// Live keys now by block sums, corrected for what changed since `at`. `None`: too much has.
fn count_by_blocks(inner: &Inner, at: i64, start: &[u8], end: Option<&[u8]>) -> Option<i64> {
    // The index may be ahead of `applied` too, by a transaction on its way.
    let newest = inner.recent.newest().max(inner.applied);
    if newest - at > COUNT_CORRECTIONS_MAX {
        return None;
    }
    let mut count = i64::try_from(inner.index.live_between(start, end)).expect("a count of keys is an i64");
    let mut changed = HashSet::new();
    for main in at + 1..=newest {
        for row in inner.recent.revision(main)? {
            let key = row::key(row);
            if start <= key && end.is_none_or(|end| key < end) && changed.insert(key) {
                let history = inner.index.get(key)?;
                count += i64::from(history.visible(at).is_some()) - i64::from(history.is_live());
            }
        }
    }
    Some(count)
}

/// How to answer a range: etcd's order of work, done with as little walking as gives the same.
#[derive(Debug)]
pub(super) struct Plan {
    mod_revision: (i64, i64),
    create_revision: (i64, i64),
    pub(super) limit: Option<usize>,
    /// The walk may stop after so many pairs that pass the filters.
    take_max: Option<usize>,
    pub(super) descending_walk: bool,
    /// Where key order is not the answer.
    pub(super) sort: Option<Sort>,
    pub(super) need: Need,
}

impl Plan {
    pub(super) fn of(request: &RangeRequest) -> Self {
        let target = SortTarget::try_from(request.sort_target).unwrap_or(SortTarget::Key);
        let order = SortOrder::try_from(request.sort_order).unwrap_or(SortOrder::None);
        let limit = usize::try_from(request.limit).ok().filter(|&limit| limit > 0);
        let filtered = filters(request);
        let by_key = target == SortTarget::Key;
        // Key order needs no more than the limit, and one to know that there are more. etcd also
        // limits before it sorts by another target if no order is given: so do we.
        let early = by_key || (order == SortOrder::None && !filtered);
        let take_max = limit.filter(|_| early).map(|limit| limit.saturating_add(1));
        Self {
            mod_revision: (request.min_mod_revision, request.max_mod_revision),
            create_revision: (request.min_create_revision, request.max_create_revision),
            limit,
            take_max,
            descending_walk: by_key && order == SortOrder::Descend,
            sort: (!by_key).then_some((target, order == SortOrder::Descend)),
            need: Need {
                facts: request.keys_only || filtered || !by_key,
                key: request.keys_only,
                row: !request.keys_only || target == SortTarget::Value,
                pairs: take_max.unwrap_or(0),
            },
        }
    }

    /// How many pairs decide the answer: one more than it has tells that there are more.
    pub(super) fn wanted(&self) -> Option<usize> {
        self.limit.map(|limit| limit.saturating_add(1))
    }

    pub(super) fn keeps(&self, facts: &Facts) -> bool {
        within(facts.revision.main, self.mod_revision) && within(facts.created, self.create_revision)
    }
}

/// Bounds are inclusive; 0 is none.
fn within(revision: i64, (min, max): (i64, i64)) -> bool {
    (min == 0 || revision >= min) && (max == 0 || revision <= max)
}

fn filters(request: &RangeRequest) -> bool {
    request.min_mod_revision != 0
        || request.max_mod_revision != 0
        || request.min_create_revision != 0
        || request.max_create_revision != 0
}

/// The revision to read at, if it may be read.
fn readable(revision: i64, current: i64, compacted: i64) -> Result<i64, ReadError> {
    if revision > current {
        return Err(ReadError::FutureRevision);
    }
    let at = if revision <= 0 { current } else { revision };
    if at < compacted { Err(ReadError::Compacted) } else { Ok(at) }
}

pub(crate) fn header(revision: i64) -> Option<ResponseHeader> {
    Some(ResponseHeader { revision, ..ResponseHeader::default() })
}
