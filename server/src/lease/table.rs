//! The replicated part of leases: what is granted, and which keys hang on it.
//!
//! Apply alone changes the table, through [`LeaseTable`]; everybody else reads
//! it through a [`TableHandle`]. When a lease ends is not known here: that is
//! the leader's clock (`lessor`), and comes back through the log.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    sync::Arc,
};

use bytes::Bytes;
use etcfs_proto::etcfs::record;
use parking_lot::RwLock;

use super::room::give_back;

/// Longest lease that may be granted.
pub const LEASE_TTL_SECONDS_MAX: i64 = 9_000_000_000;

/// A lease as granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseFacts {
    pub id: i64,
    /// Granted, in seconds.
    pub ttl: i64,
    /// From the last checkpoint, in seconds; 0 for none.
    pub remaining_ttl: i64,
}

/// What the lessor must know of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseChange {
    Granted(LeaseFacts),
    Revoked(i64),
    Checkpointed(LeaseFacts),
    /// Everything may have changed, as a snapshot was installed: read `all` again.
    Replaced,
}

/// Read handle of the lease table.
#[derive(Clone)]
pub struct TableHandle {
    shared: Arc<RwLock<Leases>>,
}

type Listener = Box<dyn Fn(LeaseChange) + Send + Sync>;

#[derive(Default)]
struct Leases {
    granted: HashMap<i64, Lease>,
    /// The lease of each attached key.
    by_key: HashMap<Bytes, i64>,
    listener: Option<Listener>,
}

#[derive(Debug)]
struct Lease {
    ttl: i64,
    remaining_ttl: i64,
    keys: BTreeSet<Bytes>,
}

impl TableHandle {
    pub fn lookup(&self, id: i64) -> Option<LeaseFacts> {
        self.shared.read().granted.get(&id).map(|lease| lease.facts(id))
    }

    /// The attached keys in order; `None` for an unknown lease.
    pub fn keys(&self, id: i64) -> Option<Vec<Bytes>> {
        self.shared.read().granted.get(&id).map(|lease| lease.keys.iter().cloned().collect())
    }

    pub fn ids(&self) -> Vec<i64> {
        self.shared.read().granted.keys().copied().collect()
    }

    pub fn all(&self) -> Vec<LeaseFacts> {
        self.shared.read().all()
    }

    /// Gives the leases that stand now and calls `listener` with every change from then on, in
    /// order, with nothing missed between.
    ///
    /// It is called by the thread that applies, with the table locked: it must neither block nor
    /// come back to the table, so let it send to a channel. A second listener replaces the first.
    pub fn follow(&self, listener: Listener) -> Vec<LeaseFacts> {
        let mut leases = self.shared.write();
        leases.listener = Some(listener);
        leases.all()
    }
}

/// The table's one writer.
#[derive(Debug)]
pub(crate) struct LeaseTable {
    handle: TableHandle,
}

impl LeaseTable {
    pub(crate) fn new(
        records: impl IntoIterator<Item = record::Lease>,
        attachments: HashMap<Bytes, i64>,
    ) -> Self {
        let table = Self { handle: TableHandle { shared: Arc::default() } };
        table.replace(records, attachments);
        table
    }

    /// Puts other contents in the place of the present ones.
    pub(crate) fn replace(
        &self,
        records: impl IntoIterator<Item = record::Lease>,
        attachments: HashMap<Bytes, i64>,
    ) {
        let mut leases = self.handle.shared.write();
        leases.granted = records
            .into_iter()
            .map(|record| (record.id, Lease::new(record.ttl, record.remaining_ttl)))
            .collect();
        leases.by_key = HashMap::new();
        for (key, id) in attachments {
            leases.attach(&key, id);
        }
        leases.tell(LeaseChange::Replaced);
    }

    pub(crate) fn handle(&self) -> TableHandle {
        self.handle.clone()
    }

    pub(crate) fn exists(&self, id: i64) -> bool {
        self.handle.shared.read().granted.contains_key(&id)
    }

    /// Adds a lease, unless there is one with its id: then gives false.
    pub(crate) fn grant(&self, id: i64, ttl: i64) -> bool {
        let mut leases = self.handle.shared.write();
        if leases.granted.contains_key(&id) {
            return false;
        }
        let lease = Lease::new(ttl, 0);
        let facts = lease.facts(id);
        leases.granted.insert(id, lease);
        leases.tell(LeaseChange::Granted(facts));
        true
    }

