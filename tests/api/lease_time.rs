//! Leases in time: expiry not early and not much too late, renewal, restart.

use std::time::{Duration, Instant};

use etcfs_proto::etcdserverpb::{LeaseTimeToLiveRequest, PutRequest};
use etcfs_tests::{
    api::{Api, event_revision, grant, put, watch_prefix},
    server::{Kind, Server},
    wait,
};

use crate::subject::{Subject, events};

on_both_alone! { leases_expire_in_time_unless_renewed }

/// How late a lease may be found out and its keys be gone, on a loaded machine.
const LATE: Duration = Duration::from_secs(4);

fn left(s: &Api, id: i64) -> i64 {
    s.time_to_live(LeaseTimeToLiveRequest { id, keys: false }).unwrap().ttl
}

fn leased(key: &str, lease: i64) -> PutRequest {
    PutRequest { lease, ..put(key, "v") }
}

/// In one case, for the time it takes: two leases of one length, of which one is renewed.
fn leases_expire_in_time_unless_renewed(s: &Subject) {
    const TTL: i64 = 2;
    let ttl = Duration::from_secs(2);
    let mut watch = s.watch(watch_prefix("k/", 0));
    let renewed = s.grant(grant(TTL)).unwrap().id;
    s.put(leased("k/renewed", renewed)).unwrap();
    let asked = Instant::now();
    let expiring = s.grant(grant(TTL)).unwrap().id;
    let granted = Instant::now();
    s.put(leased("k/b", expiring)).unwrap();
    s.put(leased("k/a", expiring)).unwrap();
    s.put(leased("k/moved", expiring)).unwrap();
    s.set("k/moved", "free");
    assert_eq!(watch.events(5).len(), 5);
    let before = s.revision();
    // Whole seconds, and never more than there were.
    assert!((1..=TTL).contains(&left(s, expiring)));
    let found = loop {
        assert_eq!(s.keep_alive(renewed).unwrap().ttl, TTL);
        if let Some(response) = watch.next_within(Duration::from_millis(250)) {
            break response;
        }
        assert!(granted.elapsed() < ttl + LATE, "it does not expire");
    };
    assert!(asked.elapsed() >= ttl, "expired after {:?}", asked.elapsed());
    let at = before + 1;
    assert_eq!(events(&found.events), format!("-k/a@{at} -k/b@{at}"));
    assert_eq!(s.revision(), at);
    // Gone for every call.
    assert_eq!(left(s, expiring), -1);
    assert_eq!(s.keep_alive(expiring).unwrap().ttl, 0);
    s.put(leased("k/c", expiring)).unwrap_err();
    // The other lived on by its renewals, and dies without.
    assert!(s.get("k/renewed").is_some());
    let renewals_end = Instant::now();
    assert_eq!(s.keep_alive(renewed).unwrap().ttl, TTL);
    let found = watch.next_within(ttl + LATE).expect("it expires");
    assert!(renewals_end.elapsed() >= ttl, "expired after {:?}", renewals_end.elapsed());
    assert_eq!(events(&found.events), format!("-k/renewed@{}", event_revision(&found.events[0])));
    assert!(s.get("k/moved").is_some());
}

/// What had little time left has all of it again after a restart: never too early.
fn leases_survive_a_restart(kind: Kind) {
    const TTL: i64 = 3;
    let mut server = Server::start(kind);
    let api = server.api();
    let long = api.grant(grant(600)).unwrap().id;
    let short = api.grant(grant(TTL)).unwrap().id;
    api.put(leased("long", long)).unwrap();
    api.put(leased("short", short)).unwrap();
    wait::until_true("a part of it has passed", || left(&api, short) <= 1);
    server.kill();
    let killed = Instant::now();
    server.run();
    let api = server.api();
    assert_eq!(api.get("long").unwrap().lease, long);
    assert!((590..=600).contains(&left(&api, long)));
    assert!((2..=TTL).contains(&left(&api, short)), "{}", left(&api, short));
    wait::within(Duration::from_secs(3) + LATE, "the short one expires", || {
        api.get("short").is_none().then_some(())
    });
    assert!(killed.elapsed() >= Duration::from_secs(3), "expired after {:?}", killed.elapsed());
    assert_eq!(left(&api, short), -1);
    assert!(api.get("long").is_some());
}

#[test]
fn leases_survive_a_restart_of_etcfsd() {
    leases_survive_a_restart(Kind::Etcfs);
}

#[test]
fn leases_survive_a_restart_of_etcd() {
    leases_survive_a_restart(Kind::Etcd);
}
