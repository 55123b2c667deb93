//! Writes the state to the engine behind the log.
//!
//! One thread is the engine's only writer. It joins what applied entries
//! changed into batches of some size, so each engine write carries the applied index
//! of its newest entry along; it makes a checkpoint (a flush that reaches the
//! disk) every few seconds, when asked, and at the end; and it builds and
//! installs snapshots, since what it sees is consistent. What takes long, a
//! snapshot or a defragmentation, goes on in small parts between the writes.
//!
//! It may lag: the log replays what it lacks. How far is bounded, and whoever
//! applies waits for [`Image::room`]. A full disk suspends it, and is reported;
//! any other failure of the engine ends it, and is reported too.

#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    fmt,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::{Notify, oneshot},
    time::Instant,
};

use super::{
    Batch, Engine, StorageError, failpoint,
    snapshot::{Building, Durability, SnapshotFile},
};
use crate::threads::{Bell, Join, OsThreads, Threads, Turn};

#[derive(Clone, Debug)]
pub struct ImageOptions {
    /// Rows that are written at once, but for those of one entry, which stay
    /// together. sled frees no page that it has replaced before the whole batch
    /// is in, so that a batch of n rows may hold n pages: with whatever waited
    /// as one batch, 250,000 puts of 256 bytes took 1.2 GB, and now 0.2 GB.
    pub batch_rows: usize,
    pub batch_bytes: usize,
    /// Longest that a change waits for others to be written with.
    pub batch_age: Duration,
    /// Longest that a written change waits for a checkpoint.
    pub checkpoint_interval: Duration,
    /// Bytes of changes not yet written at which applying must wait.
    pub lag_bytes_max: u64,
    pub threads: Arc<dyn Threads>,
}

impl Default for ImageOptions {
    fn default() -> Self {
        Self {
            batch_rows: 1000,
            batch_bytes: 1 << 20,
            batch_age: Duration::from_millis(200),
            checkpoint_interval: Duration::from_secs(5),
            lag_bytes_max: 128 << 20,
            threads: Arc::new(OsThreads),
        }
    }
}

/// How far the engine has come; it may lose it again until the next checkpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    pub applied_index: u64,
    pub revision: i64,
}

/// What the image tells others, on its own thread.
pub struct ImageHooks {
    pub on_written: Box<dyn Fn(Written) + Send>,
    /// How long a batch took to write, or a flush to disk.
    pub on_commit: Box<dyn Fn(Duration) + Send>,
    /// The disk is full: nothing more is written until there is room.
    pub on_no_space: Box<dyn Fn(&StorageError) + Send>,
    /// The engine failed for good; by default the process ends here.
    pub on_failure: Box<dyn Fn(&StorageError) + Send>,
}

impl Default for ImageHooks {
    fn default() -> Self {
        Self {
            on_written: Box::new(|_| ()),
            on_commit: Box::new(|_| ()),
            on_no_space: Box::new(|_| ()),
            on_failure: Box::new(|_| std::process::abort()),
        }
    }
}

impl fmt::Debug for ImageHooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImageHooks").finish_non_exhaustive()
    }
}

/// Handle of the write-behind thread. Clones share it.
#[derive(Clone)]
pub struct Image {
    shared: Arc<Shared>,
}

struct Shared {
    // Held to add or take; never during an engine call.
    inbox: Mutex<Inbox>,
    wake: Bell,
    lag_bytes: AtomicU64,
    lag_bytes_max: u64,
    batch_rows: usize,
    batch_bytes: usize,
    room: Notify,
    durable: AtomicU64,
    is_building: AtomicBool,
    thread: Mutex<Option<Join>>,
}

#[derive(Default)]
struct Inbox {
    /// What waits, oldest first, in batches that the engine takes at once.
    pending: VecDeque<Batch>,
    pending_since: Option<Instant>,
    orders: VecDeque<Order>,
    closed: bool,
}

