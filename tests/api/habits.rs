//! What operators' scripts rely on around the API: lines of the log that harnesses wait for, and `--version`.

use std::process::Command;

use etcfs_tests::{binary, command, server::Server};

#[test]
fn a_start_says_what_harnesses_wait_for() {
    let mut server = Server::etcfs();
    // A second start finds the member published already, and says it all the same.
    for _ in 0..2 {
        let log = server.log_of_last_run();
        let mut from = 0;
        for line in [
            "enabled capabilities for version",
            "published local member to cluster through raft",
            "ready to serve client requests",
        ] {
            let at = log[from..].find(line).unwrap_or_else(|| panic!("no `{line}` in its place: {log}"));
            from += at;
        }
        assert!(server.stop().success());
        server.run();
    }
}

/// Four lines, as etcd prints them: some scripts read the first.
#[test]
fn the_version_is_printed_as_etcd_prints_it() {
    let printed = command::run(Command::new(binary::etcfsd()).arg("--version"), b"").ok();
    let lines: Vec<_> = printed.lines().map(|line| line.split_once(": ").unwrap_or((line, ""))).collect();
    let names: Vec<_> = lines.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["etcd Version", "Git SHA", "Go Version", "Go OS/Arch"], "{printed}");
    assert!(lines[0].1.starts_with("3.6."), "{printed}");
    assert!(lines.iter().all(|(_, value)| !value.is_empty()), "{printed}");
}
