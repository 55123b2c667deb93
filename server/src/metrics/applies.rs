//! How long requests of the log take to apply, by etcd's name for what they do.

use std::time::Duration;

use parking_lot::Mutex;
use prometheus::{HistogramVec, local::LocalHistogram};

use super::Make;

/// etcd's older store is not here.
const VERSION: &str = "v3";

/// The histograms. One thread applies, so nobody waits for the lock.
#[derive(Debug)]
pub struct Applies {
    seconds: HistogramVec,
    /// Those that have come up.
    kinds: Mutex<Vec<Kind>>,
}

#[derive(Debug)]
struct Kind {
    op: &'static str,
    success: bool,
    seconds: LocalHistogram,
}

impl Applies {
    pub(super) fn new(make: &Make<'_>) -> Self {
        let seconds = make.histograms(
            "etcd_server_apply_duration_seconds",
            "Time that requests took to apply.",
            &["version", "op", "success"],
            // As etcd's: 0.1 ms doubling up to 52 s.
            prometheus::exponential_buckets(0.0001, 2.0, 20).expect(super::VALID),
        );
        Self { seconds, kinds: Mutex::default() }
    }

    /// Requests, by what they do and whether it succeeded, have been applied together. Each took its
    /// share: no clock is read between them.
    pub fn applied(&self, requests: impl ExactSizeIterator<Item = (&'static str, bool)>, took: Duration) {
        let share = took.as_secs_f64() / requests.len() as f64;
        let mut kinds = self.kinds.lock();
        for (op, success) in requests {
            let known = kinds.iter().position(|kind| kind.op == op && kind.success == success);
            let place = known.unwrap_or_else(|| {
                let labels = [VERSION, op, if success { "true" } else { "false" }];
                let seconds = self.seconds.with_label_values(&labels).local();
                kinds.push(Kind { op, success, seconds });
                kinds.len() - 1
            });
            kinds[place].seconds.observe(share);
        }
        kinds.iter().for_each(|kind| kind.seconds.flush());
    }
}

#[cfg(test)]
mod tests {
    use prometheus::Registry;

    use super::*;

    #[test]
    fn each_request_counts_with_its_share_of_the_time() {
        let registry = Registry::new();
        let applies = Applies::new(&Make(&registry));
        applies.applied([("Put", true), ("Txn", true), ("Put", true)].into_iter(), Duration::from_secs(3));
        applies.applied([("Put", false)].into_iter(), Duration::from_secs(5));
        applies.applied([].into_iter(), Duration::from_secs(7));
        let read = |op, success| {
            let histogram = applies.seconds.with_label_values(&["v3", op, success]);
            (histogram.get_sample_count(), histogram.get_sample_sum())
        };
        assert_eq!(read("Put", "true"), (2, 2.0));
        assert_eq!(read("Txn", "true"), (1, 1.0));
        assert_eq!(read("Put", "false"), (1, 5.0));
    }
}
