//! Leases live on the leader's clock, whichever member is asked.

use std::time::{Duration, Instant};

use etcfs_proto::etcdserverpb::LeaseTimeToLiveRequest;
use etcfs_tests::{
    api::{Api, grant, put_on_lease, runtime},
    cluster::{Cluster, SETTLE},
    server::Kind,
    wait,
};

fn left(api: &Api, id: i64) -> i64 {
    api.time_to_live(LeaseTimeToLiveRequest { id, keys: false }).unwrap().ttl
}

#[test]
fn any_member_grants_renews_tells_and_revokes() {
    let cluster = Cluster::etcfs(3);
    for nth in 0..3 {
        let api = cluster.api(nth);
        let other = cluster.api((nth + 1) % 3);
        let lease = api.grant(grant(60)).unwrap().id;
        // At once, on a member that may not have applied the grant.
        assert_eq!(other.keep_alive(lease).unwrap().ttl, 60);
        let told = other.time_to_live(LeaseTimeToLiveRequest { id: lease, keys: true }).unwrap();
        assert_eq!((told.granted_ttl, told.keys.len()), (60, 0));
        assert!((58..=60).contains(&told.ttl), "{told:?}");
        other.put(put_on_lease("/l", "v", lease)).unwrap();
        api.revoke(etcfs_proto::etcdserverpb::LeaseRevokeRequest { id: lease }).unwrap();
        assert_eq!(other.get("/l"), None);
        assert_eq!(other.keep_alive(lease).unwrap().ttl, 0, "as etcd: no error, no time");
        assert_eq!(left(&other, lease), -1);
    }
}

#[test]
fn a_lease_renewed_through_a_follower_lives_and_then_ends() {
    let cluster = Cluster::etcfs(3);
    let api = cluster.api(cluster.follower());
    let lease = api.grant(grant(2)).unwrap().id;
    api.put(put_on_lease("/l", "v", lease)).unwrap();
    let began = Instant::now();
    let mut renewed = began;
    while began.elapsed() < Duration::from_secs(4) {
        renewed = Instant::now();
        assert_eq!(api.keep_alive(lease).unwrap().ttl, 2);
        assert!(api.get("/l").is_some());
    }
    wait::until_true("it ends", || api.get("/l").is_none());
    let lived = renewed.elapsed();
    assert!(lived >= Duration::from_secs(2), "{lived:?}");
}

/// What the leader has noted to be left, the next one goes by; a renewal takes the note back
/// before it is acknowledged. Notes come each second here, not each minute.
#[test]
fn the_next_leader_goes_by_what_was_noted_unless_the_lease_was_renewed() {
    let mut cluster = Cluster::prepared(Kind::Etcfs, 3, &[]);
    for member in &mut cluster.members {
        member.set_env("FAILPOINTS", "lease-checkpoint-interval=return(1000)");
    }
    cluster.run();
    let lease = cluster.api(0).grant(grant(60)).unwrap().id;
    wait::until_true("ten seconds are gone", || left(&cluster.api(0), lease) <= 50);
    let leader = cluster.leader();
    cluster.members[leader].kill();
    let follower = cluster.follower();
    let told = left(&cluster.api(follower), lease);
    assert!(told <= 52, "{told} s of 60 are left");
    cluster.members[leader].run();
    assert_eq!(cluster.api(leader).keep_alive(lease).unwrap().ttl, 60);
    let leader = cluster.leader();
    cluster.members[leader].kill();
    let follower = cluster.follower();
    let told = left(&cluster.api(follower), lease);
    assert!(told > 52, "{told} s of 60 are left of a lease that was renewed");
}

/// The next leader gives a lease its whole time, so it ends late but never early.
#[test]
fn a_lease_outlives_its_leader_by_its_whole_time() {
    let mut cluster = Cluster::etcfs(3);
    let leader = cluster.leader();
    let api = cluster.api(cluster.follower());
    let lease = api.grant(grant(3)).unwrap().id;
    api.put(put_on_lease("/l", "v", lease)).unwrap();
    let renewed = Instant::now();
    assert_eq!(api.keep_alive(lease).unwrap().ttl, 3);
    cluster.members[leader].kill();
    wait::within(SETTLE, "it ends under the next leader", || api.get("/l").is_none().then_some(()));
    let lived = renewed.elapsed();
    assert!(lived >= Duration::from_secs(3), "{lived:?}");
}

/// A paused leader's clock runs on; what it decides when it wakes is nobody's.
#[test]
fn a_leader_that_wakes_ends_no_lease_that_others_renewed() {
    let cluster = Cluster::etcfs(3);
    let leader = cluster.leader();
    let others: Vec<usize> = (0..3).filter(|&nth| nth != leader).collect();
    let api = cluster.api(others[0]);
    let lease = api.grant(grant(2)).unwrap().id;
    api.put(put_on_lease("/l", "v", lease)).unwrap();
    cluster.members[leader].pause();
    cluster.leader_among(&others);
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(3) {
        assert_eq!(api.keep_alive(lease).unwrap().ttl, 2);
    }
    cluster.members[leader].resume();
    let woken = Instant::now();
    while woken.elapsed() < Duration::from_secs(3) {
        assert_eq!(cluster.api(leader).keep_alive(lease).unwrap().ttl, 2, "through the deposed leader, too");
        assert!(api.get("/l").is_some());
    }
}

/// A deposed leader that wakes used to tell, before it knew of its successor, what its own clock said:
/// nothing left.
#[test]
fn a_leader_that_wakes_does_not_tell_by_its_clock_what_is_left() {
    let cluster = Cluster::etcfs(3);
    let leader = cluster.leader();
    let others: Vec<usize> = (0..3).filter(|&nth| nth != leader).collect();
    let (asleep, awake) = (cluster.api(leader), cluster.api(others[0]));
    let lease = awake.grant(grant(3)).unwrap().id;
    assert!(left(&asleep, lease) > 0, "and the connection is open");
    cluster.members[leader].pause();
    let asked: Vec<_> = (0..20)
        .map(|_| {
            let asleep = asleep.clone();
            runtime().spawn_blocking(move || left(&asleep, lease))
        })
        .collect();
    cluster.leader_among(&others);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(4) {
        assert_eq!(awake.keep_alive(lease).unwrap().ttl, 3);
    }
    cluster.members[leader].resume();
    for call in asked {
        assert!(runtime().block_on(call).unwrap() > 0);
    }
}

/// A keep-alive that no majority stands behind is no keep-alive.
#[test]
fn a_leader_without_a_majority_renews_nothing() {
    let mut cluster = Cluster::etcfs(3);
    let leader = cluster.leader();
    let api = cluster.api(leader);
    let lease = api.grant(grant(60)).unwrap().id;
    for nth in (0..3).filter(|&nth| nth != leader) {
        cluster.members[nth].kill();
    }
    let status = api.keep_alive(lease).unwrap_err();
    assert_eq!(status.message(), "etcdserver: request timed out");
}
