//! The rules of the settings, and that each refusal says what to do.

use std::ffi::OsString;

use super::*;

fn serve(args: &[&str], env: &[(&str, &str)]) -> Result<Config, String> {
    let argv = std::iter::once("etcfsd").chain(args.iter().copied()).map(Into::into);
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    match parse(argv, env) {
        Ok(Invocation::Serve(config)) => Ok(*config),
        Ok(other) => panic!("{other:?}"),
        Err(error) => Err(error.to_string()),
    }
}

fn refused(args: &[&str], wanted: &[&str]) {
    let text = serve(args, &[]).expect_err(&format!("{args:?} was taken"));
    for part in wanted {
        assert!(text.contains(part), "{args:?}: {text}");
    }
}

#[test]
fn defaults_are_etcds() {
    let config = serve(&[], &[]).unwrap();
    assert_eq!(config.name, "default");
    assert_eq!(config.data_dir, PathBuf::from("default.etcd"));
    assert_eq!(config.listen_client[0].to_string(), "http://localhost:2379");
    assert_eq!(config.founders, [founder("default", &["http://localhost:2380"])]);
    assert_eq!(config.quota, Quota::Bytes(2 << 30));
    assert_eq!(config.limits.max_receive_bytes(), 1_572_864 + 524_288);
    assert_eq!(config.min_lease_ttl(), 2);
    assert_eq!(config.request_timeout(), Duration::from_secs(7));
    assert_eq!(config.auto_compaction, None);
    assert_eq!(config.watch_progress_notify_interval, Duration::from_secs(600));
}

#[test]
fn the_shortest_lease_is_one_and_a_half_elections_rounded_up() {
    for (election, ttl) in [("500", 1), ("1000", 2), ("1400", 3), ("2000", 3), ("50000", 75)] {
        let config = serve(&["--election-timeout", election], &[]).unwrap();
        assert_eq!(config.min_lease_ttl(), ttl, "{election}");
    }
}

#[test]
fn a_flag_is_taken_with_one_dash_or_two_and_from_both_environments() {
    assert_eq!(serve(&["-name", "a"], &[]).unwrap().name, "a");
    assert_eq!(serve(&["--name=a"], &[]).unwrap().name, "a");
    assert_eq!(serve(&[], &[("ETCD_NAME", "a")]).unwrap().name, "a");
    assert_eq!(serve(&[], &[("ETCFSD_NAME", "a"), ("ETCD_NAME", "")]).unwrap().name, "a");
    let config = serve(&["--experimental-watch-progress-notify-interval=5s"], &[]).unwrap();
    assert_eq!(config.watch_progress_notify_interval, Duration::from_secs(5));
    let config = serve(&[], &[("ETCD_EXPERIMENTAL_WATCH_PROGRESS_NOTIFY_INTERVAL", "5s")]).unwrap();
    assert_eq!(config.watch_progress_notify_interval, Duration::from_secs(5));
}

#[test]
fn a_flag_and_its_variable_together_are_refused() {
    let text = serve(&["--name", "a"], &[("ETCD_NAME", "b")]).unwrap_err();
    assert!(text.contains("ETCD_NAME=b") && text.contains("--name"), "{text}");
    let text = serve(&[], &[("ETCD_NAME", "b"), ("ETCFSD_NAME", "c")]).unwrap_err();
    assert!(text.contains("ETCD_NAME=b") && text.contains("ETCFSD_NAME=c"), "{text}");
}

#[test]
fn unknown_settings_are_refused_and_foreign_variables_mentioned() {
    refused(&["--naem", "x"], &["--naem"]);
    refused(&["stray"], &["stray"]);
    assert!(serve(&[], &[("ETCFSD_NAEM", "x")]).unwrap_err().contains("ETCFSD_NAEM=x"));
    assert!(serve(&[], &[("ETCD_WAL_DIR", "x")]).unwrap_err().contains("the log lives"));
    let config = serve(&[], &[("ETCD_OF_SOMEONE", "x"), ("ETCDCTL_API", "3")]).unwrap();
    assert_eq!(config.warnings, ["unrecognized environment variable ETCD_OF_SOMEONE=x"]);
}

