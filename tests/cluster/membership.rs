//! Members that come, get their vote, move and go, by etcd's rules and words.

use etcfs_proto::etcdserverpb::{
    Member, MemberAddRequest, MemberListRequest, MemberPromoteRequest, MemberRemoveRequest,
    MemberUpdateRequest, RangeRequest,
};
use etcfs_tests::{
    api::{Answer, Api, get, put},
    cluster::{Cluster, SETTLE, status},
    command::Client,
    server::{Kind, Server},
    wait,
};
use tonic::{Code, Response};

fn list(api: &Api) -> Vec<Member> {
    let answer = api.wait(api.cluster().member_list(MemberListRequest { linearizable: true }));
    answer.unwrap().into_inner().members
}

fn add(api: &Api, url: &str, is_learner: bool) -> Answer<Member> {
    let request = MemberAddRequest { peer_ur_ls: vec![url.into()], is_learner };
    let answer = api.wait(api.cluster().member_add(request))?.into_inner();
    assert!(answer.members.contains(answer.member.as_ref().unwrap()));
    Ok(answer.member.unwrap())
}

fn remove(api: &Api, id: u64) -> Answer<()> {
    api.wait(api.cluster().member_remove(MemberRemoveRequest { id })).map(drop)
}

fn promote(api: &Api, id: u64) -> Answer<()> {
    api.wait(api.cluster().member_promote(MemberPromoteRequest { id })).map(drop)
}

const REMOVED: &str = "the member has been permanently removed from the cluster";

fn others_than(nth: usize) -> Vec<usize> {
    (0..3).filter(|&other| other != nth).collect()
}

fn cluster_id(server: &Server) -> u64 {
    status(&server.api()).unwrap().header.unwrap().cluster_id
}

/// Waits until so many newcomers have been given their vote.
fn wait_for_votes(cluster: &Cluster, count: usize) {
    wait::within(SETTLE, "each has its vote", || {
        let log: String = cluster.members.iter().map(Server::log).collect();
        (log.matches("caught up: votes from now on").count() >= count).then_some(())
    });
}

fn id_of(server: &Server) -> u64 {
    status(&server.api()).unwrap().header.unwrap().member_id
}

#[track_caller]
fn refused<T: std::fmt::Debug>(answer: Answer<T>, code: Code, message: &str) {
    let status = answer.expect_err("this must be refused");
    assert_eq!((status.code(), status.message()), (code, message));
}

/// A change is refused while the members have not known each other for long, as by etcd.
fn add_once_healthy(api: &Api, url: &str, learner: bool) -> Member {
    wait::within(SETTLE, "the cluster is healthy", || match add(api, url, learner) {
        Ok(member) => Some(member),
        Err(status) if status.message() == "etcdserver: unhealthy cluster" => None,
        Err(status) => panic!("{status}"),
    })
}

/// As the tutorial has it: `member add`, then start with what it prints.
#[test]
fn one_member_grows_to_three() {
    let mut cluster = Cluster::etcfs(1);
    cluster.api(0).set("old", "v");
    for nth in 1..3 {
        let mut newcomer = cluster.newcomer(&format!("m{nth}"), &[]);
        let api = cluster.api(nth - 1);
        let added = add_once_healthy(&api, &newcomer.peer_url(), false);
        assert_eq!((added.name.as_str(), added.is_learner), ("", false));
        // Nobody has missed it yet: writes go on before it has ever started.
        api.set("meanwhile", "v");
        newcomer.run();
        assert_eq!(newcomer.api().value("old").as_deref(), Some("v"));
        assert_eq!(id_of(&newcomer), added.id);
        cluster.members.push(newcomer);
        wait::until_true("all have started", || {
            list(&cluster.api(0)).iter().all(|member| !member.name.is_empty())
        });
    }
    wait_for_votes(&cluster, 2);
    // Its votes count: without the first member the others go on.
    cluster.agree();
    cluster.members[0].kill();
    cluster.api(1).set("after", "v");
    assert_eq!(cluster.api(2).value("after").as_deref(), Some("v"));
}

