//! How old an answer may be: nothing older than what was shown is shown again, by whichever member.
//!
//! A server that has lost revisions (it was restored from a backup) would never come up to that. Who asks the whole
//! cluster, and is answered by less than was heard before it asked, knows that they are lost.

use std::sync::atomic::{AtomicI64, Ordering};

use crate::remote::Revision;

/// The newest revision that any answer was of.
#[derive(Debug, Default)]
pub(super) struct Floor(AtomicI64);

impl Floor {
    pub(super) fn get(&self) -> Revision {
        Revision(self.0.load(Ordering::Relaxed))
    }

    pub(super) fn heard(&self, revision: Revision) {
        self.0.fetch_max(revision.0, Ordering::Relaxed);
    }

    /// A linearizable read that was asked while the floor was `before`.
    pub(super) fn linearized(&self, before: Revision, revision: Revision) {
        if revision < before {
            self.0.store(revision.0, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_has_lost_is_not_waited_for() {
        let floor = Floor::default();
        floor.heard(Revision(100));
        let before = floor.get();
        // Another answer that came meanwhile does not make this one old.
        floor.heard(Revision(120));
        floor.linearized(before, Revision(110));
        assert_eq!(floor.get(), Revision(120));
        let before = floor.get();
        floor.linearized(before, Revision(7));
        assert_eq!(floor.get(), Revision(7));
        floor.heard(Revision(8));
        assert_eq!(floor.get(), Revision(8));
    }
}
