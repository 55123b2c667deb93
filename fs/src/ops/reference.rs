//! Random sequences of operations, by two mounts and by others behind their backs, against a model.
//!
//! The model is two flat sets, keys and directories' records; what each mount must show is derived from them. After
//! every step the store holds what the model does, and after many of them each mount lists and reads its whole tree.
//! A sequence comes from its seed alone: a failure names it, and `ETCFS_TEST_SEED` runs that one again.
//! `ETCFS_TEST_SEQUENCES` says how many there are. What open files of several processes show between saves is
//! tried in [`handles`].

mod handles;
mod model;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use self::model::{Model, Path, Tree};
use super::test_mount::{mount, mount_with, publish, tell};
use super::{Fs, RenameHow, SetAttr};
use crate::config::View;
use crate::errno::{Errno, OpError};
use crate::map::{DIR_RECORDS, OWN_RECORDS, Rel};
use crate::node::{Kind, Moment, NodeId, ROOT};
use crate::remote::memory::Memory;

/// Steps of one sequence.
const STEPS: usize = 24;

/// What is done, by which mount or by nobody's.
#[derive(Clone, Debug)]
enum Step {
    Write(Path, String),
    Append(Path, String),
    CreateNew(Path),
    Truncate(Path, u64),
    Mkdir(Path),
    Rmdir(Path),
    Unlink(Path),
    Rename(Path, Path),
    Exchange(Path, Path),
    RemotePut(String, String),
    RemoteDelete(String),
}

type Outcome = Result<(), i32>;

fn step(rng: &mut StdRng) -> Step {
    let text = |rng: &mut StdRng| "x".repeat(rng.random_range(0..5)) + &rng.random_range(0..100).to_string();
    match rng.random_range(0..22) {
        0..4 => Step::Write(Path::random(rng), text(rng)),
        4..6 => Step::Append(Path::random(rng), text(rng)),
        6 => Step::CreateNew(Path::random(rng)),
        7 => Step::Truncate(Path::random(rng), rng.random_range(0..8)),
        8..10 => Step::Mkdir(Path::random(rng)),
        10..12 => Step::Rmdir(Path::random(rng)),
        12..14 => Step::Unlink(Path::random(rng)),
        14..17 => Step::Rename(Path::random(rng), Path::random(rng)),
        17 => Step::Exchange(Path::random(rng), Path::random(rng)),
        18..20 => Step::RemotePut(Path::random(rng).key(), text(rng)),
        _ => Step::RemoteDelete(Path::random(rng).key()),
    }
}

/// A program on one mount, with a kernel that remembers no name.
struct Program<'f> {
    fs: &'f Arc<Fs>,
}

