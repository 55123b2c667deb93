//! Directories: opening, listing, making.
//!
//! A listing is read once, whole, at one revision, by pages that skip what lies
//! inside subdirectories; what is shown of it later comes from that one reading, so
//! that it is stable however the directory changes. A page limit is never its end.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::sync::Arc;

use bytes::Bytes;
use etcfs_proto::key::KeyRange;

use super::lookup::Named;
use super::virtuals::is_virtual;
use super::{Fs, long};
use crate::errno::OpError;
use crate::map::{Child, Dir, Key, Listing as Collected, Rel, Shown};
use crate::node::{
    CopyUse, DirView, Entry, Fh, Kind, Listing, ListingEntry, NodeId, Table, Value, file_ino, link_ino,
};
use crate::remote::{
    At, Change, ChildrenRequest, Committed, Compare, Freshness, Op, Page, PageRequest, RemoteError, Revision,
};

/// Keys in the first page of a listing; later ones adapt to how many are skipped.
const PAGE_FIRST: u32 = 512;
const PAGE_MIN: u32 = 32;
const PAGE_MAX: u32 = 10_000;

/// Bare first components that the root shows links for; with more it shows none.
const LINKS_MAX: usize = 1000;

/// How often a listing begins again because its revision was compacted under it.
const COMPACTED_TRIES: u32 = 5;

/// A key past `key` and past nearly all others.
fn above_all(key: &[u8]) -> Bytes {
    let mut end = vec![0xff; 8];
    while end.as_slice() <= key {
        end.push(0xff);
    }
    end.into()
}

/// The keys of a directory, or its records: as a range, and, where they are all that have it, by their prefix.
struct Below {
    range: KeyRange,
    prefix: Option<Bytes>,
}

impl Fs {
    /// Opens a directory, and says what the kernel is to do with its copy of what that lists.
    pub(crate) fn open_dir(&self, id: NodeId) -> Result<(Fh, CopyUse), OpError> {
        match self.kind_of(id)? {
            Kind::Dir if is_virtual(id) => Ok((self.virtuals.open_dir(id), CopyUse::Leaves)),
            Kind::Dir => {
                let shown = !self.view.strict && self.is_trusted();
                let opened = self.nodes.with(|table| {
                    let dir = table.dir_view(id).map(|view| view.dir);
                    let shown =
                        shown && dir.is_some_and(|dir| self.local_names(table, &dir).next().is_none());
                    table.open_dir(id, shown)
                });
                if opened.1 == CopyUse::Reads {
                    self.counts.listings_known.add(1);
                }
                Ok(opened)
            }
            Kind::File | Kind::Link => Err(OpError::NotDirectory),
        }
    }

    /// True if the kernel must drop its copy of the listing before it is told that this reading has come to its end.
    pub(crate) fn spoils_copy(&self, fh: Fh) -> bool {
        self.nodes.with(|table| table.spoils_copy(fh))
    }

    pub(crate) fn release_dir(&self, fh: Fh) {
        if self.release_virtual(fh) {
            return;
        }
        self.nodes.with(|table| table.release(fh));
    }

    /// The listing that an open directory shows from `offset` on; `None` if the server must be asked.
    pub(crate) fn listing_now(&self, fh: Fh, offset: u64) -> Option<Arc<Listing>> {
        // Offset 0 is a new look (rewinddir), unless nothing has been read yet anyway.
        if let Some(listing) = self.virtuals.listing(fh) {
            return Some(listing).filter(|_| offset > 0);
        }
        let (id, read) = self.nodes.with(|table| table.dir_handle(fh))?;
        read.filter(|_| offset > 0).or_else(|| self.known_listing(fh, id))
    }

    /// The listing as it was read, if nothing has changed since; an open directory shows it from now on.
    fn known_listing(&self, fh: Fh, id: NodeId) -> Option<Arc<Listing>> {
        if self.view.strict || !self.is_trusted() {
            return None;
        }
        let listing = self.nodes.with(|table| {
            let DirView { dir, dead } = table.dir_view(id)?;
            let listing = table.listing(dir.prefix().filter(|_| !dead)?)?;
            let listing = self.with_local(table, &dir, listing);
            table.set_listing(fh, listing.clone());
            Some(listing)
        })?;
        self.counts.listings_known.add(1);
        Some(listing)
    }

