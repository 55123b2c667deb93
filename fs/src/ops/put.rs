//! The one way from a write handle's edits to the server: one transaction with
//! compares on what it was made from.
//!
//! Where another client was first, the edits are applied to the newest value and
//! sent again, so nobody's bytes are lost; where the key was removed or made anew
//! meanwhile, the handle is stale and nothing is resurrected. A handle whose put
//! failed puts nothing any more. Puts of this mount on one key take turns, so that
//! they never meet each other's.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedMutexGuard, oneshot};

use super::{Fs, key, put_value};
use crate::errno::{Errno, OpError};
use crate::node::{Edits, Fh, Moment, Value};
use crate::remote::{Answer, Change, Committed, Compare, Lease, Op, Revision};

/// How long an own change waits for the watch to bring what came before it. Past this
/// it is taken in as it is: a follower may then miss a value, but nobody hangs.
const WATCH_PATIENCE: Duration = Duration::from_secs(2);

/// A value that a failed compare found.
type Newest = Option<Value>;

impl Fs {
    pub(super) async fn turn(&self, key: &Bytes) -> OwnedMutexGuard<()> {
        self.nodes.with(|table| table.turn(key)).lock_owned().await
    }

    pub(super) fn turn_now(&self, key: &Bytes) -> Option<OwnedMutexGuard<()>> {
        self.nodes.with(|table| table.turn(key)).try_lock_owned().ok()
    }

    /// Puts what a writer has, if `moment` asks for it. The caller has the key's turn.
    pub(super) async fn put_if_due(&self, fh: Fh, moment: Moment) -> Result<Shown, OpError> {
        if !self.nodes.with(|table| table.due(fh, moment)) {
            return Ok(Shown::already());
        }
        // Dropped in the middle (a signal), the outcome is unknown: nothing more may be put.
        let mut fuse = FailOnDrop { fs: self, fh, errno: libc::EINTR };
        let result = self.put_writer(fh).await;
        if let Err(error) = &result {
            fuse.errno = Errno::from(error).0;
        } else {
            std::mem::forget(fuse);
        }
        result
    }

    async fn put_writer(&self, fh: Fh) -> Result<Shown, OpError> {
        let Some(writer) = self.nodes.with(|table| table.writer(fh)) else { return Ok(Shown::already()) };
        if writer.anonymous {
            return Ok(Shown::already());
        }
        if self.nodes.with(|table| table.facts(&writer.key)).scratch {
            return Ok(self.put_local(fh, &writer.key, &writer.edits));
        }
        self.nodes.with(|table| {
            if let Some(id) = table.node_of(fh) {
                table.writes_through(&writer.key, id);
            }
        });
        self.put_edits(&writer.key, writer.create, !writer.put, &writer.edits, Some(fh)).await
    }

    /// A scratch file's edits go to its local bytes.
    fn put_local(&self, fh: Fh, key: &Bytes, edits: &Edits) -> Shown {
        let now = self.time_of_unsaved();
        let waiting = self.nodes.with(|table| {
            let bytes = table.known(key).value().map(|value| value.bytes.clone()).unwrap_or_default();
            table.writer_put(fh, 0);
            table.change_local(key, Some((edits.apply(&bytes), now)));
            table.wait_known(key)
        });
        Shown { waiting, late: None }
    }

