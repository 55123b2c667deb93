//! The tutorial. Each chapter runs four times, and prints the same four times:
//! with `etcdctl` and with `etcfs`, on `etcfsd` and on etcd itself.

use std::time::{Duration, Instant};

use etcfs_tests::{
    command::Client,
    server::{Kind, Server},
    wait,
};

/// A server and the client that speaks to it.
struct Stage {
    server: Server,
    client: Client,
}

impl Stage {
    fn new(kind: Kind, client: fn(&str) -> Client) -> Self {
        let server = Server::start(kind);
        let client = client(&server.endpoint());
        Self { server, client }
    }

    /// Runs a command that succeeds, and returns what it prints.
    #[track_caller]
    fn run(&self, args: &str) -> String {
        self.client.run(args.split(' ')).ok()
    }

    /// Runs a command and checks what it prints.
    #[track_caller]
    fn says(&self, args: &str, output: &str) {
        assert_eq!(self.run(args), output, "{} {args}", self.client.name);
    }

    /// Grants a lease; returns its id as the client prints it.
    #[track_caller]
    fn grant(&self, ttl: u32) -> String {
        let printed = self.run(&format!("lease grant {ttl}"));
        let id = printed.strip_prefix("lease ").and_then(|rest| rest.split(' ').next()).unwrap_or_default();
        assert_eq!(printed, format!("lease {id} granted with TTL({ttl}s)\n"));
        assert!(id.len() == 16 && id.chars().all(|c| c.is_ascii_hexdigit()), "{id}");
        id.to_owned()
    }
}

