//! What this member knows of its place in the cluster.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use openraft::{
    Instant as _, ServerState,
    metrics::{RaftMetrics, RaftServerMetrics},
    type_config::{alias::WatchReceiverOf, async_runtime::WatchReceiver as _},
};
use tokio::{sync::watch, time};
use tokio_util::sync::CancellationToken;

use super::{contact::Contact, types::TypeConfig};

/// One look at this member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberStatus {
    pub member_id: u64,
    /// One that has given proof of itself a short while ago.
    pub leader: Option<u64>,
    pub term: u64,
    pub last_index: u64,
    pub committed_index: u64,
    pub applied_index: u64,
    pub is_learner: bool,
}

pub(super) fn of(metrics: &RaftMetrics<TypeConfig>, contact: &Contact) -> MemberStatus {
    let index = |id: Option<super::types::LogId>| id.map_or(0, |id| id.index);
    MemberStatus {
        member_id: metrics.id,
        leader: metrics.current_leader.filter(|_| is_led(metrics, contact)),
        term: metrics.current_term,
        last_index: metrics.last_log_index.unwrap_or(0),
        committed_index: index(metrics.local_committed),
        applied_index: index(metrics.last_applied),
        is_learner: metrics.membership_config.get_node(&metrics.id).is_some_and(|own| own.learner),
    }
}

/// True if nobody but this member has a vote.
///
/// Asked for each request: the joined sets themselves, as their union would be built anew each time.
pub(super) fn is_sole_voter(metrics: &RaftMetrics<TypeConfig>) -> bool {
    let sets = metrics.membership_config.get_joint_config();
    !sets.is_empty() && sets.iter().all(|voters| voters.len() == 1 && voters.contains(&metrics.id))
}

fn is_led(metrics: &RaftMetrics<TypeConfig>, contact: &Contact) -> bool {
    if metrics.state != ServerState::Leader {
        return contact.is_fresh();
    }
    // A leader hears of itself from the others, unless it needs none.
    is_sole_voter(metrics)
        || metrics.last_quorum_acked.is_some_and(|acked| contact.is_recent(acked.into_inner().elapsed()))
        // Just elected: the votes are the proof.
        || contact.is_fresh()
}

/// Tells of every change of leader, term or role, and of no other.
pub(super) async fn follow(
    mut changes: WatchReceiverOf<TypeConfig, RaftServerMetrics<TypeConfig>>,
    metrics: WatchReceiverOf<TypeConfig, RaftMetrics<TypeConfig>>,
    contact: Contact,
    told: watch::Sender<MemberStatus>,
    leader_changes: Arc<AtomicU64>,
    look_interval: Duration,
    shutdown: CancellationToken,
) {
    let mut led_term = 0;
    loop {
        drop(changes.borrow_and_update());
        let now = {
            let metrics = metrics.borrow_watched();
            if metrics.state == ServerState::Leader && metrics.current_term > led_term {
                led_term = metrics.current_term;
                contact.heard();
            }
            of(&metrics, &contact)
        };
        told.send_if_modified(|status| {
            if status.leader != now.leader && now.leader.is_some() {
                leader_changes.fetch_add(1, Ordering::Relaxed);
                contact.found();
            }
            let key = |status: &MemberStatus| (status.leader, status.term, status.is_learner);
            let changed = key(status) != key(&now);
            if changed {
                log(status, &now);
                *status = now;
            }
            changed
        });
        // A leader falls silent without any news: so look without any, too.
        let next = time::timeout(look_interval, changes.changed());
        match shutdown.run_until_cancelled(next).await {
            Some(Ok(Ok(())) | Err(_)) => {}
            Some(Ok(Err(_))) | None => return,
        }
    }
}

/// Who leads, for the operator.
fn log(before: &MemberStatus, now: &MemberStatus) {
    let hex = |id: u64| format!("{id:x}");
    let term = now.term;
    match (before.leader, now.leader) {
        (old, Some(new)) if old != Some(new) || before.term != term => {
            if new == now.member_id {
                tracing::info!(term, member = hex(new), "this member leads");
            } else {
                tracing::info!(term, leader = hex(new), "this member follows");
            }
        }
        (Some(old), None) if old == now.member_id && before.term == term => {
            tracing::warn!(
                term,
                "this member leads no more: no majority has answered it for an election timeout"
            );
        }
        (Some(old), None) if before.term == term => {
            tracing::warn!(
                term,
                leader = hex(old),
                "no leader: the last has been silent for an election timeout"
            );
        }
        (Some(old), None) => tracing::info!(term, former = hex(old), "no leader: an election goes on"),
        _ => {}
    }
}
