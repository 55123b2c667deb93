//! `etcfs` prints what `etcdctl` prints, byte for byte, and fails as it fails:
//! people's scripts read it.

use etcfs_tests::{
    api::{grant, put_on_lease},
    command::Client,
    server::Server,
};

/// A store with something of everything in it.
fn furnished() -> Server {
    let server = Server::etcfs();
    let api = server.api();
    for key in ["a", "b", "c/1", "c/2", "c/3"] {
        api.set(key, format!("value of {key}"));
    }
    api.set("a", "newer");
    api.set("\u{1}odd\n", "\u{7f}\nx");
    server
}

/// Runs each command with both clients and compares output and success.
#[track_caller]
fn check(server: &Server, commands: &[&str]) {
    let (theirs, ours) = (Client::etcdctl(&server.endpoint()), Client::etcfs(&server.endpoint()));
    for command in commands {
        let (theirs, ours) = (theirs.run(command.split(' ')), ours.run(command.split(' ')));
        assert_eq!(ours.stdout, theirs.stdout, "`{command}` prints");
        assert_eq!(ours.code == 0, theirs.code == 0, "`{command}`: {ours:?} and etcdctl {theirs:?}");
    }
}

#[test]
fn get_is_printed_alike() {
    check(
        &furnished(),
        &[
            "get a",
            "get nothing",
            "get --prefix c/",
            "get --prefix c/ --limit=2",
            "get a c/2",
            "get --from-key b",
            "get --prefix c/ --keys-only",
            "get --prefix c/ --print-value-only",
            "get a --rev=2",
            "get --prefix c/ --order=DESCEND",
            "get --prefix c/ --sort-by=VALUE --order=DESCEND",
            "get --prefix c/ --order=DESCEND --sort-by=MODIFY",
            "get a --hex",
            "get --consistency=s a",
            "get --prefix= --count-only -w fields",
            "get a -w fields",
            "get a b c",
        ],
    );
}

#[test]
fn get_in_json_is_printed_alike() {
    check(
        &furnished(),
        &[
            "get a -w json",
            "get --prefix c/ -w json",
            "get nothing -w json",
            "get --prefix c/ -w json --count-only",
        ],
    );
}

#[test]
fn failures_are_failures_alike() {
    check(
        &furnished(),
        &[
            "get",
            "put a",
            "get --rev=999 a",
            "lease revoke 1234",
            "lease timetolive 1234",
            "compaction 999",
            "compaction x",
            "put --lease=77 a b",
            "nonsense",
            "get --prefix --from-key a",
        ],
    );
}

#[test]
fn leases_and_members_are_printed_alike() {
    let server = furnished();
    let api = server.api();
    let id = api.grant(grant(5000)).expect("a lease is granted").id;
    api.put(put_on_lease("leased", "v", id)).expect("a put is accepted");
    check(&server, &["lease list", "member list", "member list -w json", "endpoint health"]);
}
