//! Decides the cluster's version: the newest that all members can work with.
//!
//! Only the leader acts, and only while the cluster's version is behind its own.
//! A member that does not answer keeps it where it is: it may come back as old as
//! it went.

use std::time::{Duration, Instant};

use etcfs_proto::etcfs::command::{ClusterVersion, Request, request::Body};
use tokio::time;
use tokio_util::sync::CancellationToken;

use crate::{
    propose::{Members, Proposer},
    version::Version,
};

const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// A new cluster's founders have so long to come; then it has the oldest version
/// that any of them may have.
const FOUNDERS_PATIENCE: Duration = Duration::from_secs(3);

#[derive(Debug)]
pub struct Versions {
    pub members: Members,
    pub proposer: Proposer,
}

impl Versions {
    pub async fn run(self, shutdown: CancellationToken) {
        let mut ticks = time::interval(LOOK_INTERVAL);
        ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        // Since when this member leads a cluster without a version.
        let mut undecided: Option<Instant> = None;
        let mut changes = self.members.watch();
        loop {
            // A sole member leads at once, and its clients wait for that.
            let next = async {
                tokio::select! {
                    _ = ticks.tick() => {}
                    Ok(()) = changes.changed() => {}
                }
            };
            if shutdown.run_until_cancelled(next).await.is_none() {
                return;
            }
            let status = self.members.status();
            let known: Option<Version> = self.members.cluster_version().parse().ok();
            let own = Version::own();
            if status.leader != Some(self.members.member_id()) || known >= Some(own) {
                undecided = None;
                continue;
            }
            let since = *undecided.get_or_insert_with(Instant::now);
            let deciding = self.decide(own, known, since);
            if shutdown.run_until_cancelled(deciding).await.is_none() {
                return;
            }
        }
    }

    async fn decide(&self, own: Version, known: Option<Version>, since: Instant) {
        let mut lowest = Some(own);
        for (member, version) in self.members.versions().await {
            let version = version.and_then(|version| version.parse::<Version>().ok());
            if let Some(version) = version.filter(|version| *version < own) {
                tracing::debug!(member = format!("{member:x}"), %version, "a member holds the cluster's version back");
            }
            // None, of one that does not answer, is less than any.
            lowest = lowest.min(version);
        }
        let decided = match lowest {
            None if known.is_none() && since.elapsed() >= FOUNDERS_PATIENCE => Some(own.oldest()),
            lowest => lowest,
        };
        let Some(version) = decided.filter(|_| decided > known) else { return };
        let body = Body::ClusterVersion(ClusterVersion { version: version.to_string() });
        if let Err(error) = self.proposer.write(Request { body: Some(body) }).await {
            tracing::warn!(%version, %error, "could not set the cluster's version; will try again");
        }
    }
}
