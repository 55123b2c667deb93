//! Leases without waiting: grants, what hangs on them, renewals, lists.

use etcfs_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseKeepAliveRequest, LeaseLeasesRequest, LeaseRevokeRequest, LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse, PutRequest,
};
use etcfs_tests::api::{Op, delete, grant, put, txn, watch_prefix};
use tonic::Code;

use crate::subject::{Subject, bytes, events, keys, numbers, refused, revision};

const NOT_FOUND: &str = "etcdserver: requested lease not found";

on_both! {
    a_grant_gives_what_was_asked_for,
    a_server_chosen_id_is_positive_and_new,
    a_chosen_id_is_kept,
    an_id_in_use_is_refused,
    an_id_is_free_again_after_its_revocation,
    a_short_ttl_is_raised_to_the_minimum,
    a_ttl_beyond_the_maximum_is_refused,
    a_revocation_deletes_its_keys_in_order_by_one_revision,
    a_revocation_without_keys_makes_no_revision,
    revoking_what_is_not_there_is_refused,
    a_key_moves_with_its_last_put,
    a_put_without_a_lease_takes_the_key_off,
    a_deleted_key_is_off_its_lease,
    a_transaction_attaches_too,
    one_lease_holds_many_keys,
    what_is_left_of_a_lease_is_told,
    an_unknown_lease_has_less_than_nothing_left,
    renewals_are_answered_one_by_one_in_order,
    renewing_what_is_not_there_gives_no_time,
    leases_are_listed_by_their_expiry,
    lease_calls_make_no_revision,
    headers_are_filled,
}

fn left(s: &Subject, id: i64) -> LeaseTimeToLiveResponse {
    s.time_to_live(LeaseTimeToLiveRequest { id, keys: true }).unwrap()
}

/// The keys on a lease, sorted: their order is not promised.
fn attached(s: &Subject, id: i64) -> Vec<String> {
    let mut keys: Vec<_> =
        left(s, id).keys.iter().map(|key| String::from_utf8_lossy(key).into_owned()).collect();
    keys.sort();
    keys
}

fn granted(s: &Subject, ttl: i64) -> i64 {
    s.grant(grant(ttl)).unwrap().id
}

fn attach(s: &Subject, key: &str, lease: i64) -> i64 {
    revision(&s.put(PutRequest { lease, ..put(key, "v") }).unwrap().header)
}

fn revoke(s: &Subject, id: i64) -> i64 {
    revision(&s.revoke(LeaseRevokeRequest { id }).unwrap().header)
}

fn a_grant_gives_what_was_asked_for(s: &Subject) {
    let answer = s.grant(LeaseGrantRequest { ttl: 600, id: 77 }).unwrap();
    assert_eq!((answer.id, answer.ttl, answer.error.as_str()), (77, 600, ""));
    assert_eq!(left(s, 77).granted_ttl, 600);
}

fn a_server_chosen_id_is_positive_and_new(s: &Subject) {
    let mut ids: Vec<i64> = (0..20).map(|_| granted(s, 600)).collect();
    assert!(ids.iter().all(|&id| id > 0), "{ids:?}");
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 20);
}

fn a_chosen_id_is_kept(s: &Subject) {
    for id in [1, i64::MAX] {
        assert_eq!(s.grant(LeaseGrantRequest { ttl: 600, id }).unwrap().id, id);
        attach(s, "a", id);
        assert_eq!(s.get("a").unwrap().lease, id);
    }
}

fn an_id_in_use_is_refused(s: &Subject) {
    let id = granted(s, 600);
    let again = s.grant(LeaseGrantRequest { ttl: 30, id });
    refused(again, Code::FailedPrecondition, "etcdserver: lease already exists");
    assert_eq!(left(s, id).granted_ttl, 600);
}

