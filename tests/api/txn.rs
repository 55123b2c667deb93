//! Transactions: what their operations see, answer and make.

use etcfs_proto::etcdserverpb::{
    DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
    compare::{CompareResult, TargetUnion},
    response_op::Response,
};
use etcfs_tests::api::{Op, delete, delete_prefix, get, prefix, put, txn};

use crate::{
    compare::when,
    subject::{Subject, events, numbers, op, pairs, ranged, revision},
};

on_both! {
    the_branch_that_the_conditions_choose_is_executed,
    all_changes_share_one_revision,
    an_empty_transaction_makes_no_revision,
    a_transaction_that_changes_nothing_makes_no_revision,
    operations_see_what_earlier_ones_did,
    each_operation_has_its_answer_in_order,
    answers_inside_carry_a_revision,
    an_old_revision_is_read_inside,
    puts_and_deletes_return_the_old_pairs_if_asked_for,
    two_deletes_may_overlap,
    a_nested_transaction_decides_on_what_its_parent_did,
    a_nested_transaction_shares_the_revision,
    ranges_alone_read_one_revision,
    a_key_is_created_once,
    a_condition_on_the_revision_guards_a_change,
    events_of_one_transaction_come_in_its_order,
}

/// The operations as a branch of a transaction.
fn ops(ops: impl IntoIterator<Item = Op>) -> Vec<RequestOp> {
    ops.into_iter().map(RequestOp::from).collect()
}

fn the_branch_that_the_conditions_choose_is_executed(s: &Subject) {
    s.set("a", "1");
    let request = |than| TxnRequest {
        compare: vec![when("a", CompareResult::Equal, TargetUnion::Version(than))],
        success: ops([Op::Put(put("branch", "success"))]),
        failure: ops([Op::Put(put("branch", "failure")), Op::Range(get("a"))]),
    };
    let answer = s.txn(request(1)).unwrap();
    assert_eq!((answer.succeeded, answer.responses.len()), (true, 1));
    assert_eq!(s.value("branch").as_deref(), Some("success"));
    let answer = s.txn(request(5)).unwrap();
    assert_eq!((answer.succeeded, answer.responses.len()), (false, 2));
    assert_eq!(s.value("branch").as_deref(), Some("failure"));
    assert_eq!(ranged(&answer.responses, 1), "a=1");
}

fn all_changes_share_one_revision(s: &Subject) {
    let before = s.set("old", "1");
    let answer =
        s.txn(txn([Op::Put(put("a", "1")), Op::Put(put("b", "2")), Op::Delete(delete("old"))])).unwrap();
    assert_eq!(revision(&answer.header), before + 1);
    assert_eq!(numbers(&s.get("a").unwrap()), (before + 1, before + 1, 1));
    assert_eq!(numbers(&s.get("b").unwrap()), (before + 1, before + 1, 1));
    assert_eq!(s.get("old"), None);
    assert_eq!(s.revision(), before + 1);
}

fn an_empty_transaction_makes_no_revision(s: &Subject) {
    let before = s.set("a", "1");
    let answer = s.txn(txn([])).unwrap();
    assert_eq!((answer.succeeded, answer.responses.len()), (true, 0));
    assert_eq!(revision(&answer.header), before);
    assert_eq!(s.revision(), before);
}

fn a_transaction_that_changes_nothing_makes_no_revision(s: &Subject) {
    let before = s.set("a", "1");
    let answer = s.txn(txn([Op::Delete(delete("nothing")), Op::Range(get("a")), Op::Txn(txn([]))])).unwrap();
    assert_eq!((revision(&answer.header), answer.responses.len()), (before, 3));
    assert_eq!(s.revision(), before);
    assert_eq!(s.set("a", "2"), before + 1);
}

fn operations_see_what_earlier_ones_did(s: &Subject) {
    let before = s.set("a", "old");
    let answer = s
        .txn(txn([
            Op::Range(get("a")),
            Op::Put(put("a", "new")),
            Op::Range(get("a")),
            Op::Put(put("b", "too")),
            Op::Range(prefix("")),
            Op::Delete(delete("z")),
            Op::Range(RangeRequest { count_only: true, ..prefix("") }),
        ]))
        .unwrap();
    assert_eq!(ranged(&answer.responses, 0), "a=old");
    assert_eq!(ranged(&answer.responses, 2), "a=new");
    assert_eq!(ranged(&answer.responses, 4), "a=new b=too");
    let Response::ResponseRange(seen) = op(&answer.responses, 2) else { panic!("a range") };
    assert_eq!(numbers(&seen.kvs[0]), (before, before + 1, 2), "with the transaction's own revision");
    let Response::ResponseRange(count) = op(&answer.responses, 6) else { panic!("a range") };
    assert_eq!(count.count, 2);
    let gone = s.txn(txn([Op::Delete(delete_prefix("a")), Op::Range(prefix(""))])).unwrap();
    assert_eq!(ranged(&gone.responses, 1), "b=too");
}

