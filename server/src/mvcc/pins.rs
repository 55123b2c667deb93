//! Which revisions are being read right now.
//!
//! A compaction is logical at once, but rows that a running reader may still
//! ask for stay until it has ended.

use std::collections::BTreeMap;

use parking_lot::Mutex;

#[derive(Debug, Default)]
pub(crate) struct Pins {
    /// Readers at each revision. Taken under the store's lock or alone; nothing is taken under it.
    readers: Mutex<BTreeMap<i64, usize>>,
}

/// Holds a revision's rows until dropped.
#[derive(Debug)]
pub(crate) struct Pin<'a> {
    pins: &'a Pins,
    revision: i64,
}

impl Pins {
    /// Call with the store's read lock held, so that no compaction comes between check and pin.
    pub(crate) fn pin(&self, revision: i64) -> Pin<'_> {
        *self.readers.lock().entry(revision).or_default() += 1;
        Pin { pins: self, revision }
    }

    /// The oldest revision that is being read.
    pub(crate) fn oldest(&self) -> Option<i64> {
        self.readers.lock().first_key_value().map(|(&revision, _)| revision)
    }
}

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        let mut readers = self.pins.readers.lock();
        let count = readers.get_mut(&self.revision).expect("a pin is counted until it is dropped");
        *count -= 1;
        if *count == 0 {
            readers.remove(&self.revision);
        }
    }
}
