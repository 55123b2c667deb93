//! The requests of the helper that repeats changes for inotify's listeners, and how its own changes are told from
//! others'.
//!
//! The helper is known by its process. No request of it reaches an operation: what the table does not expect of it
//! is refused, so that it never puts, deletes or reads a key.

use std::ffi::OsStr;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::Fs;
use crate::errno::OpError;
use crate::map::Step;
use crate::node::{Attr, Entry, Fh, Flight, Looked, NodeId};
use crate::remote::{Change, Committed, Move, Op, RemoteError};

/// Every file that the helper has open: it says nothing through it but that it is open.
pub(crate) const HELPER_FH: Fh = Fh(1 << 63);

const UNEXPECTED: OpError = OpError::NotPermitted("the helper was not asked to do this");

impl Fs {
    /// Requests of this process are the helper's from now on; 0 for none.
    pub(crate) fn set_helper(&self, pid: u32) {
        self.helper.store(pid, Ordering::Release);
    }

    pub(crate) fn is_helper(&self, pid: u32) -> bool {
        pid != 0 && pid == self.helper.load(Ordering::Acquire)
    }

    /// The helper's lookup; `None` if it is told what anybody is.
    pub(crate) fn helper_lookup(&self, parent: NodeId, name: &OsStr) -> Option<Result<Entry, OpError>> {
        let dir = self.nodes.with(|table| table.dir_view(parent))?.dir;
        let below = match self.map.step(&dir, name) {
            Ok(Step::Entry(entry)) => Some(entry.dir),
            Ok(Step::More(dir) | Step::Rel(dir)) => Some(dir),
            Ok(Step::Value(_) | Step::Reserved(_)) | Err(_) => None,
        };
        match self.nodes.with(|table| table.helper_lookup(parent, name, below.as_ref(), Instant::now())) {
            Looked::Found(entry) => Some(Ok(entry)),
            Looked::Absent => Some(Err(OpError::NotFound)),
            Looked::AsEver => None,
        }
    }

    pub(crate) fn helper_create(&self, parent: NodeId, name: &OsStr) -> Result<Entry, OpError> {
        self.nodes.with(|table| table.helper_create(parent, name, Instant::now())).ok_or(UNEXPECTED)
    }

    pub(crate) fn helper_make_dir(&self, parent: NodeId, name: &OsStr) -> Result<Entry, OpError> {
        self.nodes.with(|table| table.helper_make_dir(parent, name)).ok_or(UNEXPECTED)
    }

    pub(crate) fn helper_make_link(&self, parent: NodeId, name: &OsStr) -> Result<Entry, OpError> {
        self.nodes.with(|table| table.helper_make_link(parent, name)).ok_or(UNEXPECTED)
    }

    pub(crate) fn helper_remove(&self, parent: NodeId, name: &OsStr) -> Result<(), OpError> {
        let expected = self.nodes.with(|table| table.helper_remove(parent, name));
        if expected { Ok(()) } else { Err(UNEXPECTED) }
    }

    pub(crate) fn helper_rename(&self, from: (NodeId, &OsStr), to: (NodeId, &OsStr)) -> Result<(), OpError> {
        let expected = self.nodes.with(|table| table.helper_rename(from.0, from.1, to));
        if expected { Ok(()) } else { Err(UNEXPECTED) }
    }

    pub(crate) fn helper_open(&self, id: NodeId) -> Result<Fh, OpError> {
        let expected = self.nodes.with(|table| table.helper_open(id));
        if expected { Ok(HELPER_FH) } else { Err(UNEXPECTED) }
    }

    pub(crate) fn helper_touch(&self, id: NodeId) -> Result<Attr, OpError> {
        self.nodes.with(|table| table.helper_touch(id, Instant::now())).ok_or(OpError::Stale)
    }

    /// Sends a change, and knows its events for this mount's own when the watch brings them.
    pub(super) async fn send(&self, change: Change) -> Result<Committed, RemoteError> {
        let keys = change.then.iter().flat_map(|op| match op {
            Op::Put { key, .. } | Op::Attach { key, .. } | Op::Delete(key) => vec![key.bytes()],
            Op::Move(Move { keys, .. }) => keys.clone(),
            Op::DeleteRange(_) | Op::Get(_) | Op::Keys { .. } => Vec::new(),
        });
        let keys = keys.collect();
        let mut flying =
            Flying { fs: self, flight: self.nodes.with(|table| table.begin_flight(keys)), made: None };
        let committed = self.remote.commit(change).await?;
        flying.made = committed.succeeded.then_some(committed.revision.0);
        Ok(committed)
    }
}

/// A change under way; given up when its caller is.
struct Flying<'f> {
    fs: &'f Fs,
    flight: Flight,
    made: Option<i64>,
}

impl Drop for Flying<'_> {
    fn drop(&mut self) {
        self.fs.nodes.with(|table| table.end_flight(self.flight, self.made));
    }
}