    /// Puts `edits` of a key that was created at `create` (0: it is to be created, or,
    /// where `may_adopt`, taken as it is if somebody else was first).
    pub(super) async fn put_edits(
        &self,
        name: &Bytes,
        create: i64,
        may_adopt: bool,
        edits: &Edits,
        fh: Option<Fh>,
    ) -> Result<Shown, OpError> {
        let mut create = create;
        let mut read: Option<Newest> = None;
        loop {
            // A failed compare's answer is newer than what the watch has brought.
            let facts = self.nodes.with(|table| table.facts(name));
            let base: Option<Value> = match &read {
                Some(newest) => newest.clone(),
                None if facts.local => None,
                None => facts.known.value().cloned(),
            };
            match &base {
                Some(base) if create == 0 && may_adopt => create = base.create,
                Some(base) if base.create == create => {}
                None if create == 0 => {}
                _ => return Err(OpError::Stale),
            }
            let empty = Bytes::new();
            let bytes = edits.apply(base.as_ref().map_or(&empty, |base| &base.bytes));
            self.check_len(bytes.len() as u64)?;
            let (compare, before) = match &base {
                None => (Compare::Absent(key(name)), Some(0)),
                // After one lost race an overwrite needs no newest value, only the same key.
                Some(base) if edits.replaces() && read.is_some() => {
                    (Compare::SameSince(key(name), Revision(base.create)), None)
                }
                Some(base) => (Compare::Unchanged(key(name), Revision(base.rev)), Some(base.rev)),
            };
            let lease = if base.is_some() { Lease::Keep } else { Lease::None };
            let change = Change {
                compares: vec![compare],
                then: vec![Op::Put { key: key(name), value: bytes.clone(), lease }],
                otherwise: vec![Op::Get(key(name))],
            };
            let Committed { revision, succeeded, answers } = self.commit(change).await?;
            if !succeeded {
                read = Some(got(answers));
                continue;
            }
            let held = base.as_ref().map_or(0, |base| base.lease);
            let value = put_value(bytes, revision.0, base.as_ref(), held);
            let created = value.create;
            if let Some(fh) = fh {
                self.nodes.with(|table| table.writer_put(fh, created));
            }
            return Ok(self.own_change(name, revision.0, before, Some(value)));
        }
    }

    /// Takes in an own change.
    pub(super) fn own_change(
        &self,
        name: &Bytes,
        rev: i64,
        before: Option<i64>,
        value: Option<Value>,
    ) -> Shown {
        let waiting = self.nodes.with(|table| table.own_event(name, rev, before, value.clone()));
        Shown { waiting, late: Some((name.clone(), rev, value)) }
    }

    /// Returns once every local reader sees a put. Not with the key's turn, and not from
    /// an operation that holds a directory in the kernel: the notifier needs both.
    pub(super) async fn shown(&self, shown: Shown) {
        let Some(mut waiting) = shown.waiting else { return };
        let Some((name, rev, value)) = shown.late else {
            waiting.await.ok();
            return;
        };
        if tokio::time::timeout(WATCH_PATIENCE, &mut waiting).await.is_err() {
            tracing::debug!(rev, "the watch is late; an own change goes ahead of it");
            self.nodes.with(|table| table.change(&name, rev, value));
            waiting.await.ok();
        }
    }
}

/// A put that was done, and what to wait for until every local reader sees it.
#[must_use]
#[derive(Debug)]
pub(super) struct Shown {
    waiting: Option<oneshot::Receiver<()>>,
    /// The change itself, if the watch is to bring it in order and is late.
    late: Option<(Bytes, i64, Option<Value>)>,
}

impl Shown {
    pub(super) fn already() -> Self {
        Self { waiting: None, late: None }
    }
}

/// The answer to the read of a key in a change's `otherwise`.
pub(super) fn got(answers: Vec<Answer>) -> Newest {
    answers.into_iter().find_map(|answer| match answer {
        Answer::Got(kv) => Some(kv.as_ref().map(Value::from)),
        Answer::Done | Answer::Keys(_) => None,
    })?
}

/// Fails a writer unless it is disarmed by `forget`.
struct FailOnDrop<'f> {
    fs: &'f Fs,
    fh: Fh,
    errno: i32,
}

impl Drop for FailOnDrop<'_> {
    fn drop(&mut self) {
        self.fs.nodes.with(|table| table.fail_writer(self.fh, self.errno));
    }
}

/// The turn that an operation on a writer holds, and the key that it is for.
pub(super) type Turn = OwnedMutexGuard<()>;

/// Shared handle, so that tasks can outlive the call that began them.
pub(super) type FsRef = Arc<Fs>;
