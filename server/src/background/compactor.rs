//! Compacts by itself, so that history does not grow for ever.
//!
//! Periodic: keeps the history of a length of time, known from samples of the
//! revision taken as time passes (a restart starts them anew, so it compacts
//! late rather than early). By revisions: keeps so many. Only the leader acts, from
//! when it serves: what a leader's restart finds by revisions goes at once.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use etcfs_proto::{
    etcdserverpb::CompactionRequest,
    etcfs::command::{Request, request::Body},
};
use tokio::time;
use tokio_util::sync::CancellationToken;

use crate::{
    config::AutoCompaction,
    mvcc::Store,
    propose::{ApplyError, Members, ProposeError, Proposer},
};

/// As etcd: by revisions it looks every five minutes, and by time at least
/// every hour.
const REVISIONS_INTERVAL: Duration = Duration::from_secs(300);
const PERIODIC_INTERVAL_MAX: Duration = Duration::from_secs(3600);
/// Samples in one period: how exactly its beginning is known.
const SAMPLES: u32 = 10;

#[derive(Debug)]
pub struct Compactor {
    pub rule: AutoCompaction,
    pub store: Arc<Store>,
    pub members: Members,
    pub proposer: Proposer,
}

impl Compactor {
    pub async fn run(self, shutdown: CancellationToken) {
        let mut plan = Plan::new(self.rule);
        let mut ticks = time::interval(plan.tick());
        ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
            let status = self.members.status();
            if status.leader != Some(self.members.member_id()) {
                continue;
            }
            if let Some(revision) = plan.next(Instant::now(), self.store.revision()) {
                self.compact(revision).await;
            }
        }
    }

    async fn compact(&self, revision: i64) {
        if revision <= self.store.compact_revision() {
            return;
        }
        let body = Body::Compaction(CompactionRequest { revision, physical: false });
        match self.proposer.write(Request { body: Some(body) }).await {
            Ok(_) => tracing::info!(revision, "compacted"),
            // Somebody was faster.
            Err(ProposeError::Apply(ApplyError::Compacted)) => {}
            Err(error) => tracing::warn!(revision, %error, "could not compact; will try again"),
        }
    }
}

/// What to compact when; time is told to it.
#[derive(Debug)]
enum Plan {
    Periodic { keep: Duration, last: Option<Instant>, samples: VecDeque<(Instant, i64)> },
    Revisions { keep: i64 },
}

impl Plan {
    fn new(rule: AutoCompaction) -> Self {
        match rule {
            AutoCompaction::Periodic(keep) => Self::Periodic { keep, last: None, samples: VecDeque::new() },
            AutoCompaction::Revisions(keep) => Self::Revisions { keep },
        }
    }

    fn tick(&self) -> Duration {
        match self {
            Self::Periodic { keep, .. } => (*keep).min(PERIODIC_INTERVAL_MAX) / SAMPLES,
            Self::Revisions { .. } => REVISIONS_INTERVAL,
        }
    }

    /// The revision to compact at now, if any.
    fn next(&mut self, now: Instant, revision: i64) -> Option<i64> {
        match self {
            Self::Revisions { keep } => Some(revision - *keep).filter(|at| *at > 0),
            Self::Periodic { keep, last, samples } => {
                samples.push_back((now, revision));
                let mut old = None;
                while let Some(&(at, revision)) = samples.front()
                    && now.duration_since(at) >= *keep
                {
                    old = Some((at, revision));
                    samples.pop_front();
                }
                let (at, revision) = old?;
                let interval = (*keep).min(PERIODIC_INTERVAL_MAX);
                if last.is_some_and(|last| now.duration_since(last) < interval) {
                    // Too soon; the sample is still the oldest of the period.
                    samples.push_front((at, revision));
                    return None;
                }
                *last = Some(now);
                Some(revision)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minutes(minutes: u64) -> Duration {
        Duration::from_secs(60 * minutes)
    }

    #[test]
    fn by_revisions_it_keeps_so_many() {
        let mut plan = Plan::new(AutoCompaction::Revisions(100));
        assert_eq!(plan.tick(), minutes(5));
        assert_eq!(plan.next(Instant::now(), 50), None);
        assert_eq!(plan.next(Instant::now(), 100), None);
        assert_eq!(plan.next(Instant::now(), 150), Some(50));
    }

    #[test]
    fn by_time_it_compacts_at_the_revision_of_a_period_ago() {
        let mut plan = Plan::new(AutoCompaction::Periodic(minutes(10)));
        assert_eq!(plan.tick(), minutes(1));
        let start = Instant::now();
        let mut compacted = Vec::new();
        for minute in 0..=30 {
            // 100 revisions a minute.
            if let Some(at) = plan.next(start + minutes(minute), 100 * minute as i64) {
                compacted.push((minute, at));
            }
        }
        assert_eq!(compacted, [(10, 0), (20, 1000), (30, 2000)]);
    }

    #[test]
    fn long_periods_are_compacted_every_hour() {
        let mut plan = Plan::new(AutoCompaction::Periodic(minutes(600)));
        assert_eq!(plan.tick(), minutes(6));
        let start = Instant::now();
        let compacted = (0..=120)
            .filter_map(|tick| plan.next(start + minutes(6 * tick), 6 * tick as i64))
            .collect::<Vec<_>>();
        assert_eq!(compacted, [0, 60, 120]);
    }
}
