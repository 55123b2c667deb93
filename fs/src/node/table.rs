//! The table of inodes and open handles, and the queue of what the kernel must be
//! told.
//!
//! The queue is the only way from a change to the kernel: whoever holds the lock
//! puts a notice in it, one thread takes it out, talks to the kernel with no lock
//! held, and comes back. A notice about a key or name that is already queued is
//! not queued again, so the queue is bounded by what the kernel knows.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ffi::OsString;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use indexmap::IndexMap;
use parking_lot::{Condvar, Mutex, MutexGuard};

use super::dir::DirState;
use super::echo::{Echoes, FileStep, Flight, Job, Note};
use super::file::{KeyState, Local, LocalFile, Name};
use super::handle::{Reader, Writer};
use super::listing::{DirHandle, KernelCopy};
use super::repeat::Repeating;
use super::{Fh, NodeId, ROOT, Value};
use crate::config::{Inotify, View};
use crate::map::{Dir, OWN_RECORDS};

/// Inode numbers that are counted up begin here: above those of other file systems, below the hashes of keys.
const COUNTED_FROM: u64 = 1 << 60;

/// Cached keys, beside those that are open or watched.
const KEYS_MAX: usize = 200_000;

/// How long what was used just now may stay beyond the bound, where nothing else happens.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What the table is allowed to keep and to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) keys_max: usize,
    pub(crate) bytes_max: usize,
    pub(crate) follow: bool,
    pub(crate) inotify: Inotify,
    /// The kernel keeps neither names nor attributes of files.
    pub(crate) strict: bool,
}

#[derive(Debug)]
pub(super) enum Node {
    File(super::file::FileNode),
    /// Fewer, and larger than a file's.
    Dir(Box<DirNode>),
    Link(Box<LinkNode>),
}

#[derive(Debug)]
pub(super) struct DirNode {
    pub(super) dir: Dir,
    /// Where the kernel looked it up last; `None` for the root.
    pub(super) place: Option<(NodeId, OsString)>,
    pub(super) nlookup: u64,
    pub(super) dead: bool,
    pub(super) copy: KernelCopy,
}

#[derive(Debug)]
pub(super) struct LinkNode {
    pub(super) target: OsString,
    pub(super) nlookup: u64,
}

#[derive(Debug)]
pub(super) enum Handle {
    Reader(Reader),
    Writer(Writer),
    Dir(DirHandle),
}

impl Handle {
    fn unsaved_bytes(&self) -> usize {
        match self {
            Self::Writer(writer) if writer.is_unsaved() => writer.edits.bytes(),
            Self::Writer(_) | Self::Reader(_) | Self::Dir(_) => 0,
        }
    }
}

/// Something that the kernel must be told.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Notice {
    /// A key has changed: drop its name, then publish.
    Publish(Bytes),
    /// A name stands for something else now.
    Name { parent: NodeId, name: OsString },
    /// A directory may be gone: look again at the next walk, but keep it for those inside.
    Expire { parent: NodeId, name: OsString },
    /// A directory lists something else now, and a handle is open that reads the kernel's copy of what it listed.
    Listing(NodeId),
}

/// A notice, made ready for the kernel.
#[derive(Debug)]
pub(crate) struct Work {
    notice: Notice,
    /// Drop this name.
    pub(crate) drop_name: Option<(NodeId, OsString)>,
    /// Look this name up again before it is used.
    pub(crate) expire_name: Option<(NodeId, OsString)>,
    /// Forget these inodes' attributes.
    pub(crate) attributes: Vec<NodeId>,
    /// Forget what this directory lists.
    pub(crate) drop_listing: Option<NodeId>,
}

/// How much a table keeps, and how far the watch has come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stats {
    pub(crate) cached_bytes: usize,
    pub(crate) cached_bytes_max: usize,
    pub(crate) keys: usize,
    pub(crate) dirs: usize,
    pub(crate) inodes: usize,
    pub(crate) open: usize,
    /// Written by programs, and still to be put.
    pub(crate) unsaved_bytes: usize,
    pub(crate) seen: i64,
}

