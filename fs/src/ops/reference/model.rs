//! What is right, from two flat sets: keys and records of directories.

use std::collections::{BTreeMap, BTreeSet};

use rand::RngExt as _;
use rand::rngs::StdRng;

use super::{Outcome, Step};

/// Names by path, files with their value.
pub(super) type Tree = BTreeMap<String, Option<String>>;

const VALUE: &str = "%value";

/// Names on the way from the root; the last may be `%value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Path(Vec<String>);

impl Path {
    pub(super) fn random(rng: &mut StdRng) -> Self {
        let depth = rng.random_range(1..4);
        let mut names: Vec<String> =
            (0..depth).map(|_| ["a", "b", "c"][rng.random_range(0..3)].to_owned()).collect();
        if depth > 1 && rng.random_range(0..8) == 0 {
            names[depth - 1] = VALUE.to_owned();
        }
        Self(names)
    }

    pub(super) fn parent(&self) -> &[String] {
        &self.0[..self.0.len() - 1]
    }

    pub(super) fn name(&self) -> &str {
        self.0.last().expect("no path is empty")
    }

    fn is_value(&self) -> bool {
        self.name() == VALUE
    }

    /// The key that the path names as a file.
    pub(super) fn key(&self) -> String {
        let names = if self.is_value() { self.parent() } else { &self.0 };
        format!("/{}", names.join("/"))
    }

    /// The key prefix of the directory that holds it.
    fn outer(&self) -> String {
        prefix(self.parent())
    }

    /// The key prefix of the directory that it names.
    fn inner(&self) -> String {
        prefix(&self.0)
    }
}

fn prefix(names: &[String]) -> String {
    names.iter().fold("/".to_owned(), |prefix, name| prefix + name + "/")
}

/// What a path is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    File,
    Dir,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    pub(super) keys: BTreeMap<String, String>,
    /// By the directory's key with its trailing slash.
    pub(super) records: BTreeSet<String>,
}

impl Model {
    fn is_dir(&self, prefix: &str) -> bool {
        prefix == "/"
            || self.keys.keys().any(|key| key.starts_with(prefix))
            || self.records.iter().any(|record| record.starts_with(prefix))
    }

    fn find(&self, path: &Path) -> Result<Found, i32> {
        for depth in 1..path.0.len() {
            let names = &path.0[..depth];
            if !self.is_dir(&prefix(names)) {
                let is_file = self.keys.contains_key(&format!("/{}", names.join("/")));
                return Err(if is_file { libc::ENOTDIR } else { libc::ENOENT });
            }
        }
        let is_file = self.keys.contains_key(&path.key());
        Ok(match (path.is_value(), is_file) {
            (false, _) if self.is_dir(&path.inner()) => Found::Dir,
            (_, true) => Found::File,
            (_, false) => Found::Nothing,
        })
    }

    /// A directory that holds nothing any more stays, by a record.
    fn keep(&mut self, prefix: String) {
        if !self.is_dir(&prefix) {
            self.records.insert(prefix);
        }
    }

    pub(super) fn apply(&mut self, step: &Step) -> Outcome {
        match step {
            Step::Write(path, text) => self.put(path, |_| text.clone()),
            Step::Append(path, text) => self.put(path, |old| old + text),
            Step::CreateNew(path) => match self.find(path)? {
                Found::Nothing => self.put(path, |old| old),
                Found::File | Found::Dir => Err(libc::EEXIST),
            },
            Step::Truncate(path, len) => match self.find(path)? {
                Found::Nothing => Err(libc::ENOENT),
                Found::Dir => Err(libc::EISDIR),
                Found::File => self.put(path, |old| {
                    let mut bytes = old.into_bytes();
                    bytes.resize(*len as usize, 0);
                    String::from_utf8(bytes).expect("texts are ASCII")
                }),
            },
            Step::Mkdir(path) => match self.find(path)? {
                Found::Nothing if path.is_value() => Err(libc::EPERM),
                Found::Nothing => {
                    self.records.insert(path.inner());
                    Ok(())
                }
                Found::File | Found::Dir => Err(libc::EEXIST),
            },
            Step::Rmdir(path) => match self.find(path)? {
                Found::Nothing => Err(libc::ENOENT),
                Found::File => Err(libc::ENOTDIR),
                Found::Dir => self.remove_dir(path),
            },
            Step::Unlink(path) => match self.find(path)? {
                Found::Nothing => Err(libc::ENOENT),
                Found::Dir => Err(libc::EISDIR),
                Found::File => {
                    self.keys.remove(&path.key());
                    self.keep(path.outer());
                    Ok(())
                }
            },
            Step::Rename(from, to) => self.rename(from, to),
            Step::Exchange(from, to) => self.exchange(from, to),
            Step::RemotePut(key, text) => {
                self.keys.insert(key.clone(), text.clone());
                Ok(())
            }
            Step::RemoteDelete(key) => {
                self.keys.remove(key);
                Ok(())
            }
        }
    }

