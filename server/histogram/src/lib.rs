//! Histograms that count nothing.
//!
//! openraft records batch sizes and latencies into histograms, which only its feature `runtime-stats` can show;
//! etcfsd has metrics of its own and leaves that feature off. The crate in whose place this one stands builds, with
//! the first histogram, tables for sixteen scales of which one is used: 25 MB, of the 42 that a server with nothing
//! took. This has as much of its API as openraft calls, so a version that calls more does not compile.

use std::{fmt, marker::PhantomData};

/// Takes samples, and keeps none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram<T = ()>(PhantomData<T>);

impl<T> Histogram<T> {
    #[expect(clippy::new_without_default, reason = "the API is another crate's")]
    pub fn new() -> Self {
        Self(PhantomData)
    }

    pub fn record(&mut self, _value: u64) {}

    pub fn record_n(&mut self, _value: u64, _count: u64) {}

    /// Those of no samples.
    pub fn percentile_stats(&self) -> PercentileStats {
        PercentileStats::default()
    }
}

/// What no samples come to: zeros.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PercentileStats {
    pub samples: u64,
    pub p0_1: u64,
    pub p1: u64,
    pub p5: u64,
    pub p10: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("none")
    }
}

/// A chart of nothing.
#[derive(Debug)]
pub struct AsciiChart(());

impl AsciiChart {
    #[expect(clippy::new_without_default, reason = "the API is another crate's")]
    pub fn new() -> Self {
        Self(())
    }

    #[must_use]
    pub fn add(self, _name: &str, _histogram: Histogram) -> Self {
        self
    }
}
