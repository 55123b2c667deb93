//! Who is a member: changes by etcd's rules, joint consensus underneath.
//!
//! A member that is added to vote gets its vote only once it has caught up: until
//! then it receives the log and counts for no majority, so that adding one that
//! never starts takes nothing from the cluster. To clients it is a voter from the
//! start. One that is added as a learner stays without a vote until it is promoted.
//!
//! A change of votes is two entries: the old and the new voters together, then the
//! new ones alone. openraft proposes the second only for who waits for the change,
//! so that one whose leader ends in between is half done: whoever leads finishes it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use etcfs_proto::etcfs::record::{self, Member};
use openraft::{
    ChangeMembers, ServerState,
    errors::{ChangeMembershipError, ClientWriteError, RaftError},
    type_config::async_runtime::WatchReceiver as _,
};
use tokio::{
    sync::oneshot,
    time::{self, Instant},
};

use super::{
    Node, id,
    types::{self, Peer, StoredMembership},
};
use crate::storage::{Wal, WalError};

/// Entries that a member may lack when it gets its vote.
const VOTER_LAG_MAX: u64 = 1000;
/// Members that count as healthy have answered for so long.
const HEALTHY_FOR: Duration = Duration::from_secs(5);
/// How often a leader looks for members that are to get their vote.
const RAISE_INTERVAL: Duration = Duration::from_millis(200);
/// Pause while another change is under way.
const BUSY_PAUSE: Duration = Duration::from_millis(20);