    fn put(&mut self, path: &Path, change: impl FnOnce(String) -> String) -> Outcome {
        if self.find(path)? == Found::Dir {
            return Err(libc::EISDIR);
        }
        let old = self.keys.remove(&path.key()).unwrap_or_default();
        self.keys.insert(path.key(), change(old));
        Ok(())
    }

    fn is_empty(&self, path: &Path) -> bool {
        let inner = path.inner();
        !self.keys.contains_key(&path.key())
            && !self.keys.keys().any(|key| key.starts_with(&inner))
            && !self.records.iter().any(|record| record.starts_with(&inner) && *record != inner)
    }

    fn remove_dir(&mut self, path: &Path) -> Outcome {
        if !self.is_empty(path) {
            return Err(libc::ENOTEMPTY);
        }
        self.records.remove(&path.inner());
        self.keep(path.outer());
        Ok(())
    }

    fn ends(&self, from: &Path, to: &Path) -> Result<(Found, Found), i32> {
        // As the kernel walks: both parents, then both names.
        for path in [from, to] {
            self.find(path)?;
        }
        let (source, target) = (self.find(from)?, self.find(to)?);
        if source == Found::Nothing { Err(libc::ENOENT) } else { Ok((source, target)) }
    }

    fn rename(&mut self, from: &Path, to: &Path) -> Outcome {
        match self.ends(from, to)? {
            (Found::File, Found::Dir) => Err(libc::EISDIR),
            (Found::File, _) => {
                if let Some(value) = self.keys.remove(&from.key()) {
                    self.keys.insert(to.key(), value);
                }
                self.keep(from.outer());
                Ok(())
            }
            (Found::Dir, Found::File) => Err(libc::ENOTDIR),
            (Found::Dir, _) if to.is_value() => Err(libc::ENOTDIR),
            (Found::Dir, _) if from == to => Ok(()),
            (Found::Dir, _) if to.inner().starts_with(&from.inner()) => Err(libc::EINVAL),
            (Found::Dir, Found::Dir) if !self.is_empty(to) => Err(libc::ENOTEMPTY),
            (Found::Dir, _) => {
                self.move_dir(from, to);
                Ok(())
            }
            (Found::Nothing, _) => Err(libc::ENOENT),
        }
    }

    fn move_dir(&mut self, from: &Path, to: &Path) {
        let (old, new) = (from.inner(), to.inner());
        self.records.remove(&new);
        let moved = |name: &String| name.strip_prefix(&old).map(|rest| format!("{new}{rest}"));
        let keys = std::mem::take(&mut self.keys);
        self.keys = keys.into_iter().map(|(key, value)| (moved(&key).unwrap_or(key), value)).collect();
        let records = std::mem::take(&mut self.records);
        self.records = records.into_iter().map(|record| moved(&record).unwrap_or(record)).collect();
        if let Some(value) = self.keys.remove(&from.key()) {
            self.keys.insert(to.key(), value);
        }
        self.keep(from.outer());
    }

    fn exchange(&mut self, from: &Path, to: &Path) -> Outcome {
        match self.ends(from, to)? {
            (_, Found::Nothing) => Err(libc::ENOENT),
            (Found::File, Found::File) => {
                let (one, two) = (self.keys[&from.key()].clone(), self.keys[&to.key()].clone());
                self.keys.insert(from.key(), two);
                self.keys.insert(to.key(), one);
                Ok(())
            }
            _ => Err(libc::EXDEV),
        }
    }

    /// All that a mount shows.
    pub(super) fn tree(&self) -> Tree {
        let mut tree = Tree::new();
        let all = self.keys.keys().chain(&self.records);
        for name in all {
            let slashes = name.match_indices('/').map(|(at, _)| at).skip(1);
            tree.extend(slashes.map(|at| (name[1..at].to_owned(), None)));
        }
        for (key, value) in &self.keys {
            let path = &key[1..];
            let path = if tree.contains_key(path) { format!("{path}/{VALUE}") } else { path.to_owned() };
            tree.insert(path, Some(value.clone()));
        }
        tree
    }
}
