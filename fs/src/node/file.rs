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
    pub(super) local: Option<Local>,
    /// When a local file was last changed.
    pub(super) local_changed: Option<SystemTime>,
    /// Reads of this key under way: events are kept for them.
    pub(super) loads: u32,
    /// Open handles of any kind.
    pub(super) handles: u32,
    pub(super) used: bool,
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
            local: None,
            local_changed: None,
            loads: 0,
            handles: 0,
            used: true,
            wrote: None,
            turn: None,
        }
    }

    /// What lies below a writer's edits.
    pub(super) fn bytes(&self) -> &Bytes {
        self.known.value().map_or(&self.last, |value| &value.bytes)
    }

    pub(super) fn pinned(&self) -> bool {
        !self.nodes.is_empty()
            || self.loads > 0
            || self.handles > 0
            || self.local.is_some()
            || self.turn.as_ref().is_some_and(|turn| Arc::strong_count(turn) > 1)
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
        self.keys.get_mut(key).map_or(
            FileFacts { known: Known::Unknown, local: false, scratch: false },
            |state| {
                state.used = true;
                FileFacts {
                    known: state.known.clone(),
                    local: state.local.is_some(),
                    scratch: matches!(state.local, Some(Local::Scratch { .. })),
                }
            },
        )
    }

    /// A read of `key` is under way: from now on no event of it is missed.
    pub(crate) fn begin_load(&mut self, key: &Bytes) {
        self.state(key).loads += 1;
    }

    /// Ends [`Self::begin_load`] with what was read at `revision`, if anything was.
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
        self.trim();
    }

    /// The key's state, made if there is none.
    pub(super) fn state(&mut self, key: &Bytes) -> &mut KeyState {
        if !self.keys.contains_key(key) {
            self.clock.push_back(key.clone());
            self.keys.insert(key.clone(), KeyState::new());
        }
        self.keys.get_mut(key).expect("inserted above")
    }

    /// Drops cached keys that nobody needs, oldest unused first, down to the budget.
    pub(super) fn trim(&mut self) {
        let mut looked = self.clock.len();
        while (self.keys.len() > self.limits.keys_max || self.cached_bytes > self.limits.bytes_max)
            && looked > 0
        {
            looked -= 1;
            let Some(key) = self.clock.pop_front() else { return };
            let Some(state) = self.keys.get_mut(&key) else { continue };
            if state.pinned() || std::mem::take(&mut state.used) {
                self.clock.push_back(key);
                continue;
            }
            if let Some(state) = self.keys.remove(&key) {
                let len = state.known.value().map_or(0, |value| value.bytes.len());
                self.cached_bytes = self.cached_bytes.saturating_sub(len);
            }
        }
    }
}
