//! The loop that alone writes the log.
//!
//! It takes everything that waits, writes it in one piece, syncs once, and only
//! then tells everyone. Orders keep their order. A failed write or sync is the
//! end: it reports to `on_failure`, which by default ends the process, and
//! acknowledges nothing from then on.

use std::{collections::VecDeque, path::PathBuf, sync::Arc, thread, time::Duration};

use etcfs_proto::etcfs::record::{LogId, Vote};
use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::time::Instant;

use super::{
    Done, FORMAT, Shared, WalEntry, WalError, WalOptions,
    index::Position,
    record::{self, Record},
    segment::{Segment, Spare},
};
use crate::{
    storage::failpoint,
    threads::{Threads, Turn},
};

/// Most bytes written before a sync; more waits for the next one.
const FLUSH_BYTES_MAX: usize = 8 << 20;
/// A commit hint is written without a sync if no other write takes it along by then.
const HINT_DELAY: Duration = Duration::from_millis(500);

/// Pause before a segment is tried to be made again on a full disk.
const NO_SPACE_PAUSE: Duration = Duration::from_millis(200);

/// What the writer is asked to do, in order.
pub(super) enum Order {
    Append { entries: Vec<WalEntry>, done: Done },
    Vote { vote: Vote, done: Done },
    Truncate(Option<LogId>),
    Purge(LogId),
    Close,
}

/// Orders that wait; held for a push or a take alone.
#[derive(Default)]
pub(super) struct Queue {
    pub(super) orders: VecDeque<Order>,
    pub(super) bytes: usize,
    /// To be written with whatever is written next.
    pub(super) hint: Option<Hint>,
    /// When the writer looks here next without being called. After each write it does, some time later: the hint
    /// that the write is committed comes soon, and calling it for that alone would cost a switch of threads.
    pub(super) looks_at: Option<Instant>,
    pub(super) closed: bool,
}

/// A commit that is not on disk yet.
pub(super) struct Hint {
    /// The newest.
    pub(super) committed: Option<LogId>,
    /// When the first came that is not written.
    pub(super) since: Instant,
}

/// What to do to the index once the bytes are on disk.
enum Effect {
    Put(Position),
    Vote(Vote),
    Truncate(Option<LogId>),
    Purge(LogId),
}

/// State of the log including what is not yet on disk: what the head of a new
/// segment must say.
#[derive(Default)]
pub(super) struct Staged {
    pub(super) last: Option<LogId>,
    pub(super) purged: Option<LogId>,
    pub(super) vote: Option<Vote>,
    pub(super) committed: Option<LogId>,
}

pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) dir: PathBuf,
    pub(super) options: WalOptions,
    pub(super) staged: Staged,
    /// Each with the newest index in it; the last is being written.
    pub(super) segments: VecDeque<(Arc<Segment>, Option<u64>)>,
    /// End of what was written of the last segment.
    pub(super) tail: usize,
    /// How much of it was synced.
    pub(super) synced: usize,
    pub(super) spare: Arc<SpareSlot>,
    pub(super) buffer: Vec<u8>,
}

impl Writer {
    /// Serves what waits; the last turn is that which closes.
    pub(super) fn turn(&mut self) -> Turn {
        let (orders, hint) = match self.take() {
            Ok(taken) => taken,
            Err(wait) => return wait,
        };
        let closing = orders.iter().any(|order| matches!(order, Order::Close));
        let mut dones = Vec::with_capacity(orders.len());
        let mut written = self.execute(orders, hint, &mut dones);
        if closing {
            written = written.and_then(|()| self.sync_proof());
        }
        if let Err(error) = written {
            let is_told_to_end = std::mem::replace(&mut self.shared.queue.lock().closed, true);
            if is_told_to_end && error.is_no_space() {
                // What waits was not acknowledged: it may be missing.
                tracing::warn!(%error, "the log ends without what waited for room");
            } else {
                tracing::error!(%error, "the log cannot be written");
                (self.options.on_failure)(&error);
            }
            let left = std::mem::take(&mut self.shared.queue.lock().orders);
            for order in left {
                if let Order::Append { done, .. } | Order::Vote { done, .. } = order {
                    dones.push(done);
                }
            }
            dones.into_iter().for_each(|done| done(Err(WalError::Closed)));
            return Turn::End;
        }
        dones.into_iter().for_each(|done| done(Ok(())));
        if closing {
            // Its file is in the directory that the next opener will tidy.
            drop(self.spare.settle());
            return Turn::End;
        }
        Turn::Again
    }