type Reply<T> = oneshot::Sender<Result<T, StorageError>>;

enum Order {
    Checkpoint(Reply<u64>),
    Snapshot(PathBuf, Durability, Reply<SnapshotFile>),
    Replace(Box<SnapshotFile>, Reply<()>),
    Defragment(Reply<()>),
    Close,
}

enum Task {
    Write(Batch),
    Checkpoint,
    Order(Order),
    /// The next part of what takes long.
    Part,
    /// Nothing is due yet.
    None(Turn),
}

/// Pause before the engine is tried again on a full disk.
const NO_SPACE_PAUSE: Duration = Duration::from_secs(1);

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Image").field("lag_bytes", &self.lag_bytes()).finish_non_exhaustive()
    }
}

impl Image {
    /// Starts the thread. `written` is how far the engine has come already, though
    /// after a crash only a first checkpoint makes that sure.
    pub fn start(
        engine: Arc<dyn Engine>,
        written: Written,
        options: ImageOptions,
        hooks: ImageHooks,
    ) -> Result<Self, StorageError> {
        let shared = Arc::new(Shared {
            inbox: Mutex::default(),
            wake: Bell::default(),
            lag_bytes: AtomicU64::new(0),
            lag_bytes_max: options.lag_bytes_max,
            batch_rows: options.batch_rows,
            batch_bytes: options.batch_bytes,
            room: Notify::new(),
            durable: AtomicU64::new(0),
            is_building: AtomicBool::new(false),
            thread: Mutex::default(),
        });
        let threads = options.threads.clone();
        let mut writer = Writer {
            shared: shared.clone(),
            engine,
            options,
            hooks,
            written,
            dirty_since: Some(Instant::now()),
            paused_until: None,
            defragmenting: Vec::new(),
            building: None,
            unbuilt: VecDeque::new(),
        };
        let thread = threads.start("image", shared.wake.clone(), Box::new(move || writer.turn()));
        let thread = thread.map_err(|source| StorageError::Engine { doing: "start its writer", source })?;
        *shared.thread.lock() = Some(thread);
        Ok(Self { shared })
    }

    /// Has the changes written some time later, in the order of these calls.
    pub fn submit(&self, mut batch: Batch) {
        let bytes = batch.bytes() as u64;
        self.shared.lag_bytes.fetch_add(bytes, Ordering::Relaxed);
        let mut inbox = self.shared.inbox.lock();
        let first = inbox.pending_since.is_none();
        match inbox.pending.back_mut() {
            Some(last) if !self.shared.is_full(last) => last.append(&mut batch),
            _ => inbox.pending.push_back(batch),
        }
        if first {
            inbox.pending_since = Some(Instant::now());
        }
        // In between, the thread sleeps until the batch is of age.
        if first || inbox.pending.front().is_some_and(|batch| self.shared.is_full(batch)) {
            self.shared.wake.ring();
        }
    }

    /// Waits until the changes not yet written are within their bound, or nothing more is written.
    pub async fn room(&self) {
        loop {
            let notified = self.shared.room.notified();
            if self.lag_bytes() < self.shared.lag_bytes_max || self.shared.inbox.lock().closed {
                return;
            }
            notified.await;
        }
    }

    /// Bytes of changes that the engine does not have yet.
    pub fn lag_bytes(&self) -> u64 {
        self.shared.lag_bytes.load(Ordering::Relaxed)
    }

    /// Newest applied index that a power cut cannot take from the engine.
    pub fn durable_index(&self) -> u64 {
        self.shared.durable.load(Ordering::Acquire)
    }

    /// Makes everything submitted before durable; gives the applied index of it.
    pub async fn checkpoint(&self) -> Result<u64, StorageError> {
        self.ask(Order::Checkpoint).await
    }

    /// True while a snapshot is built: of a row that is deleted now, a copy may have to be held.
    pub fn is_building(&self) -> bool {
        self.shared.is_building.load(Ordering::Relaxed)
    }

