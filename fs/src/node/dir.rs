//! Directories: whether a name is one, what it held when it was last listed, and
//! the numbers under which the kernel knows it.
//!
//! Whether a directory exists is a fact about a range of keys, which is expensive
//! to ask again after each delete. So a fact keeps a witness: one key that lies
//! below. While the witness stands, the deletion of any other key changes nothing.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;

use bytes::Bytes;

use super::echo::{DirStep, Note};
use super::file::home_of;
use super::listing::{KernelCopy, Listing};
use super::table::{DirNode, LinkNode, Node, Notice};
use super::{Attr, Entry, Kind, Known, NodeId, ROOT, Table, Value};
use crate::map::{DIR_RECORDS, Dir, OWN_RECORDS};

/// The name under which a directory shows its own key.
const VALUE_NAME: &[u8] = b"%value";

/// Whether keys lie below a directory's prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Below {
    Unknown,
    Nothing,
    /// This key does.
    Witness(Bytes),
}

impl Below {
    /// A copy: what the key was cut out of may be large, and would stay as long.
    pub(crate) fn witness(key: &[u8]) -> Self {
        Self::Witness(Bytes::copy_from_slice(key))
    }
}

#[derive(Debug)]
pub(super) struct DirState {
    pub(super) keys: Below,
    pub(super) records: Below,
    pub(super) listing: Option<Arc<Listing>>,
    /// The newest revision of an event below; what was read before it may be old.
    pub(super) touched: i64,
    /// The revision at which the facts were read: older events are in them.
    pub(super) read: i64,
    /// The newest revision that a witness was seen at: older events may have come before it.
    witnessed: i64,
    pub(super) listing_read: i64,
    /// The newest revision known of the directory's own names, for its mtime.
    pub(super) rev: i64,
    pub(super) loads: u32,
    pub(super) node: Option<NodeId>,
    /// A dead inode of it that the kernel may hold.
    pub(super) retired: Option<NodeId>,
    pub(super) used: bool,
}

impl DirState {
    fn new() -> Self {
        Self {
            keys: Below::Unknown,
            records: Below::Unknown,
            listing: None,
            touched: 0,
            read: 0,
            witnessed: 0,
            listing_read: 0,
            rev: 0,
            loads: 0,
            node: None,
            retired: None,
            used: true,
        }
    }

    fn exists(&self) -> Option<bool> {
        match (&self.keys, &self.records) {
            (Below::Witness(_), _) | (_, Below::Witness(_)) => Some(true),
            (Below::Nothing, Below::Nothing) => Some(false),
            _ => None,
        }
    }
}

/// What a directory's inode is, for an operation in it.
#[derive(Clone, Debug)]
pub(crate) struct DirView {
    pub(crate) dir: Dir,
    /// Removed: it lists nothing, and nothing can be made in it.
    pub(crate) dead: bool,
}

/// The prefixes of the directories on the way to `key`, outermost first. The first is
/// empty: a mount of bare keys, or `%rel`.
fn ancestors(key: &[u8]) -> impl Iterator<Item = &[u8]> {
    let below = key.iter().enumerate().filter(|&(_, &byte)| byte == b'/').map(|(at, _)| &key[..=at]);
    std::iter::once(&key[..0]).chain(below)
}

/// A key whose first component the root of a mount at `/` shows as a link.
fn is_bare(key: &[u8]) -> bool {
    !key.starts_with(b"/") && !key.starts_with(OWN_RECORDS)
}

impl Table {
    /// True or false iff it is known whether the directory exists.
    pub(crate) fn dir_exists(&mut self, prefix: &[u8]) -> Option<bool> {
        let state = self.dirs.get_mut(prefix)?;
        state.used = true;
        state.exists()
    }

    /// A key below the directory, if one is known.
    pub(crate) fn dir_witness(&self, prefix: &[u8]) -> Option<Bytes> {
        match &self.dirs.get(prefix)?.keys {
            Below::Witness(key) => Some(key.clone()),
            Below::Unknown | Below::Nothing => None,
        }
    }

