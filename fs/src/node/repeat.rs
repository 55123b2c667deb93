//! What the helper that repeats changes for inotify's listeners is told when it asks.
//!
//! The tree has the change already; the helper's own system calls only make the kernel say so to listeners. So its
//! calls change nothing here, and are answered by what it is about: a file that it is to make is not there when it
//! looks, and is when it has made it; one that it is to remove is there, though the key is gone. One repetition is
//! under way at a time. Whatever else the helper asks is refused, so that no call of it ever becomes a put.

use std::ffi::{OsStr, OsString};
use std::time::Instant;

use bytes::Bytes;

use super::file::{Base, FileNode, KeyState, home_of};
use super::listing::KernelCopy;
use super::table::{DirNode, Node};
use super::{Attr, Entry, Kind, NodeId, Table};
use crate::map::Dir;

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) dir: Dir,
    pub(crate) name: OsString,
}

/// What the helper is about to repeat.
#[derive(Clone, Debug)]
pub(crate) enum Repeat {
    Create {
        at: Place,
        key: Bytes,
    },
    Modify {
        at: Place,
    },
    Delete {
        at: Place,
        key: Bytes,
    },
    MakeDir {
        at: Place,
        dir: Dir,
    },
    /// The directory's inode, if the kernel may still hold it.
    RemoveDir {
        at: Place,
        dir: Dir,
        node: Option<NodeId>,
    },
    MakeLink {
        at: Place,
        target: OsString,
    },
    RemoveLink {
        at: Place,
        target: OsString,
    },
    Move {
        from: Place,
        from_key: Bytes,
        to: Place,
        to_key: Bytes,
    },
    /// Inodes by their number: nothing is looked up.
    Inode,
}

/// A repetition under way.
#[derive(Debug)]
pub(crate) struct Repeating {
    repeat: Repeat,
    /// The kernel has made the call that tells the listeners.
    pub(crate) done: bool,
    /// The inodes that were opened for it.
    pub(crate) opened: Vec<NodeId>,
}

/// The answer to the helper's lookup.
#[derive(Debug)]
pub(crate) enum Looked {
    Found(Entry),
    Absent,
    /// What anybody else would be told.
    AsEver,
}

impl Repeat {
    fn places(&self) -> impl Iterator<Item = &Place> {
        let (one, two) = match self {
            Self::Create { at, .. }
            | Self::Modify { at }
            | Self::Delete { at, .. }
            | Self::MakeDir { at, .. }
            | Self::RemoveDir { at, .. }
            | Self::MakeLink { at, .. }
            | Self::RemoveLink { at, .. } => (Some(at), None),
            Self::Move { from, to, .. } => (Some(from), Some(to)),
            Self::Inode => (None, None),
        };
        one.into_iter().chain(two)
    }
}

impl Table {
    /// The helper is about to repeat this.
    pub(crate) fn repeat(&mut self, repeat: Repeat) {
        self.repeating = Some(Repeating { repeat, done: false, opened: Vec::new() });
    }

    /// The helper has come back, or is gone.
    pub(crate) fn repeated(&mut self) -> Option<Repeating> {
        self.repeating.take()
    }

    fn is_at(&self, parent: NodeId, name: &OsStr, place: &Place) -> bool {
        place.name == name && self.dir_view(parent).is_some_and(|view| view.dir == place.dir)
    }

