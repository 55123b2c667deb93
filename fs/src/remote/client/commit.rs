//! Carrying a change out exactly once, and knowing that it was.
//!
//! The change's transaction compares what the caller read, and that this change's slot is as this mount left it;
//! it does the change and puts the slot, in one revision. Sent once and answered, there is nothing more to it.
//!
//! Where the answer is lost, the same transaction is sent again. It may meet four things:
//! - The first one was done: the slot's compare fails, and the slot holds this change's number. Done, at the slot's
//!   revision.
//! - The first one never arrived: this one is done.
//! - The first one is still on its way, and comes after: its slot compare fails. Done once.
//! - The caller's compares do not hold: the answer is no, but the first one, still on its way, might meet a moment
//!   at which they do. So a transaction that is sent again puts the slot in its other branch too, as *refused*,
//!   which shuts the first one out.
//!
//! The slot's lease is the last guard: once the session is over, none of its transactions can be done any more,
//! since they put a key to a lease that is gone. What was done before that can't be known then.
//!
//! A server whose quota is used up takes no slot. What only removes is sent without, since it makes room.

use std::sync::Arc;

use etcfs_proto::etcdserverpb::TxnResponse;
use etcfs_proto::etcfs::v1::RenameRequest;

use super::patience::{Judged, judge};
use super::slots::{SESSION_TTL_SECONDS, Session, Slot, new_lease};
use super::{Server, wire};
use crate::remote::{Change, Committed, Remote, RemoteError, Revision};

/// How an attempt at a change in one session ended, where the server has answered.
enum Ended {
    Known(Committed),
    /// The session is over. Whether an earlier transaction had been done: surely not, or not to be known.
    SessionOver {
        maybe_done: bool,
    },
}

