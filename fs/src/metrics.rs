//! What a mount counts, by the names of `fs/docs/metrics.md`.
//!
//! Requests of programs are counted and timed where they come in, if somebody may ask for it ([`Metrics`]); what
//! costs one addition is counted always ([`Counts`]); what other parts know anyway is read when somebody asks
//! ([`Readings`]). Nothing here knows what a file is.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus::{
    Encoder as _, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts,
    Registry, TextEncoder, exponential_buckets,
};

macro_rules! operations {
    ($($operation:ident = $name:literal,)*) => {
        /// What a program asks for, by the kernel's word.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Operation {
            $($operation,)*
        }

        const OPERATIONS: &[&str] = &[$($name,)*];
    };
}

operations! {
    Create = "create",
    Flush = "flush",
    Fsync = "fsync",
    GetAttr = "getattr",
    GetLock = "getlk",
    GetXattr = "getxattr",
    ListXattr = "listxattr",
    Lookup = "lookup",
    MakeDir = "mkdir",
    MakeNode = "mknod",
    Open = "open",
    Read = "read",
    ReadDir = "readdir",
    RemoveXattr = "removexattr",
    Rename = "rename",
    RemoveDir = "rmdir",
    SetAttr = "setattr",
    SetLock = "setlk",
    SetXattr = "setxattr",
    StatFs = "statfs",
    Unlink = "unlink",
    Write = "write",
}

/// How an operation that was done ends.
const OK: &str = "ok";

/// Upper bounds of the histograms' buckets, in seconds: ten microseconds, and four times as much each, up to 10 s.
const BUCKET_FIRST: f64 = 0.000_01;
const BUCKETS: usize = 11;

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What is always counted.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Names looked up and answered from what is known, and those that the server was asked for.
    pub(crate) names_known: Count,
    pub(crate) names_asked: Count,
    /// The same of whole directories.
    pub(crate) listings_known: Count,
    pub(crate) listings_asked: Count,
    /// Changes that the watch has brought.
    pub(crate) changes: Count,
    /// How often the watch lost its server, found one again, and had to read everything anew.
    pub(crate) lost: Count,
    pub(crate) reconnected: Count,
    pub(crate) resyncs: Count,
}

/// What is read at the time of asking.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Readings {
    pub(crate) connected: u64,
    pub(crate) trusted: u64,
    pub(crate) watched_revision: u64,
    pub(crate) behind_revisions: u64,
    pub(crate) unsaved_bytes: u64,
    pub(crate) cached_bytes: u64,
    pub(crate) cached_bytes_max: u64,
    pub(crate) keys: u64,
    pub(crate) dirs: u64,
    pub(crate) inodes: u64,
    pub(crate) open_files: u64,
    pub(crate) log_bytes: u64,
    pub(crate) locks: u64,
    pub(crate) locks_lost: u64,
}

/// A reading as it is told.
struct Told {
    name: &'static str,
    help: &'static str,
    of: fn(&Counts, &Readings) -> u64,
}

const fn told(name: &'static str, help: &'static str, of: fn(&Counts, &Readings) -> u64) -> Told {
    Told { name, help, of }
}

/// By Prometheus' custom, counters are those whose name ends in `_total`.
const TOLD: &[Told] = &[
    told("etcfs_mount_names_cached_total", "lookups answered from the cache", |c, _| c.names_known.get()),
    told("etcfs_mount_names_asked_total", "lookups that the server was asked for", |c, _| {
        c.names_asked.get()
    }),
    told("etcfs_mount_listings_cached_total", "listings answered from the cache", |c, _| {
        c.listings_known.get()
    }),
    told("etcfs_mount_listings_asked_total", "listings that the server was asked for", |c, _| {
        c.listings_asked.get()
    }),
    told("etcfs_mount_watch_changes_total", "changes that the watch has brought", |c, _| c.changes.get()),
    told("etcfs_mount_watch_connected", "1 while the watch has a server", |_, r| r.connected),
    told("etcfs_mount_watch_losses_total", "times that the watch lost its server", |c, _| c.lost.get()),
    told("etcfs_mount_watch_reconnections_total", "times that it found one again", |c, _| {
        c.reconnected.get()
    }),
    told("etcfs_mount_watch_resyncs_total", "gaps after which everything was read again", |c, _| {
        c.resyncs.get()
    }),
    told("etcfs_mount_watch_revision", "up to which the watch has brought everything", |_, r| {
        r.watched_revision
    }),
    told("etcfs_mount_watch_lag_revisions", "revisions heard of that the watch has not brought", |_, r| {
        r.behind_revisions
    }),
    told("etcfs_mount_cache_trusted", "0 while what is cached waits for the server", |_, r| r.trusted),
    told("etcfs_mount_unsaved_bytes", "bytes that programs have written and that are not put yet", |_, r| {
        r.unsaved_bytes
    }),
    told("etcfs_mount_cache_bytes", "bytes of the cached values and names", |_, r| r.cached_bytes),
    told("etcfs_mount_cache_limit_bytes", "as many as there may be", |_, r| r.cached_bytes_max),
    told("etcfs_mount_cached_keys", "keys that something is known of", |_, r| r.keys),
    told("etcfs_mount_cached_directories", "directories that something is known of", |_, r| r.dirs),
    told("etcfs_mount_inodes", "inodes that the kernel holds or that are known", |_, r| r.inodes),
    told("etcfs_mount_open_files", "files and directories that are open", |_, r| r.open_files),
    told("etcfs_mount_log_bytes", "bytes of the log of changes", |_, r| r.log_bytes),
    told("etcfs_mount_locks", "cluster-wide locks that programs hold", |_, r| r.locks),
    told("etcfs_mount_locks_lost", "locks whose lease has ended under their holders", |_, r| r.locks_lost),
];

