//! Leases: granting them, and renewing those that are there.

use std::rc::Rc;

use etcfs_client::Client;
use etcfs_proto::etcdserverpb::LeaseGrantRequest;

use crate::{
    bench::{plan::Plan, tally::Tally},
    error::CliError,
};

/// Seconds of a granted lease: they end by themselves soon after the round.
const TTL: i64 = 60;
/// Leases that exist for renewals; callers share them.
const LEASES_MAX: usize = 1000;

const GRANT: LeaseGrantRequest = LeaseGrantRequest { ttl: TTL, id: 0 };

/// Grants what [`renewals`] renews.
pub(super) async fn grant(clients: &[Client], plan: &Plan) -> Result<Vec<i64>, CliError> {
    let mut leases = Vec::new();
    for number in 0..plan.clients.min(LEASES_MAX) {
        leases.push(clients[number % clients.len()].lease().grant(GRANT).await?.id);
    }
    Ok(leases)
}

pub(super) async fn revoke(clients: &[Client], leases: &[i64]) {
    for id in leases {
        if let Err(error) = clients[0].lease().revoke(*id).await {
            // It ends by itself.
            tracing::debug!(%error, id, "lease not revoked");
        }
    }
}

pub(super) async fn grants(client: Client, plan: Plan, tally: Rc<Tally>) {
    while let Some((_, begin)) = tally.next(&plan).await {
        tally.record(begin, client.lease().grant(GRANT).await);
    }
}

/// Each renewal on a stream of its own, as a program that renews now and then does it.
pub(super) async fn renewals(client: Client, plan: Plan, tally: Rc<Tally>, id: i64) {
    while let Some((_, begin)) = tally.next(&plan).await {
        tally.record(begin, client.lease().keep_alive_once(id).await);
    }
}