    pub(crate) async fn listing(&self, fh: Fh, offset: u64) -> Result<Arc<Listing>, OpError> {
        if let Some(listing) = self.listing_now(fh, offset) {
            return Ok(listing);
        }
        if let Some(listed) = self.list_virtual(fh).await {
            return listed;
        }
        let (id, _) = self.nodes.with(|table| table.dir_handle(fh)).ok_or(OpError::BadHandle)?;
        let DirView { dir, dead } = self.nodes.with(|table| table.dir_view(id)).ok_or(OpError::Stale)?;
        let listing = if dead {
            Arc::new(Listing::new::<OsString>([]))
        } else {
            self.until_trusted().await?;
            if let Some(listing) = self.known_listing(fh, id) {
                return Ok(listing);
            }
            self.list(&dir).await?
        };
        Ok(self.nodes.with(|table| {
            let listing = self.with_local(table, &dir, listing);
            table.set_listing(fh, listing.clone());
            listing
        }))
    }

    /// A directory's entries, from the server.
    async fn list(&self, dir: &Dir) -> Result<Arc<Listing>, OpError> {
        let prefix = dir.prefix().cloned();
        self.counts.listings_asked.add(1);
        if let Some(prefix) = &prefix {
            self.nodes.with(|table| table.begin_dir_load(prefix));
        }
        let mut tries = 0;
        let read = loop {
            match self.read_listing(dir, None).await {
                Err(OpError::Remote(RemoteError::Compacted(_))) if tries < COMPACTED_TRIES => tries += 1,
                other => break other,
            }
        };
        if let Some(prefix) = &prefix {
            self.nodes.with(|table| table.end_dir_load(prefix, None));
        }
        let (revision, listing) = read?;
        let listing = Arc::new(listing);
        if let Some(prefix) = &prefix {
            self.nodes.with(|table| table.keep_listing(prefix, revision.0, &listing));
        }
        Ok(listing)
    }

    /// Reads a listing: the newest, or as of a revision.
    pub(super) async fn read_listing(
        &self,
        dir: &Dir,
        at: Option<Revision>,
    ) -> Result<(Revision, Listing), OpError> {
        let mut collected = Collected::new(&self.map, dir.clone());
        let mut there = self.map.record_of(dir).is_none();
        let keys = Below { range: self.map.key_range(dir), prefix: dir.prefix().cloned() };
        let revision = self
            .walk(keys, at, |key| {
                there = true;
                collected.key(key)
            })
            .await?;
        let range = self.map.record_range(dir);
        let records = Below { prefix: dir.prefix().map(|_| range.start.clone()), range };
        self.walk(records, Some(revision), |key| {
            there = true;
            collected.record(key)
        })
        .await?;
        if !there {
            // Gone since it was opened, or somebody's working directory: it reads empty.
            if at.is_none() {
                self.nodes.with(|table| table.dir_gone(dir));
            }
            return Ok((revision, Listing::new::<OsString>([])));
        }
        if let Some(own) = self.map.value_key(dir) {
            let At { found, .. } = self.remote.get(own.clone(), Freshness::Exactly(revision)).await?;
            if found.is_some() {
                collected.value(own);
            }
        }
        if self.map.is_root(dir)
            && let Some(rel) = self.map.rel_dir()
        {
            let names = self.bare_names(&rel, revision).await?;
            collected.rel(&names, LINKS_MAX);
            if at.is_none() && self.map.rel() == Rel::Links {
                self.note_links(names.len() > LINKS_MAX);
            }
        }
        let listed = |(name, child)| {
            let (kind, ino) = match &child {
                Child::File(key) | Child::Value(key) => (Kind::File, file_ino(key)),
                Child::Dir { dir, .. } | Child::More(dir) | Child::Rel(dir) => {
                    (Kind::Dir, self.nodes.with(|table| table.dir_ino(dir)))
                }
                Child::Link(link) => (Kind::Link, link_ino(&link.target)),
            };
            ListingEntry { name, kind, ino }
        };
        let listing = long(collected.len(), || Listing::new(collected.finish().map(listed)));
        Ok((revision, listing))
    }

