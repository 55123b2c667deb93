//! The Errands service: what other members have this one do, most often as the leader.

use etcfs_proto::etcfs::peer::{
    ChangeMembersRequest, ChangeMembersResponse, HashKeysRequest, HashKeysResponse, KeepAliveRequest,
    KeepAliveResponse, TimeLeftRequest, TimeLeftResponse, errands_server,
};
use tonic::{Request, Response, Status};

use crate::{
    auth::Auth,
    lease::lessor::{KeepAlive, Lessor, NotLeader, TimeToLive},
    maintain::Hash,
    propose::{Members, ReadBarrier},
};

#[derive(Clone, Debug)]
pub struct Errands {
    pub lessor: Lessor,
    pub barrier: ReadBarrier,
    pub members: Members,
    pub hash: Hash,
    pub auth: Auth,
}

fn not_leader() -> Status {
    Status::failed_precondition("not leader")
}

#[tonic::async_trait]
impl errands_server::Errands for Errands {
    async fn keep_alive(
        &self,
        request: Request<KeepAliveRequest>,
    ) -> Result<Response<KeepAliveResponse>, Status> {
        match self.lessor.keep_alive(request.into_inner().id).await {
            KeepAlive::Renewed(ttl) => Ok(Response::new(KeepAliveResponse { ttl })),
            KeepAlive::Gone => Ok(Response::new(KeepAliveResponse { ttl: 0 })),
            KeepAlive::NotLeader => Err(not_leader()),
        }
    }

    async fn time_left(
        &self,
        request: Request<TimeLeftRequest>,
    ) -> Result<Response<TimeLeftResponse>, Status> {
        let answer = match self.lessor.time_to_live(request.into_inner().id).await {
            Ok(Some(TimeToLive { granted, left, term })) => {
                TimeLeftResponse { found: true, granted, left, term }
            }
            Ok(None) => TimeLeftResponse::default(),
            Err(NotLeader) => return Err(not_leader()),
        };
        Ok(Response::new(answer))
    }

    async fn change_members(
        &self,
        request: Request<ChangeMembersRequest>,
    ) -> Result<Response<ChangeMembersResponse>, Status> {
        let id = self.members.change_as_leader(request.into_inner()).await;
        let id = id.map_err(|error| Status::failed_precondition(error.to_string()))?;
        Ok(Response::new(ChangeMembersResponse { id }))
    }

    async fn hash_keys(
        &self,
        request: Request<HashKeysRequest>,
    ) -> Result<Response<HashKeysResponse>, Status> {
        // A member that lags has the revision once it has caught up.
        self.barrier.wait().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let hash = self.hash.of_keys(request.into_inner().revision).await;
        let hash = hash.map_err(|error| Status::out_of_range(error.to_string()))?;
        let (auth_revision, auth_hash) = self.auth.fingerprint();
        Ok(Response::new(HashKeysResponse {
            hash: hash.hash,
            compact_revision: hash.compact_revision,
            hash_revision: hash.hash_revision,
            auth_revision: Some(auth_revision),
            auth_hash: Some(auth_hash),
        }))
    }
}
