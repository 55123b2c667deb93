//! Files: what is known of a key, and the inodes that stand for it.
//!
//! A key's state is in the table while the kernel knows the key, while somebody
//! loads it, or as a cache entry that may go at any time. `known` is the newest
//! revision heard of, `published` the newest that the kernel may be told.
//!
//! There may be hundreds of thousands, so what few of them have at a time is apart: a key has [`Busy`] while
//! something happens to it, an inode [`Open`] while it is open, and [`Base`] once its key has gone on.

#[cfg(test)]
mod tests;

use std::ffi::{OsStr, OsString};
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::handle::Log;
use super::table::{Node, Notice};
use super::{Attr, Fh, NodeId, Table, Value};
use crate::map::KeyMap;

/// What this mount knows of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known<V = Value> {
    Unknown,
    Absent,
    Present(V),
}

/// A key as the table has it, once for the key and its inodes. Half as large as `Bytes`, which shared would take a
/// second allocation.
pub(super) type Name = Arc<[u8]>;

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
    /// The inode that its name leads to.
    cur: Option<NonZeroU64>,
    /// Where the kernel last looked this key up.
    pub(super) place: Option<Spot>,
    /// Open handles of any kind.
    pub(super) handles: u32,
    pub(super) used: bool,
    busy: Option<Box<Busy>>,
}

/// What a key has besides while something happens to it.
#[derive(Debug, Default)]
pub(super) struct Busy {
    /// Reads of this key under way: events are kept for them.
    loads: u32,
    /// What the key held when it was deleted: an open file still shows it.
    pub(super) last: Bytes,
    /// What the kernel may be told, where that is not what is known.
    published: Option<Published>,
    /// Values since the last publication, for the readers' logs.
    pub(super) pend: Vec<(u64, Bytes)>,
    /// True while a Publish notice for this key waits.
    pub(super) queued: bool,
    /// It changed while nothing was to be shown that may be old: lookups don't wait for the publication.
    pub(super) overdue: bool,
    /// Inodes of this key that its name has left.
    pub(super) left: Vec<NodeId>,
    pub(super) waiters: Vec<(Until, oneshot::Sender<()>)>,
    /// The kernel was asked to let go of its name, when its value had so many bytes.
    pub(super) leaving: Option<usize>,
    /// The inode through which this mount changed it last.
    pub(super) wrote: Option<NodeId>,
    /// Puts of this mount on this key go one after another.
    pub(super) turn: Option<Arc<tokio::sync::Mutex<()>>>,
}

#[derive(Debug)]
struct Published {
    value: Option<Value>,
    seq: u64,
    rev: i64,
}

static IDLE: Busy = Busy {
    loads: 0,
    last: Bytes::new(),
    published: None,
    pend: Vec::new(),
    queued: false,
    overdue: false,
    left: Vec::new(),
    waiters: Vec::new(),
    leaving: None,
    wrote: None,
    turn: None,
};

/// A name in a directory.
#[derive(Clone, Debug)]
pub(super) struct Spot {
    parent: NonZeroU64,
    /// Where it is another than the key's own spelling.
    other: Option<Box<OsString>>,
}

impl Spot {
    /// `None` for a directory that is none: no inode has the number 0.
    pub(super) fn new(key: &[u8], parent: NodeId, name: &OsStr) -> Option<Self> {
        let other = (KeyMap::name_of(key) != name).then(|| Box::new(name.to_owned()));
        Some(Self { parent: NonZeroU64::new(parent.0)?, other })
    }

    pub(super) fn parent(&self) -> NodeId {
        NodeId(self.parent.get())
    }

    pub(super) fn name(&self, key: &[u8]) -> OsString {
        self.other.as_deref().cloned().unwrap_or_else(|| KeyMap::name_of(key))
    }

