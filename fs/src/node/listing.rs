//! What a directory lists, and who shows it: the table to whom asks, or the kernel, from a copy that it made of what it
//! was told before.
//!
//! The kernel never asks whether its copy is still true, and adds to it what any handle is told where the copy ends. So
//! a directory that is opened reads the copy only if all of it was read from what the table would answer; a new copy is
//! begun when nobody reads the old one; and one that has something of two listings is dropped before anybody can
//! read it, which is at its end.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::sync::{Arc, Weak};

use bytes::Bytes;

use super::table::{Handle, Node, Notice};
use super::{Fh, Kind, NodeId, ROOT, Table};

/// A directory's entries, whole, in order of names.
#[derive(Debug)]
pub(crate) struct Listing {
    /// All names, one after another.
    names: Box<[u8]>,
    entries: Box<[Listed]>,
}

#[derive(Clone, Copy, Debug)]
struct Listed {
    start: usize,
    ino: u64,
    len: u32,
    kind: Kind,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct ListingEntry<N = OsString> {
    pub(crate) name: N,
    pub(crate) kind: Kind,
    /// d_ino.
    pub(crate) ino: u64,
}

/// What the kernel holds of a directory's listing.
#[derive(Debug, Default)]
pub(super) struct KernelCopy {
    of: CopyOf,
    /// Open handles that read it or add to it.
    handles: u32,
}

/// What a copy was made of.
#[derive(Debug, Default)]
enum CopyOf {
    #[default]
    Nothing,
    One(Weak<Listing>),
    Several,
}

impl CopyOf {
    fn is(&self, listing: &Arc<Listing>) -> bool {
        matches!(self, Self::One(one) if std::ptr::eq(one.as_ptr(), Arc::as_ptr(listing)))
    }

    fn add(&mut self, listing: &Arc<Listing>) {
        *self = match self {
            Self::Nothing => Self::One(Arc::downgrade(listing)),
            Self::One(_) if self.is(listing) => return,
            Self::One(_) | Self::Several => Self::Several,
        };
    }
}

/// What the kernel does with its copy for an open directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CopyUse {
    /// Nothing: it asks for all of each reading.
    Leaves,
    /// It drops the copy, and makes a new one of what is read.
    Makes,
    /// It reads the copy, and asks where that has not all.
    Reads,
}

/// An open directory: its listing is read once and served from here.
#[derive(Debug)]
pub(super) struct DirHandle {
    node: NodeId,
    listing: Option<Arc<Listing>>,
    copy: CopyUse,
}

impl Listing {
    /// Of entries in order of names.
    pub(crate) fn new<N: AsRef<OsStr>>(entries: impl IntoIterator<Item = ListingEntry<N>>) -> Self {
        let mut names = Vec::new();
        let listed = |ListingEntry { name, kind, ino }: ListingEntry<N>| {
            let (start, name) = (names.len(), name.as_ref().as_bytes());
            names.extend_from_slice(name);
            Listed { start, ino, len: name.len() as u32, kind }
        };
        let entries = entries.into_iter().map(listed).collect();
        Self { names: names.into(), entries }
    }

    /// The entries from the `first` on.
    pub(crate) fn from(&self, first: usize) -> impl Iterator<Item = ListingEntry<&OsStr>> {
        let rest = self.entries.get(first..).unwrap_or_default();
        rest.iter().map(|entry| ListingEntry { name: self.name(entry), kind: entry.kind, ino: entry.ino })
    }

    /// The entries after `name`.
    pub(crate) fn after(&self, name: &OsStr) -> impl Iterator<Item = ListingEntry<&OsStr>> {
        self.from(self.entries.partition_point(|entry| self.name(entry) <= name))
    }

    /// What `name` is.
    pub(crate) fn kind(&self, name: &OsStr) -> Option<Kind> {
        let at = self.entries.binary_search_by(|entry| self.name(entry).cmp(name)).ok()?;
        Some(self.entries[at].kind)
    }

    fn name(&self, entry: &Listed) -> &OsStr {
        OsStr::from_bytes(&self.names[entry.start..entry.start + entry.len as usize])
    }
}

