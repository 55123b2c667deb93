//! Tests of the tests: a method that does nothing, and says that all is well, is
//! noticed by each test that server/docs/api.md names for it.
//!
//! A binary runs itself with the names of the tests and with the failpoint that
//! breaks the method in every server that they start.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    process::{Command, Stdio},
    sync::Mutex,
    time::{Duration, Instant},
};

use etcfs_server::net::METHODS;

use crate::{process::show, wait};

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../server/docs/api.md");
/// Methods that are broken at a time, each in processes of its own.
const AT_ONCE: usize = 3;
/// A test that waits for what does not come has failed by then.
const PATIENCE: Duration = Duration::from_secs(150);
/// Modules that the macros of tests/api put around a case that runs on ours.
const AROUND: [&str; 3] = ["on_etcfsd", "alone_on_etcfsd", "on_etcfsd_alone"];

/// Breaks one method after the other, and checks that the tests of this binary that are named for it fail.
#[track_caller]
pub fn every_broken_method_is_noticed(binary: &str) {
    let all = listed();
    let mut queue = Vec::new();
    for (method, cases) in named(binary) {
        let tests: BTreeSet<String> = cases.iter().flat_map(|case| of_case(&all, case)).collect();
        assert!(!tests.is_empty(), "{method}: no test is {cases:?}");
        queue.push((method, tests));
    }
    let (_, sound) = queue.first().expect("the document names tests of this binary");
    assert_eq!(passed("none", sound), Vec::from_iter(sound.clone()), "with nothing broken they pass");
    let methods = queue.len();
    let (queue, unnoticed) = (Mutex::new(queue), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().expect("no test of it panics").pop();
                    let Some((method, tests)) = next else { return };
                    let begun = Instant::now();
                    let passed = passed(&method, &tests);
                    show(&format!("{method}: {} tests, {:.1?}", tests.len(), begun.elapsed()));
                    let passed = passed.into_iter().map(|test| format!("{test} with {method} broken"));
                    unnoticed.lock().expect("no test of it panics").extend(passed);
                }
            });
        }
    });
    let unnoticed = unnoticed.into_inner().expect("no test of it panics");
    assert!(unnoticed.is_empty(), "of {methods} methods, these tests pass:\n{}", unnoticed.join("\n"));
}

/// What the document names for each method: its path, and cases as `api::range::...`.
fn named(binary: &str) -> BTreeMap<String, BTreeSet<String>> {
    let text = fs::read_to_string(DOCUMENT).expect(DOCUMENT);
    let mut named: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut service = "";
    for line in text.lines() {
        if let Some(heading) = line.strip_prefix("### ") {
            service = heading;
        }
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [rpc, _, test] = cells[..] else { continue };
        let Some(case) = test.trim_matches('`').strip_prefix(binary).and_then(|rest| rest.strip_prefix("::"))
        else {
            continue;
        };
        let is_it = |full: &str, method: &str| full.rsplit('.').next() == Some(service) && method == rpc;
        let (full, method, _) = METHODS
            .iter()
            .find(|(full, method, _)| is_it(full, method))
            .unwrap_or_else(|| panic!("{service}.{rpc} is no method"));
        named.entry(format!("/{full}/{method}")).or_default().insert(case.to_owned());
    }
    named
}

/// Every test of this binary.
fn listed() -> Vec<String> {
    let listed = this().args(["--list", "--format", "terse"]).output().expect("this binary runs");
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    text.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect()
}

/// Tests that run a case on ours.
fn of_case(all: &[String], case: &str) -> Vec<String> {
    let is_of = |test: &&String| {
        let parts: Vec<&str> = test.split("::").filter(|part| !AROUND.contains(part)).collect();
        parts.join("::") == case
    };
    all.iter().filter(is_of).cloned().collect()
}

/// Which of the tests pass although a method is broken.
fn passed(method: &str, tests: &BTreeSet<String>) -> Vec<String> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("output");
    let output = fs::File::create(&path).expect("a file of our own");
    let mut child = this()
        .args(["--exact", "--test-threads", "2"])
        .args(tests)
        .env("FAILPOINTS", format!("rpc-broken=return({method})"))
        .stdin(Stdio::null())
        .stderr(output.try_clone().expect("a file of our own"))
        .stdout(output)
        .spawn()
        .expect("this binary runs");
    let has_ended = wait::poll(PATIENCE, || child.try_wait().expect("a child of ours").is_some());
    if !has_ended {
        // What it has started goes with it.
        child.kill().expect("a child of ours");
        child.wait().expect("a child of ours");
    }
    let text = fs::read_to_string(&path).expect("a file of our own");
    let ended =
        |test: &str, how: &str| text.lines().any(|line| line.starts_with(&format!("test {test} ... {how}")));
    let survivors = tests.iter().filter(|test| ended(test, "ok") || (has_ended && !ended(test, "FAILED")));
    survivors.cloned().collect()
}

/// This binary, as if by itself: what it shares with a run's other processes it does not share here.
fn this() -> Command {
    let mut command = Command::new(env::current_exe().expect("it has a path"));
    command.env_remove("NEXTEST_RUN_ID").env("ETCFS_TEST_LEASES", "500");
    command
}
