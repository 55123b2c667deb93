//! What happened, in one number; and which entry each member applied at which index.
//!
//! Everything that the members log is taken in with the host and the simulated
//! time that it came from. Two runs of one seed must come to the same number:
//! that is what makes a failure one that can be looked at.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fmt::{self, Write as _},
    path::Path,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

use crate::clock;

/// Where the state machine tells of each entry.
const APPLIED: &str = "etcfs_server::raft::state_machine";

/// Where turmoil tells of each message.
const NETWORK: &str = "turmoil";

/// How much of a run is taken in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Detail {
    /// What the members log.
    #[default]
    Members,
    /// And each message on the network, which takes its time.
    Messages,
    /// The same, and all of it is printed.
    Printed,
}

/// The record of a run; clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trace {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    hash: AtomicU64,
    events: AtomicU64,
    /// Index -> the term and the checksum of the entry that was applied there first.
    applied: Mutex<BTreeMap<u64, (u64, u64)>>,
    breaches: Mutex<Vec<String>>,
    hosts: Mutex<BTreeMap<u64, String>>,
    spans: AtomicU64,
    detail: Detail,
    /// Where this run's files are; another place in each run.
    dir: OnceLock<String>,
}

thread_local! {
    /// The host whose turn it is, and the spans that were entered.
    static AT: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

impl Trace {
    pub(crate) fn new(detail: Detail) -> Self {
        Self { shared: Arc::new(Shared { detail, ..Shared::default() }) }
    }

    /// Leaves `dir` out of what is told.
    pub(crate) fn hide(&self, dir: &Path) {
        self.shared.dir.get_or_init(|| dir.display().to_string());
    }

    pub(crate) fn hash(&self) -> u64 {
        self.shared.hash.load(Ordering::Relaxed)
    }

    pub(crate) fn events(&self) -> u64 {
        self.shared.events.load(Ordering::Relaxed)
    }

    pub(crate) fn applied(&self) -> usize {
        self.shared.applied.lock().len()
    }

    /// Entries that differ from what another member applied at their index.
    pub(crate) fn breaches(&self) -> Vec<String> {
        self.shared.breaches.lock().clone()
    }

    fn note(&self, line: &str) {
        let Shared { hash, events, detail, .. } = &*self.shared;
        let line = match self.shared.dir.get() {
            Some(dir) => line.replace(dir, ""),
            None => line.to_owned(),
        };
        let mut mixed = hash.load(Ordering::Relaxed);
        for byte in line.bytes() {
            mixed = (mixed ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        hash.store(mixed, Ordering::Relaxed);
        let nth = events.fetch_add(1, Ordering::Relaxed);
        if *detail == Detail::Printed {
            show(&format!("{nth} {line}"));
        }
    }

    fn check_applied(&self, host: &str, fields: &Fields) {
        let Some((index, term, entry)) = fields.applied() else { return };
        let mut applied = self.shared.applied.lock();
        let first = *applied.entry(index).or_insert((term, entry));
        if first != (term, entry) {
            let text = format!(
                "{host} applied entry {index} as of term {term} with checksum {entry:x}, before it was term {} and {:x}",
                first.0, first.1
            );
            self.shared.breaches.lock().push(text);
        }
    }
}

#[expect(clippy::print_stderr, reason = "asked for by whoever looks at one run")]
fn show(line: &str) {
    eprintln!("{line}");
}

impl Subscriber for Trace {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        match metadata.is_span() {
            true => metadata.name() == "node",
            false if metadata.target() == NETWORK => self.shared.detail != Detail::Members,
            // Not openraft: it tells the time of the day.
            false => metadata.target().starts_with("etcfs"),
        }
    }

    fn new_span(&self, attributes: &span::Attributes<'_>) -> span::Id {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        let id = self.shared.spans.fetch_add(1, Ordering::Relaxed) + 1;
        self.shared.hosts.lock().insert(id, fields.text);
        span::Id::from_u64(id)
    }

    fn record(&self, _span: &span::Id, _values: &span::Record<'_>) {}

    fn record_follows_from(&self, _span: &span::Id, _follows: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let host = AT.with_borrow(|at| at.last().cloned().unwrap_or_default());
        let metadata = event.metadata();
        let now = clock::now();
        self.note(&format!("{now:?}{host} {} {}:{}", metadata.level(), metadata.target(), fields.text));
        if metadata.target() == APPLIED {
            self.check_applied(&host, &fields);
        }
    }

    fn enter(&self, span: &span::Id) {
        let host = self.shared.hosts.lock().get(&span.into_u64()).cloned().unwrap_or_default();
        AT.with_borrow_mut(|at| at.push(host));
    }

    fn exit(&self, _span: &span::Id) {
        AT.with_borrow_mut(Vec::pop);
    }

    fn try_close(&self, span: span::Id) -> bool {
        self.shared.hosts.lock().remove(&span.into_u64()).is_some()
    }
}

/// The fields of an event as text, and the numbers among them.
#[derive(Debug, Default)]
struct Fields {
    text: String,
    numbers: BTreeMap<&'static str, u64>,
}

impl Fields {
    fn applied(&self) -> Option<(u64, u64, u64)> {
        let number = |name| self.numbers.get(name).copied();
        Some((number("index")?, number("term")?, number("entry")?))
    }
}

impl Visit for Fields {
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.numbers.insert(field.name(), value);
        self.record_debug(field, &value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        write!(self.text, " {}={value:?}", field.name()).expect("memory takes it");
    }
}
