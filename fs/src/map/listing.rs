//! What a directory shows, made from the keys and records found below it. Pure.
//!
//! The caller walks the keys of [`KeyMap::key_range`] in order and hands each one to [`Listing::key`], which
//! answers where the next one worth seeing lies: past the whole subtree, once a name is known to be a directory.
//! So a listing costs what its children cost. Keys sort as `a`, `a-b`, `a/x`, `ab`: a name seen as a file may turn
//! into a directory later, and nothing is final before [`Listing::finish`].

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;

use bytes::Bytes;
use etcfs_proto::key::successor;

use super::escape::{decode, encode, runs};
use super::reserved::{REL, VALUE};
use super::{DIR_RECORDS, Dir, Key, KeyMap, OWN_RECORDS, RelLink};

/// How one key shows in one directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown {
    /// Under a name of its own.
    File { name: OsString, key: Key },
    /// As part of a subdirectory, all of whose keys lie before `seek`.
    Dir { name: OsString, dir: Dir, seek: Bytes },
    /// As part of a `...%more` directory. Others of its keys may lie past `seek`.
    More { name: OsString, dir: Dir, seek: Bytes },
    /// Not at all; the next key that may show lies at `seek` or past it.
    Hidden { seek: Bytes },
}

/// One entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Child {
    File(Key),
    /// With the key of the same name, if there is one: its value is `%value` inside.
    Dir {
        dir: Dir,
        own: Option<Key>,
    },
    More(Dir),
    /// `%value`
    Value(Key),
    /// `%rel`
    Rel(Dir),
    Link(RelLink),
}

/// A listing in the making.
#[derive(Debug)]
pub struct Listing<'m> {
    map: &'m KeyMap,
    dir: Dir,
    children: BTreeMap<OsString, Child>,
}

impl KeyMap {
    /// How `key`, of [`KeyMap::key_range`] of `dir`, shows there.
    pub fn shown(&self, dir: &Dir, key: &[u8]) -> Shown {
        if self.is_own_record(key) {
            // Nothing but records begins with `.etcfs/`, and `0` follows the slash.
            return Shown::Hidden { seek: above(&OWN_RECORDS[..OWN_RECORDS.len() - 1]) };
        }
        if self.is_rel(dir) && key.first() == Some(&b'/') {
            return Shown::Hidden { seek: above(b"") };
        }
        let Some(rest) = key.strip_prefix(dir.at.as_ref()) else {
            return Shown::Hidden { seek: successor(key) };
        };
        let slash = rest.iter().position(|&byte| byte == b'/');
        let component = &rest[..slash.unwrap_or(rest.len())];
        let seek =
            if slash.is_some() { above(&key[..dir.at.len() + component.len()]) } else { successor(key) };

        let spelling = encode(component);
        let begun = if dir.is_more() { encode(&dir.part) } else { String::new() };
        let ours = spelling.starts_with(&begun);
        let Some(run) = runs(&spelling).find(|run| ours && run.at == begun.len()) else {
            return Shown::Hidden { seek };
        };
        let name = OsString::from(run.name());
        if !run.last {
            let part = decode(&spelling[..run.at + run.text.len()]).expect("encode spells what decode reads");
            return Shown::More { name, dir: Dir { at: dir.at.clone(), part: part.into() }, seek };
        }
        match slash {
            None => Shown::File { name, key: Key(Bytes::copy_from_slice(key)) },
            Some(slash) => {
                let at = Bytes::copy_from_slice(&key[..=dir.at.len() + slash]);
                Shown::Dir { name, dir: Dir { at, part: Bytes::new() }, seek }
            }
        }
    }
}

/// The first key past all that lie below `name` + `/`: `0` is the byte after the slash.
fn above(name: &[u8]) -> Bytes {
    [name, b"0"].concat().into()
}

impl<'m> Listing<'m> {
    pub fn new(map: &'m KeyMap, dir: Dir) -> Self {
        Self { map, dir, children: BTreeMap::new() }
    }

    /// Takes one key and says from where on to look for the next.
    pub fn key(&mut self, key: &[u8]) -> Bytes {
        match self.map.shown(&self.dir, key) {
            Shown::File { name, key: file } => {
                self.add_file(name, file);
                successor(key)
            }
            Shown::Dir { name, dir, seek } => {
                self.add_dir(name, dir);
                seek
            }
            Shown::More { name, dir, seek } => {
                self.children.insert(name, Child::More(dir));
                seek
            }
            Shown::Hidden { seek } => seek,
        }
    }

    /// The same for a record of [`KeyMap::record_range`]: a directory that may hold nothing.
    pub fn record(&mut self, record: &[u8]) -> Bytes {
        let kept = record.strip_prefix(DIR_RECORDS).filter(|at| at.ends_with(b"/") && *at != self.dir.at);
        let Some(kept) = kept else { return successor(record) };
        let seek = match self.map.shown(&self.dir, kept) {
            Shown::Dir { name, dir, seek } => {
                self.add_dir(name, dir);
                seek
            }
            Shown::More { name, dir, seek } => {
                self.children.insert(name, Child::More(dir));
                seek
            }
            Shown::Hidden { seek } => seek,
            Shown::File { .. } => unreachable!("what ends in a slash is no file's name"),
        };
        [DIR_RECORDS, &seek].concat().into()
    }

    /// Adds `%value`, since the key that is also this directory exists.
    pub fn value(&mut self, key: Key) {
        self.children.insert(VALUE.into(), Child::Value(key));
    }

    /// Adds `%rel` to the root's listing, if it holds anything, and a link for each name in it that is free here;
    /// no link at all where the names are more than `links_max`.
    pub fn rel(&mut self, names: &BTreeSet<OsString>, links_max: usize) {
        let Some(dir) = self.map.rel_dir().filter(|_| self.map.is_root(&self.dir) && !names.is_empty())
        else {
            return;
        };
        self.children.insert(REL.into(), Child::Rel(dir));
        for name in names.iter().filter(|_| names.len() <= links_max) {
            if let Some(link) = self.map.rel_link(&self.dir, name) {
                self.children.entry(name.clone()).or_insert(Child::Link(link));
            }
        }
    }

    /// Entries so far.
    pub fn len(&self) -> usize {
        self.children.len()
    }

    pub fn is_empty(&self) -> bool {
        self.children.is_empty()
    }

    /// All of it, by name.
    pub fn finish(self) -> impl ExactSizeIterator<Item = (OsString, Child)> {
        self.children.into_iter()
    }

    fn add_file(&mut self, name: OsString, file: Key) {
        match self.children.get_mut(&name) {
            Some(Child::Dir { own, .. }) => *own = Some(file),
            _ => drop(self.children.insert(name, Child::File(file))),
        }
    }

    fn add_dir(&mut self, name: OsString, dir: Dir) {
        match self.children.get_mut(&name) {
            Some(Child::Dir { .. }) => {}
            Some(Child::File(file)) => {
                let own = Some(file.clone());
                self.children.insert(name, Child::Dir { dir, own });
            }
            _ => drop(self.children.insert(name, Child::Dir { dir, own: None })),
        }
    }
}
