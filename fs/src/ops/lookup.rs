//! What a name in a directory is: a file, a directory, a link, nothing.
//!
//! Answered from what is known (facts of keys and prefixes, a listing that nothing
//! has changed since), else by one read of the server of both readings of the name.

use std::ffi::OsStr;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;
use etcfs_proto::key::{KeyRange, successor};

use super::Fs;
use crate::errno::OpError;
use crate::map::{Dir, Entry as Name, Key, KeyMap, RelLink, Step};
use crate::node::{Below, Entry, Kind, Known, NodeId, Table, Value};
use crate::remote::{At, Freshness, Lookup, Page, PageRequest, Probe, RemoteError, Revision};

/// What a name turned out to be.
#[derive(Clone, Debug)]
pub(super) enum Named {
    File {
        key: Bytes,
        rev: i64,
        local: bool,
        /// `%value`: its name says nothing about what its directory holds.
        in_itself: bool,
    },
    Dir {
        dir: Dir,
        /// False for a second spelling, which the kernel must not keep.
        canonical: bool,
    },
    Link(RelLink),
    /// Nothing, and what it would be.
    Nothing(Name),
    /// `%value` of a directory that is no key: the key that it would be.
    NoValue(Bytes),
}

/// What must be asked of the server first.
#[derive(Debug)]
pub(super) enum Ask {
    /// Both readings of a name.
    Name(Name),
    /// A file of a listing that still stands, and those after it there: who asks for one
    /// (`ls -l`, `grep -r`) asks for the next.
    Files(Vec<Bytes>),
}

/// Values read ahead of a lookup: at most so many files, and about so many bytes.
const AHEAD_MAX: usize = 512;
const AHEAD_BYTES: usize = 256 * 1024;

/// Values may be large: the first reading ahead is this short, and so is each after
/// large ones.
pub(super) const AHEAD_MIN: usize = 8;

impl Fs {
    /// Answers from what is known; `None` if the server must be asked.
    pub(crate) fn lookup_now(&self, parent: NodeId, name: &OsStr) -> Option<Result<Entry, OpError>> {
        if self.view.strict || !self.is_trusted() || self.is_virtual_name(parent, name) {
            return None;
        }
        let known = self.nodes.with(|table| self.lookup_in(table, parent, name)).transpose();
        let count = if known.is_some() { &self.counts.names_known } else { &self.counts.names_asked };
        count.add(1);
        known
    }

    /// Looks a name up for the kernel, as the mount's options and the watch's state ask for.
    pub(crate) async fn lookup_later(&self, parent: NodeId, name: &OsStr) -> Result<Entry, OpError> {
        // What is no key is not cached.
        if !self.is_virtual_name(parent, name) {
            self.until_trusted().await?;
            if self.view.strict {
                self.ask_for(parent, name).await?;
            }
        }
        self.lookup(parent, name).await
    }

    pub(super) async fn lookup(&self, parent: NodeId, name: &OsStr) -> Result<Entry, OpError> {
        if self.is_virtual_name(parent, name) {
            return self.lookup_virtual(parent, name).await;
        }
        loop {
            let step = self.nodes.with(|table| match self.lookup_in(table, parent, name)? {
                Some(entry) => Ok(Ok(entry)),
                None => {
                    let dir = live(table, parent)?;
                    Ok::<_, OpError>(Err(self.name_now(table, &dir, name)?.err()))
                }
            })?;
            match step {
                Ok(entry) => return Ok(entry),
                Err(Some(ask)) => self.ask(&ask).await?,
                Err(None) => {}
            }
        }
    }

    fn lookup_in(&self, table: &mut Table, parent: NodeId, name: &OsStr) -> Result<Option<Entry>, OpError> {
        let dir = live(table, parent)?;
        let Ok(named) = self.name_now(table, &dir, name)? else { return Ok(None) };
        match named {
            Named::File { key, .. } => {
                let entry = table.lookup_file(&key, parent, name, Instant::now());
                entry.map(Some).ok_or(OpError::NotFound)
            }
            Named::Dir { dir, canonical } => Ok(Some(table.lookup_dir(&dir, parent, name, canonical))),
            Named::Link(link) => Ok(Some(table.lookup_link(&link.target))),
            Named::Nothing(name) => {
                table.dir_gone(&name.dir);
                Err(OpError::NotFound)
            }
            Named::NoValue(_) => Err(OpError::NotFound),
        }
    }

    /// What `name` is in `dir`, asking the server where that is not known.
    pub(super) async fn named(&self, dir: &Dir, name: &OsStr) -> Result<Named, OpError> {
        loop {
            match self.nodes.with(|table| self.name_now(table, dir, name))? {
                Ok(named) => return Ok(named),
                Err(ask) => self.ask(&ask).await?,
            }
        }
    }

