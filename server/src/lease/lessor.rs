//! When leases end: the leader's clock.
//!
//! Which leases exist is the replicated table's to say; how much time each has
//! left is known to the leader alone, from the moment it leads. A new leader
//! gives every lease its whole time (or what the last checkpoint left), so an
//! end may come late but never early. An end goes through the log like any
//! other change, with the term in which it was decided: a leader that was
//! deposed without noticing ends nothing.
//!
//! A renewal, or what is left, is told only once the leader has made sure, after it, that it
//! still leads: then no other clock began before; and that it has applied what leaders
//! before it acknowledged: then the lease was not ended by one of them. What is
//! left of long leases is noted in the log now and then, so that a new leader need
//! not start all over; a renewal of a noted lease is told only once the note is lifted.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use etcfs_proto::{
    etcdserverpb::LeaseCheckpoint,
    etcfs::command::{LeaseCheckpoints, LeaseExpire, Request, request::Body},
};
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, RwLock, mpsc, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    deadlines::{Deadlines, Renewal},
    table::{LeaseChange, LeaseFacts, TableHandle},
};
use crate::propose::{MemberStatus, Proposer, ReadBarrier};

/// Leases that one log entry ends.
const EXPIRE_BATCH_MAX: usize = 1000;
/// Leases that one log entry notes the remainder of.
const CHECKPOINT_BATCH_MAX: usize = 1000;
/// A lease whose end could not be proposed is tried again after this.
const EXPIRE_RETRY: Duration = Duration::from_millis(500);
/// Changes of the table taken in one go.
const CHANGES_BATCH_MAX: usize = 4096;

/// What a keep-alive came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepAlive {
    /// Renewed for so many seconds.
    Renewed(i64),
    /// No such lease, or none any more.
    Gone,
    /// This member is not the leader, whose clock counts.
    NotLeader,
}

/// Whole seconds of one lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeToLive {
    pub granted: i64,
    pub left: i64,
    /// In which the clock that says so leads.
    pub term: u64,
}

/// This member's clock does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotLeader;

/// The lease clock; cheap to clone.
#[derive(Clone, Debug)]
pub struct Lessor(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    table: TableHandle,
    proposer: Proposer,
    barrier: ReadBarrier,
    /// Held to note what is left of leases, and shared to lift such notes: so a note never
    /// enters the log behind the lift that was meant for it.
    notes: RwLock<()>,
    /// Never held while another lock is taken.
    clock: Mutex<Clock>,
    /// Wakes keep-alives that wait for a lease's end.
    ended: Notify,
    renewed: prometheus::IntCounter,
    expired: prometheus::IntCounter,
}

#[derive(Debug)]
struct Clock {
    /// The term that this member leads, if it does.
    leads: Option<u64>,
    deadlines: Deadlines,
}

impl Lessor {
    pub fn new(
        table: TableHandle,
        proposer: Proposer,
        barrier: ReadBarrier,
        renewed: prometheus::IntCounter,
        expired: prometheus::IntCounter,
        checkpoint_interval: Duration,
    ) -> Self {
        let clock = Mutex::new(Clock { leads: None, deadlines: Deadlines::new(checkpoint_interval) });
        let (ended, notes) = (Notify::new(), RwLock::default());
        Self(Arc::new(Shared { table, proposer, barrier, notes, clock, ended, renewed, expired }))
    }

    /// True if this member's clock counts.
    fn leads(&self) -> bool {
        self.0.clock.lock().leads.is_some()
    }

    /// Gives a lease its whole time again.
    ///
    /// A lease whose end is under way is answered once the end is known.
    pub async fn keep_alive(&self, id: i64) -> KeepAlive {
        loop {
            // Registered before the look at the clock: an end between the two wakes it.
            let ended = self.0.ended.notified();
            if !self.leads() {
                return KeepAlive::NotLeader;
            }
            let facts = match self.0.table.lookup(id) {
                Some(facts) => facts,
                // A new leader may have more in its log than it has applied.
                None if self.0.barrier.wait().await.is_err() => return KeepAlive::NotLeader,
                None => match self.0.table.lookup(id) {
                    Some(facts) => facts,
                    None => return KeepAlive::Gone,
                },
            };
            let Some((term, at, renewal)) = self.renew(&facts) else { return KeepAlive::NotLeader };
            let is_sure = match renewal {
                Renewal::Ending => {
                    ended.await;
                    continue;
                }
                Renewal::Noted => self.lift(id, term, at).await,
                Renewal::Renewed | Renewal::Unknown => self.0.barrier.leads(term).await,
            };
            if !is_sure {
                return KeepAlive::NotLeader;
            }
            // Now that this member has applied all that earlier leaders acknowledged.
            if let Some(told) = came_to(&facts, self.0.table.lookup(id)) {
                self.0.renewed.inc_by(u64::from(told != KeepAlive::Gone));
                return told;
            }
        }
    }

