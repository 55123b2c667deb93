//! Put: revisions, versions, the old pair, and what it refuses.

use etcfs_proto::etcdserverpb::PutRequest;
use etcfs_tests::api::{delete, get, grant, put};
use tonic::Code;

use crate::subject::{Subject, bytes, numbers, pairs, put_many, refused, revision};

on_both! {
    each_put_makes_one_revision_even_of_an_equal_value,
    versions_count_puts_and_start_again_after_a_delete,
    the_header_is_filled,
    any_bytes_make_a_key_and_a_value,
    an_empty_value_is_a_value,
    an_empty_key_is_refused,
    the_old_pair_comes_back_if_asked_for,
    ignore_value_keeps_the_value_and_changes_the_lease,
    ignore_value_with_a_value_is_refused,
    ignore_lease_keeps_the_lease_and_changes_the_value,
    ignore_lease_with_a_lease_is_refused,
    ignoring_what_is_not_there_is_refused,
    ignoring_both_is_a_touch,
    an_unknown_lease_is_refused,
    a_refused_put_makes_no_revision,
    thousands_of_puts_begin_at_once_on_one_connection,
}
on_both_alone! { the_first_put_of_an_empty_store_makes_revision_2 }

fn the_first_put_of_an_empty_store_makes_revision_2(s: &Subject) {
    assert_eq!(s.revision(), 1);
    assert_eq!(s.set("a", "1"), 2);
    assert_eq!(s.revision(), 2);
}

fn each_put_makes_one_revision_even_of_an_equal_value(s: &Subject) {
    let first = s.set("a", "1");
    assert_eq!(s.set("b", "1"), first + 1);
    assert_eq!(s.set("a", "1"), first + 2);
    assert_eq!(s.revision(), first + 2);
    assert_eq!(numbers(&s.get("a").unwrap()), (first, first + 2, 2));
}

fn versions_count_puts_and_start_again_after_a_delete(s: &Subject) {
    let first = s.set("a", "1");
    for version in 2..=5 {
        let now = s.set("a", format!("{version}"));
        assert_eq!(numbers(&s.get("a").unwrap()), (first, now, version));
    }
    s.delete(delete("a")).unwrap();
    assert_eq!(s.get("a"), None);
    let again = s.set("a", "again");
    assert_eq!(numbers(&s.get("a").unwrap()), (again, again, 1));
}

fn the_header_is_filled(s: &Subject) {
    let put = s.put(put("a", "1")).unwrap().header.unwrap();
    let range = s.range(get("a")).unwrap().header.unwrap();
    let delete = s.delete(delete("b")).unwrap().header.unwrap();
    assert_eq!(put, range, "same revision, same ids, same term");
    assert_eq!(put, delete);
    assert!(put.cluster_id != 0 && put.member_id != 0 && put.raft_term != 0, "{put:?}");
    assert_ne!(put.cluster_id, put.member_id);
}

fn any_bytes_make_a_key_and_a_value(s: &Subject) {
    let all: Vec<u8> = (0..=255).collect();
    for key in [&b"\0"[..], b"\0\0", b"/", b"//", b"\xff\xff", b"a\nb", &all] {
        s.put(PutRequest { key: bytes(key), value: bytes(&all), ..Default::default() }).unwrap();
        let found = s.range(crate::subject::span(key, "")).unwrap();
        assert_eq!((found.kvs[0].key.as_ref(), found.kvs[0].value.as_ref()), (key, &all[..]));
    }
    assert_eq!(s.range(crate::subject::span("\0", "\0")).unwrap().count, 7);
}

fn an_empty_value_is_a_value(s: &Subject) {
    s.set("a", "");
    let kv = s.get("a").unwrap();
    assert_eq!((kv.version, kv.value.len()), (1, 0));
}

fn an_empty_key_is_refused(s: &Subject) {
    refused(s.put(put("", "1")), Code::InvalidArgument, "etcdserver: key is not provided");
}

