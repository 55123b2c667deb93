//! The store's log of changes, as those who watched all of it saw it.

use std::collections::BTreeMap;

use etcfs_proto::{key::KeyRange, mvccpb::Event};

use super::history::{History, Stream};

/// Revision -> what it changed, in order. Events are without the pairs that they replaced.
pub(super) type Log = BTreeMap<i64, Vec<Event>>;

/// Gathers the log; of two that saw a revision, the first counts here and the other is judged by it.
pub(super) fn gather(history: &History) -> Log {
    let mut log = Log::new();
    for stream in history.streams.iter().filter(|stream| sees_all(stream)) {
        for (_, response) in &stream.responses {
            for (revision, events) in by_revision(&response.events) {
                log.entry(revision).or_insert_with(|| events.iter().map(bare).collect());
            }
        }
    }
    log
}

/// The events of a response in groups of one revision each, as they come.
pub(super) fn by_revision(events: &[Event]) -> impl Iterator<Item = (i64, &[Event])> {
    events.chunk_by(|a, b| revision(a) == revision(b)).map(|events| (revision(&events[0]), events))
}

fn sees_all(stream: &Stream) -> bool {
    let range = KeyRange::from_request(&stream.request.key, &stream.request.range_end);
    range.start.as_ref() <= b"\0".as_slice() && range.end.is_none() && stream.request.filters.is_empty()
}

pub(super) fn revision(event: &Event) -> i64 {
    event.kv.as_ref().map_or(0, |kv| kv.mod_revision)
}

/// The event without the pair that it replaced.
pub(super) fn bare(event: &Event) -> Event {
    Event { prev_kv: None, ..event.clone() }
}