    /// Builds a snapshot of everything submitted before, in `dir`. That much is
    /// then durable in the engine too. Writes go on meanwhile; one snapshot at a time is built.
    pub async fn build_snapshot(
        &self,
        dir: PathBuf,
        durability: Durability,
    ) -> Result<SnapshotFile, StorageError> {
        self.ask(|reply| Order::Snapshot(dir, durability, reply)).await
    }

    /// Replaces all rows by those of `snapshot`. What was submitted before and
    /// not yet written is dropped.
    pub async fn replace(&self, snapshot: SnapshotFile) -> Result<(), StorageError> {
        self.ask(|reply| Order::Replace(Box::new(snapshot), reply)).await
    }

    /// Writes all rows anew, in order, and gives back the space that deleted ones
    /// took. Goes on in small parts between the writes, so that nobody waits for it.
    pub async fn defragment(&self) -> Result<(), StorageError> {
        self.ask(Order::Defragment).await
    }

    /// Writes and flushes what waits, and ends the thread. Blocks.
    pub fn close(&self) {
        {
            let mut inbox = self.shared.inbox.lock();
            if !inbox.closed {
                inbox.orders.push_back(Order::Close);
                inbox.closed = true;
            }
            self.shared.wake.ring();
        }
        let thread = self.shared.thread.lock().take();
        if let Some(join) = thread {
            join();
        }
    }

    async fn ask<T>(&self, order: impl FnOnce(Reply<T>) -> Order) -> Result<T, StorageError> {
        let (reply, answer) = oneshot::channel();
        {
            let mut inbox = self.shared.inbox.lock();
            if inbox.closed {
                return Err(StorageError::Closed);
            }
            inbox.orders.push_back(order(reply));
            self.shared.wake.ring();
        }
        answer.await.unwrap_or(Err(StorageError::Closed))
    }
}

impl Shared {
    /// Whether a batch is as large as the engine should get at once.
    fn is_full(&self, batch: &Batch) -> bool {
        batch.len() >= self.batch_rows || batch.bytes() >= self.batch_bytes
    }
}

impl Inbox {
    fn take_oldest(&mut self) -> Option<Batch> {
        let oldest = self.pending.pop_front();
        self.pending_since = (!self.pending.is_empty()).then(Instant::now);
        oldest
    }
}

struct Writer {
    shared: Arc<Shared>,
    engine: Arc<dyn Engine>,
    options: ImageOptions,
    hooks: ImageHooks,
    written: Written,
    /// When the oldest change that no checkpoint covers was written.
    dirty_since: Option<Instant>,
    /// The disk was full: until then it is not tried again.
    paused_until: Option<Instant>,
    /// Who waits for the end of a defragmentation; it goes on for as long as somebody does.
    defragmenting: Vec<Reply<()>>,
    /// The snapshot that is being built, and those to be built after it.
    building: Option<(Building, Reply<SnapshotFile>)>,
    unbuilt: VecDeque<(PathBuf, Durability, Reply<SnapshotFile>)>,
}

impl Writer {
    fn turn(&mut self) -> Turn {
        let done = match self.next() {
            Task::None(turn) => return turn,
            // Or parts would never be done where there is always something to write.
            Task::Write(batch) => self.write(batch).and_then(|()| self.do_part()),
            Task::Checkpoint => self.checkpoint(),
            Task::Order(Order::Close) => {
                // Whatever fails here is replayed from the log at the next start.
                if let Err(error) = self.settle() {
                    tracing::warn!(%error, "the image could not be brought up to date at the end");
                }
                return Turn::End;
            }
            Task::Order(Order::Checkpoint(reply)) => {
                let settled = self.settle();
                answer(
                    reply,
                    settled.as_ref().map(|()| self.written.applied_index).map_err(StorageError::echo),
                );
                settled
            }
            Task::Order(Order::Snapshot(dir, durability, reply)) => {
                self.unbuilt.push_back((dir, durability, reply));
                self.begin_building()
            }
            Task::Order(Order::Defragment(reply)) => {
                self.defragmenting.push(reply);
                Ok(())
            }
            Task::Part => self.do_part(),
            Task::Order(Order::Replace(snapshot, reply)) => {
                // Its rows are about to go.
                while self.building.is_some() {
                    self.build();
                }
                answer(reply, self.replace(&snapshot));
                Ok(())
            }
        };
        if let Err(error) = done
            && !self.pause_if_no_space(&error)
        {
            tracing::error!(%error, "the image cannot be written");
            self.shared.inbox.lock().closed = true;
            self.shared.room.notify_waiters();
            (self.hooks.on_failure)(&error);
            return Turn::End;
        }
        Turn::Again
    }

