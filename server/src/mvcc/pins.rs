//! Which revisions are being read right now.
//!
//! A compaction is logical at once, but rows that a running reader may still
//! ask for stay until it has ended.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;

use super::Store;

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

/// The same, for who keeps the store anyway.
#[derive(Debug)]
pub(crate) struct OwnPin {
    store: Arc<Store>,
    revision: i64,
}

impl Pins {
    /// Call with the store's read lock held, so that no compaction comes between check and pin.
    pub(crate) fn pin(&self, revision: i64) -> Pin<'_> {
        self.hold(revision);
        Pin { pins: self, revision }
    }

    fn hold(&self, revision: i64) {
        *self.readers.lock().entry(revision).or_default() += 1;
    }

    fn let_go(&self, revision: i64) {
        let mut readers = self.readers.lock();
        let count = readers.get_mut(&revision).expect("a pin is counted until it is dropped");
        *count -= 1;
        if *count == 0 {
            readers.remove(&revision);
        }
    }

    /// The oldest revision that is being read.
    pub(crate) fn oldest(&self) -> Option<i64> {
        self.readers.lock().first_key_value().map(|(&revision, _)| revision)
    }
}

impl OwnPin {
    /// Call while another pin holds the revision.
    pub(crate) fn beside(pin: &Pin<'_>, store: Arc<Store>) -> Self {
        store.pins.hold(pin.revision);
        Self { store, revision: pin.revision }
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }
}

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        self.pins.let_go(self.revision);
    }
}

impl Drop for OwnPin {
    fn drop(&mut self) {
        self.store.pins.let_go(self.revision);
    }
}