/// What becomes of what is cached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trust {
    /// It is shown.
    Given,
    /// It waits for the server.
    Waits,
    /// It is refused, as the server refuses the mount's user what the mount shows.
    Refused,
}

/// All inodes, handles and cached facts.
#[derive(Debug)]
pub(crate) struct Table {
    /// These two may be large: they grow without holes.
    pub(super) nodes: IndexMap<NodeId, Node>,
    pub(super) keys: IndexMap<Name, KeyState>,
    /// The files that only this mount has, so far. Each has a state in `keys`.
    pub(super) locals: HashMap<Bytes, LocalFile>,
    /// By key prefix with its trailing slash.
    pub(super) dirs: HashMap<Bytes, DirState>,
    pub(super) dir_nodes: HashMap<Dir, NodeId>,
    pub(super) handles: HashMap<Fh, Handle>,
    /// Which of `keys` is looked at next for dropping.
    pub(super) hand: usize,
    pub(super) cached_bytes: usize,
    /// Of those that the kernel was asked to let go of.
    pub(super) leaving_keys: usize,
    pub(super) leaving_bytes: usize,
    pub(super) limits: Limits,
    pub(super) seq: u64,
    pub(super) next_fh: u64,
    /// Counts what writers do.
    pub(super) edits: u64,
    next_node: u64,
    notices: VecDeque<Notice>,
    queued: HashSet<Notice>,
    /// The notifier waits to look again at what is kept beyond the bound.
    looks_again: bool,
    closed: bool,
    /// False while the watch has been gone for too long, or has a gap.
    pub(super) trusted: bool,
    /// The newest revision that the watch has brought.
    pub(super) seen: i64,
    /// Values that a slow reader did not get, because newer ones took their room.
    pub(super) skipped: u64,
    /// What inotify's listeners are still to hear of.
    pub(super) echo: Echoes,
    /// What its helper is doing.
    pub(super) repeating: Option<Repeating>,
    /// The kernel can look a directory up again and keep it for those inside.
    pub(super) dirs_expire: bool,
    /// The key prefix of the mount point itself.
    pub(super) root: Bytes,
}

impl Table {
    pub(crate) fn new(root: Dir, limits: Limits) -> Self {
        let node =
            DirNode { dir: root.clone(), place: None, nlookup: 1, dead: false, copy: KernelCopy::default() };
        let prefix = root.prefix().cloned().unwrap_or_default();
        Self {
            nodes: IndexMap::from([(ROOT, Node::Dir(Box::new(node)))]),
            keys: IndexMap::new(),
            locals: HashMap::new(),
            dirs: HashMap::new(),
            dir_nodes: HashMap::from([(root, ROOT)]),
            handles: HashMap::new(),
            hand: 0,
            cached_bytes: 0,
            leaving_keys: 0,
            leaving_bytes: 0,
            limits,
            seq: 0,
            next_fh: 1,
            edits: 0,
            next_node: COUNTED_FROM,
            notices: VecDeque::new(),
            queued: HashSet::new(),
            looks_again: false,
            closed: false,
            trusted: true,
            seen: 0,
            skipped: 0,
            echo: Echoes::new(limits.inotify),
            repeating: None,
            dirs_expire: true,
            root: prefix,
        }
    }

    pub(super) fn fresh(&mut self) -> NodeId {
        self.next_node += 1;
        NodeId(self.next_node)
    }

    pub(super) fn fresh_fh(&mut self) -> Fh {
        let fh = Fh(self.next_fh);
        self.next_fh += 1;
        fh
    }

    pub(super) fn notify(&mut self, notice: Notice) {
        if self.queued.insert(notice.clone()) {
            self.notices.push_back(notice);
        }
    }