    /// Takes what is due, or says when something will be.
    fn next(&self) -> Task {
        let now = Instant::now();
        if let Some(until) = self.paused_until.filter(|&until| now < until) {
            return Task::None(Turn::WaitUntil(until));
        }
        let mut inbox = self.shared.inbox.lock();
        if let Some(order) = inbox.orders.pop_front() {
            return Task::Order(order);
        }
        let write_at = inbox.pending_since.map(|since| since + self.options.batch_age);
        let full = inbox.pending.front().is_some_and(|batch| self.shared.is_full(batch));
        if (full || write_at.is_some_and(|at| at <= now))
            && let Some(batch) = inbox.take_oldest()
        {
            return Task::Write(batch);
        }
        let flush_at = self.dirty_since.map(|since| since + self.options.checkpoint_interval);
        if flush_at.is_some_and(|at| at <= now) {
            return Task::Checkpoint;
        }
        if self.building.is_some() || !self.unbuilt.is_empty() || !self.defragmenting.is_empty() {
            return Task::Part;
        }
        Task::None(write_at.into_iter().chain(flush_at).min().map_or(Turn::Wait, Turn::WaitUntil))
    }

    /// Brings the engine up to date, on disk.
    fn settle(&mut self) -> Result<(), StorageError> {
        self.write_pending().and_then(|()| self.checkpoint())
    }

    /// Writes all that was submitted before; what comes meanwhile is not waited for.
    fn write_pending(&mut self) -> Result<(), StorageError> {
        let batches = self.shared.inbox.lock().pending.len();
        for _ in 0..batches {
            let Some(batch) = self.shared.inbox.lock().take_oldest() else { break };
            self.write(batch)?;
        }
        Ok(())
    }

    fn write(&mut self, batch: Batch) -> Result<(), StorageError> {
        if batch.is_empty() {
            return Ok(());
        }
        failpoint::kill("image-in-write");
        if let Some((building, _)) = &mut self.building
            && let Err(error) = building.keep(&*self.engine, &batch)
        {
            self.end_building(Err(error));
        }
        let began = Instant::now();
        if let Err(error) = self.engine.write(&batch) {
            // Kept before what came since, so that order and lag stay true.
            let mut inbox = self.shared.inbox.lock();
            inbox.pending.push_front(batch);
            inbox.pending_since = Some(Instant::now());
            return Err(error);
        }
        (self.hooks.on_commit)(began.elapsed());
        self.written.applied_index = self.written.applied_index.max(batch.applied_index);
        self.written.revision = self.written.revision.max(batch.revision);
        self.dirty_since.get_or_insert_with(Instant::now);
        (self.hooks.on_written)(self.written);
        self.shared.lag_bytes.fetch_sub(batch.bytes() as u64, Ordering::Relaxed);
        self.shared.room.notify_waiters();
        Ok(())
    }

    fn checkpoint(&mut self) -> Result<(), StorageError> {
        if self.dirty_since.is_none() {
            return Ok(());
        }
        failpoint::kill("image-in-flush");
        let began = Instant::now();
        self.engine.flush()?;
        (self.hooks.on_commit)(began.elapsed());
        self.dirty_since = None;
        self.shared.durable.store(self.written.applied_index, Ordering::Release);
        failpoint::kill("image-after-flush");
        Ok(())
    }

