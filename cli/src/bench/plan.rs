//! What is to be measured, and with how much of what.

use std::time::Duration;

use bytes::Bytes;
use clap::{Args, ValueEnum};

/// One kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Op {
    Put,
    RangeL,
    RangeS,
    #[value(name = "range-l-10k")]
    RangeL10k,
    #[value(name = "range-s-10k")]
    RangeS10k,
    Txn,
    Watch,
    WatchKeys,
    LeaseGrant,
    LeaseKeepAlive,
    Mixed,
}

impl Op {
    pub(crate) const ALL: [Self; 11] = [
        Self::Put,
        Self::RangeL,
        Self::RangeS,
        Self::RangeL10k,
        Self::RangeS10k,
        Self::Txn,
        Self::Watch,
        Self::WatchKeys,
        Self::LeaseGrant,
        Self::LeaseKeepAlive,
        Self::Mixed,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::RangeL => "range-l",
            Self::RangeS => "range-s",
            Self::RangeL10k => "range-l-10k",
            Self::RangeS10k => "range-s-10k",
            Self::Txn => "txn",
            Self::Watch => "watch",
            Self::WatchKeys => "watch-keys",
            Self::LeaseGrant => "lease-grant",
            Self::LeaseKeepAlive => "lease-keep-alive",
            Self::Mixed => "mixed",
        }
    }

    /// Requests of a round if nobody says how many: some seconds' worth.
    fn total(self) -> u64 {
        match self {
            Self::Put | Self::Txn | Self::WatchKeys | Self::Mixed => 20_000,
            Self::RangeL | Self::RangeS => 50_000,
            Self::RangeL10k | Self::RangeS10k => 200,
            Self::Watch => 2_000,
            Self::LeaseGrant | Self::LeaseKeepAlive => 10_000,
        }
    }
}

/// How much of it.
#[derive(Args, Clone, Debug)]
pub(crate) struct Plan {
    /// Callers at a time, each waiting for its answer before it asks again
    #[arg(long, default_value_t = 64, value_name = "N")]
    pub(crate) clients: usize,
    /// Connections that the callers share
    #[arg(long, default_value_t = 4, value_name = "N")]
    pub(crate) connections: usize,
    /// Bytes of a key
    #[arg(long, default_value_t = 24, value_name = "BYTES")]
    pub(crate) key_size: usize,
    /// Bytes of a value
    #[arg(long, default_value_t = 256, value_name = "BYTES")]
    pub(crate) value_size: usize,
    /// Requests of a round [default: some seconds' worth]
    #[arg(long, value_name = "N")]
    pub(crate) total: Option<u64>,
    /// Different keys that are read and written
    #[arg(long, default_value_t = 10_000, value_name = "N")]
    pub(crate) keys: u64,
    /// Begin of the keys; all below it is the bench's to write
    #[arg(long, default_value = "bench/", value_name = "TEXT")]
    pub(crate) prefix: String,
    /// Watches that see each put of `watch`, or of `watch-keys` each those of one key
    #[arg(long, default_value_t = 100, value_name = "N")]
    pub(crate) watchers: u64,
    /// Leases that are renewed
    #[arg(long, default_value_t = 1000, value_name = "N")]
    pub(crate) leases: usize,
    /// Requests a second, evenly spaced and timed from when they were due; 0 for as many as go
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "N")]
    pub(crate) rate: u64,
    /// Process ID of the server (on this machine), for its CPU time and memory
    #[arg(long, value_name = "PID")]
    pub(crate) server_pid: Option<u32>,
    /// Print an object a line
    #[arg(long)]
    pub(crate) json: bool,
}

/// Callers, connections and keys are at least one; a value holds the time it was sent.
const VALUE_BYTES_MIN: usize = 8;

impl Plan {
    #[must_use]
    pub(crate) fn checked(mut self) -> Self {
        self.clients = self.clients.max(1);
        self.connections = self.connections.clamp(1, self.clients);
        self.value_size = self.value_size.max(VALUE_BYTES_MIN);
        self.keys = self.keys.max(1);
        self
    }

    pub(crate) fn requests(&self, op: Op) -> u64 {
        self.total.unwrap_or_else(|| op.total()).max(1)
    }

    /// The key of a number: the prefix, then digits up to the key size.
    pub(crate) fn key(&self, number: u64) -> Bytes {
        let digits = self.key_size.saturating_sub(self.prefix.len());
        format!("{}{number:0digits$}", self.prefix).into()
    }

    /// A value that doesn't compress to nothing, the same for the same number.
    pub(crate) fn value(&self, number: u64) -> Bytes {
        let mut value = Vec::with_capacity(self.value_size);
        let mut state = number;
        while value.len() < self.value_size {
            state = scramble(state.wrapping_add(1));
            value.extend_from_slice(&state.to_le_bytes());
        }
        value.truncate(self.value_size);
        value.into()
    }

    /// When a request is due after the round's begin, if they are spaced.
    pub(crate) fn due(&self, number: u64) -> Option<Duration> {
        (self.rate > 0).then(|| Duration::from_nanos(number.saturating_mul(1_000_000_000) / self.rate))
    }
}

/// A well-mixed number for each number: the keys' random order, alike in every round.
pub(crate) fn scramble(number: u64) -> u64 {
    let mut x = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x ^= x >> 32;
    x = x.wrapping_mul(0xd6e8_feb8_6659_fd93);
    x ^ (x >> 32)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        plan: Plan,
    }

    fn plan(args: &[&str]) -> Plan {
        Line::parse_from([&["bench"], args].concat()).plan.checked()
    }

    #[test]
    fn keys_and_values_have_the_size_asked_for() {
        let plan = plan(&["--key-size", "16", "--value-size", "100"]);
        assert_eq!(plan.key(7), "bench/0000000007");
        assert_eq!(plan.value(7).len(), 100);
        assert_eq!(plan.value(7), plan.value(7));
        assert_ne!(plan.value(7), plan.value(8));
    }

    #[test]
    fn a_rate_spaces_requests_evenly() {
        assert_eq!(plan(&["--rate", "1000"]).due(1500), Some(Duration::from_millis(1500)));
        assert_eq!(plan(&[]).due(1500), None);
    }

    #[test]
    fn impossible_numbers_are_raised_to_the_least_that_works() {
        let plan = plan(&["--clients", "0", "--connections", "9", "--value-size", "1"]);
        assert_eq!((plan.clients, plan.connections, plan.value_size), (1, 1, VALUE_BYTES_MIN));
    }
}
