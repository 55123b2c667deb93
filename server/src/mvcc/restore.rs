//! Building the index from the image's rows, at start and after a snapshot.
//!
//! Rows come in the order of revisions, so each is the newest of its key when
//! it is met. Rows that a compaction drops but a crash kept from being deleted
//! are taken like the others; scrubbing begins anew and finds them.

use std::{
    collections::HashMap,
    mem,
    ops::ControlFlow,
    sync::{Arc, mpsc},
    thread,
};

use bytes::Bytes;
use etcfs_proto::etcfs::record;

use super::{
    FIRST_REVISION, Revision, Store, StoreOptions, Writer,
    revision::Stamp,
    row,
    store::{Inner, hot_cache},
    times::{Clock, Times},
    values::{Hot, Recent},
};
use crate::storage::{Engine, StorageError, keyspace::REVISIONS};

/// Rows handed on at a time.
const ROWS_CHUNK: usize = 4096;
/// Chunks that wait to be taken.
const CHUNKS_AHEAD: usize = 2;

type Chunk = Vec<(Revision, Bytes)>;

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
    // The next rows are read while these are taken.
    thread::scope(|scope| {
        let (sent, chunks) = mpsc::sync_channel(CHUNKS_AHEAD);
        let read = scope.spawn(move || read(&*engine, &sent));
        let taken = take_all(&mut inner, &mut attachments, hot, options, chunks);
        // Of rows that are not all there, a complaint about one is a consequence.
        read.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        taken
    })?;
    if inner.recent.is_empty() {
        inner.recent = Recent::starting_at(inner.applied + 1);
    }
    Ok((inner, attachments))
}

/// Reads every row of the engine and sends those of revisions, until nobody takes them any more.
fn read(engine: &dyn Engine, sent: &mpsc::SyncSender<Chunk>) -> Result<(), StorageError> {
    let mut chunk = Chunk::new();
    let mut failed = None;
    engine.scan(&mut |key, row| {
        if REVISIONS.start <= key && key < REVISIONS.end {
            match row::parse_row_key(key) {
                Ok(revision) => chunk.push((revision, Bytes::copy_from_slice(row))),
                Err(error) => failed = Some(error),
            }
        }
        let is_left = chunk.len() == ROWS_CHUNK && sent.send(mem::take(&mut chunk)).is_err();
        if is_left || failed.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    if let Some(error) = failed {
        return Err(error);
    }
    // Who takes no more has failed, and says why.
    sent.send(chunk).ok();
    Ok(())
}

fn take_all(
    inner: &mut Inner,
    attachments: &mut Attachments,
    hot: &Hot,
    options: &StoreOptions,
    chunks: mpsc::Receiver<Chunk>,
) -> Result<(), StorageError> {
    for (revision, row) in chunks.into_iter().flatten() {
        take(inner, attachments, hot, revision, row)?;
        // Only what fits the budget is kept on the way, and the newest, of which more may come.
        while inner.recent.bytes() as u64 > options.value_cache_bytes / 2 {
            let before_newest = inner.recent.newest() - 1;
            let Some((main, old)) = inner.recent.pop(before_newest) else { break };
            for (row, sub) in old.into_iter().zip(0..) {
                hot.insert(Revision { main, sub }, row);
            }
        }
    }
    Ok(())
}

fn take(
    inner: &mut Inner,
    attachments: &mut Attachments,
    hot: &Hot,
    revision: Revision,
    row: Bytes,
) -> Result<(), StorageError> {
    let kv = row::decode_head(revision, &row)?;
    if kv.key.is_empty() || kv.mod_revision != revision.main || revision.main > inner.applied {
        return Err(StorageError::Corrupt {
            what: format!("row {}", row::row_key(revision).escape_ascii()),
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
        inner.recent.push(revision, row);
    } else {
        // Compaction left holes among its revision's sub-revisions.
        hot.insert(revision, row);
    }
    Ok(())
}
