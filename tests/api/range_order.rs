//! Range: sort orders, filters by revision, and how they meet limits and counts.

use etcfs_proto::etcdserverpb::{
    RangeRequest,
    range_request::{SortOrder, SortTarget},
};
use etcfs_tests::api::prefix;
use tonic::Code;

use crate::subject::{Subject, keys, refused};

on_both! {
    each_target_sorts_both_ways,
    without_an_order_keys_ascend,
    without_an_order_another_target_ascends,
    a_limit_takes_the_first_after_sorting,
    bounds_of_revisions_are_inclusive,
    filters_join,
    the_count_ignores_filters,
    a_limit_counts_what_the_filters_let_through,
    filters_apply_to_a_single_key,
    sorting_an_old_revision_uses_its_facts,
}
on_ours! { unknown_orders_and_targets_are_refused }

/// Keys with a different order by each target.
///
/// | key | value | version | created | modified |
/// |-----|-------|---------|---------|----------|
/// | a   | 9     | 2       | 3rd     | 5th      |
/// | b   | 5     | 1       | 1st     | 1st      |
/// | c   | 7     | 3       | 2nd     | 6th      |
fn fill(s: &Subject) -> i64 {
    let first = s.set("b", "5");
    for (key, value) in [("c", "1"), ("a", "1"), ("c", "2"), ("a", "9"), ("c", "7")] {
        s.set(key, value);
    }
    first
}

fn sorted(s: &Subject, target: SortTarget, order: SortOrder) -> String {
    let request = RangeRequest { sort_target: target.into(), sort_order: order.into(), ..prefix("") };
    keys(&s.range(request).unwrap().kvs)
}

fn each_target_sorts_both_ways(s: &Subject) {
    fill(s);
    for (target, ascending, descending) in [
        (SortTarget::Key, "a b c", "c b a"),
        (SortTarget::Version, "b a c", "c a b"),
        (SortTarget::Create, "b c a", "a c b"),
        (SortTarget::Mod, "b a c", "c a b"),
        (SortTarget::Value, "b c a", "a c b"),
    ] {
        assert_eq!(sorted(s, target, SortOrder::Ascend), ascending, "{target:?}");
        assert_eq!(sorted(s, target, SortOrder::Descend), descending, "{target:?}");
    }
}

fn without_an_order_keys_ascend(s: &Subject) {
    fill(s);
    assert_eq!(sorted(s, SortTarget::Key, SortOrder::None), "a b c");
}

fn without_an_order_another_target_ascends(s: &Subject) {
    fill(s);
    assert_eq!(sorted(s, SortTarget::Create, SortOrder::None), "b c a");
    assert_eq!(sorted(s, SortTarget::Value, SortOrder::None), "b c a");
}

fn a_limit_takes_the_first_after_sorting(s: &Subject) {
    fill(s);
    let ask = |limit, order: SortOrder| {
        let request = RangeRequest {
            sort_target: SortTarget::Mod.into(),
            sort_order: order.into(),
            limit,
            ..prefix("")
        };
        let answer = s.range(request).unwrap();
        (keys(&answer.kvs), answer.more, answer.count)
    };
    assert_eq!(ask(1, SortOrder::Descend), ("c".into(), true, 3));
    assert_eq!(ask(2, SortOrder::Descend), ("c a".into(), true, 3));
    assert_eq!(ask(1, SortOrder::Ascend), ("b".into(), true, 3));
    assert_eq!(ask(3, SortOrder::Ascend), ("b a c".into(), false, 3));
}

fn bounds_of_revisions_are_inclusive(s: &Subject) {
    let first = fill(s);
    let ask = |request| keys(&s.range(request).unwrap().kvs);
    // Modified: b first, a first+4, c first+5. Created: b first, c first+1, a first+2.
    assert_eq!(ask(RangeRequest { min_mod_revision: first + 4, ..prefix("") }), "a c");
    assert_eq!(ask(RangeRequest { min_mod_revision: first + 5, ..prefix("") }), "c");
    assert_eq!(ask(RangeRequest { max_mod_revision: first + 4, ..prefix("") }), "a b");
    assert_eq!(ask(RangeRequest { max_mod_revision: first + 3, ..prefix("") }), "b");
    assert_eq!(ask(RangeRequest { min_create_revision: first + 1, ..prefix("") }), "a c");
    assert_eq!(ask(RangeRequest { min_create_revision: first + 2, ..prefix("") }), "a");
    assert_eq!(ask(RangeRequest { max_create_revision: first + 1, ..prefix("") }), "b c");
    assert_eq!(ask(RangeRequest { max_create_revision: first, ..prefix("") }), "b");
}

fn filters_join(s: &Subject) {
    let first = fill(s);
    let request = RangeRequest {
        min_create_revision: first + 1,
        max_create_revision: first + 2,
        min_mod_revision: first + 4,
        max_mod_revision: first + 4,
        ..prefix("")
    };
    assert_eq!(keys(&s.range(request).unwrap().kvs), "a");
    let none = RangeRequest { min_mod_revision: first + 2, max_mod_revision: first + 1, ..prefix("") };
    assert_eq!(keys(&s.range(none).unwrap().kvs), "");
}

fn the_count_ignores_filters(s: &Subject) {
    let first = fill(s);
    let answer = s.range(RangeRequest { min_mod_revision: first + 5, ..prefix("") }).unwrap();
    assert_eq!((keys(&answer.kvs).as_str(), answer.count, answer.more), ("c", 3, false));
}

fn a_limit_counts_what_the_filters_let_through(s: &Subject) {
    let first = fill(s);
    let ask = |limit| {
        let answer = s.range(RangeRequest { min_create_revision: first + 1, limit, ..prefix("") }).unwrap();
        (keys(&answer.kvs), answer.more, answer.count)
    };
    assert_eq!(ask(1), ("a".into(), true, 3));
    assert_eq!(ask(2), ("a c".into(), false, 3));
}

fn filters_apply_to_a_single_key(s: &Subject) {
    let first = fill(s);
    let request = RangeRequest { min_mod_revision: first + 5, ..etcfs_tests::api::get("a") };
    let answer = s.range(request).unwrap();
    assert_eq!((answer.kvs.len(), answer.count), (0, 1));
}

fn sorting_an_old_revision_uses_its_facts(s: &Subject) {
    let first = fill(s);
    let request = RangeRequest {
        revision: first + 3,
        sort_target: SortTarget::Version.into(),
        sort_order: SortOrder::Descend.into(),
        limit: 1,
        ..prefix("")
    };
    assert_eq!(crate::subject::pairs(&s.range(request).unwrap().kvs), "c=2");
}

/// As 3.6 does it. 3.4 does not look, and an unknown target ends its process.
fn unknown_orders_and_targets_are_refused(s: &Subject) {
    fill(s);
    for request in [
        RangeRequest { sort_order: 7, ..prefix("") },
        RangeRequest { sort_target: 9, ..prefix("") },
        RangeRequest { sort_order: -1, ..prefix("") },
    ] {
        refused(s.range(request), Code::InvalidArgument, "etcdserver: invalid sort option");
    }
}
