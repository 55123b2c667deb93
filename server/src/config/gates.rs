//! `--feature-gates`: the way in which etcd 3.6 spells some of its settings.

use super::{ConfigError, check::refuse};

/// What a gate is here.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    InitialCorruptCheck,
    /// Always so; the other value is refused.
    Fixed(bool),
    /// Either is taken: nothing here depends on it.
    Idle,
}

const GATES: &[(&str, Kind)] = &[
    ("InitialCorruptCheck", Kind::InitialCorruptCheck),
    // What is left of long leases is always noted in the log.
    ("LeaseCheckpoint", Kind::Fixed(true)),
    ("LeaseCheckpointPersist", Kind::Fixed(true)),
    // --corrupt-check-time compares all of history.
    ("CompactHashCheck", Kind::Fixed(false)),
    ("SetMemberLocalAddr", Kind::Fixed(false)),
    ("StopGRPCServiceOnDefrag", Kind::Fixed(false)),
    // How etcd's reads in a transaction share a buffer.
    ("TxnModeWriteWithSharedBuffer", Kind::Idle),
];

/// The gates that were set.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Gates {
    initial_corrupt_check: Option<bool>,
}

impl Gates {
    pub(super) fn parse(text: &str) -> Result<Self, ConfigError> {
        let refused = |remedy: String| Err(refuse("--feature-gates", text, &remedy));
        let mut gates = Self::default();
        for gate in text.split(',').map(str::trim).filter(|gate| !gate.is_empty()) {
            let parsed = gate.split_once('=').and_then(|(name, on)| Some((name, on.parse::<bool>().ok()?)));
            let Some((name, on)) = parsed else {
                return refused(format!("{gate}: write NAME=true or NAME=false"));
            };
            match GATES.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind) {
                Some(Kind::InitialCorruptCheck) => gates.initial_corrupt_check = Some(on),
                Some(Kind::Idle) => {}
                Some(Kind::Fixed(fixed)) if fixed == on => {}
                Some(Kind::Fixed(fixed)) => return refused(format!("{name} is always {fixed} here")),
                None => return refused(format!("there is no gate {name} here")),
            }
        }
        Ok(gates)
    }

    /// The gate's word, or else the flag's.
    pub(super) fn initial_corrupt_check(&self, flag: bool) -> bool {
        self.initial_corrupt_check.unwrap_or(flag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gates_that_mean_something_here_are_taken() {
        let of = |text: &str| Gates::parse(text).unwrap().initial_corrupt_check(false);
        assert!(!of("") && !of("InitialCorruptCheck=false"));
        assert!(of("LeaseCheckpoint=true, InitialCorruptCheck=true,TxnModeWriteWithSharedBuffer=false"));
        assert!(!Gates::parse("InitialCorruptCheck=false").unwrap().initial_corrupt_check(true));
    }

    #[test]
    fn gates_that_would_promise_something_else_are_refused() {
        for (text, reason) in [
            ("LeaseCheckpoint=false", "always true"),
            ("CompactHashCheck=true", "always false"),
            ("NoSuchGate=true", "no gate"),
            ("InitialCorruptCheck", "write NAME=true"),
            ("InitialCorruptCheck=1", "write NAME=true"),
        ] {
            let refused = Gates::parse(text).unwrap_err().to_string();
            assert!(refused.contains(reason), "{text}: {refused}");
        }
    }
}
