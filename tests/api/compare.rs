//! The conditions of a transaction: every target and operator, on keys that are
//! there, on keys that are not, and on ranges.

use etcfs_proto::etcdserverpb::{
    Compare, PutRequest, TxnRequest,
    compare::{CompareResult, CompareTarget, TargetUnion},
};
use etcfs_tests::api::{delete, grant, put};

use crate::subject::{Subject, bytes};

use CompareResult::{Equal, Greater, Less, NotEqual};

on_both! {
    no_condition_holds,
    numbers_compare_by_each_operator,
    values_compare_as_bytes,
    a_missing_key_compares_as_zeros,
    a_missing_key_has_no_value_to_compare,
    all_conditions_must_hold,
    an_operand_of_another_target_is_zero,
    no_operand_is_zero_or_empty,
    a_range_holds_when_each_of_its_keys_does,
    an_empty_range_compares_as_a_missing_key,
    a_condition_sees_the_store_before_the_transaction,
}

/// The condition `key.operand result`.
pub(crate) fn when(key: &str, result: CompareResult, operand: TargetUnion) -> Compare {
    let target = match operand {
        TargetUnion::Version(_) => CompareTarget::Version,
        TargetUnion::CreateRevision(_) => CompareTarget::Create,
        TargetUnion::ModRevision(_) => CompareTarget::Mod,
        TargetUnion::Value(_) => CompareTarget::Value,
        TargetUnion::Lease(_) => CompareTarget::Lease,
    };
    Compare {
        result: result.into(),
        target: target.into(),
        key: bytes(key),
        target_union: Some(operand),
        ..Default::default()
    }
}

fn holds(s: &Subject, compare: impl IntoIterator<Item = Compare>) -> bool {
    let request = TxnRequest { compare: compare.into_iter().collect(), ..Default::default() };
    s.txn(request).unwrap().succeeded
}

fn value(text: &str) -> TargetUnion {
    TargetUnion::Value(bytes(text))
}

fn no_condition_holds(s: &Subject) {
    assert!(holds(s, []));
}

fn numbers_compare_by_each_operator(s: &Subject) {
    let lease = s.grant(grant(600)).unwrap().id;
    let created = s.set("a", "1");
    s.set("a", "2");
    s.put(PutRequest { lease, ..put("a", "3") }).unwrap();
    type Target = fn(i64) -> TargetUnion;
    let facts: [(Target, i64); 4] = [
        (TargetUnion::Version, 3),
        (TargetUnion::CreateRevision, created),
        (TargetUnion::ModRevision, created + 2),
        (TargetUnion::Lease, lease),
    ];
    for (target, is) in facts {
        for (than, expected) in [(is - 1, [false, true, false, true]), (is, [true, false, false, false])]
            .into_iter()
            .chain([(is.saturating_add(1), [false, false, true, true])])
        {
            for (result, expected) in [Equal, Greater, Less, NotEqual].into_iter().zip(expected) {
                let condition = when("a", result, target(than));
                assert_eq!(holds(s, [condition.clone()]), expected, "{is}: {condition:?}");
            }
        }
    }
}

fn values_compare_as_bytes(s: &Subject) {
    s.set("a", "m");
    for (result, than, expected) in [
        (Equal, "m", true),
        (Equal, "mm", false),
        (Equal, "", false),
        (NotEqual, "n", true),
        (NotEqual, "m", false),
        (Greater, "l\u{ff}", true),
        (Greater, "m", false),
        (Greater, "", true),
        (Less, "m\0", true),
        (Less, "\u{ff}", true),
        (Less, "m", false),
    ] {
        assert_eq!(holds(s, [when("a", result, value(than))]), expected, "{result:?} {than:?}");
    }
}

fn a_missing_key_compares_as_zeros(s: &Subject) {
    s.set("gone", "1");
    s.delete(delete("gone")).unwrap();
    for key in ["gone", "never"] {
        for target in
            [TargetUnion::Version, TargetUnion::CreateRevision, TargetUnion::ModRevision, TargetUnion::Lease]
        {
            assert!(holds(s, [when(key, Equal, target(0))]));
            assert!(holds(s, [when(key, Less, target(1))]));
            assert!(holds(s, [when(key, Greater, target(-1))]));
            assert!(!holds(s, [when(key, NotEqual, target(0))]));
        }
    }
}

