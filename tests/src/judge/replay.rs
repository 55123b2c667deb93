//! Replays the log against the model and finds who made each revision.
//!
//! A revision that puts was made by whoever asked for its values. One that only
//! deletes was made by the deletion acknowledged at it, by the end of a lease
//! that holds all of its keys, or by a deletion whose answer was lost.

use std::collections::{BTreeMap, HashMap, VecDeque};

use bytes::Bytes;
use etcfs_proto::{
    etcdserverpb::{request_op::Request, response_op::Response},
    mvccpb::{Event, event::EventType},
};

use super::{
    History, Rule, Verdict,
    history::{Call, Operation, Outcome},
    log::{Log, bare},
    model::{Model, deletion, key_of, without_headers},
    shown,
};

/// What the replay found out.
#[derive(Debug, Default)]
pub(super) struct Replayed {
    /// Operation -> the revision that it made.
    pub(super) made: HashMap<usize, i64>,
    /// Lease -> the revision that ended it and its keys.
    pub(super) ended: HashMap<i64, i64>,
    /// The log, each event with the pair that it replaced.
    pub(super) log: Log,
    /// The state in the end.
    pub(super) model: Model,
    pub(super) last: i64,
}

struct Replay<'a> {
    history: &'a History,
    verdict: &'a mut Verdict,
    /// Value -> who asked for it.
    askers: HashMap<Bytes, usize>,
    /// Revision -> the changes acknowledged at it.
    acknowledged: BTreeMap<i64, Vec<usize>>,
    /// Key -> the deletions of it whose answer was lost, in the order in which they were asked for.
    lost_deletes: HashMap<Bytes, VecDeque<usize>>,
    /// Revision -> the calls that saw its state.
    reads: BTreeMap<i64, Vec<usize>>,
    found: Replayed,
}

/// Replays `log`, which holds the events that watchers saw.
pub(super) fn replay(history: &History, log: &Log, verdict: &mut Verdict) -> Replayed {
    let mut replay = Replay {
        history,
        verdict,
        askers: HashMap::new(),
        acknowledged: BTreeMap::new(),
        lost_deletes: HashMap::new(),
        reads: BTreeMap::new(),
        found: Replayed::default(),
    };
    let mut in_order: Vec<usize> = (0..history.operations.len()).collect();
    in_order.sort_by_key(|&index| history.operations[index].asked);
    for index in in_order {
        replay.index(index);
    }
    let last = |revisions: Option<&i64>| revisions.copied().unwrap_or(1);
    let last = last(log.keys().next_back()).max(last(replay.acknowledged.keys().next_back()));
    for revision in 1..=last {
        if revision > 1 {
            replay.change(revision, log.get(&revision));
        }
        replay.read(revision);
    }
    replay.read_beyond(last);
    replay.found.last = last;
    replay.found
}

