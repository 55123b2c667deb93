//! Which copy of a listing the kernel may read, under random schedules, against a model of the kernel's.
//!
//! The model does what Linux's fuse_readdir does, with pages of three entries: it adds what a handle reads where the
//! copy ends, loses pages at any time, and begins anew when it misses one. Some names are directories, which come with
//! the first of their keys and go with the last; the watch brings events late, and in order. Checked throughout: who
//! opens a directory and reads it to its end has seen what it listed at one moment since it was opened.

use std::collections::{BTreeSet, VecDeque};
use std::ffi::OsString;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use super::dir::Below;
use super::table::Limits;
use super::{CopyUse, Fh, Kind, Listing, ListingEntry, ROOT, Table, Value};
use crate::config::Inotify;
use crate::map::{KeyMap, Percent, Rel};

const PAGE: usize = 3;

/// The first name that is a directory.
const DIRS: u8 = 5;

type Names = BTreeSet<u8>;

#[derive(Clone, Debug)]
enum Step {
    /// A key comes, or goes where it is there: the file's, or one of the directory's.
    Change(u8, u8),
    /// The same by this mount, which knows it at once.
    Own(u8, u8),
    /// The watch brings so many events.
    Deliver(usize),
    /// A directory's facts are read.
    Know(u8),
    Open,
    /// The n-th open directory reads on, so many entries at most.
    Read(u8, usize),
    Rewind(u8),
    Close(u8),
    /// The notifier tells the kernel all that there is to tell.
    Notify,
    /// The kernel lets go of a page.
    Evict(usize),
    /// The watch has been gone for too long, or stands again.
    Trust(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (1..9u8, 0..2u8).prop_map(|(name, key)| Step::Change(name, key)),
        1 => (1..9u8, 0..2u8).prop_map(|(name, key)| Step::Own(name, key)),
        4 => (1..4usize).prop_map(Step::Deliver),
        1 => (DIRS..9).prop_map(Step::Know),
        4 => Just(Step::Open),
        9 => (0..4u8, 1..5usize).prop_map(|(n, many)| Step::Read(n, many)),
        1 => (0..4u8).prop_map(Step::Rewind),
        3 => (0..4u8).prop_map(Step::Close),
        4 => Just(Step::Notify),
        1 => (0..3usize).prop_map(Step::Evict),
        1 => any::<bool>().prop_map(Step::Trust),
    ]
}

/// The directory's inode in the kernel.
#[derive(Debug, Default)]
struct Copy {
    entries: Vec<u8>,
    /// Pages that are not there, though entries are in them.
    lost: BTreeSet<usize>,
    whole: bool,
    version: u64,
}

impl Copy {
    fn reset(&mut self) {
        *self = Self { version: self.version + 1, ..Self::default() };
    }

    fn lose_all(&mut self) {
        self.lost = (0..self.entries.len().div_ceil(PAGE)).collect();
    }

    /// Adds an entry that was read at `at`; no page that was lost comes back but by its first entry.
    fn add(&mut self, at: usize, name: u8) {
        if self.whole || at != self.entries.len() {
            return;
        }
        let page = at / PAGE;
        if at.is_multiple_of(PAGE) {
            self.lost.remove(&page);
        } else if self.lost.contains(&page) {
            return;
        }
        self.entries.push(name);
    }
}

#[derive(Debug)]
struct Open {
    fh: Fh,
    copy: CopyUse,
    at: usize,
    /// Where in the copy of this version the last reading from it has ended.
    stream: usize,
    version: u64,
    seen: Vec<u8>,
    /// The revision that was seen when it was opened; nothing is asked of a second reading.
    since: Option<i64>,
}

struct World {
    table: Table,
    kernel: Copy,
    open: Vec<Open>,
    /// What is there: names, and of each its keys.
    keys: BTreeSet<(u8, u8)>,
    rev: i64,
    /// What the root has listed at each revision, the first of which is this.
    history: Vec<Names>,
    first: i64,
    /// Events that the watch has still to bring.
    coming: VecDeque<(Bytes, i64, Option<Value>)>,
}

impl World {
    fn new() -> Self {
        let root = KeyMap::new(Bytes::from_static(b"/"), Percent::Strict, Rel::Off).root();
        let limits =
            Limits { keys_max: 100, bytes_max: 1 << 20, follow: false, inotify: Inotify::Off, strict: false };
        // No directory is empty: this stands for its dots.
        let keys = BTreeSet::from([(0, 0), (1, 0), (3, 0), (5, 0), (6, 0), (6, 1)]);
        let mut world = Self {
            table: Table::new(root, limits),
            kernel: Copy::default(),
            open: Vec::new(),
            keys,
            rev: 10,
            history: Vec::new(),
            first: 10,
            coming: VecDeque::new(),
        };
        world.history.push(world.names());
        world
    }

    fn names(&self) -> Names {
        self.keys.iter().map(|&(name, _)| name).collect()
    }

    /// The revision up to which the watch has brought all.
    fn seen(&self) -> i64 {
        self.coming.front().map_or(self.rev, |&(_, rev, _)| rev - 1)
    }

    fn change(&mut self, name: u8, key: u8, own: bool) {
        let at = (name, if name < DIRS { 0 } else { key });
        self.rev += 1;
        let put = self.keys.insert(at);
        if !put {
            self.keys.remove(&at);
        }
        let key = if name < DIRS { format!("/{name}") } else { format!("/{name}/{key}") };
        let value = put.then(|| Value {
            rev: self.rev,
            version: 1,
            create: self.rev,
            lease: 0,
            bytes: Bytes::from_static(b"v"),
        });
        let key = Bytes::from(key);
        self.history.push(self.names());
        if own {
            // Nobody waits here until the watch has brought it.
            drop(self.table.own_event(&key, self.rev, None, value.clone()));
        }
        self.coming.push_back((key, self.rev, value));
    }

