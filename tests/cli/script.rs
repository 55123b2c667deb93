//! Scripts written for `etcdctl` run with `etcfs` instead: the same lines, each client on a fresh server of its own,
//! print the same and fail where the other fails.
//!
//! Ids, which no two servers share, are masked. Of a failure the exit code counts and not the words: ours say more.
//! In the end both servers have the same keys. What differs on purpose is in [`DIFFERENT`], and under STANDARDS in
//! etcfs(1).

use etcfs_tests::{
    command::Client,
    server::{Kind, Server},
    wait,
};

/// Digits of the shortest number that is taken for an id.
const ID_DIGITS_MIN: usize = 10;

/// Lines that end otherwise on purpose, with the exit codes of etcdctl 3.4 and of ours.
const DIFFERENT: [(&str, i32, i32); 12] = [
    // It takes the first two words and passes over the third.
    ("get a b c", 0, 128),
    // New in etcdctl 3.5.
    ("get --prefix '' --count-only -w json", 1, 0),
    // It panics.
    ("txn < mod(\"a\") ? \"0\"\n\n\n", 2, 3),
    // It shows how the command is used, and calls that a success.
    ("lease", 0, 1),
    ("lease nonsense", 0, 1),
    ("endpoint nonsense", 0, 1),
    ("alarm nonsense", 0, 1),
    ("member nonsense", 0, 1),
    ("auth nonsense", 0, 1),
    ("user nonsense", 0, 1),
    ("role nonsense", 0, 1),
    ("check nonsense", 0, 1),
];

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
        if let Some((_, theirs, ours)) = DIFFERENT.iter().find(|(different, ..)| different == line) {
            assert_eq!((their_code, our_code), (*theirs, *ours), "exit codes of `{line}`");
            continue;
        }
        assert_eq!(our_code, their_code, "exit code of `{line}` (it printed {our_output})");
        // What is asked of who types is printed before anything can fail.
        if their_code == 0 || line.starts_with("txn -i") {
            assert_eq!(masked(&our_output, &ours), masked(&their_output, &theirs), "`{line}` prints");
        }
    }
    assert_eq!(key_space(&ours), key_space(&theirs), "the keys in the end");
}

/// Lines to which etcdctl is answered otherwise by etcfsd than by etcd 3.4: with the same exit code, and other words.
const ANSWERED_OTHERWISE: [&str; 5] = [
    // 3.6 has a header there, which 3.4 forgot.
    "alarm list -w json",
    // The version, and sizes and indexes of the server's own.
    "endpoint status",
    // Of rows as the server keeps them.
    "endpoint hashkv",
    "endpoint hashkv -w json",
    // It tells its progress, and how much memory was used.
    "check datascale",
];

/// What the scripts below leave out, for `etcfs` has it otherwise or not at all. `check perf` has a test of its own.
const THE_REST: [&str; 24] = [
    "put a 1",
    "endpoint health",
    "endpoint status",
    "endpoint hashkv",
    "endpoint hashkv -w json",
    "version",
    "member list",
    "member list -w json",
    "watch a --rev=x",
    "make-mirror",
    "snapshot status",
    "snapshot restore",
    "snapshot save",
    "defrag",
    "elect",
    "migrate",
    "help",
    "get --help",
    "completion bash",
    "completion zsh",
    "completion fish",
    "completion powershell",
    "check datascale",
    "check perf --load=nonsense",
];

/// Runs a script with etcdctl on both kinds of servers and compares line by line.
#[track_caller]
fn check_servers(script: &[&str]) {
    let (theirs, ours) = (Server::etcd(), Server::etcfs());
    let mut differences = Vec::new();
    for line in script {
        let (their_code, their_output) = run(&Client::etcdctl(&theirs.endpoint()), line);
        let (our_code, our_output) = run(&Client::etcdctl(&ours.endpoint()), line);
        let shown = |output: &str, server: &Server| without_term(&masked(output, server));
        let alike = shown(&our_output, &ours) == shown(&their_output, &theirs);
        if our_code != their_code || !(alike || ANSWERED_OTHERWISE.contains(line)) {
            let codes = (their_code, our_code);
            differences.push(format!("`{line}`: {codes:?}\n{their_output}\n{our_output}"));
        }
    }
    assert!(differences.is_empty(), "etcd, then etcfsd:\n{}", differences.join("\n"));
    assert_eq!(key_space(&ours), key_space(&theirs), "the keys in the end");
}

/// The same without terms, which count a server's own elections.
fn without_term(output: &str) -> String {
    let mut out = output.to_owned();
    for mark in ["\"raft_term\":", "\"RaftTerm\" : "] {
        let parts: Vec<_> =
            out.split(mark).map(|part| part.trim_start_matches(|c: char| c.is_ascii_digit())).collect();
        out = parts.join(mark);
    }
    out
}

#[test]
fn the_rest_of_etcdctl_on_both() {
    check_servers(&THE_REST);
}