    /// Takes what there is to do, or says what to wait for.
    fn take(&self) -> Result<(Vec<Order>, Option<Option<LogId>>), Turn> {
        let mut queue = self.shared.queue.lock();
        let now = Instant::now();
        if queue.orders.is_empty() {
            let due = queue.hint.as_ref().map(|hint| hint.since + HINT_DELAY);
            queue.looks_at = due.or(queue.looks_at.filter(|&at| now < at));
            match queue.looks_at {
                None => return Err(Turn::Wait),
                Some(at) if now < at => return Err(Turn::WaitUntil(at)),
                Some(_) => {}
            }
        }
        queue.looks_at = Some(now + HINT_DELAY);
        let mut taken = Vec::with_capacity(queue.orders.len());
        let mut bytes = 0;
        while bytes < FLUSH_BYTES_MAX {
            let Some(order) = queue.orders.pop_front() else { break };
            bytes += order.bytes();
            taken.push(order);
        }
        queue.bytes -= bytes;
        drop(queue);
        self.shared.room.notify_waiters();
        let hint = self.shared.queue.lock().hint.take();
        Ok((taken, hint.map(|hint| hint.committed)))
    }

    fn execute(
        &mut self,
        orders: Vec<Order>,
        hint: Option<Option<LogId>>,
        dones: &mut Vec<Done>,
    ) -> Result<(), WalError> {
        let mut effects = Vec::new();
        let mut purged = false;
        let sync = !orders.is_empty();
        if let Some(committed) = hint {
            self.staged.committed = committed;
            self.put(&Record::Committed(committed))?;
        }
        // Every callback is collected first, so that a failure reaches all of them.
        let mut records = Vec::with_capacity(orders.len());
        for order in orders {
            match order {
                Order::Append { entries, done } => {
                    dones.push(done);
                    records.extend(entries.into_iter().map(|WalEntry { id, kind, payload }| Record::Entry {
                        id,
                        kind,
                        payload,
                    }));
                }
                Order::Vote { vote, done } => {
                    dones.push(done);
                    records.push(Record::Vote(vote));
                }
                Order::Truncate(after) => records.push(Record::Truncate(after)),
                Order::Purge(id) => records.push(Record::Purge(id)),
                Order::Close => {}
            }
        }
        for record in &records {
            let at = self.put(record)?;
            match record {
                Record::Entry { id, payload, .. } => {
                    self.staged.last = Some(*id);
                    let (segment, newest) = self.segments.back_mut().expect("one is being written");
                    *newest = (*newest).max(Some(id.index));
                    effects.push(Effect::Put(Position {
                        id: *id,
                        segment: segment.clone(),
                        offset: u32::try_from(at).expect("a segment is below 4 GiB"),
                        bytes: u32::try_from(record::framed_bytes(payload.len())).expect("as the segment"),
                    }));
                }
                Record::Vote(vote) => {
                    self.staged.vote = Some(*vote);
                    effects.push(Effect::Vote(*vote));
                }
                Record::Truncate(after) => {
                    let next = after.map_or(0, |id| id.index + 1);
                    if self.staged.last.is_some_and(|last| last.index >= next) {
                        self.staged.last = *after;
                    }
                    effects.push(Effect::Truncate(*after));
                }
                Record::Purge(id) => {
                    purged = true;
                    self.staged.purged = Some(*id);
                    if self.staged.last.is_none_or(|last| last.index <= id.index) {
                        self.staged.last = Some(*id);
                    }
                    effects.push(Effect::Purge(*id));
                }
                _ => unreachable!("no order makes another record"),
            }
        }
        self.write_out(sync)?;
        self.take_effect(effects, hint);
        self.shared.written.notify_waiters();
        if purged {
            self.drop_purged()?;
        }
        Ok(())
    }

    fn take_effect(&self, effects: Vec<Effect>, hint: Option<Option<LogId>>) {
        let mut index = self.shared.index.lock();
        if let Some(committed) = hint {
            index.committed = committed;
        }
        for effect in effects {
            match effect {
                Effect::Put(position) => {
                    let at = position.id.index;
                    assert!(index.put(position), "log entry {at} does not follow the last one");
                }
                Effect::Vote(vote) => index.vote = Some(vote),
                Effect::Truncate(after) => index.truncate(after),
                Effect::Purge(id) => index.purge(id),
            }
        }
    }

