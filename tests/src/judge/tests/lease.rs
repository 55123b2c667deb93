//! Histories with one breach of what is promised of leases.

use etcfs_proto::etcdserverpb::{
    LeaseLeasesRequest, LeaseLeasesResponse, LeaseStatus, LeaseTimeToLiveRequest, LeaseTimeToLiveResponse,
};

use super::*;

/// A store with a key on a lease that was renewed just now.
fn leased() -> Store {
    let mut store = Store::used();
    store.grant();
    store.put_on("lease/a", "5", LEASE);
    store.put_on("lease/b", "6", LEASE);
    store.now += 1_500;
    store.renew(TTL);
    store
}

#[test]
fn a_lease_that_ends_early_is_found() {
    let mut store = leased();
    store.now += 1_000;
    store.lease_ends();
    breaks(Rule::LeaseLivesOn, &store.end());
    let mut store = leased();
    store.now += 2_000;
    store.lease_ends();
    passes(&store.end());
}

#[test]
fn an_answer_that_a_living_lease_is_gone_is_found() {
    let mut store = leased();
    store.now += 1_000;
    store.renew(0);
    breaks(Rule::LeaseLivesOn, &store.end());
}

#[test]
fn a_renewal_acknowledged_after_the_end_is_found() {
    let mut store = leased();
    store.now += 2_500;
    store.lease_ends();
    store.renew(TTL);
    breaks(Rule::LeaseLivesOn, &store.end());
}

#[test]
fn a_lease_that_was_revoked_may_end_at_once() {
    let mut store = leased();
    store.revoke();
    passes(&store.end());
}

#[test]
fn a_key_that_a_revocation_left_is_found() {
    let mut store = leased();
    let answer = LeaseRevokeResponse { header: header(store.revision) };
    store.note(Call::Revoke(LeaseRevokeRequest { id: LEASE }, Outcome::Answered(answer)));
    breaks(Rule::LeaseStaysEnded, &store.end());
}

#[test]
fn a_lease_that_ends_without_one_of_its_keys_is_found() {
    let mut store = leased();
    store.revoke();
    store.events.last_mut().unwrap().1.truncate(1);
    breaks_also(Rule::LeaseStaysEnded, &[Rule::MembersAgree], &store.end());
}

#[test]
fn a_put_on_an_ended_lease_is_found() {
    let mut store = leased();
    store.revoke();
    store.put_on("lease/a", "7", LEASE);
    breaks(Rule::LeaseStaysEnded, &store.end());
}

#[test]
fn a_lease_found_gone_whose_key_is_read_later_is_found() {
    let mut store = leased();
    store.now += 2_100;
    store.renew(0);
    let index = store.get("lease/a");
    assert!(!range_answer(&mut store.history.operations[index]).kvs.is_empty());
    store.lease_ends();
    breaks(Rule::RealTime, &store.end());
}

#[test]
fn a_key_that_outlives_its_lease_is_found() {
    let store = leased();
    let left = store.model.get(b"lease/a").cloned();
    let mut history = store.end();
    history.end.outlived.extend(left);
    breaks(Rule::LeaseEnds, &history);
}

/// All members were paused, and the leader led on in its term.
#[test]
fn a_leader_that_no_majority_may_have_answered_may_begin_to_count_anew() {
    let mut store = leased();
    store.now += 1_500;
    store.time_to_live(2, &KEYS);
    passes(&store.end());
}

impl Store {
    /// Lets so many milliseconds pass, in which there is always a majority.
    fn reads_go_on(&mut self, millis: u64) {
        for _ in 0..millis / 100 {
            self.now += 100;
            self.get("lease/a");
        }
    }