/// For a minute, and at the same time. Whether a load is borne is this machine's affair; that it is asked for, judged
/// and cleaned up after alike, is not.
#[test]
fn the_load_of_etcdctls_check_on_both() {
    let servers = [Server::etcd(), Server::etcfs()];
    let checks = servers.each_ref().map(|server| {
        let client = Client::etcdctl(&server.endpoint());
        std::thread::spawn(move || run(&client, "check perf"))
    });
    for check in checks {
        let (code, output) = check.join().expect("a check does not panic");
        for judged in ["Throughput ", "Slowest request took ", "Stddev "] {
            assert!(output.lines().any(|line| line.contains(judged)), "{judged}: {output}");
        }
        let verdict = if code == 0 { "PASS" } else { "FAIL" };
        assert_eq!(output.lines().last(), Some(verdict), "{code}: {output}");
    }
    for server in servers {
        assert_eq!(server.api().all("/etcdctl-check-perf/"), []);
    }
}

#[test]
fn every_command_of_etcdctl_is_in_a_script() {
    let help = Client::etcdctl("127.0.0.1:1").run(["help"]).ok();
    let (_, commands) = help.split_once("COMMANDS:").expect("it lists its commands");
    let (commands, _) = commands.split_once("OPTIONS:").expect("and then its options");
    let commands: Vec<_> = commands
        .lines()
        .filter_map(|line| line.trim().split('\t').next())
        .filter(|name| !name.is_empty())
        .collect();
    assert!(commands.len() > 45, "{commands:?}");
    let lines = [scripted(), THE_REST.to_vec()].concat();
    let lacks = |name: &&&str| {
        !lines.iter().any(|line| {
            line.strip_prefix(**name).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
        })
    };
    assert_eq!(commands.iter().filter(lacks).collect::<Vec<_>>(), [&""; 0]);
}

/// All that a server holds, a line a key, but for the ids of leases.
fn key_space(server: &Server) -> Vec<String> {
    let shown = |kv: &etcfs_proto::mvccpb::KeyValue| {
        let (created, changed, version, leased) =
            (kv.create_revision, kv.mod_revision, kv.version, kv.lease != 0);
        format!("{:?} = {:?} {created} {changed} {version} {leased}", kv.key, kv.value)
    };
    server.api().all("").iter().map(shown).collect()
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
                #[test]
                fn of_etcdctl_on_both() { check_servers(&$script) }
            }
        )*

        /// The lines of all of them.
        fn scripted() -> Vec<&'static str> {
            [$(&$script[..]),*].concat()
        }

        #[test]
        fn there_are_as_many_as_were_promised() {
            let invocations = 0 $(+ $script.len())*;
            assert!(invocations >= 150, "{invocations}");
        }
    };
}

