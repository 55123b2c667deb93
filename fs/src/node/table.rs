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

use bytes::Bytes;
use parking_lot::{Condvar, Mutex, MutexGuard};

use super::dir::{DirState, Listing};
use super::file::{KeyState, Local};
use super::handle::{Reader, Writer};
use super::{Fh, NodeId, ROOT};
use crate::map::Dir;

/// Cached keys, beside those that the kernel knows or that are open.
const KEYS_MAX: usize = 200_000;

/// What the table is allowed to keep and to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) keys_max: usize,
    pub(crate) bytes_max: usize,
    pub(crate) follow: bool,
}

#[derive(Debug)]
pub(super) enum Node {
    File(super::file::FileNode),
    Dir(DirNode),
    Link(LinkNode),
}

#[derive(Debug)]
pub(super) struct DirNode {
    pub(super) dir: Dir,
    /// Where the kernel looked it up last; `None` for the root.
    pub(super) place: Option<(NodeId, OsString)>,
    pub(super) nlookup: u64,
    pub(super) dead: bool,
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

/// An open directory: its listing is read once and served from here.
#[derive(Debug)]
pub(super) struct DirHandle {
    pub(super) node: NodeId,
    pub(super) listing: Option<Arc<Listing>>,
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
}

/// All inodes, handles and cached facts.
#[derive(Debug)]
pub(crate) struct Table {
    pub(super) nodes: HashMap<NodeId, Node>,
    pub(super) keys: HashMap<Bytes, KeyState>,
    /// By key prefix with its trailing slash.
    pub(super) dirs: HashMap<Bytes, DirState>,
    pub(super) dir_nodes: HashMap<Dir, NodeId>,
    pub(super) handles: HashMap<Fh, Handle>,
    /// Cached keys in the order in which they are looked at for dropping.
    pub(super) clock: VecDeque<Bytes>,
    pub(super) cached_bytes: usize,
    pub(super) limits: Limits,
    pub(super) seq: u64,
    pub(super) next_fh: u64,
    next_node: u64,
    notices: VecDeque<Notice>,
    queued: HashSet<Notice>,
    closed: bool,
    /// The newest revision that the watch has brought.
    pub(super) seen: i64,
    /// Values that a slow reader did not get, because newer ones took their room.
    pub(super) skipped: u64,
}

impl Table {
    pub(crate) fn new(root: Dir, limits: Limits) -> Self {
        let node = DirNode { dir: root.clone(), place: None, nlookup: 1, dead: false };
        Self {
            nodes: HashMap::from([(ROOT, Node::Dir(node))]),
            keys: HashMap::new(),
            dirs: HashMap::new(),
            dir_nodes: HashMap::from([(root, ROOT)]),
            handles: HashMap::new(),
            clock: VecDeque::new(),
            cached_bytes: 0,
            limits,
            seq: 0,
            next_fh: 1,
            next_node: ROOT.0,
            notices: VecDeque::new(),
            queued: HashSet::new(),
            closed: false,
            seen: 0,
            skipped: 0,
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
        let mut work = Work { notice, drop_name: None, expire_name: None, attributes: Vec::new() };
        match &work.notice {
            Notice::Publish(key) => {
                let key = key.clone();
                (work.drop_name, work.attributes) = self.publish_plan(&key);
            }
            Notice::Name { parent, name } => work.drop_name = Some((*parent, name.clone())),
            Notice::Expire { parent, name } => work.expire_name = Some((*parent, name.clone())),
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
                    self.nodes.remove(&id);
                    if self.dir_nodes.get(&dir) == Some(&id) {
                        self.dir_nodes.remove(&dir);
                    }
                    if let Some(state) = dir.prefix().and_then(|prefix| self.dirs.get_mut(prefix))
                        && state.node == Some(id)
                    {
                        state.node = None;
                    }
                }
            }
            Node::Link(node) => {
                node.nlookup = node.nlookup.saturating_sub(count);
                if node.nlookup == 0 {
                    self.nodes.remove(&id);
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

    pub(crate) fn open_dir(&mut self, id: NodeId) -> Fh {
        let fh = self.fresh_fh();
        self.handles.insert(fh, Handle::Dir(DirHandle { node: id, listing: None }));
        fh
    }

    pub(crate) fn dir_handle(&self, fh: Fh) -> Option<(NodeId, Option<Arc<Listing>>)> {
        match self.handles.get(&fh)? {
            Handle::Dir(handle) => Some((handle.node, handle.listing.clone())),
            Handle::Reader(_) | Handle::Writer(_) => None,
        }
    }

    pub(crate) fn set_listing(&mut self, fh: Fh, listing: Arc<Listing>) {
        if let Some(Handle::Dir(handle)) = self.handles.get_mut(&fh) {
            handle.listing = Some(listing);
        }
    }

    /// Ends a handle of any kind. Returns the key of a scratch file that nobody has
    /// open any more: its time to become a key runs from now on.
    pub(crate) fn release(&mut self, fh: Fh) -> Option<Bytes> {
        let id = match self.handles.get(&fh)? {
            Handle::Reader(reader) => reader.node,
            Handle::Writer(writer) => writer.node,
            Handle::Dir(_) => {
                self.handles.remove(&fh);
                return None;
            }
        };
        let key = self.key_of(id);
        self.release_file(fh, id);
        let key = key?;
        let state = self.keys.get(&key)?;
        (state.handles == 0 && matches!(state.local, Some(Local::Scratch { .. }))).then_some(key)
    }

    /// Makes a file that only this mount has, so far.
    pub(crate) fn create_local(&mut self, key: &Bytes, scratch: Option<bool>) {
        let state = self.state(key);
        state.local = Some(match scratch {
            Some(keep_while_open) => Local::Scratch { keep_while_open },
            None => Local::Pending,
        });
        self.change_local(key, Some(Bytes::new()));
    }

    /// Local files directly in a directory, for its listing, and all of them.
    pub(crate) fn local_keys(&self) -> Vec<Bytes> {
        self.keys.iter().filter(|(_, state)| state.local.is_some()).map(|(key, _)| key.clone()).collect()
    }

    /// True for a scratch file that must not become a key by fsync alone (a swap file).
    pub(crate) fn scratch_stays_local(&self, key: &[u8]) -> bool {
        matches!(
            self.keys.get(key).and_then(|state| state.local),
            Some(Local::Scratch { keep_while_open: true })
        )
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

    /// This mount's puts on one key take turns.
    pub(crate) fn turn(&mut self, key: &Bytes) -> Arc<tokio::sync::Mutex<()>> {
        self.state(key).turn.get_or_insert_default().clone()
    }
}

/// The table behind its lock, and the notifier's bell.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Held for a few lines: never across an await, a read of the server, or a word
    /// to the kernel. No other lock is taken under it.
    table: Mutex<Table>,
    bell: Condvar,
}

impl Shared {
    pub(crate) fn new(root: Dir, cache_bytes: u64, follow: bool) -> Self {
        let limits = Limits {
            keys_max: KEYS_MAX,
            bytes_max: usize::try_from(cache_bytes).unwrap_or(usize::MAX),
            follow,
        };
        Self { table: Mutex::new(Table::new(root, limits)), bell: Condvar::new() }
    }

    /// Runs `f` under the lock, then rings the notifier if there is work.
    pub(crate) fn with<T>(&self, f: impl FnOnce(&mut Table) -> T) -> T {
        let mut table: MutexGuard<'_, Table> = self.table.lock();
        let result = f(&mut table);
        if !table.notices.is_empty() {
            self.bell.notify_one();
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
            self.bell.wait(&mut table);
        }
    }

    /// The notifier ends once its queue is empty.
    pub(crate) fn close(&self) {
        self.table.lock().closed = true;
        self.bell.notify_all();
    }
}