    pub(super) fn name_now(
        &self,
        table: &mut Table,
        dir: &Dir,
        name: &OsStr,
    ) -> Result<Result<Named, Ask>, OpError> {
        match self.map.step(dir, name).map_err(OpError::in_lookup)? {
            Step::Entry(entry) => Ok(self.entry_now(table, dir, name, entry)),
            Step::Value(key) => Ok(match table.known_rev(&key) {
                Known::Present(rev) => {
                    let local = table.is_local(&key);
                    Ok(Named::File { key: key.bytes(), rev, local, in_itself: true })
                }
                Known::Absent => Ok(Named::NoValue(key.bytes())),
                Known::Unknown => Err(Ask::Name(Name { key, dir: dir.clone(), canonical: true })),
            }),
            Step::More(dir) | Step::Rel(dir) => Ok(Ok(Named::Dir { dir, canonical: true })),
            // Looked up elsewhere, and never made, removed or renamed.
            Step::Reserved(_) => Err(OpError::NotPermitted("a reserved name")),
        }
    }

    fn entry_now(&self, table: &mut Table, dir: &Dir, name: &OsStr, entry: Name) -> Result<Named, Ask> {
        let listed = dir
            .prefix()
            .filter(|_| entry.canonical)
            .and_then(|prefix| table.listing(prefix))
            .map(|listing| listing.kind(name));
        let exists = entry.dir.prefix().and_then(|prefix| table.dir_exists(prefix));
        let is_dir = exists.or(listed.map(|kind| kind == Some(Kind::Dir)));
        if is_dir == Some(true) {
            return Ok(Named::Dir { dir: entry.dir, canonical: entry.canonical });
        }
        let local = table.is_local(&entry.key);
        match table.known_rev(&entry.key) {
            Known::Present(rev) if is_dir.is_some() || local => {
                Ok(Named::File { key: entry.key.bytes(), rev, local, in_itself: false })
            }
            Known::Absent if is_dir.is_some() => self.link_now(table, dir, name, entry),
            Known::Unknown if listed == Some(None) || listed == Some(Some(Kind::Link)) => {
                self.link_now(table, dir, name, entry)
            }
            Known::Unknown if listed == Some(Some(Kind::File)) && exists.is_none() => {
                Err(Ask::Files(self.ahead(table, dir, name, &entry)))
            }
            _ => Err(Ask::Name(entry)),
        }
    }

    /// The file and those after it in its directory's listing that are not known either.
    fn ahead(&self, table: &mut Table, dir: &Dir, name: &OsStr, entry: &Name) -> Vec<Bytes> {
        let mut keys = vec![entry.key.bytes()];
        let window = self.ahead.load(Ordering::Relaxed);
        let listing = dir.prefix().and_then(|prefix| table.listing(prefix));
        let after = listing.iter().flat_map(|listing| listing.after(name)).take(window);
        for next in after.filter(|next| next.kind == Kind::File) {
            if let Ok(Step::Entry(next)) = self.map.step(dir, next.name)
                && next.key > entry.key
                && table.known_rev(&next.key) == Known::Unknown
            {
                keys.push(next.key.bytes());
            }
        }
        keys.sort_unstable();
        keys
    }

    fn link_now(&self, table: &mut Table, dir: &Dir, name: &OsStr, entry: Name) -> Result<Named, Ask> {
        let Some(link) = self.map.rel_link(dir, name) else { return Ok(Named::Nothing(entry)) };
        let below = link.entry.dir.prefix().and_then(|prefix| table.dir_exists(prefix));
        match (table.known_rev(&link.entry.key), below) {
            (Known::Present(_), _) | (_, Some(true)) => Ok(Named::Link(link)),
            (Known::Absent, Some(false)) => Ok(Named::Nothing(entry)),
            _ => Err(Ask::Name(link.entry)),
        }
    }

    /// Asks the server and keeps what it learns.
    pub(super) async fn ask(&self, ask: &Ask) -> Result<(), OpError> {
        match ask {
            Ask::Name(name) => self.ask_name(name).await.map(drop),
            Ask::Files(keys) => self.ask_files(keys).await,
        }
    }

    async fn ask_files(&self, keys: &[Bytes]) -> Result<(), OpError> {
        let (Some(first), Some(last)) = (keys.first(), keys.last()) else { return Ok(()) };
        let loads = Loads::begin(self, keys);
        let request = PageRequest {
            range: KeyRange { start: first.clone(), end: Some(successor(last)) },
            limit: keys.len() as u32,
            keys_only: false,
            how: Freshness::Linearizable,
        };
        let At { revision, found } = self.remote.page(request).await?;
        let bytes: usize = found.kvs.iter().map(|kv| kv.value.len()).sum();
        let window = match bytes {
            0..AHEAD_BYTES => (keys.len() * 2).min(AHEAD_MAX),
            _ => keys.len() / 2,
        };
        self.ahead.store(window.max(AHEAD_MIN), Ordering::Relaxed);
        loads.end(revision.0, &found);
        Ok(())
    }

