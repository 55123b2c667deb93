//! A sync that fails: nothing may be acknowledged after it, and the process ends.
//!
//! strace makes every fdatasync of the server fail from one moment on, without
//! doing it. The disk is then cut off as by a power cut, so that an answer given
//! on an unsynced log is found out: its put is missing.

use std::{
    process::{Child, Command, Stdio},
    time::Duration,
};

use etcfs_tests::{
    disk::Disk,
    machine,
    server::{Kind, Options, Server},
    wait,
};

use crate::verdict::Clients;

/// Its end must come this soon after the first failed sync.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);

/// strace on a process; it ends with the process.
pub(crate) struct Tracer(Child);

impl Tracer {
    /// Every sync of the process `pid` fails from now on.
    pub(crate) fn failing_syncs(pid: u32) -> Self {
        let child = Command::new(machine::program("strace"))
            .args(["-f", "-qq", "-o", "/dev/null"])
            .args(["-e", "trace=fdatasync,fsync", "-e", "inject=fdatasync,fsync:error=EIO"])
            .args(["-p", &pid.to_string()])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("strace starts");
        Self(child)
    }
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
