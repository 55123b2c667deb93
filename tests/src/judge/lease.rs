//! Leases: none ends before its time, and an ended one stays so.
//!
//! A renewal is made at some moment between its question and its answer, so the
//! lease surely lives for its time to live after the question. When it ended is
//! known by what was seen of it: the revision that deleted its keys, or an
//! answer that there is no such lease.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use super::{
    History, Rule, Verdict,
    history::{Call, Moment, Outcome, Refusal},
    shown,
    witness::Witness,
};

/// What is known of one lease.
#[derive(Debug, Default)]
struct Known {
    /// When each acknowledged grant or renewal was asked for, and how long it holds.
    renewals: Vec<(Moment, Duration)>,
    /// When a client asked for its end.
    revoked: Option<Moment>,
    /// When it was first seen to have ended.
    gone: Option<Moment>,
    granted: bool,
}

impl Known {
    fn gone_at(&mut self, at: Moment) {
        self.gone = Some(self.gone.map_or(at, |before| before.min(at)));
    }
}

/// Checks every lease; `ended` tells which revision deleted its keys. Returns those that ended too early.
pub(super) fn check(
    history: &History,
    ended: &HashMap<i64, i64>,
    witness: &Witness,
    verdict: &mut Verdict,
) -> HashSet<i64> {
    let mut early = HashSet::new();
    let mut leases: HashMap<i64, Known> = HashMap::new();
    for operation in &history.operations {
        let Some(id) = operation.call.lease() else { continue };
        let known = leases.entry(id).or_default();
        match &operation.call {
            Call::Grant(_, Outcome::Answered(answer)) => {
                known.granted = true;
                known.renewals.push((operation.asked, seconds(answer.ttl)));
            }
            Call::KeepAlive(_, Outcome::Answered(answer)) if answer.ttl > 0 => {
                verdict.count("renewals");
                known.renewals.push((operation.asked, seconds(answer.ttl)));
            }
            Call::KeepAlive(_, Outcome::Answered(_)) => known.gone_at(operation.answered),
            Call::TimeToLive(_, Outcome::Answered(answer)) if answer.ttl < 0 => {
                known.gone_at(operation.answered);
            }
            Call::Revoke(..) => {
                let asked = known.revoked.map_or(operation.asked, |before| before.min(operation.asked));
                known.revoked = Some(asked);
            }
            call if call.refusal() == Some(Refusal::NoLease) => known.gone_at(operation.answered),
            _ => {}
        }
    }
    for (id, revision) in ended {
        if let (Some(known), Some(at)) = (leases.get_mut(id), witness.first_seen(*revision)) {
            known.gone_at(at);
        }
    }
    // A lease whose grant was lost may never have been.
    for (id, known) in leases.iter().filter(|(_, known)| known.granted) {
        let Some(gone) = known.gone else { continue };
        if known.revoked.is_some_and(|asked| asked <= gone) {
            continue;
        }
        verdict.count("leases that ran out");
        let until = known.renewals.iter().filter(|(asked, ttl)| *asked + *ttl > gone);
        if let Some((asked, ttl)) = until.max() {
            let text =
                format!("lease {id:x}, renewed for {ttl:?} at {asked:?} or later, was gone at {gone:?}");
            verdict.breach(Rule::LeaseLivesOn, text);
            early.insert(*id);
        }
    }
    early
}

/// When clients learned of the end of a lease that took keys with it: whoever asks later sees that revision.
///
/// Of a lease that was called dead too early, no more follows than that.
pub(super) fn endings<'a>(
    history: &'a History,
    ended: &'a HashMap<i64, i64>,
    early: &'a HashSet<i64>,
) -> impl Iterator<Item = (Moment, i64)> + 'a {
    history.operations.iter().filter_map(|operation| {
        let gone = match &operation.call {
            Call::KeepAlive(_, Outcome::Answered(answer)) => answer.ttl <= 0,
            call => call.refusal() == Some(Refusal::NoLease),
        };
        let id = operation.call.lease().filter(|id| !early.contains(id))?;
        let revision = ended.get(&id)?;
        gone.then_some((operation.answered, *revision))
    })
}

/// Checks that an acknowledged revocation was the last word on its lease.
pub(super) fn revoked(history: &History, verdict: &mut Verdict) {
    let mut revoked: HashMap<i64, Moment> = HashMap::new();
    for operation in &history.operations {
        if let Call::Revoke(request, Outcome::Answered(_)) = &operation.call {
            revoked.insert(request.id, operation.answered);
        }
    }
    for operation in &history.operations {
        let lives = match &operation.call {
            Call::KeepAlive(_, Outcome::Answered(answer)) => answer.ttl > 0,
            Call::Put(_, Outcome::Answered(_)) => true,
            _ => false,
        };
        let end = operation.call.lease().and_then(|id| revoked.get(&id));
        if lives && end.is_some_and(|end| *end < operation.asked) {
            let text = format!("{} was answered, though its lease was revoked", shown(operation));
            verdict.breach(Rule::LeaseStaysEnded, text);
        }
    }
}

fn seconds(ttl: i64) -> Duration {
    Duration::from_secs(ttl.try_into().unwrap_or(0))
}
