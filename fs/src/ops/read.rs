//! Opening and reading files.

use bytes::Bytes;

use super::Fs;
use super::virtuals::is_virtual;
use crate::errno::OpError;
use crate::node::{Fh, Kind, Known, NodeId, OpenedAs};

/// How a program opens a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OpenHow {
    pub(crate) write: bool,
    pub(crate) truncate: bool,
    pub(crate) append: bool,
    pub(crate) sync: bool,
}

impl OpenHow {
    pub(crate) fn from_flags(flags: i32) -> Self {
        Self {
            write: flags & libc::O_ACCMODE != libc::O_RDONLY,
            truncate: flags & libc::O_TRUNC != 0,
            append: flags & libc::O_APPEND != 0,
            // O_SYNC includes O_DSYNC's bit.
            sync: flags & libc::O_DSYNC != 0,
        }
    }

    pub(super) fn opened_as(self) -> OpenedAs {
        if self.truncate {
            OpenedAs::Truncated
        } else if self.append {
            OpenedAs::Append
        } else {
            OpenedAs::InPlace
        }
    }
}

impl Fs {
    /// `None` if the server must be asked.
    pub(crate) fn open_now(&self, id: NodeId, pid: u32, how: OpenHow) -> Option<Result<Fh, OpError>> {
        (!is_virtual(id) && self.is_trusted()).then(|| self.open(id, pid, how))
    }

    pub(crate) async fn open_later(&self, id: NodeId, pid: u32, how: OpenHow) -> Result<Fh, OpError> {
        if is_virtual(id) {
            return self.open_virtual(id, how).await;
        }
        self.until_trusted().await?;
        self.open(id, pid, how)
    }

    pub(crate) fn open(&self, id: NodeId, pid: u32, how: OpenHow) -> Result<Fh, OpError> {
        match self.kind_of(id)? {
            Kind::File => {}
            Kind::Dir => return Err(OpError::IsDirectory),
            Kind::Link => return Err(OpError::NotPermitted("a link is followed, not opened")),
        }
        if self.nodes.with(|table| table.is_overdue(id)) {
            // The name has a newer value than the kernel's inode: the kernel walks again, and finds that.
            return Err(OpError::Stale);
        }
        if !how.write && !how.truncate {
            let asker = self.asker(id, pid);
            return self.nodes.with(|table| table.open_reader(id, asker)).ok_or(OpError::Stale);
        }
        let key = self.nodes.with(|table| table.key_of(id)).ok_or(OpError::Stale)?;
        self.writable(&key)?;
        self.check_locks(pid)?;
        let (now, asker) = (self.time_of_unsaved(), Self::writer(pid));
        self.nodes.with(|table| {
            if table.known_rev(&key) == Known::Absent {
                // Gone since the path was walked: the same.
                return Err(OpError::Stale);
            }
            let fh = table.open_writer(id, asker, how.opened_as(), how.append, how.sync, false);
            let fh = fh.ok_or(OpError::Stale)?;
            if how.truncate {
                table.truncate_writer(fh, 0, now);
            }
            Ok(fh)
        })
    }

    pub(crate) fn read(&self, fh: Fh, pid: u32, offset: u64, size: u32) -> Result<Bytes, OpError> {
        if let Some(read) = self.read_virtual(fh, offset, size) {
            return read;
        }
        self.nodes.with(|table| table.read(fh, pid, offset, size as usize)).ok_or(OpError::BadHandle)
    }
}
