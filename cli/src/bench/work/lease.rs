//! Leases: granting them, and renewing those that are there.

use std::rc::Rc;

use etcfs_client::Client;
use etcfs_proto::etcdserverpb::LeaseGrantRequest;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use crate::{
    bench::{plan::Plan, tally::Tally},
    error::CliError,
};

/// Seconds of a granted lease: they end by themselves soon after the round.
const TTL: i64 = 60;
/// Leases granted at a time, so that many are there before the first of them ends.
const GRANTS: usize = 256;

const GRANT: LeaseGrantRequest = LeaseGrantRequest { ttl: TTL, id: 0 };

/// Grants what [`renewals`] renews.
pub(super) async fn grant(clients: &[Client], plan: &Plan) -> Result<Vec<i64>, CliError> {
    let grant = async |number: usize| clients[number % clients.len()].lease().grant(GRANT).await;
    let granted = stream::iter(0..plan.leases.max(1)).map(grant).buffer_unordered(GRANTS);
    Ok(granted.map_ok(|lease| lease.id).try_collect().await?)
}

pub(super) async fn revoke(clients: &[Client], leases: &[i64]) {
    let revoke = async |&id| {
        if let Err(error) = clients[0].lease().revoke(id).await {
            // It ends by itself.
            tracing::debug!(%error, id, "lease not revoked");
        }
    };
    stream::iter(leases).for_each_concurrent(GRANTS, revoke).await;
}

pub(super) async fn grants(client: Client, plan: Plan, tally: Rc<Tally>) {
    while let Some((_, begin)) = tally.next(&plan).await {
        tally.record(begin, client.lease().grant(GRANT).await);
    }
}

/// Each renewal on a stream of its own, as a program that renews now and then does it.
pub(super) async fn renewals(client: Client, plan: Plan, tally: Rc<Tally>, leases: Rc<Vec<i64>>) {
    while let Some((number, begin)) = tally.next(&plan).await {
        let id = leases[usize::try_from(number).unwrap_or(0) % leases.len()];
        tally.record(begin, client.lease().keep_alive_once(id).await);
    }
}
