//! The locks of one file as of one revision, and who may have what.

use std::collections::BTreeMap;

use super::{Holder, Kind, Mode, Record, Span, file_of};
use crate::map::Key;
use crate::remote::{Changed, Event, KeyValue, Revision};

/// Every record of one file.
#[derive(Clone, Debug)]
pub(crate) struct Queue {
    file: Vec<u8>,
    /// As of which the records are so.
    pub(crate) revision: Revision,
    records: BTreeMap<Key, Record>,
}

/// A lock that somebody wants.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    pub(crate) holder: Holder,
    pub(crate) span: Span,
    pub(crate) mode: Mode,
    /// The number of its record that waits, if it has one.
    pub(crate) waits_as: Option<u64>,
}

/// What a request has to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Obstacle {
    pub(crate) holder: Holder,
    pub(crate) span: Span,
    pub(crate) mode: Mode,
    pub(crate) pid: u32,
}

impl Queue {
    pub(crate) fn new(file: &[u8], revision: Revision, kvs: &[KeyValue]) -> Self {
        let mut queue = Self { file: file.to_vec(), revision, records: BTreeMap::new() };
        for kv in kvs {
            queue.put(kv);
        }
        queue
    }

    /// Takes in what a later revision changed.
    pub(crate) fn take(&mut self, changed: &Changed) {
        if changed.revision <= self.revision {
            return;
        }
        self.revision = changed.revision;
        for event in &changed.events {
            match event {
                Event::Put(kv) => self.put(kv),
                Event::Delete(key) => drop(self.records.remove(key)),
            }
        }
    }

    fn put(&mut self, kv: &KeyValue) {
        if file_of(&kv.key) == Some(self.file.as_slice())
            && let Some(record) = Record::read(kv)
        {
            self.records.insert(kv.key.clone(), record);
        }
    }

    /// Who holds what, whatever is wanted.
    pub(crate) fn holders(&self) -> impl Iterator<Item = &Record> {
        self.records.values().filter(|record| record.kind == Kind::Holds)
    }

    /// The lock of another that stands in the way, held ones first.
    pub(crate) fn conflict(&self, holder: Holder, span: Span, mode: Mode) -> Option<Obstacle> {
        self.holders()
            .filter(|record| record.holder != holder)
            .find_map(|record| obstacle(record, span, mode))
    }

    /// What a request has to wait for: what others hold, and, for one that holds nothing here, what was asked for
    /// before it. (Who holds something may be what those wait for.)
    pub(crate) fn obstacle(&self, request: &Request) -> Option<Obstacle> {
        let Request { holder, span, mode, waits_as } = *request;
        if let Some(held) = self.conflict(holder, span, mode) {
            return Some(held);
        }
        if self.holders().any(|record| record.holder == holder) {
            return None;
        }
        let own = waits_as.map(|owner| Holder { owner, ..holder });
        let waiting = || self.records.values().filter(|record| record.kind == Kind::Waits);
        let since = waiting().find(|record| Some(record.holder) == own).map(|record| record.created);
        waiting()
            .filter(|record| Some(record.holder) != own && since.is_none_or(|since| record.created < since))
            .find_map(|record| obstacle(record, span, mode))
    }
}

fn obstacle(record: &Record, span: Span, mode: Mode) -> Option<Obstacle> {
    let (span, mode) = record.held.spans.conflict(span, mode)?;
    Some(Obstacle { holder: record.holder, span, mode, pid: record.held.pid })
}