fn a_missing_key_has_no_value_to_compare(s: &Subject) {
    for result in [Equal, NotEqual, Greater, Less] {
        for than in ["", "x"] {
            assert!(!holds(s, [when("never", result, value(than))]), "{result:?} {than:?}");
        }
    }
}

fn all_conditions_must_hold(s: &Subject) {
    s.set("a", "1");
    s.set("b", "2");
    let right = when("a", Equal, value("1"));
    let wrong = when("b", Equal, value("1"));
    assert!(holds(s, [right.clone(), right.clone(), when("b", Equal, TargetUnion::Version(1))]));
    assert!(!holds(s, [right.clone(), wrong.clone()]));
    assert!(!holds(s, [wrong, right]));
}

fn an_operand_of_another_target_is_zero(s: &Subject) {
    s.set("a", "1");
    let mismatched = |result: CompareResult, target: CompareTarget, operand| Compare {
        target: target.into(),
        ..when("a", result, operand)
    };
    assert!(!holds(s, [mismatched(Equal, CompareTarget::Version, value("1"))]));
    assert!(holds(s, [mismatched(Greater, CompareTarget::Version, value("1"))]));
    assert!(holds(s, [mismatched(Equal, CompareTarget::Lease, TargetUnion::Version(7))]));
    assert!(!holds(s, [mismatched(Equal, CompareTarget::Value, TargetUnion::Version(1))]));
    assert!(holds(s, [mismatched(Greater, CompareTarget::Value, TargetUnion::Version(1))]));
}

fn no_operand_is_zero_or_empty(s: &Subject) {
    s.set("a", "1");
    let bare = |key: &str, target: CompareTarget, result: CompareResult| Compare {
        target: target.into(),
        target_union: None,
        ..when(key, result, TargetUnion::Version(9))
    };
    assert!(holds(s, [bare("a", CompareTarget::Version, Greater)]));
    assert!(holds(s, [bare("never", CompareTarget::Mod, Equal)]));
    assert!(holds(s, [bare("a", CompareTarget::Value, Greater)]));
    s.set("empty", "");
    assert!(holds(s, [bare("empty", CompareTarget::Value, Equal)]));
}

fn a_range_holds_when_each_of_its_keys_does(s: &Subject) {
    for key in ["a/1", "a/2", "a/3"] {
        s.set(key, "same");
    }
    s.set("b", "other");
    let over =
        |key: &str, end: &str, condition| Compare { key: bytes(key), range_end: bytes(end), ..condition };
    let same = || when("", Equal, value("same"));
    assert!(holds(s, [over("a/", "a0", same())]));
    assert!(!holds(s, [over("a/", "c", same())]), "b is other");
    assert!(!holds(s, [over("a/", "\0", same())]));
    let once = || when("", Equal, TargetUnion::Version(1));
    assert!(holds(s, [over("\0", "\0", once())]));
    s.set("a/2", "same");
    assert!(!holds(s, [over("a/", "a0", once())]));
    assert!(holds(s, [over("a/", "a0", when("", Greater, TargetUnion::Version(0)))]));
}

fn an_empty_range_compares_as_a_missing_key(s: &Subject) {
    s.set("a", "1");
    let over = |condition| Compare { key: bytes("x"), range_end: bytes("z"), ..condition };
    assert!(holds(s, [over(when("", Equal, TargetUnion::Version(0)))]));
    assert!(holds(s, [over(when("", Equal, TargetUnion::CreateRevision(0)))]));
    assert!(!holds(s, [over(when("", Greater, TargetUnion::ModRevision(0)))]));
    assert!(!holds(s, [over(when("", Equal, value("")))]));
    assert!(!holds(s, [over(when("", NotEqual, value("1")))]));
}

fn a_condition_sees_the_store_before_the_transaction(s: &Subject) {
    s.set("a", "1");
    let request = TxnRequest {
        compare: vec![when("a", Equal, value("1"))],
        success: vec![etcfs_tests::api::Op::Put(put("a", "2")).into()],
        failure: vec![],
    };
    assert!(s.txn(request.clone()).unwrap().succeeded);
    assert!(!s.txn(request).unwrap().succeeded);
    assert_eq!(s.value("a").as_deref(), Some("2"));
}
