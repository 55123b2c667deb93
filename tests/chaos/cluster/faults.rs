//! Faults of one member's own: its disk and its clock. The cluster keeps its word.

use std::{
    fs::{self, File},
    io::Write as _,
    path::Path,
    process::Command,
};

use etcfs_tests::{
    clock::Clock,
    command,
    disk::Disk,
    judge::Rule,
    machine::setting,
    partition::Cluster,
    process::show,
    server::{Kind, http_get},
    wait,
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};

use super::{
    KNOWN_OF_ETCD, Setup,
    nemesis::{Fault, Whom},
    under,
};
use crate::{full::Tmpfs, rot, sync_error};

const DISK_BYTES: u64 = 768 << 20;
/// Revisions before a fault.
const REVISIONS: i64 = 150;
/// Flips of one test.
const FLIPS: u64 = 4;
/// Enough for the logs and images of all members, and filled to the last byte by the test.
const SMALL_MIB: u64 = 700;
/// How far a clock jumps: an hour, a day, and past what 32 bits hold.
const JUMPS: [i64; 5] = [3_600, -3_600, 86_400, -86_400, 2_000_000_000];

/// A leader, and one that follows.
fn roles(cluster: &Cluster) -> (usize, usize) {
    let leader = wait::until("there is a leader", || cluster.leader());
    (leader, (leader + 1) % cluster.len())
}

/// Of three members one is away, so that whatever is acknowledged is on the disks
/// of both others. Then the syncs of one of these two fail. In the end the other
/// one goes and the first comes back: what only the two had must be on the disk
/// of the one whose syncs failed, as a power cut leaves it.
fn syncs_of_a_member_fail(kind: Kind, known: &[Rule]) {
    let mut setup = Setup::new(kind, 3);
    let mut disks: Vec<Disk> = (0..setup.shape.members).map(|_| Disk::empty(DISK_BYTES)).collect();
    setup.shape.data_dirs = disks.iter().map(|disk| disk.path().join("data")).collect();
    under(setup, known, |cluster, clients, nemesis| {
        for whom in [Whom::One, Whom::Leader] {
            let (leader, follower) = roles(cluster);
            let (victim, other) = if whom == Whom::Leader { (leader, follower) } else { (follower, leader) };
            let away = 3 - leader - follower;
            clients.wait_for_more(REVISIONS);
            cluster.kill(away);
            clients.wait_for_more(REVISIONS);
            let from = clients.now();
            let tracer = sync_error::Tracer::failing_syncs(cluster.pid(victim));
            let status = cluster.wait_for_end(victim, sync_error::PATIENCE);
            assert!(!status.success(), "it ends as failed: {status}");
            drop(tracer);
            disks[victim] = disks[victim].after_power_cut();
            cluster.set_data_dir(victim, disks[victim].path().join("data"));
            cluster.kill(other);
            cluster.launch(victim);
            cluster.launch(away);
            let fault =
                Fault { deed: "failed sync", whom, victims: vec![victim], from, until: clients.now() };
            nemesis.faults.push(fault);
            clients.wait_for_more(REVISIONS);
            cluster.launch(other);
            cluster.wait_until_ready();
        }
    });
    drop(disks);
}

#[test]
fn a_member_whose_syncs_fail_ends_and_has_acknowledged_nothing_unsynced() {
    syncs_of_a_member_fail(Kind::Etcfs, &[]);
}

/// What is demanded is what etcd does.
#[test]
fn the_reference_ends_on_failed_syncs_of_a_member_too() {
    syncs_of_a_member_fail(Kind::Etcd, KNOWN_OF_ETCD);
}

/// A byte of a member's files flips while it is down. It refuses them, or repairs
/// what it holds; either way nobody reads anything else than was written.
#[test]
fn a_member_with_a_flipped_byte_refuses_or_repairs_it_and_serves_nothing_wrong() {
    let mut setup = Setup::new(Kind::Etcfs, 3);
    let mut random = StdRng::seed_from_u64(setup.seed);
    // Short logs, so that images and snapshots are in use as well.
    setup.shape.args = vec!["--snapshot-count=100".into()];
    let kept = tempfile::Builder::new().prefix("etcfs-tests-kept-").tempdir().unwrap();
    under(setup, &[], |cluster, clients, nemesis| {
        let (mut refused, mut served) = (0, 0);
        for number in 0..setting("ETCFS_TEST_FLIPS", FLIPS) {
            clients.wait_for_more(REVISIONS);
            let whom = if number % 2 == 0 { Whom::Leader } else { Whom::One };
            let victim = nemesis.victims(cluster, whom)[0];
            let from = clients.now();
            cluster.kill(victim);
            let (data, copy) = (cluster.data_dir(victim), kept.path().join(number.to_string()));
            copy_all(&data, &copy);
            let flipped = flip(&data, &mut random);
            if serves_again(cluster, victim) {
                served += 1;
                show(&format!("{flipped}: it serves"));
            } else {
                refused += 1;
                show(&format!("{flipped}: it refuses"));
                fs::remove_dir_all(&data).unwrap();
                copy_all(&copy, &data);
                cluster.launch(victim);
            }
            let victims = vec![victim];
            nemesis.faults.push(Fault { deed: "flipped byte", whom, victims, from, until: clients.now() });
            cluster.wait_until_ready();
        }
        clients.wait_for_more(REVISIONS);
        show(&format!("{refused} refused, {served} served on"));
    });
}

