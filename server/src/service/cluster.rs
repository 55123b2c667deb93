//! The Cluster service: who the members are.

use etcfs_proto::etcdserverpb::{Member, MemberListRequest, MemberListResponse};

use super::{Headers, Refusal};
use crate::propose::{Members, ReadBarrier};

#[derive(Clone, Debug)]
pub struct Cluster {
    pub members: Members,
    pub barrier: ReadBarrier,
    pub headers: Headers,
}

impl Cluster {
    pub async fn member_list(&self, request: MemberListRequest) -> Result<MemberListResponse, Refusal> {
        if request.linearizable {
            self.barrier.wait().await?;
        }
        let members = self.members.list().into_iter().map(|member| Member {
            id: member.id,
            name: member.name,
            peer_ur_ls: member.peer_urls,
            client_ur_ls: member.client_urls,
            is_learner: member.is_learner,
        });
        Ok(MemberListResponse { header: self.headers.at(0), members: members.collect() })
    }
}
