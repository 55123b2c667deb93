//! The follow rules: how a file's new value reaches names, sizes and readers.
//!
//! - Fork: an inode is one immutable revision while anybody reads it. A name gets
//!   its new value in a lookup and nowhere else, because only a lookup's reply
//!   sets value and size in one step.
//! - Follow: a reader that has come to its end may read the log of later values;
//!   nobody else can see that log, not even in st_size.
//! - Name: st_ino belongs to the key.
//!
//! A change is first known, then published: between the two the notifier makes the
//! kernel drop the name, so that no cached size meets a new value. Operations that
//! must not return before every local reader sees their value wait for the
//! publication, which needs no lock that they hold. What changed while the watch was away is overdue: a lookup that
//! has waited for the server must not show what was before, and can't wait for the notifier, which may need the
//! directory that the lookup holds. It gets the newest value in an inode that the kernel has never seen.

use std::ffi::{OsStr, OsString};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::file::{Base, FileNode, Local, Name, Spot, Until, home_of};
use super::handle::{Anonymous, Moment, OpenedAs, Reader, Unlinked, Writer, WriterView};
use super::table::{Handle, Node, Notice};
use super::{Caller, Edits, Entry, Fh, Kind, Known, NodeId, Table, Value};

/// An inode of which the kernel was told just now may still drop the reply that
/// told it; it is not moved to another revision within this time.
const TOLD_JUST_NOW: Duration = Duration::from_millis(100);

/// A writer, as far as a write through it needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WriterState {
    pub(crate) failed: Option<i32>,
    pub(crate) append: bool,
    /// How long the file is, seen through it.
    pub(crate) len: u64,
}

impl Table {
    /// Takes in what the watch (or an answer that leaves no gap) says of a key.
    /// Older and known revisions change nothing.
    pub(crate) fn change(&mut self, key: &Bytes, rev: i64, new: Option<Value>) {
        let Some(state) = self.keys.get_mut(&key[..]) else { return };
        if state.known != Known::Unknown && rev <= state.rev {
            if rev == state.rev
                && let (Some(new), Known::Present(known)) = (new, &mut state.known)
                && known.rev == rev
            {
                // Our own put, guessed at when it was answered: the watch knows the rest.
                (known.create, known.version, known.lease) = (new.create, new.version, new.lease);
            }
            return;
        }
        if let Some(local) = self.locals.get(key) {
            match (&new, local.kind) {
                (None, _) | (_, Local::Scratch { .. }) => return,
                (Some(_), Local::Pending) => drop(self.locals.remove(key)),
            }
        }
        self.hold_back(key);
        self.state(key).rev = rev;
        self.advance(key, new);
    }

    /// A change that only this mount knows of: a file that is no key yet.
    pub(crate) fn change_local(&mut self, key: &Bytes, new: Option<(Bytes, SystemTime)>) {
        self.state(key);
        match (&new, self.locals.get_mut(key)) {
            (Some((_, now)), Some(file)) => file.changed = *now,
            (Some(_), None) => {}
            (None, _) => drop(self.locals.remove(key)),
        }
        let new = new.map(|(bytes, _)| Value { bytes, create: 0, rev: 0, version: 0, lease: 0 });
        self.advance(key, new);
    }