    pub(crate) fn dir_has_records(&self, prefix: &[u8]) -> bool {
        matches!(self.dirs.get(prefix).map(|state| &state.records), Some(Below::Witness(_)))
    }

    pub(super) fn dir_state(&mut self, prefix: &Bytes) -> &mut DirState {
        if !self.dirs.contains_key(prefix) {
            if self.dirs.len() >= self.limits.keys_max {
                self.trim_dirs();
            }
            self.dirs.insert(prefix.clone(), DirState::new());
        }
        self.dirs.get_mut(prefix).expect("inserted above")
    }

    /// Drops what nobody has used since the last time; at the limit, so rarely.
    fn trim_dirs(&mut self) {
        self.dirs
            .retain(|_, state| state.node.is_some() || state.loads > 0 || std::mem::take(&mut state.used));
    }

    /// A read about the directory is under way.
    pub(crate) fn begin_dir_load(&mut self, prefix: &Bytes) {
        self.dir_state(prefix).loads += 1;
    }

    /// Ends [`Self::begin_dir_load`] with what was read at `revision`. Where events were
    /// newer than the read, they stand, and what they leave open stays unknown.
    pub(crate) fn end_dir_load(&mut self, prefix: &Bytes, read: Option<(i64, Below, Below)>) {
        let state = self.dir_state(prefix);
        state.loads = state.loads.saturating_sub(1);
        let Some((revision, keys, records)) = read else { return };
        if state.touched > revision {
            return;
        }
        (state.keys, state.records) = (keys, records);
        state.read = state.read.max(revision);
        state.witnessed = state.witnessed.max(revision);
    }

    /// Takes in one event of the watch: of a key, or of a record of a directory.
    pub(crate) fn event(&mut self, key: &Bytes, rev: i64, new: Option<Value>) {
        self.note_link(key, rev, new.as_ref());
        self.note_file(key, rev, new.as_ref());
        self.event_of_dirs(key, rev, new.as_ref(), self.echo.is_on());
        self.change(key, rev, new);
    }

    fn event_of_dirs(&mut self, key: &Bytes, rev: i64, new: Option<&Value>, noted: bool) {
        let version = new.map(|value| value.version);
        match key.strip_prefix(DIR_RECORDS) {
            Some(at) => self.event_below(key, at, true, rev, version, noted),
            None => self.event_below(key, key, false, rev, version, noted),
        }
    }

    /// Notes for inotify's listeners that a link of the root may have come or gone.
    fn note_link(&mut self, key: &Bytes, rev: i64, new: Option<&Value>) {
        if !self.echo.is_on()
            || *self.root != *b"/"
            || !is_bare(key)
            || new.is_some_and(|value| value.version > 1)
        {
            return;
        }
        let end = key.iter().position(|&byte| byte == b'/').unwrap_or(key.len());
        let component = key.slice(..end);
        let below = [component.as_ref(), b"/"].concat();
        let other = match self.dirs.get(below.as_slice()).map(|state| &state.keys) {
            Some(Below::Witness(witness)) => witness != key,
            _ => false,
        };
        let own = end < key.len()
            && self.keys.get(&component[..]).is_some_and(|state| state.known.value().is_some());
        if !other && !own {
            self.echo.note(key, rev, Note::Link { component });
        }
    }

