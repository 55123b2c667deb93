//! Members of two versions in one cluster. The build under test has failpoints, by
//! one of which a member claims another version than its own.

use std::{
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use etcfs_proto::etcfs::peer::{HashKeysRequest, errands_client::ErrandsClient};
use etcfs_tests::{
    api::{Answer, Api},
    binary,
    cluster::{self, Cluster},
    command,
    server::{Kind, Server, http_get},
    wait,
};
use tonic::{Code, Request};

/// What the build under test speaks, and a version before it.
const NEW: &str = "3.6.14";
const OLD: &str = "3.5.9";

fn claim(member: &mut Server, version: &str) {
    member.set_env("FAILPOINTS", &format!("claimed-version=return({version})"));
}

/// A member's own version and the cluster's, as it tells them.
fn told(member: &Server) -> Option<(String, String)> {
    let text = http_get(&member.endpoint(), "/version")?;
    let field = |name: &str| {
        let rest = text.split_once(&format!("\"{name}\":\""))?.1;
        Some(rest.split_once('"')?.0.to_owned())
    };
    Some((field("etcdserver")?, field("etcdcluster")?))
}

#[track_caller]
fn comes_to_tell(member: &Server, own: &str, cluster: &str) {
    let wanted = Some((own.to_owned(), cluster.to_owned()));
    wait::until_true(&format!("{} tells {wanted:?}", member.name()), || told(member) == wanted);
}

/// Puts number after number by the command line, each through whichever member answers.
fn writer(endpoints: String, stop: Arc<AtomicBool>) -> JoinHandle<u32> {
    thread::spawn(move || {
        let mut count = 0;
        while !stop.load(Ordering::Relaxed) {
            let mut put = Command::new(binary::etcfs());
            put.args(["--endpoints", &endpoints, "put", &format!("n/{count}"), "v"]);
            assert_eq!(command::run(&mut put, b"").ok(), "OK\n", "put {count}");
            count += 1;
        }
        count
    })
}

/// Starts a member that must refuse to, and gives its log.
#[track_caller]
fn refused(member: &mut Server, version: &str) -> String {
    claim(member, version);
    member.launch();
    let path = member.scratch().join("log");
    assert!(!member.wait_for_end(wait::PATIENCE).success());
    std::fs::read_to_string(path).expect("its log")
}

#[test]
fn members_are_upgraded_one_by_one_without_an_error_at_a_client() {
    let mut cluster = Cluster::prepared(Kind::Etcfs, 3, &[]);
    cluster.members.iter_mut().for_each(|member| claim(member, OLD));
    cluster.run();
    for member in &cluster.members {
        comes_to_tell(member, OLD, "3.5.0");
    }
    let stop = Arc::<AtomicBool>::default();
    let writer = writer(cluster.endpoints(), stop.clone());
    for nth in 0..3 {
        // As long as one of them is old.
        comes_to_tell(&cluster.members[(nth + 1) % 3], if nth == 2 { NEW } else { OLD }, "3.5.0");
        let member = &mut cluster.members[nth];
        assert!(member.stop().success());
        member.unset_env("FAILPOINTS");
        cluster.run();
    }
    for member in &cluster.members {
        comes_to_tell(member, NEW, "3.6.0");
        let log = member.log();
        assert!(log.contains("updated cluster version"), "{log}");
        assert!(log.contains("\"enabled capabilities for version\",\"cluster_version\":\"3.6.0\""), "{log}");
    }
    stop.store(true, Ordering::Relaxed);
    let written = writer.join().expect("no put failed");
    assert_eq!(cluster.api(0).all("n/").len() as u32, written);

    // There is no way back, and none for one that is too far ahead.
    let member = &mut cluster.members[2];
    member.stop();
    let log = refused(member, OLD);
    assert!(log.contains("invalid downgrade; this server has version 3.5.0"), "{log}");
    let log = refused(member, "3.8.1");
    assert!(log.contains("upgrade all members to 3.7.0 first"), "{log}");
    member.unset_env("FAILPOINTS");
    cluster.run();
    cluster.agree();
}

/// Its data is of the time before the cluster's version rose, as a backup of its machine may be: so it
/// starts. It learns of the version from the log, and goes no further.
#[test]
fn a_running_member_that_is_too_old_for_its_cluster_ends() {
    let mut cluster = Cluster::prepared(Kind::Etcfs, 3, &[]);
    cluster.members.iter_mut().for_each(|member| claim(member, OLD));
    cluster.run();
    for member in &cluster.members {
        comes_to_tell(member, OLD, "3.5.0");
    }
    assert!(cluster.members[2].stop().success());
    let (data, kept) = (cluster.members[2].data_dir(), cluster.members[2].scratch().join("kept"));
    copy(&data, &kept);
    cluster.members[2].unset_env("FAILPOINTS");
    cluster.run();
    for nth in 0..2 {
        assert!(cluster.members[nth].stop().success());
        cluster.members[nth].unset_env("FAILPOINTS");
        cluster.run();
    }
    for member in &cluster.members {
        comes_to_tell(member, NEW, "3.6.0");
    }
    // All of them, so that no leader remembers how far the third had come.
    cluster.members.iter_mut().for_each(|member| assert!(member.stop().success()));
    std::fs::remove_dir_all(&data).expect("removed");
    copy(&kept, &data);
    cluster.members[..2].iter_mut().for_each(Server::launch);
    cluster.members[..2].iter_mut().for_each(Server::wait_until_ready);
    let log = refused(&mut cluster.members[2], OLD);
    assert!(log.contains("raft has failed; ending the process"), "it had started: {log}");
    assert!(log.contains("this server has version 3.5.0, which is lower than the cluster's, 3.6.0"), "{log}");
    cluster.members[2].unset_env("FAILPOINTS");
    cluster.run();
    cluster.agree();
}

/// Asks something of `member`, as a peer of this version does.
fn asked_by(version: &str, member: &Server) -> Answer<()> {
    let own = cluster::status(&member.api()).expect("it serves").header.expect("a header");
    let mut request = Request::new(HashKeysRequest { revision: 0 });
    let metadata = request.metadata_mut();
    for (key, id) in [("etcfs-cluster", own.cluster_id), ("etcfs-from", 1), ("etcfs-to", own.member_id)] {
        metadata.insert(key, format!("{id:016x}").parse().expect("ASCII"));
    }
    metadata.insert("etcfs-version", version.parse().expect("ASCII"));
    let peers = Api::to(&member.peer_endpoint());
    peers.wait(ErrandsClient::new(peers.channel()).hash_keys(request)).map(drop)
}

/// It can't know all that is said among the others, and is believed nothing.
#[test]
fn a_peer_below_the_clusters_version_is_refused() {
    let mut cluster = Cluster::prepared(Kind::Etcfs, 1, &[]);
    claim(&mut cluster.members[0], OLD);
    cluster.run();
    comes_to_tell(&cluster.members[0], OLD, "3.5.0");
    asked_by("3.5.0", &cluster.members[0]).expect("it is as old as the cluster");
    assert!(cluster.members[0].stop().success());
    cluster.members[0].unset_env("FAILPOINTS");
    cluster.run();
    let member = &cluster.members[0];
    comes_to_tell(member, NEW, "3.6.0");
    for version in ["3.6.0", "3.7.0"] {
        asked_by(version, member).expect("it knows all that is said");
    }
    for (version, reason) in [
        ("3.5.0", "this server has version 3.5.0, which is lower than the cluster's, 3.6.0"),
        ("none", "the call does not say which member it is from, of which version"),
    ] {
        let refused = asked_by(version, member).expect_err("it is too old");
        assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
        assert!(refused.message().contains(reason), "{refused}");
    }
    let log = member.log();
    assert!(log.contains("refused a peer whose version is lower than the cluster's"), "{log}");
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("--archive").args([from, to]).status().expect("cp");
    assert!(copied.success());
}

/// A member that has nothing yet asks the others for the cluster's version.
#[test]
fn a_member_too_old_for_a_cluster_can_not_join_it() {
    let mut cluster = Cluster::prepared(Kind::Etcfs, 3, &[]);
    for nth in 0..2 {
        cluster.members[nth].launch();
    }
    for nth in 0..2 {
        cluster.members[nth].wait_until_ready();
    }
    // One founder is missing: it may be as old as any that these work with.
    comes_to_tell(&cluster.members[0], NEW, "3.5.0");
    let log = refused(&mut cluster.members[2], "3.4.30");
    assert!(log.contains("invalid downgrade; this server has version 3.4.0"), "{log}");
    cluster.members[2].unset_env("FAILPOINTS");
    cluster.run();
    for member in &cluster.members {
        comes_to_tell(member, NEW, "3.6.0");
    }
}
