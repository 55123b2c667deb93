//! How a member learns that it is none any more.
//!
//! Most often by the log: the leader still sends the change to whom it removes. One
//! that was away, or whose log the leader stopped sending a moment too early, is told
//! by the guard of whomever it calls. But one without a vote calls nobody: so whoever
//! misses a leader asks the others, those that it knows or was started with.

use std::{collections::BTreeSet, time::Duration};

use etcfs_proto::etcfs::peer::{MembersRequest, roster_client::RosterClient};
use openraft::type_config::async_runtime::WatchReceiver as _;
use tokio::time::{self, Instant};

use super::{Bootstrap, Dialer, Node, links::within};

/// How often the state is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// Pause between two rounds of questions.
const ASK_INTERVAL: Duration = Duration::from_secs(2);
const ASK_TIMEOUT: Duration = Duration::from_secs(2);

/// Cancels the node's [`Node::removed`] once its removal is known; lets go of others that were removed.
pub(super) async fn watch(node: Node, bootstrap: Bootstrap, dialer: Dialer) {
    let shutdown = node.inner.shutdown.clone();
    let mut ticks = time::interval(LOOK_INTERVAL);
    ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    // Who has just started waits for its leader first.
    let mut ask_at = Instant::now() + ASK_INTERVAL;
    while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
        let cluster = &node.inner.state.cluster;
        node.inner.links.retain(|id| !cluster.is_removed(id));
        if cluster.is_removed(node.member_id()) {
            node.inner.removed.cancel();
            return;
        }
        if node.status().leader.is_some() {
            ask_at = Instant::now() + ASK_INTERVAL;
        } else if Instant::now() >= ask_at {
            let asked = shutdown.run_until_cancelled(others_say_removed(&node, &bootstrap, &dialer)).await;
            if asked == Some(true) {
                node.inner.removed.cancel();
                return;
            }
            ask_at = Instant::now() + ASK_INTERVAL;
        }
    }
}

/// True if one of the cluster says so; silence says nothing.
async fn others_say_removed(node: &Node, bootstrap: &Bootstrap, dialer: &Dialer) -> bool {
    let own = node.member_id();
    let membership = node.inner.metrics.borrow_watched().membership_config.clone();
    let known = membership.nodes().filter(|(id, _)| **id != own).flat_map(|(_, peer)| peer.urls.clone());
    let named = bootstrap.others().flat_map(|member| member.peer_urls.clone());
    let urls: BTreeSet<String> = known.chain(named).collect();
    let asked = urls.into_iter().map(|url| async move {
        let mut roster = RosterClient::new(dialer.channel(&url).ok()?);
        let request = within(MembersRequest { asker: own }, ASK_TIMEOUT);
        match time::timeout(ASK_TIMEOUT, roster.members(request)).await {
            Ok(Ok(answer)) => Some(answer.into_inner()),
            Ok(Err(status)) => {
                tracing::debug!(url, error = status.message(), "a peer does not tell its members");
                None
            }
            Err(_late) => None,
        }
    });
    let answers = futures_util::future::join_all(asked).await;
    answers.into_iter().flatten().any(|answer| answer.cluster_id == node.cluster_id() && answer.asker_removed)
}
