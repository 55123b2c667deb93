//! What the log holds, in memory: where each entry lies, and the newest vote,
//! commit and purge. Recovery and the writer build it by the same steps.

use std::{collections::VecDeque, sync::Arc};

use etcfs_proto::etcfs::record::{LogId, Vote};

use super::segment::Segment;

/// Place of one entry.
#[derive(Clone, Debug)]
pub(super) struct Position {
    pub(super) id: LogId,
    pub(super) segment: Arc<Segment>,
    pub(super) offset: u32,
    pub(super) bytes: u32,
}

/// Entries `[first, first + positions.len())` and the log's other facts.
#[derive(Debug, Default)]
pub(super) struct Index {
    pub(super) first: u64,
    positions: VecDeque<Position>,
    pub(super) last: Option<LogId>,
    pub(super) purged: Option<LogId>,
    pub(super) vote: Option<Vote>,
    pub(super) committed: Option<LogId>,
    bytes: u64,
}

impl Index {
    /// Forgets every place; the log goes on after `last`. For a segment whose
    /// predecessors are gone.
    pub(super) fn restart(&mut self, last: Option<LogId>) {
        *self = Self { first: last.map_or(0, |id| id.index + 1), last, ..Self::default() };
    }

    /// Takes the next entry; false if it does not follow the last.
    pub(super) fn put(&mut self, position: Position) -> bool {
        if self.last.is_none() && self.positions.is_empty() {
            self.first = position.id.index;
        } else if position.id.index != self.first + self.positions.len() as u64 {
            return false;
        }
        self.last = Some(position.id);
        self.bytes += u64::from(position.bytes);
        self.positions.push_back(position);
        true
    }

    pub(super) fn truncate(&mut self, after: Option<LogId>) {
        let next = after.map_or(0, |id| id.index + 1);
        while self.positions.back().is_some_and(|position| position.id.index >= next) {
            self.bytes -= u64::from(self.positions.pop_back().expect("just seen").bytes);
        }
        if self.positions.is_empty() {
            self.first = self.first.min(next);
        }
        self.last = if self.last.is_some_and(|last| last.index >= next) { after } else { self.last };
    }

    pub(super) fn purge(&mut self, id: LogId) {
        while self.positions.front().is_some_and(|position| position.id.index <= id.index) {
            self.bytes -= u64::from(self.positions.pop_front().expect("just seen").bytes);
            self.first += 1;
        }
        if self.last.is_none_or(|last| last.index <= id.index) {
            self.last = Some(id);
        }
        if self.positions.is_empty() {
            self.first = self.first.max(id.index + 1);
        }
        self.purged = self.purged.max_by_index(id);
    }

    pub(super) fn get(&self, index: u64) -> Option<&Position> {
        let at = usize::try_from(index.checked_sub(self.first)?).ok()?;
        self.positions.get(at)
    }

    /// True iff no entry is missing between the purged ones and the last.
    pub(super) fn is_whole(&self) -> bool {
        self.first <= self.purged.map_or(0, |id| id.index + 1)
    }

    /// Bytes on disk of the entries after `index`.
    pub(super) fn bytes_after(&self, index: Option<u64>) -> u64 {
        match index {
            // Far the most are newer where few were applied, so count the others.
            Some(index) => {
                let older = self.positions.iter().take_while(|position| position.id.index <= index);
                self.bytes - older.map(|position| u64::from(position.bytes)).sum::<u64>()
            }
            None => self.bytes,
        }
    }
}

trait MaxByIndex {
    fn max_by_index(self, other: LogId) -> Self;
}

impl MaxByIndex for Option<LogId> {
    fn max_by_index(self, other: LogId) -> Self {
        self.filter(|id| id.index > other.index).or(Some(other))
    }
}
