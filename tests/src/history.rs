//! What clients saw, checked against what the store says happened.
//!
//! Every answer of the API carries the revision it was given at, so the order of
//! all writes is no guess: replaying the store's own events in the order of their
//! revisions must explain each answer. A write whose answer was lost may have
//! happened or not, once at most; its value, which no other write uses, tells.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
    time::Instant,
};

use bytes::Bytes;
use etcfs_proto::mvccpb::{Event, event::EventType};

/// Complaints that a failure prints at most.
const SHOWN_MAX: usize = 20;

/// One call of a client.
#[derive(Clone, Debug)]
pub struct Call {
    pub asked: Instant,
    pub answered: Instant,
    pub key: Bytes,
    pub what: What,
}

/// What was asked, and what came of it.
#[derive(Clone, Debug)]
pub enum What {
    /// A put that was acknowledged at this revision.
    Put { value: Bytes, revision: i64 },
    /// A put whose answer was lost.
    LostPut { value: Bytes },
    /// A put that the server said it did not make.
    RefusedPut { value: Bytes },
    /// A linearizable read: the value (or none) at this revision of the store.
    Read { value: Option<Bytes>, revision: i64 },
}

/// What a checked history amounts to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub acknowledged: usize,
    pub lost_answers: usize,
    pub lost_but_made: usize,
    pub reads: usize,
}

/// Checks `calls` against `events`, which are all events of their keys since the store was empty.
///
/// Every put of the history has a value of its own.
pub fn check(calls: &[Call], events: &[Event]) -> Result<Summary, String> {
    let mut checker = Checker::new(events);
    for call in calls {
        checker.outcome(call);
    }
    checker.nothing_invented(calls);
    checker.real_time(calls);
    if checker.complaints.is_empty() {
        return Ok(checker.summary);
    }
    let mut text = format!("{} violations:", checker.complaints.len());
    for complaint in checker.complaints.iter().take(SHOWN_MAX) {
        let _infallible = write!(text, "\n  {complaint}");
    }
    Err(text)
}

struct Checker {
    /// Value -> the revisions that put it.
    made: HashMap<(Bytes, Bytes), Vec<i64>>,
    /// Key -> revision -> value then (none for a delete).
    log: HashMap<Bytes, BTreeMap<i64, Option<Bytes>>>,
    summary: Summary,
    complaints: Vec<String>,
}

impl Checker {
    /// Replays the events: revisions rise, and each version is one more than the last.
    fn new(events: &[Event]) -> Self {
        let mut checker = Self {
            made: HashMap::new(),
            log: HashMap::new(),
            summary: Summary::default(),
            complaints: Vec::new(),
        };
        let mut last = 0;
        let mut versions: HashMap<Bytes, i64> = HashMap::new();
        for event in events {
            let Some(kv) = &event.kv else {
                checker.complain(format!("an event without a key: {event:?}"));
                continue;
            };
            if kv.mod_revision < last {
                checker.complain(format!("revision {} comes after {last} in the log", kv.mod_revision));
            }
            last = last.max(kv.mod_revision);
            let version = versions.entry(kv.key.clone()).or_default();
            let put = event.r#type() == EventType::Put;
            *version = if put { *version + 1 } else { 0 };
            if put && kv.version != *version {
                let text = format!("{:?} has version {} after {} puts", kv.key, kv.version, *version);
                checker.complain(text);
                *version = kv.version;
            }
            let value = put.then(|| kv.value.clone());
            let row = checker.log.entry(kv.key.clone()).or_default().insert(kv.mod_revision, value);
            if row.is_some() {
                checker.complain(format!("{:?} changed twice at revision {}", kv.key, kv.mod_revision));
            }
            if put {
                checker.made.entry((kv.key.clone(), kv.value.clone())).or_default().push(kv.mod_revision);
            }
        }
        checker
    }

    fn complain(&mut self, complaint: String) {
        self.complaints.push(complaint);
    }

    fn revisions_of(&self, key: &Bytes, value: &Bytes) -> Vec<i64> {
        self.made.get(&(key.clone(), value.clone())).cloned().unwrap_or_default()
    }

    /// Each answer is what the log explains.
    fn outcome(&mut self, call: &Call) {
        let key = &call.key;
        match &call.what {
            What::Put { value, revision } => {
                self.summary.acknowledged += 1;
                let made = self.revisions_of(key, value);
                if made != [*revision] {
                    let text = format!(
                        "put {key:?}={value:?}, acknowledged at {revision}, is in the log at {made:?}"
                    );
                    self.complain(text);
                }
            }
            What::LostPut { value } => {
                self.summary.lost_answers += 1;
                let made = self.revisions_of(key, value);
                self.summary.lost_but_made += made.len();
                if made.len() > 1 {
                    let text = format!("put {key:?}={value:?}, asked once, is in the log at {made:?}");
                    self.complain(text);
                }
            }
            What::RefusedPut { value } => {
                let made = self.revisions_of(key, value);
                if !made.is_empty() {
                    self.complain(format!("put {key:?}={value:?}, refused, is in the log at {made:?}"));
                }
            }
            What::Read { value, revision } => {
                self.summary.reads += 1;
                let then = self.log.get(key).and_then(|log| log.range(..=revision).next_back());
                let then = then.and_then(|(_, value)| value.clone());
                if *value != then {
                    let text =
                        format!("read {key:?} at {revision} gave {value:?}, but the log says {then:?}");
                    self.complain(text);
                }
            }
        }
    }

