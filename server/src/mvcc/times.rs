//! When revisions were made, to a tenth of a second.
//!
//! A row says a time from its revision on, up to the next row's. Within it the time goes on by a nanosecond for each
//! revision, so it rises strictly, and is early by less than [`ROW_MS`]: the next row comes once that much has passed.
//! An entry's time is its leader's clock, unless that is behind a time that was told already. A row without a time is a
//! hole: revisions of a leader that puts no time into its entries, or that no key has any more.
//!
//! ```text
//!   rows:  2 -> 1000 ms   7 -> 1250 ms   9 -> unknown   12 -> 3000 ms
//!   time of 2: 1000 ms    of 6: 1000 ms + 4 ns    of 10: unknown    of 12 and all after it: 3000 ms + ...
//! ```
//!
//! A compaction drops the rows that no kept revision needs; holes are left in their place, and neighbouring holes are
//! one. So there are at most twice as many rows as kept revisions.

use etcfs_proto::etcfs::record::{Meta, RevisionTime};

use super::FIRST_REVISION;
use crate::storage::{
    Batch, Engine, StorageError, codec, engine,
    keyspace::{self, TIMES},
};

/// A row is not followed by another before so much time has passed.
const ROW_MS: u64 = 100;

const NANOS_PER_MS: u64 = 1_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Row {
    revision: i64,
    /// 0 for a hole.
    unix_ms: u64,
}

impl Row {
    fn nanos(self) -> u64 {
        self.unix_ms.saturating_mul(NANOS_PER_MS)
    }
}

/// What is known of when a revision was made, in nanoseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    At(u64),
    /// Its own time is not known, but that of a later one.
    Before(u64),
    Unknown,
}

impl Made {
    /// 0 where it is not known.
    pub fn at(self) -> i64 {
        if let Self::At(nanos) = self { nanos.try_into().unwrap_or(0) } else { 0 }
    }

    /// 0 where there is nothing to say.
    pub fn before(self) -> i64 {
        if let Self::Before(nanos) = self { nanos.try_into().unwrap_or(0) } else { 0 }
    }
}

/// Revision -> time; ascending in both but for holes.
#[derive(Debug, Default)]
pub(crate) struct Times {
    rows: Vec<Row>,
}

impl Times {
    pub(crate) fn of(&self, revision: i64) -> Made {
        let next = self.rows.partition_point(|row| row.revision <= revision);
        let row = next.checked_sub(1).map(|place| self.rows[place]).filter(|row| row.unix_ms > 0);
        match (row, self.rows[next..].iter().find(|row| row.unix_ms > 0)) {
            (Some(row), _) => Made::At(row.nanos().saturating_add(row.revision.abs_diff(revision))),
            (None, Some(later)) => {
                Made::Before(later.nanos().saturating_sub(later.revision.abs_diff(revision)))
            }
            (None, None) => Made::Unknown,
        }
    }

    /// Takes the rows of an image that speaks for revisions up to `upto` and holds some up to `revision`.
    pub(crate) fn load(engine: &dyn Engine, upto: i64, revision: i64) -> Result<Self, StorageError> {
        let mut times = Self::default();
        for row in engine::all(engine, TIMES) {
            let (key, value) = row?;
            let from = keyspace::parse_time(&key).ok_or_else(|| StorageError::Corrupt {
                what: format!("row {}", key.escape_ascii()),
                reason: "it names no revision".into(),
            })?;
            let RevisionTime { unix_ms } = codec::decode(&key, value)?;
            times.rows.push(Row { revision: from, unix_ms });
        }
        times.rows.shrink_to_fit();
        // Who knows no times has added revisions. The newest row was right for its own, at least.
        if let Some(last) = times.rows.last()
            && last.unix_ms > 0
        {
            let unknown = upto.max(last.revision) + 1;
            times.rows.extend((unknown <= revision).then_some(Row { revision: unknown, unix_ms: 0 }));
        }
        Ok(times)
    }

    fn place(&self, revision: i64) -> Option<usize> {
        self.rows.partition_point(|row| row.revision <= revision).checked_sub(1)
    }
}

/// What adds rows: it remembers of them what decides whether there is a next.
#[derive(Debug, Default)]
pub(super) struct Clock {
    /// The newest row is a hole, or there is none.
    unknown: bool,
    /// The newest time in any row.
    newest_ms: u64,
    /// A hole that was found where the image was loaded, and is to go into it.
    found: Option<i64>,
}