#[test]
fn settings_of_etcd_that_are_not_here_yet_are_refused_with_the_reason() {
    refused(&["--wal-dir=/x"], &["--wal-dir=/x", "the log lives in the data directory", "remove it"]);
    refused(&["--experimental-compact-hash-check-enabled=true"], &["--corrupt-check-time"]);
    refused(&["--pre-vote=false"], &["--pre-vote=false", "always ask"]);
    let apart = ["--listen-client-http-urls=http://localhost:1"];
    refused(&apart, &["gRPC and HTTP share", "--listen-client-urls", "remove it"]);
    refused(&["--experimental-enable-lease-checkpoint=false"], &["is always noted in the log"]);
    refused(&["--experimental-stop-grpc-service-on-defrag"], &["does not stop the server"]);
}

#[test]
fn settings_of_etcd_that_change_nothing_are_taken() {
    let taken = [
        "--logger=zap",
        "--log-outputs",
        "stderr",
        "--pre-vote",
        "--enable-pprof=false",
        "-socket-reuse-address",
        "--experimental-enable-lease-checkpoint",
        "--experimental-enable-lease-checkpoint-persist=true",
        "--experimental-stop-grpc-service-on-defrag=false",
        "--experimental-txn-mode-write-with-shared-buffer=false",
        "--name=a",
    ];
    let config = serve(&taken, &[("ETCD_UNSAFE_NO_FSYNC", "false")]).unwrap();
    assert_eq!((config.name.as_str(), config.warnings.as_slice()), ("a", &[][..]));
    let tuned = ["--max-wals", "7", "--experimental-compaction-batch-limit=9"];
    let config = serve(&tuned, &[("ETCD_MAX_SNAPSHOTS", "3")]).unwrap();
    let reason = "has no effect: there is nothing to tune here: the storage is not etcd's";
    let tuned = ["--max-wals=7", "--experimental-compaction-batch-limit=9", "ETCD_MAX_SNAPSHOTS=3"];
    assert_eq!(config.warnings, tuned.map(|setting| format!("{setting} {reason}")));
    refused(
        &["--unsafe-no-fsync"],
        &["--unsafe-no-fsync=true: what is acknowledged is on disk, always; remove it"],
    );
    refused(&["--logger=capnslog"], &["--logger=capnslog", "one logger"]);
    refused(&["--max-wals"], &["a value is required for '--max-wals'"]);
}

/// GHSA-9gp7, GHSA-pm3m: sizes and times of etcd that made it panic.
#[test]
fn every_flag_takes_or_refuses_any_number() {
    use clap::CommandFactory as _;
    let numbers = [
        "-1",
        "0",
        "1",
        "4294967295",
        "4294967296",
        "9223372036854775807",
        "9223372036854775808",
        "18446744073709551615",
        "18446744073709551616",
        "-9223372036854775808",
        "1e300",
        "-1s",
        "0s",
        "9223372036s",
        "18446744073709551615s",
        "99999999999999h",
    ];
    let command = args::Args::command();
    let names: Vec<_> = command.get_arguments().filter_map(clap::Arg::get_long).collect();
    assert!(names.len() > 50, "{names:?}");
    let mut taken = 0;
    for name in names {
        for number in numbers {
            // Where it is taken, what follows from it can be worked out too.
            if let Ok(config) = serve(&[&format!("--{name}={number}")], &[]) {
                let limits = (config.limits.max_receive_bytes(), config.peer_limits().max_receive_bytes());
                let times = (config.request_timeout(), config.min_lease_ttl());
                assert!(limits.0 > 0 && limits.1 > 0 && !times.0.is_zero() && times.1 > 0, "{name}={number}");
                taken += 1;
            }
        }
    }
    assert!(taken > 100, "{taken}");
}