    /// Each value in the log was asked for.
    fn nothing_invented(&mut self, calls: &[Call]) {
        let asked: std::collections::HashSet<(Bytes, Bytes)> = calls
            .iter()
            .filter_map(|call| match &call.what {
                What::Put { value, .. } | What::LostPut { value } | What::RefusedPut { value } => {
                    Some((call.key.clone(), value.clone()))
                }
                What::Read { .. } => None,
            })
            .collect();
        let invented: Vec<String> = self
            .made
            .keys()
            .filter(|made| !asked.contains(*made))
            .map(|(key, value)| format!("nobody put {key:?}={value:?}"))
            .collect();
        self.complaints.extend(invented);
    }

    /// Whatever was asked after an answer came sees at least that answer's revision; writes more.
    fn real_time(&mut self, calls: &[Call]) {
        let revision = |call: &Call| match call.what {
            What::Put { revision, .. } | What::Read { revision, .. } => Some(revision),
            What::LostPut { .. } | What::RefusedPut { .. } => None,
        };
        let mut answers: Vec<(Instant, i64)> =
            calls.iter().filter_map(|call| Some((call.answered, revision(call)?))).collect();
        answers.sort_unstable();
        let mut asked: Vec<&Call> = calls.iter().filter(|call| revision(call).is_some()).collect();
        asked.sort_unstable_by_key(|call| call.asked);
        let (mut seen, mut next) = (0, 0);
        for call in asked {
            while let Some((_, revision)) = answers.get(next).filter(|(at, _)| *at < call.asked) {
                seen = seen.max(*revision);
                next += 1;
            }
            let own = revision(call).expect("filtered above");
            let stale = match call.what {
                What::Put { .. } => own <= seen,
                _ => own < seen,
            };
            if stale {
                let text =
                    format!("{:?} of {:?} is at {own}, but {seen} was answered before", call.what, call.key);
                self.complain(text);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use etcfs_proto::mvccpb::KeyValue;

    use super::*;

    fn event(key: &str, value: &str, revision: i64, version: i64) -> Event {
        let kv = KeyValue {
            key: key.to_owned().into(),
            value: value.to_owned().into(),
            mod_revision: revision,
            version,
            ..Default::default()
        };
        Event { kv: Some(kv), ..Default::default() }
    }

    /// A call of key `k` that took from `from` to `to` on some clock.
    fn call(from: u64, to: u64, what: What) -> Call {
        static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
        let at = |ms| *START + Duration::from_millis(ms);
        Call { asked: at(from), answered: at(to), key: "k".into(), what }
    }

    fn put(value: &'static str, revision: i64) -> What {
        What::Put { value: value.into(), revision }
    }

    #[track_caller]
    fn refuses(calls: &[Call], events: &[Event], with: &str) {
        let complaint = check(calls, events).unwrap_err();
        assert!(complaint.contains(with), "{complaint}");
    }

    #[test]
    fn a_history_that_the_log_explains_passes() {
        let calls = [
            call(0, 1, put("a", 2)),
            call(2, 3, What::LostPut { value: "b".into() }),
            call(4, 5, What::Read { value: Some("b".into()), revision: 3 }),
            call(6, 7, What::LostPut { value: "never".into() }),
            call(8, 9, What::RefusedPut { value: "no".into() }),
        ];
        let summary = check(&calls, &[event("k", "a", 2, 1), event("k", "b", 3, 2)]).unwrap();
        assert_eq!(summary, Summary { acknowledged: 1, lost_answers: 2, lost_but_made: 1, reads: 1 });
    }

    #[test]
    fn a_lost_acknowledged_put_is_found() {
        refuses(&[call(0, 1, put("a", 2))], &[], "is in the log at []");
    }

    #[test]
    fn a_put_made_twice_is_found() {
        let twice = [event("k", "a", 2, 1), event("k", "a", 3, 2)];
        refuses(&[call(0, 1, What::LostPut { value: "a".into() })], &twice, "asked once");
        refuses(&[call(0, 1, put("a", 2))], &twice, "acknowledged at 2");
    }

    #[test]
    fn a_put_that_was_made_though_refused_is_found() {
        let calls = [call(0, 1, What::RefusedPut { value: "a".into() })];
        refuses(&calls, &[event("k", "a", 2, 1)], "refused, is in the log");
    }

    #[test]
    fn a_stale_read_is_found_by_its_revision() {
        let calls = [call(0, 1, put("a", 2)), call(2, 3, What::Read { value: None, revision: 1 })];
        refuses(&calls, &[event("k", "a", 2, 1)], "but 2 was answered before");
    }

    #[test]
    fn a_read_of_another_value_than_the_log_has_is_found() {
        let calls = [call(0, 1, put("a", 2)), call(2, 3, What::Read { value: None, revision: 2 })];
        refuses(&calls, &[event("k", "a", 2, 1)], "but the log says");
    }

    #[test]
    fn a_jump_in_versions_and_an_invented_value_are_found() {
        refuses(&[call(0, 1, put("a", 2))], &[event("k", "a", 2, 2)], "has version 2 after 1 puts");
        refuses(&[], &[event("k", "ghost", 2, 1)], "nobody put");
    }
}