    /// Asks the server for both readings of a name; gives the value, and as of when it is so.
    pub(super) async fn ask_name(&self, name: &Name) -> Result<(Revision, Option<Value>), OpError> {
        let key = name.key.bytes();
        let load = Load::begin(self, &key, name.dir.prefix());
        let probe = Probe {
            key: name.key.clone(),
            below: self.map.key_range(&name.dir),
            records: self.map.record_range(&name.dir),
        };
        let At { revision, found } = self.remote.lookup(vec![probe], Freshness::Linearizable).await?;
        let found = found.into_iter().next().unwrap_or_default();
        let value = found.kv.as_ref().map(Value::from);
        load.end(revision.0, found);
        Ok((revision, value))
    }

    /// Learns what these keys' names are, in both readings, as far as that is not known.
    pub(crate) async fn learn_names(&self, keys: &[Bytes]) -> Result<(), OpError> {
        let unknown: Vec<(Key, Dir)> = self.nodes.with(|table| {
            let names = keys.iter().map(|key| Key::from(key.clone())).map(|key| (KeyMap::dir_of(&key), key));
            let known = |table: &mut Table, key: &Key, dir: &Dir| {
                table.known_rev(key) != Known::Unknown
                    && dir.prefix().is_some_and(|prefix| table.dir_exists(prefix).is_some())
            };
            names.filter(|(dir, key)| !known(table, key, dir)).map(|(dir, key)| (key, dir)).collect()
        });
        if unknown.is_empty() {
            return Ok(());
        }
        let loads: Vec<Load<'_>> =
            unknown.iter().map(|(key, dir)| Load::begin(self, &key.bytes(), dir.prefix())).collect();
        let probes = unknown.iter().map(|(key, dir)| Probe {
            key: key.clone(),
            below: self.map.key_range(dir),
            records: self.map.record_range(dir),
        });
        let At { revision, found } = self.remote.lookup(probes.collect(), Freshness::Linearizable).await?;
        for (load, found) in loads.into_iter().zip(found) {
            load.end(revision.0, found);
        }
        Ok(())
    }

    /// Whether a directory was there at a revision; one that is compacted counts as having been.
    pub(crate) async fn dir_was_there(&self, dir: &Dir, rev: i64) -> Result<bool, OpError> {
        Ok(self.any_in(self.map.key_range(dir), rev).await?
            || self.any_in(self.map.record_range(dir), rev).await?)
    }

    /// Whether a name was anything at a revision, as a key or as a directory of keys.
    pub(crate) async fn name_was_there(&self, name: &Name, rev: i64) -> Result<bool, OpError> {
        let key = KeyRange { start: name.key.bytes(), end: Some(successor(&name.key)) };
        Ok(self.any_in(key, rev).await? || self.any_in(self.map.key_range(&name.dir), rev).await?)
    }

