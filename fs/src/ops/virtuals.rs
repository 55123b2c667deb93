//! Files and directories that are no keys: looked up, opened, read and listed.
//!
//! They are reached from the names that `map` reserves, and have inodes and handles of their own, in `registry`.
//! `history` has the past, `leases` what hangs on a lease, `text` what is written at each opening.

mod history;
mod leases;
mod registry;
#[cfg(test)]
mod tests;
mod text;

use std::ffi::{OsStr, OsString};
use std::sync::Arc;

use bytes::Bytes;

pub(super) use self::registry::Virtuals;
use self::registry::{Found, Opened};
use super::{Fs, OpenHow};
use crate::errno::OpError;
use crate::map::{Dir, Rel, Reserved, Step};
use crate::node::{Attr, Entry, Fh, Kind, Listing, ListingEntry, NodeId};
use crate::remote::{Changed, Event, RemoteError, Revision};
use crate::r#virtual::{Place, Scope, gap, render};

/// Apart from counted numbers and from those of keys, which have the bit above.
const VIRTUAL: u64 = 1 << 61;

/// True for inodes and handles that are here.
pub(crate) fn is_virtual(id: NodeId) -> bool {
    id.0 >> 61 == 1
}

fn is_virtual_handle(fh: Fh) -> bool {
    fh.0 & VIRTUAL != 0
}

impl Fs {
    /// True iff a name is to be looked up here.
    pub(super) fn is_virtual_name(&self, parent: NodeId, name: &OsStr) -> bool {
        is_virtual(parent)
            || name.as_encoded_bytes().contains(&b'%')
                && self
                    .dir_of(parent)
                    .is_ok_and(|dir| matches!(self.map.step(&dir, name), Ok(Step::Reserved(_))))
    }

    pub(super) async fn lookup_virtual(&self, parent: NodeId, name: &OsStr) -> Result<Entry, OpError> {
        let found = if is_virtual(parent) {
            let place = self.virtuals.place(parent).ok_or(OpError::Stale)?;
            self.found_in(&place, name).await?
        } else {
            let dir = self.dir_of(parent)?;
            match self.map.step(&dir, name).map_err(OpError::in_lookup)? {
                Step::Reserved(word) => self.found_reserved(word, None).await?,
                Step::Entry(_) | Step::Value(_) | Step::More(_) | Step::Rel(_) => {
                    return Err(OpError::NotFound);
                }
            }
        };
        Ok(self.virtuals.enter(found))
    }

    /// What a reserved name shows; below `%rev/N`, from that revision on.
    async fn found_reserved(&self, word: Reserved, past: Option<Revision>) -> Result<Found, OpError> {
        match word {
            Reserved::Log(dir) => self.found_log(self.scope_of(&dir), past).await,
            Reserved::KeyLog(key) => self.found_log(Scope::Key(key.bytes()), past).await,
            Reserved::KeyRev(key) => Ok(Found::dir(Place::KeyRev(key), Revision(0))),
            Reserved::Rev | Reserved::Leases | Reserved::Locks | Reserved::Status if past.is_some() => {
                Err(OpError::NotFound)
            }
            Reserved::Rev => Ok(Found::dir(Place::Rev, Revision(0))),
            Reserved::Leases => Ok(Found::dir(Place::Leases, Revision(0))),
            Reserved::Locks => self.found_text(Place::Locks).await,
            Reserved::Status => self.found_text(Place::Status).await,
        }
    }

    fn scope_of(&self, dir: &Dir) -> Scope {
        if self.map.is_root(dir) && self.map.rel() != Rel::Off {
            Scope::All
        } else if self.map.is_rel(dir) {
            Scope::Bare
        } else {
            dir.prefix().map_or(Scope::All, |prefix| Scope::Below(prefix.clone()))
        }
    }

    async fn found_in(&self, place: &Place, name: &OsStr) -> Result<Found, OpError> {
        let found = match place {
            Place::Rev => self.found_revision(name).await,
            Place::Past { at, dir } => self.found_past(*at, dir, name).await,
            Place::KeyRev(key) => self.found_key_revision(key, name).await,
            Place::Leases => self.found_lease(name).await,
            Place::Lease(lease) => self.found_of_lease(*lease, name).await,
            Place::PastFile { .. }
            | Place::PastLink { .. }
            | Place::Log { .. }
            | Place::LeaseTtl(_)
            | Place::LeaseGranted(_)
            | Place::LeaseKey { .. }
            | Place::Locks
            | Place::Status => Err(OpError::NotDirectory),
        };
        // What is compacted is no more; what is not made yet is not there.
        match found {
            Err(OpError::Remote(RemoteError::Compacted(_) | RemoteError::FutureRevision)) => {
                Err(OpError::NotFound)
            }
            found => found,
        }
    }