    /// Notes for inotify's listeners what one event may mean for a directory that holds its key. Where nothing is
    /// known of the directory, this event's key is from now on.
    fn note_dir(&mut self, key: &Bytes, prefix: &[u8], record: bool, rev: i64, put: bool) {
        let outer = prefix[..prefix.len() - 1].iter().rposition(|&byte| byte == b'/').map_or(0, |at| at + 1);
        if *prefix == *self.root || !self.is_open(&prefix[..outer]) {
            return;
        }
        let prefix = Bytes::copy_from_slice(prefix);
        let before = self.dirs.get(&prefix).and_then(DirState::exists);
        let step = match (put, before) {
            (true, Some(true)) => return,
            (true, before) => DirStep::Made { rev, sure: before == Some(false) },
            (false, _) => {
                let witness =
                    self.dirs.get(&prefix).map(|state| if record { &state.records } else { &state.keys });
                let other =
                    self.dirs.get(&prefix).map(|state| if record { &state.keys } else { &state.records });
                // While another one is known to be there, nothing has gone.
                if matches!(other, Some(Below::Witness(_)))
                    || matches!(witness, Some(Below::Witness(witness)) if witness != key)
                {
                    return;
                }
                DirStep::Lost { rev }
            }
        };
        if put {
            let state = self.dir_state(&prefix);
            if state.touched <= rev {
                let fact = if record { &mut state.records } else { &mut state.keys };
                if *fact == Below::Unknown {
                    *fact = Below::witness(key);
                    state.witnessed = state.witnessed.max(rev);
                }
            }
        }
        self.echo.note(key, rev, Note::Dir { prefix, step });
    }

    /// This mount's own change, as the watch will say it later. Returns what to wait for
    /// until every local reader sees it.
    pub(crate) fn own_event(
        &mut self,
        key: &Bytes,
        rev: i64,
        before: Option<i64>,
        new: Option<Value>,
    ) -> Option<tokio::sync::oneshot::Receiver<()>> {
        self.event_of_dirs(key, rev, new.as_ref(), false);
        self.own_change(key, rev, before, new)
    }

    /// The same where the kernel has moved the name itself: it can't wait for what the
    /// watch has still to bring.
    pub(crate) fn own_event_now(&mut self, key: &Bytes, rev: i64, new: Option<Value>) {
        self.event_of_dirs(key, rev, new.as_ref(), false);
        self.state(key);
        self.locals.remove(key);
        self.change(key, rev, new);
    }

    /// A key below the directory was seen at `rev`.
    pub(crate) fn witnessed(&mut self, prefix: &Bytes, rev: i64, key: &Bytes) {
        let state = self.dir_state(prefix);
        if state.touched <= rev {
            state.keys = Below::witness(key);
            state.witnessed = state.witnessed.max(rev);
        }
    }

    /// A directory was renamed: the kernel's inodes of it and of the directories in it go with its name. The kernel
    /// has moved them already, and asks them at once. Files below are known under the old keys: they are looked up
    /// anew.
    pub(crate) fn rename_dir(&mut self, from: &Dir, to: &Dir, parent: NodeId, name: &OsStr) {
        self.dir_gone(to);
        let moved: Vec<(Dir, Dir)> =
            self.dir_nodes.keys().filter_map(|dir| Some((dir.clone(), dir.moved(from, to)?))).collect();
        for (old, new) in moved {
            self.dir_gone(&new);
            let Some(id) = self.dir_nodes.remove(&old) else { continue };
            if let Some(state) = old.prefix().and_then(|prefix| self.dirs.get_mut(prefix)) {
                state.node = None;
            }
            if let Some(Node::Dir(node)) = self.nodes.get_mut(&id) {
                node.dir = new.clone();
                if old == *from {
                    node.place = Some((parent, name.to_owned()));
                }
            }
            if let Some(prefix) = new.prefix().cloned() {
                self.dir_state(&prefix).node = Some(id);
            }
            self.dir_nodes.insert(new, id);
        }
    }

    /// Keys that the table holds anything of.
    pub(crate) fn known_keys(&self) -> Vec<Bytes> {
        self.keys.keys().map(|key| Bytes::copy_from_slice(key)).collect()
    }

