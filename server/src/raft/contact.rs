//! When this member last had proof that somebody leads.
//!
//! openraft keeps a leader's name long after it fell silent, for pre-voting
//! changes no vote. Who is told of a leader wants one that is there.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

/// The last proof; clones share it.
#[derive(Clone, Debug)]
pub(super) struct Contact {
    began: Instant,
    /// Milliseconds after `began`, plus one; 0 for never.
    heard: Arc<AtomicU64>,
    /// When the present leader was found; like `heard`.
    found: Arc<AtomicU64>,
    /// Silence after which a leader counts as lost.
    patience: Duration,
}

impl Contact {
    pub(super) fn new(patience: Duration) -> Self {
        Self { began: Instant::now(), heard: Arc::default(), found: Arc::default(), patience }
    }

    /// A leader spoke, and was believed.
    pub(super) fn heard(&self) {
        self.heard.fetch_max(self.stamp(), Ordering::Relaxed);
    }

    /// There is a leader that was none before.
    pub(super) fn found(&self) {
        self.found.store(self.stamp(), Ordering::Relaxed);
    }

    pub(super) fn found_at(&self) -> Option<Instant> {
        self.time(&self.found)
    }

    pub(super) fn is_fresh(&self) -> bool {
        self.time(&self.heard).is_some_and(|heard| self.is_recent(heard.elapsed()))
    }

    fn stamp(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX - 1) + 1
    }

    fn time(&self, stamp: &AtomicU64) -> Option<Instant> {
        let millis = stamp.load(Ordering::Relaxed).checked_sub(1)?;
        Some(self.began + Duration::from_millis(millis))
    }

    /// True if a proof of this age counts.
    pub(super) fn is_recent(&self, age: Duration) -> bool {
        age < self.patience
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_counts_as_lost_after_its_silence() {
        let patient = Contact::new(Duration::from_secs(3600));
        assert!(!patient.is_fresh(), "nobody was heard yet");
        patient.heard();
        assert!(patient.is_fresh() && patient.clone().is_fresh());
        let hasty = Contact::new(Duration::ZERO);
        hasty.heard();
        assert!(!hasty.is_fresh());
    }
}
