//! flock(1) and fcntl(2) over mounts: who gets a lock, who waits, who has lost one.

use std::fs;

use etcfs_tests::{
    api::get,
    command::{self, Followed},
    mount::Mount,
    server::{Kind, Server},
    wait,
};
use rustix::process::{Pid, Signal, kill_process};

use super::Stage;

/// Locks hold among all mounts
#[test]
fn a_mounted_lock_holds_among_mounts_and_frees_in_order() {
    for kind in [Kind::Etcfs, Kind::Etcd] {
        let s = Stage::on(kind);
        let other = Mount::root(&s.server.endpoint());
        s.sh(": > lk");
        wait::until_true("it shows", || other.at("lk").exists());
        let mut holder = Followed::sh(&s.mount.path(), "flock -F lk sh -c 'echo held; exec sleep 60'");
        drop(holder.line());
        drop(holder);
        // Killed: its locks are free at once.
        other.sh("flock lk true");
        let gate = s.server.scratch().join("gate");
        let hold =
            format!("flock lk sh -c 'echo held; while [ ! -e {} ]; do sleep 0.05; done'", gate.display());
        let mut holder = Followed::sh(&s.mount.path(), &hold);
        holder.expect(&["held"]);
        assert_eq!(command::sh(&other.path(), "flock -n lk true").code, 1);
        assert_eq!(command::sh(&s.mount.path(), "flock -n lk true").code, 1, "in the same mount");
        assert_eq!(command::sh(&other.path(), "flock -n -s lk true").code, 1, "a reader");
        // flock -w is ended by a signal.
        assert_eq!(command::sh(&other.path(), "flock -w 1 lk true").code, 1);
        let token: i64 =
            s.sh("getfattr --only-values -n user.etcfs.lock_revision lk").parse().expect("a revision");
        assert!(token > 0 && token <= s.api.revision());
        let mut waiter = Followed::sh(&other.path(), "flock lk echo mine");
        wait::until_true("it waits", || lock_records(&s) == 2);
        fs::write(gate, "").expect("outside the mount");
        waiter.expect(&["mine"]);
        wait::until_true("no record is left", || lock_records(&s) == 0);
    }
}

fn lock_records(s: &Stage) -> usize {
    s.api.all(".etcfs/lock/").len()
}

/// A wait for a lock ends with a signal
#[test]
fn a_signal_ends_a_mounted_wait_for_a_lock() {
    let s = Stage::new();
    s.sh(": > lk");
    let mut holder = Followed::sh(&s.mount.path(), "flock -F lk sh -c 'echo held; exec sleep 60'");
    holder.expect(&["held"]);
    for signal in [Signal::INT, Signal::TERM, Signal::KILL] {
        let waiter = Followed::sh(&s.mount.path(), "flock lk true");
        wait::until_true("it waits", || lock_records(&s) == 2);
        let pid = waiter.pid();
        kill_process(Pid::from_raw(pid as i32).expect("a process"), signal).expect("it runs");
        wait::until_true("its record is gone", || lock_records(&s) == 1);
        wait::until_true("it is gone, or nobody's child any more", || {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.is_empty() || stat.contains(") Z ")
        });
    }
}

/// A program that locks ranges of bytes: `lock.py FILE START LENGTH MODE` holds until its input ends.
const RANGES: &str = r#"
import fcntl, sys
file, start, length, mode = open(sys.argv[1], 'r+'), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
kind = fcntl.LOCK_SH if mode == 'shared' else fcntl.LOCK_EX
try:
    fcntl.lockf(file, kind | fcntl.LOCK_NB, length, start)
except OSError as error:
    print(error.errno, flush=True)
    sys.exit(0)
print('held', flush=True)
sys.stdin.read()
"#;

#[test]
fn mounted_ranges_are_locked_apart() {
    let s = Stage::new();
    let other = Mount::root(&s.server.endpoint());
    s.sh("echo 0123456789 > f");
    wait::until_true("it shows", || other.at("f").exists());
    let script = s.server.scratch().join("lock.py");
    fs::write(&script, RANGES).expect("outside the mount");
    let run = |mount: &Mount, args: &str| {
        command::sh(&mount.path(), &format!("python3 {} f {args} < /dev/null", script.display())).ok()
    };
    let hold = format!("python3 {} f 0 5 exclusive", script.display());
    let mut child = std::process::Command::new("sh")
        .args(["-c", &format!("exec {hold}")])
        .current_dir(s.mount.path())
        .stdin(std::process::Stdio::piped())
        .spawn()
        .expect("python runs");
    wait::until_true("it holds", || lock_records(&s) == 1);
    assert_eq!(run(&other, "3 1 shared"), "11\n", "EAGAIN");
    assert_eq!(run(&s.mount, "3 1 shared"), "11\n");
    assert_eq!(run(&other, "5 5 exclusive"), "held\n");
    drop(child.stdin.take());
    child.wait().expect("it ends");
    assert_eq!(run(&other, "3 1 exclusive"), "held\n");
    assert_eq!(lock_records(&s), 0);
}

/// A lock ends with its holder, its mount or its host
#[test]
fn a_mounted_lock_ends_with_its_mount() {
    let server = Server::etcfs();
    let mut first = Mount::with(&format!("{}:/", server.endpoint()), "lock_ttl=2");
    let second = Mount::root(&server.endpoint());
    first.sh(": > lk");
    wait::until_true("it shows", || second.at("lk").exists());
    let mut holder = Followed::sh(&first.path(), "flock -F lk sh -c 'echo held; exec sleep 60'");
    holder.expect(&["held"]);
    assert_eq!(command::sh(&second.path(), "flock -n lk true").code, 1);
    // As a host that dies: nothing is told to anybody.
    first.kill();
    second.sh("flock -w 30 lk true");
}

/// A holder whose lock is lost writes nothing any more
#[test]
fn a_stopped_holder_never_writes_under_a_mounted_lock_that_is_lost() {
    for kind in [Kind::Etcfs, Kind::Etcd] {
        let server = Server::start(kind);
        let api = server.api();
        let mut first = Mount::with(&format!("{}:/", server.endpoint()), "lock_ttl=2");
        let second = Mount::root(&server.endpoint());
        first.sh(": > lk; : > data");
        wait::until_true("it shows", || second.at("data").exists());
        let old = "flock -F lk sh -c 'while echo old >> data; do echo; done; echo stopped; exec sleep 60'";
        let mut holder = Followed::sh(&first.path(), old);
        drop(holder.line());
        first.process().signal(Signal::STOP);
        let mut next = Followed::sh(
            &second.path(),
            "flock -F lk sh -c 'getfattr --only-values -n user.etcfs.lock_revision lk; echo; \
             for i in 1 2 3; do echo new >> data; done; echo done; exec sleep 60'",
        );
        let token: i64 = next.line().parse().expect("a revision");
        next.expect(&["done"]);
        first.process().signal(Signal::CONT);
        while holder.line() != "stopped" {}
        // What is opened later by others is as ever.
        first.sh("echo third >> other");
        let latest = api.get("/data").expect("it is there");
        for revision in token..=latest.mod_revision {
            let then = api.range(etcfs_proto::etcdserverpb::RangeRequest { revision, ..get("/data") });
            let then = then.expect("a revision of the past").kvs.pop().expect("it was there");
            if then.mod_revision == revision {
                assert!(then.value.ends_with(b"new\n"), "revision {revision}, after the lock at {token}");
            }
        }
        assert!(first.log().contains("locks are lost"), "{}", first.log());
    }
}
