//! Making files: O_CREAT, mknod.
//!
//! O_EXCL puts the empty value at once, since having won is its point. A file that
//! is merely created is this mount's own until its first write, or its close, puts
//! it: one save is one revision.

use std::ffi::OsStr;
use std::time::Instant;

use bytes::Bytes;

use super::lookup::Named;
use super::scratch::scratch_kind;
use super::{Fs, OpenHow, key, put_value};
use crate::errno::OpError;
use crate::map::{Dir, Step};
use crate::node::{Entry, Fh, NodeId, OpenedAs};
use crate::remote::{Change, Committed, Compare, Op};

/// A file that was found or made, and opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Created {
    pub(crate) entry: Entry,
    pub(crate) fh: Fh,
}

impl Fs {
    /// open(2) with O_CREAT on a name that the kernel holds for free.
    pub(crate) async fn create(
        &self,
        parent: NodeId,
        name: &OsStr,
        pid: u32,
        flags: i32,
    ) -> Result<Created, OpError> {
        let exclusive = flags & libc::O_EXCL != 0;
        let how = OpenHow::from_flags(flags);
        let dir = self.dir_to_fill(parent).await?;
        self.name_to_make(&dir, name)?;
        loop {
            let named = self.named(&dir, name).await?;
            let (name_key, exists) = match named {
                Named::Dir { .. } | Named::Link(_) if exclusive => return Err(OpError::Exists),
                Named::Dir { .. } => return Err(OpError::IsDirectory),
                Named::Link(_) => {
                    return Err(OpError::NotPermitted(
                        "the name is taken by a link to a key without a slash",
                    ));
                }
                Named::File { .. } if exclusive => return Err(OpError::Exists),
                Named::File { key, .. } => (key, true),
                Named::Nothing(entry) => (entry.key.bytes(), false),
                Named::NoValue(key) => (key, false),
            };
            self.writable(&name_key)?;
            if how.write {
                self.check_locks(pid)?;
            }
            let mut opened_as = if exists { how.opened_as() } else { OpenedAs::Created };
            let mut put = false;
            if !exists {
                let scratch = scratch_kind(name, &self.view.scratch).filter(|_| exclusive);
                if exclusive && scratch.is_none() || !how.write {
                    match self.make_empty(&name_key).await {
                        Ok(()) => put = true,
                        // Without O_EXCL the winner's file will do.
                        Err(OpError::Exists) if !exclusive => continue,
                        Err(error) => return Err(error),
                    }
                } else {
                    let now = self.time_of_unsaved();
                    self.nodes.with(|table| table.create_local(&name_key, scratch, now));
                }
            }
            if exists && how.truncate {
                opened_as = OpenedAs::Truncated;
            }
            let (now, asker) = (self.time_of_unsaved(), Self::writer(pid));
            let created = self.nodes.with(|table| {
                let entry = table.lookup_file(&name_key, parent, name, Instant::now())?;
                let fh = if how.write {
                    let fh = table.open_writer(entry.node, asker, opened_as, how.append, how.sync, put)?;
                    // Also of what another client has put, if the watch has not told of it yet.
                    if how.truncate && !put {
                        table.truncate_writer(fh, 0, now);
                    }
                    fh
                } else {
                    table.open_reader(entry.node, asker)?
                };
                Some(Created { entry, fh })
            });
            if let Some(created) = created {
                return Ok(created);
            }
            // Removed again in between: once more.
        }
    }

    /// mknod(2) of a regular file.
    pub(crate) async fn make_node(&self, parent: NodeId, name: &OsStr) -> Result<Entry, OpError> {
        let flags = libc::O_CREAT | libc::O_EXCL | libc::O_RDONLY;
        let dir = self.dir_to_fill(parent).await?;
        self.name_to_make(&dir, name)?;
        let Created { entry, fh } = self.create(parent, name, 0, flags).await?;
        self.nodes.with(|table| table.release(fh));
        Ok(entry)
    }

    /// A name under which something can be made at all.
    pub(super) fn name_to_make(&self, dir: &Dir, name: &OsStr) -> Result<(), OpError> {
        match self.map.step(dir, name).map_err(OpError::BadName)? {
            Step::Entry(_) | Step::Value(_) => Ok(()),
            Step::More(_) | Step::Rel(_) => Err(OpError::Exists),
            Step::Reserved(_) => Err(OpError::NotPermitted("a reserved name")),
        }
    }

    /// Puts the empty value of a key that must not be there.
    async fn make_empty(&self, name: &Bytes) -> Result<(), OpError> {
        let _turn = self.turn(name).await;
        let change = Change {
            compares: vec![Compare::Absent(key(name))],
            then: vec![Op::put(key(name), Bytes::new())],
            otherwise: vec![Op::Get(key(name))],
        };
        let Committed { revision, succeeded, .. } = self.commit(change).await?;
        if !succeeded {
            return Err(OpError::Exists);
        }
        let value = put_value(Bytes::new(), revision.0, None, 0);
        let _shown_by_the_reply = self.own_change(name, revision.0, Some(0), Some(value));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::{Moment, ROOT};
    use crate::ops::test_mount::mount;
    use crate::remote::memory::Memory;

    /// It kept what was longer of the old value.
    #[tokio::test]
    async fn what_is_opened_to_be_cut_is_cut_though_the_watch_has_not_told_of_it() {
        let memory = Memory::new();
        memory.put("/b", "1");
        let fs = mount(&memory).await;
        fs.listing(fs.open_dir(ROOT).unwrap().0, 0).await.unwrap();
        memory.put("/a", "0123456789");
        let flags = libc::O_CREAT | libc::O_TRUNC | libc::O_WRONLY;
        let made = fs.create(ROOT, OsStr::new("a"), 7, flags).await.unwrap();
        fs.write(made.fh, 7, 0, "other".into()).await.unwrap();
        fs.flush(made.fh, Moment::Flush).await.unwrap();
        assert_eq!(memory.value("/a").unwrap(), "other");
    }
}
