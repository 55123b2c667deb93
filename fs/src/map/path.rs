//! Paths to keys, one name at a time, and keys to paths.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;
use etcfs_proto::key::{KeyRange, successor};

use super::escape::{RUN_BYTES_MAX, RUN_BYTES_MIN, decode, encode, runs, runs_of_more};
use super::reserved::{self, LOG, MORE, REL, REV, VALUE};
use super::{
    DIR_RECORDS, Dir, Entry, Key, NAME_BYTES_MAX, NameError, OWN_RECORDS, Percent, Rel, RelLink, Reserved,
    Step,
};

/// The map of one mount: its prefix and what was chosen where there is a choice.
#[derive(Clone, Debug)]
pub struct KeyMap {
    prefix: Bytes,
    percent: Percent,
    rel: Rel,
}

/// Why a text names no place that can be mounted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrefixError {
    #[error("`{name}` in the prefix is not the spelling of any key ({reason}); try `{canonical}`")]
    Spelling { name: String, reason: NameError, canonical: String },
    #[error("`{name}` in the prefix is a reserved word, not a directory of keys")]
    Reserved { name: String },
    #[error("the prefix ends in the middle of a component: `%more` must be followed by the rest of the name")]
    Unfinished,
    #[error("keys below `.etcfs/` are the mount's own records and can't be mounted")]
    OwnRecords,
}

impl KeyMap {
    /// `prefix` in raw key bytes; it is a directory, so it is empty or ends in a slash.
    pub fn new(prefix: Bytes, percent: Percent, rel: Rel) -> Self {
        debug_assert!(prefix.is_empty() || prefix.ends_with(b"/"), "a prefix is a directory");
        // Keys without a leading slash lie outside every other prefix.
        let rel = if prefix.as_ref() == b"/" { rel } else { Rel::Off };
        Self { prefix, percent, rel }
    }

    /// The raw prefix that a SOURCE's last part names, in the map's own spelling.
    pub fn parse_prefix(spelling: &str) -> Result<Bytes, PrefixError> {
        let (start, rest) = match spelling.strip_prefix('/') {
            Some(rest) => (Bytes::from_static(b"/"), rest),
            None => (Bytes::new(), spelling),
        };
        let map = Self::new(start, Percent::Strict, Rel::Off);
        let mut dir = map.root();
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        for name in rest.split('/').filter(|_| !rest.is_empty()) {
            dir = match map.step(&dir, OsStr::new(name)) {
                Ok(Step::Entry(entry)) => entry.dir,
                Ok(Step::More(dir)) => dir,
                Ok(Step::Value(_) | Step::Rel(_) | Step::Reserved(_)) => {
                    return Err(PrefixError::Reserved { name: name.to_owned() });
                }
                Err(reason) => {
                    let canonical = encode(name.as_bytes());
                    return Err(PrefixError::Spelling { name: name.to_owned(), reason, canonical });
                }
            };
        }
        if dir.is_more() {
            return Err(PrefixError::Unfinished);
        }
        if dir.at.starts_with(OWN_RECORDS) {
            return Err(PrefixError::OwnRecords);
        }
        Ok(dir.at)
    }

    pub fn prefix(&self) -> &Bytes {
        &self.prefix
    }

    pub fn rel(&self) -> Rel {
        self.rel
    }

    /// The directory at the mount point.
    pub fn root(&self) -> Dir {
        Dir { at: self.prefix.clone(), part: Bytes::new() }
    }

    pub fn is_root(&self, dir: &Dir) -> bool {
        dir.at == self.prefix && !dir.is_more()
    }

    /// `%rel`: the directory of the keys without a leading slash, where this mount has it.
    pub fn rel_dir(&self) -> Option<Dir> {
        (self.rel != Rel::Off).then(|| Dir { at: Bytes::new(), part: Bytes::new() })
    }

    pub fn is_rel(&self, dir: &Dir) -> bool {
        self.rel != Rel::Off && dir.at.is_empty() && !dir.is_more()
    }

    /// What `name` may stand for in `dir`. Says nothing about what exists.
    pub fn step(&self, dir: &Dir, name: &OsStr) -> Result<Step, NameError> {
        if name.len() > NAME_BYTES_MAX {
            return Err(NameError::TooLong);
        }
        let bytes = name.as_bytes();
        if matches!(bytes, b"" | b"." | b"..") || bytes.contains(&b'/') || bytes.contains(&0) {
            return Err(NameError::NotCanonical);
        }
        let canonical = name.to_str().and_then(|text| self.word(dir, text).or_else(|| self.named(dir, text)));
        match canonical {
            Some(step) => Ok(step),
            None if self.percent == Percent::Escape && !dir.is_more() => self.literal(dir, bytes),
            None => Err(NameError::NotCanonical),
        }
    }