impl Server {
    pub(super) async fn carry_out(&self, change: Change) -> Result<Committed, RemoteError> {
        if self.reach.is_stale() {
            return Err(RemoteError::NotSent);
        }
        loop {
            let session = match self.session().await {
                Err(RemoteError::NoSpace) if change.only_removes() => return self.remove(&change).await,
                session => session?,
            };
            let mut slot = session.take();
            match self.drive(&session, &mut slot, &change).await {
                Err(RemoteError::NoSpace) if change.only_removes() => return self.remove(&change).await,
                Ok(Ended::Known(committed)) => {
                    session.give_back(slot);
                    return Ok(committed);
                }
                Ok(Ended::SessionOver { maybe_done }) => {
                    self.forget(&session).await;
                    if maybe_done {
                        tracing::error!(
                            "the connection was lost for longer than a session lasts: \
                             it is not known whether a change was made"
                        );
                        return Err(RemoteError::OutcomeLost);
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Carries out a change that only removes on a server that has no room left, not even for a slot. Where its
    /// answer is lost, so is its outcome.
    async fn remove(&self, change: &Change) -> Result<Committed, RemoteError> {
        let mut wait = self.reach.wait();
        loop {
            match self.client.kv().txn(wire::bare_txn(change)).await.map_err(judge) {
                Ok(answer) => {
                    self.reach.answered();
                    let (succeeded, revision) = (answer.succeeded, self.heard(answer.header.as_ref()));
                    let asked = if succeeded { &change.then } else { &change.otherwise };
                    let answers = wire::answers(asked, &mut answer.responses.into_iter())?;
                    return Ok(Committed { revision, succeeded, answers });
                }
                Err(Judged::Final(error)) => {
                    self.reach.learn(&error);
                    return Err(error);
                }
                Err(judged) => {
                    if wait.after(judged).await? {
                        tracing::error!("the connection was lost: it is not known whether keys were removed");
                        return Err(RemoteError::OutcomeLost);
                    }
                }
            }
        }
    }

    async fn drive(&self, session: &Session, slot: &mut Slot, change: &Change) -> Result<Ended, RemoteError> {
        let mut wait = self.reach.wait();
        let mut sent_before = false;
        loop {
            let request = wire::txn(change, slot, session.lease, sent_before);
            let moves = wire::moves(&change.then);
            let sent = if moves.is_empty() {
                self.client.kv().txn(request).await
            } else {
                let request = RenameRequest { txn: Some(request), moves };
                self.client.tree().rename(request).await.map(wire::renamed)
            };
            let judged = match sent {
                Ok(answer) => {
                    self.reach.answered();
                    return self.conclude(slot, change, answer, sent_before).await;
                }
                Err(error) => judge(error),
            };
            match judged {
                Judged::Final(RemoteError::NoSuchLease) => {
                    // The session's, or one that the caller puts keys to?
                    if self.lease_facts(session.lease).await?.is_none() {
                        return Ok(Ended::SessionOver { maybe_done: sent_before });
                    }
                    return self.refused(slot, change, sent_before, RemoteError::NoSuchLease).await;
                }
                Judged::Final(error) => {
                    self.reach.learn(&error);
                    return self.refused(slot, change, sent_before, error).await;
                }
                Judged::Away { maybe_done: false, .. } if !sent_before && self.reach.fails_unsent() => {
                    return Err(RemoteError::NotSent);
                }
                judged => sent_before |= wait.after(judged).await?,
            }
        }
    }

    /// Reads an answered transaction.
    async fn conclude(
        &self,
        slot: &mut Slot,
        change: &Change,
        answer: TxnResponse,
        sent_before: bool,
    ) -> Result<Ended, RemoteError> {
        let revision = self.heard(answer.header.as_ref());
        let mut responses = answer.responses.into_iter();
        if answer.succeeded {
            slot.revision = revision;
            let answers = wire::answers(&change.then, &mut responses)?;
            return Ok(Ended::Known(Committed { revision, succeeded: true, answers }));
        }
        let answers = wire::answers(&change.otherwise, &mut responses)?;
        let seen = wire::slot_seen(responses.next())?;
        let refused = Ended::Known(Committed { revision, succeeded: false, answers });
        match seen {
            Some(seen) if sent_before && seen.value == slot.done() => {
                slot.revision = seen.mod_revision;
                Ok(Ended::Known(self.found_done(change, seen.mod_revision).await?))
            }
            // By an earlier transaction of ours, whose answer was lost.
            Some(seen) if sent_before && seen.value == slot.refused() => {
                slot.revision = seen.mod_revision;
                Ok(refused)
            }
            Some(seen) if seen.mod_revision == slot.revision => {
                if sent_before {
                    slot.revision = revision;
                }
                Ok(refused)
            }
            None if slot.revision == Revision(0) => {
                if sent_before {
                    slot.revision = revision;
                }
                Ok(refused)
            }
            None => Ok(Ended::SessionOver { maybe_done: sent_before }),
            Some(_) => Err(RemoteError::Protocol("a slot of this mount was put by another")),
        }
    }

    /// The server's check has refused a transaction. If an earlier one had been lost, that one may be done.
    async fn refused(
        &self,
        slot: &mut Slot,
        change: &Change,
        sent_before: bool,
        error: RemoteError,
    ) -> Result<Ended, RemoteError> {
        if !sent_before {
            return Err(error);
        }
        let seen = self.get(slot.key.clone(), crate::remote::Freshness::Linearizable).await?;
        match seen.found {
            Some(seen) if seen.value == slot.done() => {
                slot.revision = seen.mod_revision;
                Ok(Ended::Known(self.found_done(change, seen.mod_revision).await?))
            }
            _ => Err(error),
        }
    }

    /// The answer of a change that was done, but whose own answer was lost: what it read is read as of its
    /// revision, or as it is now if that is compacted by now.
    async fn found_done(&self, change: &Change, revision: Revision) -> Result<Committed, RemoteError> {
        let mut reads = wire::reads(&change.then, revision);
        let responses = if reads.success.is_empty() {
            Vec::new()
        } else {
            let answer = match self.reach.ask(|| async { self.client.kv().txn(reads.clone()).await }).await {
                Err(RemoteError::Compacted(_)) => {
                    reads = wire::reads(&change.then, Revision(0));
                    self.reach.ask(|| async { self.client.kv().txn(reads.clone()).await }).await?
                }
                answer => answer?,
            };
            answer.responses
        };
        let answers = wire::read_answers(&change.then, responses)?;
        Ok(Committed { revision, succeeded: true, answers })
    }

    async fn session(&self) -> Result<Arc<Session>, RemoteError> {
        let mut open = self.sessions.open.lock().await;
        if let Some(session) = &*open {
            return Ok(session.clone());
        }
        let lease = new_lease();
        self.reach.ask_again(|again| self.grant(lease, SESSION_TTL_SECONDS, again)).await?;
        let session = Arc::new(Session::new(lease, &self.changes(), self.client.lease().keep_alive(lease.0)));
        *open = Some(session.clone());
        Ok(session)
    }

    async fn forget(&self, over: &Arc<Session>) {
        let mut open = self.sessions.open.lock().await;
        if open.as_ref().is_some_and(|session| Arc::ptr_eq(session, over)) {
            tracing::warn!(session = %over.lease, "the mount's session has ended on the server; opening another");
            *open = None;
        }
    }

    pub(super) async fn end_session(&self) -> Result<(), RemoteError> {
        let Some(session) = self.sessions.open.lock().await.take() else { return Ok(()) };
        match self.lease_revoke(session.lease).await {
            Err(RemoteError::NoSuchLease) => Ok(()),
            done => done,
        }
    }
}
