//! What a run came to, from its own process to the one that asked for it.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};

use crate::faults::Fault;

/// One run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    pub(crate) seed: u64,
    pub(crate) members: usize,
    /// Members that came, in place of others or not, and got their votes.
    pub(crate) changes: u64,
    pub(crate) simulated: Duration,
    pub(crate) faults: Vec<String>,
    pub(crate) kinds: BTreeMap<String, u64>,
    pub(crate) operations: usize,
    pub(crate) answered: usize,
    /// Log entries that were applied and compared.
    pub(crate) entries: usize,
    pub(crate) judged: BTreeMap<String, u64>,
    /// What was logged, in number and in sum.
    pub(crate) events: u64,
    pub(crate) trace: u64,
    pub(crate) breaches: Vec<String>,
}

impl Report {
    pub(crate) fn new(seed: u64, faults: &[Fault]) -> Self {
        let mut kinds = BTreeMap::new();
        for fault in faults {
            *kinds.entry(fault.deed.kind().to_owned()).or_default() += 1;
        }
        Self { seed, faults: faults.iter().map(ToString::to_string).collect(), kinds, ..Self::default() }
    }

    pub(crate) fn to_json(&self) -> Value {
        json!({
            "seed": self.seed,
            "members": self.members,
            "changes": self.changes,
            "simulated_ms": self.simulated.as_millis() as u64,
            "faults": self.faults,
            "kinds": self.kinds,
            "operations": self.operations,
            "answered": self.answered,
            "entries": self.entries,
            "judged": self.judged,
            "events": self.events,
            "trace": format!("{:016x}", self.trace),
            "breaches": self.breaches,
        })
    }
}
