//! Runs schedules in processes of their own, as many at once as there are cores.

use std::{
    collections::BTreeMap,
    env,
    process::{Command, Stdio},
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Instant,
};

use etcfs_tests::{commit, record};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::{
    clock,
    disk::Honesty,
    entropy,
    trace::{Detail, Trace},
    world,
};

const SEED: &str = "ETCFS_SIM_SEED";
const FLAW: &str = "ETCFS_SIM_FLAW";
const DETAIL: &str = "ETCFS_SIM_DETAIL";
/// Before the report, on a line of its own.
const MARK: &str = "REPORT ";
/// Failed schedules that are shown.
const SHOWN_MAX: usize = 5;
const BREACHES_SHOWN_MAX: usize = 8;

/// Seeds to be run.
#[derive(Clone, Debug)]
pub(crate) struct Runs {
    pub(crate) first: u64,
    pub(crate) count: u64,
    /// Of the disks, if they have any.
    pub(crate) flaw: Option<&'static str>,
    /// Whether each message is traced too.
    pub(crate) messages: bool,
    /// The code that runs, for the tree may change meanwhile; and since when.
    pub(crate) commit: String,
    pub(crate) began: Instant,
}

impl Runs {
    pub(crate) fn new(first: u64, count: u64) -> Self {
        Self { first, count, flaw: None, messages: false, commit: commit::head(), began: Instant::now() }
    }

    pub(crate) fn from_environment(count: u64) -> Self {
        let number = |name| env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
        let first = number("ETCFS_TEST_SEED").unwrap_or(1);
        Self::new(first, number("ETCFS_TEST_SCHEDULES").unwrap_or(count))
    }
}

/// What a process said of its run.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) seed: u64,
    report: Value,
}

impl Outcome {
    pub(crate) fn number(&self, field: &str) -> u64 {
        self.report[field].as_u64().unwrap_or_default()
    }

    pub(crate) fn text(&self, field: &str) -> String {
        self.report[field].as_str().unwrap_or_default().to_owned()
    }

    fn breaches(&self) -> Vec<&str> {
        self.report["breaches"].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
    }

    pub(crate) fn is_clean(&self) -> bool {
        self.report["breaches"].as_array().is_some_and(Vec::is_empty)
    }

    fn add_to(&self, field: &str, sums: &mut BTreeMap<String, u64>) {
        for (name, count) in self.report[field].as_object().into_iter().flatten() {
            *sums.entry(name.clone()).or_default() += count.as_u64().unwrap_or_default();
        }
    }
}

/// Runs all, and gives what they came to in order of their seeds.
pub(crate) fn all(runs: &Runs) -> Vec<Outcome> {
    let next = AtomicU64::new(runs.first);
    let outcomes = Mutex::new(Vec::new());
    let workers = thread::available_parallelism().map_or(2, usize::from);
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= runs.first + runs.count {
                        return;
                    }
                    let outcome = one(seed, runs);
                    outcomes.lock().push(outcome);
                }
            });
        }
    });
    let mut outcomes = outcomes.into_inner();
    outcomes.sort_by_key(|outcome: &Outcome| outcome.seed);
    outcomes
}

fn one(seed: u64, runs: &Runs) -> Outcome {
    let mut process = Command::new(env::current_exe().expect("this test has a file"));
    process.args(["--exact", "one_schedule", "--nocapture", "--test-threads=1"]);
    process.env(SEED, seed.to_string()).stdin(Stdio::null());
    if let Some(flaw) = runs.flaw {
        process.env(FLAW, flaw);
    }
    if runs.messages {
        process.env(DETAIL, "messages");
    }
    let output = process.output().expect("this test can be run once more");
    let text = String::from_utf8_lossy(&output.stdout);
    let report = text.lines().find_map(|line| line.strip_prefix(MARK));
    let report = report.and_then(|report| serde_json::from_str(report).ok()).unwrap_or_else(|| {
        let told = String::from_utf8_lossy(&output.stderr);
        let last: Vec<&str> = told.lines().rev().take(20).collect();
        let last: Vec<&str> = last.into_iter().rev().collect();
        json!({ "breaches": [format!("the run ended with {}: {}", output.status, last.join("\n"))] })
    });
    Outcome { seed, report }
}

