//! The heart: one committed entry after another, and what follows from each, in
//! this order and no other.
//!
//! 1. **apply** changes the state in memory and says what to store and to tell.
//!    Readers do not see it yet.
//! 2. **submit** hands the rows to the image, the applied index among them. From
//!    here on a later checkpoint may cover the entry; the log has it until then.
//! 3. **publish** lets readers see the new revision. After submit, so that whoever
//!    evicts a value that was read can count on the image having it in time.
//! 4. **events** go to the watch hub. After publish, so that a watcher that reads
//!    on an event finds at least what the event told.
//! 5. **answer** to those of this member who proposed. Last: who is answered may at
//!    once read anywhere, or find the event missing.
//!
//! An error here stops the member: the state may not skip an entry.

use std::{
    fmt, io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use etcfs_proto::etcfs::command::{Batch, Request, request::Body};
use futures_util::{Stream, StreamExt};
use openraft::{
    EntryPayload, OptionalSend,
    storage::{EntryResponder, RaftStateMachine},
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    outcomes::Outcomes,
    snapshots::Snapshots,
    types::{self, LogId, Snapshot, SnapshotMeta, StoredMembership, TypeConfig},
};
use crate::{
    apply::{Machine, Outcome},
    storage::{Engine, Image, SnapshotFile, StorageError, Wal, failpoint},
    version::{Incompatible, Version},
    watch::Hub,
};

/// Told of the requests of an entry, what came of each, and how long applying them took.
pub type ApplyFn = Box<dyn Fn(&[Request], &[Outcome], Duration) + Send + Sync>;

/// The state machine as openraft wants it.
pub(super) struct StateMachine {
    pub(super) machine: Machine,
    pub(super) engine: Arc<dyn Engine>,
    pub(super) image: Image,
    /// Must hold what is applied; none in a test of the state machine alone.
    pub(super) wal: Option<Wal>,
    pub(super) hub: Hub,
    pub(super) outcomes: Outcomes,
    pub(super) snapshots: Snapshots,
    /// Entries that took longer than `slow_from`.
    pub(super) slow: Arc<AtomicU64>,
    pub(super) slow_from: Duration,
    /// Told when compacted rows wait to be deleted.
    pub(super) scrub: Arc<tokio::sync::Notify>,
    pub(super) on_apply: ApplyFn,
    /// Cancelled where rows can't be read or written for want of room, and an entry needs them.
    pub(super) start_anew: CancellationToken,
}

impl fmt::Debug for StateMachine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateMachine").field("machine", &self.machine).finish_non_exhaustive()
    }
}

impl StateMachine {
    fn apply_one(&mut self, (entry, responder): EntryResponder<TypeConfig>) -> io::Result<()> {
        let began = Instant::now();
        let id = types::to_id(&entry.log_id);
        let (origin, requests) = match &entry.payload {
            EntryPayload::Normal(command) => (command.batch().origin, command.batch().requests.len()),
            EntryPayload::Blank | EntryPayload::Membership(_) => (None, 0),
        };
        let applied = match &entry.payload {
            EntryPayload::Normal(command) => {
                check_version(command.batch()).map_err(io::Error::other)?;
                let applied = self.machine.apply(&id, command.batch()).map_err(|error| self.failed(error))?;
                (self.on_apply)(&command.batch().requests, &applied.outcomes, began.elapsed());
                applied
            }
            EntryPayload::Blank => self.machine.apply_blank(&id),
            EntryPayload::Membership(membership) => {
                self.machine.apply_membership(&id, types::to_membership(membership))
            }
        };
        tracing::trace!(term = id.term, index = id.index, entry = types::checksum(&entry), "applied");
        self.image.submit(applied.batch);
        self.machine.publish(applied.revision);
        self.hub.publish(applied.events);
        failpoint::kill("raft-after-apply");
        if matches!(&entry.payload, EntryPayload::Membership(them) if them.get_joint_config().len() > 1) {
            failpoint::kill("raft-in-change");
        }
        self.outcomes.applied(id.term, origin.as_ref(), applied.outcomes);
        if let Some(responder) = responder {
            responder.send(());
        }
        let took = began.elapsed();
        if took >= self.slow_from {
            self.slow.fetch_add(1, Ordering::Relaxed);
            let (index, term, expected) = (id.index, id.term, self.slow_from);
            tracing::warn!(?took, ?expected, index, term, requests, "apply request took too long");
        }
        Ok(())
    }

    /// What openraft ends with.
    fn failed(&self, error: StorageError) -> io::Error {
        if error.is_no_space() {
            self.start_anew.cancel();
        }
        io::Error::other(error)
    }

    /// Deletes a chunk of compacted rows, though not while a snapshot is built; true while more wait.
    pub(super) fn scrub(&mut self) -> bool {
        if !self.image.is_building()
            && let Some(batch) = self.machine.scrub()
        {
            self.image.submit(batch);
        }
        self.machine.scrub_pending()
    }
}

/// Refuses what raises the cluster's version above this server's: of the entries after it this one
/// may not know some, and would skip what the others apply.
fn check_version(batch: &Batch) -> Result<(), Incompatible> {
    let raised = batch.requests.iter().filter_map(|request| match &request.body {
        Some(Body::ClusterVersion(raised)) => Some(raised.version.as_str()),
        _ => None,
    });
    raised.into_iter().try_for_each(|version| Version::own().reaches(version))
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotFile;
    type SnapshotBuilder = Snapshots;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let meta = self.machine.meta();
        let membership = types::stored_membership(meta).map_err(io::Error::other)?;
        Ok((meta.applied.as_ref().map(types::from_id), membership))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some(entry) = entries.next().await {
            // Memory is bounded here: an image that falls far behind slows everyone down.
            self.image.room().await;
            let (entry, responder) = entry?;
            // The others may have committed it before it is on this member's disk. The image must
            // not run ahead of the log: after a kill nothing would join the two.
            if let Some(wal) = &self.wal {
                wal.holds(types::to_id(&entry.log_id)).await;
            }
            self.apply_one((entry, responder))?;
        }
        if self.machine.scrub_pending() {
            self.scrub.notify_one();
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self::SnapshotBuilder {
        self.snapshots.clone()
    }

    async fn install_snapshot(
        &mut self,
        _meta: &SnapshotMeta,
        snapshot: SnapshotFile,
    ) -> Result<(), io::Error> {
        Version::own().reaches(&snapshot.meta().cluster_version).map_err(io::Error::other)?;
        let snapshot = self.snapshots.adopt(snapshot).map_err(|error| self.failed(error))?;
        let (index, revision) = (snapshot.index(), snapshot.meta().revision);
        self.image.replace(snapshot).await.map_err(|error| self.failed(error))?;
        self.machine.install(self.engine.clone()).map_err(|error| self.failed(error))?;
        self.hub.replaced();
        self.outcomes.skipped();
        tracing::info!(index, revision, "a snapshot has been installed");
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        self.snapshots.current()
    }
}
