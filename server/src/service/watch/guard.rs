//! Whether the caller may have each watch of a stream, when it begins and as
//! long as it lasts.
//!
//! etcd asks once. Here every change of users and roles has all watches judged
//! anew, and no event passes that a change before it forbids.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use etcfs_proto::{
    etcdserverpb::{WatchCreateRequest, WatchResponse},
    key::TO_END,
};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{Access, Refusal};
use crate::auth::{self, Caller};

#[derive(Debug)]
pub(super) struct Guard {
    access: Access,
    caller: Result<Caller, Refusal>,
    watches: Mutex<Watches>,
    /// Told when there is something in `lost`.
    wake: Notify,
}

#[derive(Debug, Default)]
struct Watches {
    /// The state of users and roles by which those that stand were judged.
    judged: (bool, u64),
    /// Asked for, in the order in which the answers come; `None` for one that was refused here.
    asked: VecDeque<Option<Span>>,
    standing: HashMap<i64, Span>,
    lost: Vec<(i64, Refusal)>,
}

#[derive(Debug)]
struct Span {
    key: Bytes,
    range_end: Bytes,
}

impl Guard {
    pub(super) fn new(access: Access, caller: Result<Caller, Refusal>) -> Self {
        let watches =
            Watches { judged: (access.auth.is_enabled(), access.auth.revision()), ..Watches::default() };
        Self { access, caller, watches: Mutex::new(watches), wake: Notify::new() }
    }

    /// Whether the caller may have a watch that he asks for. Each is to be answered by one response
    /// that says created, in the order of these calls.
    pub(super) fn admit(&self, request: &WatchCreateRequest) -> Result<(), Refusal> {
        let key = if request.key.is_empty() { Bytes::from_static(TO_END) } else { request.key.clone() };
        let span = Span { key, range_end: request.range_end.clone() };
        let mut watches = self.watches.lock();
        let judged = self.judge(&span, true);
        watches.asked.push_back(judged.is_ok().then_some(span));
        judged
    }

    /// Takes note of an answer on its way out. False: the caller may not see it.
    pub(super) fn passes(&self, answer: &WatchResponse) -> bool {
        let mut watches = self.watches.lock();
        if answer.created {
            if let Some(Some(span)) = watches.asked.pop_front()
                && !answer.canceled
            {
                // Users or roles may have changed since it was asked for.
                match self.judge(&span, false) {
                    Ok(()) => drop(watches.standing.insert(answer.watch_id, span)),
                    Err(refusal) => {
                        watches.lost.push((answer.watch_id, refusal));
                        self.wake.notify_one();
                    }
                }
            }
            return true;
        }
        if answer.canceled {
            watches.standing.remove(&answer.watch_id);
        }
        if answer.events.is_empty() {
            return true;
        }
        self.judge_all(&mut watches);
        watches.standing.contains_key(&answer.watch_id)
    }

    /// Judges all that stand, if users or roles have changed.
    pub(super) fn recheck(&self) {
        self.judge_all(&mut self.watches.lock());
    }

    /// Watches that the caller has lost; waits until there are some.
    pub(super) async fn lost(&self) -> Vec<(i64, Refusal)> {
        loop {
            let lost = std::mem::take(&mut self.watches.lock().lost);
            if !lost.is_empty() {
                return lost;
            }
            self.wake.notified().await;
        }
    }

    fn judge_all(&self, watches: &mut Watches) {
        let now = (self.access.auth.is_enabled(), self.access.auth.revision());
        if watches.judged == now {
            return;
        }
        watches.judged = now;
        let Watches { standing, lost, .. } = watches;
        standing.retain(|&watch_id, span| match self.judge(span, false) {
            Ok(()) => true,
            Err(refusal) => {
                lost.push((watch_id, refusal));
                false
            }
        });
        if !lost.is_empty() {
            self.wake.notify_one();
        }
    }

    /// A new watch takes a token of the present state; one that stands, only the right.
    fn judge(&self, span: &Span, is_new: bool) -> Result<(), Refusal> {
        let auth = &self.access.auth;
        if !auth.is_enabled() {
            return Ok(());
        }
        let rights = match (self.caller.as_ref().map_err(|refusal| *refusal)?, is_new) {
            (Caller::User { name, .. }, false) => Some(auth.rights(name)?),
            (caller, _) => auth.rights_of(caller)?,
        };
        match rights {
            Some(rights) if !rights.permit(auth::Access::Read, &span.key, &span.range_end) => {
                Err(Refusal::PermissionDenied)
            }
            Some(_) | None => Ok(()),
        }
    }
}