impl Table {
    /// Keeps a listing made at `revision`, unless something has changed since.
    pub(crate) fn keep_listing(&mut self, prefix: &Bytes, revision: i64, listing: &Arc<Listing>) {
        let state = self.dir_state(prefix);
        if state.touched <= revision {
            state.listing = Some(listing.clone());
            state.listing_read = revision;
        }
    }

    pub(crate) fn listing(&mut self, prefix: &[u8]) -> Option<Arc<Listing>> {
        let state = self.dirs.get_mut(prefix)?;
        state.used = true;
        state.listing.clone()
    }

    /// An event at `rev` changed what the directory lists.
    pub(super) fn names_changed(&mut self, prefix: &[u8], rev: i64) {
        let Some(state) = self.dirs.get_mut(prefix) else { return };
        if rev > state.listing_read {
            state.listing = None;
        }
        state.touched = state.touched.max(rev);
        let id = if *prefix == *self.root { Some(ROOT) } else { state.node };
        if let Some(id) = id {
            self.doubt_copy(id);
        }
    }

    /// Has the kernel drop its copy, if an open handle could read that once more. Who opens the directory later is told
    /// then whether it is true.
    pub(super) fn doubt_copy(&mut self, id: NodeId) {
        if let Some(Node::Dir(node)) = self.nodes.get(&id)
            && node.copy.handles > 0
        {
            self.notify(Notice::Listing(id));
        }
    }

    /// Opens a directory. If `shown` is false, what is known of it is not all that is to be shown.
    pub(crate) fn open_dir(&mut self, id: NodeId, shown: bool) -> (Fh, CopyUse) {
        let fh = self.fresh_fh();
        let prefix = match self.nodes.get(&id) {
            Some(Node::Dir(node)) if shown && self.trusted && !node.dead => node.dir.prefix().cloned(),
            _ => None,
        };
        let current = prefix.as_deref().and_then(|prefix| self.listing(prefix));
        let mut handle = DirHandle { node: id, listing: None, copy: CopyUse::Leaves };
        if prefix.is_some()
            && let Some(Node::Dir(node)) = self.nodes.get_mut(&id)
        {
            if let Some(current) = current.filter(|current| node.copy.of.is(current)) {
                node.copy.handles += 1;
                (handle.copy, handle.listing) = (CopyUse::Reads, Some(current));
            } else if node.copy.handles == 0 {
                node.copy = KernelCopy { of: CopyOf::Nothing, handles: 1 };
                handle.copy = CopyUse::Makes;
            }
        }
        let copy = handle.copy;
        self.handles.insert(fh, Handle::Dir(handle));
        (fh, copy)
    }

    pub(crate) fn dir_handle(&self, fh: Fh) -> Option<(NodeId, Option<Arc<Listing>>)> {
        match self.handles.get(&fh)? {
            Handle::Dir(handle) => Some((handle.node, handle.listing.clone())),
            Handle::Reader(_) | Handle::Writer(_) => None,
        }
    }

    /// The open directory shows this listing from now on.
    pub(crate) fn set_listing(&mut self, fh: Fh, listing: Arc<Listing>) {
        let Some(Handle::Dir(handle)) = self.handles.get_mut(&fh) else { return };
        if handle.copy != CopyUse::Leaves
            && let Some(Node::Dir(node)) = self.nodes.get_mut(&handle.node)
        {
            node.copy.of.add(&listing);
        }
        handle.listing = Some(listing);
    }

    /// True if the kernel would take for whole what has something of two listings, once it is told of this handle's end.
    pub(crate) fn spoils_copy(&self, fh: Fh) -> bool {
        let Some(Handle::Dir(handle)) = self.handles.get(&fh) else { return false };
        let Some(Node::Dir(node)) = self.nodes.get(&handle.node) else { return false };
        handle.copy != CopyUse::Leaves && matches!(node.copy.of, CopyOf::Several)
    }

    /// The directory is open no more.
    pub(super) fn release_dir(&mut self, fh: Fh) {
        let Some(Handle::Dir(handle)) = self.handles.remove(&fh) else { return };
        if handle.copy != CopyUse::Leaves
            && let Some(Node::Dir(node)) = self.nodes.get_mut(&handle.node)
        {
            node.copy.handles = node.copy.handles.saturating_sub(1);
        }
    }
}