/// Starts a member; false where it ends instead of serving.
fn serves_again(cluster: &mut Cluster, member: usize) -> bool {
    cluster.launch(member);
    let endpoint = cluster.endpoint(member);
    wait::until("the member serves or ends", || {
        if cluster.has_fallen(member).is_some() {
            return Some(false);
        }
        http_get(&endpoint, "/health").filter(|body| body.contains("\"true\"")).map(|_| true)
    })
}

fn copy_all(from: &Path, to: &Path) {
    command::run(Command::new("cp").args(["-a", "--sparse=always"]).arg(from).arg(to), b"").ok();
}

/// Flips one bit of what is in use below `dir`, half the time of the log; tells where.
fn flip(dir: &Path, random: &mut StdRng) -> String {
    let mut files = rot::files(dir);
    let lies = |file: &Path, place: &str| file.components().any(|part| part.as_os_str() == place);
    let in_log: bool = random.random();
    files.retain(|(file, _)| !lies(file, "image.broken") && (!in_log || lies(file, "wal")));
    let (file, used) = files.choose(random).expect("a member has files");
    let (at, bit) = (random.random_range(0..*used), random.random_range(0..8));
    let mut bytes = fs::read(file).unwrap();
    bytes[at] ^= 1 << bit;
    fs::write(file, bytes).unwrap();
    format!("bit {bit} of byte {at} of {used} of {}", file.strip_prefix(dir).unwrap().display())
}

/// The image waits, and what adds is refused; the log has room in reserve, so the members live on, and elect.
/// With room the alarm goes by itself, and each member starts anew, in its process, and makes the image from the log.
#[test]
fn members_whose_disks_are_full_live_on_and_heal_with_room() {
    let disk = Tmpfs::of(SMALL_MIB);
    let mut setup = Setup::new(Kind::Etcfs, 3);
    setup.shape.data_dirs =
        (0..setup.shape.members).map(|number| disk.path().join(number.to_string())).collect();
    setup.shape.args = vec!["--snapshot-count=100".into()];
    under(setup, &[], |cluster, clients, nemesis| {
        clients.wait_for_more(REVISIONS);
        let from = clients.now();
        let ballast = fill(&disk.path());
        for member in 0..cluster.len() {
            wait::until_true("the member has no room for its image", || {
                cluster.log(member).contains("the disk is full")
            });
        }
        wait::until_true("what adds is refused", || {
            (0..cluster.len()).any(|member| cluster.log(member).contains("raising the NOSPACE alarm"))
        });
        let victims = nemesis.victims(cluster, Whom::Leader);
        cluster.kill(victims[0]);
        wait::until_true("another one leads", || cluster.leader().is_some_and(|leader| leader != victims[0]));
        fs::remove_file(ballast).unwrap();
        cluster.launch(victims[0]);
        for member in (0..cluster.len()).filter(|member| *member != victims[0]) {
            wait::until_true("it starts anew", || {
                cluster.log(member).contains("starting anew after a full disk")
            });
        }
        let victims = (0..cluster.len()).collect();
        nemesis.faults.push(Fault {
            deed: "full disk",
            whom: Whom::All,
            victims,
            from,
            until: clients.now(),
        });
        cluster.wait_until_ready();
        clients.wait_for_more(REVISIONS);
        for member in 0..cluster.len() {
            assert_eq!(cluster.has_fallen(member), None);
        }
    });
}

/// Fills a file system to the last byte, with a file that is returned.
fn fill(dir: &Path) -> std::path::PathBuf {
    let path = dir.join("ballast");
    let mut file = File::create(&path).unwrap();
    for block in [1 << 20, 4096, 1] {
        while file.write_all(&vec![0xff; block]).is_ok() {}
    }
    path
}

/// Leases, elections and answers go by the time that passes, whatever the wall clock says.
#[test]
fn a_wall_clock_that_jumps_changes_nothing() {
    let mut setup = Setup::new(Kind::Etcfs, 3);
    let mut random = StdRng::seed_from_u64(setup.seed);
    let dirs: Vec<_> = (0..setup.shape.members)
        .map(|_| tempfile::Builder::new().prefix("etcfs-tests-clock-").tempdir().unwrap())
        .collect();
    let clocks: Vec<Clock> = dirs.iter().map(|dir| Clock::new(dir.path())).collect();
    setup.shape.env = clocks.iter().map(Clock::env).collect();
    under(setup, &[], |cluster, clients, nemesis| {
        clients.wait_for_more(REVISIONS);
        let before = reign(cluster);
        for whom in [Whom::Leader, Whom::One, Whom::Majority, Whom::All] {
            let victims = nemesis.victims(cluster, whom);
            let from = clients.now();
            victims.iter().for_each(|&victim| clocks[victim].set(*JUMPS.choose(&mut random).unwrap()));
            clients.wait_for_more(REVISIONS);
            nemesis.faults.push(Fault { deed: "clock jump", whom, victims, from, until: clients.now() });
        }
        assert_eq!(reign(cluster), before, "the leader and its term");
    });
}

/// Who leads, and in which term.
fn reign(cluster: &Cluster) -> (usize, u64) {
    wait::until("there is a leader", || {
        let leader = cluster.leader()?;
        Some((leader, cluster.status(leader)?.raft_term))
    })
}
