//! Range: the forms of its bounds, old revisions, limits and what is left out.

use etcfs_proto::etcdserverpb::RangeRequest;
use etcfs_tests::api::{delete, get, prefix};
use tonic::Code;

use crate::subject::{Subject, keys, numbers, pairs, refused, revision, span};

on_both! {
    one_key_is_found_with_all_its_facts,
    what_is_not_there_is_an_empty_answer,
    an_empty_key_is_refused,
    a_range_holds_its_start_and_not_its_end,
    an_end_of_zero_byte_is_the_end_of_the_key_space,
    the_zero_byte_alone_is_everything,
    a_prefix_ends_at_its_successor,
    a_prefix_of_all_ones_reaches_to_the_end,
    an_inverted_range_is_empty,
    keys_come_in_the_order_of_their_bytes,
    a_limit_cuts_and_says_more,
    a_negative_limit_is_none,
    pages_at_one_revision_miss_nothing,
    keys_only_leaves_out_the_values_and_nothing_else,
    count_only_counts_all_and_returns_none,
    an_old_revision_shows_the_store_as_it_was,
    a_revision_of_zero_or_less_is_the_newest,
    the_header_holds_the_current_revision_for_old_reads_too,
    a_future_revision_is_refused,
    a_compacted_revision_is_refused,
    a_serializable_read_sees_own_writes_of_one_node,
}

fn fill(s: &Subject) -> i64 {
    for key in ["c", "a", "b/1", "b", "b/2", "d"] {
        s.set(key, format!("of {key}"));
    }
    s.revision()
}

fn one_key_is_found_with_all_its_facts(s: &Subject) {
    let first = s.set("a", "1");
    let second = s.set("a", "2");
    let answer = s.range(get("a")).unwrap();
    assert_eq!((answer.count, answer.more, revision(&answer.header)), (1, false, second));
    assert_eq!((pairs(&answer.kvs).as_str(), numbers(&answer.kvs[0])), ("a=2", (first, second, 2)));
    assert_eq!(answer.kvs[0].lease, 0);
}

fn what_is_not_there_is_an_empty_answer(s: &Subject) {
    let current = fill(s);
    for request in [get("nothing"), prefix("nothing"), get("b/")] {
        let answer = s.range(request).unwrap();
        assert_eq!((answer.count, answer.more, answer.kvs.len()), (0, false, 0));
        assert_eq!(revision(&answer.header), current);
    }
}

fn an_empty_key_is_refused(s: &Subject) {
    for request in [get(""), span("", "z"), span("", "\0")] {
        refused(s.range(request), Code::InvalidArgument, "etcdserver: key is not provided");
    }
}

fn a_range_holds_its_start_and_not_its_end(s: &Subject) {
    fill(s);
    assert_eq!(keys(&s.range(span("a", "c")).unwrap().kvs), "a b b/1 b/2");
    assert_eq!(keys(&s.range(span("a0", "b/2")).unwrap().kvs), "b b/1");
    assert_eq!(keys(&s.range(span("b", "b\0")).unwrap().kvs), "b");
}

fn an_end_of_zero_byte_is_the_end_of_the_key_space(s: &Subject) {
    fill(s);
    s.put(etcfs_tests::api::put("\u{10ffff}", "last")).unwrap();
    assert_eq!(keys(&s.range(span("c", "\0")).unwrap().kvs), "c d \u{10ffff}");
    assert_eq!(s.range(span(b"\xff\xff", "\0")).unwrap().count, 0);
}

fn the_zero_byte_alone_is_everything(s: &Subject) {
    fill(s);
    assert_eq!(keys(&s.range(span("\0", "\0")).unwrap().kvs), "a b b/1 b/2 c d");
    // As the start of an ordinary range it is just a low key.
    assert_eq!(keys(&s.range(span("\0", "b")).unwrap().kvs), "a");
}

fn a_prefix_ends_at_its_successor(s: &Subject) {
    fill(s);
    assert_eq!(keys(&s.range(prefix("b")).unwrap().kvs), "b b/1 b/2");
    assert_eq!(keys(&s.range(prefix("b/")).unwrap().kvs), "b/1 b/2");
}

fn a_prefix_of_all_ones_reaches_to_the_end(s: &Subject) {
    for key in [&b"\xfe"[..], b"\xff", b"\xff\x00", b"\xff\xff\x01"] {
        let request =
            etcfs_proto::etcdserverpb::PutRequest { key: crate::subject::bytes(key), ..Default::default() };
        s.put(request).unwrap();
    }
    assert_eq!(s.range(span(b"\xff", "\0")).unwrap().count, 3);
    assert_eq!(s.range(span(b"\xfe", b"\xff")).unwrap().count, 1);
}

fn an_inverted_range_is_empty(s: &Subject) {
    let current = fill(s);
    for request in [span("c", "b"), span("c", "c"), span("b", "a\0")] {
        let answer = s.range(request).unwrap();
        assert_eq!((answer.count, answer.kvs.len(), revision(&answer.header)), (0, 0, current));
    }
}

fn keys_come_in_the_order_of_their_bytes(s: &Subject) {
    for key in ["b", "B", "a/", "a", "a0", "\u{e9}", "a-"] {
        s.set(key, "");
    }
    assert_eq!(keys(&s.all("")), "B a a- a/ a0 b \u{e9}");
}

