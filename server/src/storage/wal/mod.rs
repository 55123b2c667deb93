//! The Raft log on disk.
//!
//! Segments of fixed size, filled with zeros beforehand, hold checksummed
//! records ([`record`]): entries, votes, and what was truncated, purged and
//! committed. One thread writes ([`writer`]); what it has reported done survives
//! a power cut. Payloads mean nothing here. Recovery cuts what was never synced
//! and refuses what is damaged ([`recover`]).
//!
//! Rotation makes the next segment durable first and seals the old one after;
//! each head repeats what matters of all before it, so purging is dropping files.

mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod index;
mod record;
mod recover;
mod segment;
#[cfg(test)]
mod tests;
mod writer;

use std::{fmt, io, ops::Range, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
pub use error::WalError;
use etcfs_proto::etcfs::record::{LogId, Vote};
use index::Index;
use parking_lot::Mutex;
use record::Record;
use segment::{Segment, Spare};
use tokio::{sync::Notify, time::Instant};
use writer::{Hint, Order, Queue, SpareSlot, Staged, Writer};

use super::disk::{Disk, DiskFile, OsDisk};
use crate::threads::{Bell, Join, OsThreads, Threads};

/// Newest format that this build writes and reads.
const FORMAT: u64 = 1;
/// Bytes that may wait for the writer; who brings more waits for room.
const QUEUE_BYTES_MAX: usize = 64 << 20;

/// Called once an order is on disk, or surely failed; on the writer's thread.
pub type Done = Box<dyn FnOnce(Result<(), WalError>) + Send>;

/// Brings a file's data to the disk.
pub type Fdatasync = dyn Fn(&dyn DiskFile) -> io::Result<()> + Send + Sync;

/// One entry: `kind` and `payload` are the caller's.
#[derive(Clone, Debug, PartialEq)]
pub struct WalEntry {
    pub id: LogId,
    pub kind: u8,
    pub payload: Bytes,
}

/// How the log is kept. The functions are here so that a test can make them fail.
#[derive(Clone)]
pub struct WalOptions {
    pub segment_bytes: usize,
    pub disk: Arc<dyn Disk>,
    pub threads: Arc<dyn Threads>,
    pub fdatasync: Arc<Fdatasync>,
    /// Told how long each sync took.
    pub on_sync: Arc<dyn Fn(Duration) + Send + Sync>,
    /// Told of the error after which the log is lost to this process.
    pub on_failure: Arc<dyn Fn(&WalError) + Send + Sync>,
}

impl Default for WalOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 16 << 20,
            disk: Arc::new(OsDisk),
            threads: Arc::new(OsThreads),
            fdatasync: Arc::new(|file| file.sync_data()),
            on_sync: Arc::new(|_| ()),
            on_failure: Arc::new(|_| std::process::abort()),
        }
    }
}

impl fmt::Debug for WalOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WalOptions").field("segment_bytes", &self.segment_bytes).finish_non_exhaustive()
    }
}

/// Handle of the log. Clones share it.
#[derive(Clone)]
pub struct Wal {
    shared: Arc<Shared>,
}

struct Shared {
    // Neither lock is taken while the other is held.
    queue: Mutex<Queue>,
    index: Mutex<Index>,
    wake: Bell,
    room: Notify,
    /// Told when the index has changed.
    written: Notify,
    thread: Mutex<Option<Join>>,
}

impl fmt::Debug for Wal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wal").finish_non_exhaustive()
    }
}

