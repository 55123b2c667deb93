//! Files: what is known of a key, and the inodes that stand for it.
//!
//! A key's state is in the table while the kernel knows the key, while somebody
//! loads it, or as a cache entry that may go at any time. `known` is the newest
//! revision heard of, `published` the newest that the kernel may be told.

use std::ffi::OsString;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::handle::Log;
use super::table::Notice;
use super::{Attr, Fh, NodeId, Table, Value};

/// What this mount knows of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    Unknown,
    Absent,
    Present(Value),
}

impl Known {
    pub(crate) fn value(&self) -> Option<&Value> {
        match self {
            Self::Present(value) => Some(value),
            Self::Unknown | Self::Absent => None,
        }
    }
}

/// A file that exists in this mount alone, so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct LocalFile {
    pub(super) kind: Local,
    pub(super) changed: SystemTime,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Local {
    /// Created and open; its first put will make it a key.
    Pending,
    /// An editor's scratch file: renamed, removed, or made a key a little later.
    Scratch { keep_while_open: bool },
}

#[derive(Debug)]
pub(super) struct KeyState {
    pub(super) known: Known,
    /// The newest revision that `known` accounts for; 0 while unknown.
    pub(super) rev: i64,
    /// This table's own count of changes; orders local changes among remote ones.
    pub(super) seq: u64,
    /// What the key held when it was deleted: an open file still shows it.
    pub(super) last: Bytes,
    pub(super) published: Option<Value>,
    pub(super) pub_seq: u64,
    pub(super) pub_rev: i64,
    /// Values since the last publication, for the readers' logs.
    pub(super) pend: Vec<(u64, Bytes)>,
    /// True while a Publish notice for this key waits.
    pub(super) queued: bool,
    /// It changed while nothing was to be shown that may be old: lookups don't wait for the publication.
    pub(super) overdue: bool,
    pub(super) nodes: Vec<NodeId>,
    pub(super) cur: Option<NodeId>,
    /// The directory and name under which the kernel last looked this key up.
    pub(super) place: Option<(NodeId, OsString)>,
    pub(super) waiters: Vec<(Until, oneshot::Sender<()>)>,
    /// Reads of this key under way: events are kept for them.
    pub(super) loads: u32,
    /// Open handles of any kind.
    pub(super) handles: u32,
    pub(super) used: bool,
    /// The kernel was asked to let go of its name, when its value had so many bytes.
    pub(super) leaving: Option<usize>,
    /// The inode through which this mount changed it last.
    pub(super) wrote: Option<NodeId>,
    /// Puts of this mount on this key go one after another.
    pub(super) turn: Option<Arc<tokio::sync::Mutex<()>>>,
}

/// What a parked operation waits to see published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    Rev(i64),
    Seq(u64),
}

impl KeyState {
    pub(super) fn new() -> Self {
        Self {
            known: Known::Unknown,
            rev: 0,
            seq: 0,
            last: Bytes::new(),
            published: None,
            pub_seq: 0,
            pub_rev: 0,
            pend: Vec::new(),
            queued: false,
            overdue: false,
            nodes: Vec::new(),
            cur: None,
            place: None,
            waiters: Vec::new(),
            loads: 0,
            handles: 0,
            used: true,
            leaving: None,
            wrote: None,
            turn: None,
        }
    }

    /// What lies below a writer's edits.
    pub(super) fn bytes(&self) -> &Bytes {
        self.known.value().map_or(&self.last, |value| &value.bytes)
    }

    /// True if it must stay, whatever the kernel lets go of.
    pub(super) fn pinned(&self) -> bool {
        self.loads > 0
            || self.handles > 0
            || self.turn.as_ref().is_some_and(|turn| Arc::strong_count(turn) > 1)
    }

    fn cached_bytes(&self) -> usize {
        self.known.value().map_or(0, |value| value.bytes.len())
    }

    pub(super) fn reached(&self, until: Until) -> bool {
        match until {
            Until::Rev(rev) => self.pub_rev >= rev,
            Until::Seq(seq) => self.pub_seq >= seq,
        }
    }

