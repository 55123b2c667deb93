//! The source's leases at the destination: the same ids and times, ended where they end.
//!
//! A lease there runs for its full time from when it was granted or renewed, for no request can say what is left of
//! one. It is renewed only where it would otherwise end before the source's does. So it never ends earlier, and one
//! that nobody keeps alive ends after the switch at most its time later.

use std::collections::{BTreeMap, BTreeSet};

use etcfs_client::{Client, ClientError, Code};
use etcfs_proto::etcdserverpb::{LeaseGrantRequest, LeaseTimeToLiveRequest};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::time::{Duration, Instant};

/// Requests under way at once.
const UNDER_WAY_MAX: usize = 32;
/// So much longer than at the source a lease is to last.
const MARGIN: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) struct Leases {
    known: BTreeMap<i64, Lease>,
    /// A lease ran out at the destination before the source's, and took its keys along.
    lost: bool,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    time: Duration,
    /// When it ends there, at the earliest.
    ends: Instant,
    /// When the source is asked what is left of it.
    look: Instant,
}

impl Lease {
    fn renewed(time: Duration, now: Instant) -> Self {
        Self { time, ends: now + time, look: now + time / 3 }
    }
}

impl Leases {
    /// None is known yet; those that the destination has are ended by [`Self::mirror`] unless the source has them.
    pub(super) async fn of(target: &Client) -> Result<Self, ClientError> {
        let now = Instant::now();
        let known = ids(target)
            .await?
            .into_iter()
            .map(|id| (id, Lease { time: Duration::ZERO, ends: now, look: now }));
        Ok(Self { known: known.collect(), lost: false })
    }

    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    pub(super) fn has(&self, id: i64) -> bool {
        self.known.contains_key(&id)
    }

    /// Whether one was lost since this was last asked.
    pub(super) fn take_lost(&mut self) -> bool {
        std::mem::take(&mut self.lost)
    }

    /// Finds out which of these the destination has lost.
    pub(super) async fn check(
        &mut self,
        target: &Client,
        ids: impl Iterator<Item = i64>,
    ) -> Result<(), ClientError> {
        for id in ids.filter(|id| *id != 0) {
            match target.lease().keep_alive_once(id).await {
                Ok(_) => {}
                Err(ClientError::LeaseGone { .. }) => {
                    self.known.remove(&id);
                    self.lost = true;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Grants those at the destination that are not there, if the source still has them.
    pub(super) async fn ensure(
        &mut self,
        source: &Client,
        target: &Client,
        ids: impl Iterator<Item = i64>,
    ) -> Result<(), ClientError> {
        let missing: BTreeSet<i64> = ids.filter(|id| !self.has(*id)).collect();
        let granted =
            missing.into_iter().map(|id| Ok(async move { grant(source, target, id).await.map(|l| (id, l)) }));
        let mut granted = stream::iter(granted).try_buffer_unordered(UNDER_WAY_MAX);
        while let Some((id, lease)) = granted.try_next().await? {
            if let Some(lease) = lease {
                self.known.insert(id, lease);
            }
        }
        Ok(())
    }

    /// Grants, renews and ends what has to be.
    pub(super) async fn mirror(&mut self, source: &Client, target: &Client) -> Result<(), ClientError> {
        let there = ids(source).await?;
        let ended: Vec<i64> = self.known.keys().filter(|id| !there.contains(id)).copied().collect();
        let revoked = ended.into_iter().map(|id| Ok(revoke(target, id)));
        let mut revoked = stream::iter(revoked).try_buffer_unordered(UNDER_WAY_MAX);
        while let Some(id) = revoked.try_next().await? {
            self.known.remove(&id);
        }
        self.ensure(source, target, there.into_iter()).await?;
        let now = Instant::now();
        let due: Vec<_> =
            self.known.iter().filter(|(_, lease)| lease.look <= now).map(|(id, l)| (*id, *l)).collect();
        let looks =
            due.into_iter().map(|(id, lease)| async move { (id, look(source, target, id, lease).await) });
        let looked: Vec<_> = stream::iter(looks).buffer_unordered(UNDER_WAY_MAX).collect().await;
        for (id, lease) in looked {
            match lease? {
                Looked::Lasts(lease) => drop(self.known.insert(id, lease)),
                // The next list lacks it, and it is ended there too.
                Looked::Gone => {}
                Looked::Lost => {
                    self.known.remove(&id);
                    self.lost = true;
                }
            }
        }
        Ok(())
    }
}

pub(super) async fn ids(client: &Client) -> Result<BTreeSet<i64>, ClientError> {
    Ok(client.lease().leases().await?.leases.into_iter().map(|lease| lease.id).collect())
}

enum Looked {
    Lasts(Lease),
    /// Ended at the source meanwhile.
    Gone,
    /// Ended at the destination alone.
    Lost,
}

/// What is left of a lease at the source, and its time; none if it has ended.
async fn left(source: &Client, id: i64) -> Result<Option<(Duration, Duration)>, ClientError> {
    let answer = source.lease().time_to_live(LeaseTimeToLiveRequest { id, keys: false }).await?;
    let seconds = |number: i64| u64::try_from(number).ok().map(Duration::from_secs);
    Ok(seconds(answer.ttl).zip(seconds(answer.granted_ttl)))
}

async fn grant(source: &Client, target: &Client, id: i64) -> Result<Option<Lease>, ClientError> {
    let Some((_, time)) = left(source, id).await? else { return Ok(None) };
    let now = Instant::now();
    let ttl = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    match target.lease().grant(LeaseGrantRequest { ttl, id }).await {
        Ok(_) => Ok(Some(Lease::renewed(time, now))),
        // Of an earlier run, or of an answer that was lost.
        Err(
            ClientError::Status { code: Code::FailedPrecondition | Code::AlreadyExists, .. }
            | ClientError::Unknown(_),
        ) => {
            target.lease().keep_alive_once(id).await?;
            Ok(Some(Lease::renewed(time, now)))
        }
        Err(error) => Err(error),
    }
}

async fn revoke(target: &Client, id: i64) -> Result<i64, ClientError> {
    match target.lease().revoke(id).await {
        Ok(_) | Err(ClientError::Status { code: Code::NotFound, .. }) => Ok(id),
        Err(error) => Err(error),
    }
}

async fn look(source: &Client, target: &Client, id: i64, lease: Lease) -> Result<Looked, ClientError> {
    let Some((left, time)) = left(source, id).await? else { return Ok(Looked::Gone) };
    let now = Instant::now();
    let lasts = lease.ends.saturating_duration_since(now);
    if lease.time == time && lasts > left + MARGIN {
        return Ok(Looked::Lasts(Lease { look: now + lasts / 3, ..lease }));
    }
    match target.lease().keep_alive_once(id).await {
        Ok(_) => Ok(Looked::Lasts(Lease::renewed(time, now))),
        Err(ClientError::LeaseGone { .. }) => Ok(Looked::Lost),
        Err(error) => Err(error),
    }
}
