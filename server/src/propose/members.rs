//! Who is in the cluster, and where this member stands in it.

use etcfs_proto::etcfs::record::Member;
use tokio::sync::watch;

use crate::raft::{MemberStatus, Node};

/// Read handle of the cluster; clones share it.
#[derive(Clone, Debug)]
pub struct Members {
    node: Node,
}

impl Members {
    pub fn new(node: &Node) -> Self {
        Self { node: node.clone() }
    }

    pub fn cluster_id(&self) -> u64 {
        self.node.cluster_id()
    }

    /// Of this member.
    pub fn member_id(&self) -> u64 {
        self.node.member_id()
    }

    pub fn term(&self) -> u64 {
        self.status().term
    }

    pub fn status(&self) -> MemberStatus {
        self.node.status()
    }

    /// Changes of leader, term and role; the indexes in it are not kept up.
    pub fn watch(&self) -> watch::Receiver<MemberStatus> {
        self.node.watch()
    }

    pub fn leader_changes(&self) -> u64 {
        self.node.leader_changes()
    }

    /// As applied here, by id.
    pub fn list(&self) -> Vec<Member> {
        self.node.state().cluster.members()
    }

    pub fn cluster_version(&self) -> String {
        self.node.state().cluster.version()
    }
}