    /// The next thing to tell the kernel, if there is one.
    pub(crate) fn next_work(&mut self) -> Option<Work> {
        let notice = self.notices.pop_front()?;
        self.queued.remove(&notice);
        let mut work =
            Work { notice, drop_name: None, expire_name: None, attributes: Vec::new(), drop_listing: None };
        match &work.notice {
            Notice::Publish(key) => {
                let key = key.clone();
                (work.drop_name, work.attributes) = self.publish_plan(&key);
            }
            Notice::Name { parent, name } => work.drop_name = Some((*parent, name.clone())),
            Notice::Expire { parent, name } => work.expire_name = Some((*parent, name.clone())),
            Notice::Listing(id) => work.drop_listing = Some(*id),
        }
        Some(work)
    }

    /// The kernel has been told.
    pub(crate) fn work_done(&mut self, work: &Work) {
        if let Notice::Publish(key) = &work.notice {
            self.published(key);
        }
    }

    /// The watch has brought everything up to `rev`.
    pub(crate) fn saw(&mut self, rev: i64) {
        self.seen = self.seen.max(rev);
        let keys = &self.keys;
        self.echo.saw(rev, |key| own_step(keys, key));
        // Values have grown, perhaps.
        self.trim();
    }

    /// A change of these keys is sent by this mount.
    pub(crate) fn begin_flight(&mut self, keys: Vec<Bytes>) -> Flight {
        self.echo.begin_flight(keys)
    }

    /// It is answered, with the revision that it made, or given up.
    pub(crate) fn end_flight(&mut self, flight: Flight, made: Option<i64>) {
        let keys = &self.keys;
        self.echo.end_flight(flight, made, |key| own_step(keys, key));
    }

    /// True if somebody may have a watch on the directory.
    pub(super) fn is_open(&self, prefix: &[u8]) -> bool {
        self.echo.inotify == Inotify::Always
            || *prefix == *self.root
            || self.dirs.get(prefix).is_some_and(|state| state.node.is_some())
    }

    /// Notes one event of a key for inotify's listeners, before it is taken in.
    pub(super) fn note_file(&mut self, key: &Bytes, rev: i64, new: Option<&Value>) {
        if !self.echo.is_on() || key.starts_with(OWN_RECORDS) {
            return;
        }
        let slash = key.iter().rposition(|&byte| byte == b'/').map_or(0, |at| at + 1);
        let held = |key: &[u8]| self.keys.get(key).is_some_and(KeyState::has_nodes);
        if self.is_open(&key[..slash]) || held(key) || self.is_open(&[key, b"/".as_ref()].concat()) {
            let note = match new {
                Some(value) => {
                    Note::Put { key: key.clone(), first: value.version == 1, bytes: value.bytes.clone() }
                }
                None => {
                    let known = self.keys.get(&key[..]).and_then(|state| state.known.value());
                    Note::Deleted { key: key.clone(), bytes: known.map(|value| value.bytes.clone()) }
                }
            };
            self.echo.note(key, rev, note);
        }
    }

    /// Inodes that are open are to be held for their listeners, since no handle reaches them.
    pub(crate) fn hold_open_nodes(&mut self) {
        self.echo.holds = true;
    }

    /// Nobody is to be told of anything by inotify any more: it can't be done.
    pub(crate) fn stop_echo(&mut self) {
        self.echo.turn_off();
    }

    /// The inodes of a key that the kernel holds.
    pub(crate) fn nodes_of(&self, key: &[u8], now: Instant) -> Vec<HeldNode> {
        let Some(state) = self.keys.get(key) else { return Vec::new() };
        let next = self.next_node_of(key, now);
        let held = |id: &NodeId| matches!(self.nodes.get(id), Some(Node::File(node)) if node.nlookup > 0);
        let facts = |id| HeldNode { id, current: state.cur() == Some(id), named: next == Some(id) };
        state.nodes().filter(held).map(facts).collect()
    }

    /// The kernel keeps a name that it was told for a listener's sake alone: it shall drop it.
    pub(crate) fn drop_name(&mut self, parent: NodeId, name: OsString) {
        self.notify(Notice::Name { parent, name });
    }

    /// The inode of a directory that is there.
    pub(crate) fn dir_node(&self, dir: &Dir) -> Option<NodeId> {
        self.dir_nodes.get(dir).copied()
    }