/// What is refused as etcd does.
#[derive(Clone, Copy, Debug)]
pub struct MemberRules {
    /// Refuses changes that could cost the cluster its majority.
    pub strict: bool,
    pub max_learners: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberChange {
    Add { peer_urls: Vec<String>, learner: bool },
    Remove { id: u64 },
    Update { id: u64, peer_urls: Vec<String> },
    Promote { id: u64 },
}

macro_rules! change_errors {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Why the members were not changed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
        pub enum ChangeError {
            $($(#[$doc])* #[error($text)] $name,)*
        }

        impl ChangeError {
            /// The one that another member has put into these words.
            pub fn of_text(text: &str) -> Option<Self> {
                match text {
                    $($text => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

change_errors! {
    /// Surely nothing was changed.
    NotLeader = "not leader",
    NotFound = "member not found",
    UrlTaken = "peer URL exists",
    NotEnoughStarted = "not enough started members",
    Unhealthy = "unhealthy cluster",
    NotLearner = "can only promote a learner member",
    LearnerNotReady = "can only promote a learner member which is in sync with leader",
    TooManyLearners = "too many learner members",
    /// The change may yet be made.
    Late = "request timed out",
}

impl Node {
    /// Changes the members, as the leader; the id of the one that it is about.
    pub async fn change_members(&self, change: &MemberChange, timeout: Duration) -> Result<u64, ChangeError> {
        let changed = time::timeout(timeout, async {
            let _one_at_a_time = self.inner.changing.lock().await;
            if self.status().leader != Some(self.member_id()) {
                return Err(ChangeError::NotLeader);
            }
            self.read_barrier(timeout).await.map_err(|_| ChangeError::NotLeader)?;
            let (id, change) = self.allowed(change)?;
            self.commit_change(change).await.map(|()| id)
        });
        changed.await.unwrap_or(Err(ChangeError::Late))
    }

    async fn commit_change(&self, change: ChangeMembers<u64, Peer>) -> Result<(), ChangeError> {
        let before = self.membership();
        loop {
            match self.inner.raft.change_membership(change.clone(), false).await {
                Ok(_) => return Ok(()),
                // One before it is not through yet.
                Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(
                    ChangeMembershipError::InProgress(_),
                ))) => time::sleep(BUSY_PAUSE).await,
                Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_))) => {
                    // It may be the second of its entries for which there was no leader any more.
                    let is_as_before = self.membership().log_id() == before.log_id();
                    return Err(if is_as_before { ChangeError::NotLeader } else { ChangeError::Late });
                }
                Err(error) => {
                    tracing::warn!(%error, "the members could not be changed");
                    return Err(ChangeError::Late);
                }
            }
        }
    }

    /// By the last entry of the log that says so, committed or not.
    fn membership(&self) -> Arc<StoredMembership> {
        self.inner.metrics.borrow_watched().membership_config.clone()
    }

    /// True if no change of votes is half done, as far as this member knows.
    pub fn is_membership_whole(&self) -> bool {
        self.membership().membership().get_joint_config().len() == 1
    }

    /// What openraft is to do, if etcd's rules allow it.
    fn allowed(&self, change: &MemberChange) -> Result<(u64, ChangeMembers<u64, Peer>), ChangeError> {
        let members = self.inner.state.cluster.members();
        let rules = self.inner.rules;
        let find = |id: u64| members.iter().find(|member| member.id == id).ok_or(ChangeError::NotFound);
        let is_taken = |urls: &[String], but: u64| {
            members.iter().any(|m| m.id != but && m.peer_urls.iter().any(|url| urls.contains(url)))
        };
        match change {
            MemberChange::Add { peer_urls, learner } => {
                if rules.strict && !learner {
                    may_add_voter(&members)?;
                }
                if rules.strict && !self.are_healthy(&members) {
                    return Err(ChangeError::Unhealthy);
                }
                if is_taken(peer_urls, 0) {
                    return Err(ChangeError::UrlTaken);
                }
                if *learner && members.iter().filter(|m| m.is_learner).count() >= rules.max_learners {
                    return Err(ChangeError::TooManyLearners);
                }
                let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
                let cluster = &self.inner.state.cluster;
                let is_taken = |id| cluster.is_removed(id) || members.iter().any(|member| member.id == id);
                let id = id::added(peer_urls, &self.inner.token, seconds, is_taken);
                let peer = Peer { urls: peer_urls.clone(), learner: *learner };
                Ok((id, ChangeMembers::AddNodes(BTreeMap::from([(id, peer)]))))
            }
            MemberChange::Remove { id } => {
                let member = find(*id)?;
                if rules.strict && !member.is_learner {
                    may_remove_voter(&members, *id)?;
                    self.is_majority_left(&members, *id)?;
                }
                let ids = BTreeSet::from([*id]);
                let votes = self.inner.raft.voter_ids().any(|voter| voter == *id);
                let change =
                    if votes { ChangeMembers::RemoveVoters(ids) } else { ChangeMembers::RemoveNodes(ids) };
                Ok((*id, change))
            }
            MemberChange::Update { id, peer_urls } => {
                let learner = find(*id)?.is_learner;
                if is_taken(peer_urls, *id) {
                    return Err(ChangeError::UrlTaken);
                }
                let peer = Peer { urls: peer_urls.clone(), learner };
                Ok((*id, ChangeMembers::SetNodes(BTreeMap::from([(*id, peer)]))))
            }
            MemberChange::Promote { id } => {
                let member = find(*id)?;
                if !member.is_learner {
                    return Err(ChangeError::NotLearner);
                }
                if !self.is_in_sync(*id, |matched, last| 10 * matched >= 9 * last) {
                    return Err(ChangeError::LearnerNotReady);
                }
                if rules.strict {
                    may_add_voter(&members)?;
                }
                let peer = Peer { urls: member.peer_urls.clone(), learner: false };
                let role = ChangeMembers::SetNodes(BTreeMap::from([(*id, peer)]));
                let vote = ChangeMembers::AddVoterIds(BTreeSet::from([*id]));
                Ok((*id, ChangeMembers::Batch(vec![role, vote])))
            }
        }
    }

    /// True if every voter has answered for a while.
    fn are_healthy(&self, members: &[Member]) -> bool {
        members
            .iter()
            .filter(|member| !member.is_learner)
            .all(|member| self.has_answered_for(member.id, HEALTHY_FOR))
    }

    fn has_answered_for(&self, id: u64, time: Duration) -> bool {
        let since = Instant::now().checked_sub(time).unwrap_or_else(Instant::now);
        id == self.member_id() || self.inner.links.is_connected_since(id, since)
    }

    /// Those who are left must be a majority that is there; one that is away may always go.
    fn is_majority_left(&self, members: &[Member], id: u64) -> Result<(), ChangeError> {
        if !self.has_answered_for(id, Duration::ZERO) {
            return Ok(());
        }
        let voters: Vec<_> = members.iter().filter(|member| !member.is_learner).collect();
        let active = voters.iter().filter(|member| self.has_answered_for(member.id, HEALTHY_FOR)).count();
        let left = voters.len() - 1;
        if active.saturating_sub(1) < left / 2 + 1 { Err(ChangeError::Unhealthy) } else { Ok(()) }
    }

    /// True if `id` has as much of this leader's log as `enough` asks for: `(matched, last)`.
    fn is_in_sync(&self, id: u64, enough: impl Fn(u64, u64) -> bool) -> bool {
        let metrics = self.inner.metrics.borrow_watched();
        let last = metrics.last_log_index.unwrap_or(0);
        let matched = metrics.replication.as_ref().and_then(|all| all.get(&id)?.as_ref().map(|id| id.index));
        matched.is_some_and(|matched| enough(matched, last))
    }

    fn leads(&self) -> bool {
        self.inner.metrics.borrow_watched().state == ServerState::Leader
    }

    /// Members that are to vote and do not yet, but could.
    fn ready_for_vote(&self) -> BTreeSet<u64> {
        let membership = self.membership();
        let voters: BTreeSet<u64> = membership.voter_ids().collect();
        let waiting = membership.nodes().filter(|(id, peer)| !peer.learner && !voters.contains(id));
        let ids = waiting.map(|(id, _)| *id);
        ids.filter(|id| self.is_in_sync(*id, |matched, last| last - matched.min(last) <= VOTER_LAG_MAX))
            .collect()
    }
}

/// Ends the log with a membership of this member alone: whatever stands before it
/// is then committed by this member's own vote. For when the others are lost.
pub(super) async fn force_alone(
    wal: &Wal,
    meta: &record::Meta,
    own: u64,
    peer_urls: &[String],
) -> Result<(), WalError> {
    let last = wal.last().or(meta.applied).unwrap_or_default();
    let id = record::LogId { index: last.index + 1, ..last };
    let known = meta.membership.as_ref().and_then(|stored| stored.membership.as_ref());
    let known = known.and_then(|membership| membership.nodes.iter().find(|node| node.id == own));
    let peer_urls = known.map_or(peer_urls, |node| &node.peer_urls).to_vec();
    let node = record::Node { id: own, learner: false, peer_urls };
    let alone = record::Membership { voters: vec![record::VoterSet { ids: vec![own] }], nodes: vec![node] };
    let (told, written) = oneshot::channel();
    wal.append(vec![types::membership_entry(id, &alone)], Box::new(move |result| drop(told.send(result))));
    written.await.unwrap_or(Err(WalError::Closed))?;
    tracing::warn!(index = id.index, "--force-new-cluster: this member is a cluster of its own from here on");
    Ok(())
}

/// While this member leads: gives others their vote once they have caught up, and
/// finishes what was left half done.
pub(super) async fn raise_voters(node: Node) {
    let mut ticks = time::interval(RAISE_INTERVAL);
    ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    while node.inner.shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
        if !node.leads() {
            continue;
        }
        // Whoever makes a change holds this until it is whole.
        let Ok(_one_at_a_time) = node.inner.changing.try_lock() else { continue };
        let (ready, is_whole) = (node.ready_for_vote(), node.is_membership_whole());
        if ready.is_empty() && is_whole {
            continue;
        }
        // Also with none of them it ends with the new voters alone.
        let change = ChangeMembers::AddVoterIds(ready.clone());
        let changed = node.inner.shutdown.run_until_cancelled(node.commit_change(change)).await;
        if !matches!(changed, Some(Ok(()))) {
            continue;
        }
        if !is_whole {
            tracing::info!("a change of the members that was left half done is finished");
        }
        if !ready.is_empty() {
            let members: Vec<_> = ready.iter().map(|id| format!("{id:x}")).collect();
            tracing::info!(?members, "caught up: votes from now on");
        }
    }
}

/// A majority of the larger cluster must have started.
fn may_add_voter(members: &[Member]) -> Result<(), ChangeError> {
    let voters: Vec<_> = members.iter().filter(|member| !member.is_learner).collect();
    let started = voters.iter().filter(|member| !member.name.is_empty()).count();
    let size = voters.len() + 1;
    // A cluster of one must be able to grow.
    if (started, size) == (1, 2) || started > size / 2 { Ok(()) } else { Err(ChangeError::NotEnoughStarted) }
}

/// A majority of the smaller cluster must have started, and somebody must be left.
fn may_remove_voter(members: &[Member], id: u64) -> Result<(), ChangeError> {
    let left = members.iter().filter(|member| !member.is_learner && member.id != id);
    let (mut size, mut started) = (0, 0);
    for member in left {
        size += 1;
        started += usize::from(!member.name.is_empty());
    }
    if size > 0 && started > size / 2 { Ok(()) } else { Err(ChangeError::NotEnoughStarted) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(started: &[bool]) -> Vec<Member> {
        let member = |(nth, &started): (usize, &bool)| Member {
            id: nth as u64 + 1,
            name: if started { format!("m{nth}") } else { String::new() },
            ..Member::default()
        };
        started.iter().enumerate().map(member).collect()
    }

    #[test]
    fn voters_are_added_only_while_a_majority_of_the_larger_cluster_has_started() {
        let may = |started: &[bool]| may_add_voter(&members(started)).is_ok();
        assert!(may(&[true]), "one may become two");
        assert!(!may(&[true, false]), "but not three before the second is there");
        assert!(may(&[true, true]) && may(&[true, true, true]));
        assert!(!may(&[true, true, false]), "two of four");
        let mut with_learner = members(&[true, true, false]);
        with_learner[2].is_learner = true;
        assert!(may_add_voter(&with_learner).is_ok(), "a learner counts for nothing");
    }

    #[test]
    fn voters_are_removed_only_while_a_majority_of_the_smaller_cluster_has_started() {
        let may = |started: &[bool], id| may_remove_voter(&members(started), id).is_ok();
        assert!(!may(&[true], 1), "somebody must be left");
        assert!(may(&[true, true], 1) && may(&[true, true, true], 2));
        assert!(may(&[true, false], 2) && !may(&[true, false], 1));
        assert!(!may(&[true, true, false, false], 1) && may(&[true, true, false, false], 4));
    }

    #[test]
    fn errors_come_back_from_their_words() {
        for error in [ChangeError::NotFound, ChangeError::LearnerNotReady, ChangeError::Late] {
            assert_eq!(ChangeError::of_text(&error.to_string()), Some(error));
        }
        assert_eq!(ChangeError::of_text("anything else"), None);
    }
}