    fn event_below(
        &mut self,
        key: &Bytes,
        at: &[u8],
        record: bool,
        rev: i64,
        put_version: Option<i64>,
        noted: bool,
    ) {
        let names_change = put_version.is_none_or(|version| version == 1);
        if names_change && is_bare(at) {
            self.names_changed(b"/", rev);
        }
        if key.starts_with(OWN_RECORDS) && !record {
            return;
        }
        for prefix in ancestors(at) {
            // A file whose name turns into a directory's: the kernel must look again.
            if put_version == Some(1)
                && let Some(name) = prefix.strip_suffix(b"/")
                && let Some(spot) = self.keys.get(name).and_then(|state| state.place.as_ref())
                && !spot.is(VALUE_NAME)
            {
                let notice = Notice::Name { parent: spot.parent(), name: spot.name(name) };
                self.notify(notice);
            }
            if noted && names_change && !prefix.is_empty() {
                self.note_dir(key, prefix, record, rev, put_version.is_some());
            }
            let Some(state) = self.dirs.get_mut(prefix) else { continue };
            let before = state.exists();
            let fact = if record { &mut state.records } else { &mut state.keys };
            if rev > state.read {
                match (put_version.is_some(), &*fact) {
                    (true, Below::Witness(_)) => {}
                    (true, _) => {
                        *fact = Below::witness(key);
                        state.witnessed = state.witnessed.max(rev);
                    }
                    (false, Below::Witness(witness)) if *witness == *key => *fact = Below::Unknown,
                    (false, _) => {}
                }
            }
            if names_change {
                state.touched = state.touched.max(rev);
            }
            let vanished = before == Some(true) && state.exists() != Some(true);
            if vanished && let Some(node) = state.node {
                self.expire_dir(node);
            }
        }
        // Once it is known which directories are left.
        for prefix in ancestors(at).filter(|_| names_change) {
            if !self.lists_the_same(prefix, at, rev, put_version.is_some()) {
                if let Some(state) = self.dirs.get_mut(prefix) {
                    state.rev = state.rev.max(rev);
                }
                self.names_changed(prefix, rev);
            }
        }
        // A key that is also a directory: `%value` came or went in its listing.
        if !record && names_change {
            self.names_changed(&[key.as_ref(), b"/"].concat(), rev);
        }
    }

    /// True if an event at `rev` has changed nothing of what the directory is known to list: `at` lies in a directory
    /// of it, which was there before and still is.
    fn lists_the_same(&self, prefix: &[u8], at: &[u8], rev: i64, put: bool) -> bool {
        let rest = &at[prefix.len()..];
        let Some(end) = rest.iter().position(|&byte| byte == b'/') else { return false };
        let listing = self.dirs.get(prefix).and_then(|state| state.listing.as_ref());
        // What is spelled otherwise is another name's spelling, or none.
        let name = &rest[..end];
        let is_listed =
            listing.is_some_and(|listing| listing.kind(OsStr::from_bytes(name)) == Some(Kind::Dir));
        if !is_listed || name.contains(&b'%') {
            return false;
        }
        let inner = self.dirs.get(&at[..=prefix.len() + end]);
        // A witness that may have come later says nothing of the moment.
        put || inner.is_some_and(|state| state.exists() == Some(true) && state.witnessed <= rev)
    }

    /// For a kernel that drops a directory which it is to look up again: who stands in it would have no path. It keeps
    /// none of their names, and is told nothing.
    pub(crate) fn keep_no_dirs(&mut self) {
        self.dirs_expire = false;
    }

    fn expire_dir(&mut self, id: NodeId) {
        if self.dirs_expire
            && let Some(Node::Dir(node)) = self.nodes.get(&id)
            && let Some((parent, name)) = node.place.clone()
        {
            self.notify(Notice::Expire { parent, name });
        }
    }

