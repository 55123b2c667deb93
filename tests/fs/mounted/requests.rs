//! What a mount costs its server: in requests, not in time.

use std::{fs, time::Duration};

use etcfs_tests::{
    api::{Op, put, txn},
    listener::Listener,
    mount::Mount,
    proxy::Proxy,
    server::{Kind, Server},
};

use super::Stage;

/// What a program has begun is over.
const SETTLED: Duration = Duration::from_secs(1);

/// Longer than anything that a mount does by the clock, but for the renewal of its session.
const IDLE: Duration = Duration::from_secs(12);

/// Calls begun since the server's start, of all kinds.
fn calls(server: &Server) -> f64 {
    server.metric("grpc_server_started_total").expect("the server counts")
}

/// Bytes that it has answered.
fn answered(server: &Server) -> f64 {
    server.metric("etcd_network_client_grpc_sent_bytes_total").expect("the server counts")
}

fn removing_a_name_costs_the_same_in_a_large_directory(kind: Kind) {
    let mut s = Stage::on(kind);
    // The helper for inotify asks for what it tells.
    s.mount = Mount::with(&format!("{}:/", s.server.endpoint()), "inotify=off");
    // The first change is the session's begin too.
    s.sh("mkdir first");
    let costs = [20, 5000].map(|size: usize| {
        let dir = format!("d{size:04}");
        let keys: Vec<String> = (0..size).map(|number| format!("/{dir}/{number:04}")).collect();
        for keys in keys.chunks(100) {
            let puts = keys.iter().map(|key| Op::Put(put(key, "v")));
            s.api.txn(txn(puts)).expect("a txn is accepted");
        }
        s.comes_to_print(&format!("cat {dir}/{:04}", size - 1), "v");
        let before = (calls(&s.server), answered(&s.server));
        let middle = size / 2;
        let removed = [0, 1, 2, middle, middle + 1, middle - 1, size - 2, size - 3];
        for number in removed {
            fs::remove_file(s.mount.at(format!("{dir}/{number:04}"))).expect("it is there");
        }
        let cost = (calls(&s.server) - before.0, answered(&s.server) - before.1);
        // What the name is, and the change; once, who else is in the directory.
        assert!(cost.0 <= (2 * removed.len() + 1) as f64, "{cost:?} in a directory of {size}");
        cost
    });
    assert!(costs[1].1 < 2.0 * costs[0].1, "calls and bytes: {costs:?}");
}

/// Removing a name costs the same in a large directory
#[test]
fn removing_a_mounted_name_costs_the_same_in_a_large_directory_on_etcfsd() {
    removing_a_name_costs_the_same_in_a_large_directory(Kind::Etcfs);
}

#[test]
fn removing_a_mounted_name_costs_the_same_in_a_large_directory_on_etcd() {
    removing_a_name_costs_the_same_in_a_large_directory(Kind::Etcd);
}

/// Time of the processor that a process has used, in hundredths of a second.
fn ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    // After the name, which may hold anything: fields 14 and 15.
    let (_, fields) = stat.rsplit_once(')').expect("there is a name");
    fields.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().expect("a number")).sum()
}

fn an_idle_mount_sends_no_requests(kind: Kind) {
    let server = Server::start(kind);
    let proxy = Proxy::to(&server.endpoint());
    let mut mount = Mount::root(&proxy.endpoint());
    let (pid, api) = (mount.process().pid(), server.api());
    // It has read, listed and written, has a file open and a listener, and has heard of others' changes.
    mount.sh("mkdir d; echo 1 > d/f; cat d/f; ls d; ls nosuch || true");
    let open = fs::File::open(mount.at("d/f")).expect("it is there");
    let listener = Listener::to_changes(&mount.at("d"));
    api.set("/d/g", "v");
    listener.expect(&["CREATE g", "MODIFY g", "CLOSE_WRITE g"]);
    listener.expect_silence(SETTLED);
    let before = (calls(&server), proxy.messages());
    let used = ticks(pid);
    listener.expect_silence(IDLE);
    assert_eq!((calls(&server), proxy.messages()), before, "calls, and messages of calls, in {IDLE:?}");
    let used = ticks(pid) - used;
    assert!(used <= 2, "{used} hundredths of a second in {IDLE:?}");
    // It is there all the same.
    api.set("/d/g", "w");
    listener.expect(&["MODIFY g", "CLOSE_WRITE g"]);
    drop(open);
}

/// An idle mount sends no requests
#[test]
fn an_idle_mount_sends_no_requests_to_etcfsd() {
    an_idle_mount_sends_no_requests(Kind::Etcfs);
}

#[test]
fn an_idle_mount_sends_no_requests_to_etcd() {
    an_idle_mount_sends_no_requests(Kind::Etcd);
}