    /// Answers the helper's lookup of `name`, which would be the directory `below`.
    pub(crate) fn helper_lookup(
        &mut self,
        parent: NodeId,
        name: &OsStr,
        below: Option<&Dir>,
        now: Instant,
    ) -> Looked {
        let Some(Repeating { repeat, .. }) = &self.repeating else { return Looked::AsEver };
        if let Some(below) = below
            && repeat.places().any(|place| is_on_the_way(below, &place.dir))
        {
            let below = below.clone();
            return self.walk_to(&below, parent, name);
        }
        match repeat.clone() {
            Repeat::Create { at, .. } | Repeat::MakeDir { at, .. } | Repeat::MakeLink { at, .. }
                if self.is_at(parent, name, &at) =>
            {
                Looked::Absent
            }
            Repeat::Delete { at, key } if self.is_at(parent, name, &at) => {
                Looked::Found(self.lookup_gone(&key, now))
            }
            Repeat::RemoveDir { at, dir, node } if self.is_at(parent, name, &at) => {
                Looked::Found(self.lookup_gone_dir(&dir, node))
            }
            Repeat::RemoveLink { at, target } if self.is_at(parent, name, &at) => {
                Looked::Found(self.lookup_link(&target))
            }
            Repeat::Move { from, from_key, .. } if self.is_at(parent, name, &from) => {
                Looked::Found(self.lookup_gone(&from_key, now))
            }
            Repeat::Move { to, to_key, .. } if self.is_at(parent, name, &to) => {
                match self.keys.get(&to_key[..]).and_then(KeyState::cur) {
                    // What the rename takes the name from hears that it is gone.
                    Some(_) => Looked::Found(self.lookup_gone(&to_key, now)),
                    None => Looked::Absent,
                }
            }
            _ => Looked::AsEver,
        }
    }

    /// A directory on the way to a place: there for the helper as long as the kernel holds it, since what went
    /// with it is still to be told.
    fn walk_to(&mut self, dir: &Dir, parent: NodeId, name: &OsStr) -> Looked {
        if self.dir_nodes.contains_key(dir) {
            return Looked::Found(self.lookup_dir(dir, parent, name, false));
        }
        match self.retired(dir) {
            Some(id) => Looked::Found(self.lookup_gone_dir(dir, Some(id))),
            None => Looked::AsEver,
        }
    }

    /// An inode for a file whose key may be gone: one that the kernel holds, if there is one.
    fn lookup_gone(&mut self, key: &Bytes, now: Instant) -> Entry {
        let state = self.state(key);
        let base = Base { bytes: state.bytes().clone(), seq: state.pub_seq(), rev: 0 };
        let held = state.nodes().next();
        let id = match held {
            Some(id) => id,
            None => {
                let id = self.fresh();
                self.state(key).lead_to(id);
                if let Some((name, _)) = self.keys.get_key_value(&key[..]) {
                    let node = FileNode::new(name.clone(), Some(Box::new(base)));
                    self.nodes.insert(id, Node::File(node));
                }
                id
            }
        };
        let (mut size, mut rev) = (0, 0);
        if let (Some(Node::File(node)), Some(state)) = (self.nodes.get_mut(&id), self.keys.get(&key[..])) {
            node.nlookup += 1;
            node.told_at = Some(now);
            (size, rev) = (node.bytes(state).len() as u64, node.rev(state));
        }
        let ino = home_of(key, Kind::File).0;
        // One link: the kernel counts it down, and tells those who listen to the file itself.
        Entry {
            node: id,
            attr: Attr { ino, kind: Kind::File, size, rev, unsaved: None, nlink: 1, keep: false },
            keep: false,
        }
    }

    fn lookup_gone_dir(&mut self, dir: &Dir, held: Option<NodeId>) -> Entry {
        let id = held.filter(|id| matches!(self.nodes.get(id), Some(Node::Dir(_)))).unwrap_or_else(|| {
            let id = self.fresh();
            let node = DirNode {
                dir: dir.clone(),
                place: None,
                nlookup: 0,
                dead: true,
                copy: KernelCopy::default(),
            };
            self.nodes.insert(id, Node::Dir(Box::new(node)));
            id
        });
        if let Some(Node::Dir(node)) = self.nodes.get_mut(&id) {
            node.nlookup += 1;
        }
        let attr = Attr { ino: id.0, kind: Kind::Dir, size: 0, rev: 0, unsaved: None, nlink: 1, keep: false };
        Entry { node: id, attr, keep: false }
    }

    /// The dead inode of a directory that the kernel still holds.
    pub(crate) fn retired(&self, dir: &Dir) -> Option<NodeId> {
        let id = dir.prefix().and_then(|prefix| self.dirs.get(prefix))?.retired?;
        matches!(self.nodes.get(&id), Some(Node::Dir(_))).then_some(id)
    }

