//! Who is in the cluster, and where this member stands in it.

use std::time::Duration;

use etcfs_proto::{
    etcdserverpb::{MemberAddRequest, MemberPromoteRequest, MemberRemoveRequest, MemberUpdateRequest},
    etcfs::{
        peer::{ChangeMembersRequest, change_members_request::Change},
        record::Member,
    },
};
use tokio::{
    sync::watch,
    time::{self, Instant},
};

use super::Errands;
use crate::raft::{ChangeError, MemberChange, MemberStatus, Node};

/// Pause before a change for which there was no leader is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// Read handle of the cluster; clones share it.
#[derive(Clone, Debug)]
pub struct Members {
    node: Node,
    errands: Errands,
    timeout: Duration,
}

impl Members {
    /// A change is given up after `timeout`.
    pub fn new(node: &Node, errands: Errands, timeout: Duration) -> Self {
        Self { node: node.clone(), errands, timeout }
    }

    /// Has the leader change the members; the id of the one that it was about.
    ///
    /// Tried again only while there is surely nobody who has taken it on.
    pub async fn change(&self, change: &MemberChange) -> Result<u64, ChangeError> {
        let began = Instant::now();
        while began.elapsed() < self.timeout {
            let done = match self.node.status().leader {
                None => Err(ChangeError::NotLeader),
                Some(leader) if leader == self.member_id() => {
                    // Boxed: rare, and deep enough to burden every call's future.
                    Box::pin(self.node.change_members(change, self.timeout)).await
                }
                Some(_) => self.errands.change_members(to_request(change)).await.map_err(|status| {
                    tracing::debug!(error = status.message(), "the leader did not change the members");
                    ChangeError::of_text(status.message()).unwrap_or(ChangeError::Late)
                }),
            };
            match done {
                Err(ChangeError::NotLeader) => time::sleep(RETRY_PAUSE).await,
                done => return done,
            }
        }
        Err(ChangeError::Late)
    }

    /// For another member.
    pub async fn change_as_leader(&self, request: ChangeMembersRequest) -> Result<u64, ChangeError> {
        let change = from_request(request).ok_or(ChangeError::Late)?;
        Box::pin(self.node.change_members(&change, self.timeout)).await
    }

    /// Has another voter lead; false if that takes too long.
    pub async fn move_leader(&self, to: u64) -> bool {
        Box::pin(self.node.transfer_leadership(to, self.timeout)).await
    }

    pub fn is_voter(&self, id: u64) -> bool {
        self.node.is_voter(id)
    }

    pub fn cluster_id(&self) -> u64 {
        self.node.cluster_id()
    }

    /// Of this member.
    pub fn member_id(&self) -> u64 {
        self.node.member_id()
    }

    pub fn term(&self) -> u64 {
        self.node.term()
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

    /// The version that the cluster is to go back to; empty for none.
    pub fn downgrade(&self) -> String {
        self.node.state().cluster.downgrade()
    }

    /// What each other member speaks; `None` for one that does not answer.
    pub async fn versions(&self) -> Vec<(u64, Option<String>)> {
        self.node.versions().await
    }

    /// Empty until a leader has decided it.
    pub fn cluster_version(&self) -> String {
        self.node.state().cluster.version()
    }
}

fn to_request(change: &MemberChange) -> ChangeMembersRequest {
    let change = match change.clone() {
        MemberChange::Add { peer_urls, learner } => {
            Change::Add(MemberAddRequest { peer_ur_ls: peer_urls, is_learner: learner })
        }
        MemberChange::Remove { id } => Change::Remove(MemberRemoveRequest { id }),
        MemberChange::Update { id, peer_urls } => {
            Change::Update(MemberUpdateRequest { id, peer_ur_ls: peer_urls })
        }
        MemberChange::Promote { id } => Change::Promote(MemberPromoteRequest { id }),
    };
    ChangeMembersRequest { change: Some(change) }
}

fn from_request(request: ChangeMembersRequest) -> Option<MemberChange> {
    Some(match request.change? {
        Change::Add(add) => MemberChange::Add { peer_urls: add.peer_ur_ls, learner: add.is_learner },
        Change::Remove(remove) => MemberChange::Remove { id: remove.id },
        Change::Update(update) => MemberChange::Update { id: update.id, peer_urls: update.peer_ur_ls },
        Change::Promote(promote) => MemberChange::Promote { id: promote.id },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_cross_the_wire() {
        for change in [
            MemberChange::Add { peer_urls: vec!["http://a:1".into()], learner: true },
            MemberChange::Remove { id: 1 },
            MemberChange::Update { id: 2, peer_urls: vec!["http://b:1".into()] },
            MemberChange::Promote { id: 3 },
        ] {
            assert_eq!(from_request(to_request(&change)), Some(change));
        }
    }
}