    fn advance(&mut self, key: &Bytes, new: Option<Value>) {
        self.seq += 1;
        let seq = self.seq;
        let (follow, trusted) = (self.limits.follow, self.trusted);
        self.hold_back(key);
        let Some(state) = self.keys.get_mut(&key[..]) else { return };
        let before = state.known.value().map_or(0, |value| value.bytes.len());
        let after = new.as_ref().map_or(0, |value| value.bytes.len());
        self.cached_bytes = (self.cached_bytes + after).saturating_sub(before);
        state.seq = seq;
        if let (None, Known::Present(old)) = (&new, &state.known)
            && state.handles > 0
        {
            let last = old.bytes.clone();
            state.make_busy().last = last;
        }
        let value = new.as_ref().map(|value| value.bytes.clone());
        state.known = new.map_or(Known::Absent, Known::Present);
        if !state.has_nodes() {
            state.publish_unseen();
            return;
        }
        let busy = state.make_busy();
        if let Some(bytes) = value
            && follow
        {
            busy.pend.push((seq, bytes));
        }
        if self.limits.strict {
            // The kernel keeps nothing that it would have to drop first.
            self.published(key);
        } else {
            busy.overdue |= !trusted;
            if !std::mem::replace(&mut busy.queued, true) {
                self.notify(Notice::Publish(key.clone()));
            }
        }
    }

    /// True for an inode whose key has a newer value that must be shown, and is not published yet.
    pub(crate) fn is_overdue(&self, id: NodeId) -> bool {
        let Some(Node::File(node)) = self.nodes.get(&id) else { return false };
        self.keys.get(&node.key).is_some_and(|state| state.busy().overdue && node.seq(state) != state.seq)
    }

    /// What the kernel must be told before a key's new value is published: the name
    /// to drop and the inodes whose attributes it may keep no longer.
    pub(super) fn publish_plan(&mut self, key: &[u8]) -> (Option<(NodeId, OsString)>, Vec<NodeId>) {
        let Some(state) = self.keys.get(key) else { return (None, Vec::new()) };
        let place = state.place.as_ref().filter(|spot| self.nodes.contains_key(&spot.parent()));
        let place = place.map(|spot| (spot.parent(), spot.name(key)));
        let stale: Vec<NodeId> = state
            .nodes()
            .filter(|id| matches!(self.nodes.get(id), Some(Node::File(node)) if node.kept))
            .collect();
        for id in &stale {
            if let Some(Node::File(node)) = self.nodes.get_mut(id) {
                node.kept = false;
            }
        }
        (place, stale)
    }

    /// Ends the publication: the kernel has dropped the name.
    pub(super) fn published(&mut self, key: &[u8]) {
        let Some(state) = self.keys.get_mut(key) else { return };
        let busy = state.make_busy();
        busy.queued = false;
        let pend = std::mem::take(&mut busy.pend);
        for id in state.nodes() {
            if let Some(Node::File(node)) = self.nodes.get_mut(&id)
                && let Some(open) = node.open.as_mut().filter(|open| open.readers > 0)
            {
                for (seq, bytes) in &pend {
                    self.skipped += open.log.push(*seq, bytes.clone());
                }
            }
        }
        state.publish();
        state.wake();
        state.rest();
    }

    /// Calls back when `until` has been published; already has if this is `None`.
    pub(super) fn wait_published(&mut self, key: &[u8], until: Until) -> Option<oneshot::Receiver<()>> {
        let state = self.keys.get_mut(key)?;
        if state.reached(until) {
            return None;
        }
        let (sender, receiver) = oneshot::channel();
        state.make_busy().waiters.push((until, sender));
        Some(receiver)
    }

    /// The newest revision that what is known of a key accounts for.
    pub(crate) fn known_at(&self, key: &[u8]) -> i64 {
        self.keys.get(key).map_or(0, |state| state.rev)
    }

    /// A wait for everything that is known of the key now.
    pub(crate) fn wait_known(&mut self, key: &[u8]) -> Option<oneshot::Receiver<()>> {
        let seq = self.keys.get(key)?.seq;
        self.wait_published(key, Until::Seq(seq))
    }

