//! What an open file holds: a reader its snapshot and its place in the log of
//! later values, a writer its edits.
//!
//! A reader never sees part of two values in one value's place: it reads its
//! snapshot to the end, is told the end once, and only then goes on with each
//! later value, whole and in order. A writer knows which put would be its next
//! and which it must never make. Both are plain data; the table owns them.

use std::collections::VecDeque;
use std::time::{Instant, SystemTime};

use bytes::{Bytes, BytesMut};

use super::{Caller, Edits, NodeId, Process};

/// Bytes of later values that one inode keeps for its readers. The newest value
/// is always kept whole, older ones are dropped (and counted) past this.
pub(crate) const FOLLOW_LOG_BYTES_MAX: u64 = 4 << 20;

/// One later value in the stream that follows an inode's own bytes.
#[derive(Clone, Debug)]
pub(super) struct Logged {
    pub(super) start: u64,
    pub(super) seq: u64,
    pub(super) bytes: Bytes,
}

impl Logged {
    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }
}

/// The values that came after an inode's own, as one stream of bytes that begins
/// where those end.
#[derive(Debug)]
pub(super) struct Log {
    items: VecDeque<Logged>,
    /// Where the next value will begin.
    end: u64,
    /// The newest value that was appended, or the inode's own.
    seq: u64,
    held: u64,
}

impl Log {
    pub(super) fn new(base_len: u64, seq: u64) -> Self {
        Self { items: VecDeque::new(), end: base_len, seq, held: 0 }
    }

    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Where the values that follow `seq` begin; `None` while `seq` itself is still to come.
    fn place_of(&self, seq: u64) -> Option<u64> {
        (self.seq >= seq).then(|| self.after(seq))
    }

    /// Appends a value; returns how many old ones had to go for it.
    pub(super) fn push(&mut self, seq: u64, bytes: Bytes) -> u64 {
        if seq <= self.seq {
            return 0;
        }
        self.seq = seq;
        let len = bytes.len() as u64;
        self.items.push_back(Logged { start: self.end, seq, bytes });
        self.end += len;
        self.held += len;
        let mut dropped = 0;
        while self.held > FOLLOW_LOG_BYTES_MAX && self.items.len() > 1 {
            if let Some(old) = self.items.pop_front() {
                self.held -= old.bytes.len() as u64;
                dropped += 1;
            }
        }
        dropped
    }

    /// Where the first value newer than `seq` begins.
    fn after(&self, seq: u64) -> u64 {
        self.items.iter().find(|item| item.seq > seq).map_or(self.end, |item| item.start)
    }

    fn at(&self, position: u64) -> usize {
        self.items.partition_point(|item| item.end() <= position)
    }
}

/// An open file that was opened for reading alone.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) node: NodeId,
    pub(super) pid: u32,
    /// Readers opened later have a larger one.
    pub(super) order: u64,
    snap: Bytes,
    snap_seq: u64,
    /// Log position minus the reader's own offset; `None` until the log has the snapshot.
    shift: Option<i64>,
    at_end: bool,
    eof: bool,
    told: bool,
    any_read: bool,
    asked_at: Option<Instant>,
    /// What flush and fsync answer: a lock that this file may stand for is lost.
    pub(super) failed: Option<i32>,
    /// The value that the last read ended inside of: finished first, also when
    /// the log has dropped it.
    part: Option<Logged>,
    /// A process that had the file open for writing when it opened this: its unsaved bytes show here, as long as
    /// it has.
    pub(super) beside: Option<Process>,
    /// Unlinked through this mount, beside such writers.
    pub(super) unlinked: Option<Unlinked>,
}

/// When a name was taken from under its open files: tells which of them are one file still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unlinked(pub(super) u64);

/// A getattr by somebody who has read nothing yet reports the grown size only
/// when asked again after this long: `wc -c`, `cp` and the like ask at once.
const ASKED_AGAIN: std::time::Duration = std::time::Duration::from_millis(500);