    async fn any_in(&self, range: KeyRange, rev: i64) -> Result<bool, OpError> {
        if rev < 1 {
            return Ok(false);
        }
        let page = PageRequest { range, limit: 1, keys_only: true, how: Freshness::Exactly(Revision(rev)) };
        match self.remote.page(page).await {
            Ok(At { found, .. }) => Ok(!found.kvs.is_empty()),
            Err(RemoteError::Compacted(_)) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether a key held at one revision what another holds at another; what is compacted was not the same.
    pub(crate) async fn is_same_value(
        &self,
        one: (&Bytes, i64),
        two: (&Bytes, i64),
    ) -> Result<bool, OpError> {
        let at = |(key, rev): (&Bytes, i64)| {
            self.remote.get(Key::from(key.clone()), Freshness::Exactly(Revision(rev)))
        };
        match futures_util::future::try_join(at(one), at(two)).await {
            Ok((one, two)) => {
                Ok(one.found.is_some_and(|one| two.found.is_some_and(|two| one.value == two.value)))
            }
            Err(RemoteError::Compacted(_)) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// What a name is now, as the kernel would be told.
    pub(crate) async fn kind_of_name(&self, dir: &Dir, name: &OsStr) -> Result<Option<Kind>, OpError> {
        Ok(match self.named(dir, name).await? {
            Named::File { .. } => Some(Kind::File),
            Named::Dir { .. } => Some(Kind::Dir),
            Named::Link(_) => Some(Kind::Link),
            Named::Nothing(_) | Named::NoValue(_) => None,
        })
    }

    /// What a key holds now.
    pub(crate) async fn value_of(&self, key: &Bytes) -> Result<Option<Value>, OpError> {
        self.learn_names(std::slice::from_ref(key)).await?;
        Ok(self.nodes.with(|table| table.known(key).value().cloned()))
    }

    /// Whether a directory exists, for those who only tell of it.
    pub(crate) async fn dir_is_there(&self, dir: &Dir) -> Result<bool, OpError> {
        let Some(prefix) = dir.prefix() else { return Ok(true) };
        self.learn_names(&[prefix.slice(..prefix.len().saturating_sub(1))]).await?;
        Ok(self.nodes.with(|table| table.dir_exists(prefix)).unwrap_or(true))
    }

    /// Whether a directory exists; asks where that is not known.
    pub(super) async fn dir_exists(&self, dir: &Dir) -> Result<bool, OpError> {
        // Roots and parts of names are always there.
        let (Some(prefix), Some(_), Some(key)) =
            (dir.prefix(), self.map.record_of(dir), self.map.value_key(dir))
        else {
            return Ok(true);
        };
        loop {
            if let Some(exists) = self.nodes.with(|table| table.dir_exists(prefix)) {
                if !exists {
                    self.nodes.with(|table| table.dir_gone(dir));
                }
                return Ok(exists);
            }
            self.ask_name(&Name { key: key.clone(), dir: dir.clone(), canonical: true }).await?;
        }
    }

    /// The directory in which something is to be made: alive, and there.
    pub(super) async fn dir_to_fill(&self, parent: NodeId) -> Result<Dir, OpError> {
        let dir = self.dir_of(parent)?;
        if self.dir_exists(&dir).await? { Ok(dir) } else { Err(OpError::NotFound) }
    }
}

fn live(table: &Table, parent: NodeId) -> Result<Dir, OpError> {
    let view = table.dir_view(parent).ok_or(OpError::NotDirectory)?;
    if view.dead { Err(OpError::NotFound) } else { Ok(view.dir) }
}

/// A read of a name under way: from its begin on, no event about it is missed.
struct Load<'f> {
    fs: &'f Fs,
    key: Bytes,
    prefix: Option<Bytes>,
    ended: bool,
}

impl<'f> Load<'f> {
    fn begin(fs: &'f Fs, key: &Bytes, prefix: Option<&Bytes>) -> Self {
        fs.nodes.with(|table| {
            table.begin_load(key);
            if let Some(prefix) = prefix {
                table.begin_dir_load(prefix);
            }
        });
        Self { fs, key: key.clone(), prefix: prefix.cloned(), ended: false }
    }

    fn end(mut self, revision: i64, found: Lookup) {
        self.ended = true;
        let fact = |key: Option<Key>| match key {
            Some(key) => Below::witness(&key),
            None => Below::Nothing,
        };
        let value = found.kv.as_ref().map(Value::from);
        let (below, records) = (fact(found.below), fact(found.record));
        self.fs.nodes.with(|table| {
            table.end_load(&self.key, Some((revision, value)));
            if let Some(prefix) = &self.prefix {
                table.end_dir_load(prefix, Some((revision, below, records)));
            }
            table.trim();
        });
    }
}

impl Drop for Load<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.fs.nodes.with(|table| {
                table.end_load(&self.key, None);
                if let Some(prefix) = &self.prefix {
                    table.end_dir_load(prefix, None);
                }
            });
        }
    }
}

/// The same for files of a listing.
struct Loads<'f> {
    fs: &'f Fs,
    /// In order; emptied at the end.
    keys: Vec<Bytes>,
}

impl<'f> Loads<'f> {
    fn begin(fs: &'f Fs, keys: &[Bytes]) -> Self {
        fs.nodes.with(|table| keys.iter().for_each(|key| table.begin_load(key)));
        Self { fs, keys: keys.to_vec() }
    }

    fn end(mut self, revision: i64, found: &Page) {
        let keys = std::mem::take(&mut self.keys);
        // Past the last key of a cut page nothing is known.
        let read_to = found.kvs.last().filter(|_| found.more).map(|kv| kv.key.bytes());
        self.fs.nodes.with(|table| {
            for key in &keys {
                let kv = found.kvs.binary_search_by(|kv| (*kv.key).cmp(key)).ok().map(|at| &found.kvs[at]);
                let beyond = read_to.as_ref().is_some_and(|last| key > last);
                table.end_load(key, (!beyond).then(|| (revision, kv.map(Value::from))));
            }
            table.trim();
        });
    }
}

impl Drop for Loads<'_> {
    fn drop(&mut self) {
        self.fs.nodes.with(|table| self.keys.iter().for_each(|key| table.end_load(key, None)));
    }
}