    /// True if it is the very name.
    pub(super) fn is(&self, name: &[u8]) -> bool {
        self.other.as_deref().is_some_and(|other| other.as_encoded_bytes() == name)
    }
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
            cur: None,
            place: None,
            handles: 0,
            used: true,
            busy: None,
        }
    }

    pub(super) fn busy(&self) -> &Busy {
        self.busy.as_deref().unwrap_or(&IDLE)
    }

    /// The same, to put something into it.
    pub(super) fn make_busy(&mut self) -> &mut Busy {
        self.busy.get_or_insert_default()
    }

    /// Drops what no more is of use.
    pub(super) fn rest(&mut self) {
        let Some(busy) = &mut self.busy else { return };
        busy.turn.take_if(|turn| Arc::strong_count(turn) == 1);
        let Busy { loads, last, published, pend, queued, overdue, left, waiters, leaving, wrote, turn } =
            &**busy;
        if *loads == 0
            && last.is_empty()
            && published.is_none()
            && pend.is_empty()
            && !queued
            && !overdue
            && left.is_empty()
            && waiters.is_empty()
            && leaving.is_none()
            && wrote.is_none()
            && turn.is_none()
        {
            self.busy = None;
        }
    }

    /// Its inodes.
    pub(super) fn nodes(&self) -> impl Iterator<Item = NodeId> {
        self.cur().into_iter().chain(self.busy().left.iter().copied())
    }

    pub(super) fn cur(&self) -> Option<NodeId> {
        self.cur.map(|id| NodeId(id.get()))
    }

    pub(super) fn has_nodes(&self) -> bool {
        self.nodes().next().is_some()
    }

    /// Its name leads to this inode from now on.
    pub(super) fn lead_to(&mut self, id: NodeId) {
        let before = self.cur();
        if before == Some(id) {
            return;
        }
        if self.busy().left.contains(&id) {
            self.make_busy().left.retain(|&other| other != id);
        }
        self.cur = NonZeroU64::new(id.0);
        if let Some(before) = before {
            self.make_busy().left.push(before);
        }
    }

    /// An inode is its no more.
    pub(super) fn lose(&mut self, id: NodeId) {
        if self.cur() == Some(id) {
            self.cur = None;
        } else if let Some(busy) = &mut self.busy {
            busy.left.retain(|&other| other != id);
        }
    }

    /// What lies below a writer's edits.
    pub(super) fn bytes(&self) -> &Bytes {
        self.known.value().map_or(&self.busy().last, |value| &value.bytes)
    }

    /// True if it must stay, whatever the kernel lets go of.
    pub(super) fn pinned(&self) -> bool {
        self.handles > 0
            || self.busy().loads > 0
            || self.busy().turn.as_ref().is_some_and(|turn| Arc::strong_count(turn) > 1)
    }

    /// True if the kernel was asked to let go of its name.
    fn is_leaving(&self) -> bool {
        self.busy().leaving.is_some()
    }

    fn cached_bytes(&self) -> usize {
        self.known.value().map_or(0, |value| value.bytes.len())
    }

    pub(super) fn published(&self) -> Option<&Value> {
        self.busy().published.as_ref().map_or(self.known.value(), |published| published.value.as_ref())
    }

    pub(super) fn pub_seq(&self) -> u64 {
        self.busy().published.as_ref().map_or(self.seq, |published| published.seq)
    }

    pub(super) fn pub_rev(&self) -> i64 {
        self.busy().published.as_ref().map_or(self.rev, |published| published.rev)
    }

    /// What may be told stays, until [`Self::publish`]: what is known is about to change.
    fn hold_back(&mut self) {
        if self.busy().published.is_none() {
            let published = Published { value: self.known.value().cloned(), seq: self.seq, rev: self.rev };
            self.make_busy().published = Some(published);
        }
    }

    /// True if all that is known may be told, and the kernel has been told what it must drop.
    pub(super) fn is_settled(&self) -> bool {
        self.pub_seq() == self.seq && !self.busy().queued
    }

    pub(super) fn reached(&self, until: Until) -> bool {
        match until {
            Until::Rev(rev) => self.pub_rev() >= rev,
            Until::Seq(seq) => self.pub_seq() >= seq,
        }
    }

    pub(super) fn wake(&mut self) {
        let (pub_rev, pub_seq) = (self.pub_rev(), self.pub_seq());
        let Some(busy) = &mut self.busy else { return };
        busy.waiters.retain_mut(|(until, sender)| {
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
        if let Some(busy) = &mut self.busy {
            busy.overdue = false;
            busy.published = None;
        }
    }

    /// The same where no inode shows any of it.
    pub(super) fn publish_unseen(&mut self) {
        if let Some(busy) = &mut self.busy {
            busy.pend.clear();
        }
        self.publish();
        self.wake();
        self.rest();
    }
}

/// One inode: one immutable revision of a key, for as long as anybody reads it.
#[derive(Debug)]
pub(super) struct FileNode {
    pub(super) key: Name,
    /// The revision that it carries, where that is not what is known of its key.
    pub(super) base: Option<Box<Base>>,
    pub(super) nlookup: u64,
    pub(super) told_at: Option<Instant>,
    /// The kernel was allowed to keep this inode's attributes.
    pub(super) kept: bool,
    pub(super) open: Option<Box<Open>>,
}

/// A revision that an inode carries.
#[derive(Debug)]
pub(super) struct Base {
    pub(super) bytes: Bytes,
    pub(super) seq: u64,
    pub(super) rev: i64,
}

/// What an inode has besides while it is open.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) handles: Vec<Fh>,
    pub(super) readers: u32,
    /// Later values, for the readers; begins with the first of them.
    pub(super) log: Log,
}

