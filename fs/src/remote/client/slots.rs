//! The mount's session and its slots: what it remembers of each change that is under way.
//!
//! A slot is a key `.etcfs/op/USER/SESSION/NUMBER`, attached to the session's lease, used by one change at a time.
//! Every change compares the slot's revision and puts the slot in the same transaction: so the slot says which of
//! this mount's changes was the last one done, and no transaction that was sent twice is done twice. A slot whose
//! change was given up half-way is not used again. The lease is granted with the first change, so that a mount
//! that only reads writes nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use etcfs_client::KeepAlive;
use parking_lot::Mutex;

use crate::map::Key;
use crate::remote::{LeaseId, Revision};

/// A mount that is cut off for longer may not know what became of a change that was under way; one that was killed
/// leaves its slots for so long.
pub(super) const SESSION_TTL_SECONDS: i64 = 300;

/// The session that changes are carried out in, if one is open.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    /// Held while a session is opened, so that there is one.
    pub(super) open: tokio::sync::Mutex<Option<Arc<Session>>>,
}

/// A lease and the slots attached to it.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) lease: LeaseId,
    /// Where its slots lie.
    place: String,
    _renewal: KeepAlive,
    /// As many as there were changes at a time.
    idle: Mutex<Vec<Slot>>,
    made: AtomicU64,
}

/// One change's memory. Not cloned: two changes in one slot would take each other for done.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) key: Key,
    /// At which it was last put; 0 while it never was.
    pub(super) revision: Revision,
    /// The number of the change that it is used for now.
    serial: u64,
}

impl Session {
    /// `changes` is where the user's mounts have their slots.
    pub(super) fn new(lease: LeaseId, changes: &str, renewal: KeepAlive) -> Self {
        Self {
            lease,
            place: format!("{changes}{lease}/"),
            _renewal: renewal,
            idle: Mutex::default(),
            made: AtomicU64::new(0),
        }
    }

    /// A slot for a new change.
    pub(super) fn take(&self) -> Slot {
        let mut slot = self.idle.lock().pop().unwrap_or_else(|| {
            let number = self.made.fetch_add(1, Ordering::Relaxed);
            let key = format!("{}{number}", self.place);
            Slot { key: Key::from(Bytes::from(key)), revision: Revision(0), serial: 0 }
        });
        slot.serial += 1;
        slot
    }

    /// Takes a slot back whose change has come to an end that is known.
    pub(super) fn give_back(&self, slot: Slot) {
        self.idle.lock().push(slot);
    }
}

impl Slot {
    /// What it holds once the change is done.
    pub(super) fn done(&self) -> String {
        self.serial.to_string()
    }

    /// What it holds once the change is refused for good: the same, so that the two can't both happen.
    pub(super) fn refused(&self) -> String {
        format!("{} refused", self.serial)
    }
}

/// An id for a lease: positive, and nobody else's.
pub(super) fn new_lease() -> LeaseId {
    LeaseId(rand::random_range(1..=i64::MAX))
}