    fn deliver(&mut self, count: usize) {
        for _ in 0..count {
            let Some((key, rev, value)) = self.coming.pop_front() else { return };
            self.table.event(&key, rev, value);
            self.table.saw(rev);
        }
    }

    fn know(&mut self, name: u8) {
        let prefix = Bytes::from(format!("/{name}/"));
        self.table.begin_dir_load(&prefix);
        let below = self.keys.range((name, 0)..).next().filter(|(first, _)| *first == name);
        let keys =
            below.map_or(Below::Nothing, |(_, key)| Below::witness(format!("/{name}/{key}").as_bytes()));
        self.table.end_dir_load(&prefix, Some((self.rev, keys, Below::Nothing)));
    }

    fn open(&mut self) {
        let (fh, copy) = self.table.open_dir(ROOT, true);
        if copy == CopyUse::Makes {
            self.kernel.lose_all();
        }
        let since = Some(self.seen());
        self.open.push(Open { fh, copy, at: 0, stream: 0, version: 0, seen: Vec::new(), since });
    }

    /// What the mount answers, as its operations do.
    fn listing(&mut self, fh: Fh, at: usize) -> Arc<Listing> {
        let (_, read) = self.table.dir_handle(fh).expect("it is open");
        if let Some(listing) = read.filter(|_| at > 0) {
            return listing;
        }
        let known = self.table.trusted.then(|| self.table.listing(b"/")).flatten();
        let listing = known.unwrap_or_else(|| {
            let entry = |name: &u8| ListingEntry {
                name: OsString::from(name.to_string()),
                kind: if *name < DIRS { Kind::File } else { Kind::Dir },
                ino: u64::from(*name),
            };
            let prefix = Bytes::from_static(b"/");
            self.table.begin_dir_load(&prefix);
            let listing = Arc::new(Listing::new(self.names().iter().map(entry)));
            self.table.end_dir_load(&prefix, None);
            self.table.keep_listing(&prefix, self.rev, &listing);
            listing
        });
        self.table.set_listing(fh, listing.clone());
        listing
    }

    /// True at the end of the directory.
    fn read(&mut self, n: usize, many: usize) -> bool {
        let (fh, copy, at) = (self.open[n].fh, self.open[n].copy, self.open[n].at);
        let caches = copy != CopyUse::Leaves;
        if caches && self.kernel.whole {
            let open = &mut self.open[n];
            // The place in the copy is looked for from its begin, unless the last reading left it there.
            if open.stream != at || open.version != self.kernel.version {
                (open.stream, open.version) = (0, self.kernel.version);
            }
            let mut pages = open.stream / PAGE..=at / PAGE;
            if open.stream < self.kernel.entries.len() && pages.any(|page| self.kernel.lost.contains(&page)) {
                self.kernel.reset();
            } else {
                let end = ((at / PAGE + 1) * PAGE).min(at + many).min(self.kernel.entries.len());
                let read = self.kernel.entries.get(at..end).unwrap_or_default();
                open.seen.extend(read);
                open.at += read.len();
                open.stream = open.at;
                return read.is_empty();
            }
        }
        let listing = self.listing(fh, at);
        let mut read = 0;
        for entry in listing.from(at).take(many) {
            let name: u8 = entry.name.to_string_lossy().parse().expect("it is a number");
            if caches {
                self.kernel.add(at + read, name);
            }
            self.open[n].seen.push(name);
            read += 1;
        }
        if read == 0 {
            if self.table.spoils_copy(fh) {
                self.kernel.lose_all();
            }
            self.kernel.whole |= caches && at == self.kernel.entries.len();
        }
        self.open[n].at += read;
        read == 0
    }

    fn run(&mut self, step: &Step) {
        let nth = |n: u8, open: &[Open]| (!open.is_empty()).then(|| usize::from(n) % open.len());
        match *step {
            Step::Change(name, key) => self.change(name, key, false),
            Step::Own(name, key) => self.change(name, key, true),
            Step::Deliver(count) => self.deliver(count),
            Step::Know(name) => self.know(name),
            Step::Open if self.open.len() < 4 => self.open(),
            Step::Open => {}
            Step::Read(n, many) => {
                let Some(n) = nth(n, &self.open) else { return };
                if self.read(n, many)
                    && let Some(since) = self.open[n].since
                {
                    let seen = &self.open[n].seen;
                    let listed = &self.history[(since - self.first) as usize..];
                    let once = listed.iter().any(|names| names.iter().eq(seen));
                    assert!(once, "{seen:?} of {listed:?}, {:?}", self.open[n]);
                }
            }
            Step::Rewind(n) => {
                let Some(n) = nth(n, &self.open) else { return };
                let open = &mut self.open[n];
                (open.at, open.seen, open.since) = (0, Vec::new(), None);
            }
            Step::Close(n) => {
                let Some(n) = nth(n, &self.open) else { return };
                let open = self.open.swap_remove(n);
                self.table.release(open.fh);
            }
            Step::Notify => {
                while let Some(work) = self.table.next_work() {
                    if work.drop_listing == Some(ROOT) {
                        self.kernel.lose_all();
                    }
                    self.table.work_done(&work);
                }
            }
            Step::Evict(page) => {
                if page * PAGE < self.kernel.entries.len() {
                    self.kernel.lost.insert(page);
                }
            }
            Step::Trust(trusted) => self.table.set_trusted(trusted),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(3000) })]

    #[test]
    fn who_reads_a_directory_sees_what_it_listed_at_one_moment(steps in prop::collection::vec(step(), 0..80)) {
        let mut world = World::new();
        for step in &steps {
            world.run(step);
        }
    }
}