/// A file of settings, and its name.
fn file(text: &str) -> (tempfile::NamedTempFile, String) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, text).unwrap();
    let path = file.path().to_str().unwrap().to_owned();
    (file, path)
}

#[test]
fn where_there_is_a_file_it_alone_counts() {
    let (_file, path) = file("name: a\nheartbeat-interval: 50\nmax-wals: 5\n");
    let by_flag = serve(&["--config-file", &path, "--name=b"], &[("ETCD_SNAPSHOT_COUNT", "7")]).unwrap();
    assert_eq!((by_flag.name.as_str(), by_flag.snapshot_count), ("a", 10_000));
    assert_eq!(by_flag.heartbeat_interval, Duration::from_millis(50));
    let said = by_flag.warnings.join("\n");
    for setting in ["--name=b", "--snapshot-count=7", "max-wals=5 has no effect"] {
        assert!(said.contains(setting), "{setting}: {said}");
    }
    let by_variable = serve(&[], &[("ETCD_CONFIG_FILE", &path), ("ETCD_NAME", "a")]).unwrap();
    assert_eq!((by_variable.name.as_str(), by_variable.warnings.len()), ("a", 1), "what both say is no news");
}

#[test]
fn a_files_settings_are_judged_as_flags_are() {
    for (text, words) in [
        ("naem: x\n", &["naem=x", "no such setting"][..]),
        ("wal-dir: /x\n", &["wal-dir=/x", "the log lives in the data directory", "remove it"]),
        ("heartbeat-interval: -1\n", &["--heartbeat-interval=-1", "at least 1"]),
        ("heartbeat-interval: soon\n", &["--heartbeat-interval", "soon"]),
        ("listen-client-urls: http://0.0.0.0:1\n", &["--advertise-client-urls is required"]),
        ("config-file: /other\n", &["config-file=/other", "no such setting"]),
        ("unsafe-no-fsync: true\n", &["unsafe-no-fsync=true", "on disk, always"]),
        (
            "watch-progress-notify-interval: 5s\nexperimental-watch-progress-notify-interval: 6s\n",
            &["watch-progress-notify-interval", "drop one of the two"],
        ),
        ("name: [a\n", &["--config-file="]),
    ] {
        let (_file, path) = file(text);
        let refusal = serve(&["--config-file", &path], &[]).unwrap_err();
        for word in words {
            assert!(refusal.contains(word), "{text:?}: {refusal}");
        }
    }
    refused(&["--config-file=/no/such/file"], &["--config-file=/no/such/file: No such file"]);
}

#[test]
fn printed_settings_are_a_file_that_says_the_same() {
    let print = |args: &[&str]| match parse(["etcfsd"].iter().chain(args).map(|arg| arg.into()), []) {
        Ok(Invocation::Print(text)) => text,
        other => panic!("{other:?}"),
    };
    let text =
        print(&["--print-config", "--name=a: b", "--quota-backend-bytes=-1", "--cors=*", "--log-level=warn"]);
    for line in ["name: \"a: b\"", "quota-backend-bytes: -1", "cors: \"*\"", "enable-grpc-gateway: true"] {
        assert!(text.lines().any(|printed| printed == line), "{line}: {text}");
    }
    assert!(!text.lines().any(|line| line.starts_with("config-file") || line.starts_with("print")), "{text}");
    let (_file, path) = file(&text);
    assert_eq!(print(&["--print-config", "--config-file", &path]), text);
    let from_file = serve(&["--config-file", &path], &[]).unwrap();
    let from_flags = serve(&["--name=a: b", "--quota-backend-bytes=-1", "--cors=*", "--log-level=warn"], &[]);
    assert_eq!(from_file, from_flags.unwrap());
    // What would not be served is not printed either.
    let refusal = parse(["etcfsd", "--print-config", "--max-txn-ops=0"].map(OsString::from), []).unwrap_err();
    assert!(refusal.to_string().contains("--max-txn-ops=0"), "{refusal}");
}

