//! What a member has another do for it: above all the leader, whose clock and
//! whose word on the members count.

use std::time::Duration;

use etcfs_proto::etcfs::peer::{
    ChangeMembersRequest, HashKeysRequest, HashKeysResponse, KeepAliveRequest, TimeLeftRequest,
    TimeLeftResponse,
};
use tonic::{Request, Status};

use crate::raft::{ErrandsClient, Node};

/// A hash reads everything that a member has.
const HASH_TIMEOUT: Duration = Duration::from_secs(120);

/// Errands to other members; cheap to clone. None of them is repeated here.
#[derive(Clone, Debug)]
pub struct Errands {
    node: Node,
    timeout: Duration,
}

impl Errands {
    /// Each is given up after `timeout`.
    pub fn new(node: &Node, timeout: Duration) -> Self {
        Self { node: node.clone(), timeout }
    }

    /// Renews a lease at the leader: its time in seconds, 0 for a lease that is none.
    pub async fn keep_alive(&self, id: i64) -> Result<i64, Status> {
        let answer = self.leader()?.keep_alive(self.within(KeepAliveRequest { id })).await?;
        Ok(answer.into_inner().ttl)
    }

    /// What the leader's clock says of a lease.
    pub async fn time_left(&self, id: i64) -> Result<TimeLeftResponse, Status> {
        Ok(self.leader()?.time_left(self.within(TimeLeftRequest { id })).await?.into_inner())
    }

    /// Has the leader change the members; the id of the one that was.
    pub(super) async fn change_members(&self, request: ChangeMembersRequest) -> Result<u64, Status> {
        Ok(self.leader()?.change_members(self.within(request)).await?.into_inner().id)
    }

    /// The hash of another member's keys up to a revision.
    pub async fn hash_keys(&self, member: u64, revision: i64) -> Result<HashKeysResponse, Status> {
        let mut member = self.node.errands(member)?;
        let mut request = Request::new(HashKeysRequest { revision });
        request.set_timeout(HASH_TIMEOUT);
        Ok(member.hash_keys(request).await?.into_inner())
    }

    fn leader(&self) -> Result<ErrandsClient, Status> {
        let leader = self.node.status().leader.ok_or_else(|| Status::unavailable("no leader"))?;
        self.node.errands(leader)
    }

    fn within<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.timeout);
        request
    }
}
