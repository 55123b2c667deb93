//! Inodes and handles of what is no key.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::task::AbortHandle;

use super::VIRTUAL;
use crate::node::{Attr, Entry, Fh, Kind, Listing, NodeId};
use crate::remote::Revision;
use crate::r#virtual::{Journal, Place, ReadPlace, View};

/// What the kernel knows and has open of it, and what it is made from.
#[derive(Debug, Default)]
pub(in crate::ops) struct Virtuals {
    pub(in crate::ops) journal: Journal,
    /// Taken for a few lines; under it, a view's lock alone.
    state: Mutex<State>,
    numbers: AtomicU64,
    pub(super) facts: Mutex<Facts>,
}

/// What `%status` has to say and nobody else keeps.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    pub(super) lacks: Option<String>,
    pub(super) last_error: Option<(SystemTime, String)>,
    pub(super) lost: Option<SystemTime>,
    /// What the mount's user may not do, and what comes of it.
    pub(super) rights: Option<String>,
    /// The root shows no links, since they would be too many.
    pub(super) too_many_links: bool,
}

#[derive(Debug, Default)]
struct State {
    ids: HashMap<Place, NodeId>,
    nodes: HashMap<NodeId, Node>,
    handles: HashMap<Fh, Opened>,
}

#[derive(Debug)]
struct Node {
    found: Found,
    nlookup: u64,
}

/// A place that is there, and what stat shows of it.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) place: Place,
    pub(super) kind: Kind,
    pub(super) size: u64,
    pub(super) rev: Revision,
    /// It can't change.
    pub(super) fixed: bool,
    pub(super) log: Option<Log>,
}

/// A log's lines, and the task that brings them if it is not the mount's own watch.
#[derive(Debug)]
pub(super) struct Log {
    pub(super) view: Arc<View>,
    pub(super) feed: Option<AbortHandle>,
}

impl Drop for Log {
    fn drop(&mut self) {
        if let Some(feed) = &self.feed {
            feed.abort();
        }
    }
}

/// An open file or directory.
#[derive(Debug)]
pub(super) enum Opened {
    Text(Bytes),
    Log(Arc<View>, ReadPlace),
    Dir(NodeId, Option<Arc<Listing>>),
}

impl Found {
    pub(super) fn dir(place: Place, rev: Revision) -> Self {
        let fixed = matches!(place, Place::Past { .. });
        Self { place, kind: Kind::Dir, size: 0, rev, fixed, log: None }
    }

    pub(super) fn link(place: Place, target_bytes: usize, rev: Revision) -> Self {
        Self { place, kind: Kind::Link, size: target_bytes as u64, rev, fixed: false, log: None }
    }

    pub(super) fn file(place: Place, size: u64, rev: Revision) -> Self {
        let fixed = matches!(place, Place::PastFile { .. });
        Self { place, kind: Kind::File, size, rev, fixed, log: None }
    }

    fn attr(&self, id: NodeId) -> Attr {
        let (size, rev) = match &self.log {
            Some(log) => log.view.size(),
            None => (self.size, self.rev),
        };
        Attr { ino: id.0, kind: self.kind, size, rev: rev.0, unsaved: None, nlink: 1, keep: self.fixed }
    }
}

impl Virtuals {
    fn number(&self) -> u64 {
        VIRTUAL | (self.numbers.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Answers a lookup; counts it.
    pub(super) fn enter(&self, found: Found) -> Entry {
        let mut state = self.state.lock();
        let id = match state.ids.get(&found.place) {
            Some(&id) => id,
            None => NodeId(self.number()),
        };
        state.ids.insert(found.place.clone(), id);
        let keep = found.fixed;
        let node = match state.nodes.entry(id) {
            std::collections::hash_map::Entry::Occupied(old) => {
                let node = old.into_mut();
                // A log goes on as the one that it was.
                if node.found.log.is_none() {
                    node.found = found;
                }
                node
            }
            std::collections::hash_map::Entry::Vacant(new) => new.insert(Node { found, nlookup: 0 }),
        };
        node.nlookup += 1;
        Entry { node: id, attr: node.found.attr(id), keep }
    }

    /// True iff the kernel knows this place already.
    pub(super) fn knows(&self, place: &Place) -> bool {
        self.state.lock().ids.contains_key(place)
    }

    pub(super) fn forget(&self, id: NodeId, count: u64) {
        let mut state = self.state.lock();
        let Some(node) = state.nodes.get_mut(&id) else { return };
        node.nlookup = node.nlookup.saturating_sub(count);
        if node.nlookup == 0
            && let Some(node) = state.nodes.remove(&id)
        {
            state.ids.remove(&node.found.place);
        }
    }

    pub(super) fn place(&self, id: NodeId) -> Option<Place> {
        Some(self.state.lock().nodes.get(&id)?.found.place.clone())
    }

    pub(in crate::ops) fn kind(&self, id: NodeId) -> Option<Kind> {
        Some(self.state.lock().nodes.get(&id)?.found.kind)
    }

    pub(super) fn attr(&self, id: NodeId) -> Option<Attr> {
        Some(self.state.lock().nodes.get(&id)?.found.attr(id))
    }

    pub(super) fn set_size(&self, id: NodeId, size: u64) {
        if let Some(node) = self.state.lock().nodes.get_mut(&id) {
            node.found.size = size;
        }
    }

    pub(super) fn open_log(&self, id: NodeId) -> Option<Opened> {
        let state = self.state.lock();
        let log = state.nodes.get(&id)?.found.log.as_ref()?;
        Some(Opened::Log(log.view.clone(), ReadPlace::default()))
    }

    pub(super) fn open(&self, opened: Opened) -> Fh {
        let fh = Fh(self.number());
        self.state.lock().handles.insert(fh, opened);
        fh
    }

    pub(in crate::ops) fn open_dir(&self, id: NodeId) -> Fh {
        self.open(Opened::Dir(id, None))
    }

    pub(super) fn release(&self, fh: Fh) {
        self.state.lock().handles.remove(&fh);
    }

    pub(super) fn read(&self, fh: Fh, offset: u64, size: usize) -> Option<Bytes> {
        match self.state.lock().handles.get_mut(&fh)? {
            Opened::Text(text) => {
                let start = text.len().min(usize::try_from(offset).unwrap_or(usize::MAX));
                Some(text.slice(start..text.len().min(start.saturating_add(size))))
            }
            Opened::Log(view, place) => Some(view.read(place, offset, size)),
            Opened::Dir(..) => None,
        }
    }

    pub(super) fn dir_handle(&self, fh: Fh) -> Option<Place> {
        let state = self.state.lock();
        match state.handles.get(&fh)? {
            Opened::Dir(id, _) => Some(state.nodes.get(id)?.found.place.clone()),
            Opened::Text(_) | Opened::Log(..) => None,
        }
    }

    pub(in crate::ops) fn listing(&self, fh: Fh) -> Option<Arc<Listing>> {
        match self.state.lock().handles.get(&fh)? {
            Opened::Dir(_, listing) => listing.clone(),
            Opened::Text(_) | Opened::Log(..) => None,
        }
    }

    pub(super) fn set_listing(&self, fh: Fh, new: Arc<Listing>) {
        if let Some(Opened::Dir(_, listing)) = self.state.lock().handles.get_mut(&fh) {
            *listing = Some(new);
        }
    }
}