#[test]
fn contradictory_settings_are_refused_by_name_value_and_remedy() {
    refused(&["--listen-client-urls=http://0.0.0.0:1"], &["--advertise-client-urls is required"]);
    refused(&["--heartbeat-interval=0"], &["--heartbeat-interval=0", "at least 1"]);
    refused(&["--heartbeat-interval=-1"], &["--heartbeat-interval=-1"]);
    refused(&["--heartbeat-interval=300"], &["--election-timeout=1000", "raise it to 1500"]);
    refused(&["--election-timeout=50001"], &["--election-timeout=50001", "50000"]);
    refused(&["--snapshot-count=0"], &["--snapshot-count=0"]);
    refused(&["--max-txn-ops=0"], &["--max-txn-ops=0"]);
    refused(&["--max-txn-ops=-1"], &["--max-txn-ops"]);
    refused(&["--max-request-bytes=0"], &["--max-request-bytes=0"]);
    refused(&["--auto-compaction-retention=-1"], &["--auto-compaction-retention=-1"]);
    refused(&["--auto-compaction-mode=revision", "--auto-compaction-retention=1h"], &["revisions"]);
    refused(&["--watch-progress-notify-interval=1ms"], &["100ms"]);
    refused(&["--advertise-client-urls=http://localhost:0"], &["port 0"]);
    refused(&["--listen-peer-urls="], &["at least one URL"]);
}

fn founder(name: &str, urls: &[&str]) -> Founder {
    Founder { name: name.into(), peer_urls: urls.iter().map(ToString::to_string).collect() }
}

#[test]
fn the_initial_cluster_names_all_members_and_this_one() {
    let cluster = "b=http://h:2,a=http://localhost:2380,b=http://g:2";
    let config = serve(&["--name=a", "--initial-cluster", cluster], &[]).unwrap();
    let founders = [founder("b", &["http://g:2", "http://h:2"]), founder("a", &["http://localhost:2380"])];
    assert_eq!((config.founders, config.joins), (founders.to_vec(), false));
    let joins = ["--name=a", "--initial-cluster", cluster, "--initial-cluster-state=existing"];
    assert!(serve(&joins, &[]).unwrap().joins);
}

/// In etcd's words, as operators search for them.
#[test]
fn an_initial_cluster_that_does_not_fit_is_refused() {
    let cluster = "a=http://localhost:2380";
    refused(
        &["--initial-cluster", cluster],
        &["couldn't find local name \"default\" in the initial cluster configuration"],
    );
    refused(&["--name=a", "--initial-cluster", "a=http://h:1,b=http://h:1"], &["duplicated url: http://h:1"]);
    refused(
        &["--name=a", "--initial-cluster", "a=http://h:1"],
        &[
            "--initial-cluster has a=http://h:1 but missing from --initial-advertise-peer-urls=http://localhost:2380",
        ],
    );
    refused(
        &[
            "--name=a",
            "--initial-cluster",
            cluster,
            "--initial-advertise-peer-urls=http://localhost:2380,http://h:1",
        ],
        &["--initial-advertise-peer-urls has a=http://h:1 but missing from --initial-cluster"],
    );
    let eight: Vec<String> = (1..=8).map(|nth| format!("m{nth}=http://h:{nth}")).collect();
    refused(&["--name=m1", "--initial-cluster", &eight.join(",")], &["8 members", "at most 7"]);
    refused(&["--name=a", "--initial-cluster", "a=h:1"], &["h:1: a URL needs a scheme"]);
    refused(&["--name=a", "--initial-cluster", "http://h:1"], &["NAME=URL"]);
    refused(&["--initial-cluster-state=existing"], &["must name the members that are there"]);
    let many: Vec<_> = (0..8).map(|nth| format!("m{nth}=http://h:{nth}")).collect();
    refused(&["--name=m0", "--initial-cluster", &many.join(",")], &["names 8 members"]);
}

