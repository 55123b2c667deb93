//! Each watch stream against the log: every event once, in order, whole and true.

use std::collections::BTreeSet;

use etcfs_proto::{
    etcdserverpb::{WatchCreateRequest, WatchResponse, watch_create_request::FilterType},
    key::KeyRange,
    mvccpb::{Event, event::EventType},
};

use super::{
    Rule, Verdict,
    history::{Moment, Stream},
    log::{Log, by_revision},
    witness::Compactions,
};

/// Checks `stream` against `log`, whose events hold the pairs that they replaced.
pub(super) fn check(stream: &Stream, log: &Log, compactions: &Compactions, verdict: &mut Verdict) {
    let mut check = Check {
        stream,
        log,
        compactions,
        verdict,
        range: KeyRange::from_request(&stream.request.key, &stream.request.range_end),
        next: stream.request.start_revision,
        delivered: BTreeSet::new(),
    };
    if check.is_boundary(stream.request.start_revision) {
        check.verdict.count("watches from the compacted revision on");
    }
    for (at, response) in &stream.responses {
        check.response(*at, response);
    }
    if let Some(goal) = stream.stalled_before {
        check.breach(Rule::WatchCatchesUp, format!("never told of {goal}"));
    }
}

struct Check<'a> {
    stream: &'a Stream,
    log: &'a Log,
    compactions: &'a Compactions,
    verdict: &'a mut Verdict,
    range: KeyRange,
    /// The first revision that may still come.
    next: i64,
    delivered: BTreeSet<i64>,
}

impl Check<'_> {
    fn breach(&mut self, rule: Rule, text: impl AsRef<str>) {
        let Stream { name, member, request, .. } = self.stream;
        let (start, text) = (request.start_revision, text.as_ref());
        self.verdict.breach(rule, format!("watch {name} on member {member} from {start}: {text}"));
    }

    fn response(&mut self, at: Moment, response: &WatchResponse) {
        let header = response.header.as_ref().map_or(0, |header| header.revision);
        if response.canceled {
            self.cancelled(at, response.compact_revision);
        } else if response.created {
            if self.stream.request.start_revision == 0 {
                self.next = header + 1;
            }
        } else if response.events.is_empty() {
            self.progress(header);
        } else {
            self.events(at, header, &response.events);
        }
    }

    /// A watch ends by itself only where what it needs next is compacted.
    fn cancelled(&mut self, at: Moment, compacted: i64) {
        self.verdict.count("watches cancelled by compaction");
        let next = self.next;
        if compacted <= next || self.compactions.possible_at(at) < compacted {
            self.breach(Rule::WatchGoesOn, format!("cancelled at {next}, compacted at {compacted}"));
        }
    }

    fn progress(&mut self, told: i64) {
        self.verdict.count("progress answers");
        if let Some((count, first)) = self.missing(told) {
            let text =
                format!("progress told {told} before {count} revisions from {first} on were delivered");
            self.breach(Rule::ProgressIsTrue, text);
        }
    }

    fn events(&mut self, at: Moment, header: i64, events: &[Event]) {
        for (revision, events) in by_revision(events) {
            self.verdict.count("events of streams");
            if revision > header {
                let text = format!("revision {revision} came with a header of {header}");
                self.breach(Rule::HeaderCoversEvents, text);
            }
            if self.delivered.contains(&revision) {
                self.breach(Rule::EventIsDeliveredOnce, format!("revision {revision} came again"));
                continue;
            }
            if revision < self.next {
                let text = format!("revision {revision} came, but {} was next", self.next);
                self.breach(Rule::EventsAreInOrder, text);
                continue;
            }
            if let Some((count, first)) = self.missing(revision - 1) {
                self.left_out(count, first, revision);
            }
            self.compare(at, revision, events);
            self.delivered.insert(revision);
            self.next = revision + 1;
        }
    }

    fn left_out(&mut self, count: usize, first: i64, revision: i64) {
        let (rule, count) = if self.is_boundary(first) {
            let text = format!("revision {first}, the compacted one, never came");
            self.breach(Rule::EventAtCompactionIsDelivered, text);
            (Rule::EventIsDelivered, count - 1)
        } else {
            (Rule::EventIsDelivered, count)
        };
        if count > 0 {
            self.breach(rule, format!("{count} revisions from {first} on are missing before {revision}"));
        }
    }

    /// Whether the stream begins at this revision, and history does.
    fn is_boundary(&self, revision: i64) -> bool {
        revision == self.stream.request.start_revision && self.compactions.at(revision)
    }

    /// How many revisions up to `last` have events for this watch that did not come, and the first.
    fn missing(&self, last: i64) -> Option<(usize, i64)> {
        if last < self.next {
            return None;
        }
        let wanted = |events: &Vec<Event>| events.iter().any(|event| self.wants(event));
        let mut missed = self.log.range(self.next..=last).filter(|(_, events)| wanted(events));
        let (&first, _) = missed.next()?;
        Some((1 + missed.count(), first))
    }

    fn wants(&self, event: &Event) -> bool {
        let unwanted = match event.r#type() {
            EventType::Put => FilterType::Noput,
            EventType::Delete => FilterType::Nodelete,
        };
        event.kv.as_ref().is_some_and(|kv| self.range.contains(&kv.key))
            && !self.stream.request.filters.contains(&unwanted.into())
    }

    /// Compares what came of one revision with the log.
    fn compare(&mut self, at: Moment, revision: i64, events: &[Event]) {
        let expected: Vec<&Event> =
            self.log.get(&revision).into_iter().flatten().filter(|event| self.wants(event)).collect();
        let forgotten = self.compactions.possible_at(at) >= revision;
        let request = &self.stream.request;
        let equal = |(event, expected): (&Event, &&Event)| is_told(event, expected, request, forgotten);
        let whole = events.len() == expected.len();
        if events.iter().zip(&expected).all(equal) && whole {
            return;
        }
        let part = |event: &Event| expected.iter().any(|expected| equal((event, expected)));
        if events.len() < expected.len() && events.iter().all(part) {
            let text = format!("{} of the {} events of {revision} came", events.len(), expected.len());
            let boundary = self.is_boundary(revision);
            let rule = if boundary { Rule::EventAtCompactionIsDelivered } else { Rule::RevisionIsWhole };
            self.breach(rule, text);
        } else {
            self.breach(Rule::EventIsRight, format!("{revision} came as {events:?}, not {expected:?}"));
        }
    }
}

/// True if `event` is `expected` as a watch tells it; what it replaced may be `forgotten` by compaction.
fn is_told(event: &Event, expected: &Event, request: &WatchCreateRequest, forgotten: bool) -> bool {
    let before = if request.prev_kv { expected.prev_kv.as_ref() } else { None };
    event.r#type == expected.r#type
        && event.kv == expected.kv
        && (event.prev_kv.as_ref() == before || event.prev_kv.is_none() && forgotten)
}