    /// Jobs for inotify's listeners that found no room, since it was last asked.
    pub(crate) fn take_echo_dropped(&mut self) -> u64 {
        self.echo.take_dropped()
    }

    /// How many such jobs wait.
    pub(crate) fn echo_waiting(&self) -> usize {
        self.echo.waiting()
    }

    /// Values that slow readers did not get, since it was last asked.
    pub(crate) fn take_skipped(&mut self) -> u64 {
        std::mem::take(&mut self.skipped)
    }

    /// The kernel has dropped `count` of the lookups that it was answered.
    pub(crate) fn forget(&mut self, id: NodeId, count: u64) {
        if id == ROOT {
            return;
        }
        let Some(node) = self.nodes.get_mut(&id) else { return };
        match node {
            Node::File(node) => {
                node.nlookup = node.nlookup.saturating_sub(count);
                let key = node.key.clone();
                self.drop_if_unused(id, &key);
            }
            Node::Dir(node) => {
                node.nlookup = node.nlookup.saturating_sub(count);
                if node.nlookup == 0 {
                    let dir = node.dir.clone();
                    self.nodes.swap_remove(&id);
                    if self.dir_nodes.get(&dir) == Some(&id) {
                        self.dir_nodes.remove(&dir);
                    }
                    if let Some(state) = dir.prefix().and_then(|prefix| self.dirs.get_mut(prefix)) {
                        state.node = state.node.filter(|&node| node != id);
                        state.retired = state.retired.filter(|&node| node != id);
                    }
                }
            }
            Node::Link(node) => {
                node.nlookup = node.nlookup.saturating_sub(count);
                if node.nlookup == 0 {
                    self.nodes.swap_remove(&id);
                }
            }
        }
    }

    pub(crate) fn kind(&self, id: NodeId) -> Option<super::Kind> {
        Some(match self.nodes.get(&id)? {
            Node::File(_) => super::Kind::File,
            Node::Dir(_) => super::Kind::Dir,
            Node::Link(_) => super::Kind::Link,
        })
    }

    /// Ends a handle of any kind. Returns the key of a scratch file that nobody has
    /// open any more: its time to become a key runs from now on.
    pub(crate) fn release(&mut self, fh: Fh) -> Option<Bytes> {
        let id = match self.handles.get(&fh)? {
            Handle::Reader(reader) => reader.node,
            Handle::Writer(writer) => writer.node,
            Handle::Dir(_) => {
                self.release_dir(fh);
                return None;
            }
        };
        let key = self.key_of(id);
        self.release_file(fh, id);
        let key = key?;
        let state = self.keys.get(&key[..])?;
        (state.handles == 0 && self.is_scratch(&key)).then_some(key)
    }

    /// Makes a file that only this mount has, so far.
    pub(crate) fn create_local(&mut self, key: &Bytes, scratch: Option<bool>, now: SystemTime) {
        let kind = match scratch {
            Some(keep_while_open) => Local::Scratch { keep_while_open },
            None => Local::Pending,
        };
        self.locals.insert(key.clone(), LocalFile { kind, changed: now });
        self.change_local(key, Some((Bytes::new(), now)));
    }

    /// The files that only this mount has.
    pub(crate) fn local_keys(&self) -> impl Iterator<Item = &Bytes> {
        self.locals.keys()
    }

    fn is_scratch(&self, key: &[u8]) -> bool {
        matches!(self.locals.get(key), Some(LocalFile { kind: Local::Scratch { .. }, .. }))
    }

    /// True for a scratch file that must not become a key by fsync alone (a swap file).
    pub(crate) fn scratch_stays_local(&self, key: &[u8]) -> bool {
        let stays = Local::Scratch { keep_while_open: true };
        self.locals.get(key).is_some_and(|file| file.kind == stays)
    }

    pub(crate) fn open_handles(&self, key: &[u8]) -> u32 {
        self.keys.get(key).map_or(0, |state| state.handles)
    }