fn a_limit_cuts_and_says_more(s: &Subject) {
    fill(s);
    let ask = |limit| {
        let answer = s.range(RangeRequest { limit, ..prefix("b") }).unwrap();
        (keys(&answer.kvs), answer.more, answer.count)
    };
    assert_eq!(ask(1), ("b".into(), true, 3));
    assert_eq!(ask(2), ("b b/1".into(), true, 3));
    assert_eq!(ask(3), ("b b/1 b/2".into(), false, 3));
    assert_eq!(ask(4), ("b b/1 b/2".into(), false, 3));
    assert_eq!(ask(0), ("b b/1 b/2".into(), false, 3));
    assert_eq!(ask(i64::MAX - 1), ("b b/1 b/2".into(), false, 3));
}

fn a_negative_limit_is_none(s: &Subject) {
    fill(s);
    let answer = s.range(RangeRequest { limit: -1, ..prefix("b") }).unwrap();
    assert_eq!((answer.kvs.len(), answer.more, answer.count), (3, false, 3));
}

fn pages_at_one_revision_miss_nothing(s: &Subject) {
    for key in 0..25 {
        s.set(&format!("k{key:02}"), "before");
    }
    let at = s.revision();
    let (mut start, mut found) = (b"k".to_vec(), Vec::new());
    loop {
        let page = s.range(RangeRequest { limit: 4, revision: at, ..span(&start, "l") }).unwrap();
        assert_eq!(page.count, 25 - found.len() as i64, "count is of what is left");
        found.extend(page.kvs);
        // What happens between two pages must not show.
        s.delete(delete("k20")).unwrap();
        s.set("k11", "after");
        s.set(&format!("k{}x", found.len()), "new");
        if !page.more {
            break;
        }
        start = [&found.last().unwrap().key[..], b"\0"].concat();
    }
    assert_eq!(found.len(), 25);
    assert!(found.iter().all(|kv| kv.value == "before"));
}

fn keys_only_leaves_out_the_values_and_nothing_else(s: &Subject) {
    let first = s.set("a", "1");
    let second = s.set("a", "2");
    let answer = s.range(RangeRequest { keys_only: true, ..get("a") }).unwrap();
    assert_eq!((pairs(&answer.kvs).as_str(), numbers(&answer.kvs[0])), ("a=", (first, second, 2)));
    assert_eq!(answer.count, 1);
}

fn count_only_counts_all_and_returns_none(s: &Subject) {
    fill(s);
    for limit in [0, 1, 2] {
        let answer = s.range(RangeRequest { count_only: true, limit, ..prefix("b") }).unwrap();
        assert_eq!((answer.count, answer.kvs.len(), answer.more), (3, 0, false));
    }
    let both = RangeRequest { count_only: true, keys_only: true, ..prefix("") };
    let answer = s.range(both).unwrap();
    assert_eq!((answer.count, answer.kvs.len()), (6, 0));
    assert_eq!(s.range(RangeRequest { count_only: true, ..get("nothing") }).unwrap().count, 0);
}

fn an_old_revision_shows_the_store_as_it_was(s: &Subject) {
    let before = s.revision();
    let first = s.set("a", "1");
    let second = s.set("b", "2");
    let third = s.set("a", "3");
    s.delete(delete("b")).unwrap();
    let again = s.set("b", "4");
    let at = |revision| pairs(&s.range(RangeRequest { revision, ..prefix("") }).unwrap().kvs);
    assert_eq!(at(before), "");
    assert_eq!(at(first), "a=1");
    assert_eq!(at(second), "a=1 b=2");
    assert_eq!(at(third), "a=3 b=2");
    assert_eq!(at(third + 1), "a=3");
    assert_eq!(at(again), "a=3 b=4");
    let old = s.range(RangeRequest { revision: second, ..get("a") }).unwrap();
    assert_eq!((numbers(&old.kvs[0]), old.count), ((first, first, 1), 1));
}

fn a_revision_of_zero_or_less_is_the_newest(s: &Subject) {
    s.set("a", "1");
    s.set("a", "2");
    for revision in [0, -1, i64::MIN] {
        assert_eq!(pairs(&s.range(RangeRequest { revision, ..get("a") }).unwrap().kvs), "a=2");
    }
}

fn the_header_holds_the_current_revision_for_old_reads_too(s: &Subject) {
    let first = s.set("a", "1");
    let second = s.set("a", "2");
    let answer = s.range(RangeRequest { revision: first, ..get("a") }).unwrap();
    assert_eq!((pairs(&answer.kvs).as_str(), revision(&answer.header)), ("a=1", second));
}

fn a_future_revision_is_refused(s: &Subject) {
    let current = s.set("a", "1");
    let words = "etcdserver: mvcc: required revision is a future revision";
    for revision in [current + 1, i64::MAX] {
        for count_only in [false, true] {
            let request = RangeRequest { revision, count_only, ..get("a") };
            refused(s.range(request), Code::OutOfRange, words);
        }
    }
    s.range(RangeRequest { revision: current, ..get("a") }).unwrap();
}

fn a_compacted_revision_is_refused(s: &Subject) {
    let first = s.set("a", "1");
    let second = s.set("a", "2");
    s.set("a", "3");
    s.compact(etcfs_tests::api::compact(second)).unwrap();
    let request = |revision| RangeRequest { revision, ..get("a") };
    let words = "etcdserver: mvcc: required revision has been compacted";
    refused(s.range(request(first)), Code::OutOfRange, words);
    refused(s.range(request(second - 1)), Code::OutOfRange, words);
    assert_eq!(pairs(&s.range(request(second)).unwrap().kvs), "a=2", "its own revision can be read");
}

fn a_serializable_read_sees_own_writes_of_one_node(s: &Subject) {
    for value in ["1", "2", "3"] {
        s.set("a", value);
        let answer = s.range(RangeRequest { serializable: true, ..get("a") }).unwrap();
        assert_eq!(pairs(&answer.kvs), format!("a={value}"));
    }
}
