//! Times to live as attributes: kept up by the mount, and of all that is in a directory.

use std::fs;

use etcfs_tests::{command::sh, server::Kind, wait};

use super::Stage;

/// Only etcfs's own attributes exist
#[test]
fn a_mounted_key_lives_as_long_as_its_lease_is_renewed() {
    for kind in [Kind::Etcfs, Kind::Etcd] {
        let s = Stage::on(kind);
        s.sh("echo v > f; echo v > clock");
        s.sh("setfattr -n user.etcfs.ttl -v 2 f; setfattr -n user.etcfs.keepalive -v 1 f");
        // The server's own time: three of the lease's.
        s.sh("setfattr -n user.etcfs.ttl -v 6 clock");
        wait::until_true("6 seconds are over", || !s.mount.at("clock").exists());
        assert_eq!(s.sh("cat f; getfattr --only-values -n user.etcfs.keepalive f"), "v\n1");
        s.sh("setfattr -n user.etcfs.keepalive -v 0 f");
        wait::until_true("it goes", || !s.mount.at("f").exists());
        assert_eq!(s.api.get("/f"), None);
    }
}

/// A time to live of a directory is that of all keys below it
#[test]
fn a_time_to_live_of_a_mounted_directory_is_one_lease_in_one_revision() {
    for kind in [Kind::Etcfs, Kind::Etcd] {
        let s = Stage::on(kind);
        s.sh("mkdir -p d/sub; echo 1 > d/a; echo 2 > d/b; echo 3 > d/sub/c");
        s.api.set("/d", "its own");
        let before = s.api.revision();
        let lease = "getfattr --only-values -n user.etcfs.lease";
        let script = format!(
            "setfattr -n user.etcfs.ttl -v 300 d; for f in d/a d/b d/sub/c; do {lease} $f; echo; done"
        );
        let shown = s.sh(&script);
        let shown: Vec<&str> = shown.lines().collect();
        assert!(shown.len() == 3 && shown.iter().all(|lease| *lease == shown[0]), "{shown:?}");
        let found = s.api.all("/d/");
        assert!(found.iter().all(|kv| format!("{:016x}", kv.lease) == shown[0]), "{found:?}");
        assert!(found.iter().all(|kv| kv.mod_revision == before + 1), "{found:?}");
        assert_eq!(s.api.get("/d").expect("it is there").lease, 0);
        assert_eq!(s.sh("cat d/a d/b d/sub/c"), "1\n2\n3\n");

        // More than a transaction takes.
        for number in 0..130 {
            s.api.set(&format!("/many/{number}"), "v");
        }
        wait::until_true("they show", || {
            fs::read_dir(s.mount.at("many")).is_ok_and(|dir| dir.count() == 130)
        });
        let (revision, leases) = (s.api.revision(), s.sh("ls %leases"));
        let refused = sh(&s.mount.path(), "setfattr -n user.etcfs.ttl -v 300 many").failed();
        assert!(refused.contains("File too large"), "{refused}");
        assert_eq!((s.api.revision(), s.sh("ls %leases")), (revision, leases));
    }
}
