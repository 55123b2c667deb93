//! Syncs that fail, or take their time: no put is answered before its own is done.
//!
//! strace makes every fdatasync of the server fail from one moment on, without
//! doing it. The disk is then cut off as by a power cut, so that an answer given
//! on an unsynced log is found out: its put is missing. The same is done to the
//! log's thread alone, whose syncs then fail from the first put on, or are held up.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use etcfs_tests::{
    binary, command,
    disk::Disk,
    history::What,
    load::Load,
    machine,
    server::{Kind, Options, Server},
    wait,
};

use crate::verdict::Clients;

/// Its end must come this soon after the first failed sync.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);

/// How long each sync of the log is held up before it is done.
const DELAY: Duration = Duration::from_millis(500);

/// strace on a process, or on one thread of it; it ends with the process.
pub(crate) struct Tracer(Child);

impl Tracer {
    /// Every sync of the process `pid` fails from now on.
    pub(crate) fn failing_syncs(pid: u32) -> Self {
        Self::start(&["-f"], pid, "error=EIO")
    }

    /// The same for `server`'s log alone, or for all of etcd, which has no thread for it. Returns once it is so.
    fn of_log(server: &Server, fault: &str) -> Self {
        let (options, id): (&[_], _) = match server.kind() {
            Kind::Etcfs => (&[], thread(server.pid(), "wal")),
            Kind::Etcd => (&["-f"], server.pid()),
        };
        let tracer = Self::start(options, id, fault);
        for id in if options.is_empty() { vec![id] } else { threads(id) } {
            wait::until_true("strace holds the thread", || is_traced(id));
        }
        tracer
    }

    /// Each sync of `server` is a line of the file `told`, with the path of what is synced. Returns once it is so.
    fn telling(server: &Server, told: &Path) -> Self {
        let child = Command::new(machine::program("strace"))
            .args(["-qq", "-f", "-y", "-e", "trace=fdatasync,fsync,syncfs,sync_file_range", "-o"])
            .arg(told)
            .args(["-p", &server.pid().to_string()])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("strace starts");
        let tracer = Self(child);
        for id in threads(server.pid()) {
            wait::until_true("strace holds the thread", || is_traced(id));
        }
        tracer
    }

    fn start(options: &[&str], id: u32, fault: &str) -> Self {
        let child = Command::new(machine::program("strace"))
            .args(["-qq", "-o", "/dev/null", "-e", "trace=fdatasync,fsync"])
            .args(["-e", &format!("inject=fdatasync,fsync:{fault}")])
            .args(options)
            .args(["-p", &id.to_string()])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("strace starts");
        Self(child)
    }
}

fn threads(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("a running process");
    tasks.filter_map(|task| task.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// The thread of a process that has this name.
fn thread(pid: u32, name: &str) -> u32 {
    let called = |id: &u32| {
        let found = fs::read_to_string(format!("/proc/{pid}/task/{id}/comm"));
        found.is_ok_and(|found| found.trim_end() == name)
    };
    threads(pid).into_iter().find(called).unwrap_or_else(|| panic!("{pid} has a thread {name}"))
}

/// True also of a thread that has ended.
fn is_traced(id: u32) -> bool {
    let Ok(status) = fs::read_to_string(format!("/proc/{id}/status")) else { return true };
    !status.lines().any(|line| line == "TracerPid:\t0")
}

impl Drop for Tracer {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn a_failed_sync_ends_the_server(kind: Kind) {
    let disk = Disk::empty(768 << 20);
    let data_dir = Some(disk.path().join("data"));
    let mut server = Server::with(kind, Options { data_dir, ..Default::default() });
    let clients = Clients::start(&server);
    clients.load.wait_for_more(200);
    let tracer = Tracer::failing_syncs(server.pid());
    let status = server.wait_for_end(PATIENCE);
    assert!(!status.success(), "it ends as failed: {status}");
    drop(tracer);
    let acknowledged = clients.load.acknowledged();
    let disk = disk.after_power_cut();
    server.set_data_dir(disk.path().join("data"));
    server.run();
    wait::until_true("the clients go on", || clients.load.acknowledged() > acknowledged);
    clients.check(&server);
    server.kill();
}

#[test]
fn nothing_is_acknowledged_after_a_failed_sync_and_the_process_ends() {
    a_failed_sync_ends_the_server(Kind::Etcfs);
}

/// What is demanded is what etcd does.
#[test]
fn the_reference_passes_the_same() {
    a_failed_sync_ends_the_server(Kind::Etcd);
}

fn no_put_is_answered_sooner_than_its_sync(kind: Kind) {
    let server = Server::start(kind);
    let tracer = Tracer::of_log(&server, &format!("delay_enter={}", DELAY.as_micros()));
    let load = Load::start(&server.endpoint(), "load/", 16);
    load.wait_for_more(100);
    let calls = load.stop();
    drop(tracer);
    let puts = calls.iter().filter(|call| matches!(call.what, What::Put { .. }));
    let soonest = puts.map(|call| call.answered - call.asked).min().expect("puts were answered");
    assert!(soonest >= DELAY, "a put was answered within {soonest:?}, each sync takes {DELAY:?}");
}

#[test]
fn no_put_is_answered_before_the_logs_sync_is_done() {
    no_put_is_answered_sooner_than_its_sync(Kind::Etcfs);
}

/// The measure is right: etcd keeps to it.
#[test]
fn the_reference_answers_no_put_before_its_sync_is_done() {
    no_put_is_answered_sooner_than_its_sync(Kind::Etcd);
}

#[test]
fn no_put_at_all_is_answered_where_the_log_can_not_be_synced() {
    let mut server = Server::etcfs();
    let tracer = Tracer::of_log(&server, "error=EIO");
    let load = Load::start(&server.endpoint(), "load/", 16);
    let status = server.wait_for_end(PATIENCE);
    assert!(!status.success(), "it ends as failed: {status}");
    drop(tracer);
    let calls = load.stop();
    let lost = calls.iter().filter(|call| matches!(call.what, What::LostPut { .. })).count();
    assert!(lost > 0, "puts were asked for");
    let answered = calls.iter().find(|call| !matches!(call.what, What::LostPut { .. } | What::Read { .. }));
    assert!(answered.is_none(), "{answered:?}");
}

/// Puts beside one waited for its syncs.
#[test]
fn a_snapshot_that_is_taken_away_is_not_synced() {
    let server = Server::etcfs();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let told = dir.path().join("syncs");
    let _tracer = Tracer::telling(&server, &told);
    let syncs = || fs::read_to_string(&told).unwrap_or_default();
    let of_log = || syncs().lines().filter(|line| line.contains("/wal/")).count();
    server.api().set("/k", "1");
    wait::until_true("the log's sync is told of", || of_log() > 0);
    let mut save = Command::new(binary::etcfs());
    save.args(["--endpoints", &server.endpoint(), "snapshot", "save"]).arg(dir.path().join("snapshot"));
    command::run(&mut save, b"").ok();
    let before = of_log();
    server.api().set("/k", "2");
    wait::until_true("all before is told of", || of_log() > before);
    assert!(!syncs().contains("outgoing"), "{}", syncs());
}
