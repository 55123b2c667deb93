//! The follow rules under random schedules, against a model of the kernel.
//!
//! The model keeps what a kernel keeps: one dentry for the name with its nodeid, an
//! attribute cache for each inode, lookup counts, open descriptors. Steps are small
//! (the notifier's word to the kernel and its return are two), so that changes, names,
//! releases and forgets come between each other in every order. Checked throughout:
//! nothing torn, nothing stale after a local close or after a wait for the server, a size that fits what is read,
//! and every follower prints every value once, in order.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use proptest::prelude::*;

use super::table::{Limits, Work};
use super::{Caller, Fh, Known, NodeId, ROOT, Table, Value};
use crate::config::Inotify;
use crate::map::{KeyMap, Percent, Rel};

const NAME: &str = "k";

fn key() -> Bytes {
    Bytes::from_static(b"/k")
}

#[derive(Clone, Debug)]
enum Step {
    /// Somebody else puts a value with so many filling bytes.
    RemotePut(u8),
    /// This mount puts; its answer comes before the watch's event.
    LocalPut(u8),
    RemoteDelete,
    /// The notifier takes a notice and tells the kernel.
    NotifierTells,
    /// The notifier comes back: the change is published.
    NotifierReturns,
    /// A program walks the path, asks for the size and reads to the end: cat, wc, cp.
    Cat,
    /// A program opens the file and goes on from there.
    Open,
    /// One read by the n-th follower where it is.
    FollowerReads(u8),
    /// What tail -f does once a second: ask for the size, read if it grew.
    FollowerPolls(u8),
    Close(u8),
    /// The watch has been gone for too long: names and opens wait.
    Doubt,
    /// It stands again: they go on, and find everything that has come.
    Trust,
    /// The kernel drops its dentry (memory), and inodes that nobody uses.
    Shrink,
    /// Time passes.
    Wait(u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..20u8).prop_map(Step::RemotePut),
        3 => (0..20u8).prop_map(Step::LocalPut),
        1 => Just(Step::RemoteDelete),
        5 => Just(Step::NotifierTells),
        5 => Just(Step::NotifierReturns),
        5 => Just(Step::Cat),
        2 => Just(Step::Open),
        5 => (0..4u8).prop_map(Step::FollowerReads),
        5 => (0..4u8).prop_map(Step::FollowerPolls),
        2 => (0..4u8).prop_map(Step::Close),
        1 => Just(Step::Doubt),
        2 => Just(Step::Trust),
        1 => Just(Step::Shrink),
        2 => (0..400u16).prop_map(Step::Wait),
    ]
}

/// An inode as the kernel has it.
#[derive(Debug, Default)]
struct Inode {
    nlookup: u64,
    open: u32,
    /// Size, if it may be believed until told otherwise.
    size: Option<u64>,
}

#[derive(Debug)]
struct Follower {
    fh: Fh,
    node: NodeId,
    pid: u32,
    offset: u64,
    /// The value that it opened, as a number of the history.
    opened: usize,
    printed: Vec<u8>,
    /// How far it was told that the file goes.
    told: u64,
}

#[derive(Debug)]
struct World {
    table: Table,
    now: Instant,
    rev: i64,
    create: i64,
    /// Every value ever put, with a number inside, so that each is unlike all others.
    history: Vec<Bytes>,
    /// The revision of each.
    revs: Vec<i64>,
    deleted: bool,
    trusted: bool,
    dentry: Option<(NodeId, bool)>,
    inodes: BTreeMap<NodeId, Inode>,
    followers: Vec<Follower>,
    working: Option<Work>,
    /// Local puts that wait for their publication.
    parked: Vec<tokio::sync::oneshot::Receiver<()>>,
    /// The newest value whose local writer has been answered.
    answered: usize,
    parked_values: Vec<usize>,
    pids: u32,
}

