//! The record of a run: what was done, to which commit, and what came of it.

use std::{collections::BTreeMap, fmt, process::Command};

use etcfs_tests::{
    command, commit,
    judge::{History, Moment, Rule, Verdict, Violation},
    machine, record,
    server::Kind,
};
use serde_json::{Value, json};

use super::{clients, nemesis::Fault};

/// Everything that a record tells of.
pub(crate) struct Record<'a> {
    pub(crate) kind: Kind,
    pub(crate) seed: u64,
    /// How long the clients worked.
    pub(crate) lasted: Moment,
    pub(crate) faults: &'a [Fault],
    pub(crate) history: &'a History,
    pub(crate) verdict: &'a Verdict,
    pub(crate) tolerated: &'a [Violation],
}

impl Record<'_> {
    fn json(&self) -> Value {
        let faults: Vec<Value> = self.faults.iter().map(fault).collect();
        json!({
            "test": test(),
            "store": format!("{:?}", self.kind),
            "commit": version(self.kind),
            "seed": self.seed,
            "seconds": self.lasted.as_secs(),
            "members": self.history.end.members.len(),
            "faults": faults,
            "operations": clients::counts(self.history),
            "judged": self.verdict.judged,
            "verdict": if self.verdict.violations.is_empty() { "clean" } else { "violated" },
            "violations": texts(&self.verdict.violations),
            "tolerated": by_rule(self.tolerated),
        })
    }

    pub(crate) fn write(&self) {
        keep(&format!("{}-{}.json", test(), self.seed), &self.json());
    }
}

/// Writes a record.
pub(crate) fn keep(name: &str, record: &Value) {
    record::keep(env!("CARGO_TARGET_TMPDIR"), name, record);
}

impl fmt::Display for Record<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:?}", clients::counts(self.history))?;
        writeln!(f, "{}", self.verdict)?;
        writeln!(f, "tolerated: {:?}", by_rule(self.tolerated))?;
        self.faults.iter().try_for_each(|fault| writeln!(f, "  {fault}"))
    }
}

/// The name of the test that runs.
pub(crate) fn test() -> String {
    let thread = std::thread::current();
    let path = thread.name().expect("a test's thread has its name");
    path.rsplit("::").next().unwrap_or(path).to_owned()
}

fn fault(fault: &Fault) -> Value {
    json!({
        "deed": fault.deed,
        "whom": format!("{:?}", fault.whom).to_lowercase(),
        "victims": fault.victims,
        "from_ms": fault.from.as_millis() as u64,
        "until_ms": fault.until.as_millis() as u64,
    })
}

fn texts(violations: &[Violation]) -> Vec<String> {
    violations.iter().map(ToString::to_string).collect()
}

fn by_rule(violations: &[Violation]) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::<Rule, u64>::new();
    violations.iter().for_each(|violation| *counts.entry(violation.rule).or_default() += 1);
    counts.into_iter().map(|(rule, count)| (format!("{rule:?}"), count)).collect()
}

/// What is under test.
pub(crate) fn version(kind: Kind) -> String {
    match kind {
        Kind::Etcfs => commit::head(),
        Kind::Etcd => version_of_etcd(),
    }
}

fn version_of_etcd() -> String {
    let version = command::run(Command::new(machine::program("etcd")).arg("--version"), b"").ok();
    version.lines().next().unwrap_or_default().to_owned()
}
