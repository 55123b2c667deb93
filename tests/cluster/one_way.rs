//! Members that reach others and are not reached, and what their clients are told.

use etcfs_tests::{
    api::put,
    cluster::Cluster,
    server::{Kind, Options},
    wait,
};
use tonic::Code;

/// Each is reached through a proxy by the others.
fn cluster(args: &[&str]) -> Cluster {
    let args = args.iter().map(ToString::to_string).collect();
    let mut cluster =
        Cluster::of(Kind::Etcfs, vec![Options { args, peers_by_proxy: true, ..Options::default() }; 3]);
    cluster.run();
    cluster
}

/// The leader's word goes on coming.
#[test]
fn a_write_that_is_late_where_the_leader_is_not_reached_says_so() {
    let cluster = cluster(&[]);
    let (leader, follower) = (cluster.leader(), cluster.follower());
    cluster.api(follower).set("a", "before");
    cluster.members[leader].peer_proxy().sever(true);
    let late = cluster.api(follower).put(put("a", "late")).unwrap_err();
    let cause = "etcdserver: request timed out, possibly due to connection lost";
    assert_eq!((late.code(), late.message()), (Code::Unavailable, cause));
    // It leads as before, and is reached again.
    assert_eq!(cluster.leader(), leader);
    cluster.members[leader].peer_proxy().sever(false);
    wait::until_true("it is written", || cluster.api(follower).put(put("a", "after")).is_ok());
}

/// Its entry is in the snapshot that it gets, or is not: it does not know.
#[test]
fn a_write_whose_entry_comes_within_a_snapshot_is_one_whose_leader_changed() {
    // A write may take 5 s and two election timeouts: for as long nobody misses the leader.
    let cluster = cluster(&["--snapshot-count=50", "--election-timeout=5000"]);
    let (leader, follower) = (cluster.leader(), cluster.follower());
    cluster.api(follower).set("a", "before");
    cluster.agree();
    cluster.members[follower].peer_proxy().sever(true);
    let api = cluster.api(follower);
    let write = std::thread::spawn(move || api.put(put("a", "after")));
    let other = cluster.api(leader);
    wait::until_true("it is written", || other.value("a").as_deref() == Some("after"));
    for nth in 0..300 {
        other.set(&format!("k{nth}"), vec![b'x'; 1000]);
    }
    cluster.members[follower].peer_proxy().sever(false);
    let lost = write.join().unwrap().unwrap_err();
    assert_eq!((lost.code(), lost.message()), (Code::Unavailable, "etcdserver: leader changed"));
    assert!(cluster.members[follower].log().contains("a snapshot has been installed"));
    cluster.agree();
}