enum Series {
    Counter(IntCounter),
    Gauge(IntGauge),
}

/// The figures of one mount that somebody may ask for.
pub(crate) struct Metrics {
    registry: Registry,
    /// By operation: those that were done, and how long they took.
    done: Vec<(IntCounter, Histogram)>,
    operations: IntCounterVec,
    read: Vec<Series>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl Metrics {
    pub(crate) fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let operations = IntCounterVec::new(
            Opts::new("etcfs_mount_operations_total", "requests of programs, by what came of them"),
            &["operation", "result"],
        )?;
        let buckets = exponential_buckets(BUCKET_FIRST, 4.0, BUCKETS)?;
        let seconds = HistogramVec::new(
            HistogramOpts::new(
                "etcfs_mount_operation_duration_seconds",
                "time that requests of programs took",
            )
            .buckets(buckets),
            &["operation"],
        )?;
        registry.register(Box::new(operations.clone()))?;
        registry.register(Box::new(seconds.clone()))?;
        let done = OPERATIONS
            .iter()
            .map(|name| (operations.with_label_values(&[name, OK]), seconds.with_label_values(&[name])))
            .collect();
        let mut read = Vec::with_capacity(TOLD.len());
        for Told { name, help, .. } in TOLD {
            read.push(if name.ends_with("_total") {
                let counter = IntCounter::new(*name, *help)?;
                registry.register(Box::new(counter.clone()))?;
                Series::Counter(counter)
            } else {
                let gauge = IntGauge::new(*name, *help)?;
                registry.register(Box::new(gauge.clone()))?;
                Series::Gauge(gauge)
            });
        }
        Ok(Self { registry, done, operations, read })
    }

    /// One request has been answered; `failed` names the errno.
    pub(crate) fn ended(&self, operation: Operation, failed: Option<&str>, took: Duration) {
        let (done, seconds) = &self.done[operation as usize];
        seconds.observe(took.as_secs_f64());
        match failed {
            None => done.inc(),
            Some(errno) => {
                self.operations.with_label_values(&[OPERATIONS[operation as usize], errno]).inc();
            }
        }
    }

    /// All of it in Prometheus' text format.
    pub(crate) fn text(&self, counts: &Counts, readings: &Readings) -> Vec<u8> {
        for (Told { of, .. }, series) in TOLD.iter().zip(&self.read) {
            let now = of(counts, readings);
            match series {
                Series::Counter(counter) => counter.inc_by(now.saturating_sub(counter.get())),
                Series::Gauge(gauge) => gauge.set(i64::try_from(now).unwrap_or(i64::MAX)),
            }
        }
        let mut text = Vec::new();
        TextEncoder::new()
            .encode(&self.registry.gather(), &mut text)
            .expect("writing to memory does not fail");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_told_by_operation_and_result_and_readings_as_they_are() {
        let metrics = Metrics::new().unwrap();
        metrics.ended(Operation::Lookup, None, Duration::from_micros(30));
        metrics.ended(Operation::Lookup, Some("ENOENT"), Duration::from_micros(50));
        let (counts, readings) = (Counts::default(), Readings { unsaved_bytes: 7, ..Readings::default() });
        counts.resyncs.add(3);
        metrics.text(&counts, &readings);
        counts.resyncs.add(1);
        let text = String::from_utf8(metrics.text(&counts, &readings)).unwrap();
        for line in [
            "etcfs_mount_operations_total{operation=\"lookup\",result=\"ok\"} 1",
            "etcfs_mount_operations_total{operation=\"lookup\",result=\"ENOENT\"} 1",
            "etcfs_mount_operations_total{operation=\"write\",result=\"ok\"} 0",
            "etcfs_mount_operation_duration_seconds_bucket{operation=\"lookup\",le=\"0.00004\"} 1",
            "etcfs_mount_operation_duration_seconds_count{operation=\"lookup\"} 2",
            "# TYPE etcfs_mount_watch_resyncs_total counter",
            "etcfs_mount_watch_resyncs_total 4",
            "etcfs_mount_unsaved_bytes 7",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
