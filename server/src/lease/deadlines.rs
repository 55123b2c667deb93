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

#[derive(Debug, Default)]
pub(super) struct Deadlines {
    leases: HashMap<i64, Timer>,
    /// One entry for each lease; its time is at or before the lease's deadline.
    queue: BinaryHeap<Reverse<(Instant, i64)>>,
}

#[derive(Debug)]
struct Timer {
    ttl: Duration,
    ends: Instant,
    /// Its end was decided; no renewal reaches it any more.
    ending: bool,
}

/// What became of a renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Renewal {
    Renewed,
    /// Too late: it is about to be revoked.
    Ending,
    Unknown,
}

impl Deadlines {
    /// Starts a lease's time; one that runs already goes on as it does.
    pub(super) fn start(&mut self, id: i64, ttl: Duration, left: Duration, now: Instant) {
        if self.leases.contains_key(&id) {
            return;
        }
        let ends = now + left;
        self.leases.insert(id, Timer { ttl, ends, ending: false });
        self.queue.push(Reverse((ends, id)));
    }

    pub(super) fn renew(&mut self, id: i64, now: Instant) -> Renewal {
        match self.leases.get_mut(&id) {
            Some(timer) if timer.ending => Renewal::Ending,
            Some(timer) => {
                timer.ends = now + timer.ttl;
                Renewal::Renewed
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
        // Its queue entry finds nobody when it comes up. Leases that are made
        // and revoked all day must not pile up there, though.
        if self.queue.len() > 2 * self.leases.len() + 1024 {
            let leases = &self.leases;
            self.queue.retain(|Reverse((_, id))| leases.contains_key(id));
        }
    }

    pub(super) fn clear(&mut self) {
        self.leases.clear();
        self.queue.clear();
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

    /// When to look again.
    pub(super) fn next(&self) -> Option<Instant> {
        self.queue.peek().map(|Reverse((at, _))| *at)
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
        let mut deadlines = Deadlines::default();
        ids.for_each(|id| deadlines.start(id, seconds(ttl), seconds(ttl), now));
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
        deadlines.start(1, seconds(10), seconds(10), now + seconds(5));
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
        let mut deadlines = Deadlines::default();
        for id in 0..100_000 {
            deadlines.start(id, seconds(1000), seconds(1000), now);
            deadlines.remove(id);
        }
        assert!(deadlines.queue.len() < 2000);
    }
}