#[test]
fn etcdctl_adds_lists_and_removes_a_member() {
    let mut cluster = Cluster::etcfs(3);
    cluster.leader();
    let mut newcomer = cluster.newcomer("m3", &[]);
    let ctl = Client::etcdctl(&cluster.endpoints());
    let url = newcomer.peer_url();
    let added = wait::within(SETTLE, "the cluster is healthy", || {
        let output = ctl.run(["member", "add", "m3", "--peer-urls", &url]);
        (output.code == 0).then_some(output.stdout)
    });
    assert!(
        added.contains("added to cluster") && added.contains("ETCD_INITIAL_CLUSTER_STATE=\"existing\""),
        "{added}"
    );
    newcomer.run();
    let listed = ctl.run(["member", "list"]).ok();
    assert_eq!(listed.lines().filter(|line| line.contains("started")).count(), 4, "{listed}");
    let id = format!("{:x}", id_of(&newcomer));
    let removed = wait::within(SETTLE, "the cluster is healthy", || {
        let output = ctl.run(["member", "remove", &id]);
        (output.code == 0).then_some(output.stdout)
    });
    assert!(removed.contains(&format!("Member {id:>16} removed from cluster")), "{removed}");
    cluster.members.push(newcomer);
    // It had no vote for long, and perhaps no news of its removal either.
    let status = cluster.members[3].process().wait_for_end(SETTLE);
    assert!(status.success(), "{status}");
    assert!(cluster.members[3].log().contains(REMOVED));
}

#[test]
fn a_removed_member_says_so_and_ends_and_does_not_come_back() {
    let mut cluster = Cluster::etcfs(4);
    for away in [false, true] {
        let gone = cluster.follower();
        let id = id_of(&cluster.members[gone]);
        let api = cluster.api(cluster.leader());
        if away {
            cluster.members[gone].kill();
        }
        wait::within(SETTLE, "it is removed", || match remove(&api, id) {
            Ok(()) => Some(()),
            Err(status) if status.message() == "etcdserver: unhealthy cluster" => None,
            Err(status) => panic!("{status}"),
        });
        let mut removed = cluster.members.remove(gone);
        if away {
            // It was not told, and learns it from those whom it calls.
            removed.launch();
        }
        let ended = removed.process().wait_for_end(SETTLE);
        assert!(ended.success(), "{ended}");
        assert!(removed.log().contains(REMOVED));
        assert!(list(&api).iter().all(|member| member.id != id));
        refused(remove(&api, id), Code::NotFound, "etcdserver: member not found");
        api.set("after", "v");
    }
}

#[test]
fn a_leader_can_be_removed() {
    let mut cluster = Cluster::etcfs(3);
    let leader = cluster.leader();
    let id = id_of(&cluster.members[leader]);
    let api = cluster.api(cluster.follower());
    wait::within(SETTLE, "it is removed", || remove(&api, id).ok());
    let mut removed = cluster.members.remove(leader);
    assert!(removed.process().wait_for_end(SETTLE).success());
    cluster.leader();
    api.set("after", "v");
    cluster.agree();
}

#[test]
fn a_learner_follows_without_a_vote_until_it_is_promoted() {
    let cluster = Cluster::etcfs(3);
    cluster.leader();
    let api = cluster.api(0);
    api.set("a", "v");
    let mut newcomer = cluster.newcomer("m3", &[]);
    let learner = add_once_healthy(&api, &newcomer.peer_url(), true);
    assert!(learner.is_learner);
    let not_ready = "etcdserver: can only promote a learner member which is in sync with leader";
    refused(promote(&api, learner.id), Code::FailedPrecondition, not_ready);
    let many = "etcdserver: too many learner members in cluster";
    refused(add(&api, "http://127.0.0.1:9", true), Code::FailedPrecondition, many);
    newcomer.launch();
    wait::until_true("it follows", || status(&newcomer.api()).is_ok_and(|status| status.is_learner));
    let its = newcomer.api();
    let local = RangeRequest { serializable: true, ..get("a") };
    wait::until_true("it has the key", || its.range(local.clone()).is_ok_and(|answer| answer.kvs.len() == 1));
    let unsupported = "etcdserver: rpc not supported for learner";
    refused(its.range(get("a")), Code::FailedPrecondition, unsupported);
    refused(its.put(put("a", "w")), Code::FailedPrecondition, unsupported);
    wait::within(SETTLE, "it is promoted", || promote(&api, learner.id).ok());
    refused(
        promote(&api, learner.id),
        Code::FailedPrecondition,
        "etcdserver: can only promote a learner member",
    );
    wait::until_true("it knows", || its.put(put("a", "w")).is_ok());
    assert_eq!(api.value("a").as_deref(), Some("w"));
}