    /// A name that is a word and nothing else.
    fn word(&self, dir: &Dir, text: &str) -> Option<Step> {
        match text {
            VALUE => self.value_key(dir).map(Step::Value),
            REL if self.is_root(dir) => self.rel_dir().map(Step::Rel),
            LOG if !dir.is_more() => Some(Step::Reserved(Reserved::Log(dir.clone()))),
            _ if self.is_root(dir) => reserved::of_root(text).map(Step::Reserved),
            _ => None,
        }
    }

    /// A name that spells a component, or its part, or has one of the words at its end.
    fn named(&self, dir: &Dir, text: &str) -> Option<Step> {
        if let Some(run) = text.strip_suffix(MORE) {
            return self.more(dir, run).map(Step::More);
        }
        if let Some(stem) = text.strip_suffix(LOG) {
            return self.entry(dir, stem).map(|entry| Step::Reserved(Reserved::KeyLog(entry.key)));
        }
        if let Some(stem) = text.strip_suffix(REV) {
            return self.entry(dir, stem).map(|entry| Step::Reserved(Reserved::KeyRev(entry.key)));
        }
        self.entry(dir, text).map(Step::Entry)
    }

    fn entry(&self, dir: &Dir, text: &str) -> Option<Entry> {
        let component = [dir.part.as_ref(), &decode(text)?].concat();
        if component.is_empty() && self.is_rel(dir) {
            return None; // `%rel/%empty/a` would be a second path of `/a`.
        }
        let spelling = encode(&component);
        let begun = spelling.len().checked_sub(text.len())?;
        let last = runs(&spelling).last()?;
        let canonical = last.text == text && last.at == begun && (begun == 0) == dir.part.is_empty();
        // `begun` is where a name of this component begins, and `dir.part` was spelled up to there.
        (canonical && (begun == 0 || encode(&dir.part) == spelling[..begun]))
            .then(|| self.found(dir, &component, true))
    }

    fn more(&self, dir: &Dir, run: &str) -> Option<Dir> {
        if !(RUN_BYTES_MIN..=RUN_BYTES_MAX).contains(&run.len()) {
            return None;
        }
        let part = [dir.part.as_ref(), &decode(run)?].concat();
        let spelling = encode(&part);
        let begun = spelling.len().checked_sub(run.len())?;
        let canonical = runs_of_more(&spelling).last()? == begun
            && spelling[begun..] == *run
            && (if begun == 0 { dir.part.is_empty() } else { encode(&dir.part) == spelling[..begun] });
        canonical.then(|| Dir { at: dir.at.clone(), part: part.into() })
    }

    fn literal(&self, dir: &Dir, component: &[u8]) -> Result<Step, NameError> {
        if encode(component).len() > NAME_BYTES_MAX {
            return Err(NameError::TooLong);
        }
        Ok(Step::Entry(self.found(dir, component, false)))
    }

    fn found(&self, dir: &Dir, component: &[u8], canonical: bool) -> Entry {
        let at = Bytes::from([dir.at.as_ref(), component, b"/"].concat());
        Entry { key: Key(at.slice(..at.len() - 1)), dir: Dir { at, part: Bytes::new() }, canonical }
    }

    /// The key that is also this directory, whose value shows as `%value` in it. The root, `%rel` and
    /// `...%more` directories are no key.
    pub fn value_key(&self, dir: &Dir) -> Option<Key> {
        if dir.is_more() || dir.at.len() < 2 || self.is_root(dir) {
            return None;
        }
        Some(Key(dir.at.slice(..dir.at.len() - 1)))
    }

    /// The directory that `key` is if keys lie below it.
    pub fn dir_of(key: &Key) -> Dir {
        Dir { at: [key, b"/".as_ref()].concat().into(), part: Bytes::new() }
    }

    /// Where the keys below `dir` lie. In `%rel` and in `...%more` directories it holds others too, which
    /// [`KeyMap::shown`] tells apart.
    pub fn key_range(&self, dir: &Dir) -> KeyRange {
        KeyRange::prefix(&[dir.at.as_ref(), &dir.part].concat().into())
    }

    /// The record that keeps an empty directory; the root, `%rel` and `...%more` directories need none.
    pub fn record_of(&self, dir: &Dir) -> Option<Key> {
        let needs = !dir.is_more() && !self.is_root(dir) && !self.is_rel(dir);
        needs.then(|| Key([DIR_RECORDS, &dir.at].concat().into()))
    }

    /// Where the records of `dir` and of the directories below it lie.
    pub fn record_range(&self, dir: &Dir) -> KeyRange {
        KeyRange::prefix(&[DIR_RECORDS, &dir.at, &dir.part].concat().into())
    }