fn an_id_is_free_again_after_its_revocation(s: &Subject) {
    let id = granted(s, 600);
    attach(s, "a", id);
    revoke(s, id);
    s.grant(LeaseGrantRequest { ttl: 300, id }).unwrap();
    assert_eq!((left(s, id).granted_ttl, attached(s, id).len()), (300, 0));
}

/// One and a half election time-outs, in whole seconds.
fn a_short_ttl_is_raised_to_the_minimum(s: &Subject) {
    for ttl in [1, 0, -5, i64::MIN] {
        let answer = s.grant(grant(ttl)).unwrap();
        assert_eq!((answer.ttl, left(s, answer.id).granted_ttl), (2, 2), "{ttl}");
    }
    assert_eq!(s.grant(grant(3)).unwrap().ttl, 3);
}

fn a_ttl_beyond_the_maximum_is_refused(s: &Subject) {
    assert_eq!(s.grant(grant(9_000_000_000)).unwrap().ttl, 9_000_000_000);
    for ttl in [9_000_000_001, i64::MAX] {
        refused(s.grant(grant(ttl)), Code::OutOfRange, "etcdserver: too large lease TTL");
    }
}

fn a_revocation_deletes_its_keys_in_order_by_one_revision(s: &Subject) {
    let id = granted(s, 600);
    for key in ["k/3", "k/1", "k/2"] {
        attach(s, key, id);
    }
    let before = s.set("k/free", "stays");
    let mut watch = s.watch(watch_prefix("k/", 0));
    let at = revoke(s, id);
    assert_eq!(at, before + 1);
    let response = watch.next();
    assert_eq!(events(&response.events), format!("-k/1@{at} -k/2@{at} -k/3@{at}"));
    assert_eq!(keys(&s.all("")), "k/free");
    assert_eq!(left(s, id).ttl, -1);
}

fn a_revocation_without_keys_makes_no_revision(s: &Subject) {
    let before = s.set("a", "1");
    let id = granted(s, 600);
    assert_eq!(revoke(s, id), before);
    assert_eq!(s.revision(), before);
}

fn revoking_what_is_not_there_is_refused(s: &Subject) {
    let id = granted(s, 600);
    revoke(s, id);
    for id in [id, 4711, 0, -1] {
        refused(s.revoke(LeaseRevokeRequest { id }), Code::NotFound, NOT_FOUND);
    }
}

fn a_key_moves_with_its_last_put(s: &Subject) {
    let (first, second) = (granted(s, 600), granted(s, 600));
    attach(s, "a", first);
    attach(s, "a", second);
    assert_eq!((attached(s, first), attached(s, second)), (vec![], vec!["a".to_owned()]));
    revoke(s, first);
    assert_eq!(s.get("a").unwrap().lease, second);
    revoke(s, second);
    assert_eq!(s.get("a"), None);
}

fn a_put_without_a_lease_takes_the_key_off(s: &Subject) {
    let id = granted(s, 600);
    attach(s, "a", id);
    s.set("a", "free");
    assert_eq!((s.get("a").unwrap().lease, attached(s, id).len()), (0, 0));
    revoke(s, id);
    assert_eq!(s.value("a").as_deref(), Some("free"));
}

fn a_deleted_key_is_off_its_lease(s: &Subject) {
    let id = granted(s, 600);
    attach(s, "a", id);
    s.delete(delete("a")).unwrap();
    assert!(attached(s, id).is_empty());
    s.set("a", "new");
    revoke(s, id);
    assert_eq!(s.value("a").as_deref(), Some("new"));
}

fn a_transaction_attaches_too(s: &Subject) {
    let id = granted(s, 600);
    let leased = |key| Op::Put(PutRequest { lease: id, ..put(key, "v") });
    s.txn(txn([leased("a"), Op::Txn(txn([leased("b")])), Op::Put(put("c", "v"))])).unwrap();
    assert_eq!(attached(s, id), ["a", "b"]);
    revoke(s, id);
    assert_eq!(keys(&s.all("")), "c");
}

