//! Compact: what it takes away, what it keeps, and its bounds.

use etcfs_proto::etcdserverpb::{CompactionRequest, RangeRequest};
use etcfs_tests::{
    api::{Api, compact, delete, get, prefix},
    server::{Kind, Options, Server},
    wait,
};
use tonic::Code;

use crate::subject::{Subject, numbers, pairs, refused, revision};

const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";
const FUTURE: &str = "etcdserver: mvcc: required revision is a future revision";

on_both! {
    history_before_it_is_gone_and_the_rest_stays,
    the_answer_has_the_current_revision_and_makes_none,
    the_current_revision_can_be_compacted,
    a_future_revision_is_refused,
    an_older_or_equal_revision_is_refused_the_second_time,
    the_newest_version_before_it_is_kept,
    a_deleted_key_stays_deleted,
    a_physical_compaction_ends_with_the_history_gone,
    a_range_in_a_transaction_is_checked_too,
    many_keys_and_versions_survive_a_compaction,
}
on_both_alone! {
    a_store_never_compacted_can_be_read_from_its_first_revision,
    a_compaction_at_zero_is_accepted_once,
}

fn at(s: &Subject, revision: i64) -> String {
    pairs(&s.range(RangeRequest { revision, ..prefix("") }).unwrap().kvs)
}

fn history_before_it_is_gone_and_the_rest_stays(s: &Subject) {
    let first = s.set("a", "1");
    s.set("a", "2");
    s.set("b", "1");
    s.set("a", "3");
    s.compact(compact(first + 2)).unwrap();
    for gone in [first, first + 1] {
        refused(s.range(RangeRequest { revision: gone, ..get("a") }), Code::OutOfRange, COMPACTED);
    }
    assert_eq!(at(s, first + 2), "a=2 b=1");
    assert_eq!(at(s, first + 3), "a=3 b=1");
    assert_eq!(at(s, 0), "a=3 b=1");
}

fn the_answer_has_the_current_revision_and_makes_none(s: &Subject) {
    let first = s.set("a", "1");
    let current = s.set("a", "2");
    let answer = s.compact(compact(first)).unwrap();
    assert_eq!(revision(&answer.header), current);
    assert_eq!(s.revision(), current);
}

fn the_current_revision_can_be_compacted(s: &Subject) {
    s.set("a", "1");
    let current = s.set("a", "2");
    s.compact(compact(current)).unwrap();
    assert_eq!(at(s, current), "a=2");
    assert_eq!(s.set("a", "3"), current + 1);
}

fn a_future_revision_is_refused(s: &Subject) {
    let current = s.set("a", "1");
    for future in [current + 1, i64::MAX] {
        refused(s.compact(compact(future)), Code::OutOfRange, FUTURE);
    }
    assert_eq!(at(s, current), "a=1");
}

fn an_older_or_equal_revision_is_refused_the_second_time(s: &Subject) {
    let first = s.set("a", "1");
    let second = s.set("a", "2");
    s.compact(compact(second)).unwrap();
    for old in [second, first, 1, 0, -1] {
        refused(s.compact(compact(old)), Code::OutOfRange, COMPACTED);
    }
}

fn the_newest_version_before_it_is_kept(s: &Subject) {
    let first = s.set("a", "1");
    s.set("a", "2");
    let third = s.set("b", "1");
    s.compact(compact(third)).unwrap();
    let kv = s.get("a").unwrap();
    assert_eq!(numbers(&kv), (first, first + 1, 2), "its facts are those of before");
    s.set("a", "3");
    assert_eq!(numbers(&s.get("a").unwrap()), (first, third + 1, 3), "and it goes on from them");
}

fn a_deleted_key_stays_deleted(s: &Subject) {
    s.set("a", "1");
    s.set("b", "1");
    s.delete(delete("a")).unwrap();
    let deleted = s.revision();
    s.compact(compact(deleted)).unwrap();
    assert_eq!(at(s, deleted), "b=1");
    let again = s.set("a", "2");
    assert_eq!(numbers(&s.get("a").unwrap()), (again, again, 1));
}

