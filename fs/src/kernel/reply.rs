//! What the kernel is answered: attributes, names, errnos, and for how long it may keep them.

use std::time::Duration;

use fuser::{
    FileAttr, FileType, FopenFlags, Generation, INodeNo, ReplyAttr, ReplyEmpty, ReplyEntry, ReplyXattr,
    TimeOrNow,
};

use crate::errno::{Errno, OpError};
use crate::lock::Mode;
use crate::node::{Attr, CopyUse, Entry, Kind, NodeId};
use crate::ops::{Fs, SetTime, is_virtual};

/// How long the kernel may believe what it is told to keep; the notifier corrects it
/// long before.
const KEEP: Duration = Duration::from_secs(60);

/// A directory's attributes: its time moves with every change below it, and nothing is
/// decided by it.
const KEEP_DIR: Duration = Duration::from_secs(1);

pub(super) const FORGET: Duration = Duration::ZERO;

pub(super) const GENERATION: Generation = Generation(0);

/// What is no key can't be written.
const READ_ONLY: u16 = 0o555;

pub(super) fn errno(error: &OpError) -> fuser::Errno {
    let Errno(number) = Errno::from(error);
    fuser::Errno::from_i32(number)
}

pub(super) fn file_attr(fs: &Fs, node: NodeId, attr: &Attr) -> FileAttr {
    let time = attr.unsaved.unwrap_or_else(|| fs.time_of(attr.rev));
    let (kind, perm) = match attr.kind {
        Kind::File => (FileType::RegularFile, fs.view.file_mode),
        Kind::Dir => (FileType::Directory, fs.view.dir_mode),
        Kind::Link => (FileType::Symlink, 0o777),
    };
    let perm = if is_virtual(NodeId(attr.ino)) { perm & READ_ONLY } else { perm };
    FileAttr {
        ino: INodeNo(node.0),
        size: attr.size,
        blocks: attr.size.div_ceil(512),
        atime: time,
        mtime: time,
        ctime: time,
        crtime: time,
        kind,
        perm,
        nlink: attr.nlink,
        uid: fs.view.uid,
        gid: fs.view.gid,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

pub(super) fn attr_ttl(attr: &Attr) -> Duration {
    match attr.kind {
        Kind::Dir | Kind::Link => KEEP_DIR,
        Kind::File if attr.keep => KEEP,
        Kind::File => FORGET,
    }
}

pub(super) fn reply_entry(fs: &Fs, reply: ReplyEntry, found: Result<Entry, OpError>) {
    match found {
        Ok(entry) => {
            let keep = if entry.keep && !fs.view.strict { KEEP } else { FORGET };
            // The number in an entry is the node's; stat shows the key's, by getattr.
            let attr = file_attr(fs, entry.node, &entry.attr);
            reply.entry_with_ttls(&attr_ttl(&entry.attr), &keep, &attr, GENERATION);
        }
        Err(error) => reply.error(errno(&error)),
    }
}

pub(super) fn reply_attr(fs: &Fs, reply: ReplyAttr, found: Result<Attr, OpError>) {
    match found {
        Ok(attr) => reply.attr(&attr_ttl(&attr), &file_attr(fs, NodeId(attr.ino), &attr)),
        Err(error) => reply.error(errno(&error)),
    }
}

pub(super) fn reply_empty(reply: ReplyEmpty, done: Result<(), OpError>) {
    match done {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(errno(&error)),
    }
}

pub(super) fn reply_xattr(reply: ReplyXattr, size: u32, found: Result<Vec<u8>, OpError>) {
    match found {
        Ok(value) if size == 0 => reply.size(value.len() as u32),
        Ok(value) if value.len() > size as usize => reply.error(errno(&OpError::ShortBuffer)),
        Ok(value) => reply.data(&value),
        Err(error) => reply.error(errno(&error)),
    }
}

pub(super) fn listing_flags(copy: CopyUse) -> FopenFlags {
    match copy {
        CopyUse::Leaves => FopenFlags::FOPEN_KEEP_CACHE,
        CopyUse::Makes => FopenFlags::FOPEN_CACHE_DIR,
        CopyUse::Reads => FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE,
    }
}

pub(super) fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::File => FileType::RegularFile,
        Kind::Dir => FileType::Directory,
        Kind::Link => FileType::Symlink,
    }
}

/// `None` unlocks.
pub(super) fn lock_mode(typ: i32) -> Option<Mode> {
    match typ {
        libc::F_RDLCK => Some(Mode::Shared),
        libc::F_WRLCK => Some(Mode::Exclusive),
        _ => None,
    }
}

pub(super) fn set_time(time: TimeOrNow) -> SetTime {
    match time {
        TimeOrNow::Now => SetTime::Now,
        TimeOrNow::SpecificTime(time) => SetTime::To(time),
    }
}
