//! The requests of each kind: how a round is made ready and what a caller does.

mod lease;
mod range;
mod watch;
mod write;

use std::rc::Rc;

use etcfs_client::Client;
use tokio::task::JoinSet;

use super::{
    load,
    plan::{Op, Plan},
    tally::Tally,
};
use crate::error::CliError;

/// Keys of one large range.
const LARGE_RANGE: u64 = 10_000;

/// Makes a round ready: what it reads is there, what it renews exists.
pub(super) enum Ready {
    Nothing,
    Leases(Rc<Vec<i64>>),
}

pub(super) async fn prepare(clients: &[Client], plan: &Plan, op: Op) -> Result<Ready, CliError> {
    match op {
        Op::RangeL | Op::RangeS | Op::Mixed | Op::Txn => {
            load::ensure(clients, plan, plan.keys).await?;
        }
        Op::RangeL10k | Op::RangeS10k => {
            load::ensure(clients, plan, plan.keys.max(LARGE_RANGE)).await?;
        }
        Op::LeaseKeepAlive => return Ok(Ready::Leases(Rc::new(lease::grant(clients, plan).await?))),
        Op::Put | Op::Watch | Op::WatchKeys | Op::LeaseGrant => {}
    }
    Ok(Ready::Nothing)
}

/// Runs all requests of a round.
pub(super) async fn run(
    clients: &[Client],
    plan: &Plan,
    op: Op,
    ready: &Ready,
    tally: &Rc<Tally>,
) -> Result<(), CliError> {
    if let Op::Watch | Op::WatchKeys = op {
        return watch::run(clients, plan, op, tally).await;
    }
    let mut callers = JoinSet::new();
    for caller in 0..plan.clients {
        let (client, plan, tally) = (clients[caller % clients.len()].clone(), plan.clone(), Rc::clone(tally));
        match (op, ready) {
            (Op::Put, _) => callers.spawn_local(write::puts(client, plan, tally)),
            (Op::Txn, _) => callers.spawn_local(write::txns(client, plan, tally)),
            (Op::RangeL, _) => callers.spawn_local(range::one(client, plan, tally, false)),
            (Op::RangeS, _) => callers.spawn_local(range::one(client, plan, tally, true)),
            (Op::RangeL10k, _) => callers.spawn_local(range::many(client, plan, tally, false)),
            (Op::RangeS10k, _) => callers.spawn_local(range::many(client, plan, tally, true)),
            (Op::LeaseGrant, _) => callers.spawn_local(lease::grants(client, plan, tally)),
            (Op::Mixed, _) => callers.spawn_local(write::mixed(client, plan, tally)),
            (Op::LeaseKeepAlive, Ready::Leases(leases)) => {
                callers.spawn_local(lease::renewals(client, plan, tally, Rc::clone(leases)))
            }
            (Op::LeaseKeepAlive | Op::Watch | Op::WatchKeys, _) => {
                unreachable!("leases are prepared, watches were run above")
            }
        };
    }
    while callers.join_next().await.is_some() {}
    Ok(())
}

/// Gives back what a round has taken, where it would weigh on the next.
pub(super) async fn clean_up(clients: &[Client], ready: Ready) {
    if let Ready::Leases(leases) = ready {
        lease::revoke(clients, &leases).await;
    }
}
