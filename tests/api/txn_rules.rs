//! Transactions that are refused, and that a refused one has no effect.

use etcfs_proto::etcdserverpb::{
    PutRequest, RangeRequest, RequestOp, TxnRequest,
    compare::{CompareResult, TargetUnion},
};
use etcfs_tests::api::{Op, delete, delete_prefix, get, prefix, put, txn};
use tonic::Code;

use crate::{
    compare::when,
    subject::{Subject, delete_span, refused},
};

const DUPLICATE: &str = "etcdserver: duplicate key given in txn request";
const TOO_MANY: &str = "etcdserver: too many operations in txn request";
const NO_KEY: &str = "etcdserver: key is not provided";
const KEY_NOT_FOUND: &str = "etcdserver: key not found";

on_both! {
    a_key_is_put_once_in_a_branch,
    each_branch_may_put_the_same_key,
    a_put_may_not_fall_into_a_delete,
    a_put_beside_a_delete_is_fine,
    a_nested_branch_may_not_put_what_its_parent_puts,
    a_nested_branch_may_not_put_what_its_parent_deletes,
    siblings_may_not_put_the_same_key,
    branches_of_a_nested_transaction_may_put_the_same_key,
    ranges_are_free,
    operations_are_limited_for_each_list,
    nested_operations_count_onto_their_parents,
    an_empty_key_anywhere_is_refused,
    an_operation_without_a_request_is_refused,
    a_put_is_checked_as_alone,
    the_branch_not_taken_is_not_checked_against_the_store,
    a_future_revision_inside_is_refused_even_of_the_own_put,
    a_refused_transaction_has_no_effect,
}
on_ours! { a_put_may_not_fall_into_a_delete_without_end }

#[track_caller]
fn refuse(s: &Subject, request: TxnRequest, message: &str) {
    let before = s.revision();
    refused(s.txn(request), Code::InvalidArgument, message);
    assert_eq!(s.revision(), before, "it must have no effect");
}

fn set(key: &str) -> Op {
    Op::Put(put(key, "new"))
}

/// The same operations as the branch that is taken when no condition holds.
fn as_failure(request: TxnRequest) -> TxnRequest {
    TxnRequest { failure: request.success, success: vec![], compare: request.compare }
}

fn a_key_is_put_once_in_a_branch(s: &Subject) {
    let twice = || txn([set("a"), Op::Range(get("x")), set("a")]);
    refuse(s, twice(), DUPLICATE);
    refuse(s, as_failure(twice()), DUPLICATE);
}

fn each_branch_may_put_the_same_key(s: &Subject) {
    let request = TxnRequest { failure: vec![set("a").into()], ..txn([set("a")]) };
    assert!(s.txn(request).unwrap().succeeded);
}

fn a_put_may_not_fall_into_a_delete(s: &Subject) {
    for request in [
        txn([set("a"), Op::Delete(delete("a"))]),
        txn([Op::Delete(delete("a")), set("a")]),
        txn([set("a/1"), Op::Delete(delete_prefix("a/"))]),
        txn([Op::Delete(delete_prefix("a/")), set("a/1")]),
        txn([Op::Delete(delete_span("a", "c")), set("a")]),
        txn([set("b"), Op::Delete(delete("x")), Op::Delete(delete_span("a", "c"))]),
    ] {
        refuse(s, request.clone(), DUPLICATE);
        refuse(s, as_failure(request), DUPLICATE);
    }
}

/// etcd takes the end `\0` for a low key here, so that it lets these pass; ours means what it says elsewhere.
fn a_put_may_not_fall_into_a_delete_without_end(s: &Subject) {
    for range in [delete_span("b", "\0"), delete_span("\0", "\0")] {
        refuse(s, txn([set("z"), Op::Delete(range)]), DUPLICATE);
    }
}

fn a_put_beside_a_delete_is_fine(s: &Subject) {
    for request in [
        txn([set("c"), Op::Delete(delete_span("a", "c"))]),
        txn([Op::Delete(delete_prefix("a/")), set("a"), set("a0")]),
        txn([set("a"), Op::Delete(delete_span("b", "\0"))]),
        txn([set("b"), Op::Delete(delete_span("c", "a"))]),
    ] {
        s.txn(request).unwrap();
    }
}

fn a_nested_branch_may_not_put_what_its_parent_puts(s: &Subject) {
    let other_branch = || TxnRequest { failure: vec![set("a").into()], ..Default::default() };
    for request in [
        txn([set("a"), Op::Txn(txn([set("a")]))]),
        txn([Op::Txn(txn([set("a")])), set("a")]),
        txn([set("a"), Op::Txn(other_branch())]),
        txn([set("a"), Op::Txn(txn([Op::Txn(txn([set("a")]))]))]),
    ] {
        refuse(s, request, DUPLICATE);
    }
}

fn a_nested_branch_may_not_put_what_its_parent_deletes(s: &Subject) {
    for request in [
        txn([Op::Delete(delete_prefix("a")), Op::Txn(txn([set("a/1")]))]),
        txn([Op::Txn(txn([Op::Delete(delete_prefix("a"))])), set("a/1")]),
        txn([Op::Txn(txn([Op::Delete(delete_prefix("a"))])), Op::Txn(txn([set("a/1")]))]),
    ] {
        refuse(s, request, DUPLICATE);
    }
}

fn siblings_may_not_put_the_same_key(s: &Subject) {
    refuse(s, txn([Op::Txn(txn([set("a")])), Op::Txn(txn([set("a")]))]), DUPLICATE);
}