    /// Takes in this mount's own change, answered at `rev`. `before` is the revision
    /// that it replaced, where that is certain: only then can no other change lie
    /// between, and it is taken in at once. Else the watch brings it in order.
    pub(crate) fn own_change(
        &mut self,
        key: &Bytes,
        rev: i64,
        before: Option<i64>,
        new: Option<Value>,
    ) -> Option<oneshot::Receiver<()>> {
        // A file of our own has no history that a reader could miss.
        let was_local = self.locals.contains_key(key);
        let is_newer = self.state(key).rev < rev;
        if was_local && is_newer {
            self.locals.remove(key);
        }
        let state = self.state(key);
        let no_gap = state.known == Known::Unknown
            || was_local
            || before.is_some_and(|before| before == state.known.value().map_or(0, |value| value.rev));
        if no_gap && is_newer {
            self.hold_back(key);
            let state = self.state(key);
            state.rev = rev;
            let same = was_local
                && matches!((&state.known, &new), (Known::Present(a), Some(b)) if a.bytes == b.bytes);
            if same {
                // The file that was local is now a key; nothing that anybody reads changes.
                state.known = new.map_or(Known::Absent, Known::Present);
                state.publish();
                state.wake();
                state.rest();
            } else {
                self.advance(key, new);
            }
        }
        self.wait_published(key, Until::Rev(rev))
    }

    /// Without handles to reach an inode that the name has left, the name had better not leave it: how long a
    /// lookup should wait, so that it finds the key's inode free to move.
    pub(crate) fn moves_after(&self, key: &[u8], now: Instant) -> Option<Duration> {
        let state = self.keys.get(key).filter(|_| self.echo.holds)?;
        let Some(Node::File(node)) = self.nodes.get(&state.cur()?) else { return None };
        let told = node.told_at.filter(|_| node.readers() == 0 && node.seq(state) != state.pub_seq())?;
        TOLD_JUST_NOW.checked_sub(now.duration_since(told))
    }

    fn may_move(&self, id: NodeId, now: Instant) -> bool {
        match self.nodes.get(&id) {
            Some(Node::File(node)) => {
                node.readers() == 0
                    && (node.nlookup == 0
                        || node.told_at.is_none_or(|at| now.duration_since(at) >= TOLD_JUST_NOW))
            }
            Some(_) => false,
            None => true,
        }
    }

    /// Answers a lookup that found the key to be a file; counts it.
    pub(crate) fn lookup_file(
        &mut self,
        key: &Bytes,
        parent: NodeId,
        name: &OsStr,
        now: Instant,
    ) -> Option<Entry> {
        self.keys.get(&key[..])?.known.value()?;
        self.stays(key);
        let (_, key, state) = self.keys.get_full_mut(&key[..])?;
        // The inode and the key's state share it.
        let key = &key.clone();
        state.used = true;
        if state.published().is_none() {
            // The kernel has no name for it that could carry an old size.
            state.publish();
        }
        let (overdue, cur) = (state.busy().overdue, state.cur());
        let seq = if overdue { state.seq } else { state.pub_seq() };
        state.place = Spot::new(key, parent, name);
        let fits = cur.filter(|id| matches!(self.nodes.get(id), Some(Node::File(n)) if n.seq(state) == seq));
        let id = match fits {
            Some(id) => id,
            None => {
                let value = if overdue { state.known.value() } else { state.published() };
                let base = |value: &Value| Base { bytes: value.bytes.clone(), seq, rev: value.rev };
                let base = value.map(|value| (seq != state.seq).then(|| Box::new(base(value))))?;
                let free = if overdue { None } else { self.free_node_of(key, cur, now) };
                let id = free.unwrap_or_else(|| self.fresh());
                self.carry(id, key, base);
                id
            }
        };
        if let Some(Node::File(node)) = self.nodes.get_mut(&id) {
            node.nlookup += 1;
            node.told_at = Some(now);
        }
        let state = self.keys.get(key)?;
        let keep = state.is_settled() && !self.is_local(key) && !self.limits.strict;
        let attr = self.own_attr(id)?;
        Some(Entry { node: id, attr, keep })
    }