    /// Asks for the time that the lease has left, and is told `left`.
    fn time_to_live(&mut self, left: i64, keys: &[&'static str]) -> usize {
        let request = LeaseTimeToLiveRequest { id: LEASE, keys: true };
        let answer = LeaseTimeToLiveResponse {
            header: header(self.revision),
            id: LEASE,
            ttl: left,
            granted_ttl: if left < 0 { 0 } else { TTL },
            keys: keys.iter().copied().map(Bytes::from).collect(),
        };
        self.note(Call::TimeToLive(request, Outcome::Answered(answer)))
    }

    /// Asks for all leases, and is told of `ids`.
    fn leases(&mut self, ids: &[i64]) -> usize {
        let leases = ids.iter().map(|&id| LeaseStatus { id }).collect();
        let answer = LeaseLeasesResponse { header: header(self.revision), leases };
        self.note(Call::Leases(LeaseLeasesRequest {}, Outcome::Answered(answer)))
    }
}

const KEYS: [&str; 2] = ["lease/a", "lease/b"];

#[test]
fn what_is_told_of_a_lease_as_it_is_passes() {
    let mut store = leased();
    store.time_to_live(1, &KEYS);
    store.leases(&[LEASE]);
    store.now += 1_000;
    store.time_to_live(0, &KEYS);
    store.now += 1_000;
    // Due, and not ended yet.
    store.time_to_live(0, &KEYS);
    store.lease_ends();
    store.time_to_live(-1, &[]);
    store.leases(&[]);
    let verdict = passes(&store.end());
    assert_eq!(verdict.judged.get("answers about leases"), Some(&6), "{verdict}");
}

#[test]
fn a_living_lease_that_is_told_to_be_gone_is_found() {
    let mut store = leased();
    store.time_to_live(-1, &[]);
    breaks(Rule::LeaseLivesOn, &store.end());
}

#[test]
fn less_time_than_a_lease_has_is_found() {
    let mut store = leased();
    store.time_to_live(0, &KEYS);
    breaks(Rule::LeaseIsToldRight, &store.end());
}

/// As from a member that does not ask the one whose clock counts.
#[test]
fn more_time_than_a_lease_has_is_found() {
    let mut store = leased();
    store.reads_go_on(1_500);
    store.time_to_live(2, &KEYS);
    breaks(Rule::LeaseIsToldRight, &store.clone().end());
    // A leader of a later term gives it the whole time again.
    let Call::TimeToLive(_, Outcome::Answered(answer)) =
        &mut store.history.operations.last_mut().unwrap().call
    else {
        panic!("no answer");
    };
    answer.header.as_mut().unwrap().raft_term += 1;
    passes(&store.end());
    // So does a renewal whose answer was lost.
    let mut store = leased();
    store.reads_go_on(1_500);
    store.note(Call::KeepAlive(LeaseKeepAliveRequest { id: LEASE }, Outcome::Lost));
    store.time_to_live(1, &KEYS);
    passes(&store.end());
}

#[test]
fn another_time_than_was_granted_is_found() {
    let mut store = leased();
    store.time_to_live(TTL + 1, &KEYS);
    breaks(Rule::LeaseIsToldRight, &store.end());
}

#[test]
fn a_key_that_is_not_told_to_be_on_its_lease_is_found() {
    let mut store = leased();
    store.time_to_live(1, &KEYS[..1]);
    breaks(Rule::LeaseIsToldRight, &store.end());
}

#[test]
fn a_key_told_to_be_on_a_lease_before_anyone_asked_for_it_is_found() {
    let mut store = leased();
    store.time_to_live(1, &["lease/a", "lease/b", "lease/c"]);
    store.put_on("lease/c", "8", LEASE);
    breaks(Rule::LeaseIsToldRight, &store.end());
}

#[test]
fn an_ended_lease_that_is_told_to_be_there_is_found() {
    let mut store = leased();
    store.revoke();
    store.time_to_live(1, &[]);
    breaks(Rule::LeaseIsToldRight, &store.end());
    let mut store = leased();
    store.revoke();
    store.leases(&[LEASE]);
    breaks(Rule::LeaseIsToldRight, &store.end());
    let mut store = leased();
    store.now += 2_000;
    store.lease_ends();
    store.get("lease/a");
    store.leases(&[LEASE]);
    breaks(Rule::LeaseIsToldRight, &store.end());
}

#[test]
fn a_living_lease_that_is_left_out_is_found() {
    let mut store = leased();
    store.leases(&[]);
    breaks(Rule::LeaseIsToldRight, &store.end());
}
