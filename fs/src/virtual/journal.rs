//! The log of what has changed since the mount began, and the files that show parts of it.
//!
//! The journal keeps the newest lines, up to a limit of bytes, whole. A [`View`] is one file's part of it: a stream
//! of bytes that only grows, whose positions stay while the view lives, also where its oldest lines are dropped.
//! A reader that asks for what is dropped goes on with the first line that is left.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;

use crate::map::OWN_RECORDS;
use crate::remote::Revision;

/// Lines that are kept, in bytes, of the journal and of each view.
pub(crate) const LOG_BYTES_MAX: usize = 16 << 20;

/// Which keys a log is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Scope {
    /// All that the mount shows.
    All,
    Below(Bytes),
    /// Those without a leading slash.
    Bare,
    Key(Bytes),
}

impl Scope {
    /// The mount's own records are in no log.
    pub(crate) fn covers(&self, key: &[u8]) -> bool {
        !key.starts_with(OWN_RECORDS)
            && match self {
                Self::All => true,
                Self::Below(prefix) => key.starts_with(prefix),
                Self::Bare => !key.starts_with(b"/"),
                Self::Key(only) => key == only,
            }
    }
}

/// Every line since the mount began, as far as they are kept.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    lines: Mutex<Lines>,
}

#[derive(Debug, Default)]
struct Lines {
    kept: VecDeque<Line>,
    bytes: usize,
    views: Vec<Weak<View>>,
}

#[derive(Clone, Debug)]
struct Line {
    /// `None` concerns all.
    key: Option<Bytes>,
    revision: Revision,
    text: Bytes,
}

/// One log file.
#[derive(Debug)]
pub(crate) struct View {
    scope: Scope,
    stream: Mutex<Stream>,
}

#[derive(Debug, Default)]
struct Stream {
    lines: VecDeque<(u64, Bytes)>,
    end: u64,
    bytes: usize,
    revision: Revision,
}

/// How one reader's offsets lie in the stream.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Place {
    shift: u64,
}

impl Journal {
    /// Appends a line; without a key it is in every log.
    pub(crate) fn push(&self, key: Option<Bytes>, revision: Revision, text: Bytes) {
        let mut lines = self.lines.lock();
        lines.views.retain(|view| {
            let Some(view) = view.upgrade() else { return false };
            if key.as_ref().is_none_or(|key| view.scope.covers(key)) {
                view.push(revision, text.clone());
            }
            true
        });
        lines.bytes += text.len();
        lines.kept.push_back(Line { key, revision, text });
        while lines.bytes > LOG_BYTES_MAX && lines.kept.len() > 1 {
            let Some(old) = lines.kept.pop_front() else { break };
            lines.bytes -= old.text.len();
        }
    }

    /// A file of the lines about `scope` that are kept, and of all that will come.
    pub(crate) fn view(&self, scope: Scope) -> Arc<View> {
        let view = Arc::new(View::new(scope));
        let mut lines = self.lines.lock();
        for line in &lines.kept {
            if line.key.as_ref().is_none_or(|key| view.scope.covers(key)) {
                view.push(line.revision, line.text.clone());
            }
        }
        lines.views.push(Arc::downgrade(&view));
        view
    }

    pub(crate) fn bytes(&self) -> usize {
        self.lines.lock().bytes
    }
}

impl View {
    /// A file that somebody else fills.
    pub(crate) fn new(scope: Scope) -> Self {
        Self { scope, stream: Mutex::default() }
    }

    pub(crate) fn push(&self, revision: Revision, text: Bytes) {
        let mut stream = self.stream.lock();
        let start = stream.end;
        stream.end += text.len() as u64;
        stream.bytes += text.len();
        stream.revision = stream.revision.max(revision);
        stream.lines.push_back((start, text));
        while stream.bytes > LOG_BYTES_MAX && stream.lines.len() > 1 {
            let Some((_, old)) = stream.lines.pop_front() else { break };
            stream.bytes -= old.len();
        }
    }

    /// How long it is, with what is dropped, and its newest revision.
    pub(crate) fn size(&self) -> (u64, Revision) {
        let stream = self.stream.lock();
        (stream.end, stream.revision)
    }

    pub(crate) fn read(&self, place: &mut Place, offset: u64, size: usize) -> Bytes {
        let stream = self.stream.lock();
        let first = stream.lines.front().map_or(stream.end, |(start, _)| *start);
        let mut at = offset.saturating_add(place.shift);
        if at < first {
            place.shift += first - at;
            at = first;
        }
        let mut found = BytesMut::new();
        let from = stream.lines.partition_point(|(start, text)| start + text.len() as u64 <= at);
        for (start, text) in stream.lines.iter().skip(from) {
            let begin = (at - start) as usize;
            let end = text.len().min(begin + (size - found.len()));
            found.extend_from_slice(&text[begin..end]);
            at += (end - begin) as u64;
            if found.len() == size {
                break;
            }
        }
        found.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(journal: &Journal, key: &'static str, revision: i64, text: impl Into<Bytes>) {
        journal.push(Some(key.into()), Revision(revision), text.into());
    }

    fn all(view: &View, step: usize) -> String {
        let (mut place, mut text) = (Place::default(), Vec::new());
        loop {
            let more = view.read(&mut place, text.len() as u64, step);
            if more.is_empty() {
                return String::from_utf8(text).unwrap();
            }
            text.extend_from_slice(&more);
        }
    }

    #[test]
    fn a_view_has_its_lines_of_before_and_after_and_no_others() {
        let journal = Journal::default();
        push(&journal, "/d/a", 2, "one\n");
        push(&journal, "/e/a", 3, "two\n");
        let below = journal.view(Scope::Below("/d/".into()));
        let key = journal.view(Scope::Key("/e/a".into()));
        push(&journal, "/d/b", 4, "three\n");
        push(&journal, ".etcfs/dir//d/", 5, "hidden\n");
        journal.push(None, Revision(9), "gap\n".into());
        for step in [1, 3, 1000] {
            assert_eq!(all(&below, step), "one\nthree\ngap\n");
            assert_eq!(all(&key, step), "two\ngap\n");
            assert_eq!(all(&journal.view(Scope::All), step), "one\ntwo\nthree\ngap\n");
            assert_eq!(all(&journal.view(Scope::Bare), step), "gap\n");
        }
        assert_eq!(below.size(), (14, Revision(9)));
    }

    #[test]
    fn old_lines_go_whole_and_positions_stay() {
        let journal = Journal::default();
        let view = journal.view(Scope::All);
        let long = |byte: u8| Bytes::from([vec![byte; (4 << 20) - 1], vec![b'\n']].concat());
        let mut reader = Place::default();
        for (revision, byte) in (1..).zip(*b"abcdef") {
            push(&journal, "/k", revision, long(byte));
        }
        assert!(journal.bytes() <= LOG_BYTES_MAX);
        let (size, _) = view.size();
        assert_eq!(size, 6 * (4 << 20));
        // From the begin: the first whole line that is left.
        assert_eq!(view.read(&mut reader, 0, 2), "cc");
        assert_eq!(view.read(&mut reader, (4 << 20) - 1, 2), "\nd");
        // From near the end, as tail does it: no shift.
        let mut tail = Place::default();
        assert_eq!(view.read(&mut tail, size - 2, 10), "f\n");
        push(&journal, "/k", 7, "new\n");
        assert_eq!(view.read(&mut tail, size, 10), "new\n");
        assert_eq!(view.read(&mut tail, size + 4, 10), "");
        // A view that is made later begins with what is left.
        assert_eq!(journal.view(Scope::All).size().0, 3 * (4 << 20) + 4);
    }
}