impl FileNode {
    /// An inode that nobody knows yet.
    pub(super) fn new(key: Name, base: Option<Box<Base>>) -> Self {
        Self { key, base, nlookup: 0, told_at: None, kept: false, open: None }
    }

    /// What it carries. `state` is its key's, here and below.
    pub(super) fn bytes<'n>(&'n self, state: &'n KeyState) -> &'n Bytes {
        self.base.as_ref().map_or(state.bytes(), |base| &base.bytes)
    }

    pub(super) fn seq(&self, state: &KeyState) -> u64 {
        self.base.as_ref().map_or(state.seq, |base| base.seq)
    }

    pub(super) fn rev(&self, state: &KeyState) -> i64 {
        let known = || state.known.value().map_or(0, |value| value.rev);
        self.base.as_ref().map_or_else(known, |base| base.rev)
    }

    /// It carries what it does, whatever becomes of the key.
    fn keep_base(&mut self, state: &KeyState) {
        if self.base.is_none() {
            let base = Base { bytes: self.bytes(state).clone(), seq: self.seq(state), rev: self.rev(state) };
            self.base = Some(Box::new(base));
        }
    }

    pub(super) fn handles(&self) -> &[Fh] {
        self.open.as_ref().map_or(&[], |open| &open.handles)
    }

    pub(super) fn readers(&self) -> u32 {
        self.open.as_ref().map_or(0, |open| open.readers)
    }

    pub(super) fn opened(&mut self, fh: Fh, reads: bool, state: &KeyState) {
        let (len, seq) = (self.bytes(state).len() as u64, self.seq(state));
        let begin = || Log::new(len, seq);
        let open = self.open.get_or_insert_with(|| {
            Box::new(Open { handles: Vec::with_capacity(1), readers: 0, log: begin() })
        });
        open.handles.push(fh);
        if reads {
            if open.readers == 0 {
                open.log = begin();
            }
            open.readers += 1;
        }
    }

    pub(super) fn closed(&mut self, fh: Fh, reads: bool) {
        let Some(open) = &mut self.open else { return };
        open.handles.retain(|&other| other != fh);
        open.readers -= u32::from(reads);
        if open.readers == 0 {
            // Nobody can ask for what was there.
            open.log = Log::new(0, 0);
        }
        if open.handles.is_empty() {
            self.open = None;
        }
    }
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

    /// The same of its revision alone, which leaves the bytes where they are: the first who shares them makes them
    /// larger.
    pub(crate) fn known_rev(&mut self, key: &[u8]) -> Known<i64> {
        self.keys.get_mut(key).map_or(Known::Unknown, |state| {
            state.used = true;
            match &state.known {
                Known::Unknown => Known::Unknown,
                Known::Absent => Known::Absent,
                Known::Present(value) => Known::Present(value.rev),
            }
        })
    }

    pub(crate) fn is_local(&self, key: &[u8]) -> bool {
        self.locals.contains_key(key)
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
        self.state(key).make_busy().loads += 1;
    }

