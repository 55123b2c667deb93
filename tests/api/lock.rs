//! Locks: one owner at a time, in the order of asking.

use std::time::Duration;

use etcfs_proto::{
    etcdserverpb::{LeaseRevokeRequest, LeaseTimeToLiveRequest},
    v3lockpb::{LockRequest, LockResponse, UnlockRequest},
};
use etcfs_tests::{
    api::{Answer, Api, grant, runtime},
    wait,
};
use tokio::{task::JoinHandle, time::timeout};
use tonic::Code;

use crate::subject::{Subject, bytes, refused};

on_both! {
    a_free_lock_is_had_at_once,
    one_lease_locks_once,
    who_comes_later_waits_in_order,
    who_gives_up_leaves_the_queue,
    a_lock_ends_with_its_lease,
    a_place_is_lost_with_its_lease,
    without_a_lease_the_server_makes_one,
    a_lease_that_is_not_there_locks_nothing,
}

fn lease(s: &Api) -> i64 {
    s.grant(grant(600)).unwrap().id
}

/// Asks for the lock `l` on a task of its own.
fn ask(s: &Api, lease: i64) -> JoinHandle<Answer<LockResponse>> {
    let mut client = s.lock();
    let request = LockRequest { name: bytes("l"), lease };
    runtime().spawn(async move { client.lock(request).await.map(tonic::Response::into_inner) })
}

#[track_caller]
fn had(asked: JoinHandle<Answer<LockResponse>>) -> Answer<LockResponse> {
    runtime().block_on(async { timeout(wait::PATIENCE, asked).await }).expect("an answer comes").unwrap()
}

fn key_of(lease: i64) -> String {
    format!("l/{lease:x}")
}

fn unlock(s: &Api, lease: i64) {
    let request = UnlockRequest { key: bytes(key_of(lease)) };
    s.wait(s.lock().unlock(request)).unwrap();
}

/// Waits until so many are in the queue.
#[track_caller]
fn wait_for(s: &Api, count: usize) {
    wait::until_true("the queue is so long", || s.all("l/").len() == count);
}

fn a_free_lock_is_had_at_once(s: &Subject) {
    let id = lease(s);
    let before = s.revision();
    let locked = had(ask(s, id)).unwrap();
    assert_eq!(locked.key, key_of(id).as_bytes());
    assert_eq!(locked.header.unwrap().revision, before + 1);
    let kv = s.get(&key_of(id)).unwrap();
    assert_eq!((kv.lease, kv.value.len()), (id, 0));
    unlock(s, id);
    assert_eq!(s.get(&key_of(id)), None);
    // Nobody minds if it is not held.
    unlock(s, id);
}

fn one_lease_locks_once(s: &Subject) {
    let id = lease(s);
    let first = had(ask(s, id)).unwrap();
    let again = had(ask(s, id)).unwrap();
    assert_eq!(first.key, again.key);
    assert_eq!(s.get(&key_of(id)).unwrap().version, 1);
}

fn who_comes_later_waits_in_order(s: &Subject) {
    let leases = [lease(s), lease(s), lease(s)];
    had(ask(s, leases[0])).unwrap();
    let second = ask(s, leases[1]);
    wait_for(s, 2);
    let third = ask(s, leases[2]);
    wait_for(s, 3);
    assert!(!second.is_finished() && !third.is_finished());
    unlock(s, leases[0]);
    assert_eq!(had(second).unwrap().key, key_of(leases[1]).as_bytes());
    assert!(!third.is_finished());
    unlock(s, leases[1]);
    assert_eq!(had(third).unwrap().key, key_of(leases[2]).as_bytes());
}

fn who_gives_up_leaves_the_queue(s: &Subject) {
    let leases = [lease(s), lease(s), lease(s)];
    had(ask(s, leases[0])).unwrap();
    let second = ask(s, leases[1]);
    wait_for(s, 2);
    let third = ask(s, leases[2]);
    wait_for(s, 3);
    second.abort();
    wait_for(s, 2);
    unlock(s, leases[0]);
    assert_eq!(had(third).unwrap().key, key_of(leases[2]).as_bytes());
}

fn a_lock_ends_with_its_lease(s: &Subject) {
    let leases = [lease(s), lease(s)];
    had(ask(s, leases[0])).unwrap();
    let second = ask(s, leases[1]);
    wait_for(s, 2);
    s.revoke(LeaseRevokeRequest { id: leases[0] }).unwrap();
    assert_eq!(had(second).unwrap().key, key_of(leases[1]).as_bytes());
}

fn a_place_is_lost_with_its_lease(s: &Subject) {
    // etcd 3.4 says that it is had all the same.
    if s.is_v3_4() {
        return;
    }
    let leases = [lease(s), lease(s)];
    had(ask(s, leases[0])).unwrap();
    let second = ask(s, leases[1]);
    wait_for(s, 2);
    s.revoke(LeaseRevokeRequest { id: leases[1] }).unwrap();
    unlock(s, leases[0]);
    refused(had(second), Code::Unknown, "mutex: session is expired");
}

fn without_a_lease_the_server_makes_one(s: &Subject) {
    had(ask(s, 0)).unwrap();
    let kv = s.all("l/").pop().unwrap();
    let time = s.time_to_live(LeaseTimeToLiveRequest { id: kv.lease, keys: true }).unwrap();
    assert_eq!((time.granted_ttl, time.keys.len()), (60, 1));
}

fn a_lease_that_is_not_there_locks_nothing(s: &Subject) {
    let status = runtime()
        .block_on(async { timeout(Duration::from_secs(10), ask(s, 0x7777)).await })
        .expect("an answer comes")
        .unwrap()
        .unwrap_err();
    // etcd loses the code of what its lock service asks of its other services.
    let code = s.by_version(Code::Unknown, Code::NotFound);
    assert_eq!((status.code(), status.message()), (code, "etcdserver: requested lease not found"));
    assert!(s.all("l/").is_empty());
}
