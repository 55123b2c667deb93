//! The session that a mount's locks are bound to, and its loss.
//!
//! The session is a lease of a few seconds, and a record attached to it. While the mount holds a lock, every change
//! that it sends compares that the record is still the one it made. Once it is not, somebody else may hold the
//! locks: the change fails with EIO, and so do write, flush and fsync through every handle opened before, and every
//! later opening for writing by a process that has the locked file still open, or whose ancestor has.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use etcfs_proto::key::{KeyRange, successor};

use super::{Fs, host};
use crate::errno::OpError;
use crate::map::Key;
use crate::node::file_ino;
use crate::ops::openers::{ANCESTORS_MAX, has_open};
use crate::remote::{
    Answer, Change, Changed, Committed, Compare, Event, Lease, LeaseId, Op, RemoteError, Renewal, Revision,
};

/// A lease for locks.
#[derive(Debug)]
pub(super) struct LockSession {
    pub(super) lease: LeaseId,
    pub(super) record: Key,
    created: Revision,
    _renewal: Renewal,
}

impl LockSession {
    /// Holds iff the session does.
    pub(super) fn still(&self) -> Compare {
        Compare::SameSince(self.record.clone(), self.created)
    }

    /// Whether it does, from a read of its record among `answers`.
    pub(super) fn stands(&self, answers: &[Answer]) -> bool {
        answers.iter().any(|answer| {
            matches!(answer, Answer::Got(Some(kv)) if kv.key == self.record && kv.create_revision == self.created)
        })
    }

    pub(super) fn range(&self) -> KeyRange {
        let start = self.record.bytes();
        KeyRange { end: Some(successor(&start)), start }
    }

    pub(super) fn ended_by(&self, changed: &Changed) -> bool {
        changed.events.iter().any(|event| matches!(event, Event::Delete(key) if *key == self.record))
    }
}

impl Fs {
    /// Carries out a change of keys; as long as this mount holds locks, only if it still holds them.
    pub(in crate::ops) async fn commit(&self, mut change: Change) -> Result<Committed, OpError> {
        let Some(session) = self.locks.guard() else { return Ok(self.send(change).await?) };
        change.compares.push(session.still());
        change.otherwise.push(Op::Get(session.record.clone()));
        let mut committed = self.send(change).await?;
        if !committed.succeeded {
            let seen = committed.answers.pop();
            if !session.stands(seen.as_slice()) {
                self.locks_lost(&session);
                return Err(OpError::LocksLost);
            }
        }
        Ok(committed)
    }

    pub(super) async fn lock_session(&self) -> Result<Arc<LockSession>, OpError> {
        let _one = self.locks.open.lock().await;
        if let Some(session) = self.locks.state.lock().session.clone() {
            return Ok(session);
        }
        let lease = self.remote.lease_grant(self.view.lock_seconds).await?;
        // Beside what the same user's mounts remember of their changes.
        let record = Key::from(Bytes::from(format!("{}{lease}/session", self.remote.changes())));
        let value = format!("{} {}\n", std::process::id(), host());
        let change = Change {
            compares: vec![Compare::Absent(record.clone())],
            then: vec![Op::Put { key: record.clone(), value: value.into(), lease: Lease::To(lease) }],
            otherwise: Vec::new(),
        };
        let committed = self.remote.commit(change).await?;
        if !committed.succeeded {
            return Err(OpError::Remote(RemoteError::Protocol("a new lease's record is there already")));
        }
        let renewal = self.remote.keep_alive(lease);
        let session = Arc::new(LockSession { lease, record, created: committed.revision, _renewal: renewal });
        self.locks.state.lock().session = Some(session.clone());
        Ok(session)
    }

    /// The session's lease is gone, and so are its locks.
    pub(super) fn locks_lost(&self, session: &Arc<LockSession>) {
        let lost: Vec<String> = {
            let mut state = self.locks.state.lock();
            state.session.take_if(|current| Arc::ptr_eq(current, session));
            let of_session =
                state.held.iter_mut().filter(|held| !held.lost && Arc::ptr_eq(&held.session, session));
            of_session
                .map(|holding| {
                    holding.lost = true;
                    format!("{} (process {})", holding.file.escape_ascii(), holding.pid)
                })
                .collect()
        };
        if lost.is_empty() {
            return;
        }
        tracing::error!(
            locks = lost.join(", "),
            "locks are lost: their lease ended while this mount could not renew it; \
             files that are open for writing get EIO"
        );
        self.nodes.with(|table| table.fail_handles(libc::EIO));
    }

    /// Refuses to open a file for writing to those who may believe that they hold a lock that is lost.
    pub(in crate::ops) fn check_locks(&self, pid: u32) -> Result<(), OpError> {
        let lost: HashSet<u64> = {
            let state = self.locks.state.lock();
            let lost = state.held.iter().filter(|holding| holding.lost);
            lost.flat_map(|holding| [holding.node.0, file_ino(&holding.file)]).collect()
        };
        if !lost.is_empty() && (pid == 0 || has_open(pid, ANCESTORS_MAX, &lost)) {
            Err(OpError::LocksLost)
        } else {
            Ok(())
        }
    }

    /// Frees every lock: the mount ends.
    pub(in crate::ops) async fn end_locks(&self) {
        let Some(session) = self.locks.state.lock().session.take() else { return };
        match self.remote.lease_revoke(session.lease).await {
            Ok(()) | Err(RemoteError::NoSuchLease) => {}
            Err(error) => tracing::warn!(%error, "the locks end with their lease, a little later"),
        }
    }
}

impl super::Locks {
    /// The session that every change has to compare: there are locks.
    fn guard(&self) -> Option<Arc<LockSession>> {
        let state = self.state.lock();
        state.held.iter().find(|holding| !holding.lost).map(|holding| holding.session.clone())
    }
}