    /// Answers a lookup that found a directory; counts it.
    pub(crate) fn lookup_dir(&mut self, dir: &Dir, parent: NodeId, name: &OsStr, keep: bool) -> Entry {
        let id = match self.dir_nodes.get(dir) {
            Some(&id) => id,
            None => {
                let home = home_of(&Self::spell(dir), Kind::Dir);
                // A number that was a directory before stays dead: the next one gets another.
                let id = if self.nodes.contains_key(&home) { self.fresh() } else { home };
                let node = DirNode {
                    dir: dir.clone(),
                    place: None,
                    nlookup: 0,
                    dead: false,
                    copy: KernelCopy::default(),
                };
                self.nodes.insert(id, Node::Dir(Box::new(node)));
                self.dir_nodes.insert(dir.clone(), id);
                id
            }
        };
        if let Some(Node::Dir(node)) = self.nodes.get_mut(&id) {
            node.nlookup += 1;
            node.place = Some((parent, name.to_owned()));
        }
        if let Some(prefix) = dir.prefix() {
            let prefix = prefix.clone();
            self.dir_state(&prefix).node = Some(id);
        }
        Entry { node: id, attr: self.dir_attr(id), keep: keep && self.dirs_expire }
    }

    /// A number for a directory in a listing, which needs no inode.
    pub(crate) fn dir_ino(&self, dir: &Dir) -> u64 {
        self.dir_nodes.get(dir).copied().unwrap_or_else(|| home_of(&Self::spell(dir), Kind::Dir)).0
    }

    fn spell(dir: &Dir) -> Vec<u8> {
        match dir.prefix() {
            Some(prefix) => prefix.to_vec(),
            None => format!("{dir:?}").into_bytes(),
        }
    }

    pub(crate) fn dir_attr(&self, id: NodeId) -> Attr {
        let (rev, dead) = match self.nodes.get(&id) {
            Some(Node::Dir(node)) => {
                let state = node.dir.prefix().and_then(|prefix| self.dirs.get(prefix));
                (state.map_or(0, |state| state.rev), node.dead)
            }
            _ => (0, false),
        };
        // One link says "not counted": nobody may conclude that there is no subdirectory.
        Attr { ino: id.0, kind: Kind::Dir, size: 0, rev, unsaved: None, nlink: u32::from(!dead), keep: false }
    }

    pub(crate) fn dir_view(&self, id: NodeId) -> Option<DirView> {
        match self.nodes.get(&id)? {
            Node::Dir(node) => Some(DirView { dir: node.dir.clone(), dead: node.dead }),
            Node::File(_) | Node::Link(_) => None,
        }
    }

    /// The directory is no more: its inode is dead, the next one of that name a new one.
    pub(crate) fn dir_gone(&mut self, dir: &Dir) {
        let Some(id) = self.dir_nodes.get(dir).copied() else { return };
        if id == ROOT {
            return;
        }
        self.dir_nodes.remove(dir);
        if let Some(Node::Dir(node)) = self.nodes.get_mut(&id) {
            node.dead = true;
        }
        self.doubt_copy(id);
        if let Some(state) = dir.prefix().and_then(|prefix| self.dirs.get_mut(prefix)) {
            state.node = None;
            state.retired = Some(id);
        }
    }

    /// Answers a lookup that found a symbolic link of the root; counts it.
    pub(crate) fn lookup_link(&mut self, target: &OsStr) -> Entry {
        let id = home_of(target.as_encoded_bytes(), Kind::Link);
        match self.nodes.get_mut(&id) {
            Some(Node::Link(node)) => node.nlookup += 1,
            _ => {
                let node = LinkNode { target: target.to_owned(), nlookup: 1 };
                self.nodes.insert(id, Node::Link(Box::new(node)));
            }
        }
        Entry { node: id, attr: Self::link_attr(id, target.len() as u64), keep: false }
    }

    pub(crate) fn link_attr(id: NodeId, size: u64) -> Attr {
        Attr { ino: id.0, kind: Kind::Link, size, rev: 0, unsaved: None, nlink: 1, keep: false }
    }