fn each_operation_has_its_answer_in_order(s: &Subject) {
    s.set("a", "1");
    let answer = s
        .txn(txn([
            Op::Delete(delete("a")),
            Op::Range(get("a")),
            Op::Put(put("b", "2")),
            Op::Txn(txn([Op::Range(get("b"))])),
        ]))
        .unwrap();
    assert!(matches!(op(&answer.responses, 0), Response::ResponseDeleteRange(d) if d.deleted == 1));
    assert!(matches!(op(&answer.responses, 1), Response::ResponseRange(r) if r.count == 0));
    assert!(matches!(op(&answer.responses, 2), Response::ResponsePut(p) if p.prev_kv.is_none()));
    let Response::ResponseTxn(inner) = op(&answer.responses, 3) else { panic!("a transaction") };
    assert!(inner.succeeded);
    assert_eq!(ranged(&inner.responses, 0), "b=2");
}

fn answers_inside_carry_a_revision(s: &Subject) {
    let before = s.set("a", "1");
    let answer = s
        .txn(txn([Op::Range(get("a")), Op::Put(put("b", "2")), Op::Range(get("b")), Op::Delete(delete("a"))]))
        .unwrap();
    let header = answer.header.as_ref().unwrap();
    assert!(header.cluster_id != 0 && header.member_id != 0 && header.raft_term != 0);
    for (index, expected) in [before, before + 1, before + 1, before + 1].into_iter().enumerate() {
        let inner = match op(&answer.responses, index) {
            Response::ResponseRange(r) => r.header.as_ref(),
            Response::ResponsePut(p) => p.header.as_ref(),
            Response::ResponseDeleteRange(d) => d.header.as_ref(),
            Response::ResponseTxn(t) => t.header.as_ref(),
        };
        let inner = inner.expect("an answer inside has a header");
        assert_eq!(inner.revision, expected, "operation {index}");
        assert_eq!((inner.cluster_id, inner.member_id, inner.raft_term), (0, 0, 0));
    }
}

fn an_old_revision_is_read_inside(s: &Subject) {
    let first = s.set("a", "1");
    s.set("a", "2");
    let old = || Op::Range(RangeRequest { revision: first, ..get("a") });
    let answer = s.txn(txn([Op::Put(put("a", "3")), old(), Op::Range(get("a"))])).unwrap();
    assert_eq!(ranged(&answer.responses, 1), "a=1");
    assert_eq!(ranged(&answer.responses, 2), "a=3");
    assert_eq!(ranged(&s.txn(txn([old()])).unwrap().responses, 0), "a=1");
}

fn puts_and_deletes_return_the_old_pairs_if_asked_for(s: &Subject) {
    s.set("a", "1");
    s.set("b", "2");
    let answer = s
        .txn(txn([
            Op::Put(PutRequest { prev_kv: true, ..put("a", "new") }),
            Op::Delete(DeleteRangeRequest { prev_kv: true, ..delete("b") }),
            Op::Put(put("c", "3")),
        ]))
        .unwrap();
    let Response::ResponsePut(put) = op(&answer.responses, 0) else { panic!("a put") };
    assert_eq!(put.prev_kv.as_ref().unwrap().value, "1");
    let Response::ResponseDeleteRange(delete) = op(&answer.responses, 1) else { panic!("a delete") };
    assert_eq!(pairs(&delete.prev_kvs), "b=2");
}

