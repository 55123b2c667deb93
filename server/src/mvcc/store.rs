//! The state behind one lock, and the few numbers that everybody asks for.
//!
//! Readers take the lock shared for a chunk of keys at most; the writer takes
//! it for one change. What the writer has added but not published is in the
//! index already, at revisions that no reader looks at yet.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

use super::{
    FIRST_REVISION, NEVER_COMPACTED, Revision,
    index::Index,
    pins::Pins,
    row,
    times::Times,
    values::{Hot, Recent},
};
use crate::storage::{Engine, StorageError};

#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Budget of the rows kept in memory, half for the recent ones, half for older ones that are
    /// read often. Rows not yet in the image come on top.
    pub value_cache_bytes: u64,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self { value_cache_bytes: 128 << 20 }
    }
}

/// Every key with its history; share it in an `Arc`.
pub struct Store {
    /// Taken before every other lock in here and never held across a read of the engine.
    pub(crate) inner: RwLock<Inner>,
    pub(crate) times: RwLock<Times>,
    pub(crate) pins: Pins,
    pub(crate) hot: Hot,
    /// What the image surely holds. Rows up to it may leave memory.
    written: AtomicI64,
    /// `Inner::published`, for those who want no more than the number.
    published: AtomicI64,
    recent_bytes_max: usize,
    /// Callers that wait for a compaction's end; no other lock is taken under it.
    pub(crate) scrub_waiters: Mutex<Vec<ScrubWaiter>>,
}

pub(crate) type ScrubWaiter = (i64, Box<dyn FnOnce() + Send>);

/// The part under the lock.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) index: Index,
    pub(crate) recent: Recent,
    pub(crate) engine: Arc<dyn Engine>,
    /// Newest revision in the index.
    pub(crate) applied: i64,
    /// Newest revision that readers may see.
    pub(crate) published: i64,
    /// Newest compaction applied; readers are refused by it once it is published.
    pub(crate) compacting: i64,
    /// Readers below it are refused.
    pub(crate) compacted: i64,
    /// Newest compaction whose rows are all deleted.
    pub(crate) scrubbed: i64,
    /// Bytes of all rows in the index.
    pub(crate) bytes_in_use: u64,
    /// Counts replacements of the whole state: a reader that began before one can't go on.
    pub(crate) epoch: u64,
}

impl Inner {
    pub(crate) fn empty(engine: Arc<dyn Engine>) -> Self {
        Self {
            index: Index::default(),
            recent: Recent::starting_at(FIRST_REVISION + 1),
            engine,
            applied: FIRST_REVISION,
            published: FIRST_REVISION,
            compacting: NEVER_COMPACTED,
            compacted: NEVER_COMPACTED,
            scrubbed: NEVER_COMPACTED,
            bytes_in_use: 0,
            epoch: 0,
        }
    }
}

/// Revisions let go of under one hold of the lock.
const EVICT_CHUNK: usize = 256;

impl Store {
    pub(crate) fn new(inner: Inner, times: Times, hot: Hot, options: &StoreOptions) -> Self {
        Self {
            times: RwLock::new(times),
            pins: Pins::default(),
            hot,
            written: AtomicI64::new(inner.applied),
            published: AtomicI64::new(inner.published),
            recent_bytes_max: recent_budget(options),
            scrub_waiters: Mutex::default(),
            inner: RwLock::new(inner),
        }
    }

    /// Newest published revision.
    pub fn revision(&self) -> i64 {
        self.published.load(Ordering::Acquire)
    }

    /// Reads below it are refused; -1 where the store was never compacted.
    pub fn compact_revision(&self) -> i64 {
        self.inner.read().compacted
    }

    /// Bytes of all revisions that are not compacted away: the quota's measure.
    pub fn size_in_use(&self) -> u64 {
        self.inner.read().bytes_in_use
    }

    /// Keys that exist now.
    pub fn keys(&self) -> u64 {
        self.inner.read().index.live()
    }

    /// The image holds everything up to `revision`: its rows may leave memory.
    pub fn written(&self, revision: i64) {
        self.written.fetch_max(revision, Ordering::AcqRel);
        while self.evict() {}
    }

    /// Lets go of a chunk of recent rows beyond the budget. True: there may be more.
    pub(crate) fn evict(&self) -> bool {
        let written = self.written.load(Ordering::Acquire);
        let mut inner = self.inner.write();
        for _ in 0..EVICT_CHUNK {
            if !self.is_over_budget(&inner) {
                return false;
            }
            let Some((main, rows)) = inner.recent.pop(written) else { return false };
            for (row, sub) in rows.into_iter().zip(0..) {
                let revision = Revision { main, sub };
                let newest = inner
                    .index
                    .get(row::key(&row))
                    .is_some_and(|history| history.is_live() && history.last().revision() == revision);
                if newest {
                    self.hot.insert(revision, row);
                }
            }
        }
        true
    }

    pub(crate) fn is_over_budget(&self, inner: &Inner) -> bool {
        inner.recent.bytes() > self.recent_bytes_max
    }

    pub(crate) fn set_published(&self, inner: &mut Inner, revision: i64) {
        inner.published = revision;
        self.published.store(revision, Ordering::Release);
    }

    /// Puts another state in the place of the present one; running readers are told to start over.
    pub(crate) fn replace(&self, mut state: Inner, times: Times) {
        let mut inner = self.inner.write();
        state.epoch = inner.epoch + 1;
        self.hot.clear();
        self.written.store(state.applied, Ordering::Release);
        self.published.store(state.published, Ordering::Release);
        *self.times.write() = times;
        *inner = state;
    }

    /// The row of a revision that is in the index: from memory, else from the image.
    pub(crate) fn row(&self, engine: &dyn Engine, revision: Revision) -> Result<Bytes, StorageError> {
        if let Some(row) = self.hot.get(revision) {
            return Ok(row);
        }
        let key = row::row_key(revision);
        let row = engine.get(&key)?.ok_or_else(|| StorageError::Corrupt {
            what: format!("row {}", key.escape_ascii()),
            reason: "it is in the index but not in the image".into(),
        })?;
        Ok(row)
    }
}

/// Bytes of `value_cache_bytes` that the recent rows may take.
fn recent_budget(options: &StoreOptions) -> usize {
    usize::try_from(options.value_cache_bytes / 2).unwrap_or(usize::MAX)
}

/// A cache for the other half of the budget.
pub(crate) fn hot_cache(options: &StoreOptions) -> Hot {
    Hot::new(options.value_cache_bytes - options.value_cache_bytes / 2)
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = self.inner.read();
        f.debug_struct("Store")
            .field("published", &inner.published)
            .field("compacted", &inner.compacted)
            .field("keys", &inner.index.live())
            .finish_non_exhaustive()
    }
}