    pub(super) fn wake(&mut self) {
        let (pub_rev, pub_seq) = (self.pub_rev, self.pub_seq);
        self.waiters.retain_mut(|(until, sender)| {
            let reached = match *until {
                Until::Rev(rev) => pub_rev >= rev,
                Until::Seq(seq) => pub_seq >= seq,
            };
            if reached {
                // Whoever waited may be gone by now (interrupted): nothing to tell.
                let (gone, _) = oneshot::channel();
                let sender = std::mem::replace(sender, gone);
                sender.send(()).ok();
            }
            !reached
        });
    }

    /// Everything known may be told.
    pub(super) fn publish(&mut self) {
        self.overdue = false;
        self.published = self.known.value().cloned();
        self.pub_seq = self.seq;
        self.pub_rev = self.rev;
    }
}

/// One inode: one immutable revision of a key, for as long as anybody reads it.
#[derive(Debug)]
pub(super) struct FileNode {
    pub(super) key: Bytes,
    pub(super) base: Bytes,
    pub(super) base_seq: u64,
    pub(super) base_rev: i64,
    /// Later values, for the readers of this inode; made with the first reader.
    pub(super) log: Log,
    pub(super) nlookup: u64,
    pub(super) told_at: Option<Instant>,
    /// The kernel was allowed to keep this inode's attributes.
    pub(super) kept: bool,
    pub(super) readers: u32,
    pub(super) handles: Vec<Fh>,
}

/// A lookup's answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) node: NodeId,
    pub(crate) attr: Attr,
    /// True iff the kernel may keep the name.
    pub(crate) keep: bool,
}

/// What an operation wants to know of a key before it changes it.
#[derive(Clone, Debug)]
pub(crate) struct FileFacts {
    pub(crate) known: Known,
    pub(crate) local: bool,
    pub(crate) scratch: bool,
}