fn branches_of_a_nested_transaction_may_put_the_same_key(s: &Subject) {
    let nested = TxnRequest { failure: vec![set("a").into()], ..txn([set("a")]) };
    s.txn(txn([Op::Txn(nested), set("b")])).unwrap();
}

fn ranges_are_free(s: &Subject) {
    s.txn(txn([set("a"), Op::Range(get("a")), Op::Range(get("a")), Op::Range(prefix(""))])).unwrap();
}

fn operations_are_limited_for_each_list(s: &Subject) {
    let many = |count| txn((0..count).map(|n| set(&format!("k{n}"))));
    let conditions = |count| TxnRequest {
        compare: vec![when("a", CompareResult::Equal, TargetUnion::Version(0)); count],
        ..Default::default()
    };
    let all = TxnRequest { compare: conditions(128).compare, failure: many(128).success, ..many(128) };
    assert_eq!(s.txn(all).unwrap().responses.len(), 128);
    refuse(s, many(129), TOO_MANY);
    refuse(s, as_failure(many(129)), TOO_MANY);
    refuse(s, conditions(129), TOO_MANY);
    let reads = txn((0..129).map(|_| Op::Range(get("a"))));
    refuse(s, reads, TOO_MANY);
}

fn nested_operations_count_onto_their_parents(s: &Subject) {
    let inner = |count| Op::Txn(txn((0..count).map(|_| Op::Range(get("a")))));
    let outer = |count, nested| txn((1..count).map(|_| Op::Range(get("a"))).chain([nested]));
    s.txn(outer(100, inner(28))).unwrap();
    refuse(s, outer(100, inner(29)), TOO_MANY);
    // A parent's allowance is what its longest list leaves, whichever branch is nested.
    let request = TxnRequest { failure: vec![inner(29).into()], ..outer(100, Op::Range(get("a"))) };
    refuse(s, request, TOO_MANY);
    // Siblings don't add up.
    s.txn(txn([inner(100), inner(100)])).unwrap();
}

fn an_empty_key_anywhere_is_refused(s: &Subject) {
    for request in [
        TxnRequest {
            compare: vec![when("", CompareResult::Equal, TargetUnion::Version(0))],
            ..Default::default()
        },
        txn([set("")]),
        txn([Op::Range(get(""))]),
        txn([Op::Delete(delete(""))]),
        as_failure(txn([set("")])),
        txn([Op::Txn(txn([set("")]))]),
        as_failure(txn([Op::Txn(as_failure(txn([Op::Range(get(""))])))])),
    ] {
        refuse(s, request, NO_KEY);
    }
}

fn an_operation_without_a_request_is_refused(s: &Subject) {
    let nothing = RequestOp { request: None };
    let request = TxnRequest { success: vec![nothing.clone()], ..Default::default() };
    refuse(s, request.clone(), KEY_NOT_FOUND);
    refuse(s, as_failure(request.clone()), KEY_NOT_FOUND);
    refuse(s, txn([Op::Txn(request)]), KEY_NOT_FOUND);
}

fn a_put_is_checked_as_alone(s: &Subject) {
    s.set("a", "1");
    let both = PutRequest { ignore_value: true, ..put("a", "2") };
    refuse(s, txn([Op::Put(both)]), "etcdserver: value is provided");
    let both = PutRequest { ignore_lease: true, lease: 5, ..put("a", "2") };
    refuse(s, txn([Op::Put(both)]), "etcdserver: lease is provided");
    let missing = || Op::Put(PutRequest { ignore_value: true, ..put("never", "") });
    refuse(s, txn([missing()]), KEY_NOT_FOUND);
    refuse(s, txn([set("b"), Op::Txn(txn([missing()]))]), KEY_NOT_FOUND);
    let unknown = Op::Put(PutRequest { lease: 999, ..put("b", "1") });
    refused(s.txn(txn([set("a"), unknown])), Code::NotFound, "etcdserver: requested lease not found");
    assert_eq!(s.value("a").as_deref(), Some("1"));
}

fn the_branch_not_taken_is_not_checked_against_the_store(s: &Subject) {
    let unknown = Op::Put(PutRequest { lease: 999, ..put("b", "1") });
    let future = Op::Range(RangeRequest { revision: i64::MAX, ..get("a") });
    let request = TxnRequest { failure: vec![unknown.into(), future.into()], ..txn([set("a")]) };
    assert!(s.txn(request).unwrap().succeeded);
}

fn a_future_revision_inside_is_refused_even_of_the_own_put(s: &Subject) {
    let current = s.set("a", "1");
    let next = || Op::Range(RangeRequest { revision: current + 1, ..get("a") });
    let words = "etcdserver: mvcc: required revision is a future revision";
    refused(s.txn(txn([set("a"), next()])), Code::OutOfRange, words);
    refused(s.txn(txn([next()])), Code::OutOfRange, words);
    refused(s.txn(txn([Op::Txn(txn([next()]))])), Code::OutOfRange, words);
    assert_eq!(s.revision(), current);
}

fn a_refused_transaction_has_no_effect(s: &Subject) {
    let before = s.set("a", "1");
    let unknown = Op::Put(PutRequest { lease: 999, ..put("b", "1") });
    s.txn(txn([set("a"), Op::Delete(delete_prefix("c")), unknown])).unwrap_err();
    assert_eq!((s.value("a").as_deref(), s.revision()), (Some("1"), before));
}