impl Wal {
    /// Reads the log in `dir` back, or begins one, and starts its writer.
    pub fn open(dir: &Path, options: WalOptions) -> Result<Self, WalError> {
        let bytes = options.segment_bytes;
        let disk = options.disk.clone();
        let recovered = match recover::recover(&*disk, dir, bytes)? {
            Some(recovered) => recovered,
            None => {
                let head = writer::head(1, &Staged::default());
                let spare = Spare::create(&*disk, dir, bytes)?;
                let first = Segment::create(&*disk, dir, spare, 1, &head)?;
                recover::Recovered {
                    index: Index::default(),
                    segments: vec![(Arc::new(first), None)],
                    tail: head.len(),
                    torn_bytes: 0,
                }
            }
        };
        if recovered.torn_bytes > 0 {
            tracing::warn!(
                bytes = recovered.torn_bytes,
                "cut off what was never synced at the end of the log"
            );
        }
        let index = recovered.index;
        let staged =
            Staged { last: index.last, purged: index.purged, vote: index.vote, committed: index.committed };
        let threads = options.threads.clone();
        let spare = Arc::new(SpareSlot::new(threads.clone()));
        let in_dir = dir.to_owned();
        spare.make(move || Spare::create(&*disk, &in_dir, bytes));
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            index: Mutex::new(index),
            wake: Bell::default(),
            room: Notify::new(),
            written: Notify::new(),
            thread: Mutex::default(),
        });
        let mut writer = Writer {
            shared: shared.clone(),
            dir: dir.to_owned(),
            options,
            staged,
            segments: recovered.segments.into(),
            tail: recovered.tail,
            synced: recovered.tail,
            spare,
            buffer: Vec::new(),
        };
        writer.prove()?;
        let thread = threads.start("wal", shared.wake.clone(), Box::new(move || writer.turn()));
        let thread = thread.map_err(WalError::io("start the writer of", dir))?;
        *shared.thread.lock() = Some(thread);
        Ok(Self { shared })
    }

    /// Adds entries right after the last. `done` comes after their sync.
    pub fn append(&self, entries: Vec<WalEntry>, done: Done) {
        self.order(Order::Append { entries, done });
    }

    pub fn save_vote(&self, vote: Vote, done: Done) {
        self.order(Order::Vote { vote, done });
    }

    /// Drops the entries after `after`, all for `None`.
    pub fn truncate(&self, after: Option<LogId>) {
        self.order(Order::Truncate(after));
    }

    /// Drops the entries up to `id`, which may lie beyond the last.
    pub fn purge(&self, id: LogId) {
        self.order(Order::Purge(id));
    }

    /// Notes how far the log is committed. Goes to disk with the next write, or
    /// some time later without a sync: a hint that spares work after a restart.
    pub fn hint_committed(&self, id: Option<LogId>) {
        let mut queue = self.shared.queue.lock();
        if let Some(hint) = &mut queue.hint {
            hint.committed = id;
            return;
        }
        queue.hint = Some(Hint { committed: id, since: Instant::now() });
        // After a write the writer looks by itself; else it must start its timer.
        if queue.orders.is_empty() && queue.looks_at.is_none() {
            self.shared.wake.ring();
        }
    }

    /// Waits until the writer's queue has room.
    pub async fn room(&self) {
        loop {
            let notified = self.shared.room.notified();
            if self.shared.queue.lock().bytes < QUEUE_BYTES_MAX {
                return;
            }
            notified.await;
        }
    }

    /// Entries of `range` that lie on disk; none may be missing there.
    pub fn read(&self, range: Range<u64>) -> Result<Vec<WalEntry>, WalError> {
        range
            .map(|index| {
                let position = self.shared.index.lock().get(index).cloned();
                let position = position.ok_or(WalError::NoSuchEntry { index })?;
                let bytes = position.segment.read_at(position.offset, position.bytes as usize)?;
                match record::parse_at(&bytes.into(), position.segment.number, position.offset as usize) {
                    Some(Record::Entry { id, kind, payload }) if id == position.id => {
                        Ok(WalEntry { id, kind, payload })
                    }
                    _ => Err(position
                        .segment
                        .corrupt(position.offset as usize, "the entry no longer reads back")),
                }
            })
            .collect()
    }

    /// Returns once the entry `id` is on disk, or was there and is purged.
    pub async fn holds(&self, id: LogId) {
        loop {
            let written = self.shared.written.notified();
            {
                let index = self.shared.index.lock();
                let purged = index.purged.is_some_and(|purged| purged.index >= id.index);
                // By its id: the place may still hold an entry that is about to be replaced.
                if purged || index.get(id.index).is_some_and(|position| position.id == id) {
                    return;
                }
            }
            written.await;
        }
    }

    /// Id of the entry at `index`, if it lies on disk.
    pub fn id_of(&self, index: u64) -> Option<LogId> {
        self.shared.index.lock().get(index).map(|position| position.id)
    }

    /// Index of the oldest entry on disk, or of the next where there is none.
    pub fn first(&self) -> u64 {
        self.shared.index.lock().first
    }

    /// Newest entry on disk, or the newest purged one.
    pub fn last(&self) -> Option<LogId> {
        self.shared.index.lock().last
    }

    pub fn purged(&self) -> Option<LogId> {
        self.shared.index.lock().purged
    }

    pub fn vote(&self) -> Option<Vote> {
        self.shared.index.lock().vote
    }

    /// Newest commit on disk; what was told since may be lost.
    pub fn committed(&self) -> Option<LogId> {
        self.shared.index.lock().committed
    }

    /// Bytes that the entries after `index` take on disk.
    pub fn bytes_after(&self, index: Option<u64>) -> u64 {
        self.shared.index.lock().bytes_after(index)
    }

    /// Writes what waits, and ends the writer. Blocks for a sync.
    pub fn close(&self) {
        self.order(Order::Close);
        let thread = self.shared.thread.lock().take();
        if let Some(join) = thread {
            join();
        }
    }

    fn order(&self, order: Order) {
        let mut queue = self.shared.queue.lock();
        if queue.closed {
            drop(queue);
            if let Order::Append { done, .. } | Order::Vote { done, .. } = order {
                done(Err(WalError::Closed));
            }
            return;
        }
        queue.closed = matches!(order, Order::Close);
        queue.bytes += order.bytes();
        queue.orders.push_back(order);
        drop(queue);
        self.shared.wake.ring();
    }
}
