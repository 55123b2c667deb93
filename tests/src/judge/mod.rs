//! The judge of a cluster's histories: did the store keep its word?
//!
//! Every answer of the API carries a revision, so the order of all changes is no
//! guess: it is replayed ([`replay`]) against a model of the store ([`model`]),
//! in time that grows with the history and the logarithm of it. A change whose
//! answer was lost counts as made if its value was seen, and may be made once.
//!
//! What a store must keep to is listed as [`Rule`]s. The judge knows nothing of
//! how the history came to be, and reads no clock; [`History`] says what it must
//! hold. Its tests are histories with one breach each.

mod history;
mod lease;
mod log;
mod model;
mod order;
mod replay;
#[cfg(test)]
mod tests;
mod told;
mod verdict;
mod watch;
mod witness;

pub use history::{Call, End, History, MemberEnd, Moment, Operation, Outcome, Refusal, Stream};
pub use verdict::{Rule, Verdict, Violation};

use replay::Replayed;
use witness::{Compactions, Witness};

/// Judges everything that the clients of one run saw.
pub fn judge(history: &History) -> Verdict {
    let mut verdict = Verdict::default();
    let log = log::gather(history);
    let compactions = Compactions::of(history);
    let replayed = replay::replay(history, &log, &mut verdict);
    for stream in &history.streams {
        watch::check(stream, &replayed.log, &compactions, &mut verdict);
    }
    let witness = Witness::of(history, []);
    let early = lease::check(history, &replayed.ended, &witness, &mut verdict);
    lease::revoked(history, &mut verdict);
    told::check(history, &replayed, &witness, &mut verdict);
    // Whether a lease ended early is judged by what was seen first; what came of it counts for the order.
    let witness = Witness::of(history, lease::endings(history, &replayed.ended, &early));
    order::check(history, &replayed.made, &witness, &compactions, &mut verdict);
    end(history, &replayed, &mut verdict);
    verdict
}

/// Checks that all members came to the same end, which is the model's.
fn end(history: &History, replayed: &Replayed, verdict: &mut Verdict) {
    let expected = replayed.model.all();
    for (number, member) in history.end.members.iter().enumerate() {
        if member.revision != replayed.last {
            let text = format!("member {number} ends at {}, the log at {}", member.revision, replayed.last);
            verdict.breach(Rule::MembersAgree, text);
        } else if member.keys != expected {
            let differs = |kv: &&_| !expected.contains(kv);
            let text = format!(
                "member {number} holds {} keys, the log {}; the first that differs is {:?}",
                member.keys.len(),
                expected.len(),
                member.keys.iter().find(differs)
            );
            verdict.breach(Rule::MembersAgree, text);
        }
    }
    let hashes = history.end.members.iter().map(|member| (member.hash, member.compact_revision));
    let hashes: Vec<(u32, i64)> = hashes.collect();
    if hashes.windows(2).any(|pair| pair[0] != pair[1]) {
        let text = format!("HashKV and compacted revision by member: {hashes:x?}");
        verdict.breach(Rule::MembersAgree, text);
    }
    for fallen in &history.end.fallen {
        verdict.breach(Rule::MemberRuns, fallen);
    }
    for kv in &history.end.outlived {
        let key = String::from_utf8_lossy(&kv.key);
        verdict.breach(Rule::LeaseEnds, format!("{key} is still there, on lease {:x}", kv.lease));
    }
}

/// An operation in few words.
fn shown(operation: &Operation) -> String {
    let Operation { asked, answered, member, call } = operation;
    let text = match call {
        Call::Put(request, _) => {
            let value = request.value.get(..request.value.len().min(24)).unwrap_or_default();
            format!("put {}={}", words(&request.key), words(value))
        }
        Call::Delete(request, _) => format!("delete {}", words(&request.key)),
        Call::Range(request, _) => format!(
            "{} range {}..{} at {}",
            if request.serializable { "serializable" } else { "linearizable" },
            words(&request.key),
            words(&request.range_end),
            request.revision
        ),
        Call::Txn(..) => {
            let puts: Vec<String> = call
                .puts()
                .iter()
                .map(|put| {
                    let value = put.value.get(..put.value.len().min(24)).unwrap_or_default();
                    format!("{}={}", words(&put.key), words(value))
                })
                .collect();
            format!("txn {puts:?}")
        }
        Call::Compact(request, _) => format!("compaction at {}", request.revision),
        Call::Grant(request, _) => format!("grant of {}s", request.ttl),
        Call::KeepAlive(request, _) => format!("renewal of {:x}", request.id),
        Call::Revoke(request, _) => format!("revocation of {:x}", request.id),
        Call::TimeToLive(request, _) => format!("time to live of {:x}", request.id),
        Call::Leases(..) => "list of leases".into(),
    };
    format!("{text} ({asked:.3?}..{answered:.3?} on member {member})")
}

fn words(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}
