//! The Lease service: grants and ends through the log, time at the lessor.

use std::sync::Arc;

use etcfs_proto::{
    etcdserverpb::{
        LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
        LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse, LeaseStatus, LeaseTimeToLiveRequest,
        LeaseTimeToLiveResponse,
    },
    etcfs::command::request::Body,
};

use super::{Access, Admission, Headers, Refusal, check, kv::unexpected};
use crate::{
    auth::{self, Caller},
    lease::lessor::{KeepAlive, Lessor},
    mvcc::Store,
    propose::{Proposer, ReadBarrier, Response, id},
};

#[derive(Clone, Debug)]
pub struct Lease {
    pub store: Arc<Store>,
    pub lessor: Lessor,
    pub proposer: Proposer,
    pub barrier: ReadBarrier,
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

    /// Renews, and only then makes sure that this member still led: so no other
    /// leader's clock can have begun before.
    async fn renew(&self, id: i64) -> Result<i64, Refusal> {
        let (leads, term) = self.leads();
        if !leads {
            return Err(Refusal::NoLeader);
        }
        let mut renewal = self.lessor.keep_alive(id).await;
        self.barrier.wait().await?;
        if renewal == KeepAlive::Gone {
            // It may have been granted, and not applied here yet.
            renewal = self.lessor.keep_alive(id).await;
            self.barrier.wait().await?;
        }
        if self.leads() != (true, term) {
            return Err(Refusal::NoLeader);
        }
        match renewal {
            KeepAlive::Renewed(ttl) => Ok(ttl),
            KeepAlive::Gone => Ok(0),
            KeepAlive::NotLeader => Err(Refusal::NoLeader),
        }
    }

    /// Whether this member leads, as far as it knows, and the term.
    fn leads(&self) -> (bool, u64) {
        let status = self.admission.members.status();
        (status.leader == Some(status.member_id), status.term)
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
        let header = self.headers.at(self.store.revision());
        let id = request.id;
        let Some(time) = self.lessor.time_to_live(id) else {
            return Ok(LeaseTimeToLiveResponse { header, id, ttl: -1, granted_ttl: 0, keys: Vec::new() });
        };
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
