//! `etcfs run`: a command after changes, at least once for each, and no oftener than it has to.

use std::{path::Path, time::Duration};

use etcfs_tests::{
    command::{Client, Followed},
    server::{Kind, Server},
    wait,
};

/// So long it has to stay quiet where nothing should run.
const QUIET: Duration = Duration::from_millis(500);

fn read(file: &Path) -> String {
    std::fs::read_to_string(file).unwrap_or_default()
}

fn stage(kind: Kind) -> (Server, Client) {
    let server = Server::start(kind);
    let client = Client::etcfs(&server.endpoint());
    (server, client)
}

fn changes_that_come_together_make_one_run(kind: Kind) {
    let (server, client) = stage(kind);
    let api = server.api();
    let say = ["--", "sh", "-c", "echo $ETCFS_RUN_REVISION"];
    let flags = ["run", "--prefix", "--debounce=300ms", "--first", "/a/"];
    let mut runs = client.follow(flags.iter().chain(&say));
    runs.expect(&["0"]);
    for number in 0..10 {
        api.set(&format!("/a/{number}"), "x");
    }
    api.set("/b", "not meant");
    runs.expect(&["11"]);
    runs.expect_silence(QUIET);
    client.run(["del", "/a/3"]).ok();
    runs.expect(&["13"]);
}

fn a_command_that_fails_runs_again(kind: Kind) {
    let (server, client) = stage(kind);
    let tries = server.scratch().join("tries");
    let script = format!("echo try >> {0}; test $(wc -l < {0}) -ge 2 && echo good", tries.display());
    let mut runs = client.follow(["run", "k", "--first", "--", "sh", "-c", &script]);
    runs.expect(&["good"]);
    assert_eq!(read(&tries), "try\ntry\n");
}

/// With a state file nothing is missed while nobody watches, compacted or not.
fn what_was_missed_is_made_up_for(kind: Kind) {
    let (server, client) = stage(kind);
    let api = server.api();
    let state = server.scratch().join("state");
    let start = || -> Followed {
        let flags = ["run", "--state", state.to_str().expect("a plain path"), "k"];
        client.follow(flags.iter().chain(&["--", "sh", "-c", "echo $ETCFS_RUN_REVISION"]))
    };
    let runs = start();
    wait::until_true("the place is known", || read(&state) == "1\n");
    drop(runs);
    api.set("k", "1");
    let mut runs = start();
    runs.expect(&["2"]);
    wait::until_true("the run is remembered", || read(&state) == "2\n");
    drop(runs);
    let mut runs = start();
    runs.expect_silence(QUIET);
    drop(runs);
    api.set("k", "2");
    api.set("other", "x");
    client.run(["compaction", "4"]).ok();
    let mut runs = start();
    runs.expect(&["3"]);
    api.set("k", "3");
    runs.expect(&["5"]);
}

on_both! {
    changes_that_come_together_make_one_run
    a_command_that_fails_runs_again
    what_was_missed_is_made_up_for
}
