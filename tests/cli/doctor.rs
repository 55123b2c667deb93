//! `etcfs doctor` finds what is wrong and says what to do about it; `etcfs check` whether a load is borne.

use etcfs_tests::{
    command::Client,
    mount::Mount,
    server::{Kind, Server},
};

#[test]
fn a_sound_server_is_found_sound() {
    for kind in [Kind::Etcfs, Kind::Etcd] {
        let server = Server::start(kind);
        let told = Client::etcfs(&server.endpoint()).run(["doctor"]).stdout;
        for line in
            [" answers: member ", " leads", "no alarm stands", "a confirmed read takes", "/dev/fuse is there"]
        {
            assert!(told.contains(line), "{line:?} is not in {told}");
        }
        // Those of other tests, which end as they like, are seen as well.
        let failed = told.lines().find(|line| line.contains("FAIL") && !line.contains("the mount "));
        assert_eq!(failed, None, "{told}");
    }
}

/// What root mounts has another name in the mount table than what others mount; it was not seen.
#[test]
fn mounts_of_whoever_runs_it_are_found_and_asked() {
    let server = Server::start(Kind::Etcfs);
    let mut mount = Mount::root(&server.endpoint());
    let shown = mount.path().display().to_string();
    let told = Client::etcfs(&server.endpoint()).run(["doctor"]).stdout;
    assert!(told.contains(&format!("the mount {shown} answers")), "{told}");
    mount.kill();
    let told = Client::etcfs(&server.endpoint()).run(["doctor"]);
    assert!(told.stdout.contains(&format!("FAIL  the mount {shown} does not work")), "{told:?}");
    assert_eq!(told.code, 1);
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

#[test]
fn memory_for_many_keys_is_told_and_nothing_left_behind() {
    for kind in [Kind::Etcfs, Kind::Etcd] {
        let server = Server::start(kind);
        let client = Client::etcfs(&server.endpoint());
        let told = client.run(["check", "datascale", "--load=s", "--auto-compact"]).ok();
        let first = "Start data scale check for work load [10000 key-value pairs, 1024 bytes per key-value, 50 concurrent clients].";
        assert_eq!(told.lines().next(), Some(first));
        let megabytes: f64 = told
            .lines()
            .find_map(|line| {
                line.strip_prefix("PASS: Approximate system memory used : ")?.strip_suffix(" MB.")
            })
            .and_then(|number| number.parse().ok())
            .expect("a number");
        assert!(megabytes > 1.0, "{told}");
        assert!(server.api().all("/etcdctl-check-datascale/").is_empty());
        server.api().set("/etcdctl-check-datascale/mine", "x");
        assert_eq!(client.run(["check", "datascale"]).code, 3);
    }
}

/// As etcdctl 3.6 has it; Debian's is older and can't be asked.
#[test]
fn a_downgrade_is_asked_for_and_taken_back() {
    let server = Server::start(Kind::Etcfs);
    let client = Client::etcfs(&server.endpoint());
    let run = |line: &str| client.run(line.split(' '));
    assert_eq!(run("downgrade validate 3.5.0").ok(), "Downgrade validate success, cluster version 3.6.0\n");
    assert_eq!(run("downgrade enable 3.5").ok(), "Downgrade enable success, cluster version 3.6.0\n");
    assert!(run("downgrade enable 3.5").failed().contains("downgrade job in progress"));
    assert_eq!(run("downgrade cancel").ok(), "Downgrade cancel success, cluster version 3.6.0\n");
    assert!(run("downgrade cancel").failed().contains("no inflight downgrade job"));
    assert!(run("downgrade validate 3.4.0").failed().contains("invalid downgrade target version"));
    assert!(run("downgrade validate x").failed().contains("wrong downgrade target version format"));
    assert_eq!(run("downgrade validate").code, 128);
    assert_eq!(run("downgrade enable").code, 128);
}