macro_rules! chapters {
    ($($(#[$doc:meta])* fn $name:ident($stage:ident: &Stage) $body:block)*) => {
        $(
            $(#[$doc])*
            mod $name {
                use super::*;

                fn chapter($stage: &Stage) $body

                #[test]
                fn etcdctl_on_etcfsd() { chapter(&Stage::new(Kind::Etcfs, Client::etcdctl)) }
                #[test]
                fn etcfs_on_etcfsd() { chapter(&Stage::new(Kind::Etcfs, Client::etcfs)) }
                #[test]
                fn etcdctl_on_etcd() { chapter(&Stage::new(Kind::Etcd, Client::etcdctl)) }
                #[test]
                fn etcfs_on_etcd() { chapter(&Stage::new(Kind::Etcd, Client::etcfs)) }
            }
        )*
    };
}

chapters! {
    fn a_key_is_put_read_and_deleted(s: &Stage) {
        s.says("put name zyq", "OK\n");
        s.says("get name", "name\nzyq\n");
        s.says("get name --print-value-only", "zyq\n");
        s.says("del name", "1\n");
        s.says("get name", "");
        s.says("del name", "0\n");
    }

    fn keys_below_a_prefix_are_read_and_deleted_together(s: &Stage) {
        s.says("put /project/jobs/job1 one", "OK\n");
        s.says("put /project/jobs/job2 two", "OK\n");
        s.says("get --prefix /project/jobs", "/project/jobs/job1\none\n/project/jobs/job2\ntwo\n");
        s.says("get --prefix --keys-only /project/jobs", "/project/jobs/job1\n\n/project/jobs/job2\n\n");
        s.says("del --prefix /project/jobs", "2\n");
        s.says("get --prefix /project/jobs", "");
    }

    fn a_watch_prints_put_and_delete(s: &Stage) {
        let mut watch = s.client.follow(["watch", "name"]);
        s.server.wait_for_watchers(1.0);
        s.run("put name zyq");
        watch.expect(&["PUT", "name", "zyq"]);
        s.run("del name");
        watch.expect(&["DELETE", "name", ""]);
    }

    fn a_watch_of_a_prefix_prints_every_key_below_it(s: &Stage) {
        let mut watch = s.client.follow(["watch", "--prefix", "/project/jobs"]);
        s.server.wait_for_watchers(1.0);
        s.run("put /project/jobs/job1 one");
        s.run("put /project/other no");
        s.run("put /project/jobs/job2 two");
        watch.expect(&["PUT", "/project/jobs/job1", "one", "PUT", "/project/jobs/job2", "two"]);
        s.run("del --prefix /project/jobs");
        watch.expect(&["DELETE", "/project/jobs/job1", "", "DELETE", "/project/jobs/job2", ""]);
    }

    fn a_watch_begins_at_a_past_revision(s: &Stage) {
        // The store begins at revision 1.
        s.run("put name one");
        s.run("put name two");
        s.run("del name");
        s.run("put name three");
        let mut watch = s.client.follow(["watch", "--rev=3", "name"]);
        watch.expect(&["PUT", "name", "two", "DELETE", "name", "", "PUT", "name", "three"]);
        s.run("put name four");
        watch.expect(&["PUT", "name", "four"]);
    }

    fn a_watch_shows_the_previous_value_where_asked(s: &Stage) {
        s.run("put name one");
        let mut watch = s.client.follow(["watch", "--prev-kv", "name"]);
        s.server.wait_for_watchers(1.0);
        s.run("put name two");
        watch.expect(&["PUT", "name", "one", "name", "two"]);
    }

    fn an_old_revision_is_read_until_it_is_compacted(s: &Stage) {
        s.run("put name one");
        s.run("put name two");
        s.says("get --rev=2 name", "name\none\n");
        s.says("compaction 3", "compacted revision 3\n");
        let refused = s.client.run(["get", "--rev=2", "name"]);
        assert!(refused.code != 0 && refused.stderr.contains("required revision has been compacted"), "{refused:?}");
    }

    /// `lease grant 20`, `put --lease`: the key is there until 20 seconds have passed, and then gone.
    fn a_key_goes_when_its_lease_expires(s: &Stage) {
        let granted = Instant::now();
        let id = s.grant(20);
        s.says(&format!("put --lease={id} name zyq"), "OK\n");
        s.says("get name", "name\nzyq\n");
        let left = s.run(&format!("lease timetolive {id}"));
        assert!(left.starts_with(&format!("lease {id} granted with TTL(20s), remaining(")), "{left}");
        let left = s.run(&format!("lease timetolive --keys {id}"));
        assert!(left.ends_with("attached keys([name])\n"), "{left}");
        wait::within(Duration::from_secs(40), "the key expires", || s.run("get name").is_empty().then_some(()));
        assert!(granted.elapsed() >= Duration::from_secs(20), "gone after {:?}", granted.elapsed());
        s.says(&format!("lease timetolive {id}"), &format!("lease {id} already expired\n"));
    }

    fn a_revoked_lease_takes_its_keys_at_once(s: &Stage) {
        let id = s.grant(1000);
        s.says(&format!("put --lease={id} name zyq"), "OK\n");
        s.says(&format!("lease revoke {id}"), &format!("lease {id} revoked\n"));
        s.says("get name", "");
        let refused = s.client.run(["lease", "revoke", &id]);
        assert!(refused.code != 0 && refused.stderr.contains("requested lease not found"), "{refused:?}");
    }

    fn a_lease_that_is_kept_alive_does_not_expire(s: &Stage) {
        let id = s.grant(2);
        s.says(&format!("put --lease={id} name zyq"), "OK\n");
        let mut renewals = s.client.follow(["lease", "keep-alive", &id]);
        let line = format!("lease {id} keepalived with TTL(2)");
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(6) {
            renewals.expect(&[&line]);
            s.says("get name", "name\nzyq\n");
        }
        drop(renewals);
        wait::until("the key goes once nobody renews", || s.run("get name").is_empty().then_some(()));
        let refused = s.client.run(["lease", "keep-alive", "--once", &id]);
        assert!(refused.code != 0 && refused.stderr.contains("requested lease not found"), "{refused:?}");
    }

    fn a_transaction_takes_the_branch_that_its_compares_say(s: &Stage) {
        s.run("put name zyq");
        let script = b"value(\"name\") = \"zyq\"\n\nput result yes\nget name\n\nput result no\n\n";
        let printed = s.client.run_with(["txn"], script).ok();
        assert_eq!(printed, "SUCCESS\n\nOK\n\nname\nzyq\n");
        s.says("get result", "result\nyes\n");
        let script = b"value(\"name\") = \"other\"\n\nput result yes\n\nput result no\n\n";
        assert_eq!(s.client.run_with(["txn"], script).ok(), "FAILURE\n\nOK\n");
        s.says("get result", "result\nno\n");
    }
}
