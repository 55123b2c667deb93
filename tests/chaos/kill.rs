//! kill -9 again and again, under load.

use etcfs_tests::{
    machine::setting,
    server::{Kind, Options, Server},
};

use crate::verdict::{Clients, image_stood};

/// Kills of one test.
const KILLS: u64 = 50;
/// Acknowledged puts between two kills, at most: sometimes none, so that recovery is killed too.
const PUTS_BETWEEN: u64 = 150;

fn killed_again_and_again(kind: Kind, kills: u64, args: &[&str]) {
    let args = args.iter().map(|&arg| arg.to_owned()).collect();
    let mut server = Server::with(kind, Options { args, ..Default::default() });
    let clients = Clients::start(&server);
    for kill in 0..kills {
        clients.load.wait_for_more(if kill % 5 == 4 { 0 } else { 1 + rand::random::<u64>() % PUTS_BETWEEN });
        server.kill();
        server.run();
    }
    clients.load.wait_for_more(PUTS_BETWEEN);
    clients.check(&server);
    image_stood(&server);
}

#[test]
fn every_acknowledged_put_survives_50_kills_and_is_made_once() {
    killed_again_and_again(Kind::Etcfs, setting("ETCFS_TEST_KILLS", KILLS), &[]);
}

/// The same with a snapshot, a flush of the image and a purge of the log every few puts.
#[test]
fn every_acknowledged_put_survives_kills_among_snapshots() {
    killed_again_and_again(Kind::Etcfs, setting("ETCFS_TEST_KILLS", KILLS) / 2, &["--snapshot-count=50"]);
}

/// What is demanded is what etcd does.
#[test]
fn the_reference_passes_the_same() {
    killed_again_and_again(Kind::Etcd, 5, &[]);
}

/// Killed while it recovers, before it serves.
#[test]
fn a_recovery_that_is_killed_recovers() {
    let mut server = Server::start(Kind::Etcfs);
    let clients = Clients::start(&server);
    clients.load.wait_for_more(300);
    server.kill();
    for after_ms in [1, 5, 10, 20, 40, 80, 120, 160] {
        server.launch();
        std::thread::sleep(std::time::Duration::from_millis(after_ms));
        server.kill();
    }
    server.run();
    clients.load.wait_for_more(50);
    clients.check(&server);
}
