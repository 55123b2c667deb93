//! `%log`, `%rev`, `%leases`, `%locks` and `%status`, as programs read them.

use std::{fs, path::Path, process::Command};

use etcfs_proto::etcdserverpb::{CompactionRequest, LeaseGrantRequest};
use etcfs_tests::{
    api::delete,
    command::{self, Followed},
    server::Kind,
    wait,
};
use rustix::io::Errno;

use super::Stage;

/// `%rev/N` is the tree as of revision N
#[test]
fn two_mounted_revisions_can_be_compared() {
    for kind in [Kind::Etcfs, Kind::Etcd] {
        let s = Stage::on(kind);
        s.sh("mkdir d; echo one > d/a; echo same > d/b; echo gone > c");
        let before = s.api.revision();
        s.sh("echo two > d/a; rm c; echo new > e");
        let after = s.api.revision();
        let diff = command::sh(&s.mount.path(), &format!("diff -r %rev/{before} %rev/{after}"));
        assert_eq!(diff.code, 1, "{diff:?}");
        let wanted = format!(
            "Only in %rev/{before}: c\ndiff -r %rev/{before}/d/a %rev/{after}/d/a\n1c1\n< one\n---\n> two\n\
             Only in %rev/{after}: e\n"
        );
        assert_eq!(diff.stdout, wanted, "{}", diff.stderr);
        // A copy of the past is the past.
        let copy = s.server.scratch().join("copy");
        s.sh(&format!("cp -r %rev/{before} {}; diff -r {} %rev/{before}", copy.display(), copy.display()));
        assert_eq!(s.sh(&format!("stat -c %s%A %rev/{before}/d/a")), "4-r--r--r--\n");
        for script in ["echo x > %rev/REV/d/a", "rm %rev/REV/d/a", "mkdir %rev/REV/x", "touch %rev/REV/new"] {
            let script = script.replace("REV", &before.to_string());
            let complaint = command::sh(&s.mount.path(), &script).failed();
            assert!(complaint.contains("Read-only file system"), "{script}: {complaint}");
        }
        let missing = |path: String| {
            let error = fs::metadata(s.mount.at(&path)).expect_err("it is not there");
            assert_eq!(error.raw_os_error(), Some(Errno::NOENT.raw_os_error()), "{path}: {error}");
        };
        missing(format!("%rev/{}", after + 1000));
        let compaction = CompactionRequest { revision: after, physical: true };
        s.api.compact(compaction).expect("a compaction is accepted");
        missing(format!("%rev/{}", before - 1));
        assert_eq!(s.sh(&format!("cat %rev/{after}/d/a")), "two\n");
    }
}

/// `KEY%rev` lists a key's own revisions
#[test]
fn a_mounted_keys_revisions_are_files() {
    for kind in [Kind::Etcfs, Kind::Etcd] {
        let s = Stage::on(kind);
        s.sh("for i in 1 2 3; do echo $i > f; echo x > other; done");
        assert_eq!(s.sh("cat f%rev/*"), "1\n2\n3\n");
        s.api.delete(delete("/f")).expect("a delete is accepted");
        assert_eq!(s.sh("ls f%rev | wc -l; cat f%rev/*"), "3\n1\n2\n3\n");
    }
}

/// `%log` has each change below its directory, in order
#[test]
fn tail_follows_a_mounted_log() {
    for kind in [Kind::Etcfs, Kind::Etcd] {
        let s = Stage::on(kind);
        s.sh("mkdir -p d/sub; echo 1 > d/a");
        s.comes_to_print("wc -l < d/%log", "1\n");
        let mut tail = Followed::sh(&s.mount.path(), "tail -n +1 -f d/%log");
        let mut next =
            || -> serde_json::Value { serde_json::from_str(&tail.line()).expect("a line of JSON") };
        let first = next();
        assert_eq!((&first["type"], &first["key"]), (&"PUT".into(), &"/d/a".into()));
        assert_eq!((&first["path"], &first["value"]), (&"d/a".into(), &"1\n".into()));
        s.api.set("/e/outside", "no");
        let revision = s.api.set("/d/sub/remote", &b"\xff"[..]);
        let second = next();
        assert_eq!((&second["revision"], &second["value_base64"]), (&revision.into(), &"/w==".into()));
        s.sh("rm d/a");
        let third = next();
        assert_eq!((&third["type"], &third["key"]), (&"DELETE".into(), &"/d/a".into()));
        assert!(third.get("value").is_none());
        // From a revision on, and one key's.
        let from = s.sh(&format!("cat %rev/{revision}/d/%log | wc -l; wc -l < d/a%log"));
        assert_eq!(from, "2\n2\n");
        let size = fs::metadata(s.mount.at("d/%log")).expect("it is there").len();
        assert_eq!(size, fs::read(s.mount.at("d/%log")).expect("it is read").len() as u64);
    }
}