    fn replace(&mut self, snapshot: &SnapshotFile) -> Result<(), StorageError> {
        snapshot.verify()?;
        let dropped = {
            let mut inbox = self.shared.inbox.lock();
            inbox.pending_since = None;
            std::mem::take(&mut inbox.pending)
        };
        let dropped: usize = dropped.iter().map(Batch::bytes).sum();
        self.shared.lag_bytes.fetch_sub(dropped as u64, Ordering::Relaxed);
        self.shared.room.notify_waiters();
        failpoint::kill("image-in-replace");
        self.engine.replace(&mut snapshot.rows()?)?;
        self.written = Written { applied_index: snapshot.index(), revision: snapshot.meta().revision };
        self.dirty_since = None;
        self.shared.durable.store(self.written.applied_index, Ordering::Release);
        Ok(())
    }

    /// Does the next part of what takes long, if anything does.
    fn do_part(&mut self) -> Result<(), StorageError> {
        self.build();
        self.rewrite();
        self.begin_building()
    }

    /// Begins the next snapshot that somebody waits for, unless one is being built.
    fn begin_building(&mut self) -> Result<(), StorageError> {
        if self.building.is_some() {
            return Ok(());
        }
        let Some((dir, durability, reply)) = self.unbuilt.pop_front() else { return Ok(()) };
        let settled = self.settle();
        // A snapshot that fails does not touch the image.
        let begun = settled.as_ref().map_err(StorageError::echo);
        match begun.and_then(|()| Building::begin(&*self.engine, &dir, durability)) {
            Ok(building) => {
                self.building = Some((building, reply));
                self.shared.is_building.store(true, Ordering::Relaxed);
            }
            Err(error) => answer(reply, Err(error)),
        }
        settled
    }

    /// Does the next part of the snapshot that is being built, if any.
    fn build(&mut self) {
        let Some((building, _)) = &mut self.building else { return };
        match building.go_on(&*self.engine) {
            Ok(false) => {}
            Ok(true) => self.end_building(Ok(())),
            Err(error) => self.end_building(Err(error)),
        }
    }

    fn end_building(&mut self, built: Result<(), StorageError>) {
        if let Some((building, reply)) = self.building.take() {
            self.shared.is_building.store(false, Ordering::Relaxed);
            answer(reply, built.and_then(|()| building.finish()));
        }
    }

    /// Does the next part of a defragmentation, if somebody waits for one. Should it fail, the rows are
    /// as they were, and those who wait are told.
    fn rewrite(&mut self) {
        if self.defragmenting.is_empty() {
            return;
        }
        let result = match self.engine.rewrite() {
            Ok(false) => return,
            Ok(true) => Ok(()),
            Err(error) => Err(error),
        };
        if result.is_ok() {
            // The fresh rows came to the disk with all that was written meanwhile.
            self.dirty_since = None;
            self.shared.durable.store(self.written.applied_index, Ordering::Release);
        }
        for reply in std::mem::take(&mut self.defragmenting) {
            answer(reply, result.as_ref().copied().map_err(StorageError::echo));
        }
    }

    /// True iff the disk is full: reported, and paused for a while.
    fn pause_if_no_space(&mut self, error: &StorageError) -> bool {
        if !error.is_no_space() {
            return false;
        }
        tracing::error!(%error, "the disk is full: the image waits for room");
        (self.hooks.on_no_space)(error);
        if self.dirty_since.is_some() {
            self.dirty_since = Some(Instant::now());
        }
        self.paused_until = Some(Instant::now() + NO_SPACE_PAUSE);
        true
    }
}

fn answer<T>(reply: Reply<T>, result: Result<T, StorageError>) {
    // Should nobody wait any more, nothing is lost by that.
    drop(reply.send(result));
}
