//! Forgetting history: at once for readers, row by row on disk.
//!
//! A compaction is logical first: with the entry's publication, readers below
//! it are refused. Its rows are deleted ("scrubbed") in chunks between log
//! entries, once no reader from before the compaction is left. How far a scrub
//! has come is not stored, only that one has ended: after a restart it begins
//! anew, and finds only what was not deleted yet.

use std::sync::Arc;

use super::{Store, Writer, row, times::Needed};
use crate::storage::Batch;

/// Index entries looked at in one chunk, with the lock held.
const SCRUB_VISITS: usize = 2048;
/// Rows deleted in one chunk.
const SCRUB_ROWS: usize = 1000;
/// Rows of times looked at in one chunk.
const SCRUB_TIMES: usize = 4096;

/// A scrub on its way.
#[derive(Debug)]
pub(super) struct Scrub {
    at: i64,
    /// The key to go on with; `None` once all are seen.
    next: Option<Box<[u8]>>,
    /// Rows of times that stay.
    needed: Needed,
}

/// What [`Writer::scrub`] did.
#[derive(Debug)]
pub enum Scrubbed {
    /// Nothing to delete.
    Idle,
    /// A reader from before the compaction is still at work.
    Held,
    /// One chunk; go on.
    Chunk(Batch),
    /// The last chunk of the compaction at this revision, to be stored with the news that it ended.
    Last(Batch, i64),
}

impl Writer {
    /// True while rows of a compaction are still to be deleted.
    pub fn scrub_pending(&self) -> bool {
        let inner = self.store().inner.read();
        inner.scrubbed < inner.compacted
    }

    /// Deletes one chunk of rows of the newest published compaction.
    pub fn scrub(&mut self) -> Scrubbed {
        let store = Arc::clone(self.store());
        let mut inner = store.inner.write();
        if inner.scrubbed >= inner.compacted {
            return Scrubbed::Idle;
        }
        // Readers pin with the lock held, after the compaction's check: none below it can come now.
        if store.pins.oldest().is_some_and(|oldest| oldest < inner.compacted) {
            return Scrubbed::Held;
        }
        let mut scrub = match self.scrub.take() {
            // A newer compaction drops all that an older one would: begin with it.
            Some(scrub) if scrub.at == inner.compacted => scrub,
            _ => Scrub {
                at: inner.compacted,
                next: Some(Box::default()),
                needed: Needed::new(&store.times.read(), inner.compacted),
            },
        };
        let mut batch = Batch::default();
        let is_swept = match scrub.next.take() {
            Some(next) => {
                let Scrub { at, needed, .. } = &mut scrub;
                let times = store.times.read();
                let stays = |revision| needed.mark(&times, revision);
                let done = inner.index.compact(&next, *at, SCRUB_VISITS, SCRUB_ROWS, stays);
                for stamp in done.dropped {
                    inner.bytes_in_use -= row::size(stamp.row_bytes());
                    batch.delete(row::row_key(stamp.revision()));
                }
                scrub.next = done.next;
                scrub.next.is_none() && scrub.needed.is_empty()
            }
            None => scrub.needed.sweep(&mut store.times.write(), SCRUB_TIMES, &mut batch),
        };
        if !is_swept {
            drop(inner);
            self.scrub = Some(scrub);
            return Scrubbed::Chunk(batch);
        }
        inner.scrubbed = scrub.at;
        drop(inner);
        store.tell_scrubbed(scrub.at);
        Scrubbed::Last(batch, scrub.at)
    }
}

impl Store {
    /// Calls `done` once the compaction at `revision` has deleted its rows; at once if it has.
    pub fn when_scrubbed(&self, revision: i64, done: Box<dyn FnOnce() + Send>) {
        self.scrub_waiters.lock().push((revision, done));
        let scrubbed = self.inner.read().scrubbed;
        self.tell_scrubbed(scrubbed);
    }

    fn tell_scrubbed(&self, scrubbed: i64) {
        let mut ready = Vec::new();
        self.scrub_waiters.lock().retain_mut(|(revision, done)| {
            let waits = *revision > scrubbed;
            if !waits {
                ready.push(std::mem::replace(done, Box::new(|| {})));
            }
            waits
        });
        for done in ready {
            done();
        }
    }
}
