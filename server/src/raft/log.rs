//! The Raft log as openraft wants it: the log on disk, and in memory the newest
//! entries, so that neither applying nor replicating reads the disk.
//!
//! `append` returns once an entry can be read, and the callback comes by post from the
//! log's writer once it is on disk. An entry leaves memory only when it is on disk and
//! the budget is spent.

use std::{
    collections::VecDeque,
    fmt, io,
    ops::{Bound, RangeBounds},
    sync::Arc,
};

use openraft::{
    LogState, OptionalSend, RaftLogReader,
    storage::{IOFlushed, RaftLogStorage},
};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::types::{self, Entry, LogId, TypeConfig, Vote};
use crate::{
    storage::{Image, Wal, WalError},
    threads::Post,
};

/// Memory for entries that are on disk besides.
const CACHE_BYTES: usize = 8 << 20;
/// Entries beyond this many bytes are left for the next message to a peer.
const READ_BYTES_MAX: usize = 4 << 20;
/// What a blank entry is reckoned to hold.
const ENTRY_OVERHEAD_BYTES: usize = 128;

/// The log; clones share it.
#[derive(Clone)]
pub(super) struct LogStore {
    wal: Wal,
    /// Must hold what is purged; none in a test of the log alone.
    image: Option<Image>,
    /// From the log's writer to openraft.
    post: Post,
    // Held for plain memory work alone. The log's own locks may be taken under it.
    state: Arc<Mutex<State>>,
}

struct State {
    /// The newest entries without a gap; the last is the log's last.
    recent: VecDeque<Entry>,
    recent_bytes: usize,
    /// Index of the oldest entry, or of the next where there is none. What lies
    /// before it was purged, or never was: a log may begin anywhere.
    first: u64,
    last: Option<LogId>,
    purged: Option<LogId>,
    vote: Option<Vote>,
    committed: Option<LogId>,
}

impl fmt::Debug for LogStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogStore").finish_non_exhaustive()
    }
}

impl LogStore {
    pub(super) fn new(wal: Wal, image: Option<Image>, post: Post) -> Self {
        let state = State {
            recent: VecDeque::new(),
            recent_bytes: 0,
            first: wal.first(),
            last: wal.last().as_ref().map(types::from_id),
            purged: wal.purged().as_ref().map(types::from_id),
            vote: wal.vote().as_ref().map(types::from_vote),
            committed: wal.committed().as_ref().map(types::from_id),
        };
        Self { wal, image, post, state: Arc::new(Mutex::new(state)) }
    }

    fn read(&self, range: impl RangeBounds<u64>, bytes_max: usize) -> io::Result<Vec<Entry>> {
        let start = match range.start_bound() {
            Bound::Included(&start) => start,
            Bound::Excluded(&before) => before + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(&last) => last + 1,
            Bound::Excluded(&end) => end,
            Bound::Unbounded => u64::MAX,
        };
        // One look at the memory, so that an entry on its way out of it is in one part or the other.
        let (mut from_disk, mut from_memory) = {
            let state = self.state.lock();
            let start = start.max(state.first);
            let end = end.min(state.last.map_or(0, |id| id.index + 1)).max(start);
            let first = state.recent.front().map_or(end, |entry| entry.log_id.index);
            let from_memory: Vec<Entry> = match start < first {
                // Disk comes first; memory only if that is not too much already.
                true if bytes_max < usize::MAX => Vec::new(),
                _ => {
                    // Without a gap, an entry's place follows from its index. To look for it would cost each
                    // entry that is applied a look at all that are held.
                    let held = state.recent.len();
                    let place = |index: u64| {
                        usize::try_from(index.saturating_sub(first)).map_or(held, |at| at.min(held))
                    };
                    state.recent.range(place(start)..place(end)).cloned().collect()
                }
            };
            (start..end.min(first.max(start)), from_memory)
        };
        let mut entries = Vec::new();
        let mut bytes = 0;
        while !from_disk.is_empty() && bytes < bytes_max {
            let index = from_disk.start;
            match self.wal.read(index..index + 1) {
                Ok(read) => {
                    for entry in read {
                        let entry = types::from_wal(entry).map_err(io::Error::other)?;
                        bytes += held_bytes(&entry);
                        entries.push(entry);
                    }
                }
                // Purged since the look: absent at the beginning, as is allowed.
                Err(WalError::NoSuchEntry { .. })
                    if self.state.lock().purged.is_some_and(|id| id.index >= index) =>
                {
                    entries.clear();
                }
                Err(error) => return Err(io::Error::other(error)),
            }
            from_disk.start += 1;
        }
        if bytes_max < usize::MAX {
            let mut left = bytes_max.saturating_sub(bytes);
            let fits = from_memory.iter().take_while(|entry| {
                let more = left > 0;
                left = left.saturating_sub(held_bytes(entry));
                more
            });
            let fits = fits.count();
            from_memory.truncate(fits);
        }
        entries.append(&mut from_memory);
        Ok(entries)
    }
}

