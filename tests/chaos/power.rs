//! Power cuts: what was not synced is gone, what was acknowledged is there.

use etcfs_tests::{
    disk::Disk,
    machine::setting,
    server::{Kind, Options, Server},
};

use crate::verdict::Clients;

/// Cuts of one test.
const CUTS: u64 = 3;
const DISK_BYTES: u64 = 768 << 20;
/// Acknowledged puts before a cut.
const PUTS: u64 = 400;

fn power_is_cut(kind: Kind, cuts: u64, args: &[&str]) {
    let mut disk = Disk::empty(DISK_BYTES);
    let args = args.iter().map(|&arg| arg.to_owned()).collect();
    let data_dir = Some(disk.path().join("data"));
    let mut server = Server::with(kind, Options { args, data_dir, ..Default::default() });
    let clients = Clients::start(&server);
    for _ in 0..cuts {
        clients.load.wait_for_more(PUTS);
        // Stopped, so that the copy is the disk of one moment: nothing is acknowledged after it.
        server.pause();
        let after = disk.after_power_cut();
        server.kill();
        server.set_data_dir(after.path().join("data"));
        disk = after;
        server.run();
    }
    clients.load.wait_for_more(20);
    clients.check(&server);
    server.kill();
}

#[test]
fn nothing_acknowledged_is_lost_with_the_power() {
    power_is_cut(Kind::Etcfs, setting("ETCFS_TEST_POWER_CUTS", CUTS), &[]);
}

#[test]
fn nothing_acknowledged_is_lost_with_the_power_among_snapshots() {
    power_is_cut(Kind::Etcfs, setting("ETCFS_TEST_POWER_CUTS", CUTS), &["--snapshot-count=50"]);
}

/// What is demanded is what etcd does.
#[test]
fn the_reference_passes_the_same() {
    power_is_cut(Kind::Etcd, 1, &[]);
}
