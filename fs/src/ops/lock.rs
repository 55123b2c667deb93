//! flock(2) and fcntl(2) locks, cluster-wide.
//!
//! A request reads the file's records, waits by a watch for what stands in its way, and takes its lock by one
//! transaction; `lock` has the rules, `session` what becomes of a mount's locks when their lease is lost. A request
//! is carried out by a task of its own, so that a signal to its caller leaves neither a lock nor a record behind.

mod session;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use self::session::LockSession;
use super::Fs;
use super::put::FsRef;
use crate::config::LockScope;
use crate::errno::OpError;
use crate::lock::{
    Held, Holder, Mode, Obstacle, Queue, Request, Span, Spans, held_key, range_of, waiting_key,
};
use crate::node::{Kind, NodeId};
use crate::remote::{
    At, Change, Compare, Freshness, Lease, LeaseId, Op, PageRequest, RemoteError, Revision, Watched,
};

/// Records of one file's locks that are read; more are an error, not a guess.
const RECORDS_MAX: u32 = 10_000;

/// Before a waiting request begins again whose watch has failed.
const BEGIN_AGAIN: Duration = Duration::from_millis(200);

/// Whom the kernel asks for: an open file, or a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Owner(pub(crate) u64);

/// A lock that a program wants, or lets go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SetLock {
    pub(crate) owner: Owner,
    /// The process.
    pub(crate) pid: u32,
    pub(crate) span: Span,
    /// `None` unlocks.
    pub(crate) mode: Option<Mode>,
    /// Waits until it can have it.
    pub(crate) wait: bool,
}

/// What F_GETLK answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LockSeen {
    pub(crate) span: Span,
    pub(crate) mode: Mode,
    /// 0 for a process of another mount.
    pub(crate) pid: u32,
}

/// The locks that this mount holds.
#[derive(Debug, Default)]
pub(super) struct Locks {
    /// Held while a session is opened, so that there is one.
    open: tokio::sync::Mutex<()>,
    /// Taken for a few lines; under it, no other lock.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    session: Option<Arc<LockSession>>,
    held: Vec<Holding>,
    requests: u64,
}

/// What one owner holds of one file.
#[derive(Clone, Debug)]
struct Holding {
    file: Bytes,
    node: NodeId,
    owner: Owner,
    pid: u32,
    spans: Spans,
    /// At which the newest of it was granted.
    revision: Revision,
    session: Arc<LockSession>,
    /// Its session's lease is lost: somebody else may have it by now.
    lost: bool,
}

/// A file's lock records, for one owner of this mount.
struct File<'f> {
    fs: &'f Fs,
    name: Bytes,
    node: NodeId,
    owner: Owner,
    pid: u32,
}

impl Fs {
    pub(crate) async fn set_lock(self: &FsRef, id: NodeId, set: SetLock) -> Result<(), OpError> {
        let Some(mode) = set.mode else {
            return self.unlock_surely(id, set.owner, Some(set.span)).await;
        };
        let name = self.lock_file(id)?;
        let request = Wanted { name, node: id, set, mode };
        if !set.wait {
            return self.acquire(request, &CancellationToken::new()).await;
        }
        Waiting::begin(self, request).end().await
    }

    /// The lock that would keep a program from having its own.
    pub(crate) async fn get_lock(
        &self,
        id: NodeId,
        owner: Owner,
        span: Span,
        mode: Mode,
    ) -> Result<Option<LockSeen>, OpError> {
        let name = self.lock_file(id)?;
        let queue = self.lock_queue(&name).await?;
        let session = self.locks.state.lock().session.as_ref().map_or(LeaseId(0), |session| session.lease);
        Ok(queue.conflict(Holder { session, owner: owner.0 }, span, mode).map(
            |Obstacle { holder, span, mode, pid }| LockSeen {
                span,
                mode,
                pid: if holder.session == session { pid } else { 0 },
            },
        ))
    }

    /// True iff `owner` holds anything at all: most who close a file do not.
    pub(crate) fn has_locks(&self, owner: Owner) -> bool {
        self.locks.state.lock().held.iter().any(|holding| holding.owner == owner)
    }