    /// The inode that may carry a key's new value: home, else the current one, where nobody reads it.
    fn free_node_of(&self, key: &[u8], cur: Option<NodeId>, now: Instant) -> Option<NodeId> {
        let ours = |id: &NodeId| match self.nodes.get(id) {
            None => true,
            Some(Node::File(node)) => *node.key == *key,
            Some(_) => false,
        };
        let known = [Some(home_of(key, Kind::File)), cur];
        known.into_iter().flatten().find(|id| ours(id) && self.may_move(*id, now))
    }

    /// The inode that a lookup of the key's name leads to; none if to a fresh one.
    pub(super) fn next_node_of(&self, key: &[u8], now: Instant) -> Option<NodeId> {
        let state = self.keys.get(key)?;
        let overdue = state.busy().overdue;
        let seq = if overdue { state.seq } else { state.pub_seq() };
        match state.cur().map(|cur| (cur, self.nodes.get(&cur))) {
            Some((cur, Some(Node::File(node)))) if node.seq(state) == seq => Some(cur),
            _ if overdue => None,
            _ => self.free_node_of(key, state.cur(), now),
        }
    }

    /// From now on the inode is the key's, and carries this revision, or what is known.
    fn carry(&mut self, id: NodeId, key: &Name, base: Option<Box<Base>>) {
        match self.nodes.get_mut(&id) {
            Some(Node::File(node)) => node.base = base,
            _ => drop(self.nodes.insert(id, Node::File(FileNode::new(key.clone(), base)))),
        }
        if let Some(state) = self.keys.get_mut(key) {
            state.lead_to(id);
        }
    }

    /// Opens an inode for reading: its own revision, also where that is behind; or what its process writes.
    pub(crate) fn open_reader(&mut self, id: NodeId, caller: Caller) -> Option<Fh> {
        let beside = caller.process.filter(|&process| self.writes(id, process));
        let order = self.next_fh;
        let fh = self.fresh_fh();
        let Some(Node::File(node)) = self.nodes.get_mut(&id) else { return None };
        let state = self.keys.get_mut(&node.key)?;
        let snap = (node.bytes(state).clone(), node.seq(state));
        let mut reader = Reader::new(id, caller.thread, order, snap.0, snap.1);
        reader.beside = beside;
        node.opened(fh, true, state);
        if node.readers() == 1 {
            self.echo.opened(&node.key, id);
        }
        state.handles += 1;
        self.handles.insert(fh, Handle::Reader(reader));
        Some(fh)
    }

    pub(crate) fn open_writer(
        &mut self,
        id: NodeId,
        caller: Caller,
        opened_as: OpenedAs,
        append: bool,
        sync: bool,
        already_put: bool,
    ) -> Option<Fh> {
        let fh = self.fresh_fh();
        let since = Unlinked(self.seq);
        let Some(Node::File(node)) = self.nodes.get_mut(&id) else { return None };
        let state = self.keys.get_mut(&node.key)?;
        node.opened(fh, false, state);
        state.handles += 1;
        let writer = Writer {
            node: id,
            thread: caller.thread,
            processes: caller.process.into_iter().collect(),
            opened_as,
            append,
            sync,
            edits: if opened_as == OpenedAs::Truncated { Edits::truncated() } else { Edits::default() },
            changed: None,
            last_edit: 0,
            wrote: false,
            put: already_put,
            create: state.known.value().map_or(0, |value| value.create),
            failed: None,
            anonymous: match &state.known {
                // Unlinked between the path walk and now.
                Known::Absent => Some(Anonymous { bytes: node.bytes(state).clone(), since }),
                Known::Present(_) | Known::Unknown => None,
            },
            key: Bytes::copy_from_slice(&node.key),
        };
        self.handles.insert(fh, Handle::Writer(writer));
        Some(fh)
    }

