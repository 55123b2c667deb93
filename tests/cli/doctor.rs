//! `etcfs doctor` finds what is wrong and says what to do about it; `etcfs check` whether a load is borne.

use etcfs_tests::{
    command::Client,
    server::{Kind, Server},
};

#[test]
fn a_sound_server_is_found_sound() {
    for kind in [Kind::Etcfs, Kind::Etcd] {
        let server = Server::start(kind);
        let told = Client::etcfs(&server.endpoint()).run(["doctor"]).ok();
        for line in
            [" answers: member ", " leads", "no alarm stands", "a confirmed read takes", "/dev/fuse is there"]
        {
            assert!(told.contains(line), "{line:?} is not in {told}");
        }
        assert!(!told.contains("FAIL"), "{told}");
    }
}

#[test]
fn an_endpoint_that_does_not_answer_is_a_failure() {
    let server = Server::start(Kind::Etcfs);
    let both = format!("{},127.0.0.1:1", server.endpoint());
    let told = Client::etcfs(&both).run(["doctor"]);
    assert_eq!(told.code, 1, "{told:?}");
    assert!(told.stdout.contains("FAIL  127.0.0.1:1 does not answer"), "{told:?}");
    assert!(told.stdout.contains("-> is a server running there?"), "{told:?}");
}

#[test]
fn two_clusters_are_told_apart() {
    let servers = [Server::start(Kind::Etcfs), Server::start(Kind::Etcd)];
    let both = format!("{},{}", servers[0].endpoint(), servers[1].endpoint());
    let told = Client::etcfs(&both).run(["doctor"]);
    assert!(told.stdout.contains("FAIL  the endpoints belong to several clusters"), "{told:?}");
}

#[test]
fn a_load_is_checked_and_leaves_nothing_behind() {
    for kind in [Kind::Etcfs, Kind::Etcd] {
        let server = Server::start(kind);
        let client = Client::etcfs(&server.endpoint());
        // Whether it passes is this machine's affair; that it is judged, and cleaned up after, is not.
        let told = client.run(["check", "perf", "--duration=1s", "--auto-compact"]);
        assert!(told.stdout.contains("Throughput"), "{told:?}");
        assert!(told.stdout.ends_with("\nPASS\n") == (told.code == 0), "{told:?}");
        assert!(server.api().all("/etcdctl-check-perf/").is_empty());
        server.api().set("/etcdctl-check-perf/mine", "x");
        let refused = client.run(["check", "perf", "--duration=1s"]);
        assert_eq!(refused.code, 3, "{refused:?}");
        assert_eq!(server.api().value("/etcdctl-check-perf/mine").as_deref(), Some("x"));
    }
}