impl Reader {
    pub(super) fn new(node: NodeId, pid: u32, order: u64, snap: Bytes, snap_seq: u64) -> Self {
        Self {
            node,
            pid,
            order,
            snap,
            snap_seq,
            shift: Some(0),
            at_end: false,
            eof: false,
            told: false,
            any_read: false,
            asked_at: None,
            failed: None,
            part: None,
            beside: None,
            unlinked: None,
        }
    }

    fn len(&self) -> u64 {
        self.snap.len() as u64
    }

    /// The size to report to the process that reads here: its snapshot's, or with
    /// the later values, once it has come to the end.
    pub(super) fn grown(&mut self, log: &Log, now: Instant) -> Option<u64> {
        let size = log.end().checked_add_signed(-self.place(log)?)?;
        if size <= self.len() {
            return None;
        }
        let waited = !self.any_read
            && match self.asked_at {
                Some(at) => now.duration_since(at) >= ASKED_AGAIN,
                None => {
                    self.asked_at = Some(now);
                    false
                }
            };
        if !self.at_end && !waited {
            return None;
        }
        self.told = true;
        Some(size)
    }

    /// Log position minus the reader's own offset, once that can be said.
    fn place(&mut self, log: &Log) -> Option<i64> {
        if self.shift.is_none() {
            self.shift = log.place_of(self.snap_seq).map(|at| at as i64 - self.snap.len() as i64);
        }
        self.shift
    }

    /// From now on it is a reader of this value. The log may be told of it later.
    pub(super) fn settle(&mut self, bytes: Bytes, seq: u64) {
        (self.snap, self.snap_seq, self.shift) = (bytes, seq, None);
        (self.at_end, self.eof, self.told, self.part) = (false, false, false, None);
        self.beside = None;
    }

    /// Notes the first question about the size, before anything has changed.
    pub(super) fn asked(&mut self, now: Instant) {
        if !self.any_read && self.asked_at.is_none() {
            self.asked_at = Some(now);
        }
    }

    /// What a read at `offset` sees. `published` is the key's newest published
    /// value, for a reader that starts over.
    pub(super) fn read(
        &mut self,
        log: Option<&Log>,
        published: Option<(&Bytes, u64)>,
        offset: u64,
        size: usize,
    ) -> Bytes {
        self.any_read = true;
        if offset == 0
            && self.at_end
            && self.len() > 0
            && let (Some((bytes, seq)), Some(log)) = (published, log)
            && seq > self.snap_seq
        {
            self.snap = bytes.clone();
            self.snap_seq = seq;
            self.shift = Some(log.after(seq) as i64 - bytes.len() as i64);
            (self.at_end, self.eof, self.told, self.part) = (false, false, false, None);
        }
        if offset < self.len() {
            let start = offset as usize;
            let end = self.snap.len().min(start.saturating_add(size));
            self.at_end = end == self.snap.len();
            self.told = false;
            return self.snap.slice(start..end);
        }
        let Some(log) = log else {
            return Bytes::new();
        };
        if !self.eof && !self.told {
            (self.eof, self.at_end) = (true, true);
            return Bytes::new();
        }
        self.follow(log, offset, size)
    }

    fn follow(&mut self, log: &Log, offset: u64, size: usize) -> Bytes {
        let Some(shift) = self.place(log) else { return Bytes::new() };
        let Some(mut position) = offset.checked_add_signed(shift) else { return Bytes::new() };
        let mut found = BytesMut::new();
        if let Some(part) = self.part.take_if(|part| part.start <= position && position < part.end()) {
            let at = (position - part.start) as usize;
            let end = part.bytes.len().min(at + size);
            found.extend_from_slice(&part.bytes[at..end]);
            position += (end - at) as u64;
            if position < part.end() {
                self.part = Some(part);
                return found.freeze();
            }
        }
        if let Some(first) = log.items.front()
            && position < first.start
        {
            self.shift = Some(shift + (first.start - position) as i64);
            position = first.start;
        }
        let mut index = log.at(position);
        while found.len() < size
            && let Some(item) = log.items.get(index)
        {
            let at = (position - item.start) as usize;
            let end = item.bytes.len().min(at + (size - found.len()));
            found.extend_from_slice(&item.bytes[at..end]);
            position += (end - at) as u64;
            if position < item.end() {
                self.part = Some(item.clone());
                break;
            }
            index += 1;
        }
        if position >= log.end() {
            (self.eof, self.at_end) = (true, true);
        }
        found.freeze()
    }
}