impl Clock {
    pub(super) fn of(times: &Times, meta: &Meta) -> Self {
        let last = times.rows.last();
        let upto = meta.times_revision;
        Self {
            unknown: last.is_none_or(|last| last.unix_ms == 0),
            // Where an older member has dropped it from the meta row, the rows may tell.
            newest_ms: times.rows.iter().map(|row| row.unix_ms).max().unwrap_or(0).max(meta.times_unix_ms),
            found: last.filter(|last| last.unix_ms == 0 && last.revision > upto).map(|last| last.revision),
        }
    }

    /// The row that an entry begins whose first revision is `first`.
    fn row(&mut self, first: i64, unix_ms: u64) -> Option<Row> {
        if unix_ms == 0 {
            let is_first = !std::mem::replace(&mut self.unknown, true);
            return is_first.then_some(Row { revision: first, unix_ms: 0 });
        }
        // A clock that is behind has no say: times never go back, and a hole goes on.
        if unix_ms < self.newest_ms.saturating_add(ROW_MS) {
            return None;
        }
        (self.unknown, self.newest_ms) = (false, unix_ms);
        Some(Row { revision: first, unix_ms })
    }
}

impl super::Writer {
    /// The newest time in any row that was ever there.
    pub fn newest_time_ms(&self) -> u64 {
        self.clock.newest_ms
    }

    /// Takes note of when an entry's revisions were made, of which `first` would be the first: `unix_ms` by its leader's
    /// clock, 0 for one that does not say. Once for each entry.
    pub fn time(&mut self, first: i64, unix_ms: u64, batch: &mut Batch) {
        if let Some(hole) = self.clock.found.take() {
            put(batch, Row { revision: hole, unix_ms: 0 });
        }
        if first > self.revision() {
            return;
        }
        if let Some(row) = self.clock.row(first, unix_ms) {
            put(batch, row);
            self.store().times.write().rows.push(row);
        }
    }
}

impl super::Store {
    /// When each of the revisions was made, as far as that is known.
    pub fn times(&self, revisions: impl IntoIterator<Item = i64>) -> Vec<Made> {
        let newest = self.revision();
        let times = self.times.read();
        let made = |revision| match revision {
            FIRST_REVISION.. if revision <= newest => times.of(revision),
            _ => Made::Unknown,
        };
        revisions.into_iter().map(made).collect()
    }
}

fn put(batch: &mut Batch, row: Row) {
    batch.put(keyspace::time(row.revision), codec::encode(&RevisionTime { unix_ms: row.unix_ms }));
}

/// Which rows a compaction leaves, while a scrub walks the index.
#[derive(Debug, Default)]
pub(super) struct Needed {
    /// One for each row that ends at or below the compaction, in order.
    marks: Vec<bool>,
    /// Rows looked at since the walk's end, and whether a hole precedes the next.
    swept: usize,
    after_hole: bool,
}

impl Needed {
    /// For a compaction at `at`.
    pub(super) fn new(times: &Times, at: i64) -> Self {
        // What lies behind a hole at the very begin is unknown anyway.
        Self { marks: vec![false; times.place(at).unwrap_or(0)], swept: 0, after_hole: true }
    }

    /// True if no row can go.
    pub(super) fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }

    /// `revision` is kept.
    pub(super) fn mark(&mut self, times: &Times, revision: i64) {
        if let Some(mark) = times.place(revision).and_then(|place| self.marks.get_mut(place)) {
            *mark = true;
        }
    }

    /// Puts up to `max` rows that are not needed out of the image; true once it has come to the end, and they
    /// are out of memory too.
    pub(super) fn sweep(&mut self, times: &mut Times, max: usize, batch: &mut Batch) -> bool {
        let end = self.marks.len().min(self.swept + max);
        for place in self.swept..end {
            let row = times.rows[place];
            let is_hole = row.unix_ms == 0 || !self.marks[place];
            self.marks[place] = !is_hole || !self.after_hole;
            match (self.marks[place], is_hole) {
                (false, _) => batch.delete(keyspace::time(row.revision)),
                (true, true) if row.unix_ms > 0 => {
                    times.rows[place].unix_ms = 0;
                    put(batch, times.rows[place]);
                }
                (true, _) => {}
            }
            self.after_hole = is_hole;
        }
        self.swept = end;
        if end < self.marks.len() {
            return false;
        }
        let mut kept = self.marks.iter();
        times.rows.retain(|_| kept.next().copied().unwrap_or(true));
        times.rows.shrink_to(2 * times.rows.len());
        true
    }
}
