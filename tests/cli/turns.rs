//! Locks and elections go from one holder to the next, whichever client each of them is.

use std::time::Duration;

use etcfs_tests::{
    cluster::Cluster,
    command::{Client, Followed},
    server::Kind,
    wait,
};
use rustix::process::{Pid, Signal, kill_process};

/// So long nobody else may have been told that it is its turn.
const QUIET: Duration = Duration::from_millis(200);

/// One member, or three of which each client has another.
struct Stage(Cluster);

impl Stage {
    fn new(kind: Kind, members: usize) -> Self {
        let cluster = Cluster::with(kind, members, &[]);
        cluster.leader();
        Self(cluster)
    }

    fn client(&self, connect: fn(&str) -> Client, nth: usize) -> Client {
        connect(&self.0.members[nth % self.0.members.len()].endpoint())
    }
}

fn interrupt(command: &Followed) {
    let pid = i32::try_from(command.pid()).ok().and_then(Pid::from_raw).expect("a process");
    kill_process(pid, Signal::INT).expect("it can be signalled");
}

fn wait_for_queue(client: &Client, name: &str, length: usize) {
    let list = ["get", "--prefix", "--keys-only", name];
    wait::until_true("all have queued up", || {
        client.run(list).ok().lines().filter(|line| !line.is_empty()).count() == length
    });
}

fn a_lock_has_one_holder_at_a_time(stage: &Stage) {
    let (etcdctl, etcfs) = (stage.client(Client::etcdctl, 0), stage.client(Client::etcfs, 1));
    for (name, first, second) in [("a", &etcfs, &etcdctl), ("b", &etcdctl, &etcfs), ("c", &etcfs, &etcfs)] {
        let mut holder = first.follow(["lock", name]);
        let held = holder.line();
        assert!(held.starts_with(&format!("{name}/")), "{held}");
        let mut waiter = second.follow(["lock", name]);
        wait_for_queue(&etcfs, &format!("{name}/"), 2);
        waiter.expect_silence(QUIET);
        interrupt(&holder);
        let next = waiter.line();
        assert!(next.starts_with(&format!("{name}/")) && next != held, "{next} after {held}");
        assert!(holder.end(), "giving a lock back is no failure");
        interrupt(&waiter);
        waiter.line();
        assert!(waiter.end(), "giving a lock back is no failure");
        wait_for_queue(&etcfs, &format!("{name}/"), 0);
    }
}

fn a_command_runs_under_a_lock_and_its_end_gives_it_back(stage: &Stage) {
    let client = stage.client(Client::etcfs, 2);
    let script = "echo $ETCD_LOCK_KEY $ETCD_LOCK_REV; exit 3";
    let first = client.run(["lock", "x", "sh", "-c", script]);
    let second = client.run(["lock", "x", "sh", "-c", script]);
    assert_eq!((first.code, second.code), (3, 3), "{first:?} {second:?}");
    let token = |stdout: &str| {
        let (key, token) = stdout.trim().split_once(' ').expect("key and token");
        assert!(key.starts_with("x/"), "{stdout}");
        token.parse::<i64>().expect("a number")
    };
    assert!(token(&second.stdout) > token(&first.stdout), "{second:?} after {first:?}");
    assert_eq!(client.run(["lease", "list"]).ok(), "found 0 leases\n");
}

fn a_leader_is_followed_by_the_next_and_all_who_listen_hear_of_it(stage: &Stage) {
    let (etcdctl, etcfs) = (stage.client(Client::etcdctl, 0), stage.client(Client::etcfs, 1));
    let mut listener = stage.client(Client::etcfs, 2).follow(["elect", "-l", "e"]);
    let mut first = etcfs.follow(["elect", "e", "one"]);
    let key = first.line();
    first.expect(&["one"]);
    listener.expect(&[&key, "one"]);
    let mut second = etcdctl.follow(["elect", "e", "two"]);
    wait_for_queue(&etcfs, "e/", 2);
    second.expect_silence(QUIET);
    interrupt(&first);
    let key = second.line();
    second.expect(&["two"]);
    listener.expect(&[&key, "two"]);
    assert!(first.end(), "resigning is no failure");
}

macro_rules! on_one_and_on_three {
    ($($name:ident)*) => {
        $(
            mod $name {
                use super::*;

                #[test]
                fn on_etcfsd() { super::$name(&Stage::new(Kind::Etcfs, 1)) }
                #[test]
                fn on_etcd() { super::$name(&Stage::new(Kind::Etcd, 1)) }
                #[test]
                fn on_three_of_etcfsd() { super::$name(&Stage::new(Kind::Etcfs, 3)) }
                #[test]
                fn on_three_of_etcd() { super::$name(&Stage::new(Kind::Etcd, 3)) }
            }
        )*
    };
}

on_one_and_on_three! {
    a_lock_has_one_holder_at_a_time
    a_command_runs_under_a_lock_and_its_end_gives_it_back
    a_leader_is_followed_by_the_next_and_all_who_listen_hear_of_it
}
