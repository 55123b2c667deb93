//! What is told of leases: how much time each has left, what hangs on it, and which there are.
//!
//! A renewal was made at some moment after it was asked for, so a lease has at
//! least what is left from there on; and it has no more than what is left from
//! the renewal's answer on, unless a leader began to count anew: another one, or
//! the same that no majority had answered for an election timeout.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    time::Duration,
};

use bytes::Bytes;
use etcfs_proto::{
    etcdserverpb::{LeaseLeasesResponse, LeaseTimeToLiveResponse},
    mvccpb::event::EventType,
};

use super::{
    History, Rule, Verdict,
    history::{Call, Moment, Operation, Outcome},
    model::key_of,
    replay::Replayed,
    shown,
    witness::Witness,
};

/// Time is told in whole seconds, and a leader may have begun to count a little late.
const GRAIN: Duration = Duration::from_secs(1);

/// Without a sign of a majority for so long, half the shortest election timeout of all tests, a leader may have ceased
/// to lead. It may lead again in the same term, and gives all leases their whole time, as if it were another.
const SILENCE: Duration = Duration::from_millis(250);

/// One acknowledged grant or renewal.
#[derive(Clone, Copy, Debug)]
struct Renewal {
    asked: Moment,
    answered: Moment,
    ttl: Duration,
    term: Option<u64>,
}

/// What clients did to one lease, and what became of it.
#[derive(Debug, Default)]
struct Known {
    granted: Option<i64>,
    renewals: Vec<Renewal>,
    /// When a renewal was first asked for whose answer never came.
    lost: Option<Moment>,
    /// When its end was first asked for.
    revoked: Option<Moment>,
    /// When it was surely no more.
    ended: Option<Moment>,
    /// Revision -> its keys from there on.
    keys: BTreeMap<i64, BTreeSet<Bytes>>,
}

impl Known {
    fn ended_by(&mut self, at: Moment) {
        self.ended = Some(self.ended.map_or(at, |before| before.min(at)));
    }

    /// Whether it surely was there, all the time from `asked` to `answered`.
    fn lives(&self, asked: Moment, answered: Moment) -> bool {
        let holds = |renewal: &Renewal| renewal.answered <= asked && renewal.asked + renewal.ttl > answered;
        self.revoked.is_none_or(|revoked| revoked > answered) && self.renewals.iter().any(holds)
    }
}

/// Checks every answer about leases.
pub(super) fn check(history: &History, replayed: &Replayed, witness: &Witness, verdict: &mut Verdict) {
    let known = gather(history, replayed, witness);
    let horizon = Horizon::of(history, replayed);
    let signs = Signs::of(history);
    for operation in &history.operations {
        match &operation.call {
            Call::TimeToLive(request, Outcome::Answered(answer)) => {
                verdict.count("answers about leases");
                let Some(known) = known.get(&request.id).filter(|_| answer.ttl >= 0) else { continue };
                time(operation, answer, known, &signs, verdict);
                if request.keys {
                    let revisions = (witness.known_before(operation.asked), horizon.at(operation.answered));
                    keys(operation, answer, known, revisions, verdict);
                }
            }
            Call::Leases(_, Outcome::Answered(answer)) => {
                verdict.count("answers about leases");
                list(operation, answer, &known, verdict);
            }
            _ => {}
        }
    }
}

fn gather(history: &History, replayed: &Replayed, witness: &Witness) -> HashMap<i64, Known> {
    let mut leases: HashMap<i64, Known> = HashMap::new();
    for operation in &history.operations {
        let Operation { asked, answered, .. } = *operation;
        let Some(id) = operation.call.lease() else { continue };
        let known = leases.entry(id).or_default();
        let term = operation.call.term();
        match &operation.call {
            Call::Grant(_, Outcome::Answered(answer)) => {
                known.granted = Some(answer.ttl);
                known.renewals.push(Renewal { asked, answered, ttl: seconds(answer.ttl), term });
            }
            Call::KeepAlive(_, Outcome::Answered(answer)) if answer.ttl > 0 => {
                known.renewals.push(Renewal { asked, answered, ttl: seconds(answer.ttl), term });
            }
            Call::KeepAlive(_, Outcome::Lost) => {
                known.lost = Some(known.lost.map_or(asked, |before| before.min(asked)));
            }
            Call::Revoke(_, outcome) => {
                known.revoked = Some(known.revoked.map_or(asked, |before| before.min(asked)));
                if outcome.answer().is_some() {
                    known.ended_by(answered);
                }
            }
            _ => {}
        }
    }
    for (&id, &revision) in &replayed.ended {
        if let Some(at) = witness.first_seen(revision) {
            leases.entry(id).or_default().ended_by(at);
        }
    }
    for (&revision, events) in &replayed.log {
        for event in events {
            if let Some(before) = event.prev_kv.as_ref().filter(|kv| kv.lease != 0) {
                leases.entry(before.lease).or_default().hangs(revision, key_of(event), false);
            }
            if let Some(kv) = event.kv.as_ref().filter(|kv| kv.lease != 0)
                && event.r#type() == EventType::Put
            {
                leases.entry(kv.lease).or_default().hangs(revision, kv.key.clone(), true);
            }
        }
    }
    leases
}

impl Known {
    /// Notes that `key` hangs on it from `revision` on, or no longer does.
    fn hangs(&mut self, revision: i64, key: Bytes, hangs: bool) {
        let mut keys = self.keys.last_entry().map(|last| last.get().clone()).unwrap_or_default();
        if hangs {
            keys.insert(key)
        } else {
            keys.remove(&key)
        };
        self.keys.insert(revision, keys);
    }

