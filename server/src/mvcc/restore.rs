//! Building the index from the image's rows, at start and after a snapshot.
//!
//! Rows come in the order of revisions, so each is the newest of its key when
//! it is met. Rows that a compaction drops but a crash kept from being deleted
//! are taken like the others; scrubbing begins anew and finds them.

use std::{
    collections::HashMap,
    sync::{Arc, mpsc},
    thread,
};

use bytes::Bytes;
use etcfs_proto::etcfs::record;

use super::{
    FIRST_REVISION, Store, StoreOptions, Writer,
    revision::Stamp,
    row,
    store::{Inner, hot_cache},
    times::{Clock, Times},
    values::{Hot, Recent},
};
use crate::storage::{
    Engine, StorageError,
    keyspace::{self, REVISIONS},
};

/// Rows read from the engine at a time.
const ROWS_CHUNK: usize = 4096;
/// Chunks that wait to be taken.
const CHUNKS_AHEAD: usize = 2;

/// The live keys that hang on a lease, as their rows say.
pub(crate) type Attachments = HashMap<Bytes, i64>;

impl Store {
    /// A store, and its writer, from the rows of an image whose meta row is `meta`.
    pub(crate) fn open(
        engine: Arc<dyn Engine>,
        meta: &record::Meta,
        options: &StoreOptions,
    ) -> Result<(Arc<Self>, Writer, Attachments), StorageError> {
        let hot = hot_cache(options);
        let times = Times::load(&*engine, meta.times_revision, meta.revision)?;
        let clock = Clock::of(&times, meta);
        let (inner, attachments) = load(engine, meta, &hot, options)?;
        let store = Arc::new(Self::new(inner, times, hot, options));
        while store.evict() {}
        Ok((Arc::clone(&store), Writer::new(store, clock), attachments))
    }
}

impl Writer {
    /// Replaces everything by the rows of another image.
    pub(crate) fn install(
        &mut self,
        engine: Arc<dyn Engine>,
        meta: &record::Meta,
        options: &StoreOptions,
    ) -> Result<Attachments, StorageError> {
        let times = Times::load(&*engine, meta.times_revision, meta.revision)?;
        let clock = Clock::of(&times, meta);
        // The old rows leave the cache with the swap; these would go with them.
        let (inner, attachments) = load(engine, meta, &Hot::new(0), options)?;
        self.replace(inner, times, clock);
        Ok(attachments)
    }
}

fn load(
    engine: Arc<dyn Engine>,
    meta: &record::Meta,
    hot: &Hot,
    options: &StoreOptions,
) -> Result<(Inner, Attachments), StorageError> {
    let mut inner = Inner::empty(Arc::clone(&engine));
    inner.applied = meta.revision.max(FIRST_REVISION);
    inner.published = inner.applied;
    (inner.compacting, inner.compacted) = (meta.compact_revision, meta.compact_revision);
    inner.scrubbed = meta.scrubbed_revision;
    let mut attachments = Attachments::new();
    // Reading rows takes longer than taking them: the next are read meanwhile.
    thread::scope(|scope| {
        let (sent, read) = mpsc::sync_channel(CHUNKS_AHEAD);
        scope.spawn(move || read_all(&*engine, &sent));
        for rows in read {
            for (row_key, row) in &rows? {
                take(&mut inner, &mut attachments, hot, row_key, row)?;
                // Only what fits the budget is kept on the way, and the newest, of which more may come.
                while inner.recent.bytes() as u64 > options.value_cache_bytes / 2 {
                    let before_newest = inner.recent.newest() - 1;
                    let Some((main, old)) = inner.recent.pop(before_newest) else { break };
                    for (row, sub) in old.into_iter().zip(0..) {
                        hot.insert(super::Revision { main, sub }, row);
                    }
                }
            }
        }
        Ok::<_, StorageError>(())
    })?;
    if inner.recent.is_empty() {
        inner.recent = Recent::starting_at(inner.applied + 1);
    }
    Ok((inner, attachments))
}

/// Sends all rows of revisions, until the first error or until nobody takes them any more.
fn read_all(engine: &dyn Engine, sent: &mpsc::SyncSender<Result<Vec<(Bytes, Bytes)>, StorageError>>) {
    let mut start = Bytes::from_static(REVISIONS.start);
    loop {
        let rows = engine.range(&start, REVISIONS.end, ROWS_CHUNK);
        let next = match &rows {
            Ok(rows) if rows.len() == ROWS_CHUNK => rows.last().map(|(last, _)| keyspace::successor(last)),
            _ => None,
        };
        if sent.send(rows).is_err() {
            return;
        }
        let Some(next) = next else { return };
        start = next;
    }
}

fn take(
    inner: &mut Inner,
    attachments: &mut Attachments,
    hot: &Hot,
    row_key: &Bytes,
    row: &Bytes,
) -> Result<(), StorageError> {
    let revision = row::parse_row_key(row_key)?;
    let kv = row::decode_stored(revision, row.clone())?;
    if kv.key.is_empty() || kv.mod_revision != revision.main || revision.main > inner.applied {
        return Err(StorageError::Corrupt {
            what: format!("row {}", row_key.escape_ascii()),
            reason: "it is of another revision than its key says, or of a later one than the image".into(),
        });
    }
    let stamp = if kv.version == 0 {
        attachments.remove(&kv.key);
        Stamp::tombstone(revision, row.len())
    } else {
        if kv.lease == 0 {
            attachments.remove(&kv.key);
        } else {
            attachments.insert(kv.key.clone(), kv.lease);
        }
        Stamp::put(revision, row.len(), kv.lease != 0)
    };
    let place = inner.index.find(&kv.key);
    inner.index.push(place, &kv.key, stamp, kv.create_revision, kv.version);
    inner.bytes_in_use += row::size(row.len());
    if revision.main > inner.compacted {
        inner.recent.push(revision, row.clone());
    } else {
        // Compaction left holes among its revision's sub-revisions.
        hot.insert(revision, row.clone());
    }
    Ok(())
}