/// A lease is a directory of its keys
#[test]
fn a_mounted_lease_is_a_directory_of_links() {
    for kind in [Kind::Etcfs, Kind::Etcd] {
        let s = Stage::on(kind);
        s.sh("mkdir d; echo v > d/f; setfattr -n user.etcfs.ttl -v 300 d/f");
        let id = s.sh("getfattr --only-values -n user.etcfs.lease d/f");
        let dir = format!("%leases/{id}");
        assert_eq!(
            s.sh(&format!("ls %leases | grep {id}; ls {dir}")),
            format!("{id}\nd%2Ff\ngranted_ttl\nttl\n")
        );
        assert_eq!(s.sh(&format!("cat {dir}/granted_ttl {dir}/d%2Ff")), "300\nv\n");
        let complaint = command::sh(&s.mount.path(), &format!("rmdir {dir}")).failed();
        assert!(complaint.contains("Directory not empty"), "{complaint}");
        s.sh(&format!("rm {dir}/d%2Ff"));
        assert_eq!(s.api.get("/d/f").expect("it stays").lease, 0);
        s.sh(&format!("rmdir {dir}"));
        assert!(!s.mount.at(&dir).exists());
        let request = LeaseGrantRequest { ttl: 100, id: 0x77 };
        s.api.grant(request).expect("a lease is granted");
        s.sh("setfattr -n user.etcfs.lease -v 77 d/f; test -L %leases/0000000000000077/d%2Ff");
    }
}

/// `%locks` shows who holds what, and who waits
#[test]
fn mounted_locks_are_listed() {
    let s = Stage::new();
    s.sh("echo v > f");
    assert_eq!(s.sh("cat %locks"), "");
    let mut holder = Followed::sh(&s.mount.path(), "flock -F -s f sh -c 'echo held; exec sleep 60'");
    holder.expect(&["held"]);
    let _waiter = Followed::sh(&s.mount.path(), "flock f true");
    wait::until_true("both are listed", || s.sh("cat %locks").lines().count() == 2);
    let text = s.sh("cat %locks");
    let revision = s.sh("getfattr --only-values -n user.etcfs.lock_revision f");
    let words: Vec<Vec<&str>> = text.lines().map(|line| line.split('\t').collect()).collect();
    let host = command::run(Command::new("uname").arg("-n"), b"").ok();
    let pid = holder.pid().to_string();
    assert_eq!(words[0], ["/f", host.trim(), &pid, &revision, "holds shared 0-"], "{text}");
    assert_eq!(words[1][4], "waits exclusive 0-", "{text}");
}

/// `%status` answers also while the server does not
#[test]
fn a_mounted_status_is_told_without_a_server() {
    let mut s = Stage::new();
    let lines = s.sh("cat %status");
    for name in ["endpoints: ", "leader: ", "revision: ", "watch: ", "cache: ", "locks: ", "kernel lacks: "] {
        assert!(lines.lines().any(|line| line.starts_with(name)), "{name}\n{lines}");
    }
    assert!(lines.contains(&s.server.endpoint()), "{lines}");
    s.server.kill();
    wait::until_true("it says so", || s.sh("cat %status").contains("without a server since"));
    s.server.run();
    wait::until_true("it says so", || s.sh("cat %status").contains(", connected"));
}

/// Keys without a leading slash live in %rel
#[test]
fn a_mounted_root_without_its_links_says_so() {
    let s = Stage::new();
    let put = |name: &str| s.api.set(name, "");
    for number in 0..1000 {
        put(&format!("bare{number}"));
    }
    let told = "ls; ls | wc -l; grep -c '^links in the root: none' %status || true";
    assert!(s.sh(told).ends_with("bare999\n1001\n0\n"), "each has its link, beside %rel");
    put("one more");
    s.comes_to_print("ls; grep -c '^links in the root: none' %status", "%rel\n1\n");
}

/// Reserved names are found by lookup only, and nothing is made of them
#[test]
fn no_program_meets_a_mounted_virtual_file_by_itself() {
    let s = Stage::new();
    s.sh("mkdir d; echo v > d/f");
    let found = s.sh("find . | sort; ls -A; cat %status > /dev/null; find . | sort");
    assert_eq!(found, ".\n./d\n./d/f\nd\n.\n./d\n./d/f\n");
    let outside = s.server.scratch().join("copy");
    s.sh(&format!("cp -r . {}", outside.display()));
    assert!(!Path::new(&outside).join("%log").exists());
    let revision = s.api.revision();
    for script in ["echo x > %log", "mkdir %rev", "rm d/%log", "mv d/f d/%log", "ln -s x %status"] {
        command::sh(&s.mount.path(), script).failed();
    }
    assert_eq!(s.api.revision(), revision);
}
