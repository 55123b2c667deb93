//! When each lease ends, by a clock that the caller reads.
//!
//! A renewal only moves a lease's deadline; the queue learns of it when the
//! old deadline comes up and is put back. So a keep-alive costs one map access
//! and 100,000 leases cost one queue entry each, however often they renew.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    time::Duration,
};

use tokio::time::Instant;

use super::room::give_back;

#[derive(Debug)]
pub(super) struct Deadlines {
    /// The remainder of a lease longer than this is noted so often, while nobody renews it.
    checkpoint_interval: Duration,
    leases: HashMap<i64, Timer>,
    /// One entry for each lease; its time is at or before the lease's deadline.
    queue: BinaryHeap<Reverse<(Instant, i64)>>,
    /// One entry for each long lease; its time is at or before that of its next checkpoint.
    checkpoints: BinaryHeap<Reverse<(Instant, i64)>>,
}

#[derive(Debug)]
struct Timer {
    ttl: Duration,
    ends: Instant,
    /// Its end was decided; no renewal reaches it any more.
    ending: bool,
    /// When it was last renewed, or its remainder noted.
    touched: Instant,
    /// The cluster knows, or may come to know, less time than a renewal gives.
    noted: bool,
}

/// What became of a renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Renewal {
    Renewed,
    /// Renewed by this clock; the next leader's would go by a checkpoint, which must be lifted.
    Noted,
    /// Too late: it is about to be revoked.
    Ending,
    Unknown,
}

impl Deadlines {
    pub(super) fn new(checkpoint_interval: Duration) -> Self {
        let (leases, queue, checkpoints) = (HashMap::new(), BinaryHeap::new(), BinaryHeap::new());
        Self { checkpoint_interval, leases, queue, checkpoints }
    }

    /// Starts a lease's time, from a checkpoint if it is `noted`; one that runs
    /// already goes on as it does.
    pub(super) fn start(&mut self, id: i64, ttl: Duration, left: Duration, noted: bool, now: Instant) {
        if self.leases.contains_key(&id) {
            return;
        }
        let ends = now + left;
        self.leases.insert(id, Timer { ttl, ends, ending: false, touched: now, noted });
        self.queue.push(Reverse((ends, id)));
        if ttl > self.checkpoint_interval {
            self.checkpoints.push(Reverse((now + self.checkpoint_interval, id)));
        }
    }

    pub(super) fn renew(&mut self, id: i64, now: Instant) -> Renewal {
        match self.leases.get_mut(&id) {
            Some(timer) if timer.ending => Renewal::Ending,
            Some(timer) => {
                timer.ends = now + timer.ttl;
                timer.touched = now;
                if timer.noted { Renewal::Noted } else { Renewal::Renewed }
            }
            None => Renewal::Unknown,
        }
    }

    /// Time left; none for an unknown lease, zero for one that is due.
    pub(super) fn left(&self, id: i64, now: Instant) -> Option<Duration> {
        self.leases.get(&id).map(|timer| timer.ends.saturating_duration_since(now))
    }

    pub(super) fn ends(&self, id: i64) -> Option<Instant> {
        self.leases.get(&id).map(|timer| timer.ends)
    }

    pub(super) fn remove(&mut self, id: i64) {
        self.leases.remove(&id);
        give_back(&mut self.leases);
        // Its queue entry finds nobody when it comes up. Leases that are made
        // and revoked all day must not pile up there, though.
        if self.queue.len() > 2 * self.leases.len() + 1024 {
            let leases = &self.leases;
            self.queue.retain(|Reverse((_, id))| leases.contains_key(id));
            self.queue.shrink_to(2 * self.queue.len());
            self.checkpoints.retain(|Reverse((_, id))| leases.contains_key(id));
            self.checkpoints.shrink_to(2 * self.checkpoints.len());
        }
    }

    /// The cluster has come to know of a checkpoint, or that one was lifted: then
    /// somebody was told of a renewal, be it by an earlier leader.
    pub(super) fn heed(&mut self, id: i64, noted: bool, now: Instant) {
        let Some(timer) = self.leases.get_mut(&id) else { return };
        if noted {
            timer.noted = true;
        } else {
            timer.ends = timer.ends.max(now + timer.ttl);
        }
    }

