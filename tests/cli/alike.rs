//! `etcfs` prints what `etcdctl` prints, byte for byte, and fails as it fails:
//! people's scripts read it. On our server and on etcd itself.

use etcfs_tests::{
    api::{grant, put, put_on_lease},
    command::Client,
    server::{Kind, Options, Server},
    wait,
};

/// A store with something of everything in it, and both clients of it.
struct Both {
    _server: Server,
    etcdctl: Client,
    etcfs: Client,
}

impl Both {
    fn on(kind: Kind) -> Self {
        let server = Server::start(kind);
        let api = server.api();
        for key in ["a", "b", "c/1", "c/2", "c/3"] {
            api.set(key, format!("value of {key}"));
        }
        api.set("a", "newer");
        api.set("\u{1}odd\n", "\u{7f}\nx");
        let id = api.grant(grant(5000)).expect("a lease is granted").id;
        api.put(put_on_lease("leased", "v", id)).expect("a put is accepted");
        let endpoint = server.endpoint();
        Self { _server: server, etcdctl: Client::etcdctl(&endpoint), etcfs: Client::etcfs(&endpoint) }
    }

    /// Runs each command with both clients and compares output and success.
    #[track_caller]
    fn check(&self, commands: &[&str]) {
        for command in commands {
            let theirs = self.etcdctl.run(command.split(' '));
            let ours = self.etcfs.run(command.split(' '));
            if theirs.code == 0 {
                assert_eq!(ours.stdout, theirs.stdout, "`{command}` prints");
            }
            assert_eq!(ours.code == 0, theirs.code == 0, "`{command}`: {ours:?} and etcdctl {theirs:?}");
        }
    }
}

macro_rules! subjects {
    ($($name:ident: $commands:expr;)*) => {
        $(
            mod $name {
                use super::*;

                #[test]
                fn on_etcfsd() { Both::on(Kind::Etcfs).check(&$commands) }
                #[test]
                fn on_etcd() { Both::on(Kind::Etcd).check(&$commands) }
            }
        )*
    };
}

subjects! {
    get_is_printed_alike: [
        "get a", "get nothing", "get --prefix c/", "get --prefix c/ --limit=2", "get a c/2", "get --from-key b",
        "get --prefix c/ --keys-only", "get --prefix c/ --print-value-only", "get a --rev=2", "get a --hex",
        "get --prefix c/ --order=DESCEND", "get --prefix c/ --sort-by=VALUE --order=DESCEND",
        "get --prefix c/ --order=DESCEND --sort-by=MODIFY", "get --consistency=s a", "get --prefix= ",
    ];
    get_is_printed_alike_in_every_format: [
        "get a -w json", "get --prefix c/ -w json", "get nothing -w json", "get a -w fields", "get leased -w fields",
        "get --prefix c/ -w fields", "get --prefix= -w json", "get --prefix c/ --hex",
    ];
    failures_are_failures_alike: [
        "get", "put a", "get --rev=999 a", "lease revoke 1234", "lease timetolive 1234",
        "compaction 999", "compaction x", "put --lease=77 a b", "nonsense", "get --prefix --from-key a",
    ];
    leases_and_members_are_printed_alike: [
        "lease list", "lease list -w json", "member list", "member list -w json", "member list -w fields",
        "member list -w table", "defrag --cluster", "lease timetolive 1234 -w json", "lease timetolive 1234 -w fields",
    ];
}

/// As bytes, which are no text. (Of a list of leases etcdctl gives the header alone.)
fn protobuf_is_the_same(kind: Kind) {
    let both = Both::on(kind);
    for command in ["get a", "get --prefix c/", "get nothing", "put a x --prev-kv", "del nothing"] {
        let bytes = |client: &Client| client.run_into("od -An -v -tx1", &format!("{command} -w protobuf"));
        let (theirs, ours) = (bytes(&both.etcdctl), bytes(&both.etcfs));
        if !command.starts_with("put") {
            assert_eq!(ours, theirs, "`{command}`");
        }
        assert!(!theirs.trim().is_empty() && !ours.trim().is_empty(), "`{command}`");
    }
}

fn what_is_left_of_a_lease_is_printed_alike(kind: Kind) {
    let both = Both::on(kind);
    let list = both.etcfs.run(["lease", "list"]).ok();
    let id = list.lines().nth(1).expect("a lease");
    for format in ["simple", "json", "fields"] {
        for keys in ["--keys=false", "--keys"] {
            let left = |client: &Client| client.run(["lease", "timetolive", id, keys, "-w", format]).ok();
            let mut last = (String::new(), String::new());
            // A second may end between two looks.
            let alike = wait::poll(wait::PATIENCE, || {
                last = (left(&both.etcdctl), left(&both.etcfs));
                last.0 == last.1
            });
            assert!(alike, "{format} {keys}: {last:?}");
        }
    }
}

fn an_alarm_is_printed_alike_and_disarmed(kind: Kind) {
    let args = vec!["--quota-backend-bytes=3000000".to_owned()];
    let server = Server::with(kind, Options { args, ..Options::default() });
    let api = server.api();
    // By little pieces: below 95 % of the quota etcfsd clears the alarm by itself.
    let full = (0..1000).any(|number| api.put(put(&format!("k{number}"), vec![7; 20_000])).is_err());
    assert!(full, "the quota is reached");
    let (etcdctl, etcfs) = (Client::etcdctl(&server.endpoint()), Client::etcfs(&server.endpoint()));
    for command in ["alarm list", "alarm list -w json", "alarm list -w fields"] {
        let (ours, theirs) = (etcfs.run(command.split(' ')).ok(), etcdctl.run(command.split(' ')));
        assert!(ours.contains("NOSPACE") || ours.contains("\"alarm\":1"), "{ours}");
        // Without a header, which etcd leaves out, it panics.
        if theirs.code == 0 {
            assert_eq!(ours, theirs.stdout, "`{command}`");
        }
    }
    // That there is room tells etcfsd by itself, and etcd only this.
    etcfs.run(["del", "--prefix", "k"]).ok();
    let disarmed = etcfs.run(["alarm", "disarm"]).ok();
    assert!(disarmed.is_empty() || disarmed.ends_with("alarm:NOSPACE \n"), "{disarmed}");
    if kind == Kind::Etcd {
        assert!(!disarmed.is_empty());
        assert_eq!(etcfs.run(["alarm", "list"]).ok(), "");
    }
}

on_both! {
    an_alarm_is_printed_alike_and_disarmed
    protobuf_is_the_same
    what_is_left_of_a_lease_is_printed_alike
}