impl State {
    fn push(&mut self, entry: Entry) {
        if self.last.is_none() {
            self.first = entry.log_id.index;
        }
        self.last = Some(entry.log_id);
        self.recent_bytes += held_bytes(&entry);
        self.recent.push_back(entry);
    }

    /// Lets go of the oldest entries beyond the budget that `wal` has on disk.
    fn shrink(&mut self, wal: &Wal) {
        while self.recent_bytes > CACHE_BYTES {
            let Some(oldest) = self.recent.front() else { return };
            // Compared by id: the place may still hold an entry that was since replaced.
            if wal.id_of(oldest.log_id.index) != Some(types::to_id(&oldest.log_id)) {
                return;
            }
            self.pop_front();
        }
    }

    fn pop_front(&mut self) {
        if let Some(entry) = self.recent.pop_front() {
            self.recent_bytes -= held_bytes(&entry);
        }
    }
}

fn held_bytes(entry: &Entry) -> usize {
    match &entry.payload {
        openraft::EntryPayload::Normal(command) => command.bytes() + ENTRY_OVERHEAD_BYTES,
        _ => ENTRY_OVERHEAD_BYTES,
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> Result<Vec<Entry>, io::Error>
    where
        RB: RangeBounds<u64> + Clone + fmt::Debug + OptionalSend,
    {
        self.read(range, usize::MAX)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        self.read(start..end, READ_BYTES_MAX)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.state.lock().vote)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let state = self.state.lock();
        Ok(LogState { last_purged_log_id: state.purged, last_log_id: state.last })
    }

    async fn get_log_reader(&mut self) -> Self::LogReader {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let (saved, wait) = oneshot::channel();
        let done = Box::new(move |result| drop(saved.send(result)));
        self.wal.save_vote(types::to_vote(vote), done);
        wait.await.map_err(io::Error::other)?.map_err(io::Error::other)?;
        self.state.lock().vote = Some(*vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        self.state.lock().committed = committed;
        self.wal.hint_committed(committed.as_ref().map(types::to_id));
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.state.lock().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.wal.room().await;
        let to_disk = {
            let mut state = self.state.lock();
            let entries = entries.into_iter();
            let to_disk = entries.map(|entry| {
                let to_disk = types::to_wal(&entry);
                state.push(entry);
                to_disk
            });
            to_disk.collect::<Vec<_>>()
        };
        let post = self.post.clone();
        let done = move |result: Result<(), WalError>| {
            post.send(move || callback.io_completed(result.map_err(io::Error::other)));
        };
        self.wal.append(to_disk, Box::new(done));
        self.state.lock().shrink(&self.wal);
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let mut state = self.state.lock();
        let next = last.map_or(0, |id| id.index + 1);
        if state.last.is_none_or(|last| last.index < next) {
            return Ok(());
        }
        while state.recent.back().is_some_and(|entry| entry.log_id.index >= next) {
            let entry = state.recent.pop_back().expect("just seen");
            state.recent_bytes -= held_bytes(&entry);
        }
        state.last = last;
        // Whatever is appended next goes to disk after this, in the same queue.
        self.wal.truncate(last.as_ref().map(types::to_id));
        Ok(())
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        if let Some(image) = &self.image
            && image.durable_index() < upto.index
        {
            // The caller has seen to it; what is purged must be nowhere else, so once more.
            let durable = image.checkpoint().await.map_err(io::Error::other)?;
            if durable < upto.index {
                return Err(io::Error::other(format!(
                    "the log may not be purged up to {}: the image holds {durable} entries for sure",
                    upto.index
                )));
            }
        }
        let mut state = self.state.lock();
        while state.recent.front().is_some_and(|entry| entry.log_id.index <= upto.index) {
            state.pop_front();
        }
        state.purged = state.purged.filter(|id| id.index > upto.index).or(Some(upto));
        state.first = state.first.max(upto.index + 1);
        if state.last.is_none_or(|last| last.index <= upto.index) {
            state.last = Some(upto);
        }
        self.wal.purge(types::to_id(&upto));
        Ok(())
    }
}