    pub(crate) fn link_target(&self, id: NodeId) -> Option<OsString> {
        match self.nodes.get(&id)? {
            Node::Link(node) => Some(node.target.clone()),
            Node::File(_) | Node::Dir(_) => None,
        }
    }

    /// The watch has been gone for too long (or has a gap), or stands again.
    pub(crate) fn set_trusted(&mut self, trusted: bool) {
        if std::mem::replace(&mut self.trusted, trusted) && !trusted {
            for state in self.keys.values_mut().filter(|state| state.busy().queued) {
                state.make_busy().overdue = true;
            }
            self.drop_names();
        }
    }

    /// The kernel shall look every name up again: what it holds may be old.
    fn drop_names(&mut self) {
        let ids: Vec<NodeId> = self.dir_nodes.values().copied().collect();
        for id in ids {
            self.expire_dir(id);
            self.doubt_copy(id);
        }
        let spots = self.keys.iter().filter_map(|(key, state)| Some((key, state.place.as_ref()?)));
        let places: Vec<(NodeId, OsString)> =
            spots.map(|(key, spot)| (spot.parent(), spot.name(key))).collect();
        for (parent, name) in places {
            self.notify(Notice::Name { parent, name });
        }
    }

    /// Everything that was read is to be read again, as of `rev` or later: the watch has a gap.
    pub(crate) fn distrust(&mut self, rev: i64) {
        for state in self.dirs.values_mut() {
            (state.keys, state.records, state.listing) = (Below::Unknown, Below::Unknown, None);
            state.touched = rev;
            (state.read, state.witnessed) = (state.read.min(rev), state.witnessed.min(rev));
        }
        for state in self.keys.values_mut().filter(|state| state.rev > rev) {
            // A server that has lost revisions: what it says now is new, whatever its number.
            state.rev = 0;
        }
        self.drop_names();
    }

    /// What a key was found to be after a gap: told to inotify's listeners if it is another than before.
    pub(crate) fn caught_up(&mut self, key: &Bytes, rev: i64, value: Option<Value>) {
        let before = self.known(key);
        let same = match (&before, &value) {
            (Known::Present(known), Some(value)) => known.rev == value.rev && known.bytes == value.bytes,
            (Known::Absent, None) => true,
            _ => false,
        };
        if same {
            return;
        }
        if before != Known::Unknown {
            let first = before == Known::Absent;
            let noted = value.clone().map(|value| Value { version: if first { 1 } else { 2 }, ..value });
            self.note_file(key, rev, noted.as_ref());
        }
        self.change(key, rev, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Inotify;
    use crate::map::{KeyMap, Percent, Rel, Step};
    use crate::node::table::Limits;

    /// A table that shows the directory `d`, because of the key `/d/x`.
    fn table() -> (Table, Dir) {
        let map = KeyMap::new(Bytes::from_static(b"/"), Percent::Strict, Rel::Off);
        let limits =
            Limits { keys_max: 9, bytes_max: 99, follow: true, inotify: Inotify::Off, strict: false };
        let mut table = Table::new(map.root(), limits);
        let Ok(Step::Entry(entry)) = map.step(&map.root(), OsStr::new("d")) else {
            panic!("an ordinary name")
        };
        let prefix = entry.dir.prefix().expect("a directory of keys").clone();
        table.begin_dir_load(&prefix);
        table.end_dir_load(&prefix, Some((2, Below::witness(b"/d/x"), Below::Nothing)));
        (table, entry.dir)
    }

    #[test]
    fn a_kernel_that_drops_what_expires_keeps_no_directorys_name() {
        for expires in [true, false] {
            let (mut table, dir) = table();
            if !expires {
                table.keep_no_dirs();
            }
            let entry = table.lookup_dir(&dir, ROOT, OsStr::new("d"), true);
            table.event(&Bytes::from_static(b"/d/x"), 3, None);
            let told = table.next_work().is_some_and(|work| work.expire_name.is_some());
            assert_eq!((entry.keep, told), (expires, expires));
        }
    }
}
