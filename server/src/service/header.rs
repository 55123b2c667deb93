//! The header of every answer: who answered, at which revision, in which term.
//!
//! `apply` and `mvcc` know the revision and fill it in; the rest is added here,
//! in the outermost header alone, as etcd has it.

use etcfs_proto::etcdserverpb::ResponseHeader;

use crate::propose::Members;

/// Fills headers; cheap to clone.
#[derive(Clone, Debug)]
pub struct Headers {
    members: Members,
}

impl Headers {
    pub fn new(members: Members) -> Self {
        Self { members }
    }

    /// Completes a header that holds the revision.
    pub(super) fn fill(&self, header: &mut Option<ResponseHeader>) {
        let revision = header.as_ref().map_or(0, |header| header.revision);
        *header = self.at(revision);
    }

    /// A whole header; answers about members have revision 0.
    pub(super) fn at(&self, revision: i64) -> Option<ResponseHeader> {
        Some(ResponseHeader {
            cluster_id: self.members.cluster_id(),
            member_id: self.members.member_id(),
            revision,
            raft_term: self.members.term(),
        })
    }
}