fn one_lease_holds_many_keys(s: &Subject) {
    let id = granted(s, 600);
    for n in 0..200 {
        attach(s, &format!("k{n:03}"), id);
    }
    assert_eq!(attached(s, id).len(), 200);
    let before = s.revision();
    assert_eq!(revoke(s, id), before + 1);
    assert_eq!(s.all("").len(), 0);
}

fn what_is_left_of_a_lease_is_told(s: &Subject) {
    let id = granted(s, 600);
    attach(s, "a", id);
    let answer = left(s, id);
    assert_eq!((answer.id, answer.granted_ttl, answer.keys.as_slice()), (id, 600, &[bytes("a")][..]));
    assert!((590..=600).contains(&answer.ttl), "{}", answer.ttl);
    let without = s.time_to_live(LeaseTimeToLiveRequest { id, keys: false }).unwrap();
    assert!(without.keys.is_empty(), "nobody asked");
}

fn an_unknown_lease_has_less_than_nothing_left(s: &Subject) {
    for id in [4711, 0, -3] {
        let answer = left(s, id);
        assert_eq!((answer.id, answer.ttl, answer.granted_ttl, answer.keys.len()), (id, -1, 0, 0));
    }
}

fn renewals_are_answered_one_by_one_in_order(s: &Subject) {
    let (first, second) = (granted(s, 600), granted(s, 300));
    let ids = [first, second, 4711, second, first, first];
    let answers = s.wait(async {
        let requests = tokio_stream::iter(ids.map(|id| LeaseKeepAliveRequest { id }));
        let mut stream = s.lease().lease_keep_alive(requests).await?.into_inner();
        let mut answers = Vec::new();
        while let Some(answer) = stream.message().await? {
            answers.push((answer.id, answer.ttl));
        }
        Ok(answers)
    });
    let ttl = |id| {
        if id == first {
            600
        } else if id == second {
            300
        } else {
            0
        }
    };
    assert_eq!(answers.unwrap(), ids.map(|id| (id, ttl(id))));
}

fn renewing_what_is_not_there_gives_no_time(s: &Subject) {
    let id = granted(s, 600);
    revoke(s, id);
    for id in [id, 4711] {
        let answer = s.keep_alive(id).unwrap();
        assert_eq!((answer.id, answer.ttl), (id, 0));
    }
}

fn leases_are_listed_by_their_expiry(s: &Subject) {
    let list = || -> Vec<i64> {
        s.leases(LeaseLeasesRequest {}).unwrap().leases.iter().map(|lease| lease.id).collect()
    };
    assert!(list().is_empty());
    let (long, short, middle) = (granted(s, 900), granted(s, 300), granted(s, 600));
    assert_eq!(list(), [short, middle, long]);
    revoke(s, middle);
    assert_eq!(list(), [short, long]);
}

fn lease_calls_make_no_revision(s: &Subject) {
    let before = s.set("a", "1");
    let answer = s.grant(grant(600)).unwrap();
    assert_eq!(revision(&answer.header), before);
    assert_eq!(revision(&s.keep_alive(answer.id).unwrap().header), before);
    assert_eq!(revision(&left(s, answer.id).header), before);
    assert_eq!(revision(&s.leases(LeaseLeasesRequest {}).unwrap().header), before);
    assert_eq!(s.revision(), before);
    assert_eq!(numbers(&s.get("a").unwrap()), (before, before, 1));
}

fn headers_are_filled(s: &Subject) {
    let grant = s.grant(grant(600)).unwrap();
    let id = grant.id;
    for header in [
        grant.header,
        s.keep_alive(id).unwrap().header,
        left(s, id).header,
        s.leases(LeaseLeasesRequest {}).unwrap().header,
        s.revoke(LeaseRevokeRequest { id }).unwrap().header,
    ] {
        let header = header.unwrap();
        assert!(header.cluster_id != 0 && header.member_id != 0 && header.raft_term != 0, "{header:?}");
    }
}