    /// A read through any handle; `None` for a handle that is not open for it.
    pub(crate) fn read(&mut self, fh: Fh, pid: u32, offset: u64, size: usize) -> Option<Bytes> {
        let follow = self.limits.follow;
        match self.handles.get(&fh)? {
            Handle::Reader(reader) => {
                if let Some(view) = self.view_beside(reader) {
                    return Some(view.read(offset, size));
                }
            }
            Handle::Writer(writer) => {
                let writers = self.writers_with(fh, writer);
                let view = Self::view(self.keys.get(&writer.key[..])?, &writers, Some(fh))?;
                return Some(view.read(offset, size));
            }
            Handle::Dir(_) => return None,
        }
        match self.handles.get_mut(&fh)? {
            Handle::Reader(reader) => {
                reader.pid = pid;
                let Some(Node::File(node)) = self.nodes.get(&reader.node) else { return None };
                let published = self
                    .keys
                    .get(&node.key)
                    .and_then(|state| state.published().map(|value| (&value.bytes, state.pub_seq())));
                let log = node.open.as_ref().map(|open| &open.log);
                Some(reader.read(log.filter(|_| follow), published.filter(|_| follow), offset, size))
            }
            Handle::Writer(_) | Handle::Dir(_) => None,
        }
    }

    /// The value that a writer shows, for those who need all of it.
    pub(crate) fn writer(&self, fh: Fh) -> Option<WriterView> {
        match self.handles.get(&fh)? {
            Handle::Writer(writer) => Some(WriterView {
                key: writer.key.clone(),
                edits: writer.edits.clone(),
                create: writer.create,
                put: writer.put,
                anonymous: writer.anonymous.is_some(),
            }),
            Handle::Reader(_) | Handle::Dir(_) => None,
        }
    }

    pub(crate) fn due(&self, fh: Fh, moment: Moment) -> bool {
        matches!(self.handles.get(&fh), Some(Handle::Writer(writer)) if writer.due(moment))
    }

    pub(crate) fn writer_state(&self, fh: Fh) -> Option<WriterState> {
        let Some(Handle::Writer(writer)) = self.handles.get(&fh) else { return None };
        let view = Self::view(self.keys.get(&writer.key[..])?, &[(fh, writer)], Some(fh))?;
        Some(WriterState { failed: writer.failed, append: writer.append, len: view.len() })
    }

    /// A writer's key, and whether its first write(2) is still to come.
    pub(crate) fn writer_key(&self, fh: Fh) -> Option<(Bytes, bool)> {
        match self.handles.get(&fh)? {
            Handle::Writer(writer) => Some((writer.key.clone(), !writer.wrote)),
            Handle::Reader(_) | Handle::Dir(_) => None,
        }
    }

    /// A writer of this inode whose file is no key yet.
    pub(crate) fn pending_writer(&self, id: NodeId) -> Option<Fh> {
        let Some(Node::File(node)) = self.nodes.get(&id) else { return None };
        node.handles().iter().copied().find(|fh| {
            matches!(self.handles.get(fh), Some(Handle::Writer(writer))
                if writer.opened_as == OpenedAs::Created && !writer.put && writer.anonymous.is_none())
        })
    }

    pub(crate) fn writers_of(&self, key: &Bytes) -> Vec<Fh> {
        self.handles
            .iter()
            .filter(|(_, handle)| matches!(handle, Handle::Writer(writer) if writer.key == *key))
            .map(|(&fh, _)| fh)
            .collect()
    }

    /// The last writer of a file that never became a key ends: neither does the file.
    pub(crate) fn abandon_pending(&mut self, fh: Fh, key: &Bytes) {
        let pending = self.locals.get(key).is_some_and(|file| file.kind == Local::Pending);
        if pending && self.writers_of(key).iter().all(|&other| other == fh) {
            self.change_local(key, None);
        }
    }

    /// Edits through a writer; true iff this was its first write(2).
    pub(crate) fn edit(
        &mut self,
        fh: Fh,
        caller: Caller,
        now: SystemTime,
        edit: impl FnOnce(&mut Edits),
    ) -> bool {
        let Some(Handle::Writer(writer)) = self.handles.get_mut(&fh) else { return false };
        writer.used_by(caller);
        writer.changed = Some(now);
        self.edits += 1;
        writer.last_edit = self.edits;
        edit(&mut writer.edits);
        !std::mem::replace(&mut writer.wrote, true)
    }