    /// In which term and when it was renewed; nothing where this member does not lead.
    fn renew(&self, facts: &LeaseFacts) -> Option<(u64, Instant, Renewal)> {
        let mut clock = self.0.clock.lock();
        let term = clock.leads?;
        let now = Instant::now();
        let mut renewal = clock.deadlines.renew(facts.id, now);
        if renewal == Renewal::Unknown {
            // Granted this instant; the table is ahead of our news of it.
            clock.start(facts, now);
            renewal = clock.deadlines.renew(facts.id, now);
        }
        Some((term, now, renewal))
    }

    /// Has the log forget what was left of a renewed lease; false if it may not have.
    async fn lift(&self, id: i64, term: u64, renewed: Instant) -> bool {
        let _shared = self.0.notes.read().await;
        let checkpoints = vec![LeaseCheckpoint { id, remaining_ttl: 0 }];
        if !self.note(checkpoints, term).await {
            return false;
        }
        let mut clock = self.0.clock.lock();
        if clock.leads == Some(term) {
            clock.deadlines.lifted(id, renewed);
        }
        // It was applied in that term, so this member led after the renewal.
        true
    }

    async fn note(&self, checkpoints: Vec<LeaseCheckpoint>, term: u64) -> bool {
        let body = Body::LeaseCheckpoint(LeaseCheckpoints { checkpoints, term });
        match self.0.proposer.write(Request { body: Some(body) }).await {
            Ok(_) => true,
            Err(error) => {
                tracing::debug!(%error, "what is left of leases could not be noted");
                false
            }
        }
    }

    /// What a lease was granted and has left; none for an unknown lease.
    ///
    /// As with a renewal, this member makes sure afterwards that it still leads: one that was
    /// deposed without noticing knows nothing of what others have renewed.
    pub async fn time_to_live(&self, id: i64) -> Result<Option<TimeToLive>, NotLeader> {
        let (term, left) = {
            let clock = self.0.clock.lock();
            (clock.leads.ok_or(NotLeader)?, clock.deadlines.left(id, Instant::now()))
        };
        if !self.0.barrier.leads(term).await {
            return Err(NotLeader);
        }
        // Now that all is applied that leaders before have ended.
        Ok(self.0.table.lookup(id).map(|facts| {
            // No deadline yet: it was granted this instant.
            let left = left.map_or(facts.ttl, |left| i64::try_from(left.as_secs()).unwrap_or(i64::MAX));
            TimeToLive { granted: facts.ttl, left, term }
        }))
    }

    /// Keys that end with a lease, in order.
    pub fn keys(&self, id: i64) -> Vec<Bytes> {
        self.0.table.keys(id).unwrap_or_default()
    }

    /// All leases, the next to end first.
    pub fn by_end(&self) -> Vec<i64> {
        let mut ids = self.0.table.ids();
        let clock = self.0.clock.lock();
        ids.sort_by_key(|&id| {
            let ends = clock.deadlines.ends(id);
            // Granted this instant, and no deadline yet: last.
            (ends.is_none(), ends)
        });
        ids
    }

    /// Follows the table and ends what is due, until `shutdown`.
    pub async fn run(self, mut status: watch::Receiver<MemberStatus>, shutdown: CancellationToken) {
        let (sender, mut changes) = mpsc::unbounded_channel();
        // The channel holds what apply did since the last turn of the loop
        // below, which never waits longer than one proposal takes.
        let standing = self.0.table.follow(Box::new(move |change| {
            // Closed means shut down: nobody is left to tell.
            let _ = sender.send(change);
        }));
        drop(standing);
        self.lead(&status.borrow_and_update().clone());
        let mut batch = Vec::new();
        loop {
            let (next, next_checkpoint) = self.0.clock.lock().next();
            tokio::select! {
                () = shutdown.cancelled() => return,
                changed = status.changed() => match changed {
                    Ok(()) => self.lead(&status.borrow_and_update().clone()),
                    Err(_) => return,
                },
                _ = changes.recv_many(&mut batch, CHANGES_BATCH_MAX) => {
                    self.learn(batch.drain(..));
                }
                () = until(next) => self.expire().await,
                () = until(next_checkpoint) => self.checkpoint().await,
            }
        }
    }

    /// Starts the clock of a term, or stops it.
    fn lead(&self, status: &MemberStatus) {
        let leads = (status.leader == Some(status.member_id)).then_some(status.term);
        if self.0.clock.lock().leads == leads {
            return;
        }
        let standing = if leads.is_some() { self.0.table.all() } else { Vec::new() };
        let mut clock = self.0.clock.lock();
        clock.deadlines.clear();
        clock.leads = leads;
        let now = Instant::now();
        standing.iter().for_each(|facts| clock.start(facts, now));
        drop(clock);
        self.0.ended.notify_waiters();
    }

