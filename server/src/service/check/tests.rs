//! Each refusal with etcd's code and text, and the rules of transactions.

use etcfs_proto::etcdserverpb::Compare;
use tonic::Status;

use super::*;

fn key(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn op_put(text: &str) -> RequestOp {
    RequestOp { request: Some(Request::RequestPut(PutRequest { key: key(text), ..Default::default() })) }
}

fn op_get(text: &str) -> RequestOp {
    RequestOp { request: Some(Request::RequestRange(RangeRequest { key: key(text), ..Default::default() })) }
}

fn op_del(text: &str, end: &str) -> RequestOp {
    let request = DeleteRangeRequest { key: key(text), range_end: key(end), prev_kv: false };
    RequestOp { request: Some(Request::RequestDeleteRange(request)) }
}

fn op_txn(success: Vec<RequestOp>, failure: Vec<RequestOp>) -> RequestOp {
    let request = TxnRequest { compare: vec![], success, failure };
    RequestOp { request: Some(Request::RequestTxn(request)) }
}

fn of(success: Vec<RequestOp>, failure: Vec<RequestOp>) -> Result<(), Refusal> {
    txn(&TxnRequest { compare: vec![], success, failure }, 128)
}

#[track_caller]
fn says(result: Result<(), Refusal>, code: tonic::Code, text: &str) {
    let status = Status::from(result.unwrap_err());
    assert_eq!((status.code(), status.message()), (code, text));
}

#[test]
fn a_request_without_a_key_is_refused_in_etcds_words() {
    let text = "etcdserver: key is not provided";
    says(range(&RangeRequest::default()), tonic::Code::InvalidArgument, text);
    says(put(&PutRequest::default()), tonic::Code::InvalidArgument, text);
    says(delete_range(&DeleteRangeRequest::default()), tonic::Code::InvalidArgument, text);
    says(of(vec![op_put("")], vec![]), tonic::Code::InvalidArgument, text);
    says(of(vec![], vec![op_get("")]), tonic::Code::InvalidArgument, text);
    says(of(vec![op_txn(vec![op_del("", "")], vec![])], vec![]), tonic::Code::InvalidArgument, text);
    let compare = vec![Compare::default()];
    let request = TxnRequest { compare, ..Default::default() };
    says(txn(&request, 128), tonic::Code::InvalidArgument, text);
}

#[test]
fn an_unknown_sort_option_is_refused_in_etcds_words() {
    let text = "etcdserver: invalid sort option";
    let request = RangeRequest { key: key("a"), sort_order: 3, ..Default::default() };
    says(range(&request), tonic::Code::InvalidArgument, text);
    let request = RangeRequest { key: key("a"), sort_target: 5, ..Default::default() };
    says(range(&request), tonic::Code::InvalidArgument, text);
    let request = RangeRequest { key: key("a"), sort_order: 2, sort_target: 4, ..Default::default() };
    assert_eq!(range(&request), Ok(()));
}

#[test]
fn what_a_put_ignores_must_not_be_given() {
    let request = PutRequest { key: key("a"), value: key("v"), ignore_value: true, ..Default::default() };
    says(put(&request), tonic::Code::InvalidArgument, "etcdserver: value is provided");
    let request = PutRequest { key: key("a"), lease: 1, ignore_lease: true, ..Default::default() };
    says(put(&request), tonic::Code::InvalidArgument, "etcdserver: lease is provided");
    let request = PutRequest { key: key("a"), ignore_value: true, ignore_lease: true, ..Default::default() };
    assert_eq!(put(&request), Ok(()));
}

#[test]
fn a_lease_is_at_least_the_minimum_and_not_too_long() {
    let of = |ttl| lease_grant(&LeaseGrantRequest { ttl, id: 0 }, 2);
    assert_eq!([of(-5), of(0), of(1), of(2), of(3)], [Ok(2), Ok(2), Ok(2), Ok(2), Ok(3)]);
    assert_eq!(of(9_000_000_000), Ok(9_000_000_000));
    says(of(9_000_000_001).map(|_| ()), tonic::Code::OutOfRange, "etcdserver: too large lease TTL");
}

#[test]
fn an_operation_that_is_none_is_refused_in_etcds_words() {
    let none = RequestOp { request: None };
    says(of(vec![none], vec![]), tonic::Code::InvalidArgument, "etcdserver: key not found");
}

#[test]
fn nested_transactions_share_one_allowance_of_operations() {
    let text = "etcdserver: too many operations in txn request";
    let puts = |count: usize| (0..count).map(|n| op_put(&n.to_string())).collect::<Vec<_>>();
    assert_eq!(of(puts(128), puts(128)), Ok(()));
    says(of(puts(129), vec![]), tonic::Code::InvalidArgument, text);
    says(of(vec![], puts(129)), tonic::Code::InvalidArgument, text);
    let compare = vec![Compare { key: key("a"), ..Default::default() }; 129];
    says(txn(&TxnRequest { compare, ..Default::default() }, 128), tonic::Code::InvalidArgument, text);
    // One operation outside leaves 127 inside.
    assert_eq!(of(vec![op_txn(puts(127), vec![])], vec![]), Ok(()));
    says(of(vec![op_txn(puts(128), vec![])], vec![]), tonic::Code::InvalidArgument, text);
}

#[track_caller]
fn duplicate(success: Vec<RequestOp>) {
    let text = "etcdserver: duplicate key given in txn request";
    says(of(success.clone(), vec![]), tonic::Code::InvalidArgument, text);
    says(of(vec![], success), tonic::Code::InvalidArgument, text);
}

#[track_caller]
fn fine(success: Vec<RequestOp>) {
    assert_eq!(of(success.clone(), vec![]), Ok(()));
    assert_eq!(of(success.clone(), success), Ok(()));
}

#[test]
fn a_key_is_put_once_in_a_branch() {
    duplicate(vec![op_put("a"), op_put("a")]);
    fine(vec![op_put("a"), op_put("b"), op_get("a"), op_get("a")]);
}

#[test]
fn a_put_may_not_fall_in_a_deleted_range_of_its_branch() {
    duplicate(vec![op_put("a"), op_del("a", "")]);
    duplicate(vec![op_del("a", "c"), op_put("b")]);
    duplicate(vec![op_put("b"), op_del("a", "\0")]);
    fine(vec![op_put("c"), op_del("a", "c")]);
    fine(vec![op_put("b"), op_del("b", "a")]);
}

#[test]
fn deletions_may_overlap() {
    fine(vec![op_del("a", "c"), op_del("b", "d"), op_del("a", ""), op_put("d")]);
}

#[test]
fn the_branches_of_a_nested_transaction_exclude_each_other() {
    fine(vec![op_txn(vec![op_put("a")], vec![op_put("a")])]);
    duplicate(vec![op_txn(vec![op_put("a"), op_put("a")], vec![])]);
}

#[test]
fn a_nested_put_clashes_with_its_parent_and_its_siblings() {
    duplicate(vec![op_txn(vec![op_put("a")], vec![]), op_put("a")]);
    duplicate(vec![op_put("a"), op_txn(vec![], vec![op_put("a")])]);
    duplicate(vec![op_txn(vec![op_put("a")], vec![]), op_txn(vec![op_put("a")], vec![])]);
    duplicate(vec![op_txn(vec![op_put("a")], vec![]), op_del("a", "")]);
    duplicate(vec![op_txn(vec![op_del("a", "c")], vec![]), op_put("b")]);
    duplicate(vec![op_txn(vec![op_del("a", "c")], vec![]), op_txn(vec![op_put("b")], vec![])]);
}

#[test]
fn only_plain_reads_make_a_transaction_read_only() {
    let request = |success: Vec<RequestOp>| TxnRequest { success, ..Default::default() };
    assert!(is_read_only(&request(vec![])) && is_serializable(&request(vec![])));
    assert!(is_read_only(&request(vec![op_get("a")])) && !is_serializable(&request(vec![op_get("a")])));
    assert!(!is_read_only(&request(vec![op_txn(vec![], vec![])])));
    assert!(!is_read_only(&request(vec![op_put("a")])));
}
