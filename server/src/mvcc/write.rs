//! The store's one writer.
//!
//! A [`WriteTxn`] adds changes at the next revision, which comes to be only if
//! there is a change. Each change goes into the index, into the rows in memory
//! and into a batch for the image; readers see none of it before
//! [`Writer::publish`].

use std::{ops::ControlFlow, sync::Arc};

use bytes::Bytes;
use etcfs_proto::mvccpb::KeyValue;

use super::{
    EventKind, Previous, ReadError, Revision, RevisionEvents, Store, View, WatchEvent,
    compact::Scrub,
    read::{Bounds, Need},
    revision::Stamp,
    row,
    store::Inner,
    times::{Clock, Times},
};
use crate::storage::{Batch, failpoint};

/// Adds revisions; there is one for each store.
#[derive(Debug)]
pub struct Writer {
    store: Arc<Store>,
    /// Newest revision, published or not.
    revision: i64,
    /// Newest compaction, published or not.
    compacted: i64,
    pub(super) scrub: Option<Scrub>,
    pub(super) clock: Clock,
}

impl Writer {
    pub(super) fn new(store: Arc<Store>, clock: Clock) -> Self {
        let (revision, compacted) = {
            let inner = store.inner.read();
            (inner.applied, inner.compacting)
        };
        Self { store, revision, compacted, scrub: None, clock }
    }

    pub(super) fn store(&self) -> &Arc<Store> {
        &self.store
    }

    pub(super) fn replace(&mut self, state: Inner, times: Times, clock: Clock) {
        (self.revision, self.compacted, self.scrub) = (state.applied, state.compacting, None);
        self.clock = clock;
        self.store.replace(state, times);
    }

    /// Newest revision, published or not.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// Newest compaction, published or not.
    pub fn compacted(&self) -> i64 {
        self.compacted
    }

    /// All that has been applied, published or not.
    pub fn view(&self) -> View<'_> {
        View::of_writer(&self.store, self.revision)
    }

    pub fn begin<'w>(&'w mut self, batch: &'w mut Batch) -> WriteTxn<'w> {
        WriteTxn { writer: self, batch, events: Vec::new() }
    }

    /// Makes a compaction effective for the requests that follow; for readers, with its publication.
    pub fn compact(&mut self, revision: i64) -> Result<(), ReadError> {
        if revision <= self.compacted {
            return Err(ReadError::Compacted);
        }
        if revision > self.revision {
            return Err(ReadError::FutureRevision);
        }
        self.compacted = revision;
        self.store.inner.write().compacting = revision;
        Ok(())
    }

    /// Lets readers see everything up to `revision`, and refuses them by the compactions up to it.
    pub fn publish(&self, revision: i64) {
        debug_assert!(revision <= self.revision);
        let mut inner = self.store.inner.write();
        if revision > inner.published {
            self.store.set_published(&mut inner, revision);
        }
        if inner.compacting <= inner.published {
            inner.compacted = inner.compacting;
        }
    }
}

/// Changes that share a revision.
#[derive(Debug)]
pub struct WriteTxn<'w> {
    writer: &'w mut Writer,
    batch: &'w mut Batch,
    events: Vec<WatchEvent>,
}