/// The body of the process of one run; returns what was breached.
pub(crate) fn in_this_process() -> Vec<String> {
    let number = |name| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = number(SEED).or_else(|| number("ETCFS_TEST_SEED")).unwrap_or(1);
    let honesty = match env::var(FLAW).is_ok() {
        true => Honesty::ForgetsSyncs,
        false => Honesty::Honest,
    };
    let panics = std::sync::Arc::new(Mutex::new(Vec::new()));
    let noted = panics.clone();
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        noted.lock().push(format!("a panic: {panic}"));
        usual(panic);
    }));
    // Before anything is drawn from the seed: its name is drawn too, again where others have it.
    let dir = shared_memory_dir();
    let path = dir.path().to_owned();
    let run = thread::Builder::new().stack_size(16 << 20).spawn(move || {
        entropy::seed(seed);
        clock::simulate();
        let detail = match env::var(DETAIL).as_deref() {
            Ok("messages") => Detail::Messages,
            Ok("print") => Detail::Printed,
            _ => Detail::Members,
        };
        let trace = Trace::new(detail);
        tracing::subscriber::with_default(trace.clone(), || world::run(seed, honesty, &path, &trace))
    });
    let mut report = run.expect("a thread").join().unwrap_or_else(|_| crate::report::Report::new(seed, &[]));
    report.breaches.append(&mut panics.lock());
    tell(&format!("\n{MARK}{}", report.to_json()));
    report.breaches
}

/// Where files need no disk, if there is such a place.
fn shared_memory_dir() -> tempfile::TempDir {
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    dir.expect("a directory for what is always synced")
}

/// True if another process waits for the report, and judges by it.
pub(crate) fn is_for_others() -> bool {
    env::var_os(SEED).is_some()
}

#[expect(clippy::print_stdout, reason = "read by the process that started this one")]
fn tell(line: &str) {
    println!("{line}");
}

/// The first of the failed schedules, and how to see them again.
pub(crate) fn shown(failed: &[&Outcome]) -> String {
    let one = |outcome: &&Outcome| {
        let breaches = outcome.breaches();
        let shown = breaches.iter().take(BREACHES_SHOWN_MAX).copied().collect::<Vec<_>>().join("\n    ");
        let faults = outcome.report["faults"].as_array().cloned().unwrap_or_default();
        let faults: Vec<&str> = faults.iter().filter_map(Value::as_str).collect();
        format!(
            "  ETCFS_TEST_SEED={} ETCFS_TEST_SCHEDULES=1: {} breaches\n    {shown}\n    faults: {faults:?}",
            outcome.seed,
            breaches.len()
        )
    };
    failed.iter().take(SHOWN_MAX).map(one).collect::<Vec<_>>().join("\n")
}

/// Writes what all runs came to.
pub(crate) fn record(runs: &Runs, outcomes: &[Outcome]) {
    let sum = |field| outcomes.iter().map(|outcome| outcome.number(field)).sum::<u64>();
    let (mut kinds, mut judged) = (BTreeMap::new(), BTreeMap::new());
    for outcome in outcomes {
        outcome.add_to("kinds", &mut kinds);
        outcome.add_to("judged", &mut judged);
    }
    let failed: Vec<Value> = outcomes
        .iter()
        .filter(|outcome| !outcome.is_clean())
        .map(|outcome| json!({ "seed": outcome.seed, "breaches": outcome.breaches() }))
        .collect();
    let record = json!({
        "test": "every_schedule_keeps_the_promises",
        "commit": runs.commit,
        "seeds": { "first": runs.first, "last": runs.first + runs.count - 1 },
        "schedules": outcomes.len(),
        "seconds": runs.began.elapsed().as_secs(),
        "simulated_seconds": sum("simulated_ms") / 1000,
        "faults": kinds,
        "members_changed": sum("changes"),
        "operations": sum("operations"),
        "answered": sum("answered"),
        "entries": sum("entries"),
        "judged": judged,
        "verdict": if failed.is_empty() { "clean" } else { "violated" },
        "failed": failed,
    });
    let name =
        format!("every_schedule_keeps_the_promises-{}-{}.json", runs.first, runs.first + runs.count - 1);
    record::keep(env!("CARGO_TARGET_TMPDIR"), &name, &record);
}
