//! When leases end: the leader's clock.
//!
//! Which leases exist is the replicated table's to say; how much time each has
//! left is known to the leader alone, from the moment it leads. A new leader
//! gives every lease its whole time (or what the last checkpoint left), so an
//! end may come late but never early. An end goes through the log like any
//! other change, with the term in which it was decided: a leader that was
//! deposed without noticing ends nothing.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use etcfs_proto::etcfs::command::{LeaseExpire, Request, request::Body};
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, mpsc, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    deadlines::{Deadlines, Renewal},
    table::{LeaseChange, LeaseFacts, TableHandle},
};
use crate::propose::{MemberStatus, Proposer};

/// Leases that one log entry ends.
const EXPIRE_BATCH_MAX: usize = 1000;
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
}

/// The lease clock; cheap to clone.
#[derive(Clone, Debug)]
pub struct Lessor(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    table: TableHandle,
    /// Never held while another lock is taken.
    clock: Mutex<Clock>,
    /// Wakes keep-alives that wait for a lease's end.
    ended: Notify,
    renewed: prometheus::IntCounter,
    expired: prometheus::IntCounter,
}

#[derive(Debug, Default)]
struct Clock {
    /// The term that this member leads, if it does.
    leads: Option<u64>,
    deadlines: Deadlines,
}

impl Lessor {
    pub fn new(table: TableHandle, renewed: prometheus::IntCounter, expired: prometheus::IntCounter) -> Self {
        let clock = Mutex::default();
        Self(Arc::new(Shared { table, clock, ended: Notify::new(), renewed, expired }))
    }

    /// Gives a lease its whole time again.
    ///
    /// A lease whose end is under way is answered once the end is known.
    pub async fn keep_alive(&self, id: i64) -> KeepAlive {
        loop {
            // Registered before the look at the clock: an end between the two wakes it.
            let ended = self.0.ended.notified();
            let Some(facts) = self.0.table.lookup(id) else { return KeepAlive::Gone };
            match self.renew(&facts) {
                None => return KeepAlive::NotLeader,
                Some(Renewal::Ending) => ended.await,
                Some(Renewal::Renewed | Renewal::Unknown) => {
                    self.0.renewed.inc();
                    return KeepAlive::Renewed(facts.ttl);
                }
            }
        }
    }

    /// Nothing where this member does not lead.
    fn renew(&self, facts: &LeaseFacts) -> Option<Renewal> {
        let mut clock = self.0.clock.lock();
        clock.leads?;
        let now = Instant::now();
        let renewal = clock.deadlines.renew(facts.id, now);
        if renewal == Renewal::Unknown {
            // Granted this instant; the table is ahead of our news of it.
            clock.start(&LeaseFacts { remaining_ttl: 0, ..*facts }, now);
        }
        Some(renewal)
    }

    /// What a lease was granted and has left; none for an unknown lease.
    pub fn time_to_live(&self, id: i64) -> Option<TimeToLive> {
        let facts = self.0.table.lookup(id)?;
        let clock = self.0.clock.lock();
        // A member that does not lead does not know; the whole time is what a
        // new leader would give.
        let left = clock.deadlines.left(id, Instant::now()).filter(|_| clock.leads.is_some());
        let left = left.map_or(facts.ttl, |left| i64::try_from(left.as_secs()).unwrap_or(i64::MAX));
        Some(TimeToLive { granted: facts.ttl, left })
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
    pub async fn run(
        self,
        proposer: Proposer,
        mut status: watch::Receiver<MemberStatus>,
        shutdown: CancellationToken,
    ) {
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
            let next = self.0.clock.lock().next();
            tokio::select! {
                () = shutdown.cancelled() => return,
                changed = status.changed() => match changed {
                    Ok(()) => self.lead(&status.borrow_and_update().clone()),
                    Err(_) => return,
                },
                _ = changes.recv_many(&mut batch, CHANGES_BATCH_MAX) => {
                    self.learn(batch.drain(..));
                }
                () = until(next) => self.expire(&proposer).await,
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
                // The leader's own clock is what the checkpoint was taken from.
                LeaseChange::Checkpointed(_) => {}
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

    async fn expire(&self, proposer: &Proposer) {
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
        match proposer.write(Request { body: Some(body) }).await {
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
        self.deadlines.start(facts.id, seconds(facts.ttl), seconds(left), now);
    }

    fn next(&self) -> Option<Instant> {
        self.leads.and_then(|_| self.deadlines.next())
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