    /// Puts `record` into the buffer; returns its offset in the segment.
    fn put(&mut self, record: &Record) -> Result<usize, WalError> {
        let seal = record::framed_bytes(0);
        let bytes = match record {
            Record::Entry { payload, .. } => record::framed_bytes(payload.len()),
            _ => record::framed_bytes(0),
        };
        if self.tail + self.buffer.len() + bytes + seal > self.options.segment_bytes {
            self.rotate()?;
            if self.tail + bytes + seal > self.options.segment_bytes {
                let Record::Entry { id, .. } = record else { unreachable!("heads and votes are small") };
                return Err(WalError::TooLarge { index: id.index, bytes });
            }
        }
        let at = self.tail + self.buffer.len();
        let (segment, _) = self.segments.back().expect("one is being written");
        let synced = u32::try_from(self.synced).expect("a segment is below 4 GiB");
        record::encode(record, segment.number, at, synced, &mut self.buffer);
        Ok(at)
    }

    fn write_out(&mut self, sync: bool) -> Result<(), WalError> {
        let (segment, _) = self.segments.back().expect("one is being written");
        if !self.buffer.is_empty() {
            segment.write_at(&self.buffer, self.tail as u64)?;
            self.tail += self.buffer.len();
            self.buffer.clear();
        }
        failpoint::kill("wal-before-sync");
        if sync && self.synced < self.tail {
            let start = Instant::now();
            (self.options.fdatasync)(&*segment.file).map_err(WalError::io("sync", &segment.path))?;
            (self.options.on_sync)(start.elapsed());
            self.synced = self.tail;
            self.prove()?;
            failpoint::kill("wal-after-append");
        }
        Ok(())
    }

    /// Writes behind what was synced that it was. That takes no room, for the next record comes
    /// in its place, and no sync: only a power cut may take it away.
    pub(super) fn prove(&self) -> Result<(), WalError> {
        let (segment, _) = self.segments.back().expect("one is being written");
        let synced = u32::try_from(self.synced).expect("a segment is below 4 GiB");
        let mut proof = Vec::new();
        let record = Record::Proof(self.staged.committed);
        record::encode(&record, segment.number, self.tail, synced, &mut proof);
        segment.write_at(&proof, self.tail as u64)
    }

    /// Has the newest proof on disk, for a log that is left alone.
    fn sync_proof(&self) -> Result<(), WalError> {
        let (segment, _) = self.segments.back().expect("one is being written");
        (self.options.fdatasync)(&*segment.file).map_err(WalError::io("sync", &segment.path))
    }

    /// Ends the segment and begins the next. The next exists before the seal says so.
    fn rotate(&mut self) -> Result<(), WalError> {
        let (old, _) = self.segments.back().expect("one is being written");
        let old = old.clone();
        let spare = match self.spare.take() {
            Some(spare) => spare,
            None => self.make_when_there_is_room()?,
        };
        let number = old.number + 1;
        let head = head(number, &self.staged);
        let next = Segment::create(&*self.options.disk, &self.dir, spare, number, &head)?;
        failpoint::kill("wal-in-rotate");
        let at = self.tail + self.buffer.len();
        let synced = u32::try_from(self.synced).expect("a segment is below 4 GiB");
        record::encode(&Record::Seal, old.number, at, synced, &mut self.buffer);
        old.write_at(&self.buffer, self.tail as u64)?;
        (self.options.fdatasync)(&*old.file).map_err(WalError::io("sync", &old.path))?;
        self.buffer.clear();
        self.tail = head.len();
        self.synced = head.len();
        self.segments.push_back((Arc::new(next), None));
        let (disk, dir, bytes) = (self.options.disk.clone(), self.dir.clone(), self.options.segment_bytes);
        self.spare.make(move || Spare::create(&*disk, &dir, bytes));
        Ok(())
    }

    /// A segment where none could be made ahead. A full disk ends nothing: who appends waits, as for a
    /// slow disk, until there is room. The one made ahead is for what makes room: deletions, compactions.
    ///
    /// Nobody else waits for this thread to wake: it holds no lock, so the log is read meanwhile, and
    /// appends go into the queue until that has its fill. Votes wait behind them, for they need the same
    /// disk; and so does a purge, which would make room, but seldom is there one: the snapshot before it
    /// needs room too.
    fn make_when_there_is_room(&self) -> Result<Spare, WalError> {
        let mut is_told = false;
        loop {
            let made = Spare::create(&*self.options.disk, &self.dir, self.options.segment_bytes);
            let Err(error) = made else { return made };
            if !error.is_no_space() || self.shared.queue.lock().closed {
                return Err(error);
            }
            if !is_told {
                tracing::error!(%error, "the disk is full: the log waits for room");
                is_told = true;
            }
            thread::sleep(NO_SPACE_PAUSE);
        }
    }

