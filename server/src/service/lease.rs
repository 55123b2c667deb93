//! The Lease service: grants and ends through the log, time at the lessor.

use std::sync::Arc;

use etcfs_proto::{
    etcdserverpb::{
        LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
        LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse, LeaseStatus, LeaseTimeToLiveRequest,
        LeaseTimeToLiveResponse,
    },
    etcfs::command::{Request, request::Body},
};

use super::{Admission, Headers, Refusal, check, kv::unexpected};
use crate::{
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
    pub min_ttl: i64,
}

impl Lease {
    pub async fn grant(&self, request: LeaseGrantRequest) -> Result<LeaseGrantResponse, Refusal> {
        let ttl = check::lease_grant(&request, self.min_ttl)?;
        self.admission.lease().await?;
        let id = match request.id {
            0 => id::lease(),
            id => id,
        };
        let body = Body::LeaseGrant(LeaseGrantRequest { ttl, id });
        match self.write(body).await? {
            Response::LeaseGrant(mut response) => {
                self.headers.fill(&mut response.header);
                Ok(response)
            }
            other => unexpected(&other),
        }
    }

    pub async fn revoke(&self, request: LeaseRevokeRequest) -> Result<LeaseRevokeResponse, Refusal> {
        match self.write(Body::LeaseRevoke(request)).await? {
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
    ) -> Result<LeaseKeepAliveResponse, Refusal> {
        // Before the renewal, as etcd has it: what is read at this revision
        // was there when the lease was.
        let header = self.headers.at(self.store.revision());
        let ttl = match self.lessor.keep_alive(request.id).await {
            KeepAlive::Renewed(ttl) => ttl,
            KeepAlive::Gone => 0,
            KeepAlive::NotLeader => return Err(Refusal::NoLeader),
        };
        Ok(LeaseKeepAliveResponse { header, id: request.id, ttl })
    }

    pub async fn time_to_live(
        &self,
        request: LeaseTimeToLiveRequest,
    ) -> Result<LeaseTimeToLiveResponse, Refusal> {
        self.barrier.wait().await?;
        let header = self.headers.at(self.store.revision());
        let id = request.id;
        let Some(time) = self.lessor.time_to_live(id) else {
            return Ok(LeaseTimeToLiveResponse { header, id, ttl: -1, granted_ttl: 0, keys: Vec::new() });
        };
        let keys = if request.keys { self.lessor.keys(id) } else { Vec::new() };
        Ok(LeaseTimeToLiveResponse { header, id, ttl: time.left, granted_ttl: time.granted, keys })
    }

    pub async fn leases(&self) -> Result<LeaseLeasesResponse, Refusal> {
        self.barrier.wait().await?;
        let header = self.headers.at(self.store.revision());
        let leases = self.lessor.by_end().into_iter().map(|id| LeaseStatus { id }).collect();
        Ok(LeaseLeasesResponse { header, leases })
    }

    async fn write(&self, body: Body) -> Result<Response, Refusal> {
        let (response, _term) = self.proposer.write(Request { body: Some(body) }).await?;
        Ok(response)
    }
}