fn two_deletes_may_overlap(s: &Subject) {
    for key in ["a", "b", "c"] {
        s.set(key, "1");
    }
    let answer = s
        .txn(txn([Op::Delete(delete("b")), Op::Delete(delete_prefix("")), Op::Delete(delete_prefix(""))]))
        .unwrap();
    let deleted: Vec<i64> = (0..3)
        .map(|index| match op(&answer.responses, index) {
            Response::ResponseDeleteRange(delete) => delete.deleted,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(deleted, [1, 2, 0]);
}

fn a_nested_transaction_decides_on_what_its_parent_did(s: &Subject) {
    // All conditions, nested ones too, are decided on the store as it was before.
    s.set("a", "1");
    let inner = TxnRequest {
        compare: vec![when("a", CompareResult::Equal, TargetUnion::Version(1))],
        success: ops([Op::Put(put("inner", "success"))]),
        failure: ops([Op::Put(put("inner", "failure"))]),
    };
    let answer = s.txn(txn([Op::Put(put("a", "2")), Op::Txn(inner)])).unwrap();
    let Response::ResponseTxn(inner) = op(&answer.responses, 1) else { panic!("a transaction") };
    assert!(inner.succeeded);
    assert_eq!(s.value("inner").as_deref(), Some("success"));
}

fn a_nested_transaction_shares_the_revision(s: &Subject) {
    let before = s.set("a", "1");
    let innermost = txn([Op::Put(put("c", "3")), Op::Range(prefix(""))]);
    let inner = txn([Op::Put(put("b", "2")), Op::Txn(innermost)]);
    let answer = s.txn(txn([Op::Txn(inner), Op::Put(put("d", "4"))])).unwrap();
    assert_eq!(revision(&answer.header), before + 1);
    let Response::ResponseTxn(inner) = op(&answer.responses, 0) else { panic!("a transaction") };
    let Response::ResponseTxn(innermost) = op(&inner.responses, 1) else { panic!("a transaction") };
    assert_eq!(ranged(&innermost.responses, 1), "a=1 b=2 c=3");
    for key in ["b", "c", "d"] {
        assert_eq!(numbers(&s.get(key).unwrap()), (before + 1, before + 1, 1), "{key}");
    }
}

fn ranges_alone_read_one_revision(s: &Subject) {
    s.set("a", "1");
    let current = s.set("b", "2");
    let serializable = |key| Op::Range(RangeRequest { serializable: true, ..get(key) });
    for request in [
        txn([Op::Range(get("a")), Op::Range(get("b"))]),
        txn([serializable("a"), serializable("b")]),
        txn([serializable("a"), Op::Range(get("b"))]),
    ] {
        let answer = s.txn(request).unwrap();
        assert_eq!((ranged(&answer.responses, 0).as_str(), revision(&answer.header)), ("a=1", current));
        assert_eq!(ranged(&answer.responses, 1), "b=2");
    }
    assert_eq!(s.revision(), current);
}

fn a_key_is_created_once(s: &Subject) {
    let create = |value: &'static str| TxnRequest {
        compare: vec![when("a", CompareResult::Equal, TargetUnion::CreateRevision(0))],
        success: ops([Op::Put(put("a", value))]),
        failure: ops([Op::Range(get("a"))]),
    };
    assert!(s.txn(create("mine")).unwrap().succeeded);
    let second = s.txn(create("yours")).unwrap();
    assert!(!second.succeeded);
    assert_eq!(ranged(&second.responses, 0), "a=mine");
}

/// The one shape of change that Kubernetes makes.
fn a_condition_on_the_revision_guards_a_change(s: &Subject) {
    let seen = s.set("a", "1");
    let update = |revision| TxnRequest {
        compare: vec![when("a", CompareResult::Equal, TargetUnion::ModRevision(revision))],
        success: ops([Op::Put(put("a", "2"))]),
        failure: ops([Op::Range(get("a"))]),
    };
    let first = s.txn(update(seen)).unwrap();
    assert_eq!((first.succeeded, revision(&first.header)), (true, seen + 1));
    let second = s.txn(update(seen)).unwrap();
    assert_eq!((second.succeeded, ranged(&second.responses, 0).as_str()), (false, "a=2"));
}

fn events_of_one_transaction_come_in_its_order(s: &Subject) {
    let before = s.set("b/2", "old");
    s.set("b/1", "old");
    let now = before + 2;
    let mut watch = s.watch(etcfs_tests::api::watch_prefix("", now));
    s.txn(txn([
        Op::Put(put("z", "1")),
        Op::Delete(delete_prefix("b/")),
        Op::Put(put("a", "2")),
        Op::Txn(txn([Op::Put(put("m", "3"))])),
    ]))
    .unwrap();
    let response = watch.next();
    assert_eq!(events(&response.events), format!("z=1@{now} -b/1@{now} -b/2@{now} a=2@{now} m=3@{now}"));
}
