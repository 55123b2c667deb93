//! Scripts written for `etcdctl` run with `etcfs` instead: the same lines, each client on a fresh server of its own,
//! print the same and fail where the other fails.
//!
//! Ids, which no two servers share, are masked. Of a failure the exit code counts and not the words: ours say more.

use etcfs_tests::{
    command::Client,
    server::{Kind, Server},
    wait,
};

/// Digits of the shortest number that is taken for an id.
const ID_DIGITS_MIN: usize = 10;

/// A line of a script: arguments, parted by blanks, and behind ` < ` what is typed.
fn run(client: &Client, line: &str) -> (i32, String) {
    let (arguments, input) = line.split_once(" < ").unwrap_or((line, ""));
    let typed = if input.is_empty() { String::new() } else { format!("{input}\n") };
    // A script that wants an empty word writes it as two quotes.
    let words = arguments.split(' ').map(|word| if word == "''" { "" } else { word });
    let output = client.run_with(words, typed.as_bytes());
    (output.code, output.stdout)
}

/// The same with ids and addresses replaced.
fn masked(output: &str, server: &Server) -> String {
    let output = output.replace(&server.endpoint(), "CLIENTS").replace(&server.peer_endpoint(), "PEERS");
    let mut out = String::new();
    let mut digits = String::new();
    for c in output.chars().chain(['\n']) {
        if c.is_ascii_hexdigit() {
            digits.push(c);
            continue;
        }
        out.push_str(if digits.len() >= ID_DIGITS_MIN { "ID" } else { &digits });
        digits.clear();
        out.push(c);
    }
    out
}

/// Runs a script with both clients and compares line by line.
#[track_caller]
fn check(kind: Kind, script: &[&str]) {
    let (theirs, ours) = (Server::start(kind), Server::start(kind));
    let (etcdctl, etcfs) = (Client::etcdctl(&theirs.endpoint()), Client::etcfs(&ours.endpoint()));
    for line in script {
        let (their_code, their_output) = run(&etcdctl, line);
        let (our_code, our_output) = run(&etcfs, line);
        assert_eq!(our_code, their_code, "exit code of `{line}` (it printed {our_output})");
        if their_code == 0 {
            assert_eq!(masked(&our_output, &ours), masked(&their_output, &theirs), "`{line}` prints");
        }
    }
}

macro_rules! scripts {
    ($($name:ident: $script:expr;)*) => {
        $(
            mod $name {
                use super::*;

                #[test]
                fn on_etcfsd() { check(Kind::Etcfs, &$script) }
                #[test]
                fn on_etcd() { check(Kind::Etcd, &$script) }
            }
        )*
    };
}

scripts! {
    roles_are_made_and_shown: [
        "role add r1", "role add r1", "role add r2 -w json", "role add r3 -w fields", "role add",
        "role grant-permission r1 readwrite a b", "role grant-permission r1 read /x/ --prefix",
        "role grant-permission r1 write z --from-key", "role grant-permission r1 READ k",
        "role grant-permission r1 read '' --prefix", "role grant-permission r1 bad k",
        "role grant-permission r1 read", "role grant-permission r1 read a b --prefix",
        "role grant-permission nobody read a", "role get r1", "role get r1 -w json", "role get r1 -w fields",
        "role get nobody", "role list", "role list -w json", "role list -w fields",
        "role revoke-permission r1 a b", "role revoke-permission r1 k", "role revoke-permission r1 nothing",
        "role revoke-permission r1 /x/ --prefix", "role revoke-permission r1 z --from-key", "role get r1",
        "role delete r2", "role delete r2", "role list",
    ];
    users_are_made_and_shown: [
        "user add u1:pw", "user add u1:pw", "user add u2 --new-user-password pw", "user add u3 --no-password",
        "user add u4 --interactive=false < pw", "user add u5:x -w json", "user add u6:x -w fields", "user add",
        "role add r1", "role grant-permission r1 read k", "user grant-role u1 r1", "user grant-role u1 nobody",
        "user grant-role u1", "user get u1", "user get u1 --detail", "user get u1 -w json", "user get nobody",
        "user list", "user list -w json", "user revoke-role u1 r1", "user revoke-role u1 r1",
        "user passwd u1 --interactive=false < pw2", "user delete u2", "user delete u2", "user list",
    ];
    authentication_goes_on_and_off: [
        "auth enable", "user add root:rt", "user grant-role root root", "role add root",
        "user grant-role root root", "put a b", "auth enable", "get a", "auth disable", "user list",
    ];
    locks_and_elections_are_asked_for_alike: [
        "lock mine echo held", "lock mine true", "lock", "get --prefix mine", "elect", "elect e", "elect e v -l",
    ];
    members_are_known_by_id: [
        "member remove 1234", "member remove xyz", "member remove", "member update 1234", "member update",
        "member update 1234 --peer-urls http://127.0.0.1:1", "member promote 1234", "member add", "member add x",
        "move-leader xyz", "move-leader",
    ];
    alarms_are_listed: ["alarm list", "alarm disarm", "alarm list -w json"];
}

#[test]
fn snapshots_and_defragmentation_on_etcd() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("snapshot").display().to_string();
    let script = [
        &format!("snapshot save {file}")[..],
        "snapshot save",
        "snapshot save /nowhere/x",
        "defrag",
        "put a b",
    ];
    check(Kind::Etcd, &script);
}

/// The new member's id decides where it stands in a list, so its lines are compared word by word, in any order.
#[test]
fn a_member_is_added_and_removed_on_etcd() {
    // An id with a zero in front is padded with a blank, so blanks part words too.
    let words = |output: &str| {
        let ends = |c: char| c.is_whitespace() || [',', '"', '{', '}', '[', ']'].contains(&c);
        let mut words: Vec<_> =
            output.split(ends).filter(|word| !word.is_empty()).map(str::to_owned).collect();
        words.sort();
        words
    };
    let said = |client: fn(&str) -> Client| {
        let server = Server::etcd();
        let client = client(&server.endpoint());
        let mut said = Vec::new();
        for format in ["simple", "json"] {
            // Until it has been up for some seconds, etcd calls its cluster unhealthy.
            let add = format!("member add new --learner --peer-urls http://127.0.0.1:9 -w {format}");
            let added = wait::until("a member can be added", || {
                let (code, output) = run(&client, &add);
                (code == 0).then_some(output)
            });
            said.push((add, 0, words(&masked(&added, &server))));
            let mut say = |line: String| {
                let (code, output) = run(&client, &format!("{line} -w {format}"));
                said.push((line, code, words(&masked(&output, &server))));
            };
            let id = unstarted(&client);
            say(format!("member promote {id}"));
            say(format!("member update {id} --peer-urls http://127.0.0.1:11"));
            say(format!("member remove {id}"));
        }
        said.into_iter().map(|(line, code, words)| (masked(&line, &server), code, words)).collect::<Vec<_>>()
    };
    assert_eq!(said(Client::etcfs), said(Client::etcdctl));
}

fn unstarted(client: &Client) -> String {
    let (_, list) = run(client, "member list");
    let line = list.lines().find(|line| line.contains("unstarted")).expect("a member that has not started");
    line.split(',').next().unwrap_or_default().to_owned()
}