    /// Writers that still have something to put.
    pub(crate) fn writers(&self) -> Vec<Fh> {
        self.handles
            .iter()
            .filter(|(_, handle)| matches!(handle, Handle::Writer(_)))
            .map(|(&fh, _)| fh)
            .collect()
    }

    /// How much is kept.
    pub(crate) fn stats(&self) -> Stats {
        Stats {
            cached_bytes: self.cached_bytes,
            cached_bytes_max: self.limits.bytes_max,
            keys: self.keys.len(),
            dirs: self.dirs.len(),
            inodes: self.nodes.len(),
            open: self.handles.len(),
            unsaved_bytes: self.handles.values().map(Handle::unsaved_bytes).sum(),
            seen: self.seen,
        }
    }

    /// This mount's puts on one key take turns.
    pub(crate) fn turn(&mut self, key: &Bytes) -> Arc<tokio::sync::Mutex<()>> {
        self.state(key).make_busy().turn.get_or_insert_default().clone()
    }
}

/// An inode of a key that the kernel holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HeldNode {
    pub(crate) id: NodeId,
    /// The key's name led to it last.
    pub(crate) current: bool,
    /// The next lookup of the key's name leads to it.
    pub(crate) named: bool,
}

/// The table behind its lock, and the notifier's bell.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Held for a few lines: never across an await, a read of the server, or a word
    /// to the kernel. No other lock is taken under it.
    table: Mutex<Table>,
    bell: Condvar,
    /// Of the thread that tells inotify's listeners.
    echo_bell: Condvar,
}

/// What older inodes' listeners have still to hear of a change by this mount.
fn own_step(keys: &IndexMap<Name, KeyState>, key: &[u8]) -> Option<FileStep> {
    let state = keys.get(key)?;
    let wrote = state.busy().wrote;
    let others = state.nodes().any(|id| wrote != Some(id));
    (others && wrote.is_some()).then_some(FileStep::Own(wrote))
}

impl Shared {
    pub(crate) fn new(root: Dir, view: &View) -> Self {
        let limits = Limits {
            keys_max: KEYS_MAX,
            bytes_max: usize::try_from(view.cache_bytes).unwrap_or(usize::MAX),
            follow: view.follow,
            inotify: view.inotify,
            strict: view.strict,
        };
        Self { table: Mutex::new(Table::new(root, limits)), bell: Condvar::new(), echo_bell: Condvar::new() }
    }

    /// Runs `f` under the lock, then rings the notifier if there is work.
    pub(crate) fn with<T>(&self, f: impl FnOnce(&mut Table) -> T) -> T {
        let mut table: MutexGuard<'_, Table> = self.table.lock();
        let result = f(&mut table);
        if !table.notices.is_empty() || table.is_over() && !table.looks_again {
            self.bell.notify_one();
        }
        if table.echo.is_due() {
            self.echo_bell.notify_one();
        }
        result
    }

    /// Waits for the next thing to tell the kernel; `None` once closed and done.
    pub(crate) fn wait_work(&self) -> Option<Work> {
        let mut table = self.table.lock();
        loop {
            if let Some(work) = table.next_work() {
                return Some(work);
            }
            if table.closed {
                return None;
            }
            table.looks_again = table.is_over();
            if !table.looks_again {
                self.bell.wait(&mut table);
            } else if self.bell.wait_for(&mut table, LOOK_AGAIN).timed_out() {
                table.trim();
            }
        }
    }

    /// Waits for jobs for inotify's listeners, at most so many; `None` once closed.
    pub(crate) fn wait_echo(&self, most: usize) -> Option<Vec<Job>> {
        let mut table = self.table.lock();
        loop {
            if table.closed {
                return None;
            }
            if table.echo.is_due() {
                return Some(table.echo.take(most));
            }
            self.echo_bell.wait(&mut table);
        }
    }

    /// The notifier ends once its queue is empty.
    pub(crate) fn close(&self) {
        self.table.lock().closed = true;
        self.bell.notify_all();
        self.echo_bell.notify_all();
    }
}