impl World {
    fn new() -> Self {
        let map = KeyMap::new(Bytes::from_static(b"/"), Percent::Strict, Rel::Off);
        let limits =
            Limits { keys_max: 100, bytes_max: 1 << 20, follow: true, inotify: Inotify::Auto, strict: false };
        let mut table = Table::new(map.root(), limits);
        let value = Self::bytes(0, 3);
        table.begin_load(&key());
        table.end_load(
            &key(),
            Some((1, Some(Value { bytes: value.clone(), create: 1, rev: 1, version: 1, lease: 0 }))),
        );
        Self {
            table,
            now: Instant::now(),
            rev: 1,
            create: 1,
            history: vec![value],
            revs: vec![1],
            deleted: false,
            trusted: true,
            dentry: None,
            inodes: BTreeMap::new(),
            followers: Vec::new(),
            working: None,
            parked: Vec::new(),
            answered: 0,
            parked_values: Vec::new(),
            pids: 100,
        }
    }

    fn bytes(number: usize, fill: u8) -> Bytes {
        format!("<{number}{}>", "x".repeat(fill.into())).into()
    }

    fn put(&mut self, fill: u8, local: bool) {
        let bytes = Self::bytes(self.history.len(), fill);
        let before = if self.deleted { 0 } else { self.rev };
        self.rev += 1;
        if self.deleted {
            self.create = self.rev;
            self.deleted = false;
        }
        self.history.push(bytes.clone());
        self.revs.push(self.rev);
        let value = Value { bytes, create: self.create, rev: self.rev, version: 2, lease: 0 };
        // Keys that the table holds nothing of are of no interest to it, either way.
        if local {
            let number = self.history.len() - 1;
            match self.table.own_event(&key(), self.rev, Some(before), Some(value.clone())) {
                Some(waiting) => {
                    self.parked.push(waiting);
                    self.parked_values.push(number);
                }
                None => self.answered = self.answered.max(number),
            }
        }
        self.table.event(&key(), self.rev, Some(value));
        self.settle();
    }

    /// Local writers whose value is published are answered.
    fn settle(&mut self) {
        let mut at = 0;
        while at < self.parked.len() {
            if self.parked[at].try_recv().is_ok() {
                drop(self.parked.remove(at));
                self.answered = self.answered.max(self.parked_values.remove(at));
            } else {
                at += 1;
            }
        }
    }

    /// Walks the path as the kernel does: by its dentry while that may be kept, else by a
    /// lookup.
    fn walk(&mut self) -> Option<NodeId> {
        if let Some((node, true)) = self.dentry {
            return Some(node);
        }
        if self.table.known(&key()) == Known::Unknown {
            // Dropped from the cache by the kernel's forgets: read from the server.
            self.table.begin_load(&key());
            let value = (!self.deleted).then(|| Value {
                bytes: self.history.last().expect("there is a first value").clone(),
                create: self.create,
                rev: *self.revs.last().expect("there is a first value"),
                version: 2,
                lease: 0,
            });
            self.table.end_load(&key(), Some((self.rev, value)));
        }
        match self.table.lookup_file(&key(), ROOT, OsStr::new(NAME), self.now) {
            Some(entry) => {
                let inode = self.inodes.entry(entry.node).or_default();
                inode.nlookup += 1;
                inode.size = entry.attr.keep.then_some(entry.attr.size);
                self.dentry = Some((entry.node, entry.keep));
                Some(entry.node)
            }
            None => {
                self.dentry = None;
                None
            }
        }
    }

    /// Walks and opens as the kernel does: once more where it is told that the inode is stale.
    fn walk_and_open(&mut self, pid: u32) -> Option<(NodeId, Fh)> {
        let mut node = self.walk()?;
        if self.table.is_overdue(node) {
            self.dentry = None;
            node = self.walk()?;
            assert!(!self.table.is_overdue(node), "a lookup finds what an open wants");
        }
        let caller = Caller { thread: pid, process: None };
        Some((node, self.table.open_reader(node, caller).expect("the kernel holds it")))
    }

    fn stat(&mut self, node: NodeId, pid: u32) -> u64 {
        if let Some(size) = self.inodes.get(&node).and_then(|inode| inode.size) {
            return size;
        }
        let caller = Caller { thread: pid, process: None };
        let attr = self.table.getattr_file(node, caller, None, self.now).expect("the kernel holds it");
        if let Some(inode) = self.inodes.get_mut(&node) {
            inode.size = attr.keep.then_some(attr.size);
        }
        attr.size
    }