    /// Whether `told` were its keys at some revision from `first` to `last`.
    fn had(&self, told: &BTreeSet<Bytes>, (first, last): (i64, i64)) -> bool {
        let before = self.keys.range(..=first).next_back().map(|(_, keys)| keys);
        let at_first = before.map_or(told.is_empty(), |keys| keys == told);
        at_first || first < last && self.keys.range(first..=last).any(|(_, keys)| keys == told)
    }
}

fn time(
    operation: &Operation,
    answer: &LeaseTimeToLiveResponse,
    known: &Known,
    signs: &Signs,
    verdict: &mut Verdict,
) {
    let Operation { asked, answered, .. } = *operation;
    if known.ended.is_some_and(|ended| ended < asked) {
        let text = format!("{} told {}s of an ended lease", shown(operation), answer.ttl);
        return verdict.breach(Rule::LeaseIsToldRight, text);
    }
    if known.granted.is_some_and(|granted| granted != answer.granted_ttl) || answer.ttl > answer.granted_ttl {
        let (left, granted) = (answer.ttl, answer.granted_ttl);
        let text = format!("{} told {left}s of {granted}s, {:?}s granted", shown(operation), known.granted);
        return verdict.breach(Rule::LeaseIsToldRight, text);
    }
    let left = seconds(answer.ttl);
    let before = || known.renewals.iter().filter(|renewal| renewal.answered <= asked);
    let least = before().map(|renewal| (renewal.asked + renewal.ttl).saturating_sub(answered)).max();
    if let Some(least) = least.filter(|least| left + GRAIN < *least) {
        let text = format!("{} told {left:?}, with {least:.3?} left", shown(operation));
        return verdict.breach(Rule::LeaseIsToldRight, text);
    }
    let doubtful = known.lost.is_some_and(|lost| lost < answered)
        || known.renewals.iter().any(|renewal| renewal.answered > asked && renewal.asked < answered);
    let last = before().max_by_key(|renewal| renewal.answered);
    if let Some(last) = last.filter(|last| !doubtful && last.term == operation.call.term()) {
        let most = (last.answered + last.ttl).saturating_sub(asked);
        if left > most + GRAIN && !signs.cease(last.answered, answered) {
            let text = format!("{} told {left:?}, with at most {most:.3?} left", shown(operation));
            verdict.breach(Rule::LeaseIsToldRight, text);
        }
    }
}

fn keys(
    operation: &Operation,
    answer: &LeaseTimeToLiveResponse,
    known: &Known,
    (first, last): (i64, i64),
    verdict: &mut Verdict,
) {
    let told: BTreeSet<Bytes> = answer.keys.iter().cloned().collect();
    if !known.had(&told, (first, last)) {
        let text = format!("{} told of {told:?}, never so from {first} to {last}", shown(operation));
        verdict.breach(Rule::LeaseIsToldRight, text);
    }
}

fn list(
    operation: &Operation,
    answer: &LeaseLeasesResponse,
    known: &HashMap<i64, Known>,
    verdict: &mut Verdict,
) {
    let Operation { asked, answered, .. } = *operation;
    let listed: HashSet<i64> = answer.leases.iter().map(|lease| lease.id).collect();
    for (id, known) in known {
        if listed.contains(id) && known.ended.is_some_and(|ended| ended < asked) {
            let text = format!("{} has {id:x}, which had ended", shown(operation));
            verdict.breach(Rule::LeaseIsToldRight, text);
        }
        if !listed.contains(id) && known.lives(asked, answered) {
            let text = format!("{} has not {id:x}, which lived", shown(operation));
            verdict.breach(Rule::LeaseIsToldRight, text);
        }
    }
}

/// When calls that take a majority were asked for, and the answer.
struct Signs(Vec<(Moment, Moment)>);

impl Signs {
    fn of(history: &History) -> Self {
        let takes_majority = |call: &Call| match call {
            Call::Range(request, Outcome::Answered(_)) => !request.serializable,
            Call::Put(_, Outcome::Answered(_)) | Call::Grant(_, Outcome::Answered(_)) => true,
            _ => false,
        };
        let calls = history.operations.iter().filter(|operation| takes_majority(&operation.call));
        Self(calls.map(|operation| (operation.asked, operation.answered)).collect())
    }

    /// Whether there may have been none for [`SILENCE`] between two moments: none of these calls lies wholly in it.
    fn cease(&self, from: Moment, to: Moment) -> bool {
        let asked = self.0.iter().map(|&(asked, _)| asked).filter(|asked| (from..to).contains(asked));
        std::iter::once(from).chain(asked).any(|begin| {
            let end = begin + SILENCE;
            end <= to && !self.0.iter().any(|&(asked, answered)| asked > begin && answered <= end)
        })
    }
}

/// The last revision that there can have been at a moment.
struct Horizon {
    /// When a change was asked for -> the lowest revision made by it or one asked for later.
    lowest: BTreeMap<Moment, i64>,
    last: i64,
}

impl Horizon {
    fn of(history: &History, replayed: &Replayed) -> Self {
        let made = replayed.made.iter();
        let mut made: Vec<(Moment, i64)> =
            made.map(|(&index, &revision)| (history.operations[index].asked, revision)).collect();
        made.sort_unstable();
        let mut lowest = BTreeMap::new();
        let mut least = i64::MAX;
        for (asked, revision) in made.into_iter().rev() {
            least = least.min(revision);
            lowest.insert(asked, least);
        }
        Self { lowest, last: replayed.last }
    }

    /// Nothing of what was asked for later can have been made.
    fn at(&self, moment: Moment) -> i64 {
        self.lowest.range(moment..).next().map_or(self.last, |(_, lowest)| lowest - 1)
    }
}

fn seconds(ttl: i64) -> Duration {
    Duration::from_secs(ttl.try_into().unwrap_or(0))
}
