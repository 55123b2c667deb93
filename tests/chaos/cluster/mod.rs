//! A cluster of three under faults, its load and its judge.
//!
//! `ETCFS_TEST_SEED` and `ETCFS_TEST_SECONDS` set a run, and
//! `ETCFS_TEST_RECORDS` the directory that its record is written to.

mod clients;
mod end;
mod nemesis;
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

/// Seconds of faults in one run of ours.
const SECONDS: u64 = 15;
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
];

fn under_faults(kind: Kind, members: usize, seconds: u64, known: &[Rule]) {
    let seed = setting("ETCFS_TEST_SEED", rand::random::<u32>().into());
    let seconds = setting("ETCFS_TEST_SECONDS", seconds);
    show(&format!("ETCFS_TEST_SEED={seed} ETCFS_TEST_SECONDS={seconds} on {members} of {kind:?}"));
    let mut cluster = Cluster::start(kind, Shape { members, ..Shape::default() });
    let clients = Clients::start(&cluster, seed);
    let mut nemesis = Nemesis::new(seed);
    nemesis.run(&mut cluster, Duration::from_secs(seconds), || clients.now());
    cluster.wait_until_ready();
    let (mut history, last) = clients.finish(LEASE_PATIENCE);
    nemesis.look_for_the_fallen(&mut cluster);
    history.end.members = end::of(&cluster, last);
    history.end.fallen = std::mem::take(&mut nemesis.fallen);
    let (verdict, tolerated) = judge(&history).tolerating(known);
    let record = Record {
        kind,
        seed,
        seconds,
        faults: &nemesis.faults,
        history: &history,
        verdict: &verdict,
        tolerated: &tolerated,
    };
    record.write();
    assert!(verdict.violations.is_empty(), "ETCFS_TEST_SEED={seed}: {verdict}\n{record}");
    show(&record.to_string());
}

#[test]
fn a_single_node_keeps_its_word_under_faults() {
    under_faults(Kind::Etcfs, 1, SECONDS, &[]);
}

/// What is demanded is what etcd does, but for its known bugs.
#[test]
fn the_reference_keeps_its_word_but_for_what_is_known() {
    under_faults(Kind::Etcd, 3, REFERENCE_SECONDS, KNOWN_OF_ETCD);
}
