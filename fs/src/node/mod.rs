//! What the kernel knows, and what its open files hold: a pure state machine.
//!
//! [`Table`] says which node number stands for which key or directory, what each
//! open handle reads, and which kernel notifications are due. Nothing here
//! waits, reads a clock or talks to anybody: time comes in as an argument, and
//! what must be said to the kernel goes out as a [`Notice`]. [`Shared`] is the
//! one lock around it, held for a few lines at a time.

mod dir;
mod echo;
mod edits;
mod file;
mod follow;
mod handle;
mod listing;
#[cfg(test)]
mod listing_test;
#[cfg(test)]
mod model_test;
mod repeat;
mod shown;
mod table;
mod unsaved;

use std::time::SystemTime;

use bytes::Bytes;

use crate::remote::KeyValue;

pub(crate) use dir::{Below, DirView};
pub(crate) use echo::{DirStep, FileStep, Flight, Job};
pub(crate) use edits::Edits;
use file::home_of;
pub(crate) use file::{Entry, Known};
pub(crate) use handle::{Moment, OpenedAs};
pub(crate) use listing::{CopyUse, Listing, ListingEntry};
pub(crate) use repeat::{Looked, Place, Repeat};
pub(crate) use table::{HeldNode, Shared, Stats, Table, Trust};

/// A number under which the kernel knows an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct NodeId(pub(crate) u64);

/// The mount point's own number, given by the protocol.
pub(crate) const ROOT: NodeId = NodeId(1);

/// A number under which the kernel knows an open file or directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Fh(pub(crate) u64);

/// A process: the number of its group of threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process(pub(crate) u32);

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller {
    /// A thread; 0 where the kernel names none.
    pub(crate) thread: u32,
    /// `None` where it is not known, or nothing depends on it.
    pub(crate) process: Option<Process>,
}

/// One revision of a key: its bytes and the facts that come with them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Value {
    pub(crate) bytes: Bytes,
    pub(crate) create: i64,
    /// The revision that put it; 0 for a file that only this mount has yet.
    pub(crate) rev: i64,
    pub(crate) version: i64,
    pub(crate) lease: i64,
}

impl From<&KeyValue> for Value {
    fn from(kv: &KeyValue) -> Self {
        Self {
            // A copy: what it was cut out of holds other keys' values, and would stay as long.
            bytes: Bytes::copy_from_slice(&kv.value),
            create: kv.create_revision.0,
            rev: kv.mod_revision.0,
            version: kv.version,
            lease: kv.lease.map_or(0, |lease| lease.0),
        }
    }
}

/// What getattr and lookup say of an inode, before options make a mode of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attr {
    /// st_ino: the key's, not the node's.
    pub(crate) ino: u64,
    pub(crate) kind: Kind,
    pub(crate) size: u64,
    /// The revision whose time is mtime and ctime.
    pub(crate) rev: i64,
    /// When it was last changed, where no revision has that yet.
    pub(crate) unsaved: Option<SystemTime>,
    pub(crate) nlink: u32,
    /// True iff the kernel may keep these attributes.
    pub(crate) keep: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    File,
    Dir,
    Link,
}

/// d_ino of a file.
pub(crate) fn file_ino(key: &[u8]) -> u64 {
    home_of(key, Kind::File).0
}

/// d_ino of a link of the root.
pub(crate) fn link_ino(target: &std::ffi::OsStr) -> u64 {
    home_of(target.as_encoded_bytes(), Kind::Link).0
}