    /// A checkpoint was lifted, for sure; true unless it has been noted again since `renewed`.
    pub(super) fn lifted(&mut self, id: i64, renewed: Instant) {
        if let Some(timer) = self.leases.get_mut(&id)
            && timer.touched == renewed
        {
            timer.noted = false;
        }
    }

    /// At most `limit` leases whose remainder is to be noted, with whole seconds of it,
    /// never less than there are. From here on each counts as noted.
    pub(super) fn take_checkpoints(&mut self, now: Instant, limit: usize) -> Vec<(i64, u64)> {
        let mut due = Vec::new();
        while due.len() < limit
            && let Some(&Reverse((at, id))) = self.checkpoints.peek()
            && at <= now
        {
            self.checkpoints.pop();
            let Some(timer) = self.leases.get_mut(&id) else { continue };
            let next = timer.touched + self.checkpoint_interval;
            if next > now {
                self.checkpoints.push(Reverse((next, id)));
                continue;
            }
            let left = timer.ends.saturating_duration_since(now).as_secs() + 1;
            if !timer.ending && left > 1 {
                (timer.touched, timer.noted) = (now, true);
                due.push((id, left));
            }
            self.checkpoints.push(Reverse((now + self.checkpoint_interval, id)));
        }
        due
    }

    pub(super) fn clear(&mut self) {
        self.leases.clear();
        self.queue.clear();
        self.checkpoints.clear();
    }

    /// At most `limit` leases whose end has come; they can't be renewed from
    /// here on. Each comes up again after `retry`, for want of a `remove`.
    pub(super) fn take_due(&mut self, now: Instant, limit: usize, retry: Duration) -> Vec<i64> {
        let mut due = Vec::new();
        while due.len() < limit
            && let Some(&Reverse((at, id))) = self.queue.peek()
            && at <= now
        {
            self.queue.pop();
            let Some(timer) = self.leases.get_mut(&id) else { continue };
            if timer.ends > now && !timer.ending {
                self.queue.push(Reverse((timer.ends, id)));
                continue;
            }
            timer.ending = true;
            due.push(id);
            self.queue.push(Reverse((now + retry, id)));
        }
        due
    }

    /// When to look for ends again.
    pub(super) fn next(&self) -> Option<Instant> {
        self.queue.peek().map(|Reverse((at, _))| *at)
    }