    /// First components of the bare keys: all of them, or a few more than can be links.
    async fn bare_names(&self, rel: &Dir, revision: Revision) -> Result<BTreeSet<OsString>, OpError> {
        let mut names = BTreeSet::new();
        let keys = Below { range: self.map.key_range(rel), prefix: rel.prefix().cloned() };
        self.walk(keys, Some(revision), |key| match self.map.shown(rel, key) {
            // Enough to know that they are too many: on to the end, or near it.
            _ if names.len() > LINKS_MAX => above_all(key),
            Shown::File { name, .. } => {
                names.insert(name);
                etcfs_proto::key::successor(key)
            }
            Shown::Dir { name, seek, .. } => {
                names.insert(name);
                seek
            }
            Shown::More { name, seek, .. } => {
                names.insert(name);
                seek
            }
            Shown::Hidden { seek } => seek,
        })
        .await?;
        Ok(names)
    }

    /// Hands the keys of a range to `see`, in order, at one revision, going on from
    /// where it says. Of keys below a subdirectory one may stand for all.
    async fn walk(
        &self,
        below: Below,
        at: Option<Revision>,
        mut see: impl FnMut(&[u8]) -> Bytes,
    ) -> Result<Revision, OpError> {
        let Below { range, prefix } = below;
        let mut at = at;
        if let Some(prefix) = prefix
            && self.walk_children(prefix, &mut at, &mut see).await?
            && let Some(revision) = at
        {
            return Ok(revision);
        }
        let mut next = range.start.clone();
        let mut limit = PAGE_FIRST;
        loop {
            let how = at.map_or(Freshness::Linearizable, Freshness::Exactly);
            let page = PageRequest {
                range: KeyRange { start: next.clone(), end: range.end.clone() },
                limit,
                keys_only: true,
                how,
            };
            let At { revision, found: Page { kvs, more } } = self.remote.page(page).await?;
            let revision = *at.get_or_insert(revision);
            let mut seen: u32 = 0;
            long(kvs.len(), || {
                for kv in &kvs {
                    if *kv.key >= *next {
                        next = see(&kv.key);
                        seen += 1;
                    }
                }
            });
            let last_seen_covers = kvs.last().is_none_or(|last| *last.key < *next);
            debug_assert!(last_seen_covers, "see answers with a key past the one it saw");
            let done = !more || range.end.as_ref().is_some_and(|end| next >= *end);
            if done {
                return Ok(revision);
            }
            // Many keys of the page lay inside subdirectories: smaller steps skip more.
            limit = if seen * 4 < limit { (limit / 4).max(PAGE_MIN) } else { (limit * 2).min(PAGE_MAX) };
        }
    }

    /// The same by the names directly below a prefix, where the server tells those; else false.
    async fn walk_children(
        &self,
        prefix: Bytes,
        at: &mut Option<Revision>,
        see: &mut impl FnMut(&[u8]) -> Bytes,
    ) -> Result<bool, OpError> {
        let (mut from, mut next) = (Bytes::new(), Bytes::new());
        loop {
            let how = at.map_or(Freshness::Linearizable, Freshness::Exactly);
            let request = ChildrenRequest { prefix: prefix.clone(), from, how };
            let Some(At { revision, found }) = self.remote.children(request).await? else { return Ok(false) };
            at.get_or_insert(revision);
            long(found.children.len(), || {
                let mut keys: Vec<Vec<u8>> = Vec::with_capacity(found.children.len());
                for child in &found.children {
                    let key = [prefix.as_ref(), &child.name].concat();
                    if child.below {
                        // Nothing that `see` tells apart depends on what follows the slash.
                        keys.push([key.as_slice(), b"/"].concat());
                    }
                    if child.is_key {
                        keys.push(key);
                    }
                }
                // A name comes as all that it is at once, but `a-b` has its place between `a` and `a/`.
                keys.sort_unstable();
                for key in &keys {
                    if *next <= **key {
                        next = see(key);
                    }
                }
            });
            match found.next {
                Some(on) => from = on.max(next.clone()),
                None => return Ok(true),
            }
        }
    }