fn a_physical_compaction_ends_with_the_history_gone(s: &Subject) {
    for value in 0..50 {
        s.set("a", format!("{value}"));
    }
    let current = s.revision();
    s.compact(CompactionRequest { revision: current, physical: true }).unwrap();
    assert_eq!(at(s, current), "a=49");
    refused(s.range(RangeRequest { revision: current - 1, ..get("a") }), Code::OutOfRange, COMPACTED);
}

fn a_range_in_a_transaction_is_checked_too(s: &Subject) {
    use etcfs_tests::api::{Op, put, txn};
    let first = s.set("a", "1");
    let second = s.set("a", "2");
    s.compact(compact(second)).unwrap();
    let old = || Op::Range(RangeRequest { revision: first, ..get("a") });
    refused(s.txn(txn([old()])), Code::OutOfRange, COMPACTED);
    refused(s.txn(txn([Op::Put(put("b", "1")), old()])), Code::OutOfRange, COMPACTED);
    assert_eq!(s.get("b"), None);
}

fn many_keys_and_versions_survive_a_compaction(s: &Subject) {
    let mut expected = Vec::new();
    for round in 0..4 {
        for key in 0..40 {
            let name = format!("k{key:02}");
            if (key + round) % 7 == 0 {
                s.delete(delete(&name)).unwrap();
            } else {
                s.set(&name, format!("{round}"));
            }
        }
        expected.push((s.revision(), at(s, 0)));
    }
    s.compact(compact(expected[1].0)).unwrap();
    for (revision, then) in &expected[1..] {
        assert_eq!(at(s, *revision), *then);
    }
}

fn a_store_never_compacted_can_be_read_from_its_first_revision(s: &Subject) {
    s.set("a", "1");
    s.set("a", "2");
    assert_eq!(at(s, 1), "");
    assert_eq!(at(s, 2), "a=1");
    assert_eq!(at(s, 3), "a=2");
}

/// A quirk of etcd's: before the first compaction its bound is -1.
fn a_compaction_at_zero_is_accepted_once(s: &Subject) {
    s.set("a", "1");
    refused(s.compact(compact(-1)), Code::OutOfRange, COMPACTED);
    s.compact(compact(0)).unwrap();
    refused(s.compact(compact(0)), Code::OutOfRange, COMPACTED);
    assert_eq!(at(s, 2), "a=1");
}

fn compacting(mode: &str, retention: &str) -> Server {
    let args = ["--auto-compaction-mode", mode, "--auto-compaction-retention", retention].map(str::to_owned);
    Server::with(Kind::Etcfs, Options { args: args.to_vec(), ..Default::default() })
}

fn is_gone(api: &Api, revision: i64) -> bool {
    api.range(RangeRequest { revision, ..get("a") }).is_err_and(|status| status.message() == COMPACTED)
}

#[test]
fn history_older_than_a_period_goes_by_itself() {
    let server = compacting("periodic", "1s");
    let api = server.api();
    let first = api.set("a", "1");
    let second = api.set("a", "2");
    wait::until_true("the first revision is compacted", || is_gone(&api, first));
    wait::until_true("all is, up to the last change", || {
        server.metric("etcd_debugging_mvcc_compact_revision") == Some(second as f64)
    });
    assert_eq!(api.value("a").as_deref(), Some("2"));
}

/// It looks each five minutes, and when it begins to serve.
#[test]
fn so_many_revisions_are_kept() {
    let mut server = compacting("revision", "10");
    let last = (0..30).fold(0, |_, n| server.api().set("a", n.to_string()));
    assert!(server.stop().success());
    server.run();
    let api = server.api();
    wait::until_true("older ones are compacted", || is_gone(&api, last - 11));
    let kept = api.range(RangeRequest { revision: last - 10, ..get("a") }).unwrap();
    assert_eq!(kept.kvs[0].value, "19");
}