#[test]
fn changes_that_make_no_sense_are_refused_in_etcds_words() {
    let cluster = Cluster::etcfs(3);
    cluster.leader();
    let api = cluster.api(cluster.follower());
    refused(add(&api, "nonsense", false), Code::InvalidArgument, "etcdserver: given member URLs are invalid");
    refused(remove(&api, 12345), Code::NotFound, "etcdserver: member not found");
    refused(promote(&api, 12345), Code::NotFound, "etcdserver: member not found");
    let own = id_of(&cluster.members[0]);
    refused(promote(&api, own), Code::FailedPrecondition, "etcdserver: can only promote a learner member");
    let taken = cluster.members[1].peer_url();
    let update = MemberUpdateRequest { id: own, peer_ur_ls: vec![taken.clone()] };
    refused(
        api.wait(api.cluster().member_update(update)).map(Response::into_inner),
        Code::FailedPrecondition,
        "etcdserver: Peer URLs already exists",
    );
    let message = wait::within(SETTLE, "the cluster is healthy", || {
        let message = add(&api, &taken, false).unwrap_err().message().to_owned();
        (message != "etcdserver: unhealthy cluster").then_some(message)
    });
    assert_eq!(message, "etcdserver: Peer URLs already exists");
    assert_eq!(list(&api).len(), 3);
}

/// What would leave the cluster without a majority is not done.
#[test]
fn a_majority_is_not_given_away() {
    let mut cluster = Cluster::etcfs(3);
    let leader = cluster.leader();
    let ids: Vec<u64> = cluster.members.iter().map(id_of).collect();
    let away = cluster.follower();
    let there = 3 - leader - away;
    cluster.members[away].kill();
    let api = cluster.api(leader);
    refused(remove(&api, ids[there]), Code::Unavailable, "etcdserver: unhealthy cluster");
    refused(add(&api, "http://127.0.0.1:9", false), Code::Unavailable, "etcdserver: unhealthy cluster");
    // The one that is away may go, and is replaced by one without data.
    remove(&api, ids[away]).unwrap();
    cluster.members.remove(away);
    let mut new = cluster.newcomer("new", &[]);
    add_once_healthy(&api, &new.peer_url(), false);
    new.run();
    cluster.members.push(new);
    cluster.agree();
}

/// Nor are places given away faster than members start.
#[test]
fn a_second_newcomer_waits_for_the_first_to_start() {
    let cluster = Cluster::etcfs(1);
    let api = cluster.api(0);
    let mut first = cluster.newcomer("m1", &[]);
    add(&api, &first.peer_url(), false).unwrap();
    let refusal = "etcdserver: re-configuration failed due to not enough started members";
    refused(add(&api, "http://127.0.0.1:9", false), Code::FailedPrecondition, refusal);
    first.run();
    add_once_healthy(&api, "http://127.0.0.1:9", false);
}

/// A member moves to another address: the others find it there.
#[test]
fn updated_peer_urls_are_told_to_all() {
    let cluster = Cluster::etcfs(3);
    cluster.leader();
    let follower = cluster.follower();
    let id = id_of(&cluster.members[follower]);
    let urls = vec![cluster.members[follower].peer_url().replace("127.0.0.1", "localhost")];
    let api = cluster.api(0);
    let update = MemberUpdateRequest { id, peer_ur_ls: urls.clone() };
    api.wait(api.cluster().member_update(update)).unwrap();
    let listed = list(&cluster.api(1)).into_iter().find(|member| member.id == id).unwrap();
    assert_eq!(listed.peer_ur_ls, urls);
    assert!(!listed.name.is_empty(), "what it said of itself stays");
    cluster.api(follower).set("a", "v");
    cluster.agree();
}