    fn number_of(&self, bytes: &[u8]) -> usize {
        let found = self.history.iter().position(|value| value == bytes);
        found.unwrap_or_else(|| panic!("torn: {:?}", String::from_utf8_lossy(bytes)))
    }

    fn cat(&mut self) {
        let answered = self.answered;
        self.pids += 1;
        let pid = self.pids;
        let Some((node, fh)) = self.walk_and_open(pid) else { return };
        let size = self.stat(node, pid);
        let mut read = Vec::new();
        loop {
            let part = self.table.read(fh, pid, read.len() as u64, 7).expect("open");
            if part.is_empty() {
                break;
            }
            read.extend_from_slice(&part);
        }
        let number = self.number_of(&read);
        assert_eq!(size, read.len() as u64, "st_size is what is read");
        assert!(number >= answered, "value {number} read after {answered} was closed");
        self.table.release(fh);
    }

    fn open(&mut self) {
        if self.followers.len() >= 4 {
            return;
        }
        self.pids += 1;
        let Some((node, fh)) = self.walk_and_open(self.pids) else { return };
        self.inodes.entry(node).or_default().open += 1;
        let first = self.table.read(fh, self.pids, 0, 1 << 16).expect("open");
        let opened = self.number_of(&first);
        // The rest is a follower's own: it has read its snapshot.
        self.followers.push(Follower {
            fh,
            node,
            pid: self.pids,
            offset: first.len() as u64,
            opened,
            printed: first.to_vec(),
            told: first.len() as u64,
        });
    }

    fn follower_reads(&mut self, at: u8) {
        let Some(count) = self.followers.len().checked_sub(1) else { return };
        let follower = &mut self.followers[usize::from(at).min(count)];
        let size = usize::from(at) + 3;
        let part = self.table.read(follower.fh, follower.pid, follower.offset, size).expect("open");
        follower.offset += part.len() as u64;
        follower.printed.extend_from_slice(&part);
    }

    fn follower_polls(&mut self, at: u8) {
        let Some(count) = self.followers.len().checked_sub(1) else { return };
        let at = usize::from(at).min(count);
        let (node, pid) = (self.followers[at].node, self.followers[at].pid);
        let size = self.stat(node, pid);
        let follower = &mut self.followers[at];
        assert!(size >= follower.told.min(follower.offset), "a follower is never told that it was cut");
        follower.told = size;
        while follower.offset < size {
            let part = self.table.read(follower.fh, follower.pid, follower.offset, 9).expect("open");
            assert!(!part.is_empty(), "a size that was told can be read");
            follower.offset += part.len() as u64;
            follower.printed.extend_from_slice(&part);
        }
    }

    /// What a follower printed is its value and each later one, once, in order.
    fn check(&self, follower: &Follower, complete: bool) {
        let mut all = Vec::new();
        for value in &self.history[follower.opened..] {
            all.extend_from_slice(value);
        }
        assert!(
            all.starts_with(&follower.printed),
            "printed {:?} of {:?}",
            String::from_utf8_lossy(&follower.printed),
            String::from_utf8_lossy(&all)
        );
        if complete {
            assert_eq!(follower.printed.len(), all.len(), "and all of them");
        }
    }

    fn close(&mut self, at: u8) {
        let Some(count) = self.followers.len().checked_sub(1) else { return };
        let follower = self.followers.remove(usize::from(at).min(count));
        self.check(&follower, false);
        self.table.release(follower.fh);
        if let Some(inode) = self.inodes.get_mut(&follower.node) {
            inode.open -= 1;
        }
    }

    fn shrink(&mut self) {
        self.dentry = None;
        let idle: Vec<NodeId> =
            self.inodes.iter().filter(|(_, inode)| inode.open == 0).map(|(&id, _)| id).collect();
        for id in idle {
            let inode = self.inodes.remove(&id).expect("listed");
            self.table.forget(id, inode.nlookup);
        }
        self.settle();
    }