impl WriteTxn<'_> {
    /// The revision that a header reports: the new one, once there is a change.
    pub fn revision(&self) -> i64 {
        self.writer.revision + i64::from(!self.events.is_empty())
    }

    /// What the transaction sees: all before it and its own changes.
    pub fn view(&self) -> View<'_> {
        View::of_writer(&self.writer.store, self.revision())
    }

    pub fn put(&mut self, key: Bytes, value: Bytes, lease: i64) {
        let value = failpoint::spoil("mvcc-spoil-value", value);
        let revision = self.next();
        let store = Arc::clone(&self.writer.store);
        let (place, live, previous) = {
            let inner = store.inner.read();
            let place = inner.index.find(&key);
            let live = place.ok().and_then(|place| inner.index.at(place).history.live());
            let previous = live.map_or(Previous::None, |facts| before(&inner, facts.revision));
            (place, live, previous)
        };
        let (created, version) = live.map_or((revision.main, 1), |live| (live.created, live.version + 1));
        let kv =
            KeyValue { key, create_revision: created, mod_revision: revision.main, version, value, lease };
        // Encoded with no lock held. The place stays good: nobody else writes.
        let row = row::encode(&kv);
        let stamp = Stamp::put(revision, row.len(), lease != 0);
        {
            let mut inner = store.inner.write();
            inner.index.push(place, &kv.key, stamp, created, version);
            add_row(&mut inner, revision, &row);
        }
        self.record(revision, row, EventKind::Put, previous);
    }

    /// Deletes the keys within the request's range; gives them in order, with their pairs if asked.
    pub fn delete_range(
        &mut self,
        key: &[u8],
        range_end: &[u8],
        with_pairs: bool,
    ) -> Result<Deleted, ReadError> {
        let mut deleted = Deleted::default();
        let mut keys = Vec::new();
        let view = self.view();
        let need = Need { key: true, row: with_pairs, ..Need::default() };
        let mut found = Vec::new();
        view.walk(Bounds::of(key, range_end), false, need, |pair| {
            keys.push((pair.key.clone(), pair.facts.leased));
            if with_pairs {
                found.push(pair);
            }
            Ok(ControlFlow::Continue(()))
        })?;
        view.fill(&mut found)?;
        drop(view);
        deleted.pairs = found.iter().filter_map(|pair| pair.row.as_ref()).map(row::decode).collect();
        for (key, leased) in keys {
            self.delete(key.clone());
            deleted.keys.push((key, leased));
        }
        Ok(deleted)
    }

    /// Deletes a key that exists.
    pub(crate) fn delete(&mut self, key: Bytes) {
        let revision = self.next();
        let store = Arc::clone(&self.writer.store);
        let tombstone = row::tombstone(key, revision.main);
        let row = row::encode(&tombstone);
        let stamp = Stamp::tombstone(revision, row.len());
        let previous = {
            let mut inner = store.inner.write();
            let place = inner.index.find(&tombstone.key);
            let live = place.ok().and_then(|place| inner.index.at(place).history.live());
            let previous = live.map_or(Previous::None, |facts| before(&inner, facts.revision));
            inner.index.push(place, &tombstone.key, stamp, 0, 0);
            add_row(&mut inner, revision, &row);
            previous
        };
        self.record(revision, row, EventKind::Delete, previous);
    }

    /// Ends the transaction; `None` if it changed nothing.
    pub fn finish(self) -> Option<RevisionEvents> {
        if self.events.is_empty() {
            return None;
        }
        self.writer.revision += 1;
        let over_budget = {
            let mut inner = self.writer.store.inner.write();
            inner.applied = self.writer.revision;
            self.writer.store.is_over_budget(&inner)
        };
        if over_budget {
            self.writer.store.evict();
        }
        Some(RevisionEvents { revision: self.writer.revision, events: self.events.into() })
    }

    fn next(&self) -> Revision {
        let sub = u32::try_from(self.events.len()).expect("a request is far too small for so many changes");
        Revision { main: self.writer.revision + 1, sub }
    }

    fn record(&mut self, revision: Revision, row: Bytes, kind: EventKind, previous: Previous) {
        self.batch.put(row::row_key(revision), row.clone());
        // Key and value of the event share the row's buffer, not that of the whole log entry.
        self.events.push(WatchEvent { kind, kv: row::decode(&row), previous });
    }
}

/// What a deletion removed.
#[derive(Debug, Default)]
pub struct Deleted {
    /// In order; true: the key hung on a lease.
    pub keys: Vec<(Bytes, bool)>,
    /// Empty unless asked for.
    pub pairs: Vec<KeyValue>,
}

/// The pair that a change replaces: its row if that is in memory.
fn before(inner: &Inner, revision: Revision) -> Previous {
    match inner.recent.get(revision) {
        Some(row) => Previous::Row(row.clone()),
        None => Previous::At(revision),
    }
}

fn add_row(inner: &mut Inner, revision: Revision, row: &Bytes) {
    inner.recent.push(revision, row.clone());
    inner.bytes_in_use += row::size(row.len());
}
