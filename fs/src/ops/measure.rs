//! The mount's own figures, for who may ask for them (`-o metrics`).

use std::net::SocketAddr;
use std::time::Instant;

use super::Fs;
use crate::errno::{Errno, OpError};
use crate::metrics::{Metrics, Operation, Readings};

impl Fs {
    /// From now on requests are counted, for who asks at `address`.
    pub(crate) fn measure(&self, address: SocketAddr, metrics: Metrics) {
        if self.metrics.set((address, metrics)).is_err() {
            unreachable!("a mount is told once, at assembly, who may ask for its figures");
        }
    }

    /// When a request began, if anybody may ask.
    pub(crate) fn clock(&self) -> Option<Instant> {
        self.metrics.get().map(|_| Instant::now())
    }

    /// Counts a request that is answered now.
    pub(crate) fn count<T>(&self, operation: Operation, since: Option<Instant>, done: &Result<T, OpError>) {
        if let (Some(since), Some((_, metrics))) = (since, self.metrics.get()) {
            let failed = done.as_ref().err().map(|error| Errno::from(error).name());
            metrics.ended(operation, failed, since.elapsed());
        }
    }

    /// All figures, in Prometheus' text format.
    pub(crate) fn metrics_text(&self) -> Vec<u8> {
        self.metrics
            .get()
            .map(|(_, metrics)| metrics.text(&self.counts, &self.readings()))
            .unwrap_or_default()
    }

    fn readings(&self) -> Readings {
        let stats = self.nodes.with(|table| table.stats());
        let (locks, locks_lost) = self.locks.counts();
        Readings {
            connected: u64::from(!self.is_lost()),
            trusted: u64::from(self.is_trusted()),
            watched_revision: stats.seen.max(0).unsigned_abs(),
            behind_revisions: (self.remote.heard().0 - stats.seen).max(0).unsigned_abs(),
            unsaved_bytes: stats.unsaved_bytes as u64,
            cached_bytes: stats.cached_bytes as u64,
            cached_bytes_max: stats.cached_bytes_max as u64,
            keys: stats.keys as u64,
            dirs: stats.dirs as u64,
            inodes: stats.inodes as u64,
            open_files: stats.open as u64,
            log_bytes: self.virtuals.journal.bytes() as u64,
            locks: locks as u64,
            locks_lost: locks_lost as u64,
        }
    }
}