    /// The thread that used a writer last.
    pub(crate) fn writer_thread(&self, fh: Fh) -> Option<u32> {
        match self.handles.get(&fh)? {
            Handle::Writer(writer) => Some(writer.thread),
            Handle::Reader(_) | Handle::Dir(_) => None,
        }
    }

    /// ftruncate is no write(2): a truncated handle still waits for its first one.
    pub(crate) fn truncate_writer(&mut self, fh: Fh, len: u64, now: SystemTime) {
        if let Some(Handle::Writer(writer)) = self.handles.get_mut(&fh) {
            writer.edits.truncate(len);
            writer.changed = Some(now);
            self.edits += 1;
            writer.last_edit = self.edits;
        }
    }

    pub(crate) fn fail_writer(&mut self, fh: Fh, errno: i32) {
        if let Some(Handle::Writer(writer)) = self.handles.get_mut(&fh) {
            writer.failed.get_or_insert(errno);
        }
    }

    /// Every file that is open now is failed for writing, flush and fsync.
    pub(crate) fn fail_handles(&mut self, errno: i32) {
        for handle in self.handles.values_mut() {
            match handle {
                Handle::Writer(writer) => drop(writer.failed.get_or_insert(errno)),
                Handle::Reader(reader) => reader.failed = Some(errno),
                Handle::Dir(_) => {}
            }
        }
    }

    /// The errno of a reader's flush.
    pub(crate) fn reader_failed(&self, fh: Fh) -> Option<i32> {
        match self.handles.get(&fh)? {
            Handle::Reader(reader) => reader.failed,
            Handle::Writer(_) | Handle::Dir(_) => None,
        }
    }

    /// This mount is about to put `key` through an inode: listeners of that one hear of it from the kernel.
    pub(crate) fn writes_through(&mut self, key: &Bytes, id: NodeId) {
        self.state(key).make_busy().wrote = Some(id);
    }

    /// The inode of a writer.
    pub(crate) fn node_of(&self, fh: Fh) -> Option<NodeId> {
        match self.handles.get(&fh)? {
            Handle::Writer(writer) => Some(writer.node),
            Handle::Reader(_) | Handle::Dir(_) => None,
        }
    }

    /// A writer's edits are on the server (or in the local file).
    pub(crate) fn writer_put(&mut self, fh: Fh, create: i64) {
        if let Some(Handle::Writer(writer)) = self.handles.get_mut(&fh) {
            writer.edits.clear();
            writer.changed = None;
            writer.put = true;
            writer.create = create;
        }
    }

    /// What a read of an open writer's key finds instead of a key that is gone.
    pub(crate) fn unlink_handles(&mut self, key: &Bytes) {
        let since = Unlinked(self.seq);
        let Some(state) = self.keys.get(&key[..]) else { return };
        let bytes = state.bytes().clone();
        for id in state.nodes() {
            let Some(Node::File(node)) = self.nodes.get(&id) else { continue };
            for fh in node.handles() {
                match self.handles.get_mut(fh) {
                    Some(Handle::Writer(writer)) => {
                        writer.anonymous.get_or_insert_with(|| Anonymous { bytes: bytes.clone(), since });
                    }
                    Some(Handle::Reader(reader)) if reader.beside.is_some() => {
                        reader.unlinked.get_or_insert(since);
                    }
                    Some(Handle::Reader(_) | Handle::Dir(_)) | None => {}
                }
            }
        }
    }