    /// When to look for checkpoints again.
    pub(super) fn next_checkpoint(&self) -> Option<Instant> {
        self.checkpoints.peek().map(|Reverse((at, _))| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETRY: Duration = Duration::from_millis(500);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn started(ids: std::ops::Range<i64>, ttl: u64, now: Instant) -> Deadlines {
        let mut deadlines = Deadlines::new(seconds(60));
        ids.for_each(|id| deadlines.start(id, seconds(ttl), seconds(ttl), false, now));
        deadlines
    }

    #[test]
    fn a_lease_is_due_at_its_end_and_not_before() {
        let now = Instant::now();
        let mut deadlines = started(1..2, 10, now);
        assert!(deadlines.take_due(now + seconds(10) - Duration::from_nanos(1), 9, RETRY).is_empty());
        assert_eq!(deadlines.take_due(now + seconds(10), 9, RETRY), [1]);
    }

    #[test]
    fn a_renewal_gives_the_whole_time_again() {
        let now = Instant::now();
        let mut deadlines = started(1..2, 10, now);
        assert_eq!(deadlines.renew(1, now + seconds(9)), Renewal::Renewed);
        assert_eq!(deadlines.left(1, now + seconds(9)), Some(seconds(10)));
        assert!(deadlines.take_due(now + seconds(18), 9, RETRY).is_empty());
        assert_eq!(deadlines.next(), Some(now + seconds(19)));
        assert_eq!(deadlines.take_due(now + seconds(19), 9, RETRY), [1]);
    }

    #[test]
    fn a_lease_that_ends_is_not_renewed_and_comes_up_until_it_is_gone() {
        let now = Instant::now();
        let mut deadlines = started(1..2, 1, now);
        assert_eq!(deadlines.take_due(now + seconds(1), 9, RETRY), [1]);
        assert_eq!(deadlines.renew(1, now + seconds(1)), Renewal::Ending);
        assert!(deadlines.take_due(now + seconds(1), 9, RETRY).is_empty());
        assert_eq!(deadlines.take_due(now + seconds(2), 9, RETRY), [1]);
        deadlines.remove(1);
        assert!(deadlines.take_due(now + seconds(9), 9, RETRY).is_empty());
        assert_eq!(deadlines.renew(1, now), Renewal::Unknown);
    }

    #[test]
    fn starting_a_lease_that_runs_does_not_prolong_it() {
        let now = Instant::now();
        let mut deadlines = started(1..2, 10, now);
        deadlines.start(1, seconds(10), seconds(10), false, now + seconds(5));
        assert_eq!(deadlines.left(1, now + seconds(5)), Some(seconds(5)));
    }

    #[test]
    fn many_leases_come_up_in_bounded_batches() {
        let now = Instant::now();
        let mut deadlines = started(0..100_000, 10, now);
        let mut seen = 0;
        loop {
            let due = deadlines.take_due(now + seconds(10), 1000, RETRY);
            if due.is_empty() {
                break;
            }
            assert!(due.len() <= 1000);
            seen += due.len();
            due.into_iter().for_each(|id| deadlines.remove(id));
        }
        assert_eq!(seen, 100_000);
    }

    #[test]
    fn revoked_leases_do_not_pile_up_in_the_queue() {
        let now = Instant::now();
        let mut deadlines = Deadlines::new(seconds(60));
        for id in 0..100_000 {
            deadlines.start(id, seconds(1000), seconds(1000), false, now);
            deadlines.remove(id);
        }
        assert!(deadlines.queue.len() < 2000 && deadlines.checkpoints.len() < 2000);
    }

    #[test]
    fn the_remainder_of_a_long_lease_is_noted_once_a_minute_unless_it_is_renewed() {
        let now = Instant::now();
        let mut deadlines = started(1..3, 300, now);
        deadlines.start(3, seconds(60), seconds(60), false, now);
        assert!(deadlines.take_checkpoints(now + seconds(59), 9).is_empty());
        assert_eq!(deadlines.renew(2, now + seconds(50)), Renewal::Renewed);
        let noted = deadlines.take_checkpoints(now + seconds(60), 9);
        assert_eq!(noted, [(1, 241)], "rounded up; 2 was renewed, and 3 is short");
        assert_eq!(deadlines.next_checkpoint(), Some(now + seconds(110)));
        assert_eq!(deadlines.take_checkpoints(now + seconds(110), 9), [(2, 241)]);
        assert_eq!(deadlines.take_checkpoints(now + seconds(120), 9), [(1, 181)]);
    }

    #[test]
    fn a_renewal_of_a_noted_lease_says_so_until_the_note_is_lifted() {
        let now = Instant::now();
        let mut deadlines = started(1..2, 300, now);
        deadlines.start(2, seconds(300), seconds(100), true, now);
        assert_eq!(deadlines.renew(1, now), Renewal::Renewed);
        assert_eq!(deadlines.renew(2, now), Renewal::Noted, "by the leader before this one");
        assert_eq!(deadlines.take_checkpoints(now + seconds(60), 9).len(), 2);
        let renewed = now + seconds(70);
        assert_eq!(deadlines.renew(1, renewed), Renewal::Noted);
        assert_eq!(deadlines.renew(1, renewed), Renewal::Noted, "until it is lifted for sure");
        deadlines.lifted(1, now);
        assert_eq!(deadlines.renew(1, renewed), Renewal::Noted, "an older renewal's lift does not do");
        deadlines.lifted(1, renewed);
        assert_eq!(deadlines.renew(1, renewed), Renewal::Renewed);
    }

    /// A new leader applies the rest of the old one's log with its own clock running already.
    #[test]
    fn a_checkpoint_and_a_lift_of_the_leader_before_are_heeded() {
        let now = Instant::now();
        let mut deadlines = Deadlines::new(seconds(60));
        deadlines.start(1, seconds(300), seconds(10), true, now);
        deadlines.heed(1, false, now + seconds(5));
        assert_eq!(deadlines.left(1, now + seconds(5)), Some(seconds(300)));
        deadlines.start(2, seconds(300), seconds(300), false, now);
        deadlines.heed(2, true, now);
        assert_eq!(deadlines.renew(2, now), Renewal::Noted);
        assert_eq!(deadlines.left(2, now), Some(seconds(300)));
    }
}