/// The day after a disaster: two of three are lost for good. The third goes on alone
/// with all it has, and grows again.
#[test]
fn one_that_is_left_becomes_a_cluster_of_its_own_and_grows_again() {
    let mut cluster = Cluster::etcfs(3);
    let revision = cluster.api(0).set("kept", "v");
    cluster.agree();
    let id = cluster_id(&cluster.members[0]);
    cluster.members.iter_mut().for_each(Server::kill);
    let mut lost = cluster.members.remove(2);
    drop(cluster.members.remove(0));
    let left = &mut cluster.members[0];
    left.add_arg("--force-new-cluster");
    left.run();
    assert_eq!(left.api().get("kept").unwrap().mod_revision, revision);
    assert_eq!(list(&left.api()).len(), 1);
    left.api().set("alone", "v");
    // Who turns up after all is told that it is none of it any more.
    lost.launch();
    assert!(lost.process().wait_for_end(SETTLE).success());
    assert!(lost.log_of_last_run().contains(REMOVED), "{}", lost.log_of_last_run());
    left.remove_arg("--force-new-cluster");
    assert!(left.stop().success());
    left.run();
    for nth in 0..2 {
        let mut newcomer = cluster.newcomer(&format!("new{nth}"), &[]);
        add_once_healthy(&cluster.api(0), &newcomer.peer_url(), false);
        newcomer.run();
        cluster.members.push(newcomer);
    }
    assert!(cluster.members.iter().all(|member| cluster_id(member) == id), "it is the same cluster");
    wait_for_votes(&cluster, 2);
    cluster.agree();
    cluster.members[0].kill();
    cluster.api(1).set("grown", "v");
    assert_eq!(cluster.api(2).value("alone").as_deref(), Some("v"));
}

/// The leader dies when the old and the new voters decide together, and the old ones would
/// have to agree for ever.
#[test]
fn a_change_that_its_leader_leaves_half_done_is_finished_by_the_next() {
    let mut cluster = Cluster::prepared(Kind::Etcfs, 1, &[]);
    // Not in the change that brings the second.
    cluster.members[0].set_env("FAILPOINTS", "raft-in-change=1*off->return");
    cluster.run();
    for nth in 1..3 {
        let mut newcomer = cluster.newcomer(&format!("m{nth}"), &[]);
        add_once_healthy(&cluster.api(0), &newcomer.peer_url(), false);
        newcomer.launch();
        cluster.members.push(newcomer);
        if nth == 1 {
            cluster.members[1].wait_until_ready();
            wait_for_votes(&cluster, 1);
        }
    }
    cluster.members[0].wait_for_end(SETTLE);
    cluster.members[0].unset_env("FAILPOINTS");
    cluster.run();
    wait::within(SETTLE, "the change is finished", || {
        let log: String = cluster.members.iter().map(Server::log).collect();
        log.contains("was left half done is finished").then_some(())
    });
    cluster.agree();
    cluster.members[0].kill();
    cluster.api(1).set("by the second and the third", "v");
}

/// Its disk was replaced: it can't come again as who it was, and comes as somebody new.
#[test]
fn a_member_whose_data_is_lost_is_replaced() {
    let mut cluster = Cluster::etcfs(3);
    cluster.api(0).set("kept", "v");
    let gone = cluster.follower();
    let id = id_of(&cluster.members[gone]);
    let name = cluster.members[gone].name().to_owned();
    cluster.members[gone].kill();
    std::fs::remove_dir_all(cluster.members[gone].data_dir()).unwrap();
    cluster.members[gone].launch();
    let ended = cluster.members[gone].process().wait_for_end(SETTLE);
    let log = cluster.members[gone].log_of_last_run();
    assert!(!ended.success() && log.contains("has already been bootstrapped"), "{log}");
    let api = cluster.api(cluster.leader_among(&others_than(gone)));
    remove(&api, id).unwrap();
    drop(cluster.members.remove(gone));
    let mut replacement = cluster.newcomer(&name, &[]);
    let added = add_once_healthy(&api, &replacement.peer_url(), false);
    replacement.run();
    assert_eq!(id_of(&replacement), added.id);
    assert_ne!(added.id, id);
    cluster.members.push(replacement);
    wait_for_votes(&cluster, 1);
    cluster.agree();
    // It counts: with it, the cluster goes on without another.
    cluster.members[0].kill();
    cluster.api(2).set("after", "v");
    assert_eq!(cluster.api(2).value("kept").as_deref(), Some("v"));
}
