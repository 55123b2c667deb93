//! The cluster as its log describes it: members, their names, its version.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use etcfs_proto::etcfs::{command::MemberAttributes, record};
use parking_lot::RwLock;

use super::ApplyError;
use crate::storage::{
    Batch, Engine, StorageError, codec,
    keyspace::{self, MEMBERS},
};

/// Read handle of the cluster's members.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    /// Held for a few lines, with no other lock taken under it.
    state: Arc<RwLock<State>>,
}

#[derive(Debug, Default)]
struct State {
    cluster_id: u64,
    version: String,
    downgrade: String,
    members: BTreeMap<u64, record::Member>,
    /// Kept for good, so that none of them comes back unknown.
    removed: BTreeSet<u64>,
}

/// More members than any cluster has, or ever had.
const MEMBERS_MAX: usize = 4096;

impl Cluster {
    pub fn cluster_id(&self) -> u64 {
        self.state.read().cluster_id
    }

    /// Empty until a leader has set it.
    pub fn version(&self) -> String {
        self.state.read().version.clone()
    }

    /// The version that the cluster is to go back to; empty for none.
    pub fn downgrade(&self) -> String {
        self.state.read().downgrade.clone()
    }

    /// All members, by id.
    pub fn members(&self) -> Vec<record::Member> {
        self.state.read().members.values().cloned().collect()
    }

    /// True for one that was a member and is none any more.
    pub fn is_removed(&self, id: u64) -> bool {
        self.state.read().removed.contains(&id)
    }

    pub(super) fn load(&self, engine: &dyn Engine, meta: &record::Meta) -> Result<(), StorageError> {
        let rows = engine.range(MEMBERS.start, MEMBERS.end, MEMBERS_MAX)?;
        let version = meta.cluster_version.clone();
        let downgrade = meta.downgrade_target.clone();
        let mut state = State { cluster_id: meta.cluster_id, version, downgrade, ..State::default() };
        for (key, row) in rows {
            let member: record::Member = codec::decode(&key, row)?;
            if member.removed {
                state.removed.insert(member.id);
            } else {
                state.members.insert(member.id, member);
            }
        }
        *self.state.write() = state;
        Ok(())
    }

    pub(super) fn set_cluster_id(&self, cluster_id: u64) {
        self.state.write().cluster_id = cluster_id;
    }

    pub(crate) fn set_version(&self, version: &str) {
        // Held until the log has it: whoever sees the version goes on, and harnesses read the log in order.
        let mut state = self.state.write();
        let before = std::mem::replace(&mut state.version, version.to_owned());
        match before.as_str() {
            "" => tracing::info!(cluster_version = version, "set initial cluster version"),
            same if same == version => return,
            _ => tracing::info!(from = before, to = version, "updated cluster version"),
        }
        tracing::info!(cluster_version = version, "enabled capabilities for version");
    }

    pub(super) fn set_downgrade(&self, target: String) {
        self.state.write().downgrade = target;
    }

    /// Makes the members those of a membership; what they said of themselves stays.
    pub(super) fn apply_membership(&self, membership: &record::Membership, batch: &mut Batch) {
        let mut state = self.state.write();
        let mut old = std::mem::take(&mut state.members);
        for node in &membership.nodes {
            let before = old.remove(&node.id);
            let mut member = before.clone().unwrap_or_default();
            member.id = node.id;
            member.peer_urls.clone_from(&node.peer_urls);
            member.is_learner = node.learner;
            if before.as_ref() != Some(&member) {
                batch.put(keyspace::member(node.id), codec::encode(&member));
            }
            state.members.insert(node.id, member);
        }
        for id in old.into_keys() {
            let removed = record::Member { id, removed: true, ..record::Member::default() };
            batch.put(keyspace::member(id), codec::encode(&removed));
            state.removed.insert(id);
        }
    }

    pub(super) fn apply_attributes(
        &self,
        attributes: &MemberAttributes,
        batch: &mut Batch,
    ) -> Result<(), ApplyError> {
        let mut state = self.state.write();
        let member = state.members.get_mut(&attributes.member_id).ok_or(ApplyError::MemberNotFound)?;
        member.name.clone_from(&attributes.name);
        member.client_urls.clone_from(&attributes.client_urls);
        batch.put(keyspace::member(member.id), codec::encode(&*member));
        Ok(())
    }
}
