//! Fills a key space quickly: transactions of as many puts as a server takes.

use std::{rc::Rc, time::Instant};

use etcfs_client::Client;
use etcfs_proto::etcdserverpb::{PutRequest, RangeRequest, RequestOp, TxnRequest, request_op::Request};
use tokio::task::JoinSet;

use super::{plan::Plan, report::Progress, tally::Tally};
use crate::error::CliError;

/// Puts in a transaction: etcd's default limit.
const PUTS_A_TXN: u64 = 128;
/// Bytes of values in a transaction: well below etcd's largest request.
const TXN_BYTES_MAX: u64 = 1 << 20;
/// Transactions under way at a time; more wait for the same disk.
const TXNS_AT_A_TIME: usize = 8;

/// Stores keys `0..count` where they are missing; says how many were stored.
pub(crate) async fn ensure(clients: &[Client], plan: &Plan, count: u64) -> Result<u64, CliError> {
    let request = RangeRequest {
        key: plan.key(0),
        range_end: plan.key(count),
        count_only: true,
        ..RangeRequest::default()
    };
    let there = clients[0].kv().range(request).await?.count;
    if u64::try_from(there).is_ok_and(|there| there >= count) {
        return Ok(0);
    }
    fill(clients, plan, count).await
}

/// Stores keys `0..count`.
pub(crate) async fn fill(clients: &[Client], plan: &Plan, count: u64) -> Result<u64, CliError> {
    let bytes = u64::try_from(plan.key_size + plan.value_size).unwrap_or(TXN_BYTES_MAX);
    let batch = PUTS_A_TXN.min(TXN_BYTES_MAX / bytes.max(1)).max(1);
    let tally = Rc::new(Tally::new(count.div_ceil(batch)));
    let progress = Progress::start("load", count, plan.json);
    let mut callers = JoinSet::new();
    for caller in 0..TXNS_AT_A_TIME {
        let (client, plan, tally) =
            (clients[caller % clients.len()].clone(), plan.clone(), Rc::clone(&tally));
        let progress = progress.clone();
        callers.spawn_local(async move {
            let unpaced = Plan { rate: 0, ..plan };
            while let Some((number, begin)) = tally.next(&unpaced).await {
                let keys = number * batch..((number + 1) * batch).min(count);
                let done = keys.end;
                let request =
                    TxnRequest { success: keys.map(|n| put(&unpaced, n)).collect(), ..TxnRequest::default() };
                tally.record(begin, client.kv().txn(request).await);
                progress.at(done);
            }
        });
    }
    while callers.join_next().await.is_some() {}
    progress.finish();
    match tally.take() {
        (_, 0, _) => Ok(count),
        (_, errors, first) => Err(CliError::failed(format!(
            "{errors} of the transactions that load keys failed, the first with: {}",
            first.unwrap_or_default()
        ))),
    }
}

fn put(plan: &Plan, number: u64) -> RequestOp {
    let put = PutRequest { key: plan.key(number), value: plan.value(number), ..PutRequest::default() };
    RequestOp { request: Some(Request::RequestPut(put)) }
}

/// Fills and says how long it took.
pub(crate) async fn run(clients: &[Client], plan: &Plan, count: u64) -> Result<(), CliError> {
    let begin = Instant::now();
    let stored = fill(clients, plan, count).await?;
    super::report::loaded(plan, stored, begin.elapsed());
    Ok(())
}