    /// The helper makes a file: it is the key's, or what is left of it.
    pub(crate) fn helper_create(&mut self, parent: NodeId, name: &OsStr, now: Instant) -> Option<Entry> {
        let Repeat::Create { at, key } = self.repeating.as_ref()?.repeat.clone() else { return None };
        if !self.is_at(parent, name, &at) {
            return None;
        }
        let entry = match self.lookup_file(&key, parent, name, now) {
            Some(entry) => entry,
            None => self.lookup_gone(&key, now),
        };
        self.note_done(Some(entry.node));
        Some(entry)
    }

    pub(crate) fn helper_make_dir(&mut self, parent: NodeId, name: &OsStr) -> Option<Entry> {
        let Repeat::MakeDir { at, dir } = self.repeating.as_ref()?.repeat.clone() else { return None };
        if !self.is_at(parent, name, &at) {
            return None;
        }
        self.note_done(None);
        Some(self.lookup_dir(&dir, parent, name, false))
    }

    pub(crate) fn helper_make_link(&mut self, parent: NodeId, name: &OsStr) -> Option<Entry> {
        let Repeat::MakeLink { at, target } = self.repeating.as_ref()?.repeat.clone() else { return None };
        if !self.is_at(parent, name, &at) {
            return None;
        }
        self.note_done(None);
        Some(self.lookup_link(&target))
    }

    /// The helper removes a file, a link or a directory: true if that is what it is to do.
    pub(crate) fn helper_remove(&mut self, parent: NodeId, name: &OsStr) -> bool {
        let Some(Repeating { repeat, .. }) = &self.repeating else { return false };
        let (Repeat::Delete { at, .. } | Repeat::RemoveDir { at, .. } | Repeat::RemoveLink { at, .. }) =
            repeat
        else {
            return false;
        };
        let at = at.clone();
        let fits = self.is_at(parent, name, &at);
        if fits {
            self.note_done(None);
        }
        fits
    }

    /// The helper renames: the kernel's inode of the source is the target's from now on.
    pub(crate) fn helper_rename(&mut self, parent: NodeId, name: &OsStr, target: (NodeId, &OsStr)) -> bool {
        let Some(Repeating { repeat: Repeat::Move { from, from_key, to, to_key }, .. }) = &self.repeating
        else {
            return false;
        };
        let (from, from_key, to, to_key) = (from.clone(), from_key.clone(), to.clone(), to_key.clone());
        if !self.is_at(parent, name, &from) || !self.is_at(target.0, target.1, &to) {
            return false;
        }
        let create =
            self.keys.get(&to_key[..]).and_then(|state| state.known.value()).map_or(0, |value| value.create);
        if let Some(moved) = self.rename_node(&from_key, &to_key, target) {
            self.renamed(&to_key, moved, create);
        }
        self.note_done(None);
        true
    }

    /// The helper opens an inode, by path or by handle.
    pub(crate) fn helper_open(&mut self, id: NodeId) -> bool {
        let known = matches!(self.nodes.get(&id), Some(Node::File(_))) && self.repeating.is_some();
        if known && let Some(repeating) = &mut self.repeating {
            repeating.opened.push(id);
        }
        known
    }

    /// The helper touches an inode that it has open, which changes nothing: what the inode is anyway.
    pub(crate) fn helper_touch(&mut self, id: NodeId, now: Instant) -> Option<Attr> {
        let attr = self.own_attr(id)?;
        if let Some(Node::File(node)) = self.nodes.get_mut(&id) {
            node.told_at = Some(now);
        }
        self.note_done(None);
        Some(attr)
    }

    fn note_done(&mut self, opened: Option<NodeId>) {
        if let Some(repeating) = &mut self.repeating {
            repeating.done = true;
            repeating.opened.extend(opened);
        }
    }
}

/// True if `dir` is `target` or holds it somewhere below.
fn is_on_the_way(dir: &Dir, target: &Dir) -> bool {
    match (dir.prefix(), target.prefix()) {
        (Some(dir), Some(target)) => !dir.is_empty() && target.starts_with(dir),
        _ => dir == target,
    }
}
