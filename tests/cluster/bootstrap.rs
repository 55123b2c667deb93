//! How a cluster begins, and who is let in.

use etcfs_proto::etcdserverpb::{DowngradeRequest, MemberListRequest, downgrade_request::DowngradeAction};
use etcfs_tests::{
    cluster::{Cluster, members, status},
    command,
    server::{Kind, Server},
    wait,
};

/// The ids that a cluster of these URLs has, as etcd computes them.
fn ids(cluster: &Cluster) -> (u64, Vec<u64>) {
    let api = cluster.api(0);
    let list = api.wait(api.cluster().member_list(MemberListRequest { linearizable: true }));
    let list = list.unwrap().into_inner();
    (list.header.unwrap().cluster_id, list.members.iter().map(|member| member.id).collect())
}

fn first_eight_of_sha1(printf: &str) -> u64 {
    let script = format!("printf '{printf}' | sha1sum | cut -c1-16");
    u64::from_str_radix(command::sh(std::path::Path::new("/"), &script).ok().trim(), 16).unwrap()
}

#[test]
fn three_members_find_each_other_by_etcds_ids_and_agree() {
    let cluster = Cluster::etcfs(3);
    let (cluster_id, listed) = ids(&cluster);
    let mut expected: Vec<u64> = cluster
        .members
        .iter()
        .map(|m| first_eight_of_sha1(&format!("{}etcd-cluster", m.peer_url())))
        .collect();
    expected.sort_unstable();
    assert_eq!(listed, expected);
    let octal: String =
        expected.iter().flat_map(|id| id.to_be_bytes()).map(|b| format!("\\{b:03o}")).collect();
    assert_eq!(cluster_id, first_eight_of_sha1(&octal));
    for nth in 0..3 {
        cluster.api(nth).set(&format!("/of/{nth}"), "v");
    }
    for nth in 0..3 {
        assert_eq!(
            cluster.api(nth).all("/of/").len(),
            3,
            "each member reads what was written through the others"
        );
    }
    cluster.agree();
}

/// So none is told that there is no version to go down from.
#[test]
fn no_client_is_served_before_the_cluster_has_a_version() {
    let mut cluster = Cluster::prepared(Kind::Etcfs, 3, &[]);
    cluster.members[0].launch();
    let api = cluster.api(0);
    let validate = || DowngradeRequest { action: DowngradeAction::Validate.into(), version: "3.5.0".into() };
    let first = std::thread::spawn(move || {
        wait::until("it listens", || match api.wait(api.maintenance().downgrade(validate())) {
            Err(status) if status.message().contains("tcp connect error") => None,
            answer => Some(answer),
        })
    });
    cluster.run();
    assert_eq!(first.join().unwrap().unwrap().into_inner().version, "3.6.0");
}

#[test]
fn clusters_of_one_and_of_five_and_of_seven_start_alike() {
    for size in [1, 5, 7] {
        let cluster = Cluster::etcfs(size);
        cluster.leader();
        cluster.api(size - 1).set("a", "v");
        assert_eq!(cluster.api(0).value("a").as_deref(), Some("v"));
        assert_eq!(members(&cluster.api(0)).unwrap().len(), size);
    }
}

/// As etcd: clients are let in once the member has caught up with a leader.
#[test]
fn a_member_serves_nobody_before_a_majority_is_there() {
    let mut cluster = Cluster::prepared(Kind::Etcfs, 3, &[]);
    cluster.members[0].launch();
    wait::until_true("it serves its peers", || cluster.members[0].log().contains("serving peer traffic"));
    assert!(!cluster.members[0].log().contains("ready to serve client requests"));
    cluster.run();
    assert!(cluster.members[0].log().contains("ready to serve client requests"));
}

#[test]
fn a_restarted_member_comes_back_with_all_it_missed() {
    let mut cluster = Cluster::etcfs(3);
    for nth in 0..3 {
        cluster.members[nth].kill();
        let other = (nth + 1) % 3;
        cluster.leader();
        cluster.api(other).set("missed", nth.to_string());
        cluster.members[nth].run();
        assert_eq!(cluster.api(nth).value("missed"), Some(nth.to_string()));
    }
    cluster.agree();
}

#[test]
fn the_whole_cluster_restarts_with_all_it_had() {
    let mut cluster = Cluster::etcfs(3);
    let revision = cluster.api(0).set("kept", "v");
    let term = status(&cluster.api(0)).unwrap().raft_term;
    cluster.members.iter_mut().for_each(Server::kill);
    cluster.run();
    assert_eq!(cluster.api(2).get("kept").unwrap().mod_revision, revision);
    assert!(status(&cluster.api(0)).unwrap().raft_term > term);
}

/// Its peer URLs are those of another cluster's member by mistake.
#[test]
fn a_member_of_another_cluster_is_refused_and_changes_nothing() {
    let mut cluster = Cluster::etcfs(3);
    cluster.leader();
    // The same three URLs and names make the same member ids; the token makes another cluster.
    cluster.members[2].kill();
    let data = cluster.members[2].scratch().join("other");
    cluster.members[2].set_data_dir(data);
    cluster.members[2].add_arg("--initial-cluster-token=another");
    cluster.members[2].launch();
    wait::until_true("a member has refused it", || {
        let refused = |member: &Server| member.log().contains("refused a peer of another cluster");
        refused(&cluster.members[0]) || refused(&cluster.members[1])
    });
    cluster.api(0).set("a", "v");
    assert_eq!(cluster.api(1).value("a").as_deref(), Some("v"));
    // Once: at its start as a member of the first cluster.
    assert_eq!(cluster.members[2].log().matches("ready to serve client requests").count(), 1);
}

/// A founder without its data has lost its votes: it would vote a second time.
#[test]
fn a_founder_that_lost_its_data_does_not_found_again() {
    let mut cluster = Cluster::etcfs(3);
    cluster.members[1].kill();
    cluster.leader();
    let empty = cluster.members[1].scratch().join("empty");
    cluster.members[1].set_data_dir(empty);
    cluster.members[1].launch();
    let status = cluster.members[1].process().wait_for_end(wait::PATIENCE);
    assert!(!status.success());
    let log = cluster.members[1].log();
    assert!(log.contains("has already been bootstrapped"), "{log}");
}

#[test]
fn a_member_that_was_not_added_is_told_so() {
    let cluster = Cluster::etcfs(1);
    let mut stranger = cluster.newcomer("m1", &[]);
    stranger.launch();
    assert!(!stranger.process().wait_for_end(wait::PATIENCE).success());
    assert!(stranger.log().contains("member count is unequal"), "{}", stranger.log());
}
