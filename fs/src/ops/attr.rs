//! Attributes: what stat shows, and the little of it that can be set.
//!
//! Mode and owner come from the mount's options, times from revisions. A change to
//! what is already so succeeds; what cannot be kept is refused, or ignored with
//! `quiet`, but never taken and forgotten.

use std::time::{Instant, SystemTime};

use bytes::Bytes;

use super::Fs;
use super::virtuals::is_virtual;
use crate::errno::OpError;
use crate::node::{Attr, Edits, Fh, Kind, Known, Moment, NodeId, Table};

/// A time that a program wants set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SetTime {
    Now,
    To(SystemTime),
}

/// What a program wants changed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SetAttr {
    pub(crate) mode: Option<u32>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    pub(crate) size: Option<u64>,
    pub(crate) atime: Option<SetTime>,
    pub(crate) mtime: Option<SetTime>,
}

impl Fs {
    pub(crate) fn getattr(&self, id: NodeId, pid: u32, fh: Option<Fh>) -> Result<Attr, OpError> {
        if is_virtual(id) {
            return self.virtual_attr(id);
        }
        if self.is_helper(pid) && self.kind_of(id)? == Kind::File {
            return self.nodes.with(|table| table.own_attr(id)).ok_or(OpError::Stale);
        }
        let asker = self.asker(id, pid);
        self.nodes.with(|table| match table.kind(id).ok_or(OpError::Stale)? {
            Kind::File => table.getattr_file(id, asker, fh, Instant::now()).ok_or(OpError::Stale),
            Kind::Dir => Ok(table.dir_attr(id)),
            Kind::Link => {
                let len = table.link_target(id).map_or(0, |target| target.len());
                Ok(Table::link_attr(id, len as u64))
            }
        })
    }

    pub(crate) async fn setattr(
        &self,
        id: NodeId,
        pid: u32,
        fh: Option<Fh>,
        set: SetAttr,
    ) -> Result<Attr, OpError> {
        if is_virtual(id) {
            return Err(OpError::ReadOnly);
        }
        let kind = self.kind_of(id)?;
        self.check_owner_and_mode(kind, &set)?;
        if let Some(len) = set.size {
            match kind {
                Kind::Dir => return Err(OpError::IsDirectory),
                Kind::Link => return Err(OpError::NotPermitted("a link has no size to set")),
                Kind::File => {}
            }
            match fh.filter(|&fh| self.nodes.with(|table| table.writer_key(fh)).is_some()) {
                Some(fh) => self.truncate_handle(fh, len).await?,
                None => self.truncate(id, len).await?,
            }
        } else if set.atime.is_some() || set.mtime.is_some() {
            self.set_times(id, kind, &set).await?;
        }
        let mut attr = self.getattr(id, pid, fh)?;
        if let Some(len) = set.size {
            attr.size = len;
            attr.keep = false;
        }
        Ok(attr)
    }

    fn check_owner_and_mode(&self, kind: Kind, set: &SetAttr) -> Result<(), OpError> {
        if self.view.quiet {
            return Ok(());
        }
        let mode = match kind {
            Kind::Dir => self.view.dir_mode,
            Kind::File | Kind::Link => self.view.file_mode,
        };
        if set.mode.is_some_and(|wanted| wanted & 0o7777 != u32::from(mode)) {
            return Err(OpError::NotPermitted("the mode comes from the mount's options"));
        }
        if set.uid.is_some_and(|uid| uid != self.view.uid) || set.gid.is_some_and(|gid| gid != self.view.gid)
        {
            return Err(OpError::NotPermitted("the owner comes from the mount's options"));
        }
        Ok(())
    }

    /// truncate(2) by path: one put.
    async fn truncate(&self, id: NodeId, len: u64) -> Result<(), OpError> {
        self.check_len(len)?;
        let mut edits = Edits::default();
        edits.truncate(len);
        self.put_by_path(id, &edits).await
    }

    /// A put through no handle: of the file as it is known to be.
    pub(super) async fn put_by_path(&self, id: NodeId, edits: &Edits) -> Result<(), OpError> {
        let name = self.nodes.with(|table| table.key_of(id)).ok_or(OpError::Stale)?;
        self.writable(&name)?;
        let turn = self.turn(&name).await;
        let facts = self.nodes.with(|table| table.facts(&name));
        match facts.known {
            Known::Present(value) if facts.local => {
                let bytes: Bytes = edits.apply(&value.bytes);
                let now = self.time_of_unsaved();
                self.nodes.with(|table| table.change_local(&name, Some((bytes, now))));
                Ok(())
            }
            Known::Present(value) => {
                self.nodes.with(|table| table.writes_through(&name, id));
                let put = self.put_edits(&name, value.create, false, edits, None).await?;
                drop(turn);
                self.shown(put).await;
                Ok(())
            }
            Known::Absent | Known::Unknown => Err(OpError::Stale),
        }
    }

    async fn set_times(&self, id: NodeId, kind: Kind, set: &SetAttr) -> Result<(), OpError> {
        let Some(mtime) = set.mtime else {
            // There is no atime to keep; nobody can tell the difference.
            return Ok(());
        };
        if self.view.read_only {
            return Err(OpError::ReadOnly);
        }
        match mtime {
            SetTime::Now if kind == Kind::File => {
                // A file that was just made is put by this, once, as it is.
                let pending = self.nodes.with(|table| table.pending_writer(id));
                match pending {
                    Some(fh) => self.flush(fh, Moment::Fsync).await,
                    None => self.put_by_path(id, &Edits::default()).await,
                }
            }
            SetTime::Now => Ok(()),
            SetTime::To(time) => {
                let now = self.getattr(id, 0, None)?;
                if self.view.quiet || self.time_of(now.rev) == time {
                    return Ok(());
                }
                Err(OpError::NotPermitted("times are those of revisions"))
            }
        }
    }

    pub(crate) fn link_target(&self, id: NodeId) -> Result<std::ffi::OsString, OpError> {
        if is_virtual(id) {
            return self.virtual_link(id);
        }
        self.nodes.with(|table| table.link_target(id)).ok_or(OpError::Malformed("not a link"))
    }
}