    fn learn(&self, changes: impl Iterator<Item = LeaseChange>) {
        let now = Instant::now();
        let mut ended = false;
        for change in changes {
            match change {
                LeaseChange::Granted(facts) => {
                    let mut clock = self.0.clock.lock();
                    if clock.leads.is_some() {
                        clock.start(&facts, now);
                    }
                }
                LeaseChange::Revoked(id) => {
                    self.0.clock.lock().deadlines.remove(id);
                    ended = true;
                }
                LeaseChange::Checkpointed(facts) => self.0.clock.lock().heed(&facts, now),
                LeaseChange::Replaced => {
                    let standing = self.0.table.all();
                    let mut clock = self.0.clock.lock();
                    clock.deadlines.clear();
                    if clock.leads.is_some() {
                        standing.iter().for_each(|facts| clock.start(facts, now));
                    }
                    ended = true;
                }
            }
        }
        if ended {
            self.0.ended.notify_waiters();
        }
    }

    /// Notes what is left of long leases that nobody has renewed for a while.
    async fn checkpoint(&self) {
        let _alone = self.0.notes.write().await;
        let (due, term) = {
            let mut clock = self.0.clock.lock();
            let Some(term) = clock.leads else { return };
            (clock.deadlines.take_checkpoints(Instant::now(), CHECKPOINT_BATCH_MAX), term)
        };
        let noted =
            |(id, left)| LeaseCheckpoint { id, remaining_ttl: i64::try_from(left).unwrap_or(i64::MAX) };
        let checkpoints: Vec<_> = due.into_iter().map(noted).collect();
        if !checkpoints.is_empty() {
            // One that fails is noted again when its time comes.
            self.note(checkpoints, term).await;
        }
    }

    async fn expire(&self) {
        let (mut ids, term) = {
            let mut clock = self.0.clock.lock();
            let Some(term) = clock.leads else { return };
            (clock.deadlines.take_due(Instant::now(), EXPIRE_BATCH_MAX, EXPIRE_RETRY), term)
        };
        // A keep-alive may have crossed the revocation of its lease, and left
        // a clock that no further news will stop.
        let gone: Vec<i64> = ids.extract_if(.., |id| self.0.table.lookup(*id).is_none()).collect();
        if !gone.is_empty() {
            let mut clock = self.0.clock.lock();
            gone.iter().for_each(|id| clock.deadlines.remove(*id));
        }
        if ids.is_empty() {
            return;
        }
        let count = ids.len();
        let body = Body::LeaseExpire(LeaseExpire { ids, term });
        match self.0.proposer.write(Request { body: Some(body) }).await {
            Ok(_) => {
                tracing::debug!(count, "leases expired");
                self.0.expired.inc_by(count as u64);
            }
            // They stay due and come up again.
            Err(error) => tracing::warn!(count, %error, "could not end expired leases yet"),
        }
    }
}

impl Clock {
    fn start(&mut self, facts: &LeaseFacts, now: Instant) {
        let seconds = |ttl: i64| Duration::from_secs(ttl.unsigned_abs());
        let left = if facts.remaining_ttl > 0 { facts.remaining_ttl } else { facts.ttl };
        self.deadlines.start(facts.id, seconds(facts.ttl), seconds(left), facts.remaining_ttl > 0, now);
    }

    /// Takes note of a checkpoint. It may be of a leader before this one, and come
    /// only after this one's clock was started from an older.
    fn heed(&mut self, facts: &LeaseFacts, now: Instant) {
        if self.leads.is_some() {
            self.deadlines.heed(facts.id, facts.remaining_ttl > 0, now);
        }
    }

    /// When an end, and when a checkpoint, may be due.
    fn next(&self) -> (Option<Instant>, Option<Instant>) {
        match self.leads {
            Some(_) => (self.deadlines.next(), self.deadlines.next_checkpoint()),
            None => (None, None),
        }
    }
}

/// What the renewal of a lease with `facts` came to, as the table has the lease `now`; nothing if
/// it was made for another lease of that id. A new leader's table may have lacked the end that an
/// earlier leader gave the lease, and the renewal was of one that is gone.
fn came_to(facts: &LeaseFacts, now: Option<LeaseFacts>) -> Option<KeepAlive> {
    match now {
        None => Some(KeepAlive::Gone),
        Some(now) if now.ttl == facts.ttl => Some(KeepAlive::Renewed(now.ttl)),
        Some(_) => None,
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A new leader used to renew a lease whose end it had not applied yet: the lease was told gone,
    /// and then renewed.
    #[test]
    fn a_renewal_counts_only_if_the_lease_is_there_after_it_was_made_sure() {
        let facts = LeaseFacts { id: 1, ttl: 10, remaining_ttl: 0 };
        assert_eq!(came_to(&facts, None), Some(KeepAlive::Gone));
        assert_eq!(came_to(&facts, Some(facts)), Some(KeepAlive::Renewed(10)));
        let noted = LeaseFacts { remaining_ttl: 7, ..facts };
        assert_eq!(came_to(&facts, Some(noted)), Some(KeepAlive::Renewed(10)), "its whole time again");
        let another = LeaseFacts { ttl: 20, ..facts };
        assert_eq!(came_to(&facts, Some(another)), None, "granted anew for another time");
    }
}
