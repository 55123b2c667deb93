//! Starting, ending and dying: what mount.etcfs leaves behind.

use std::{fs, path::Path, process::Command};

use etcfs_tests::{
    binary, command,
    mount::{Mount, mounted},
    port::Port,
    server::{Kind, Options, Server},
    wait,
};
use rustix::process::Signal;

use super::Stage;

/// Reports success only once the mount answers
#[test]
fn the_command_returns_when_the_mount_answers_and_the_daemon_goes_with_it() {
    let server = Server::etcfs();
    server.api().set("/f", "v");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let source = format!("{}:/", server.endpoint());
    command::run(Command::new(binary::mount_etcfs()).arg(&source).arg(dir.path()), b"").ok();
    assert_eq!(fs::read_to_string(dir.path().join("f")).expect("it is mounted"), "v");
    assert!(!daemons_of(dir.path()).is_empty(), "a daemon serves it");
    command::run(Command::new("umount").arg(dir.path()), b"").ok();
    wait::until_true("no process is left", || daemons_of(dir.path()).is_empty());
    assert!(!mounted(dir.path()));
}

/// Reports success only once the mount answers
#[test]
fn a_mount_that_may_wait_in_the_background_is_mounted_when_its_server_comes() {
    let mut server = Server::prepared(Kind::Etcfs, Options::default());
    let dir = tempfile::tempdir().expect("a temporary directory");
    let source = format!("{}:/", server.endpoint());
    let mut command = Command::new(binary::mount_etcfs());
    command::run(command.args(["-o", "bg,retry=0"]).arg(&source).arg(dir.path()), b"").ok();
    assert!(!mounted(dir.path()) && !daemons_of(dir.path()).is_empty(), "it waits");
    server.run();
    server.api().set("/f", "v");
    wait::until_true("it is mounted", || {
        fs::read_to_string(dir.path().join("f")).is_ok_and(|text| text == "v")
    });
    // Nobody is told when inotify's helper has been tried, which keeps the mount busy.
    let mut umount = Command::new("umount");
    umount.arg(dir.path());
    wait::until_true("it is unmounted", || command::run(&mut umount, b"").code == 0);
    wait::until_true("no process is left", || daemons_of(dir.path()).is_empty());
}

/// A mount that fails says why
#[test]
fn a_start_that_fails_says_why_and_leaves_nothing() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let nobody = Port::take();
    let source = format!("{}:/", nobody.address());
    let mut command = Command::new(binary::mount_etcfs());
    command.args(["-o", "retry=0"]).arg(&source).arg(dir.path());
    let complaint = command::run(&mut command, b"").failed();
    assert!(complaint.contains(&nobody.address()), "{complaint}");
    assert!(!mounted(dir.path()));
    assert!(daemons_of(dir.path()).is_empty());
    let server = Server::etcfs();
    let source = format!("{}:/.etcfs/op/", server.endpoint());
    let mut command = Command::new(binary::mount_etcfs());
    command.args(["-o", "rel=off"]).arg(format!("{}:.etcfs/op/", server.endpoint())).arg(dir.path());
    let complaint = command::run(&mut command, b"").failed();
    assert!(complaint.contains(".etcfs"), "{complaint} {source}");
}

/// SIGTERM unmounts and leaves no process
#[test]
fn a_terminated_daemon_unmounts() {
    let mut s = Stage::new();
    s.sh("echo v > f");
    s.mount.process().signal(Signal::TERM);
    let status = s.mount.process().wait_for_end(wait::PATIENCE);
    assert!(status.success(), "{status}");
    assert!(!mounted(&s.mount.path()));
    assert_eq!(s.api.value("/f").as_deref(), Some("v\n"));
}

/// A new mount over a dead one works
#[test]
fn a_dead_mount_hangs_nobody_and_is_mounted_over() {
    let mut s = Stage::new();
    s.sh("echo v > f");
    s.mount.kill();
    let error = fs::read(s.mount.at("f")).expect_err("nobody serves it");
    assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::NOTCONN.raw_os_error()), "{error}");
    s.mount.run();
    assert_eq!(fs::read_to_string(s.mount.at("f")).expect("it is mounted"), "v\n");
}

/// Mounted at a prefix, nothing outside it shows
#[test]
fn a_mount_of_a_prefix_shows_what_is_below_it() {
    let server = Server::etcfs();
    let api = server.api();
    api.set("/project/jobs/job1", "one");
    api.set("/other", "no");
    let mount = Mount::with(&format!("{}:/project", server.endpoint()), "");
    assert_eq!(mount.sh("find . | sort"), ".\n./jobs\n./jobs/job1\n");
    mount.sh("echo two > jobs/job2; mkdir empty");
    assert_eq!(api.value("/project/jobs/job2").as_deref(), Some("two\n"));
    assert!(api.get(".etcfs/dir//project/empty/").is_some());
    mount.unmount();
}

/// `-o ro`
#[test]
fn a_read_only_mount_writes_nothing() {
    let server = Server::etcfs();
    server.api().set("/f", "v");
    let mount = Mount::with(&format!("{}:/", server.endpoint()), "ro");
    assert_eq!(mount.sh("cat f"), "v");
    let revision = server.api().revision();
    for script in ["echo x > f", "echo x > g", "rm f", "mkdir d", "mv f g"] {
        let complaint = command::sh(&mount.path(), script).failed();
        assert!(complaint.contains("Read-only file system"), "{script}: {complaint}");
    }
    assert_eq!(server.api().revision(), revision);
}

/// The processes whose command line names this mount point.
fn daemons_of(dir: &Path) -> Vec<String> {
    let name = dir.display().to_string();
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    processes
        .filter_map(|process| fs::read(process.ok()?.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(&name))
        .collect()
}