    /// Moves the inode that the kernel has under the source's name to the target's
    /// key, as the kernel does with the name; with it go those that the name has left
    /// and that somebody writes, since a save goes where the file is. The values are
    /// changed by the caller: first this, then `change` of both.
    pub(crate) fn rename_node(
        &mut self,
        from: &Bytes,
        to: &Bytes,
        (parent, name): (NodeId, &OsStr),
    ) -> Option<NodeId> {
        let moved = self.keys.get(&from[..])?.cur()?;
        self.state(to);
        // They leave the key whose state says what they carry.
        self.keep_bases(from);
        let name_of_to = self.keys.get_key_value(&to[..])?.0.clone();
        self.stays(from);
        self.stays(to);
        let written = self.writers_on(self.keys.get(&from[..])?.nodes());
        let mut moving: Vec<NodeId> = written.map(|(id, _, _)| id).collect();
        moving.push(moved);
        moving.sort();
        moving.dedup();
        for id in moving {
            let Some(Node::File(node)) = self.nodes.get_mut(&id) else { return None };
            node.key = name_of_to.clone();
            let count = node.handles().len() as u32;
            for fh in node.handles() {
                if let Some(Handle::Writer(writer)) = self.handles.get_mut(fh) {
                    writer.key = to.clone();
                }
            }
            let source = self.keys.get_mut(&from[..])?;
            source.lose(id);
            source.handles = source.handles.saturating_sub(count);
            let target = self.keys.get_mut(&to[..])?;
            target.handles += count;
            target.lead_to(id);
        }
        let target = self.keys.get_mut(&to[..])?;
        target.lead_to(moved);
        target.place = Spot::new(to, parent, name);
        Some(moved)
    }

    /// The target of a rename has its new value, which its inode carries already:
    /// publishes it at once, since the kernel moved the name itself. Readers of the
    /// old inodes still get it through the notifier.
    pub(crate) fn renamed(&mut self, to: &Bytes, moved: NodeId, create: i64) {
        let Some(state) = self.keys.get_mut(&to[..]) else { return };
        state.publish();
        let gone = || Base { bytes: Bytes::new(), seq: state.seq, rev: state.rev };
        let base = state.known.value().is_none().then(|| Box::new(gone()));
        state.wake();
        if let Some(Node::File(node)) = self.nodes.get_mut(&moved) {
            node.base = base;
        }
        for fh in self.writers_of(to) {
            if let Some(Handle::Writer(writer)) = self.handles.get_mut(&fh)
                && writer.anonymous.is_none()
            {
                writer.create = create;
            }
        }
    }

    /// Ends a file handle.
    pub(super) fn release_file(&mut self, fh: Fh, id: NodeId) {
        self.settle_beside(fh);
        let Some(Node::File(node)) = self.nodes.get_mut(&id) else { return };
        let reader = matches!(self.handles.get(&fh), Some(Handle::Reader(_)));
        self.handles.remove(&fh);
        node.closed(fh, reader);
        if reader && node.readers() == 0 {
            self.echo.closed(id);
        }
        let key = node.key.clone();
        if let Some(state) = self.keys.get_mut(&key) {
            state.handles = state.handles.saturating_sub(1);
            state.rest();
        }
        self.drop_if_unused(id, &key);
    }

    pub(super) fn drop_if_unused(&mut self, id: NodeId, key: &[u8]) {
        if !matches!(self.nodes.get(&id), Some(Node::File(node)) if node.nlookup == 0 && node.open.is_none())
        {
            return;
        }
        self.nodes.swap_remove(&id);
        let Some(state) = self.keys.get_mut(key) else { return };
        state.lose(id);
        if !state.has_nodes() {
            state.place = None;
            state.publish_unseen();
            self.stays(key);
            self.trim();
        }
    }

    /// The published bytes' length and facts for readdirplus and the like.
    pub(crate) fn key_of(&self, id: NodeId) -> Option<Bytes> {
        match self.nodes.get(&id)? {
            Node::File(node) => Some(Bytes::copy_from_slice(&node.key)),
            Node::Dir(_) | Node::Link(_) => None,
        }
    }
}
