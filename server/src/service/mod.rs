//! The RPCs: check the request, ask `propose` or `mvcc`, fill the header.
//!
//! One file per gRPC service, each call about ten lines. What is wrong with a
//! request is decided in `check`, before anything is proposed; what an error
//! is called on the wire stands in `status` alone. Nothing here knows about
//! sockets, the log or the disk: whether a call came by gRPC or through some
//! other door is `net`'s affair.

mod auth;
mod check;
mod cluster;
mod election;
mod errands;
mod header;
mod health;
mod kv;
mod lease;
mod lock;
mod login;
mod maintenance;
mod queue;
mod quota;
mod status;
mod tree;
mod watch;

pub use auth::{Access, Auth, Right};
pub use cluster::Cluster;
pub use election::Election;
pub use errands::Errands;
pub use header::Headers;
pub use health::{Check, Health};
pub use kv::Kv;
pub use lease::Lease;
pub use lock::Lock;
pub use login::{Logins, TokenKind};
pub use maintenance::Maintenance;
pub use queue::Queues;
pub use quota::Admission;
pub use status::Refusal;
pub use tree::Tree;
pub use watch::Watch;

use std::time::Duration;

use tokio::time;

pub use crate::{
    auth::Caller,
    mvcc::{ANSWER_BYTES_MAX, LongRange, Part, Ranged, RangedTxn},
};

/// Everything that can be called.
#[derive(Clone, Debug)]
pub struct Services {
    pub kv: Kv,
    pub watch: Watch,
    pub lease: Lease,
    pub cluster: Cluster,
    pub maintenance: Maintenance,
    pub auth: Auth,
    pub lock: Lock,
    pub election: Election,
    pub tree: Tree,
    pub health: Health,
    pub election_timeout: Duration,
}

impl Services {
    /// Refuses a caller who may not use a method that needs `right`.
    pub fn authorize(&self, right: Right, caller: &Caller) -> Result<(), Refusal> {
        self.auth.access.method(right, caller)
    }

    /// Returns once there has been no leader for as long as etcd's streams wait for one:
    /// three election timeouts, of which a leader's silence is the first.
    pub async fn leader_lost(self) {
        let mut status = self.health.members.watch();
        let patience = 2 * self.election_timeout;
        loop {
            let lost = self.health.members.status().leader.is_none();
            if lost
                && time::timeout(patience, status.wait_for(|status| status.leader.is_some())).await.is_err()
            {
                return;
            }
            // Its end is the member's: then all streams end anyway.
            if status.changed().await.is_err() {
                return;
            }
        }
    }

    /// Refuses what a member without a vote does not do.
    pub fn refuse_if_learner(&self) -> Result<(), Refusal> {
        match self.health.members.status().is_learner {
            true => Err(Refusal::NotSupportedForLearner),
            false => Ok(()),
        }
    }

    /// Refuses what must not be served without a leader.
    pub fn require_leader(&self) -> Result<(), Refusal> {
        match self.health.members.status().leader {
            Some(_) => Ok(()),
            None => Err(Refusal::NoLeader),
        }
    }
}
