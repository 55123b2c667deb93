//! DeleteRange: what it takes, what it returns, when it makes a revision.

use etcfs_proto::etcdserverpb::DeleteRangeRequest;
use etcfs_tests::api::{delete, delete_prefix};
use tonic::Code;

use crate::subject::{Subject, delete_span, keys, numbers, pairs, refused, revision};

on_both! {
    a_key_is_deleted_by_one_revision,
    deleting_nothing_makes_no_revision,
    an_empty_key_is_refused,
    a_range_is_deleted_by_one_revision,
    a_prefix_is_deleted,
    the_rest_of_the_key_space_is_deleted,
    everything_is_deleted,
    an_inverted_range_deletes_nothing,
    the_old_pairs_come_back_in_key_order_if_asked_for,
}

fn fill(s: &Subject) -> i64 {
    for key in ["c", "a", "b/1", "b", "b/2", "d"] {
        s.set(key, format!("of {key}"));
    }
    s.revision()
}

fn left(s: &Subject) -> String {
    keys(&s.all(""))
}

fn a_key_is_deleted_by_one_revision(s: &Subject) {
    let before = fill(s);
    let answer = s.delete(delete("b")).unwrap();
    assert_eq!((answer.deleted, revision(&answer.header)), (1, before + 1));
    assert!(answer.prev_kvs.is_empty(), "nobody asked");
    assert_eq!(left(s), "a b/1 b/2 c d");
}

fn deleting_nothing_makes_no_revision(s: &Subject) {
    let before = fill(s);
    for request in [delete("nothing"), delete_prefix("nothing"), delete_span("e", "f")] {
        let answer = s.delete(DeleteRangeRequest { prev_kv: true, ..request }).unwrap();
        assert_eq!((answer.deleted, revision(&answer.header)), (0, before));
    }
    s.delete(delete("a")).unwrap();
    let again = s.delete(delete("a")).unwrap();
    assert_eq!((again.deleted, revision(&again.header)), (0, before + 1));
}

fn an_empty_key_is_refused(s: &Subject) {
    for request in [delete(""), delete_span("", "z"), delete_span("", "\0")] {
        refused(s.delete(request), Code::InvalidArgument, "etcdserver: key is not provided");
    }
}

fn a_range_is_deleted_by_one_revision(s: &Subject) {
    let before = fill(s);
    let answer = s.delete(delete_span("b", "c")).unwrap();
    assert_eq!((answer.deleted, revision(&answer.header)), (3, before + 1));
    assert_eq!(left(s), "a c d");
    assert_eq!(s.revision(), before + 1);
}

fn a_prefix_is_deleted(s: &Subject) {
    fill(s);
    assert_eq!(s.delete(delete_prefix("b/")).unwrap().deleted, 2);
    assert_eq!(left(s), "a b c d");
}

fn the_rest_of_the_key_space_is_deleted(s: &Subject) {
    fill(s);
    assert_eq!(s.delete(delete_span("b/2", "\0")).unwrap().deleted, 3);
    assert_eq!(left(s), "a b b/1");
}

fn everything_is_deleted(s: &Subject) {
    let before = fill(s);
    assert_eq!(s.delete(delete_span("\0", "\0")).unwrap().deleted, 6);
    assert_eq!((left(s).as_str(), s.revision()), ("", before + 1));
}

fn an_inverted_range_deletes_nothing(s: &Subject) {
    let before = fill(s);
    for request in [delete_span("c", "b"), delete_span("c", "c")] {
        assert_eq!(s.delete(request).unwrap().deleted, 0);
    }
    assert_eq!(s.revision(), before);
}

fn the_old_pairs_come_back_in_key_order_if_asked_for(s: &Subject) {
    let before = fill(s);
    let answer = s.delete(DeleteRangeRequest { prev_kv: true, ..delete_span("b", "d") }).unwrap();
    assert_eq!(pairs(&answer.prev_kvs), "b=of b b/1=of b/1 b/2=of b/2 c=of c");
    assert_eq!(numbers(&answer.prev_kvs[0]), (before - 2, before - 2, 1));
}
