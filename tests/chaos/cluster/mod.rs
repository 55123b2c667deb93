//! A cluster of three under faults, its load and its judge.
//!
//! `ETCFS_TEST_SEED` and `ETCFS_TEST_SECONDS` set a run, and
//! `ETCFS_TEST_RECORDS` the directory that its record is written to.

mod clients;
mod end;
mod failover;
mod faults;
mod membership;
mod nemesis;
mod power;
mod record;

use std::time::Duration;

use etcfs_tests::{
    judge::{Rule, judge},
    machine::setting,
    partition::{Cluster, Shape},
    process::show,
    server::Kind,
};

use clients::Clients;
use nemesis::Nemesis;
use record::Record;

/// Seconds of faults to a cluster of ours.
const SECONDS: u64 = 60;
/// Seconds of faults to a single node.
const SINGLE_SECONDS: u64 = 10;
/// Seconds of faults in one run of the reference.
const REFERENCE_SECONDS: u64 = 20;
/// Until when all leases that nobody renews have ended: the longest, two elections, and a slow machine.
const LEASE_PATIENCE: Duration =
    clients::leases::TTL_MAX.saturating_add(Duration::from_secs(2)).saturating_add(Duration::from_secs(4));

/// What Debian's etcd 3.4.23 is known to break, and why.
const KNOWN_OF_ETCD: &[Rule] = &[
    // A progress answer is written while events wait in another queue (etcd-io/etcd#15220).
    Rule::ProgressIsTrue,
    // A compaction at the revision of a deletion forgets the deletion (etcd-io/etcd#19179).
    Rule::EventAtCompactionIsDelivered,
    // A leader that was paused or cut off revokes by what it knew before.
    Rule::LeaseLivesOn,
    // Of leases it tells what the member that was asked has applied, and a follower what a former leader may say.
    Rule::LeaseIsToldRight,
];

/// What one run is of.
struct Setup {
    kind: Kind,
    shape: Shape,
    seed: u64,
}

impl Setup {
    fn new(kind: Kind, members: usize) -> Self {
        let seed = setting("ETCFS_TEST_SEED", rand::random::<u32>().into());
        Self { kind, shape: Shape { members, ..Shape::default() }, seed }
    }
}

/// Runs clients on a cluster to which `worst` is done, and judges all they saw.
///
/// Breaches of the rules `known` are told of, but do not fail the test.
fn under(setup: Setup, known: &[Rule], worst: impl FnOnce(&mut Cluster, &Clients, &mut Nemesis)) {
    let Setup { kind, shape, seed } = setup;
    show(&format!("ETCFS_TEST_SEED={seed} on {} of {kind:?}", shape.members));
    let mut cluster = Cluster::start(kind, shape);
    let clients = Clients::start(&cluster, seed);
    let mut nemesis = Nemesis::new(seed);
    worst(&mut cluster, &clients, &mut nemesis);
    cluster.wait_until_ready();
    let lasted = clients.now();
    let (mut history, last) = clients.finish(LEASE_PATIENCE);
    nemesis.look_for_the_fallen(&mut cluster);
    history.end.members = end::of(&cluster, last);
    history.end.fallen = std::mem::take(&mut nemesis.fallen);
    let (verdict, tolerated) = judge(&history).tolerating(known);
    let record = Record {
        kind,
        seed,
        lasted,
        faults: &nemesis.faults,
        history: &history,
        verdict: &verdict,
        tolerated: &tolerated,
    };
    record.write();
    assert!(verdict.violations.is_empty(), "ETCFS_TEST_SEED={seed}: {verdict}\n{record}");
    show(&record.to_string());
}

/// Faults of every kind for a while.
fn under_faults(setup: Setup, seconds: u64, known: &[Rule]) {
    let end = Duration::from_secs(setting("ETCFS_TEST_SECONDS", seconds));
    under(setup, known, |cluster, clients, nemesis| nemesis.run(cluster, end, || clients.now()));
}

#[test]
fn a_cluster_keeps_its_word_under_faults() {
    under_faults(Setup::new(Kind::Etcfs, 3), SECONDS, &[]);
}

#[test]
fn a_single_node_keeps_its_word_under_faults() {
    under_faults(Setup::new(Kind::Etcfs, 1), SINGLE_SECONDS, &[]);
}

/// What is demanded is what etcd does, but for its known bugs.
#[test]
fn the_reference_keeps_its_word_but_for_what_is_known() {
    under_faults(Setup::new(Kind::Etcd, 3), REFERENCE_SECONDS, KNOWN_OF_ETCD);
}
