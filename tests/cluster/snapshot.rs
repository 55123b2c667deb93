//! A member that was away longer than the log reaches back.

use etcfs_proto::etcdserverpb::RangeRequest;
use etcfs_tests::{
    api::{compact, get, watch_prefix},
    cluster::Cluster,
    wait,
};

const KEYS: usize = 1200;

#[test]
fn a_member_behind_the_purge_gets_a_snapshot_and_goes_on() {
    // Short logs: 50 entries and no more are kept behind a snapshot.
    let mut cluster = Cluster::with(etcfs_tests::server::Kind::Etcfs, 3, &["--snapshot-count=50"]);
    let away = cluster.follower();
    let other = cluster.leader();
    cluster.api(other).set("/before", "v");
    cluster.agree();
    cluster.members[away].kill();
    let api = cluster.api(other);
    for nth in 0..KEYS {
        api.set(&format!("/k/{nth}"), vec![b'x'; 1000]);
    }
    let lease = api.grant(etcfs_tests::api::grant(600)).unwrap().id;
    api.put(etcfs_tests::api::put_on_lease("/leased", "v", lease)).unwrap();
    api.compact(compact(600)).unwrap();
    cluster.members[away].run();
    assert!(
        cluster.members[away].log().contains("a snapshot has been installed"),
        "{}",
        cluster.members[away].log()
    );
    let back = cluster.api(away);
    assert_eq!(back.all("/k/").len(), KEYS);
    assert_eq!(back.get("/leased").unwrap().lease, lease);
    cluster.agree();
    back.set("/after", "v");
    assert_eq!(api.value("/after").as_deref(), Some("v"));
}

/// Neither a read nor a watcher notices that the ground is exchanged below it.
#[test]
fn reads_and_watches_go_on_while_a_snapshot_is_installed() {
    let cluster = Cluster::with(etcfs_tests::server::Kind::Etcfs, 3, &["--snapshot-count=50"]);
    let (paused, other) = (cluster.follower(), cluster.leader());
    let api = cluster.api(other);
    api.set("/w/first", "v");
    cluster.agree();
    let first = cluster.api(paused).revision();
    let mut watch = cluster.api(paused).watch(watch_prefix("/w/", first + 1));
    cluster.members[paused].pause();
    for nth in 0..KEYS {
        api.set(&format!("/w/{nth}"), vec![b'x'; 1000]);
    }
    cluster.members[paused].resume();
    let local = RangeRequest { serializable: true, ..get("/w/first") };
    wait::within(etcfs_tests::cluster::SETTLE, "the snapshot is installed", || {
        assert_eq!(cluster.api(paused).range(local.clone()).unwrap().kvs.len(), 1);
        cluster.members[paused].log().contains("a snapshot has been installed").then_some(())
    });
    let events = watch.events(KEYS);
    let revisions: Vec<i64> = events.iter().map(etcfs_tests::api::event_revision).collect();
    assert_eq!(revisions, (first + 1..first + 1 + KEYS as i64).collect::<Vec<_>>());
    cluster.agree();
}