scripts! {
    keys_are_put: [
        "put a 1", "put b 2", "put c/1 x", "put c/2 y", "put d", "put e < typed", "put", "put a b c", "put a 2 --prev-kv",
        "put a 3 --prev-kv -w json", "put a 4 --prev-kv -w fields", "put new --ignore-value", "put a --ignore-value",
        "put a 5 --ignore-lease", "put new 1 --ignore-lease", "put a 6 --ignore-value", "put k v --lease=1234",
        "put k v --lease=zz", "put k v -w nonsense", "put k v --nonsense", "put -- -k -v", "put '' x", "put k ''",
    ];
    keys_are_read: [
        "put a 1", "put b 2", "put c/1 z", "put c/2 y", "put c/3 x", "put a 2", "get a", "get nothing", "get", "get a b c",
        "get a c", "get a c/2 -w json", "get a -w json", "get a -w fields", "get a --hex", "get a --print-value-only",
        "get --prefix c/", "get --prefix c/ --keys-only", "get --prefix c/ --print-value-only", "get --from-key b",
        "get --prefix ''", "get --prefix '' --keys-only", "get --prefix '' --limit=2 -w json",
        "get --prefix c/ --sort-by=VALUE", "get --prefix c/ --sort-by=VALUE --order=DESCEND",
        "get --prefix '' --sort-by=MODIFY", "get --prefix '' --sort-by=CREATE --order=DESCEND",
        "get --prefix '' --sort-by=VERSION", "get --prefix '' --sort-by=KEY --order=DESCEND", "get a --sort-by=NONSENSE",
        "get a --order=SIDEWAYS", "get a --rev=2", "get a --rev=9999", "get a --rev=x", "get a --consistency=s",
        "get a --consistency=x", "get a --prefix --from-key", "get a -w table", "get a -w nonsense", "get a --nonsense",
        "get --prefix '' --count-only -w json", "get a --keys-only -w json", "get --prefix=false c/", "get a b --from-key",
    ];
    keys_are_deleted: [
        "put a 1", "put b 2", "put c/1 x", "put c/2 y", "put c/3 y", "put z 9", "del nothing", "del c/1", "del c/2 --prev-kv",
        "del --prefix c/ -w json", "del a --prev-kv -w json", "del a c -w fields", "del --from-key y", "del",
        "del a --prefix --from-key", "del a b c", "del a -w table", "get --prefix ''",
    ];
    transactions_are_taken_from_standard_input: [
        "put a 1",
        "txn < mod(\"a\") > \"0\"\n\nput t 1\nget t\n\nput t 2\n",
        "txn < value(\"a\") = \"2\"\n\nput t 3\n\nput t 4\nget --prefix t\n",
        "txn -w json < create(\"none\") = \"0\"\n\nput none 1\n\nget none\n",
        "txn -w fields < ver(\"a\") = \"1\"\n\ndel a\n\nget a\n",
        "txn < \n\nput u 1\n\n", "txn < nonsense\n\n\n", "txn < mod(\"a\") ? \"0\"\n\n\n",
        "txn < \n\nput u 1\nput u 2\n\n", "txn words",
    ];
    transactions_are_asked_for_list_by_list: [
        "put a 1", "txn -i < mod(\"a\") > \"0\"\n\nput t 1\nget t\n\nput t 2\n",
        "txn --interactive -w json < mod(\"a\") = \"0\"\n\nput t 3\n\nput t 4\nget t\n",
        "txn -i=false < \nget a\n\n", "txn -i < \n put  \"a b\"   c  \n get \"a b\"  \n\n", "txn -i < \n  \t\n\n",
        "txn -i < \n\n\nput trailing 1", "txn -i < \nput u 1\n", "txn -i < nonsense\n\n", "txn -i < \nnonsense\n", "txn -i",
        "txn -i < \n\nput x\n", "get --prefix ''",
    ];
    leases_are_asked_for: [
        "lease grant 600", "lease grant", "lease grant x", "lease list", "lease list -w json", "lease timetolive 1234",
        "lease timetolive zz", "lease timetolive", "lease revoke 1234", "lease revoke zz", "lease revoke",
        "lease keep-alive --once 1234", "lease keep-alive", "lease keep-alive zz", "lease", "lease nonsense",
    ];
    history_is_given_up: [
        "put a 1", "put a 2", "put a 3", "put a 4", "compaction 3", "compaction 3", "compaction 9999", "compaction x",
        "compaction", "get a --rev=2", "get a --rev=4", "compaction 4 --physical", "compaction 5 6", "get a",
    ];
    what_is_not_understood_is_refused: [
        "nonsense", "--nonsense get a", "endpoint nonsense", "alarm nonsense", "member nonsense", "watch",
        "snapshot save", "make-mirror", "auth nonsense", "user nonsense", "role nonsense", "check nonsense", "defrag",
        "move-leader 1 2", "elect a b c",
    ];
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
        "user passwd u1 --interactive=false < pw2", "user list --user u1 --password pw2", "user delete u2", "user delete u2", "user list",
    ];
    authentication_goes_on_and_off: [
        "auth enable", "user add root:rt", "user grant-role root root", "role add root",
        "user grant-role root root", "put a b", "auth enable", "get a", "auth disable", "user list", "--user root --password rt user list",
        "--user root --password wrong user list", "--user root:rt auth disable",
    ];
    locks_and_elections_are_asked_for_alike: [
        "lock mine echo held", "lock mine true", "lock", "get --prefix mine", "elect", "elect e", "elect e v -l",
    ];
    members_are_known_by_id: [
        "member remove 1234", "member remove xyz", "member remove", "member update 1234", "member update",
        "member update 1234 --peer-urls http://127.0.0.1:1", "member promote 1234", "member add", "member add x",
        "move-leader xyz", "move-leader",
    ];
    the_begin_of_a_command_is_enough: [
        "put a 1", "pu a 2", "put a 3", "g a", "compact 2", "mem list", "end health --cluster=false -w nonsense",
        "lease time 1234", "lease gr 600", "lease gr 600 -w fields", "lease gr 600 -w json", "snap save", "lease rev 1234", "r add r", "role grant r read k",
        "u add u:p", "u grant u r", "user get u", "w", "mo xyz", "def --cluster", "t < \n\npu b 1\n\n\n", "get b",
        "m list",
    ];
    options_are_read_as_go_reads_them: [
        "put a 1", "put b 2", "get --prefix=1 ''", "get --prefix=T '' --keys-only=TRUE", "get --prefix=yes ''",
        "get --prefix --prefix=0 ''", "get a --hex=t --hex=F", "get --prefix '' --limit=1 --limit=2",
        "get a -w fields -w json", "put c 3 --prev-kv=False", "del --from-key=f c", "get a --rev=1 --rev=2",
    ];
    options_of_a_lock_may_follow_its_name: [
        "lock mine --ttl 5 true", "lock mine --ttl=5 -w json true", "lock mine --ttl 5 -- sh -c echo",
        "lock mine --ttl x true", "lock mine --nonsense true", "get --prefix mine",
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
