//! The Lease service: grants and ends through the log, time at the lessor.

use std::{sync::Arc, time::Duration};

use etcfs_proto::{
    etcdserverpb::{
        LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
        LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse, LeaseStatus, LeaseTimeToLiveRequest,
        LeaseTimeToLiveResponse,
    },
    etcfs::{command::request::Body, peer::TimeLeftResponse},
};

use tokio::time::{self, Instant};

use super::{Access, Admission, Headers, Refusal, check, kv::unexpected};
use crate::{
    auth::{self, Caller},
    lease::lessor::{KeepAlive, Lessor, TimeToLive},
    mvcc::Store,
    propose::{Errands, Proposer, ReadBarrier, Response, id},
};

/// Pause before a keep-alive that found no leader is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

#[derive(Clone, Debug)]
pub struct Lease {
    pub store: Arc<Store>,
    pub lessor: Lessor,
    pub proposer: Proposer,
    pub barrier: ReadBarrier,
    pub errands: Errands,
    /// How long a keep-alive may look for a leader.
    pub timeout: Duration,
    pub headers: Headers,
    pub admission: Admission,
    pub access: Access,
    pub min_ttl: i64,
}

impl Lease {
    pub async fn grant(
        &self,
        request: LeaseGrantRequest,
        caller: &Caller,
    ) -> Result<LeaseGrantResponse, Refusal> {
        let ttl = check::lease_grant(&request, self.min_ttl)?;
        self.admission.lease().await?;
        let id = match request.id {
            0 => id::lease(),
            id => id,
        };
        let body = Body::LeaseGrant(LeaseGrantRequest { ttl, id });
        match self.write(body, caller).await? {
            Response::LeaseGrant(mut response) => {
                self.headers.fill(&mut response.header);
                Ok(response)
            }
            other => unexpected(&other),
        }
    }

    /// For those who may delete each key that hangs on it.
    pub async fn revoke(
        &self,
        request: LeaseRevokeRequest,
        caller: &Caller,
    ) -> Result<LeaseRevokeResponse, Refusal> {
        self.access.demand(caller, |demand| demand.lease(auth::Access::Write, request.id))?;
        match self.write(Body::LeaseRevoke(request), caller).await? {
            Response::LeaseRevoke(mut response) => {
                self.headers.fill(&mut response.header);
                Ok(response)
            }
            other => unexpected(&other),
        }
    }

    /// One keep-alive of a stream; an unknown lease is answered with TTL 0.
    pub async fn keep_alive(
        &self,
        request: LeaseKeepAliveRequest,
        caller: &Caller,
    ) -> Result<LeaseKeepAliveResponse, Refusal> {
        self.access.demand(caller, |demand| demand.lease(auth::Access::Write, request.id))?;
        // Before the renewal, as etcd has it: what is read at this revision
        // was there when the lease was.
        let header = self.headers.at(self.store.revision());
        let ttl = self.renew(request.id).await?;
        Ok(LeaseKeepAliveResponse { header, id: request.id, ttl })
    }

    /// At the leader, whoever that is. A renewal may be made twice: it does no harm.
    async fn renew(&self, id: i64) -> Result<i64, Refusal> {
        let began = Instant::now();
        while began.elapsed() < self.timeout {
            match self.lessor.keep_alive(id).await {
                KeepAlive::Renewed(ttl) => return Ok(ttl),
                KeepAlive::Gone => return Ok(0),
                KeepAlive::NotLeader => {}
            }
            match self.errands.keep_alive(id).await {
                Ok(ttl) => return Ok(ttl),
                Err(status) => {
                    tracing::debug!(error = status.message(), "no leader renews a lease yet");
                    time::sleep(RETRY_PAUSE).await;
                }
            }
        }
        Err(Refusal::Timeout)
    }

    /// What the leader's clock says, and whether there is such a lease.
    async fn time_left(&self, id: i64) -> Result<Option<TimeToLive>, Refusal> {
        let began = Instant::now();
        while began.elapsed() < self.timeout {
            if let Ok(time) = self.lessor.time_to_live(id).await {
                return Ok(time);
            }
            match self.errands.time_left(id).await {
                Ok(TimeLeftResponse { found, granted, left, term }) => {
                    return Ok(found.then_some(TimeToLive { granted, left, term }));
                }
                Err(status) => {
                    tracing::debug!(error = status.message(), "no leader tells a lease's time yet");
                    time::sleep(RETRY_PAUSE).await;
                }
            }
        }
        Err(Refusal::Timeout)
    }

    pub async fn time_to_live(
        &self,
        request: LeaseTimeToLiveRequest,
        caller: &Caller,
    ) -> Result<LeaseTimeToLiveResponse, Refusal> {
        self.barrier.wait().await?;
        // Names of keys are for those who may read them.
        let wants = |demand: auth::Demand<'_>| match request.keys {
            true => demand.lease(auth::Access::Read, request.id),
            false => Ok(()),
        };
        self.access.demand(caller, wants)?;
        let mut header = self.headers.at(self.store.revision());
        let id = request.id;
        let Some(time) = self.time_left(id).await? else {
            return Ok(LeaseTimeToLiveResponse { header, id, ttl: -1, granted_ttl: 0, keys: Vec::new() });
        };
        if let Some(header) = &mut header {
            // Of the clock that was asked: a leader that is new begins all leases anew, and this
            // member may not have heard of it yet.
            header.raft_term = header.raft_term.max(time.term);
        }
        let keys = if request.keys { self.lessor.keys(id) } else { Vec::new() };
        // Others may have been hung on it since.
        self.access.demand(caller, wants)?;
        Ok(LeaseTimeToLiveResponse { header, id, ttl: time.left, granted_ttl: time.granted, keys })
    }

    pub async fn leases(&self, caller: &Caller) -> Result<LeaseLeasesResponse, Refusal> {
        self.barrier.wait().await?;
        let header = self.headers.at(self.store.revision());
        let ids = self.lessor.by_end();
        self.access
            .demand(caller, |demand| ids.iter().try_for_each(|&id| demand.lease(auth::Access::Read, id)))?;
        let leases = ids.into_iter().map(|id| LeaseStatus { id }).collect();
        Ok(LeaseLeasesResponse { header, leases })
    }

    async fn write(&self, body: Body, caller: &Caller) -> Result<Response, Refusal> {
        let (response, _term) = self.proposer.write(self.access.sign(caller, body)).await?;
        Ok(response)
    }
}
