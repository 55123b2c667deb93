//! Watches as people and scripts have them: typed, with a command, from the environment, and over a restart.

use std::time::Duration;

use etcfs_tests::{
    api::delete,
    command::Client,
    server::{Kind, Options, Server},
    wait,
};

/// So long nothing may come that nobody asked for.
const QUIET: Duration = Duration::from_millis(200);

const PRINTS: &str =
    r#"echo "$ETCD_WATCH_REVISION $ETCD_WATCH_EVENT_TYPE $ETCD_WATCH_KEY $ETCD_WATCH_VALUE""#;

fn watches_are_typed(kind: Kind) {
    let server = Server::start(kind);
    let api = server.api();
    for client in [Client::etcdctl(&server.endpoint()), Client::etcfs(&server.endpoint())] {
        let mut watch = client.follow_with_input(["watch", "-i"]);
        watch.type_in("watch a\n");
        server.wait_for_watchers(1.0);
        api.set("a", "1");
        watch.expect(&["PUT", "a", "1"]);
        watch.type_in("watch --prefix b/ -- printenv ETCD_WATCH_KEY\n");
        server.wait_for_watchers(2.0);
        api.set("b/1", "x");
        watch.expect(&["PUT", "b/1", "x", "\"b/1\""]);
        api.set("c", "nobody asked");
        watch.expect_silence(QUIET);
        drop(watch);
        wait::until_true("its watchers are gone", || {
            server.metric("etcd_debugging_mvcc_watcher_total") == Some(0.0)
        });
    }
}

/// Both clients, and with the key named in both ways.
fn a_command_runs_for_each_event(kind: Kind) {
    let server = Server::start(kind);
    let api = server.api();
    api.set("k", "v \"1\"");
    api.set("gone", "x");
    api.delete(delete("gone")).expect("a delete is accepted");
    // The revision is that of the answer.
    let put = ["PUT", "k", "v \"1\"", r#"4 "PUT" "k" "v \"1\"""#];
    let deleted = ["DELETE", "gone", "", r#"4 "DELETE" "gone" """#];
    for client in [Client::etcdctl(&server.endpoint()), Client::etcfs(&server.endpoint())] {
        client.follow(["watch", "k", "--rev=2", "--", "sh", "-c", PRINTS]).expect(&put);
        client.follow(["watch", "gone", "--rev=4", "--", "sh", "-c", PRINTS]).expect(&deleted);
        let key = [("ETCDCTL_WATCH_KEY", "k")];
        client.follow_in(&key, ["watch", "--rev=2", "--", "sh", "-c", PRINTS]).expect(&put);
        client.follow_in(&key, ["watch", "--rev=2"]).expect(&put[..3]);
        let range = [("ETCDCTL_WATCH_KEY", "g"), ("ETCDCTL_WATCH_RANGE_END", "h")];
        client.follow_in(&range, ["watch", "--rev=4"]).expect(&deleted[..3]);
    }
    let ours = [("ETCFS_WATCH_KEY", "k"), ("ETCDCTL_WATCH_KEY", "other")];
    let mut watch = Client::etcfs(&server.endpoint()).follow_in(&ours, ["watch", "--rev=2"]);
    watch.expect(&["PUT", "k"]);
}

fn a_restart_of_the_server_loses_and_doubles_nothing(kind: Kind) {
    let mut server = Server::start(kind);
    let mut watch = Client::etcfs(&server.endpoint()).follow(["watch", "--prefix", "n/"]);
    server.wait_for_watchers(1.0);
    for round in 0..3 {
        let api = server.api();
        let numbers = || (0..20).map(|number| format!("n/{round}/{number}"));
        for key in numbers() {
            api.set(&key, "v");
        }
        // Some come before the end, and some after it.
        watch.expect(&["PUT", &format!("n/{round}/0"), "v"]);
        if round % 2 == 0 {
            server.kill();
        } else {
            server.stop();
        }
        server.run();
        server.api().set(&format!("n/{round}/last"), "v");
        for key in numbers().skip(1).chain([format!("n/{round}/last")]) {
            watch.expect(&["PUT", &key, "v"]);
        }
    }
    watch.expect_silence(QUIET);
}

on_both! {
    watches_are_typed
    a_command_runs_for_each_event
    a_restart_of_the_server_loses_and_doubles_nothing
}

#[test]
fn signs_of_life_are_printed_where_they_are_asked_for() {
    let args = vec!["--watch-progress-notify-interval=100ms".to_owned()];
    let server = Server::with(Kind::Etcfs, Options { args, ..Options::default() });
    let revision = server.api().set("other", "x");
    let mut watch = Client::etcfs(&server.endpoint()).follow(["watch", "--progress-notify", "k"]);
    assert_eq!(watch.line(), format!("progress notify: {revision}"));
    drop(watch);
    let mut watch = Client::etcfs(&server.endpoint()).follow_with_input(["watch", "-i"]);
    watch.type_in("watch k\n");
    server.wait_for_watchers(1.0);
    watch.type_in("progress\n");
    assert_eq!(watch.line(), format!("progress notify: {revision}"));
}