    /// Removes a lease and detaches its keys, which it gives in order.
    pub(crate) fn revoke(&self, id: i64) -> Option<BTreeSet<Bytes>> {
        let mut leases = self.handle.shared.write();
        let lease = leases.granted.remove(&id)?;
        for key in &lease.keys {
            leases.by_key.remove(key);
        }
        give_back(&mut leases.granted);
        give_back(&mut leases.by_key);
        leases.tell(LeaseChange::Revoked(id));
        Some(lease.keys)
    }

    /// Notes how much of a lease is left; `None` for an unknown lease.
    pub(crate) fn checkpoint(&self, id: i64, remaining_ttl: i64) -> Option<LeaseFacts> {
        let mut leases = self.handle.shared.write();
        let lease = leases.granted.get_mut(&id)?;
        lease.remaining_ttl = remaining_ttl;
        let facts = lease.facts(id);
        leases.tell(LeaseChange::Checkpointed(facts));
        Some(facts)
    }

    /// Hangs a key on a lease and on no other; lease 0 is none.
    pub(crate) fn attach(&self, key: &[u8], id: i64) {
        if id == 0 && !self.handle.shared.read().by_key.contains_key(key) {
            return;
        }
        self.handle.shared.write().attach(key, id);
    }
}

impl Lease {
    fn new(ttl: i64, remaining_ttl: i64) -> Self {
        Self { ttl, remaining_ttl, keys: BTreeSet::new() }
    }

    fn facts(&self, id: i64) -> LeaseFacts {
        LeaseFacts { id, ttl: self.ttl, remaining_ttl: self.remaining_ttl }
    }
}

impl Leases {
    fn all(&self) -> Vec<LeaseFacts> {
        self.granted.iter().map(|(&id, lease)| lease.facts(id)).collect()
    }

    fn attach(&mut self, key: &[u8], id: i64) {
        if let Some((key, old)) = self.by_key.remove_entry(key)
            && let Some(lease) = self.granted.get_mut(&old)
        {
            lease.keys.remove(&key);
        }
        if let Some(lease) = self.granted.get_mut(&id) {
            // A copy: the request's bytes would keep its whole log entry in memory.
            let key = Bytes::copy_from_slice(key);
            lease.keys.insert(key.clone());
            self.by_key.insert(key, id);
        }
    }

    fn tell(&self, change: LeaseChange) {
        if let Some(listener) = &self.listener {
            listener(change);
        }
    }
}

impl fmt::Debug for TableHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let leases = self.shared.read();
        f.debug_struct("TableHandle")
            .field("leases", &leases.granted.len())
            .field("attached", &leases.by_key.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn table() -> LeaseTable {
        LeaseTable::new([], HashMap::new())
    }

    #[test]
    fn a_key_hangs_on_the_lease_that_it_was_last_attached_to() {
        let table = table();
        assert!(table.grant(1, 10) && table.grant(2, 20) && !table.grant(1, 30));
        table.attach(b"b", 1);
        table.attach(b"a", 1);
        table.attach(b"b", 2);
        let handle = table.handle();
        assert_eq!((handle.keys(1), handle.keys(2)), (Some(vec!["a".into()]), Some(vec!["b".into()])));
        table.attach(b"b", 0);
        assert_eq!(table.revoke(2), Some(BTreeSet::new()));
        assert_eq!((handle.lookup(2), handle.keys(2), table.revoke(2)), (None, None, None));
        assert_eq!(handle.lookup(1), Some(LeaseFacts { id: 1, ttl: 10, remaining_ttl: 0 }));
    }

    #[test]
    fn a_listener_hears_of_every_change_after_what_it_is_given() {
        let table = table();
        table.grant(1, 10);
        let (sender, changes) = mpsc::channel();
        let standing = table.handle().follow(Box::new(move |change| {
            sender.send(change).expect("the test holds the receiver");
        }));
        assert_eq!(standing, [LeaseFacts { id: 1, ttl: 10, remaining_ttl: 0 }]);
        table.grant(2, 20);
        let cut = table.checkpoint(2, 5);
        assert_eq!((cut.map(|facts| facts.remaining_ttl), table.checkpoint(9, 5)), (Some(5), None));
        table.revoke(1);
        let facts = |remaining_ttl| LeaseFacts { id: 2, ttl: 20, remaining_ttl };
        let heard: Vec<_> = changes.try_iter().collect();
        let expected =
            [LeaseChange::Granted(facts(0)), LeaseChange::Checkpointed(facts(5)), LeaseChange::Revoked(1)];
        assert_eq!(heard, expected);
    }
}
