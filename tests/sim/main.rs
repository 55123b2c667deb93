//! The Raft, apply, watch and lease code under deterministic simulation.
//!
//! Whole members run in one thread: their own code from the services down to the
//! records of the log, on simulated time, over turmoil's network, and on a disk
//! whose power fails; members are paused, differ in how fast their clocks are, leave
//! and come. One seed decides everything: which faults come when, how
//! long a message takes, which sectors survive, what the callers ask for, and
//! what any generator of random numbers gives ([`entropy`]). So a seed that fails
//! fails again, in every detail; `ETCFS_TEST_SEED` names it.
//!
//! ETCFS_TEST_SCHEDULES=1 ETCFS_TEST_SEED=7 cargo nextest run --test sim
//!
//! Each run has a process of its own: some generators count across threads.

mod clients;
mod clock;
mod disk;
mod driver;
mod entropy;
mod faults;
mod member;
mod members;
mod report;
mod rows;
mod run;
mod still;
mod tasks;
mod trace;
mod watchers;
mod wire;
mod world;

use std::collections::BTreeMap;

use driver::{Outcome, Runs};

/// Schedules where nothing else is said.
const SCHEDULES: u64 = 200;
/// Seeds that are run twice.
const TWICE: u64 = 3;
/// Schedules within which a disk that forgets its syncs must show.
const LYING: u64 = 6;

#[test]
fn every_schedule_keeps_the_promises() {
    let runs = Runs::from_environment(SCHEDULES);
    let outcomes = driver::all(&runs);
    driver::record(&runs, &outcomes);
    let failed: Vec<&Outcome> = outcomes.iter().filter(|outcome| !outcome.is_clean()).collect();
    assert!(
        failed.is_empty(),
        "{} of {} schedules failed:\n{}",
        failed.len(),
        outcomes.len(),
        driver::shown(&failed)
    );
    assert_eq!(outcomes.len() as u64, runs.count);
    // Schedules in which nothing happens would keep any promise.
    let answered: u64 = outcomes.iter().map(|outcome| outcome.number("answered")).sum();
    assert!(answered > 20 * runs.count, "{answered} calls were answered");
}

#[test]
fn a_seed_gives_the_same_run_each_time() {
    let runs = Runs { messages: true, ..Runs::new(1000, TWICE) };
    let traces = || -> BTreeMap<u64, (u64, String)> {
        let outcomes = driver::all(&runs);
        outcomes
            .iter()
            .map(|outcome| (outcome.seed, (outcome.number("events"), outcome.text("trace"))))
            .collect()
    };
    let (first, second) = (traces(), traces());
    assert!(first.values().all(|(events, _)| *events > 100), "{first:?}");
    assert_eq!(first, second);
    let different: std::collections::BTreeSet<_> = first.values().collect();
    assert_eq!(different.len() as u64, TWICE, "other seeds are other runs");
}

/// Should the simulation not find this, it would find nothing.
#[test]
fn a_disk_that_forgets_its_syncs_is_found_out() {
    let runs = Runs { flaw: Some("forgets-syncs"), ..Runs::new(1, LYING) };
    let outcomes = driver::all(&runs);
    let found = outcomes.iter().filter(|outcome| !outcome.is_clean()).count();
    assert!(found > 0, "{LYING} schedules with a lying disk, and none of them failed");
}

/// Of the seed that the environment names: so the others run theirs, each in a process of its own.
#[test]
fn one_schedule() {
    let breaches = driver::in_this_process();
    assert!(breaches.is_empty() || driver::is_for_others(), "{breaches:?}");
}
