//! Leaders that die, and what goes on meanwhile.

use std::time::{Duration, Instant};

use etcfs_tests::{
    api::{get, put},
    cluster::{Cluster, status},
    server::Server,
    wait,
};
use tonic::Code;

/// A write waits for the next leader rather than fail, as long as a request may wait.
#[test]
fn a_write_through_a_follower_survives_the_leaders_death() {
    let mut cluster = Cluster::etcfs(3);
    let leader = cluster.leader();
    let follower = cluster.follower();
    cluster.members[leader].kill();
    let began = Instant::now();
    cluster.api(follower).set("a", "after");
    let took = began.elapsed();
    assert!(took < Duration::from_secs(7), "the next leader took {took:?}");
    let other = 3 - leader - follower;
    assert_eq!(cluster.api(other).value("a").as_deref(), Some("after"));
    cluster.members[leader].run();
    assert_eq!(cluster.api(leader).value("a").as_deref(), Some("after"));
    cluster.agree();
}

#[test]
fn writes_through_every_member_are_made_once_and_in_one_order() {
    let cluster = Cluster::etcfs(3);
    let writers: Vec<_> = (0..3)
        .map(|nth| {
            let api = cluster.api(nth);
            std::thread::spawn(move || {
                (0..200).map(|i| api.set(&format!("/{nth}/{i}"), "v")).collect::<Vec<_>>()
            })
        })
        .collect();
    let mut revisions: Vec<i64> = writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect();
    revisions.sort_unstable();
    assert_eq!(revisions, (2..602).collect::<Vec<_>>(), "each write made one revision of its own");
    let kept = cluster.api(1).all("/");
    assert!(kept.len() == 600 && kept.iter().all(|kv| kv.version == 1));
    cluster.agree();
}

/// A follower reads its own writes, serializably too: it answers what it has applied itself.
#[test]
fn a_follower_has_applied_what_it_acknowledges() {
    let cluster = Cluster::etcfs(3);
    let api = cluster.api(cluster.follower());
    for nth in 0..100 {
        let revision = api.set("a", nth.to_string());
        let local =
            api.range(etcfs_proto::etcdserverpb::RangeRequest { serializable: true, ..get("a") }).unwrap();
        assert_eq!(local.kvs[0].mod_revision, revision);
    }
}

#[test]
fn a_read_on_any_member_sees_every_write_acknowledged_before() {
    let cluster = Cluster::etcfs(3);
    let apis: Vec<_> = (0..3).map(|nth| cluster.api(nth)).collect();
    for nth in 0..150 {
        let revision = apis[nth % 3].set("a", nth.to_string());
        let read = apis[(nth + 1) % 3].get("a").unwrap();
        assert_eq!(read.mod_revision, revision, "read {nth}");
    }
}

#[test]
fn without_a_majority_nothing_is_written_and_nothing_linearizable_is_read() {
    let mut cluster = Cluster::etcfs(3);
    cluster.api(0).set("a", "before");
    cluster.agree();
    cluster.members[1].kill();
    cluster.members[2].kill();
    let api = cluster.api(0);
    let unavailable = |status: tonic::Status| {
        assert_eq!(status.code(), Code::Unavailable, "{status}");
        assert!(status.message().starts_with("etcdserver: request timed out"), "{status}");
    };
    unavailable(api.put(put("a", "lost")).unwrap_err());
    unavailable(api.range(get("a")).unwrap_err());
    let local = etcfs_proto::etcdserverpb::RangeRequest { serializable: true, ..get("a") };
    assert_eq!(api.range(local).unwrap().kvs[0].value, "before");
    wait::until_true("it knows of no leader", || status(&api).unwrap().leader == 0);
    assert_eq!(status(&api).unwrap().errors, ["etcdserver: no leader"]);
    cluster.members[1].run();
    assert_ne!(api.value("a"), None);
}

/// A member that is slow to apply has the next leader's word, and not yet its own caller's.
#[test]
fn a_write_that_is_late_after_a_leaders_death_says_so() {
    let mut cluster = Cluster::etcfs(3);
    let leader = cluster.leader();
    let slow = cluster.follower();
    cluster.members[slow].stop();
    // The next leader's first entry and the write take longer than a request may.
    cluster.members[slow].set_env("FAILPOINTS", "raft-after-apply=delay(5000)");
    cluster.members[slow].run();
    cluster.members[leader].kill();
    let late = cluster.api(slow).put(put("a", "late")).unwrap_err();
    let cause = "etcdserver: request timed out, possibly due to previous leader failure";
    assert_eq!((late.code(), late.message()), (Code::Unavailable, cause));
}

/// A read asks the leader for its place in the log and writes nothing there; those that wait
/// together share one question.
#[test]
fn linearizable_reads_through_a_follower_leave_the_log_alone() {
    let cluster = Cluster::etcfs(3);
    let (leader, follower) = (cluster.leader(), cluster.follower());
    cluster.api(follower).set("a", "v");
    cluster.agree();
    let index = || status(&cluster.api(leader)).unwrap().raft_index;
    let before = index();
    let readers: Vec<_> = (0..20)
        .map(|_| {
            let api = cluster.api(follower);
            std::thread::spawn(move || (0..50).for_each(|_| assert_eq!(api.value("a").as_deref(), Some("v"))))
        })
        .collect();
    readers.into_iter().for_each(|reader| reader.join().unwrap());
    assert_eq!(index(), before);
}

/// A paused leader wakes deposed: what it says then is nobody's.
#[test]
fn a_paused_leader_is_replaced_and_rejoins() {
    let cluster = Cluster::etcfs(3);
    let leader = cluster.leader();
    let others: Vec<usize> = (0..3).filter(|&nth| nth != leader).collect();
    cluster.members[leader].pause();
    cluster.api(others[0]).set("a", "meanwhile");
    let new = cluster.leader_among(&others);
    assert_ne!(new, leader);
    cluster.members[leader].resume();
    assert_eq!(cluster.api(leader).value("a").as_deref(), Some("meanwhile"), "a read there is up to date");
    cluster.leader();
    cluster.agree();
}

/// Pre-vote: who comes back with an old log does not depose a good leader.
#[test]
fn a_follower_that_was_paused_deposes_nobody() {
    let cluster = Cluster::etcfs(3);
    let leader = cluster.leader();
    let follower = cluster.follower();
    let term = status(&cluster.api(leader)).unwrap().raft_term;
    cluster.members[follower].pause();
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(3) {
        cluster.api(leader).set("a", "v");
    }
    cluster.members[follower].resume();
    cluster.agree();
    assert_eq!(cluster.leader(), leader);
    assert_eq!(status(&cluster.api(leader)).unwrap().raft_term, term);
}

#[test]
fn a_cluster_that_loses_its_leader_again_and_again_loses_nothing() {
    let mut cluster = Cluster::etcfs(3);
    let mut acknowledged = Vec::new();
    for round in 0..5 {
        for nth in 0..3 {
            let key = format!("/{round}/{nth}");
            acknowledged.push((cluster.api(nth).set(&key, "v"), key));
        }
        let leader = cluster.leader();
        cluster.members[leader].kill();
        let key = format!("/{round}/without");
        acknowledged.push((cluster.api((leader + 1) % 3).set(&key, "v"), key));
        cluster.members[leader].run();
    }
    cluster.members.iter_mut().for_each(Server::kill);
    cluster.run();
    for (revision, key) in acknowledged {
        assert_eq!(
            cluster.api(0).get(&key).map(|kv| (kv.mod_revision, kv.version)),
            Some((revision, 1)),
            "{key}"
        );
    }
    cluster.agree();
}
