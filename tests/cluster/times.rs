//! When revisions were made: all members tell the same, whoever led and however they came to know.

use etcfs_client::{Client, Config};
use etcfs_proto::etcfs::v1::TimesRequest;
use etcfs_tests::{
    api::runtime,
    cluster::Cluster,
    server::{Kind, Server},
    wait,
};

use super::restore::{restored, save};

/// Of the revisions from the first with a key up to this one, as a member tells it.
fn times(member: &Server, newest: i64) -> Vec<i64> {
    let endpoints = vec![member.endpoint()];
    let client = Client::connect(Config { endpoints, ..Config::default() }).unwrap();
    let revisions: Vec<i64> = (2..=newest).collect();
    wait::until("it has applied them", || {
        let asked = TimesRequest { revisions: revisions.clone() };
        let told = runtime().block_on(client.tree().times(asked)).unwrap();
        (told.header.unwrap().revision >= newest).then_some(told.unix_ns)
    })
}

#[track_caller]
fn all_tell(cluster: &Cluster, newest: i64) -> Vec<i64> {
    let told: Vec<_> = cluster.members.iter().map(|member| times(member, newest)).collect();
    assert!(told.iter().all(|times| *times == told[0]), "{told:?}");
    assert!(told[0].is_sorted_by(|before, after| 0 < *before && before < after), "{told:?}");
    told[0].clone()
}

#[test]
fn members_tell_the_same_times_over_a_new_leader_a_snapshot_and_a_restore() {
    let mut cluster = Cluster::with(Kind::Etcfs, 3, &["--snapshot-count=50"]);
    // Of a follower: the leader says when.
    let first = cluster.api(cluster.follower()).set("a", "1");
    let before = all_tell(&cluster, first);
    let led = cluster.leader();
    cluster.members[led].kill();
    let next = cluster.leader();
    for nth in 0..1200 {
        cluster.api(next).set(&format!("k{nth}"), "v");
    }
    let newest = cluster.api(next).revision();
    cluster.run();
    let after = all_tell(&cluster, newest);
    assert!(cluster.members[led].log().contains("a snapshot has been installed"));
    assert_eq!(after[..before.len()], before);

    let dir = tempfile::tempdir().unwrap();
    save(&cluster, dir.path());
    let mut anew = restored(dir.path(), "");
    assert_eq!(all_tell(&anew, newest), after);
    let leader = anew.leader();
    let later = anew.api(leader).set("a", "2");
    anew.members[leader].kill();
    anew.run();
    assert_eq!(all_tell(&anew, later)[..after.len()], after);
}