fn the_old_pair_comes_back_if_asked_for(s: &Subject) {
    let ask = |value: &'static str| PutRequest { prev_kv: true, ..put("a", value) };
    assert_eq!(s.put(ask("1")).unwrap().prev_kv, None, "there was none");
    let first = s.revision();
    let old = s.put(ask("2")).unwrap().prev_kv.unwrap();
    assert_eq!((old.value.as_ref(), numbers(&old)), (&b"1"[..], (first, first, 1)));
    assert_eq!(s.put(put("a", "3")).unwrap().prev_kv, None, "nobody asked");
    s.delete(delete("a")).unwrap();
    assert_eq!(s.put(ask("4")).unwrap().prev_kv, None, "it was deleted");
}

fn ignore_value_keeps_the_value_and_changes_the_lease(s: &Subject) {
    let lease = s.grant(grant(600)).unwrap().id;
    let first = s.set("a", "1");
    s.put(PutRequest { ignore_value: true, lease, ..put("a", "") }).unwrap();
    let kv = s.get("a").unwrap();
    assert_eq!((kv.value.as_ref(), kv.lease), (&b"1"[..], lease));
    assert_eq!(numbers(&kv), (first, first + 1, 2));
    s.put(PutRequest { ignore_value: true, ..put("a", "") }).unwrap();
    assert_eq!(s.get("a").unwrap().lease, 0, "no lease given takes it off");
}

fn ignore_value_with_a_value_is_refused(s: &Subject) {
    s.set("a", "1");
    let request = PutRequest { ignore_value: true, ..put("a", "2") };
    refused(s.put(request), Code::InvalidArgument, "etcdserver: value is provided");
}

fn ignore_lease_keeps_the_lease_and_changes_the_value(s: &Subject) {
    let lease = s.grant(grant(600)).unwrap().id;
    s.put(PutRequest { lease, ..put("a", "1") }).unwrap();
    s.put(PutRequest { ignore_lease: true, ..put("a", "2") }).unwrap();
    let kv = s.get("a").unwrap();
    assert_eq!((kv.value.as_ref(), kv.lease, kv.version), (&b"2"[..], lease, 2));
}

fn ignore_lease_with_a_lease_is_refused(s: &Subject) {
    let lease = s.grant(grant(600)).unwrap().id;
    s.set("a", "1");
    let request = PutRequest { ignore_lease: true, lease, ..put("a", "2") };
    refused(s.put(request), Code::InvalidArgument, "etcdserver: lease is provided");
}

fn ignoring_what_is_not_there_is_refused(s: &Subject) {
    s.set("a", "1");
    s.delete(delete("a")).unwrap();
    for key in ["a", "never"] {
        let value = PutRequest { ignore_value: true, ..put(key, "") };
        refused(s.put(value), Code::InvalidArgument, "etcdserver: key not found");
        let lease = PutRequest { ignore_lease: true, ..put(key, "1") };
        refused(s.put(lease), Code::InvalidArgument, "etcdserver: key not found");
    }
}

fn ignoring_both_is_a_touch(s: &Subject) {
    let lease = s.grant(grant(600)).unwrap().id;
    let first = revision(&s.put(PutRequest { lease, ..put("a", "1") }).unwrap().header);
    s.put(PutRequest { ignore_value: true, ignore_lease: true, ..put("a", "") }).unwrap();
    let kv = s.get("a").unwrap();
    assert_eq!((pairs(std::slice::from_ref(&kv)).as_str(), kv.lease), ("a=1", lease));
    assert_eq!(numbers(&kv), (first, first + 1, 2));
}

fn an_unknown_lease_is_refused(s: &Subject) {
    let request = PutRequest { lease: 12_345, ..put("a", "1") };
    refused(s.put(request), Code::NotFound, "etcdserver: requested lease not found");
    assert_eq!(s.get("a"), None);
}

fn a_refused_put_makes_no_revision(s: &Subject) {
    let before = s.set("a", "1");
    s.put(PutRequest { lease: 12_345, ..put("a", "2") }).unwrap_err();
    s.put(PutRequest { ignore_value: true, ..put("b", "") }).unwrap_err();
    s.put(put("", "2")).unwrap_err();
    assert_eq!(s.revision(), before);
    assert_eq!(numbers(&s.get("a").unwrap()), (before, before, 1));
}

/// The HTTP/2 library's defence against small frames ended such a connection.
fn thousands_of_puts_begin_at_once_on_one_connection(s: &Subject) {
    const COUNT: i64 = 10_000;
    let before = s.revision();
    put_many(s, "many", COUNT);
    assert_eq!(s.revision(), before + COUNT);
}
