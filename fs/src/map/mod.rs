//! The key map: which path is which key, and the reverse. Pure: no server, no clock, no file system.
//!
//! Static and reversible: `KEY = PREFIX c1 "/" c2 "/" ... cn  <->  MOUNT/n1/n2/.../nn`. Every key below the prefix
//! has exactly one path, every path that [`KeyMap::step`] accepts names exactly one key, and neither depends on
//! which other keys exist. A component is spelled by `escape`, and over 255 bytes cut into names that end in
//! `%more`. What stands after `%` and is no escape is a word of `reserved`, so nothing virtual hides a key.
//!
//! Worked example, mounted at `/`:
//!
//! | key          | path                | why                                          |
//! |--------------|---------------------|----------------------------------------------|
//! | `/a/b`       | `a/b`               |                                              |
//! | `/a//b`      | `a/%empty/b`        | the component between the slashes is empty   |
//! | `/a` + NUL   | `a%00`              | what no name may hold, or no eye can see     |
//! | `/%41`       | `%2541`             | so that `%41` (not canonical) is no name     |
//! | `name`       | `%rel/name`         | a key without the leading slash              |
//!
//! A key that also has keys below it shows as a directory, with its own value inside as `%value`: `step` gives
//! both readings of a name (as a file, as a directory) and leaves it to the caller which of them exists.

mod escape;
mod listing;
mod path;
mod reserved;
pub mod rights;

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::fmt;
use std::ops::Deref;

use bytes::Bytes;

pub use listing::{Child, Listing, Shown};
pub use path::{KeyMap, PrefixError};
pub use reserved::Reserved;

/// Longest name that a directory entry may have, in bytes (the kernel's NAME_MAX).
pub const NAME_BYTES_MAX: usize = 255;

/// What the mount itself keeps in the key space lies below this key.
pub const OWN_RECORDS: &[u8] = b".etcfs/";

/// Records of directories: this, then the directory's key with its trailing slash.
pub const DIR_RECORDS: &[u8] = b".etcfs/dir/";

/// A key of the server's key space, whole and as it is there.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(Bytes);

impl Key {
    /// The key's bytes as a handle on the same memory.
    pub fn bytes(&self) -> Bytes {
        self.0.clone()
    }
}

impl From<Bytes> for Key {
    fn from(bytes: Bytes) -> Self {
        Self(bytes)
    }
}

impl From<&'static str> for Key {
    fn from(text: &'static str) -> Self {
        Self(Bytes::from_static(text.as_bytes()))
    }
}

impl Deref for Key {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

/// A directory's place in the key space, whether or not the directory exists.
///
/// `at` is the key prefix below which its entries lie, with the trailing slash. Inside a `...%more` directory,
/// `part` holds what has been spelled of the component so far; elsewhere it is empty.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Dir {
    at: Bytes,
    part: Bytes,
}

impl Dir {
    /// The raw prefix of all keys below it; none in a `...%more` directory, which shares it with its siblings.
    pub fn prefix(&self) -> Option<&Bytes> {
        (!self.is_more()).then_some(&self.at)
    }

    /// True inside a `...%more` directory: it always looks up, has no record, no `%value`, can't be removed.
    pub fn is_more(&self) -> bool {
        !self.part.is_empty()
    }

    /// Where it is once `from` has become `to`; `None` unless it is `from` or lies in it.
    pub fn moved(&self, from: &Self, to: &Self) -> Option<Self> {
        let rest = self.at.strip_prefix(from.at.as_ref())?;
        Some(Self { at: [to.at.as_ref(), rest].concat().into(), part: self.part.clone() })
    }
}

/// What a name in a directory may stand for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// An ordinary name.
    Entry(Entry),
    /// `%value`: the value of the key that is also this directory.
    Value(Key),
    /// `...%more`: the first part of a component too long for one name.
    More(Dir),
    /// `%rel`: the keys without a leading slash.
    Rel(Dir),
    /// Found by lookup only, listed nowhere.
    Reserved(Reserved),
}

/// One name, in both of its readings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key that it is as a file (or whose value is `%value` in it).
    pub key: Key,
    /// The directory that it is if keys lie below it.
    pub dir: Dir,
    /// False for a second spelling, which only `percent=escape` lets through: not to be cached by the kernel,
    /// since invalidations name the canonical spelling.
    pub canonical: bool,
}

/// A first component of keys without a leading slash, as the root shows it: a symbolic link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelLink {
    /// Where it points, relative to the root: `%rel/NAME`.
    pub target: OsString,
    /// The bare key of that name, and the directory of bare keys below it: the link is there if one of them is,
    /// and nothing of the root's own has the name.
    pub entry: Entry,
}

/// What to do with a name that is not canonical, such as `50%off`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Percent {
    /// There is no such name: ENOENT on lookup, EINVAL on create.
    #[default]
    Strict,
    /// Take it byte by byte: `50%off` is the key component `50%off`, listed as `50%25off`.
    Escape,
}

/// How keys without a leading slash show in a mount of `/`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rel {
    /// In `%rel`, and by a symbolic link in the root for each first component.
    #[default]
    Links,
    /// In `%rel` only.
    Dir,
    /// Not at all.
    Off,
}

/// Why a name is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// No key has this spelling.
    #[error("not the spelling of any key")]
    NotCanonical,
    /// Longer than a name can be.
    #[error("name is longer than {NAME_BYTES_MAX} bytes")]
    TooLong,
}
