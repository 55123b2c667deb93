//! Elections: the first candidate leads, and says something.

use etcfs_proto::{
    etcdserverpb::{LeaseRevokeRequest, LeaseTimeToLiveRequest},
    v3electionpb::{
        CampaignRequest, CampaignResponse, LeaderKey, LeaderRequest, LeaderResponse, ProclaimRequest,
        ResignRequest,
    },
};
use etcfs_tests::{
    api::{Answer, Api, grant, runtime},
    wait,
};
use tokio::{task::JoinHandle, time::timeout};
use tonic::{Code, Streaming};

use crate::subject::{Subject, bytes, refused};

on_both! {
    the_first_leads,
    a_campaign_of_the_same_lease_proclaims,
    the_next_leads_when_one_resigns_or_dies,
    only_the_leader_proclaims,
    a_proclamation_without_a_lease_moves_the_key_to_a_new_one,
    a_leader_must_be_named,
    observers_see_each_leader_and_each_word,
    observers_wait_for_the_first_leader,
}

fn lease(s: &Api) -> i64 {
    s.grant(grant(600)).unwrap().id
}

fn campaign(s: &Api, lease: i64, value: &str) -> JoinHandle<Answer<CampaignResponse>> {
    let mut client = s.election();
    let request = CampaignRequest { name: bytes("e"), lease, value: bytes(value) };
    runtime().spawn(async move { client.campaign(request).await.map(tonic::Response::into_inner) })
}

#[track_caller]
fn won(campaign: JoinHandle<Answer<CampaignResponse>>) -> LeaderKey {
    let answer = runtime().block_on(async { timeout(wait::PATIENCE, campaign).await });
    answer.expect("an answer comes").unwrap().unwrap().leader.unwrap()
}

fn leader(s: &Api) -> Answer<LeaderResponse> {
    s.wait(s.election().leader(LeaderRequest { name: bytes("e") })).map(tonic::Response::into_inner)
}

/// What the leader says.
fn word(s: &Api) -> String {
    String::from_utf8(leader(s).unwrap().kv.unwrap().value.to_vec()).unwrap()
}

fn proclaim(s: &Api, leader: &LeaderKey, value: &str) -> Answer<()> {
    let request = ProclaimRequest { leader: Some(leader.clone()), value: bytes(value) };
    s.wait(s.election().proclaim(request)).map(drop)
}

fn resign(s: &Api, leader: &LeaderKey) {
    s.wait(s.election().resign(ResignRequest { leader: Some(leader.clone()) })).unwrap();
}

fn the_first_leads(s: &Subject) {
    refused(leader(s), Code::Unknown, "election: no leader");
    let id = lease(s);
    let key = won(campaign(s, id, "one"));
    assert_eq!(
        (key.name.as_ref(), key.key.as_ref(), key.lease),
        (&b"e"[..], format!("e/{id:x}").as_bytes(), id)
    );
    let kv = leader(s).unwrap().kv.unwrap();
    assert_eq!((kv.key, kv.create_revision, kv.value.as_ref()), (key.key.clone(), key.rev, &b"one"[..]));
    resign(s, &key);
    refused(leader(s), Code::Unknown, "election: no leader");
    resign(s, &key);
}

fn a_campaign_of_the_same_lease_proclaims(s: &Subject) {
    let id = lease(s);
    let first = won(campaign(s, id, "one"));
    let again = won(campaign(s, id, "two"));
    assert_eq!((first.key, first.rev), (again.key, again.rev));
    assert_eq!(word(s), "two");
}

fn the_next_leads_when_one_resigns_or_dies(s: &Subject) {
    let leases = [lease(s), lease(s), lease(s)];
    let first = won(campaign(s, leases[0], "one"));
    let second = campaign(s, leases[1], "two");
    wait::until_true("the second waits", || s.all("e/").len() == 2);
    let third = campaign(s, leases[2], "three");
    wait::until_true("the third waits", || s.all("e/").len() == 3);
    resign(s, &first);
    won(second);
    assert_eq!(word(s), "two");
    assert!(!third.is_finished());
    s.revoke(LeaseRevokeRequest { id: leases[1] }).unwrap();
    won(third);
    assert_eq!(word(s), "three");
}

fn only_the_leader_proclaims(s: &Subject) {
    let key = won(campaign(s, lease(s), "one"));
    proclaim(s, &key, "two").unwrap();
    assert_eq!(word(s), "two");
    resign(s, &key);
    refused(proclaim(s, &key, "three"), Code::Unknown, "election: not leader");
    assert!(s.all("e/").is_empty());
}

/// Its word then outlives it by a minute at most.
fn a_proclamation_without_a_lease_moves_the_key_to_a_new_one(s: &Subject) {
    let id = lease(s);
    let key = won(campaign(s, id, "one"));
    proclaim(s, &LeaderKey { lease: 0, ..key.clone() }, "two").unwrap();
    let kv = leader(s).unwrap().kv.unwrap();
    assert_eq!((kv.key, kv.create_revision, kv.value.as_ref()), (key.key.clone(), key.rev, &b"two"[..]));
    assert!(kv.lease != 0 && kv.lease != id, "{:x}", kv.lease);
    let request = LeaseTimeToLiveRequest { id: kv.lease, keys: true };
    let told = s.time_to_live(request).unwrap();
    assert_eq!((told.granted_ttl, told.keys), (60, vec![key.key]));
}

fn a_leader_must_be_named(s: &Subject) {
    let missing = "\"leader\" field must be provided";
    let request = ProclaimRequest { leader: None, value: bytes("x") };
    refused(s.wait(s.election().proclaim(request)), Code::Unknown, missing);
    refused(s.wait(s.election().resign(ResignRequest { leader: None })), Code::Unknown, missing);
}

fn observe(s: &Api) -> JoinHandle<Answer<Streaming<LeaderResponse>>> {
    let mut client = s.election();
    let request = LeaderRequest { name: bytes("e") };
    runtime().spawn(async move { client.observe(request).await.map(tonic::Response::into_inner) })
}

#[track_caller]
fn next_word(leaders: &mut Streaming<LeaderResponse>) -> String {
    let next = runtime().block_on(async { timeout(wait::PATIENCE, leaders.message()).await });
    let kv = next.expect("a leader comes").unwrap().unwrap().kv.unwrap();
    String::from_utf8(kv.value.to_vec()).unwrap()
}

fn observers_see_each_leader_and_each_word(s: &Subject) {
    let first = won(campaign(s, lease(s), "one"));
    let mut leaders = runtime().block_on(observe(s)).unwrap().unwrap();
    assert_eq!(next_word(&mut leaders), "one");
    proclaim(s, &first, "two").unwrap();
    assert_eq!(next_word(&mut leaders), "two");
    let second = campaign(s, lease(s), "three");
    wait::until_true("the second waits", || s.all("e/").len() == 2);
    resign(s, &first);
    won(second);
    assert_eq!(next_word(&mut leaders), "three");
}

fn observers_wait_for_the_first_leader(s: &Subject) {
    let opening = observe(s);
    won(campaign(s, lease(s), "one"));
    let mut leaders = runtime().block_on(opening).unwrap().unwrap();
    assert_eq!(next_word(&mut leaders), "one");
}
