//! The file operations, one file each, in keys and plain data: no fuser type, no
//! errno number.
//!
//! An operation that can be answered from what is cached is a plain function, so
//! that the kernel's request is answered on the thread that read it; the rest are
//! async and run as tasks. Each answers exactly or fails.

mod attr;
mod create;
mod dir;
mod echo;
mod interrupt;
mod lock;
mod lookup;
mod measure;
mod openers;
mod put;
mod read;
#[cfg(test)]
mod reference;
mod remove;
mod rename;
mod scratch;
mod statfs;
#[cfg(test)]
pub(crate) mod test_mount;
mod trust;
mod virtuals;
mod write;
mod xattr;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::View;
use crate::errno::OpError;
use crate::map::{Dir, Key, KeyMap};
use crate::metrics::{Counts, Metrics};
use crate::node::{Kind, NodeId, Shared, Trust, Value};
use crate::remote::{LeaseId, Remote, RemoteError, Renewal, Revision};

pub(crate) use attr::{SetAttr, SetTime};
pub(crate) use create::Created;
pub(crate) use echo::HELPER_FH;
pub(crate) use interrupt::{Interrupts, interruptible};
pub(crate) use lock::{LockSeen, Owner, SetLock};
pub(crate) use read::OpenHow;
pub(crate) use rename::RenameHow;
pub(crate) use statfs::BLOCK;
pub(crate) use virtuals::is_virtual;

/// One mounted tree: what the operations work on.
#[derive(Debug)]
pub struct Fs {
    pub(crate) map: KeyMap,
    pub(crate) remote: Arc<dyn Remote>,
    pub(crate) view: View,
    pub(crate) nodes: Shared,
    pub(crate) runtime: Handle,
    /// Leases that this mount renews because somebody set `user.etcfs.keepalive`.
    /// Taken for a few lines, never together with the table's lock.
    renewals: Mutex<HashMap<LeaseId, Renewal>>,
    locks: lock::Locks,
    virtuals: virtuals::Virtuals,
    pub(crate) tasks: TaskTracker,
    pub(crate) started: SystemTime,
    stopping: AtomicBool,
    /// Whether the watch stands.
    trust: watch::Sender<Trust>,
    /// Told of what the server refuses.
    refused: Notify,
    /// Ends what waits for nothing but more work.
    pub(crate) stopped: CancellationToken,
    /// The process that repeats changes for inotify's listeners.
    helper: AtomicU32,
    /// How many files a lookup reads ahead, by how large they were last.
    ahead: AtomicUsize,
    /// As it was last.
    space: Mutex<statfs::Space>,
    counts: Counts,
    /// Where they are asked for, if they are.
    metrics: OnceLock<(SocketAddr, Metrics)>,
}

impl Fs {
    /// Calls and tasks run on `runtime`.
    pub fn new(map: KeyMap, remote: Arc<dyn Remote>, view: View, runtime: Handle) -> Arc<Self> {
        let nodes = Shared::new(map.root(), &view);
        Arc::new(Self {
            map,
            remote,
            nodes,
            runtime,
            renewals: Mutex::new(HashMap::new()),
            locks: lock::Locks::default(),
            virtuals: virtuals::Virtuals::default(),
            tasks: TaskTracker::new(),
            started: SystemTime::now(),
            stopping: AtomicBool::new(false),
            trust: watch::Sender::new(Trust::Given),
            refused: Notify::new(),
            stopped: CancellationToken::new(),
            helper: AtomicU32::new(0),
            ahead: AtomicUsize::new(lookup::AHEAD_MIN),
            space: Mutex::default(),
            counts: Counts::default(),
            metrics: OnceLock::new(),
            view,
        })
    }

    /// Puts what is open and unsaved, and what waits as a scratch file; then ends the
    /// notifier. The remote is still to be closed.
    pub async fn shutdown(self: &Arc<Self>) {
        self.stopping.store(true, Ordering::Relaxed);
        self.stopped.cancel();
        self.put_everything().await;
        self.tasks.close();
        self.tasks.wait().await;
        self.renewals.lock().clear();
        self.end_locks().await;
        self.nodes.close();
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// The directory that an inode is, alive.
    pub(crate) fn dir_of(&self, id: NodeId) -> Result<Dir, OpError> {
        if is_virtual(id) {
            return Err(OpError::ReadOnly);
        }
        let view = self.nodes.with(|table| table.dir_view(id)).ok_or(OpError::NotDirectory)?;
        if view.dead { Err(OpError::NotFound) } else { Ok(view.dir) }
    }

    /// The kind of an inode that the kernel asks about.
    pub(crate) fn kind_of(&self, id: NodeId) -> Result<Kind, OpError> {
        if is_virtual(id) {
            return self.virtuals.kind(id).ok_or(OpError::Stale);
        }
        self.nodes.with(|table| table.kind(id)).ok_or(OpError::Stale)
    }

    pub(crate) fn time_of(&self, rev: i64) -> SystemTime {
        if rev > 1 { self.remote.time_of(Revision(rev)) } else { self.started }
    }

    /// The time of what is changed now and not saved yet.
    fn time_of_unsaved(&self) -> SystemTime {
        self.remote.time_of_next()
    }

    /// What this mount itself keeps in the key space is not written by path, nor is what its user may not write.
    fn writable(&self, key: &[u8]) -> Result<(), OpError> {
        if self.view.read_only {
            return Err(OpError::ReadOnly);
        }
        if self.map.is_own_record(key) {
            return Err(OpError::NotPermitted("the mount's own records are written by the mount alone"));
        }
        if !self.remote.may_write(key) {
            return Err(RemoteError::PermissionDenied.into());
        }
        Ok(())
    }

    fn check_len(&self, len: u64) -> Result<(), OpError> {
        let limit_bytes = self.view.value_bytes_max;
        if len > limit_bytes { Err(OpError::TooBig { limit_bytes }) } else { Ok(()) }
    }
}

/// Work on fewer is done before a thread that could take over has begun.
const LONG_MIN: usize = 2048;

/// Does some work on so many names. Where those are many the runtime's thread, which is the only one, leaves it to
/// another, so that nobody else waits for it.
fn long<T>(names: usize, work: impl FnOnce() -> T) -> T {
    let can_leave = || Handle::current().runtime_flavor() == RuntimeFlavor::MultiThread;
    if names >= LONG_MIN && can_leave() { tokio::task::block_in_place(work) } else { work() }
}

/// A value as it is after this mount's own put at `rev`.
fn put_value(bytes: Bytes, rev: i64, before: Option<&Value>, lease: i64) -> Value {
    match before {
        Some(before) => Value { bytes, create: before.create, rev, version: before.version + 1, lease },
        None => Value { bytes, create: rev, rev, version: 1, lease },
    }
}

fn key(bytes: &Bytes) -> Key {
    Key::from(bytes.clone())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_long_leaves_the_only_thread_of_a_runtime() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build();
        let (other, heard) = mpsc::channel();
        let work = async move {
            tokio::spawn(async move { other.send(()) });
            long(LONG_MIN, || heard.recv_timeout(Duration::from_secs(30)))
        };
        let done = runtime.expect("a runtime").block_on(async { tokio::spawn(work).await });
        assert_eq!(done.expect("it ends"), Ok(()), "another task runs meanwhile");
    }
}