/// How a file came to be open for writing, which decides when it puts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OpenedAs {
    /// O_CREAT made it: nothing of it is on the server until the first put.
    Created,
    /// O_TRUNC on an existing key.
    Truncated,
    Append,
    /// Anything else (`r+`): puts at flush and fsync alone, since its first write
    /// may be half of a change.
    InPlace,
}

/// An open file that may write.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) node: NodeId,
    /// The thread that opened it or wrote through it last.
    pub(super) thread: u32,
    /// The processes that have opened it or written through it.
    pub(super) processes: Vec<Process>,
    pub(super) key: Bytes,
    pub(super) opened_as: OpenedAs,
    /// O_APPEND: writes go to the end, whatever the kernel's offset says.
    pub(super) append: bool,
    /// O_SYNC or O_DSYNC: every write is a put.
    pub(super) sync: bool,
    pub(super) edits: Edits,
    /// When the edits were last added to.
    pub(super) changed: Option<SystemTime>,
    /// Of all that writers did, what this one did last.
    pub(super) last_edit: u64,
    /// True once write(2) was called on it.
    pub(super) wrote: bool,
    /// True once this handle has put (or its O_EXCL create has).
    pub(super) put: bool,
    /// The create_revision of the key that it writes; 0: it is to be created.
    pub(super) create: i64,
    /// The errno of a failed write: from then on nothing is put.
    pub(super) failed: Option<i32>,
    /// Unlinked through this mount: goes on alone, with these bytes below its edits.
    pub(super) anonymous: Option<Anonymous>,
}

/// What an open file without a name has below its edits.
#[derive(Clone, Debug)]
pub(super) struct Anonymous {
    pub(super) bytes: Bytes,
    pub(super) since: Unlinked,
}

impl Writer {
    /// Notes who uses it. Pages that were written through a mapping come from nobody.
    pub(super) fn used_by(&mut self, caller: Caller) {
        if caller.thread != 0 {
            self.thread = caller.thread;
        }
        if let Some(process) = caller.process
            && !self.processes.contains(&process)
        {
            self.processes.push(process);
        }
    }

    /// True while it has changes that are still to be saved.
    pub(super) fn is_unsaved(&self) -> bool {
        self.changed.is_some() && self.failed.is_none()
    }

    pub(super) fn unlinked(&self) -> Option<Unlinked> {
        self.anonymous.as_ref().map(|anonymous| anonymous.since)
    }

    /// True iff a put is due at `moment`.
    pub(super) fn due(&self, moment: Moment) -> bool {
        if self.failed.is_some() || self.anonymous.is_some() {
            return false;
        }
        let pending = !self.edits.is_empty() || (self.opened_as == OpenedAs::Created && !self.put);
        let waits_for_write =
            !self.wrote && !self.put && matches!(self.opened_as, OpenedAs::Created | OpenedAs::Truncated);
        match moment {
            // An empty file that may yet be written: the shell flushes before it writes.
            Moment::Flush => pending && !waits_for_write,
            Moment::Fsync | Moment::Release => pending,
            Moment::Write { small, first } => {
                self.sync || (small && first && self.opened_as != OpenedAs::InPlace)
            }
        }
    }

    /// What lies below its edits, on a file that is known to be this.
    pub(super) fn base<'b>(&'b self, known: &'b Bytes) -> &'b Bytes {
        self.anonymous.as_ref().map_or(known, |anonymous| &anonymous.bytes)
    }
}

/// When a writer may put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    Write { small: bool, first: bool },
    Flush,
    Fsync,
    Release,
}

/// A writer as a put needs it.
#[derive(Clone, Debug)]
pub(crate) struct WriterView {
    pub(crate) key: Bytes,
    pub(crate) edits: Edits,
    pub(crate) create: i64,
    pub(crate) put: bool,
    pub(crate) anonymous: bool,
}