impl Program<'_> {
    async fn walk(&self, names: &[String]) -> Result<(NodeId, Kind), OpError> {
        let (mut at, mut kind) = (ROOT, Kind::Dir);
        for name in names {
            let found = self.fs.lookup(at, OsStr::new(name)).await;
            self.fs.forget(at, 1);
            let found = found?;
            (at, kind) = (found.node, found.attr.kind);
        }
        Ok((at, kind))
    }

    async fn parent(&self, path: &Path) -> Result<NodeId, OpError> {
        let (node, kind) = self.walk(path.parent()).await?;
        if kind == Kind::Dir { Ok(node) } else { Err(OpError::NotDirectory) }
    }

    async fn find(&self, path: &Path) -> Result<Option<(NodeId, Kind)>, OpError> {
        let parent = self.parent(path).await?;
        let found = self.fs.lookup(parent, OsStr::new(path.name())).await;
        self.fs.forget(parent, 1);
        match found {
            Ok(entry) => Ok(Some((entry.node, entry.attr.kind))),
            Err(OpError::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn write(&self, path: &Path, text: &str, flags: i32) -> Result<(), OpError> {
        let flags = flags | libc::O_WRONLY | libc::O_CREAT;
        let found = if flags & libc::O_EXCL == 0 { self.find(path).await? } else { None };
        let (node, fh) = match found {
            Some((_, Kind::Dir)) => return Err(OpError::IsDirectory),
            Some((node, _)) => (node, self.fs.open(node, 1, Fs::open_how(flags))?),
            None => {
                let parent = self.parent(path).await?;
                let created = self.fs.create(parent, OsStr::new(path.name()), 1, flags).await;
                self.fs.forget(parent, 1);
                let created = created?;
                (created.entry.node, created.fh)
            }
        };
        if !text.is_empty() {
            let offset = if flags & libc::O_APPEND != 0 { 0 } else { text.len() as u64 / 2 };
            let (head, tail) = text.split_at(offset as usize);
            for (at, part) in [(0, head), (offset, tail)].into_iter().filter(|(_, part)| !part.is_empty()) {
                match self.fs.write_now(fh, 1, at, part.as_bytes()) {
                    Some(done) => done?,
                    None => self.fs.write(fh, 1, at, part.to_owned().into()).await?,
                }
            }
        }
        self.fs.flush(fh, Moment::Flush).await?;
        self.fs.clone().release(node, fh, None).await;
        self.fs.forget(node, 1);
        Ok(())
    }

    async fn run(&self, step: &Step) -> Result<(), OpError> {
        let fs = self.fs;
        match step {
            Step::Write(path, text) => self.write(path, text, libc::O_TRUNC).await,
            Step::Append(path, text) => self.write(path, text, libc::O_APPEND).await,
            Step::CreateNew(path) => self.write(path, "", libc::O_EXCL).await,
            Step::Truncate(path, len) => {
                let (node, _) = self.find(path).await?.ok_or(OpError::NotFound)?;
                let set = SetAttr { size: Some(*len), ..SetAttr::default() };
                let done = fs.setattr(node, 1, None, set).await;
                fs.forget(node, 1);
                done.map(drop)
            }
            Step::Mkdir(path) => {
                if self.find(path).await?.is_some() {
                    return Err(OpError::Exists);
                }
                let parent = self.parent(path).await?;
                let made = fs.make_dir(parent, OsStr::new(path.name())).await?;
                fs.forget(made.node, 1);
                fs.forget(parent, 1);
                Ok(())
            }
            Step::Rmdir(path) => {
                let parent = self.parent(path).await?;
                fs.remove_dir(parent, OsStr::new(path.name())).await
            }
            Step::Unlink(path) => {
                let parent = self.parent(path).await?;
                fs.unlink(parent, OsStr::new(path.name())).await
            }
            Step::Rename(from, to) => self.rename(from, to, RenameHow::Replace).await,
            Step::Exchange(from, to) => self.rename(from, to, RenameHow::Exchange).await,
            Step::RemotePut(..) | Step::RemoteDelete(_) => Ok(()),
        }
    }

    async fn rename(&self, from: &Path, to: &Path, how: RenameHow) -> Result<(), OpError> {
        let (source, target) = (self.parent(from).await?, self.parent(to).await?);
        let (one, two) = (self.find(from).await?, self.find(to).await?);
        if one.is_none() || how == RenameHow::Exchange && two.is_none() {
            return Err(OpError::NotFound);
        }
        let names = (OsStr::new(from.name()), OsStr::new(to.name()));
        let done = self.fs.rename((source, names.0), (target, names.1), how).await;
        for (node, _) in one.into_iter().chain(two) {
            self.fs.forget(node, 1);
        }
        self.fs.forget(source, 1);
        self.fs.forget(target, 1);
        done
    }

    /// All that can be reached by listing, with what is read there.
    async fn tree(&self) -> Tree {
        let mut tree = BTreeMap::new();
        let mut todo = vec![(ROOT, String::new())];
        while let Some((dir, path)) = todo.pop() {
            let open = self.fs.open_dir(dir).expect("a directory opens").0;
            let listing = self.fs.listing(open, 0).await.expect("a directory lists");
            self.fs.release_dir(open);
            for entry in listing.from(0) {
                let found = self.fs.lookup(dir, entry.name).await.expect("what is listed is there");
                assert_eq!(found.attr.kind, entry.kind, "{path}{:?}", entry.name);
                let path = format!("{path}{}", entry.name.to_string_lossy());
                if entry.kind == Kind::Dir {
                    todo.push((found.node, format!("{path}/")));
                    tree.insert(path, None);
                    continue;
                }
                let fh = self.fs.open(found.node, 1, Fs::open_how(libc::O_RDONLY)).expect("a file opens");
                let bytes = self.fs.read(fh, 1, 0, 1 << 20).expect("a file is read");
                assert_eq!(found.attr.size, bytes.len() as u64, "{path}");
                self.fs.release_now(fh);
                self.fs.forget(found.node, 1);
                tree.insert(path, Some(String::from_utf8_lossy(&bytes).into_owned()));
            }
            self.fs.forget(dir, 1);
        }
        tree
    }
}

async fn sequence(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let memory = Memory::new();
    if seed % 2 == 1 {
        memory.be_plain();
    }
    let mut mounts = Vec::new();
    for _ in 0..2 {
        mounts.push(mount_with(&memory, "/", Rel::Off, View::default()).await);
    }
    let mut model = Model::default();
    let mut done: Vec<(usize, Step, Outcome)> = Vec::new();
    for _ in 0..STEPS {
        let (who, step) = (rng.random_range(0..mounts.len()), step(&mut rng));
        let wanted = model.apply(&step);
        match &step {
            Step::RemotePut(key, text) => drop(memory.put(key, text)),
            Step::RemoteDelete(key) => drop(memory.delete(key)),
            _ => {}
        }
        let fs = mounts[who].clone();
        let (operation, published) = (Program { fs: &fs }, publish(&mounts));
        let outcome = tokio::select! {
            outcome = operation.run(&step) => outcome,
            () = published => unreachable!("it never ends"),
        };
        let outcome = outcome.map_err(|error| Errno::from(&error).0);
        done.push((who, step, outcome));
        assert_eq!(outcome, wanted, "seed {seed}: {done:#?}");
        while mounts.iter().any(|fs| fs.nodes.with(|table| table.stats().seen) < memory.revision().0) {
            tokio::task::yield_now().await;
        }
        mounts.iter().for_each(|fs| tell(fs));
        let dump = memory.dump();
        let (records, keys): (Vec<_>, Vec<_>) =
            dump.iter().partition(|(key, _)| key.starts_with(OWN_RECORDS));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let keys: BTreeMap<String, String> =
            keys.iter().map(|(key, value)| (text(key), text(value))).collect();
        assert_eq!(keys, model.keys, "seed {seed}: {done:#?}");
        let record = |key: &[u8]| text(key.strip_prefix(DIR_RECORDS).expect("there are no other records"));
        let records: Vec<String> = records.iter().map(|(key, _)| record(key)).collect();
        assert!(records.iter().eq(&model.records), "seed {seed}: {records:?} {:?} {done:#?}", model.records);
        // Between two looks around they go by what they were told, of these names or of others.
        if done.len() < STEPS && rng.random_bool(0.5) {
            continue;
        }
        for fs in &mounts {
            let tree = Program { fs }.tree().await;
            assert_eq!(tree, model.tree(), "seed {seed}: {done:#?}");
        }
    }
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// Each with a runtime of its own, so that what watches a store ends with it.
fn alone(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime without threads").block_on(test);
}

fn each_seed<F: Future<Output = ()>>(sequence: impl Fn(u64) -> F) {
    if let Some(seed) = setting("ETCFS_TEST_SEED") {
        return alone(sequence(seed));
    }
    for seed in 0..setting("ETCFS_TEST_SEQUENCES").unwrap_or(10_000) {
        alone(sequence(seed));
    }
}

#[test]
fn random_sequences_do_what_the_model_does() {
    each_seed(sequence);
}

#[test]
fn random_sequences_through_open_files_show_what_the_model_does() {
    each_seed(handles::sequence);
}

async fn rename(fs: &Fs, from: (NodeId, &str), to: (NodeId, &str)) -> Result<(), OpError> {
    fs.rename((from.0, OsStr::new(from.1)), (to.0, OsStr::new(to.1)), RenameHow::Replace).await
}

/// Removing the last child through a mount records the directory: also when it becomes the directory's own value.
#[tokio::test]
async fn a_last_child_renamed_onto_its_directorys_value_leaves_the_directory() {
    let memory = Memory::new();
    memory.put("/a/b", "v");
    let fs = mount(&memory).await;
    let dir = fs.lookup(ROOT, OsStr::new("a")).await.unwrap().node;
    rename(&fs, (dir, "b"), (dir, "%value")).await.unwrap();
    assert_eq!(memory.value("/a").unwrap(), "v");
    assert!(memory.value(".etcfs/dir//a/").is_some(), "{:?}", memory.dump());
}

/// The value of the directory that leaves is no child that stays.
#[tokio::test]
async fn a_directory_stays_when_its_only_one_moves_away_with_its_value() {
    let memory = Memory::new();
    memory.put("/a/b", "own");
    memory.put("/a/b/c", "v");
    let fs = mount(&memory).await;
    let dir = fs.lookup(ROOT, OsStr::new("a")).await.unwrap().node;
    rename(&fs, (dir, "b"), (ROOT, "d")).await.unwrap();
    assert_eq!(memory.value("/d").unwrap(), "own");
    assert!(memory.value(".etcfs/dir//a/").is_some(), "{:?}", memory.dump());
}

#[tokio::test]
async fn a_directory_is_not_renamed_onto_one_that_has_a_value() {
    let memory = Memory::new();
    memory.put("/a/b", "v");
    memory.put("/c", "own");
    memory.put(".etcfs/dir//c/", "");
    let fs = mount(&memory).await;
    let done = rename(&fs, (ROOT, "a"), (ROOT, "c")).await;
    assert!(matches!(done, Err(OpError::NotEmpty)), "{done:?}");
    assert_eq!(memory.value("/c").unwrap(), "own");
}

/// What comes into the old place, or into the new one, while a directory moves, came before it or after it.
#[tokio::test]
async fn a_directory_moves_whole_whatever_comes_meanwhile() {
    for late in ["/d/late", "/e/late"] {
        for polls in 0..80 {
            let memory = Memory::new();
            memory.put("/d/a", "v");
            let fs = mount(&memory).await;
            let mut moving = Box::pin(rename(&fs, (ROOT, "d"), (ROOT, "e")));
            let mut done = None;
            for _ in 0..polls {
                if let std::task::Poll::Ready(outcome) = futures_util::poll!(&mut moving) {
                    done = Some(outcome);
                    break;
                }
            }
            let put = memory.put(late, "late");
            let done = match done {
                Some(done) => done,
                None => moving.await,
            };
            let moved = memory.key_value("/e/a").map(|kv| kv.create_revision);
            assert_eq!(moved.is_some(), done.is_ok(), "{done:?}");
            assert_eq!(memory.value("/d/a").is_none(), done.is_ok(), "all of it or nothing");
            if let Some(moved) = moved
                && memory.value(late).is_some()
            {
                // A key of the old place that came first was to move too, one of the new to prevent it.
                let with_it = late == "/e/late" && memory.key_value(late).unwrap().create_revision == moved;
                assert!(put > moved || with_it, "{late} after {polls} polls");
            }
        }
    }
}