    /// Adds the files that only this mount has.
    fn with_local(&self, table: &Table, dir: &Dir, listing: Arc<Listing>) -> Arc<Listing> {
        let added: Vec<ListingEntry> = self
            .local_names(table, dir)
            .filter(|(_, name)| listing.kind(name).is_none())
            .map(|(key, name)| ListingEntry { name, kind: Kind::File, ino: file_ino(key) })
            .collect();
        if added.is_empty() {
            return listing;
        }
        let added = added.iter().map(|ListingEntry { name, kind, ino }: &ListingEntry| ListingEntry {
            name: name.as_os_str(),
            kind: *kind,
            ino: *ino,
        });
        let mut entries: Vec<ListingEntry<&OsStr>> = listing.from(0).chain(added).collect();
        entries.sort_by_key(|entry| entry.name);
        Arc::new(Listing::new(entries))
    }

    /// The files that only this mount has in a directory.
    fn local_names<'t>(&self, table: &'t Table, dir: &Dir) -> impl Iterator<Item = (&'t Bytes, OsString)> {
        table.local_keys().filter_map(move |key| {
            let (place, name) = self.map.place_of(key)?;
            (place == *dir).then_some((key, name))
        })
    }

    /// True iff a file that only this mount has lies below the directory.
    pub(super) fn holds_local(&self, dir: &Dir) -> bool {
        let range = self.map.key_range(dir);
        self.nodes.with(|table| table.local_keys().any(|key| range.contains(key)))
    }

    pub(crate) async fn make_dir(&self, parent: NodeId, name: &OsStr) -> Result<Entry, OpError> {
        let dir = self.dir_to_fill(parent).await?;
        self.name_to_make(&dir, name)?;
        let entry = match self.named(&dir, name).await? {
            Named::File { .. } | Named::Dir { .. } | Named::Link(_) => return Err(OpError::Exists),
            Named::NoValue(_) => return Err(OpError::NotPermitted("%value is a file")),
            Named::Nothing(entry) => entry,
        };
        self.writable(&entry.key)?;
        let record: Key = self.map.record_of(&entry.dir).ok_or(OpError::Exists)?;
        let change = Change {
            compares: vec![Compare::Absent(entry.key.clone()), Compare::Absent(record.clone())],
            then: vec![Op::put(record.clone(), Bytes::new())],
            otherwise: Vec::new(),
        };
        let Committed { revision, succeeded, .. } = self.commit(change).await?;
        if !succeeded {
            return Err(OpError::Exists);
        }
        self.record_made(&record, revision.0);
        Ok(self.nodes.with(|table| table.lookup_dir(&entry.dir, parent, name, entry.canonical)))
    }

    /// A record of a directory was put by this mount.
    pub(super) fn record_made(&self, record: &Key, rev: i64) {
        let value = Value { bytes: Bytes::new(), create: rev, rev, version: 1, lease: 0 };
        self.nodes.with(|table| table.own_event(&record.bytes(), rev, Some(0), Some(value)));
    }

    /// A record of a directory was deleted by this mount.
    pub(super) fn record_gone(&self, record: &Key, rev: i64) {
        self.nodes.with(|table| table.own_event(&record.bytes(), rev, None, None));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::View;
    use crate::map::DIR_RECORDS;
    use crate::node::ROOT;
    use crate::ops::test_mount::mount_with;
    use crate::remote::memory::Memory;

    /// All that a new mount shows, by path.
    async fn shown(memory: &Memory, prefix: &'static str, rel: Rel) -> Vec<(Vec<OsString>, Kind, u64)> {
        let fs = mount_with(memory, prefix, rel, View::default()).await;
        let mut all = Vec::new();
        let mut open = vec![(ROOT, Vec::new())];
        while let Some((node, path)) = open.pop() {
            let (handle, _) = fs.open_dir(node).unwrap();
            let listing = fs.listing(handle, 0).await.unwrap();
            for ListingEntry { name, kind, ino } in listing.from(0) {
                let path = [path.as_slice(), &[name.to_owned()]].concat();
                if kind == Kind::Dir {
                    let dir = fs.lookup(node, name).await.unwrap_or_else(|error| panic!("{path:?}: {error}"));
                    open.push((dir.node, path.clone()));
                }
                all.push((path, kind, ino));
            }
            fs.release_dir(handle);
        }
        all
    }

    /// What is known is answered at once; every listing once went through all keys that the mount knew.
    #[tokio::test]
    async fn a_listing_that_is_known_needs_no_server_and_has_this_mounts_own_files() {
        let memory = Memory::new();
        memory.put("/b", "1");
        let fs = mount_with(&memory, "/", Rel::Off, View::default()).await;
        let names = |listing: Arc<Listing>| -> Vec<OsString> {
            listing.from(0).map(|entry| entry.name.to_owned()).collect()
        };
        let (handle, _) = fs.open_dir(ROOT).unwrap();
        assert!(fs.listing_now(handle, 0).is_none(), "nobody has listed it yet");
        assert_eq!(names(fs.listing(handle, 0).await.unwrap()), ["b"]);
        let made = fs.create(ROOT, OsStr::new(".b.swp"), 7, libc::O_CREAT | libc::O_WRONLY).await.unwrap();
        assert_eq!(names(fs.listing_now(handle, 1).unwrap()), ["b"], "what is begun goes on");
        assert_eq!(names(fs.listing_now(handle, 0).unwrap()), [".b.swp", "b"], "a new look");
        assert_eq!(memory.key_value("/.b.swp"), None);
        fs.clone().release(made.entry.node, made.fh, None).await;

        memory.put("/c", "1");
        let (again, _) = fs.open_dir(ROOT).unwrap();
        while fs.listing_now(again, 0).is_some() {
            tokio::task::yield_now().await;
        }
        assert_eq!(names(fs.listing(again, 0).await.unwrap()).last().unwrap(), "c");
    }

    fn component() -> impl Strategy<Value = String> {
        prop_oneof![
            4 => "[ab./-]{1,2}",
            2 => prop::sample::select(vec!["", ".", "..", "%", "%41", "\u{1}", "\u{e9}", ".etcfs", "0"]).prop_map(str::to_owned),
            // Cut into two names, and into three.
            1 => (prop::sample::select(vec![250usize, 256, 520]), "[ab]?").prop_map(|(n, end)| "l".repeat(n) + &end),
        ]
    }

    fn key() -> impl Strategy<Value = String> {
        (prop::sample::select(vec!["/", "/", "/d/", "", "/d"]), prop::collection::vec(component(), 1..4))
            .prop_map(|(start, components)| start.to_owned() + &components.join("/"))
            .prop_filter("the mount's own records, and what is no key", |key| {
                !key.is_empty() && !key.starts_with(".etcfs/")
            })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        /// A name that is a key and a directory once hid the names that sort between the two, `a-b` between `a` and
        /// `a/x`.
        #[test]
        fn a_listing_by_children_is_one_by_ranges(
            keys in prop::collection::vec(key(), 1..40),
            records in prop::collection::vec(key(), 0..6),
            prefix in prop::sample::select(vec!["/", "", "/d/"]),
            rel in prop::sample::select(vec![Rel::Links, Rel::Dir, Rel::Off]),
        ) {
            let memory = Memory::new();
            for key in &keys {
                memory.put(key, "1");
            }
            for dir in &records {
                memory.put(&format!("{}{dir}/", String::from_utf8_lossy(DIR_RECORDS)), "");
            }
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let by_children = shown(&memory, prefix, rel).await;
                memory.be_plain();
                prop_assert_eq!(by_children, shown(&memory, prefix, rel).await);
                Ok(())
            })?;
        }
    }
}