    /// Lets go of a range of what `owner` holds of a file, or of all of it. A lock that is lost is forgotten.
    async fn unlock(&self, id: NodeId, owner: Owner, span: Option<Span>) -> Result<(), OpError> {
        let name = self.nodes.with(|table| table.key_of(id));
        let ours = |holding: &Holding| {
            holding.owner == owner && (holding.node == id || Some(&holding.file) == name.as_ref())
        };
        let files: Vec<Bytes> = {
            let state = self.locks.state.lock();
            state.held.iter().filter(|holding| ours(holding)).map(|holding| holding.file.clone()).collect()
        };
        for file in files {
            self.unlock_file(&file, owner, span).await?;
        }
        Ok(())
    }

    /// The same by a task of its own: what is let go stays so, whoever stops waiting for it.
    pub(super) async fn unlock_surely(
        self: &FsRef,
        id: NodeId,
        owner: Owner,
        span: Option<Span>,
    ) -> Result<(), OpError> {
        let fs = self.clone();
        let task = self.tasks.spawn_on(async move { fs.unlock(id, owner, span).await }, &self.runtime);
        task.await.unwrap_or(Err(OpError::Interrupted))
    }

    async fn unlock_file(&self, file: &Bytes, owner: Owner, span: Option<Span>) -> Result<(), OpError> {
        let _turn = self.lock_turn(file).await;
        let Some(holding) = self.locks.holding(file, owner) else { return Ok(()) };
        let mut spans = holding.spans.clone();
        match span {
            Some(span) => spans.set(span, None),
            None => spans = Spans::default(),
        }
        if holding.lost {
            self.locks.keep(&holding, spans);
            return Ok(());
        }
        let record = held_key(file, Holder { session: holding.session.lease, owner: owner.0 });
        let mut change = Change { compares: vec![Compare::Present(record.clone())], ..Change::default() };
        change.then.push(if spans.is_empty() {
            Op::Delete(record)
        } else {
            let held = Held { spans: spans.clone(), pid: holding.pid, host: host() };
            Op::Put { key: record, value: held.value(), lease: Lease::Keep }
        });
        // By the remote itself: what is let go needs no proof that it was held.
        match self.remote.commit(change).await {
            Ok(committed) if committed.succeeded => self.locks.keep(&holding, spans),
            Ok(_) | Err(RemoteError::NoSuchLease) => {
                self.locks_lost(&holding.session);
                self.locks.keep(&holding, spans);
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// The key whose locks an inode's are.
    fn lock_file(&self, id: NodeId) -> Result<Bytes, OpError> {
        if self.view.locks != LockScope::Cluster || self.view.read_only {
            return Err(OpError::NoLocks);
        }
        match self.kind_of(id)? {
            Kind::File => {
                let name = self.nodes.with(|table| table.key_of(id)).ok_or(OpError::Stale)?;
                let may_lock = self.remote.may_write(&range_of(&name).start);
                may_lock.then_some(name).ok_or(OpError::NoLocks)
            }
            Kind::Dir | Kind::Link => Err(OpError::NoLocks),
        }
    }

    async fn lock_queue(&self, name: &Bytes) -> Result<Queue, OpError> {
        let page = PageRequest {
            range: range_of(name),
            limit: RECORDS_MAX,
            keys_only: false,
            how: Freshness::Linearizable,
        };
        let At { revision, found } = self.remote.page(page).await?;
        if found.more { Err(OpError::NoLocks) } else { Ok(Queue::new(name, revision, &found.kvs)) }
    }

    /// One change of a file's locks by this mount at a time.
    async fn lock_turn(&self, name: &Bytes) -> super::put::Turn {
        self.turn(&range_of(name).start).await
    }

    async fn acquire(&self, wanted: Wanted, given_up: &CancellationToken) -> Result<(), OpError> {
        let Wanted { name, node, set, mode } = wanted;
        let file = File { fs: self, name, node, owner: set.owner, pid: set.pid };
        loop {
            let session = self.lock_session().await?;
            let holder = Holder { session: session.lease, owner: set.owner.0 };
            let request = Request { holder, span: set.span, mode, waits_as: None };
            match file.acquire_in(&session, request, set.wait, given_up).await {
                Err(OpError::LocksLost | OpError::Remote(RemoteError::NoSuchLease)) => {
                    // An owner that had locks has lost them: it must hear of that, and not of a new lock.
                    let had = self.locks.holding(&file.name, set.owner).is_some();
                    self.locks_lost(&session);
                    if had {
                        return Err(OpError::LocksLost);
                    }
                }
                done => return done,
            }
        }
    }
}

/// One request, whole.
#[derive(Debug)]
struct Wanted {
    name: Bytes,
    node: NodeId,
    set: SetLock,
    mode: Mode,
}

impl File<'_> {
    async fn acquire_in(
        &self,
        session: &Arc<LockSession>,
        mut request: Request,
        wait: bool,
        given_up: &CancellationToken,
    ) -> Result<(), OpError> {
        let mut queue = self.fs.lock_queue(&self.name).await?;
        loop {
            match queue.obstacle(&request) {
                None => {
                    if self.take(session, &request, &queue).await? {
                        return Ok(());
                    }
                }
                Some(_) if !wait => return Err(OpError::WouldBlock),
                Some(_) => {
                    request.waits_as = Some(self.line_up(session, &request).await?);
                    let done = self.wait_in_line(session, &request, given_up).await;
                    if done.is_err() {
                        self.leave_line(session, &request).await;
                    }
                    return done;
                }
            }
            queue = self.fs.lock_queue(&self.name).await?;
        }
    }

    /// Takes the lock, if no record of the file was put since `queue` was so.
    async fn take(
        &self,
        session: &Arc<LockSession>,
        request: &Request,
        queue: &Queue,
    ) -> Result<bool, OpError> {
        let _turn = self.fs.lock_turn(&self.name).await;
        let before = self.fs.locks.holding(&self.name, self.owner);
        if before.as_ref().is_some_and(|holding| holding.lost) {
            return Err(OpError::LocksLost);
        }
        let mut spans = before.map(|holding| holding.spans).unwrap_or_default();
        spans.set(request.span, Some(request.mode));
        let held = Held { spans: spans.clone(), pid: self.pid, host: host() };
        let mut change = Change {
            compares: vec![Compare::NotPutSince(range_of(&self.name), queue.revision), session.still()],
            then: vec![Op::Put {
                key: held_key(&self.name, request.holder),
                value: held.value(),
                lease: Lease::To(session.lease),
            }],
            otherwise: vec![Op::Get(session.record.clone())],
        };
        if let Some(number) = request.waits_as {
            let waiting = waiting_key(&self.name, Holder { owner: number, ..request.holder });
            change.then.push(Op::Delete(waiting));
        }
        let committed = self.fs.remote.commit(change).await?;
        if committed.succeeded {
            self.fs.locks.grant(Holding {
                file: self.name.clone(),
                node: self.node,
                owner: self.owner,
                pid: self.pid,
                spans,
                revision: committed.revision,
                session: session.clone(),
                lost: false,
            });
        } else if !session.stands(&committed.answers) {
            return Err(OpError::LocksLost);
        }
        Ok(committed.succeeded)
    }

    /// Puts the record of a request that waits; its number.
    async fn line_up(&self, session: &LockSession, request: &Request) -> Result<u64, OpError> {
        let number = self.fs.locks.next_request();
        let mut spans = Spans::default();
        spans.set(request.span, Some(request.mode));
        let held = Held { spans, pid: self.pid, host: host() };
        let change = Change {
            compares: vec![session.still()],
            then: vec![Op::Put {
                key: waiting_key(&self.name, Holder { owner: number, ..request.holder }),
                value: held.value(),
                lease: Lease::To(session.lease),
            }],
            otherwise: Vec::new(),
        };
        let committed = self.fs.remote.commit(change).await?;
        if committed.succeeded { Ok(number) } else { Err(OpError::LocksLost) }
    }

    /// Waits for its turn, by a watch of the file's records, and takes the lock.
    async fn wait_in_line(
        &self,
        session: &Arc<LockSession>,
        request: &Request,
        given_up: &CancellationToken,
    ) -> Result<(), OpError> {
        loop {
            let mut queue = self.fs.lock_queue(&self.name).await?;
            let ranges = vec![range_of(&self.name), session.range()];
            let mut watch = self.fs.remote.watch(ranges, Revision(queue.revision.0 + 1));
            loop {
                if queue.obstacle(request).is_none() && self.take(session, request, &queue).await? {
                    return Ok(());
                }
                // Who takes a lock after it was given up must let it go: see `Waiting`.
                let watched = tokio::select! {
                    watched = watch.next() => watched,
                    () = given_up.cancelled() => return Err(OpError::Interrupted),
                };
                match watched {
                    Some(Ok(Watched::Changed(changed))) => {
                        if session.ended_by(&changed) {
                            return Err(OpError::LocksLost);
                        }
                        queue.take(&changed);
                    }
                    Some(Ok(_)) => {}
                    Some(Err(error)) => {
                        tracing::debug!(%error, "the watch of a lock begins again");
                        break;
                    }
                    None => return Err(OpError::Remote(RemoteError::Closed)),
                }
            }
            sleep(BEGIN_AGAIN).await;
        }
    }

    async fn leave_line(&self, session: &LockSession, request: &Request) {
        let Some(number) = request.waits_as else { return };
        let record = waiting_key(&self.name, Holder { session: session.lease, owner: number });
        let change = Change { then: vec![Op::Delete(record)], ..Change::default() };
        if let Err(error) = self.fs.remote.commit(change).await {
            tracing::warn!(%error, "a lock request that was given up waits until the session ends");
        }
    }
}

/// A request under way. Dropped before its end (its caller has a signal), it is given up, and what it got all the
/// same is let go: also what an earlier lock of this owner had of the same range.
struct Waiting {
    fs: FsRef,
    given_up: CancellationToken,
    node: NodeId,
    owner: Owner,
    span: Span,
    task: Option<JoinHandle<Result<(), OpError>>>,
}

impl Waiting {
    fn begin(fs: &FsRef, wanted: Wanted) -> Self {
        let given_up = CancellationToken::new();
        let (node, SetLock { owner, span, .. }) = (wanted.node, wanted.set);
        let (of_task, token) = (fs.clone(), given_up.clone());
        let task = fs.runtime.spawn(async move { of_task.acquire(wanted, &token).await });
        Self { fs: fs.clone(), given_up, node, owner, span, task: Some(task) }
    }

    async fn end(mut self) -> Result<(), OpError> {
        let Some(task) = &mut self.task else { return Err(OpError::Interrupted) };
        let done = task.await;
        self.task = None;
        done.unwrap_or(Err(OpError::Interrupted))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let Some(task) = self.task.take() else { return };
        self.given_up.cancel();
        let (fs, node, owner, span) = (self.fs.clone(), self.node, self.owner, self.span);
        self.fs.runtime.spawn(async move {
            if let Ok(Ok(())) = task.await
                && let Err(error) = fs.unlock(node, owner, Some(span)).await
            {
                tracing::warn!(%error, "a lock that was given up could not be let go");
            }
        });
    }
}

impl Locks {
    fn holding(&self, file: &[u8], owner: Owner) -> Option<Holding> {
        let state = self.state.lock();
        state.held.iter().find(|holding| holding.file == file && holding.owner == owner).cloned()
    }

    fn grant(&self, holding: Holding) {
        let mut state = self.state.lock();
        state.held.retain(|old| old.file != holding.file || old.owner != holding.owner);
        state.held.push(holding);
    }

    /// Only `spans` is left of what was held.
    fn keep(&self, holding: &Holding, spans: Spans) {
        let mut state = self.state.lock();
        let same = |old: &Holding| old.file == holding.file && old.owner == holding.owner;
        if spans.is_empty() {
            state.held.retain(|old| !same(old));
        } else if let Some(old) = state.held.iter_mut().find(|old| same(old)) {
            old.spans = spans;
        }
    }

    fn next_request(&self) -> u64 {
        let mut state = self.state.lock();
        state.requests += 1;
        state.requests
    }

    /// How many locks there are, and how many are lost.
    pub(super) fn counts(&self) -> (usize, usize) {
        let state = self.state.lock();
        let lost = state.held.iter().filter(|holding| holding.lost).count();
        (state.held.len() - lost, lost)
    }

    /// The fencing token: at which revision this mount got its newest lock of a file.
    pub(super) fn revision_of(&self, file: &[u8]) -> Option<Revision> {
        let state = self.state.lock();
        let held = state.held.iter().filter(|holding| holding.file == file && !holding.lost);
        held.map(|holding| holding.revision).max()
    }
}

/// This host's name, for people.
fn host() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    name.replace(char::is_whitespace, "_")
}
