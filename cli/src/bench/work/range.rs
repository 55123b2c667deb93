//! Reads: one key, or ten thousand at once.

use std::rc::Rc;

use etcfs_client::Client;
use etcfs_proto::etcdserverpb::RangeRequest;

use super::LARGE_RANGE;
use crate::bench::{
    plan::{Plan, scramble},
    tally::Tally,
};

pub(super) fn request(plan: &Plan, number: u64, serializable: bool) -> RangeRequest {
    RangeRequest { key: plan.key(scramble(number) % plan.keys), serializable, ..RangeRequest::default() }
}

pub(super) async fn one(client: Client, plan: Plan, tally: Rc<Tally>, serializable: bool) {
    while let Some((number, begin)) = tally.next(&plan).await {
        tally.record(begin, client.kv().range(request(&plan, number, serializable)).await);
    }
}

pub(super) async fn many(client: Client, plan: Plan, tally: Rc<Tally>, serializable: bool) {
    let request = RangeRequest {
        key: plan.key(0),
        range_end: plan.key(LARGE_RANGE),
        serializable,
        ..RangeRequest::default()
    };
    while let Some((_, begin)) = tally.next(&plan).await {
        match client.kv().range(request.clone()).await {
            Ok(answer) if answer.kvs.len() as u64 == LARGE_RANGE => tally.answered(begin),
            Ok(answer) => tally.failed(&format!("{} keys came instead of {LARGE_RANGE}", answer.kvs.len())),
            Err(error) => tally.failed(&error),
        }
    }
}
