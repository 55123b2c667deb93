//! Writes: puts, small transactions, and writes among reads.

use std::rc::Rc;

use etcfs_client::Client;
use etcfs_proto::etcdserverpb::{
    Compare, PutRequest, RangeRequest, RequestOp, TxnRequest,
    compare::{CompareResult, CompareTarget, TargetUnion},
    request_op::Request,
};

use super::range;
use crate::bench::{
    plan::{Plan, scramble},
    tally::Tally,
};

fn put(plan: &Plan, number: u64) -> PutRequest {
    let key = plan.key(scramble(number) % plan.keys);
    PutRequest { key, value: plan.value(number), ..PutRequest::default() }
}

/// What a program does with a key of its own: check it, change it, read it.
fn txn(plan: &Plan, number: u64) -> TxnRequest {
    let put = put(plan, number);
    let compare = Compare {
        result: CompareResult::Greater.into(),
        target: CompareTarget::Version.into(),
        key: put.key.clone(),
        target_union: Some(TargetUnion::Version(-1)),
        ..Compare::default()
    };
    let get = RangeRequest { key: put.key.clone(), ..RangeRequest::default() };
    let op = |request| RequestOp { request: Some(request) };
    TxnRequest {
        compare: vec![compare],
        success: vec![op(Request::RequestPut(put)), op(Request::RequestRange(get))],
        failure: Vec::new(),
    }
}

pub(super) async fn puts(client: Client, plan: Plan, tally: Rc<Tally>) {
    while let Some((number, begin)) = tally.next(&plan).await {
        tally.record(begin, client.kv().put(put(&plan, number)).await);
    }
}

pub(super) async fn txns(client: Client, plan: Plan, tally: Rc<Tally>) {
    while let Some((number, begin)) = tally.next(&plan).await {
        tally.record(begin, client.kv().txn(txn(&plan, number)).await);
    }
}

/// Of twenty requests ten linearizable reads, five serializable ones, four puts and a transaction.
pub(super) async fn mixed(client: Client, plan: Plan, tally: Rc<Tally>) {
    while let Some((number, begin)) = tally.next(&plan).await {
        match number % 20 {
            0..10 => tally.record(begin, client.kv().range(range::request(&plan, number, false)).await),
            10..15 => tally.record(begin, client.kv().range(range::request(&plan, number, true)).await),
            15..19 => tally.record(begin, client.kv().put(put(&plan, number)).await),
            _ => tally.record(begin, client.kv().txn(txn(&plan, number)).await),
        }
    }
}