    pub(super) fn virtual_attr(&self, id: NodeId) -> Result<Attr, OpError> {
        self.virtuals.attr(id).ok_or(OpError::Stale)
    }

    pub(super) fn virtual_link(&self, id: NodeId) -> Result<OsString, OpError> {
        match self.virtuals.place(id).ok_or(OpError::Stale)? {
            Place::PastLink { target, .. } | Place::LeaseKey { target, .. } => Ok(target),
            _ => Err(OpError::Malformed("not a link")),
        }
    }

    pub(super) async fn open_virtual(&self, id: NodeId, how: OpenHow) -> Result<Fh, OpError> {
        if how.write || how.truncate {
            return Err(OpError::ReadOnly);
        }
        let place = self.virtuals.place(id).ok_or(OpError::Stale)?;
        let opened = match &place {
            Place::PastFile { at, key } => Opened::Text(self.past_value(*at, key).await?),
            Place::Log { .. } => self.virtuals.open_log(id).ok_or(OpError::Stale)?,
            Place::LeaseTtl(_) | Place::LeaseGranted(_) | Place::Locks | Place::Status => {
                let text = self.text_of(&place).await?;
                self.virtuals.set_size(id, text.len() as u64);
                Opened::Text(text)
            }
            Place::PastLink { .. } | Place::LeaseKey { .. } => {
                return Err(OpError::NotPermitted("a link is followed, not opened"));
            }
            Place::Rev | Place::Past { .. } | Place::KeyRev(_) | Place::Leases | Place::Lease(_) => {
                return Err(OpError::IsDirectory);
            }
        };
        Ok(self.virtuals.open(opened))
    }

    pub(super) fn read_virtual(&self, fh: Fh, offset: u64, size: u32) -> Option<Result<Bytes, OpError>> {
        is_virtual_handle(fh).then(|| self.virtuals.read(fh, offset, size as usize).ok_or(OpError::BadHandle))
    }

    pub(super) fn release_virtual(&self, fh: Fh) -> bool {
        is_virtual_handle(fh) && {
            self.virtuals.release(fh);
            true
        }
    }

    /// The listing of an open directory that is here, read at its first use.
    pub(super) async fn list_virtual(&self, fh: Fh) -> Option<Result<Arc<Listing>, OpError>> {
        if !is_virtual_handle(fh) {
            return None;
        }
        let Some(place) = self.virtuals.dir_handle(fh) else { return Some(Err(OpError::BadHandle)) };
        let listed = match place {
            Place::Past { at, dir } => self.read_listing(&dir, Some(at)).await.map(|(_, listing)| listing),
            Place::KeyRev(key) => self.list_revisions(&key).await.map(Listing::new),
            Place::Leases => self.list_leases().await.map(Listing::new),
            Place::Lease(lease) => self.list_lease(lease).await.map(Listing::new),
            // Every number up to the newest revision, as long as it is not compacted: too many to list.
            _ => Ok(Listing::new::<OsString>([])),
        };
        Some(listed.map(|listing| {
            let listing = Arc::new(listing);
            self.virtuals.set_listing(fh, listing.clone());
            listing
        }))
    }

    /// Takes what the watch has brought into the log.
    pub(crate) fn journal(&self, changed: &Changed) {
        self.counts.changes.add(changed.events.len() as u64);
        let time = self.time_of(changed.revision.0);
        for event in &changed.events {
            let key = match event {
                Event::Put(kv) => &kv.key,
                Event::Delete(key) => key,
            };
            if !self.map.is_own_record(key) {
                let line = render(&self.map, changed.revision, time, event);
                // A copy: the key was cut out of all that came with it, which would stay as long.
                self.virtuals.journal.push(Some(Bytes::copy_from_slice(key)), changed.revision, line);
            }
        }
    }

    /// Changes before `revision` never came.
    pub(crate) fn journal_gap(&self, revision: Revision) {
        self.counts.resyncs.add(1);
        let line = gap(revision, self.time_of(revision.0));
        self.virtuals.journal.push(None, revision, line);
    }

    pub(crate) fn forget(&self, id: NodeId, count: u64) {
        if is_virtual(id) {
            self.virtuals.forget(id, count);
        } else {
            self.nodes.with(|table| table.forget(id, count));
        }
    }
}

/// An entry that is here; its number in a listing is not its inode's, which only a lookup makes.
fn listed(name: OsString, kind: Kind) -> ListingEntry {
    ListingEntry { name, kind, ino: VIRTUAL }
}