impl Replay<'_> {
    fn operation(&self, index: usize) -> &Operation {
        &self.history.operations[index]
    }

    fn index(&mut self, index: usize) {
        let call = &self.history.operations[index].call;
        for put in call.puts() {
            let asker = self.askers.insert(put.value.clone(), index);
            assert!(asker.is_none_or(|other| other == index), "two operations put {:?}", put.value);
        }
        let changed = call.changed();
        match (call, call.revision()) {
            (_, Some(revision)) if changed => self.acknowledged.entry(revision).or_default().push(index),
            (Call::Range(request, _), Some(revision)) => {
                let at = if request.revision > 0 { request.revision } else { revision };
                self.reads.entry(at).or_default().push(index);
            }
            (Call::Txn(..) | Call::Delete(..) | Call::Revoke(..), Some(revision)) => {
                self.reads.entry(revision).or_default().push(index);
            }
            (Call::Delete(request, Outcome::Lost), None) => {
                assert!(request.range_end.is_empty(), "a deletion of several keys puts as well");
                self.lost_deletes.entry(request.key.clone()).or_default().push_back(index);
            }
            _ => {}
        }
    }

    /// Finds who made `revision` and has the model do the same.
    fn change(&mut self, revision: i64, events: Option<&Vec<Event>>) {
        let acknowledged = self.acknowledged.remove(&revision).unwrap_or_default();
        let put = |events: &Vec<Event>| events.iter().find(|event| event.r#type() == EventType::Put).cloned();
        match events {
            None => {
                let what = acknowledged.first().map(|&index| shown(self.operation(index)));
                let text = format!("no watcher saw revision {revision}, acknowledged to {what:?}");
                self.verdict.breach(Rule::RevisionIsSeen, text);
                if let Some(&index) = acknowledged.first() {
                    self.made_by(index, revision, None);
                }
            }
            Some(events) => match put(events) {
                Some(event) => {
                    let value = event.kv.map(|kv| kv.value).unwrap_or_default();
                    match self.askers.get(&value) {
                        Some(&index) => self.made_by(index, revision, Some(events)),
                        None => self.made_by_nobody(revision, events),
                    }
                }
                None => match acknowledged.first() {
                    Some(&index) => self.made_by(index, revision, Some(events)),
                    None => self.deleted(revision, events),
                },
            },
        }
        for index in acknowledged {
            if self.found.made.get(&index) != Some(&revision) {
                self.not_at(index, revision, events);
            }
        }
    }

    /// Something was acknowledged at `revision`, which something else has made.
    fn not_at(&mut self, index: usize, revision: i64, events: Option<&Vec<Event>>) {
        let other = self.found.made.iter().find(|(_, made)| **made == revision).map(|(other, _)| *other);
        let both = other.filter(|&other| self.operation(other).call.revision() == Some(revision));
        let what = shown(self.operation(index));
        match both {
            Some(other) => {
                let other = shown(self.operation(other));
                let text = format!("revision {revision} was acknowledged to {what} and to {other}");
                self.verdict.breach(Rule::RevisionIsUnique, text);
            }
            None => {
                let text = format!("{what}, acknowledged at {revision}, where the log has {}", brief(events));
                self.verdict.breach(Rule::AcknowledgedIsMade, text);
            }
        }
    }

    fn made_by(&mut self, index: usize, revision: i64, events: Option<&Vec<Event>>) {
        let operation = &self.history.operations[index];
        let what = shown(operation);
        if operation.call.refusal().is_some() {
            let text = format!("{what} was refused, but made revision {revision}");
            self.verdict.breach(Rule::RefusedIsNotMade, text);
        }
        if let Some(before) = self.found.made.insert(index, revision) {
            let text = format!("{what} made revision {before} and again {revision}");
            self.verdict.breach(Rule::MadeOnce, text);
        }
        for put in operation.call.puts() {
            if let Some(ended) = self.found.ended.get(&put.lease) {
                let text = format!("{what} made {revision} on a lease that ended at {ended}");
                self.verdict.breach(Rule::LeaseStaysEnded, text);
            }
        }
        let Some(request) = request_of(&operation.call) else { return };
        let trial = self.found.model.run(&request, revision);
        let told = |events: &Vec<Event>| events.iter().map(bare).eq(trial.events.iter().map(bare));
        if let Some(events) = events.filter(|events| !told(events)) {
            let expected = brief(Some(&trial.events));
            let text = format!("{what} made {} of revision {revision}, not {expected}", brief(Some(events)));
            self.verdict.breach(Rule::ChangeIsRight, text);
            self.found.model.undo(&trial.events);
            return self.follow(revision, events);
        }
        if operation.call.revision() == Some(revision) {
            self.answer(operation, trial.answer);
        }
        self.verdict.count(if operation.call.is_lost() { "changes of lost answers" } else { "changes" });
        self.found.log.insert(revision, trial.events);
    }

    /// Compares the answer with what the model gives.
    fn answer(&mut self, operation: &Operation, expected: Response) {
        let Some(answer) = response_of(&operation.call).map(without_headers) else { return };
        if answer != expected {
            let rule = if operation.call.changed() { Rule::AnswerIsRight } else { Rule::ReadIsRight };
            let text = format!("{} was answered {answer:?}, not {expected:?}", shown(operation));
            self.verdict.breach(rule, text);
        }
    }

    /// A revision that only deletes, acknowledged to nobody.
    fn deleted(&mut self, revision: i64, events: &Vec<Event>) {
        let leases: Vec<i64> = events
            .iter()
            .map(|event| self.found.model.get(&key_of(event)).map_or(0, |kv| kv.lease))
            .collect();
        if let [lease, rest @ ..] = leases.as_slice()
            && *lease != 0
            && rest.iter().all(|other| other == lease)
        {
            return self.lease_ended(*lease, revision, events);
        }
        let lost = if let [event] = events.as_slice() {
            self.lost_deletes.get_mut(&key_of(event)).and_then(VecDeque::pop_front)
        } else {
            None
        };
        match lost {
            Some(index) => self.made_by(index, revision, Some(events)),
            None => self.made_by_nobody(revision, events),
        }
    }

    fn lease_ended(&mut self, lease: i64, revision: i64, events: &Vec<Event>) {
        self.verdict.count("leases ended with their keys");
        let keys = self.found.model.on_lease(lease);
        let gone = |key: &Bytes| {
            let before = self.found.model.get(key).cloned().expect("it was listed");
            bare(&deletion(before, revision))
        };
        let expected: Vec<Event> = keys.into_iter().map(gone).collect();
        if *events != expected {
            let text = format!(
                "lease {lease:x} ended at {revision} with {}, not with all its keys: {}",
                brief(Some(events)),
                brief(Some(&expected))
            );
            self.verdict.breach(Rule::LeaseStaysEnded, text);
        }
        if let Some(before) = self.found.ended.insert(lease, revision) {
            let text = format!("lease {lease:x} ended at {before} and again at {revision}");
            self.verdict.breach(Rule::LeaseStaysEnded, text);
        }
        self.follow(revision, events);
    }

    fn made_by_nobody(&mut self, revision: i64, events: &Vec<Event>) {
        let text = format!("nobody asked for revision {revision}: {}", brief(Some(events)));
        self.verdict.breach(Rule::NothingInvented, text);
        self.follow(revision, events);
    }

    fn follow(&mut self, revision: i64, events: &[Event]) {
        let events = self.found.model.follow(events);
        self.found.log.insert(revision, events);
    }

    /// Checks what was read of the state at `revision`.
    fn read(&mut self, revision: i64) {
        for index in self.reads.remove(&revision).unwrap_or_default() {
            let operation = &self.history.operations[index];
            self.verdict.count("reads");
            if operation.call.revision() < Some(revision) {
                let text = format!("{} is of {revision}, newer than its header", shown(operation));
                self.verdict.breach(Rule::ReadIsRight, text);
            }
            if let Call::Revoke(request, _) = &operation.call {
                let left = self.found.model.on_lease(request.id);
                if !left.is_empty() {
                    let text = format!("{} left {left:?}", shown(operation));
                    self.verdict.breach(Rule::LeaseStaysEnded, text);
                }
                continue;
            }
            let Some(request) = request_of(&operation.call) else { continue };
            let trial = self.found.model.run(&request, revision);
            self.found.model.undo(&trial.events);
            if trial.events.is_empty() {
                self.answer(operation, trial.answer);
            } else {
                let expected = brief(Some(&trial.events));
                let text = format!("{} changed nothing at {revision}, not {expected}", shown(operation));
                self.verdict.breach(Rule::ReadIsRight, text);
            }
        }
    }

    fn read_beyond(&mut self, last: i64) {
        for (revision, calls) in std::mem::take(&mut self.reads) {
            for index in calls {
                let text = format!("{} saw {revision}; the log ends at {last}", shown(self.operation(index)));
                self.verdict.breach(Rule::RevisionIsSeen, text);
            }
        }
    }
}

