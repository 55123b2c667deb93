//! The tutorial in files, on our server and on etcd itself.

use std::time::{Duration, Instant};

use etcfs_tests::{
    api::{grant, put_on_lease},
    command::{Client, Followed},
    server::Kind,
    wait,
};

use super::Stage;

macro_rules! chapters {
    ($($(#[$doc:meta])* fn $name:ident($stage:ident: &Stage) $body:block)*) => {
        $(
            $(#[$doc])*
            mod $name {
                use super::*;

                fn chapter($stage: &Stage) $body

                #[test]
                fn on_etcfsd() { chapter(&Stage::new()) }
                #[test]
                fn on_etcd() { chapter(&Stage::on(Kind::Etcd)) }
            }
        )*
    };
}

chapters! {
    fn keys_are_listed_and_read_as_files(s: &Stage) {
        s.api.set("/project/jobs/job1", "one");
        s.api.set("/project/jobs/job2", "two\n");
        s.comes_to_print("ls project/jobs", "job1\njob2\n");
        assert_eq!(s.sh("cat project/jobs/job1"), "one");
        assert_eq!(s.sh("cat project/jobs/job2"), "two\n");
        assert_eq!(s.sh("ls"), "project\n");
        assert_eq!(s.sh("stat -c %s project/jobs/job1"), "3\n");
        assert_eq!(s.sh("find . -type f | sort"), "./project/jobs/job1\n./project/jobs/job2\n");
    }

    fn files_are_put_and_deleted_as_keys(s: &Stage) {
        s.api.set("/project/jobs/job1", "one");
        s.comes_to_print("ls project/jobs", "job1\n");
        let etcdctl = Client::etcdctl(&s.server.endpoint());
        let before = s.server.metric("etcd_debugging_mvcc_watcher_total").unwrap_or_default();
        let mut watch = etcdctl.follow(["watch", "--prefix", "/project"]);
        s.server.wait_for_watchers(before + 1.0);
        s.sh("echo v > project/jobs/job3");
        watch.expect(&["PUT", "/project/jobs/job3", "v", ""]);
        assert_eq!(etcdctl.run(["get", "/project/jobs/job3"]).ok(), "/project/jobs/job3\nv\n\n");
        s.sh("rm project/jobs/job3");
        watch.expect(&["DELETE", "/project/jobs/job3", ""]);
        assert_eq!(s.api.value("/project/jobs/job3"), None);
        assert_eq!(s.sh("ls project/jobs"), "job1\n");
    }

    fn tail_prints_every_new_value_whole(s: &Stage) {
        s.api.set("/project/jobs/job1", "first\n");
        s.comes_to_print("cat project/jobs/job1", "first\n");
        let mut tail = Followed::sh(&s.mount.path(), "tail -f project/jobs/job1");
        tail.expect(&["first"]);
        for value in ["other", "second", "2nd", "a much longer value than all before", "other", "other"] {
            s.api.set("/project/jobs/job1", format!("{value}\n"));
            tail.expect(&[value]);
        }
        s.sh("echo by echo > project/jobs/job1");
        tail.expect(&["by echo"]);
        let etcdctl = Client::etcdctl(&s.server.endpoint());
        etcdctl.run_with(["put", "/project/jobs/job1"], b"by etcdctl\n").ok();
        tail.expect(&["by etcdctl"]);
    }

    /// `setfattr -n user.etcfs.ttl -v 20 FILE`: the file disappears, not before its time.
    fn a_file_with_a_time_to_live_disappears(s: &Stage) {
        s.sh("echo v > job");
        let granted = Instant::now();
        s.sh("setfattr -n user.etcfs.ttl -v 20 job");
        let left: u64 = s.sh("getfattr --only-values -n user.etcfs.ttl job").parse().expect("seconds");
        assert!((15..=20).contains(&left), "{left}");
        assert_ne!(s.api.get("/job").expect("it is there").lease, 0);
        let gone = || (!s.mount.at("job").exists()).then_some(());
        wait::within(Duration::from_secs(40), "the file disappears", gone);
        assert!(granted.elapsed() >= Duration::from_secs(20), "gone after {:?}", granted.elapsed());
        assert_eq!(s.api.get("/job"), None);
    }

    fn a_file_is_put_on_a_lease_and_taken_off(s: &Stage) {
        let lease = s.api.grant(grant(5000)).expect("a lease is granted").id;
        s.sh("echo v > job");
        s.sh(&format!("setfattr -n user.etcfs.lease -v {lease:016x} job"));
        assert_eq!(s.api.get("/job").expect("it is there").lease, lease);
        assert_eq!(s.sh("cat job"), "v\n");
        assert_eq!(s.sh("getfattr --only-values -n user.etcfs.lease job"), format!("{lease:016x}"));
        assert_eq!(s.sh("getfattr --only-values -n user.etcfs.granted_ttl job"), "5000");
        s.sh("setfattr -x user.etcfs.lease job");
        assert_eq!(s.api.get("/job").expect("it is there").lease, 0);
    }

    fn a_files_attributes_are_the_facts_of_its_key(s: &Stage) {
        let lease = s.api.grant(grant(5000)).expect("a lease is granted").id;
        s.api.set("/job", "one");
        s.api.put(put_on_lease("/job", "two", lease)).expect("a put is accepted");
        s.comes_to_print("cat job", "two");
        let kv = s.api.get("/job").expect("it is there");
        let shown = s.sh("getfattr -d job");
        for (name, value) in [
            ("key", "/job".to_owned()),
            ("lease", format!("{lease:016x}")),
            ("granted_ttl", "5000".to_owned()),
            ("version", "2".to_owned()),
            ("create_revision", kv.create_revision.to_string()),
            ("revision", kv.mod_revision.to_string()),
        ] {
            assert!(shown.contains(&format!("user.etcfs.{name}=\"{value}\"\n")), "{name}={value} is not in {shown}");
        }
    }

    fn a_key_that_is_also_a_directory_shows_its_value_inside(s: &Stage) {
        s.api.set("/a/b", "of b");
        s.comes_to_print("cat a/b", "of b");
        s.api.set("/a/b/c", "of c");
        s.api.set("/a/b/d", "of d");
        s.comes_to_print("ls a/b", "%value\nc\nd\n");
        assert_eq!(s.sh("cat a/b/%value a/b/c a/b/d"), "of bof cof d");
        s.sh("echo new > a/b/%value");
        assert_eq!(s.api.value("/a/b").as_deref(), Some("new\n"));
        s.sh("rm -r a");
        assert!(s.api.all("/a").is_empty());
    }

    fn a_key_without_a_slash_is_found_at_the_root(s: &Stage) {
        s.api.set("name", "zyq");
        s.comes_to_print("cat name", "zyq");
        assert_eq!(s.sh("readlink name"), "%rel/name\n");
        s.sh("echo other > name");
        assert_eq!(s.api.value("name").as_deref(), Some("other\n"));
    }
}