    /// Where the records of the directories below `dir` lie, without its own.
    pub fn records_below(&self, dir: &Dir) -> KeyRange {
        let range = self.record_range(dir);
        match self.record_of(dir) {
            Some(record) => KeyRange { start: successor(&record), ..range },
            None => range,
        }
    }

    /// All that a mount has to watch: its keys, and the records of its directories. One range where it shows all
    /// keys, since one range's events arrive as whole revisions by themselves.
    pub fn watch_ranges(&self) -> Vec<KeyRange> {
        let records = Bytes::from([DIR_RECORDS, &self.prefix].concat());
        match (self.prefix.as_ref(), self.rel) {
            (b"", _) | (b"/", Rel::Links | Rel::Dir) => vec![KeyRange::prefix(&Bytes::new())],
            _ => vec![KeyRange::prefix(&self.prefix), KeyRange::prefix(&records)],
        }
    }

    /// True for a key that has a path here, and is none of the mount's own records.
    pub fn shows(&self, key: &[u8]) -> bool {
        (self.rel != Rel::Off || key.starts_with(&self.prefix)) && !self.is_own_record(key)
    }

    /// True for the mount's own records: in no listing, and not to be written by path.
    pub fn is_own_record(&self, key: &[u8]) -> bool {
        key.starts_with(OWN_RECORDS)
    }

    /// The directory that a record keeps, if `record` is one of this mount's.
    pub fn dir_of_record(&self, record: &[u8]) -> Option<Dir> {
        let at = record.strip_prefix(DIR_RECORDS)?;
        let ours = at.ends_with(b"/") && (self.rel != Rel::Off || at.starts_with(&self.prefix));
        ours.then(|| Dir { at: Bytes::copy_from_slice(at), part: Bytes::new() })
    }

    /// The names on the way from the root to `key` as a file; `None` for a key outside the mount.
    pub fn names_of(&self, key: &[u8]) -> Option<Vec<OsString>> {
        let (mut names, rest) = match key.strip_prefix(self.prefix.as_ref()) {
            Some(rest) => (Vec::new(), rest),
            None if self.rel != Rel::Off && !key.is_empty() => (vec![REL.into()], key),
            None => return None,
        };
        for component in rest.split(|&byte| byte == b'/') {
            names.extend(runs(&encode(component)).map(|run| OsString::from(run.name())));
        }
        Some(names)
    }

    /// The path of `key` as a file, from the root on. Where the key is a directory too, its value is in `%value`
    /// below this path.
    pub fn path_of(&self, key: &[u8]) -> Option<PathBuf> {
        Some(self.names_of(key)?.into_iter().collect())
    }

    /// The key whose value the file at `path` is, seen from the root: [`KeyMap::path_of`] backwards, `%value` included.
    ///
    /// # Errors
    /// If no key has this path, in this map's spelling.
    pub fn key_of(&self, path: &Path) -> Result<Key, NameError> {
        let mut names = path.components().filter(|part| *part != Component::CurDir).peekable();
        let mut dir = self.root();
        while let Some(name) = names.next() {
            let step = self.step(&dir, name.as_os_str())?;
            dir = match (step, names.peek()) {
                (Step::Entry(entry), None) => return Ok(entry.key),
                (Step::Value(key), None) => return Ok(key),
                (Step::Entry(entry), Some(_)) => entry.dir,
                (Step::More(dir) | Step::Rel(dir), Some(_)) => dir,
                _ => break,
            };
        }
        Err(NameError::NotCanonical)
    }

    /// The name of `key` as a file, in the directory that holds it.
    pub fn name_of(key: &[u8]) -> OsString {
        let component = key.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
        let spelling = encode(&key[component..]);
        runs(&spelling).last().map(|run| run.name()).unwrap_or_default().into()
    }

    /// The directory that holds `key`'s name, and that name: where a change of the key shows.
    pub fn place_of(&self, key: &[u8]) -> Option<(Dir, OsString)> {
        let name = self.names_of(key)?.pop()?;
        let component = key.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
        let at = Bytes::copy_from_slice(&key[..component]);
        let spelling = encode(&key[component..]);
        let begun = runs(&spelling).last().map_or(0, |run| run.at);
        let part = if begun == 0 { Vec::new() } else { decode(&spelling[..begun])? };
        Some((Dir { at, part: part.into() }, name))
    }

    /// The symbolic link that the root may show under `name`: a first component of keys without a leading slash.
    pub fn rel_link(&self, dir: &Dir, name: &OsStr) -> Option<RelLink> {
        if self.rel != Rel::Links || !self.is_root(dir) {
            return None;
        }
        match self.step(&self.rel_dir()?, name) {
            Ok(Step::Entry(entry)) if entry.canonical => {
                let mut target = format!("{REL}/").into_bytes();
                target.extend_from_slice(name.as_bytes());
                Some(RelLink { target: OsString::from_vec(target), entry })
            }
            _ => None,
        }
    }
}