#[test]
fn retention_is_hours_a_duration_or_revisions() {
    let retention = |mode: &str, text: &str| {
        serve(&["--auto-compaction-mode", mode, "--auto-compaction-retention", text], &[])
            .unwrap()
            .auto_compaction
    };
    let periodic = |seconds| Some(AutoCompaction::Periodic(Duration::from_secs(seconds)));
    assert_eq!(retention("periodic", "1"), periodic(3600));
    assert_eq!(retention("periodic", "10m"), periodic(600));
    assert_eq!(retention("periodic", "1h30m"), periodic(5400));
    assert_eq!(retention("periodic", "0s"), None);
    assert_eq!(retention("revision", "1000"), Some(AutoCompaction::Revisions(1000)));
    assert_eq!(retention("revision", "0"), None);
}

#[test]
fn a_negative_quota_is_none_and_zero_the_default() {
    let quota = |text: &str| serve(&["--quota-backend-bytes", text], &[]).unwrap().quota;
    assert_eq!(quota("-1"), Quota::Unlimited);
    assert_eq!(quota("0"), Quota::Bytes(2 << 30));
    assert_eq!(quota("1"), Quota::Bytes(1));
}

#[test]
fn an_embedded_server_is_a_valid_configuration() {
    let config = Config::embedded("/data".into(), "127.0.0.1:4001".parse().unwrap());
    assert_eq!(config.data_dir, PathBuf::from("/data"));
    assert_eq!(config.advertise_client, ["http://127.0.0.1:4001"]);
    let member = |name: &str| EmbeddedMember {
        name: name.into(),
        peer: "127.0.0.1:5001".parse().unwrap(),
        initial_cluster: "n1=http://127.0.0.1:5001,n2=http://127.0.0.1:5002".into(),
        token: "t".into(),
    };
    let client = "127.0.0.1:4001".parse().unwrap();
    let config = Config::embedded_member("/data/n1".into(), client, member("n1")).unwrap();
    assert_eq!((config.founders.len(), config.cluster_token.as_str()), (2, "t"));
    assert_eq!(config.listen_peer[0].to_string(), "http://127.0.0.1:5001");
    assert!(Config::embedded_member("/data/n3".into(), client, member("n3")).is_err(), "not one of them");
}

#[test]
fn help_and_version_are_invocations() {
    let parse = |arg: &str| parse(["etcfsd".into(), arg.into()], []).unwrap();
    assert_eq!(parse("--version"), Invocation::Version);
    assert_eq!(parse("-version"), Invocation::Version);
    assert!(matches!(parse("--help"), Invocation::Help(text) if text.contains("--listen-client-urls")));
    assert!(matches!(parse("-h"), Invocation::Help(_)));
}

#[test]
fn members_are_named_or_found_in_dns_but_not_both() {
    let found = serve(&["--discovery-srv=example.com", "--discovery-srv-name=blue"], &[]).unwrap();
    let blue = Discovery { domain: "example.com".into(), service_name: Some("blue".into()), server: None };
    assert_eq!(found.discovery, Some(blue));
    let both = ["--discovery-srv=example.com", "--initial-cluster=default=http://localhost:2380"];
    refused(&both, &["multiple discovery or bootstrap flags are set"]);
    refused(&["--discovery-srv-name=blue"], &["means nothing without --discovery-srv"]);
    refused(&["--discovery-srv=."], &["must be a domain"]);
}

#[test]
fn what_was_found_in_dns_is_checked_as_if_it_were_named() {
    let mut config = serve(&["--name=a", "--discovery-srv=example.com"], &[]).unwrap();
    config.found("a=http://h:1,0=http://g:1").unwrap();
    assert_eq!(config.founders, [founder("a", &["http://h:1"]), founder("0", &["http://g:1"])]);
    let without = config.found("0=http://g:1").unwrap_err().to_string();
    assert!(without.starts_with("--discovery-srv=0=http://g:1: couldn't find local name \"a\""), "{without}");
}