    /// Lets go of the segments whose entries were all purged, oldest first.
    fn drop_purged(&mut self) -> Result<(), WalError> {
        failpoint::kill("raft-in-purge");
        let purged = self.staged.purged.map(|id| id.index);
        while self.segments.len() > 1 && self.segments[0].1 <= purged {
            let (old, _) = self.segments.pop_front().expect("more than one");
            // A reader that still has it open finds its bytes, as the file is gone only by name.
            match Arc::try_unwrap(old) {
                Ok(old) if self.spare.is_empty() => {
                    let spare = Spare::recycle(&*self.options.disk, &self.dir, old)?;
                    let bytes = self.options.segment_bytes;
                    self.spare.make(move || spare.fill(bytes));
                }
                Ok(old) => old.remove(&*self.options.disk)?,
                Err(old) => old.remove(&*self.options.disk)?,
            }
        }
        Ok(())
    }
}

impl Order {
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Append { entries, .. } => {
                entries.iter().map(|entry| record::framed_bytes(entry.payload.len())).sum()
            }
            _ => record::framed_bytes(0),
        }
    }
}

/// The first bytes of a segment: all one must know of the segments before it.
pub(super) fn head(number: u64, staged: &Staged) -> Vec<u8> {
    let mut records = vec![Record::Head { format: FORMAT, segment: number }, Record::Last(staged.last)];
    records.extend(staged.vote.map(Record::Vote));
    records.push(Record::Committed(staged.committed));
    records.extend(staged.purged.map(Record::Purge));
    // It is synced as a whole before the segment has its name.
    let synced = u32::try_from(records.len() * record::framed_bytes(0)).expect("a head is small");
    let mut bytes = Vec::new();
    for record in &records {
        let at = bytes.len();
        record::encode(record, number, at, synced, &mut bytes);
    }
    bytes
}

/// The next segment's file, made ahead beside everything else.
#[derive(Debug)]
pub(super) struct SpareSlot {
    threads: Arc<dyn Threads>,
    state: Mutex<SpareState>,
    made: Condvar,
}

#[derive(Debug, Default)]
enum SpareState {
    #[default]
    Empty,
    Making,
    Ready(Spare),
}

impl SpareSlot {
    pub(super) fn new(threads: Arc<dyn Threads>) -> Self {
        Self { threads, state: Mutex::default(), made: Condvar::new() }
    }

    fn is_empty(&self) -> bool {
        matches!(*self.state.lock(), SpareState::Empty)
    }

    /// Makes a spare unless there is one.
    pub(super) fn make(self: &Arc<Self>, make: impl FnOnce() -> Result<Spare, WalError> + Send + 'static) {
        {
            let mut state = self.state.lock();
            if !matches!(*state, SpareState::Empty) {
                return;
            }
            *state = SpareState::Making;
        }
        let slot = self.clone();
        let job = move || {
            let made = match make() {
                Ok(spare) => SpareState::Ready(spare),
                Err(error) => {
                    // The writer will try itself when it needs one, and fail if it must.
                    tracing::warn!(%error, "cannot make a log segment ahead");
                    SpareState::Empty
                }
            };
            *slot.state.lock() = made;
            slot.made.notify_all();
        };
        if let Err(error) = self.threads.aside("wal-spare", Box::new(job)) {
            tracing::warn!(%error, "cannot start a thread to make a log segment ahead");
            *self.state.lock() = SpareState::Empty;
        }
    }

    /// Waits until none is in the making.
    fn settle(&self) -> MutexGuard<'_, SpareState> {
        let mut state = self.state.lock();
        while matches!(*state, SpareState::Making) {
            self.made.wait(&mut state);
        }
        state
    }

    /// The spare, waited for if it is in the making; `None` if there is none.
    fn take(&self) -> Option<Spare> {
        let mut state = self.settle();
        match std::mem::take(&mut *state) {
            SpareState::Ready(spare) => Some(spare),
            SpareState::Empty | SpareState::Making => None,
        }
    }
}
