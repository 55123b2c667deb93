//! Power cuts of one member and of all: what was not synced is gone.

use etcfs_tests::{disk::Disk, judge::Rule, machine::setting, partition::Cluster, server::Kind};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::{
    KNOWN_OF_ETCD, Setup,
    clients::Clients,
    nemesis::{Fault, Whom},
    under,
};

/// Cuts of one test.
const CUTS: u64 = 2;
const DISK_BYTES: u64 = 768 << 20;
/// Revisions before a cut, at most.
const REVISIONS: i64 = 600;

fn power_is_cut(kind: Kind, args: &[&str], known: &[Rule]) {
    let mut setup = Setup::new(kind, 3);
    let mut disks: Vec<Disk> = (0..setup.shape.members).map(|_| Disk::empty(DISK_BYTES)).collect();
    setup.shape.data_dirs = disks.iter().map(|disk| disk.path().join("data")).collect();
    setup.shape.args = args.iter().map(|&arg| arg.to_owned()).collect();
    let (cuts, mut random) = (setting("ETCFS_TEST_POWER_CUTS", CUTS), StdRng::seed_from_u64(setup.seed));
    under(setup, known, |cluster, clients, nemesis| {
        for number in 0..cuts {
            clients.wait_for_more(random.random_range(0..REVISIONS));
            let whom = if number % 2 == 0 { Whom::All } else { Whom::One };
            let victims = nemesis.victims(cluster, whom);
            let fault = cut(cluster, &mut disks, clients, whom, victims);
            nemesis.faults.push(fault);
        }
        clients.wait_for_more(REVISIONS);
    });
    drop(disks);
}

/// Takes the disks of all victims as they are at one moment, and lets them start from those.
fn cut(
    cluster: &mut Cluster,
    disks: &mut [Disk],
    clients: &Clients,
    whom: Whom,
    victims: Vec<usize>,
) -> Fault {
    let from = clients.now();
    // Stopped, so that nothing is acknowledged by them after the copy is made.
    victims.iter().for_each(|&victim| cluster.pause(victim));
    let after: Vec<Disk> = victims.iter().map(|&victim| disks[victim].after_power_cut()).collect();
    for (&victim, disk) in victims.iter().zip(after) {
        cluster.kill(victim);
        cluster.set_data_dir(victim, disk.path().join("data"));
        disks[victim] = disk;
        cluster.launch(victim);
    }
    Fault { deed: "power cut", whom, victims, from, until: clients.now() }
}

#[test]
fn nothing_acknowledged_is_lost_with_the_power_of_a_cluster() {
    power_is_cut(Kind::Etcfs, &["--snapshot-count=200"], &[]);
}

/// What is demanded is what etcd does.
#[test]
fn the_reference_loses_nothing_acknowledged_with_the_power_of_a_cluster() {
    power_is_cut(Kind::Etcd, &[], KNOWN_OF_ETCD);
}
