//! Real time: a call comes after all that was seen before it was made, and
//! before all that was seen to follow from it.
//!
//! With the revisions as the order, one comparison does for both: nobody has
//! seen a change's revision, or a later one, before the change was asked for.

use std::collections::HashMap;

use etcfs_proto::etcdserverpb::ResponseHeader;

use super::{
    History, Rule, Verdict,
    history::{Call, Refusal},
    shown,
    witness::{Compactions, Witness},
};

/// Violations whose cause is looked for: each takes a look at the whole history.
const NAMED_MAX: usize = 50;

/// Checks each operation; `made` tells which revision each change made.
pub(super) fn check(
    history: &History,
    made: &HashMap<usize, i64>,
    witness: &Witness,
    compactions: &Compactions,
    verdict: &mut Verdict,
) {
    for (index, operation) in history.operations.iter().enumerate() {
        let seen = witness.known_before(operation.asked);
        if let Some(&revision) = made.get(&index) {
            if revision <= seen {
                let (what, by) = (shown(operation), seen_by(history, seen, verdict));
                verdict.breach(
                    Rule::RealTime,
                    format!("{what} made {revision}, but {seen} was seen before by {by}"),
                );
            }
        } else if let Some(revision) = operation.call.revision().filter(|_| is_linearizable(&operation.call))
            && revision < seen
        {
            let (what, by) = (shown(operation), seen_by(history, seen, verdict));
            verdict.breach(
                Rule::RealTime,
                format!("{what} is of {revision}, but {seen} was seen before by {by}"),
            );
        }
        let Some((at, is_read)) = named_revision(&operation.call) else { continue };
        let why = match operation.call.refusal() {
            None if is_read && operation.call.revision().is_some() => {
                let compacted = compactions.certain_before(operation.asked);
                (at < compacted).then(|| format!("was answered, though compacted at {compacted} before"))
            }
            Some(Refusal::Future) => (at <= seen).then(|| format!("was refused, though {seen} was seen")),
            Some(Refusal::Compacted) => {
                let compacted = compactions.possible_at(operation.answered);
                (at >= compacted + i64::from(!is_read))
                    .then(|| "was refused, though not compacted".to_owned())
            }
            Some(Refusal::NoLease | Refusal::Other) | None => None,
        };
        if let Some(why) = why {
            verdict.breach(Rule::RefusalIsRight, format!("{} {why}", shown(operation)));
        }
    }
}

/// The first that was told of `revision`; looked for only while few things are wrong.
fn seen_by(history: &History, revision: i64, verdict: &Verdict) -> String {
    if verdict.violations.len() > NAMED_MAX {
        return "somebody".into();
    }
    let calls = history.operations.iter().filter(|operation| operation.call.revision() == Some(revision));
    let call = calls.min_by_key(|operation| operation.answered).map(|call| (call.answered, shown(call)));
    let streams = history.streams.iter().flat_map(|stream| {
        let of_it = |header: &ResponseHeader| header.revision == revision;
        let told =
            stream.responses.iter().filter(move |(_, response)| response.header.as_ref().is_some_and(of_it));
        told.map(move |(at, _)| (*at, format!("watch {} on member {}", stream.name, stream.member)))
    });
    let first = call.into_iter().chain(streams).min();
    first.map_or("the end of a lease".into(), |(at, who)| format!("{who} at {at:.3?}"))
}

/// The revision that a call is about, and whether it reads it rather than compacts.
fn named_revision(call: &Call) -> Option<(i64, bool)> {
    match call {
        Call::Range(request, _) if request.revision > 0 && !request.serializable => {
            Some((request.revision, true))
        }
        Call::Compact(request, _) => Some((request.revision, false)),
        _ => None,
    }
}

/// True where the header's revision is that of a moment between question and answer.
fn is_linearizable(call: &Call) -> bool {
    match call {
        Call::Range(request, _) => !request.serializable,
        // Answered by the lessor, with the header of whichever member was asked.
        Call::KeepAlive(..) | Call::TimeToLive(..) | Call::Leases(..) => false,
        Call::Put(..)
        | Call::Delete(..)
        | Call::Txn(..)
        | Call::Compact(..)
        | Call::Grant(..)
        | Call::Revoke(..) => true,
    }
}