    /// Ends [`Self::begin_load`] with what was read at `revision`, if anything was. Who has ended all that were read
    /// together calls [`Self::trim`], once: each outlives that.
    pub(crate) fn end_load(&mut self, key: &Bytes, read: Option<(i64, Option<Value>)>) {
        let state = self.state(key);
        if let Some(busy) = &mut state.busy {
            busy.loads = busy.loads.saturating_sub(1);
        }
        state.rest();
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
        if !self.keys.contains_key(&key[..]) {
            // A copy: what the key was cut out of may be large, and would stay as long.
            self.keys.insert(Name::from(&key[..]), KeyState::new());
        }
        self.keys.get_mut(&key[..]).expect("inserted above")
    }

    /// What is known of a key is about to change: its inodes carry what they do, and what may be told stays.
    pub(super) fn hold_back(&mut self, key: &[u8]) {
        self.keep_bases(key);
        if let Some(state) = self.keys.get_mut(key) {
            state.hold_back();
        }
    }

    /// The inodes of a key carry what they do, whatever becomes of it.
    pub(super) fn keep_bases(&mut self, key: &[u8]) {
        let Some(state) = self.keys.get(key) else { return };
        for id in state.nodes() {
            if let Some(Node::File(node)) = self.nodes.get_mut(&id) {
                node.keep_base(state);
            }
        }
    }

    /// The state of an inode's key.
    pub(super) fn state_of(&self, id: NodeId) -> Option<&KeyState> {
        match self.nodes.get(&id)? {
            Node::File(node) => self.keys.get(&node.key),
            Node::Dir(_) | Node::Link(_) => None,
        }
    }

    /// Drops cached keys that nobody needs, oldest unused first, down to the budget. What was used since the last look
    /// stays until the next, which the notifier takes if nobody else does. One that the kernel has a name of
    /// goes when the kernel has let go of it, which it is asked to do; until then it counts no more.
    pub(crate) fn trim(&mut self) {
        for _ in 0..self.keys.len() {
            if !self.is_over() {
                return;
            }
            if self.hand >= self.keys.len() {
                self.hand = 0;
            }
            let Some((key, state)) = self.keys.get_index_mut(self.hand) else { return };
            let is_used = std::mem::take(&mut state.used);
            if is_used || state.pinned() || state.is_leaving() || self.locals.contains_key(&key[..]) {
                self.hand += 1;
            } else if !state.has_nodes() {
                let len = state.cached_bytes();
                self.cached_bytes = self.cached_bytes.saturating_sub(len);
                // The last one comes in its place, and is looked at next.
                self.keys.swap_remove_index(self.hand);
            } else {
                self.hand += 1;
                if let Some(spot) = &state.place {
                    let notice = Notice::Name { parent: spot.parent(), name: spot.name(key) };
                    let len = state.cached_bytes();
                    state.make_busy().leaving = Some(len);
                    self.leaving_keys += 1;
                    self.leaving_bytes += len;
                    self.notify(notice);
                }
            }
        }
    }

    /// What is known of a key is known no more, since the server tells it no more. Who has it open keeps it.
    pub(crate) fn withhold(&mut self, key: &Bytes) {
        if self.locals.contains_key(key) {
            return;
        }
        self.keep_bases(key);
        let Some(state) = self.keys.get_mut(&key[..]) else { return };
        self.cached_bytes = self.cached_bytes.saturating_sub(state.cached_bytes());
        // What it may be once it is told again is newer.
        self.seq += 1;
        (state.rev, state.seq) = (0, self.seq);
        if let Known::Present(before) = std::mem::replace(&mut state.known, Known::Unknown)
            && state.handles > 0
        {
            state.make_busy().last = before.bytes;
        }
        if let Some(busy) = &mut state.busy {
            // Nothing comes any more that they could wait for.
            busy.waiters.clear();
        }
        state.publish_unseen();
    }

    pub(super) fn is_over(&self) -> bool {
        self.keys.len() - self.leaving_keys > self.limits.keys_max
            || self.cached_bytes.saturating_sub(self.leaving_bytes) > self.limits.bytes_max
    }

    /// The kernel has let go of a key's name, or uses it again: it is looked at like all others, and next.
    pub(super) fn stays(&mut self, key: &[u8]) {
        let Some((at, _, state)) = self.keys.get_full_mut(key).filter(|(_, _, state)| state.is_leaving())
        else {
            return;
        };
        if let Some(len) = state.make_busy().leaving.take() {
            self.leaving_keys -= 1;
            self.leaving_bytes -= len;
        }
        state.rest();
        self.hand = at;
    }
}