/// The call as the model takes it.
fn request_of(call: &Call) -> Option<Request> {
    Some(match call {
        Call::Put(request, _) => Request::RequestPut(request.clone()),
        Call::Delete(request, _) => Request::RequestDeleteRange(request.clone()),
        Call::Range(request, _) => Request::RequestRange(request.clone()),
        Call::Txn(request, _) => Request::RequestTxn(request.clone()),
        _ => return None,
    })
}

fn response_of(call: &Call) -> Option<Response> {
    Some(match call {
        Call::Put(_, outcome) => Response::ResponsePut(outcome.answer()?.clone()),
        Call::Delete(_, outcome) => Response::ResponseDeleteRange(outcome.answer()?.clone()),
        Call::Range(_, outcome) => Response::ResponseRange(outcome.answer()?.clone()),
        Call::Txn(_, outcome) => Response::ResponseTxn(outcome.answer()?.clone()),
        _ => return None,
    })
}

/// Events in few words.
fn brief(events: Option<&Vec<Event>>) -> String {
    let word = |event: &Event| {
        let kv = event.kv.clone().unwrap_or_default();
        let value = kv.value.get(..kv.value.len().min(24)).unwrap_or_default();
        let (key, value) = (String::from_utf8_lossy(&kv.key), String::from_utf8_lossy(value));
        match event.r#type() {
            EventType::Put => format!("{key}={value} v{} l{:x}", kv.version, kv.lease),
            EventType::Delete => format!("-{key}"),
        }
    };
    events.map_or("nothing".into(), |events| format!("{:?}", events.iter().map(word).collect::<Vec<_>>()))
}
