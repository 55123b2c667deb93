//! What this member knows of its place in the cluster.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use openraft::{
    ServerState,
    metrics::{RaftMetrics, RaftServerMetrics},
    type_config::{alias::WatchReceiverOf, async_runtime::WatchReceiver as _},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::types::TypeConfig;

/// One look at this member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberStatus {
    pub member_id: u64,
    pub leader: Option<u64>,
    pub term: u64,
    pub last_index: u64,
    pub committed_index: u64,
    pub applied_index: u64,
    pub is_learner: bool,
}

pub(super) fn of(metrics: &RaftMetrics<TypeConfig>) -> MemberStatus {
    let index = |id: Option<super::types::LogId>| id.map_or(0, |id| id.index);
    MemberStatus {
        member_id: metrics.id,
        leader: metrics.current_leader,
        term: metrics.current_term,
        last_index: metrics.last_log_index.unwrap_or(0),
        committed_index: index(metrics.local_committed),
        applied_index: index(metrics.last_applied),
        is_learner: metrics.state == ServerState::Learner,
    }
}

/// Tells of every change of leader, term or role, and of no other.
pub(super) async fn follow(
    mut metrics: WatchReceiverOf<TypeConfig, RaftServerMetrics<TypeConfig>>,
    told: watch::Sender<MemberStatus>,
    leader_changes: Arc<AtomicU64>,
    shutdown: CancellationToken,
) {
    loop {
        let (leader, term, is_learner) = {
            let now = metrics.borrow_and_update();
            (now.current_leader, now.vote.leader_id.term, now.state == ServerState::Learner)
        };
        told.send_if_modified(|status| {
            if status.leader != leader && leader.is_some() {
                leader_changes.fetch_add(1, Ordering::Relaxed);
            }
            let changed = (status.leader, status.term, status.is_learner) != (leader, term, is_learner);
            (status.leader, status.term, status.is_learner) = (leader, term, is_learner);
            changed
        });
        match shutdown.run_until_cancelled(metrics.changed()).await {
            Some(Ok(())) => {}
            Some(Err(_)) | None => return,
        }
    }
}
