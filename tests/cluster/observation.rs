//! What an operator is told: who leads, why, who is gone, and what is slow.

use etcfs_tests::{
    cluster::Cluster,
    server::{Kind, Options, Server},
    wait,
};

#[test]
fn logs_and_metrics_tell_who_leads_why_and_who_is_gone() {
    let mut cluster = Cluster::etcfs(3);
    let old = cluster.leader();
    let follower = cluster.follower();
    let told = |nth: usize, name: &str| cluster.members[nth].metric(name).unwrap_or_default();
    wait::until_true("the leader tells how far away the others are", || {
        told(old, "etcd_network_peer_round_trip_time_seconds_count") > 0.0
    });
    let [sent, received] = ["sent", "received"].map(|way| format!("etcd_network_peer_{way}_bytes_total"));
    let before = (told(old, &sent), told(follower, &received));
    cluster.api(old).set("large", "v".repeat(100_000));
    wait::until_true("both ends count what passes between them", || {
        told(old, &sent) > before.0 + 200_000.0 && told(follower, &received) > before.1 + 100_000.0
    });
    cluster.members[old].kill();
    let new = cluster.leader();
    let voter = 3 - old - new;
    let is_leader = |nth: usize| cluster.members[nth].metric("etcd_server_is_leader");
    wait::until_true("the leader says so", || is_leader(new) == Some(1.0) && is_leader(voter) == Some(0.0));
    let leads = cluster.members[new].log();
    let vote = leads.lines().rfind(|line| line.contains("\"asked for a vote\"")).expect(&leads);
    assert!(vote.contains("\"granted\":true"), "{vote}");
    let term = vote.split_once("\"term\":").and_then(|(_, rest)| rest.split_once(',')).expect("a term").0;
    let comes_to_tell = |nth: usize, message: &str| {
        let (message, term) = (format!("\"{message}\""), format!("\"term\":{term},"));
        wait::until_true(&format!("m{nth} tells {message} with {term}"), || {
            let log = cluster.members[nth].log();
            log.lines().any(|line| line.contains(&message) && line.contains(&term))
        });
    };
    comes_to_tell(new, "this member leads");
    comes_to_tell(voter, "was asked for a vote");
    comes_to_tell(voter, "this member follows");
    let follows = cluster.members[voter].log();
    assert!(follows.contains("\"no leader: "), "why there was an election\n{follows}");
    assert!(cluster.members[voter].metric("etcd_server_leader_changes_seen_total") >= Some(2.0));
    wait::until_true("the metrics tell who is gone", || {
        cluster.members[new].metric("etcd_network_active_peers") == Some(1.0)
            && cluster.members[new].metric("etcd_network_peer_sent_failures_total") > Some(0.0)
    });
}

#[test]
fn what_is_slow_is_counted_and_told() {
    let env = vec![("FAILPOINTS".to_owned(), "raft-after-apply=delay(150)".to_owned())];
    let server = Server::with(Kind::Etcfs, Options { env, ..Options::default() });
    server.api().set("a", "v");
    wait::until_true("slow entries are counted", || {
        server.metric("etcd_server_slow_apply_total") > Some(0.0)
    });
    assert!(server.log().contains("apply request took too long"), "{}", server.log());

    let cluster = Cluster::etcfs(3);
    let (leader, follower) = (cluster.leader(), cluster.follower());
    let slow = |name: &str| cluster.members[follower].metric(name).expect("it is there");
    let before = slow("etcd_server_slow_read_indexes_total");
    cluster.members[leader].pause();
    // Nobody answers until another leads.
    cluster.api(follower).get("a");
    assert!(slow("etcd_server_slow_read_indexes_total") > before);
    assert!(slow("etcd_server_read_indexes_failed_total") > 0.0);
    assert!(cluster.members[follower].log().contains("waiting for ReadIndex response took too long"));
    cluster.members[leader].resume();
}