    fn notifier_tells(&mut self) {
        if self.working.is_some() {
            return;
        }
        let Some(work) = self.table.next_work() else { return };
        if work.drop_name.is_some() {
            self.dentry = None;
        }
        for id in &work.attributes {
            if let Some(inode) = self.inodes.get_mut(id) {
                inode.size = None;
            }
        }
        self.working = Some(work);
    }

    fn notifier_returns(&mut self) {
        if let Some(work) = self.working.take() {
            self.table.work_done(&work);
        }
        self.settle();
    }

    fn run(&mut self, step: &Step) {
        match *step {
            Step::RemotePut(fill) => self.put(fill, false),
            Step::LocalPut(fill) => self.put(fill, true),
            Step::RemoteDelete => {
                if !self.deleted {
                    self.rev += 1;
                    self.deleted = true;
                    self.table.event(&key(), self.rev, None);
                }
            }
            Step::NotifierTells => self.notifier_tells(),
            Step::NotifierReturns => self.notifier_returns(),
            // A program waits, and does its first step then.
            Step::Cat | Step::Open if !self.trusted => {}
            Step::Cat => self.cat(),
            Step::Open => self.open(),
            Step::Doubt => {
                self.trusted = false;
                self.table.set_trusted(false);
            }
            Step::Trust => {
                if !std::mem::replace(&mut self.trusted, true) {
                    self.table.set_trusted(true);
                    self.answered = self.history.len() - 1;
                }
            }
            Step::FollowerReads(at) => self.follower_reads(at),
            Step::FollowerPolls(at) => self.follower_polls(at),
            Step::Close(at) => self.close(at),
            Step::Shrink => self.shrink(),
            Step::Wait(ms) => self.now += Duration::from_millis(ms.into()),
        }
    }

    /// Everything settles: what is to be printed is printed, what is to be seen is seen.
    fn finish(&mut self) {
        self.run(&Step::Trust);
        for _ in 0..4 {
            self.notifier_returns();
            self.notifier_tells();
        }
        self.notifier_returns();
        assert!(self.parked.is_empty(), "every local writer is answered");
        self.now += Duration::from_secs(2);
        for at in 0..self.followers.len() as u8 {
            // One read tells the end, the next polls go on from there.
            self.follower_reads(at);
            for _ in 0..3 {
                self.follower_polls(at);
            }
            self.check(&self.followers[usize::from(at)], true);
        }
        if !self.deleted {
            self.answered = self.history.len() - 1;
            self.cat();
        }
        while !self.followers.is_empty() {
            self.close(0);
        }
        self.shrink();
        assert!(self.table.key_of(super::home_of(&key(), super::Kind::File)).is_none(), "nothing is left");
    }
}

fn check(steps: &[Step]) {
    let mut world = World::new();
    for step in steps {
        world.run(step);
    }
    world.finish();
}

/// Schedules tried by a plain `cargo test`; ETCFS_MODEL_CASES asks for more.
fn cases() -> u32 {
    std::env::var("ETCFS_MODEL_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(2000)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn readers_writers_and_followers_agree_under_every_schedule(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        check(&steps);
    }
}

#[test]
fn a_reader_of_an_old_inode_keeps_its_value_and_size() {
    check(&[
        Step::Open,
        Step::RemotePut(9),
        Step::NotifierTells,
        Step::Cat,
        Step::NotifierReturns,
        Step::Cat,
    ]);
}

#[test]
fn a_program_that_waited_for_the_server_finds_what_is_not_published_yet() {
    check(&[
        Step::Open,
        Step::Doubt,
        Step::RemotePut(3),
        Step::Trust,
        Step::Cat,
        Step::FollowerReads(0),
        Step::NotifierTells,
        Step::NotifierReturns,
        Step::FollowerReads(0),
        Step::Cat,
    ]);
}

#[test]
fn a_follower_prints_a_value_of_the_same_size() {
    check(&[
        Step::Open,
        Step::RemotePut(3),
        Step::NotifierTells,
        Step::NotifierReturns,
        Step::FollowerReads(0),
    ]);
}