/// st_ino of a key, the same in every mount and at every time. Its bit 62 keeps
/// it apart from the numbers that are counted up.
pub(crate) fn home_of(key: &[u8], kind: super::Kind) -> NodeId {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325
        ^ match kind {
            super::Kind::File => 0,
            super::Kind::Dir => 0x5bd1_e995_0000_0001,
            super::Kind::Link => 0x5bd1_e995_0000_0002,
        };
    for &byte in key {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash ^= hash >> 29;
    hash = hash.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash ^= hash >> 32;
    NodeId((1 << 62) | (hash >> 2))
}

impl Table {
    pub(crate) fn known(&mut self, key: &[u8]) -> Known {
        self.keys.get_mut(key).map_or(Known::Unknown, |state| {
            state.used = true;
            state.known.clone()
        })
    }

    pub(crate) fn facts(&mut self, key: &[u8]) -> FileFacts {
        let local = self.locals.get(key).map(|file| file.kind);
        FileFacts {
            known: self.known(key),
            local: local.is_some(),
            scratch: matches!(local, Some(Local::Scratch { .. })),
        }
    }

    /// A read of `key` is under way: from now on no event of it is missed.
    pub(crate) fn begin_load(&mut self, key: &Bytes) {
        self.state(key).loads += 1;
    }

    /// Ends [`Self::begin_load`] with what was read at `revision`, if anything was. Who has ended all that were read
    /// together calls [`Self::trim`], once: each outlives that.
    pub(crate) fn end_load(&mut self, key: &Bytes, read: Option<(i64, Option<Value>)>) {
        let state = self.state(key);
        state.loads = state.loads.saturating_sub(1);
        let Some((revision, value)) = read else { return };
        if state.known != Known::Unknown {
            // An event or an earlier read was first; what is newer still comes by watch, in order.
            return;
        }
        state.rev = value.as_ref().map_or(revision, |value| value.rev);
        let len = value.as_ref().map_or(0, |value| value.bytes.len());
        state.known = value.map_or(Known::Absent, Known::Present);
        state.publish();
        self.cached_bytes += len;
    }

    /// The key's state, made if there is none.
    pub(super) fn state(&mut self, key: &Bytes) -> &mut KeyState {
        if !self.keys.contains_key(key) {
            self.clock.push_back(key.clone());
            self.keys.insert(key.clone(), KeyState::new());
        }
        self.keys.get_mut(key).expect("inserted above")
    }

    /// Drops cached keys that nobody needs, oldest unused first, down to the budget. One that the kernel has a name of
    /// goes when the kernel has let go of it, which it is asked to do; until then it counts no more.
    pub(crate) fn trim(&mut self) {
        let mut looked = self.clock.len();
        while self.is_over() && looked > 0 {
            looked -= 1;
            let Some(key) = self.clock.pop_front() else { return };
            let Some(state) = self.keys.get_mut(&key) else { continue };
            if std::mem::take(&mut state.used) || state.pinned() || self.locals.contains_key(&key) {
                self.clock.push_back(key);
            } else if state.nodes.is_empty() {
                let len = state.cached_bytes();
                self.cached_bytes = self.cached_bytes.saturating_sub(len);
                self.keys.remove(&key);
            } else if let Some((parent, name)) = state.place.clone() {
                let len = state.cached_bytes();
                state.leaving = Some(len);
                self.leaving_keys += 1;
                self.leaving_bytes += len;
                self.notify(Notice::Name { parent, name });
            } else {
                self.clock.push_back(key);
            }
        }
    }

    fn is_over(&self) -> bool {
        self.keys.len() - self.leaving_keys > self.limits.keys_max
            || self.cached_bytes.saturating_sub(self.leaving_bytes) > self.limits.bytes_max
    }

    /// The kernel has let go of a key's name, or uses it again: it is looked at like all others.
    pub(super) fn stays(&mut self, key: &Bytes) {
        let Some(state) = self.keys.get_mut(key) else { return };
        if let Some(len) = state.leaving.take() {
            self.leaving_keys -= 1;
            self.leaving_bytes -= len;
            self.clock.push_front(key.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;
    use crate::config::Inotify;
    use crate::map::{KeyMap, Percent, Rel};
    use crate::node::table::Limits;
    use crate::node::{Caller, ROOT};

    const BYTES: usize = 100;

    /// A table with room for two files, each looked up by the kernel.
    fn table_of(names: &[&str]) -> (Table, Vec<NodeId>) {
        let root = KeyMap::new(Bytes::from_static(b"/"), Percent::Strict, Rel::Off).root();
        let bytes_max = BYTES * 2;
        let limits = Limits { keys_max: 100, bytes_max, follow: true, inotify: Inotify::Off, strict: false };
        let mut table = Table::new(root, limits);
        let nodes = names.iter().map(|name| load(&mut table, name)).collect();
        (table, nodes)
    }

    fn key_of(name: &str) -> Bytes {
        Bytes::from(format!("/{name}"))
    }

    fn load(table: &mut Table, name: &str) -> NodeId {
        let bytes = Bytes::from(vec![b'v'; BYTES]);
        table.begin_load(&key_of(name));
        let value = Value { bytes, create: 2, rev: 2, version: 1, lease: 0 };
        table.end_load(&key_of(name), Some((2, Some(value))));
        table.trim();
        let entry = table.lookup_file(&key_of(name), ROOT, OsStr::new(name), Instant::now());
        entry.expect("it was loaded just now").node
    }

    /// The names that the kernel is asked to let go of.
    fn asked(table: &mut Table) -> Vec<OsString> {
        std::iter::from_fn(|| table.next_work()).filter_map(|work| Some(work.drop_name?.1)).collect()
    }

    /// What is cached stays within its bound
    #[test]
    fn what_the_kernel_knows_is_let_go_of_where_there_is_no_room() {
        // Each was used just now, which counts for one round.
        let (mut table, nodes) = table_of(&["a", "b", "c"]);
        table.trim();
        assert_eq!(asked(&mut table), ["a"]);
        table.trim();
        assert_eq!(asked(&mut table), Vec::<OsString>::new(), "one is enough, and is not asked for twice");
        table.forget(nodes[0], 1);
        assert_eq!((table.known(&key_of("a")), table.stats().cached_bytes), (Known::Unknown, BYTES * 2));

        // One that is open stays; and so does one that is used again before the kernel has let go of it.
        let open = table.open_reader(nodes[1], Caller { thread: 1, process: None }).expect("it is there");
        load(&mut table, "d");
        table.trim();
        assert_eq!(asked(&mut table), ["c"]);
        table.lookup_file(&key_of("c"), ROOT, OsStr::new("c"), Instant::now());
        table.release(open);
        table.trim();
        table.trim();
        assert_eq!(asked(&mut table).len(), 1);
        assert_eq!(table.stats().keys, 3);
    }
}
