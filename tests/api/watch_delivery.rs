//! Events as they happen: what they hold, who gets them, how they are grouped.

use etcfs_proto::{
    etcdserverpb::{PutRequest, WatchCreateRequest, WatchResponse, watch_create_request::FilterType},
    mvccpb::{Event, event::EventType},
};
use etcfs_tests::api::{
    Op, WatchStream, compact, delete, delete_prefix, grant, put, txn, watch_key, watch_prefix,
};

use crate::subject::{Subject, bytes, events, numbers, revision};

on_both! {
    a_put_comes_with_the_whole_pair,
    a_delete_comes_with_its_key_and_revision_alone,
    a_watch_begins_after_its_create,
    a_watcher_of_one_key_gets_that_key,
    a_watcher_of_a_range_gets_that_range,
    a_watcher_to_the_end_gets_all_above,
    revisions_come_one_by_one_and_in_order,
    the_header_holds_the_revision_of_live_events,
    all_of_one_revision_comes_in_one_response,
    a_watcher_gets_its_part_of_a_transaction,
    filters_leave_out_puts_or_deletes,
    a_response_without_events_is_not_sent,
    the_old_pair_comes_if_asked_for,
    the_old_pair_is_missing_where_history_is_compacted,
    two_watchers_of_one_key_get_their_own,
    a_large_revision_comes_whole,
    a_large_revision_comes_in_fragments_if_asked_for,
}

fn event(response: &WatchResponse, index: usize) -> &Event {
    &response.events[index]
}

fn a_put_comes_with_the_whole_pair(s: &Subject) {
    let lease = s.grant(grant(600)).unwrap().id;
    let first = s.set("a", "1");
    let mut watch = s.watch(watch_key("a", 0));
    s.put(PutRequest { lease, ..put("a", "2") }).unwrap();
    let response = watch.next();
    let kv = event(&response, 0).kv.as_ref().unwrap();
    assert_eq!(event(&response, 0).r#type(), EventType::Put);
    assert_eq!((numbers(kv), kv.lease, kv.value.as_ref()), ((first, first + 1, 2), lease, &b"2"[..]));
    assert_eq!(event(&response, 0).prev_kv, None);
}

fn a_delete_comes_with_its_key_and_revision_alone(s: &Subject) {
    let first = s.set("a", "1");
    let mut watch = s.watch(watch_key("a", 0));
    s.delete(delete("a")).unwrap();
    let response = watch.next();
    let kv = event(&response, 0).kv.as_ref().unwrap();
    assert_eq!(event(&response, 0).r#type(), EventType::Delete);
    assert_eq!((kv.key.as_ref(), numbers(kv)), (&b"a"[..], (0, first + 1, 0)));
    assert_eq!((kv.value.len(), kv.lease), (0, 0));
    assert_eq!(event(&response, 0).prev_kv, None);
}

fn a_watch_begins_after_its_create(s: &Subject) {
    s.set("a", "before");
    let mut watch = s.watch(watch_key("a", 0));
    let at = s.set("a", "after");
    assert_eq!(events(&watch.next().events), format!("a=after@{at}"));
}

fn a_watcher_of_one_key_gets_that_key(s: &Subject) {
    let mut watch = s.watch(watch_key("b", 0));
    s.set("a", "1");
    s.set("b/1", "1");
    s.set("b\0", "1");
    let at = s.set("b", "1");
    assert_eq!(events(&watch.next().events), format!("b=1@{at}"));
}

fn a_watcher_of_a_range_gets_that_range(s: &Subject) {
    let mut watch = s.watch(watch_prefix("b/", 0));
    s.set("b", "1");
    s.set("b0", "1");
    let first = s.set("b/", "1");
    s.set("c", "1");
    let second = s.set("b/x", "1");
    assert_eq!(events(&watch.events(2)), format!("b/=1@{first} b/x=1@{second}"));
}

fn a_watcher_to_the_end_gets_all_above(s: &Subject) {
    let mut watch = s.watch(WatchCreateRequest { range_end: bytes("\0"), ..watch_key("b", 0) });
    s.set("a", "1");
    let first = s.set("b", "1");
    let second = s.set("\u{10ffff}", "1");
    assert_eq!(events(&watch.events(2)), format!("b=1@{first} \u{10ffff}=1@{second}"));
}

fn revisions_come_one_by_one_and_in_order(s: &Subject) {
    let mut watch = s.watch(watch_prefix("", 0));
    let first = s.revision() + 1;
    for n in 0..100 {
        s.set(&format!("k{}", n % 3), format!("{n}"));
    }
    let seen: Vec<i64> =
        watch.events(100).iter().map(|event| event.kv.as_ref().unwrap().mod_revision).collect();
    assert_eq!(seen, (first..first + 100).collect::<Vec<_>>());
}

fn the_header_holds_the_revision_of_live_events(s: &Subject) {
    let mut watch = s.watch(watch_key("a", 0));
    for value in ["1", "2"] {
        let at = s.set("a", value);
        let response = watch.next();
        assert_eq!((revision(&response.header), response.watch_id), (at, 0));
        assert!(!response.created && !response.canceled && !response.fragment);
    }
}

fn all_of_one_revision_comes_in_one_response(s: &Subject) {
    let many = || txn((0..100).map(|n| Op::Put(put(&format!("k{n:02}"), "1"))));
    let mut live = s.watch(watch_prefix("k", 0));
    let comes_whole = |live: &mut WatchStream, at: i64| {
        let response = live.next();
        assert_eq!(response.events.len(), 100);
        assert!(response.events.iter().all(|event| event.kv.as_ref().unwrap().mod_revision == at));
    };
    // One after the other: who is behind may get both at once.
    let first = revision(&s.txn(many()).unwrap().header);
    comes_whole(&mut live, first);
    comes_whole(&mut live, revision(&s.delete(delete_prefix("k")).unwrap().header));
    // From the past, whole revisions may share a response, but none is torn.
    let mut past = s.watch(watch_prefix("k", first));
    let mut seen = 0;
    while seen < 200 {
        let response = past.next();
        assert_eq!(response.events.len() % 100, 0);
        seen += response.events.len();
    }
}

fn a_watcher_gets_its_part_of_a_transaction(s: &Subject) {
    let mut watch = s.watch(watch_prefix("b/", 0));
    let ops = ["a", "b/2", "c", "b/1"].map(|key| Op::Put(put(key, "1")));
    let at = revision(&s.txn(txn(ops)).unwrap().header);
    assert_eq!(events(&watch.next().events), format!("b/2=1@{at} b/1=1@{at}"));
}

fn filtered(filters: &[FilterType]) -> WatchCreateRequest {
    WatchCreateRequest {
        filters: filters.iter().map(|&filter| filter.into()).collect(),
        ..watch_prefix("", 0)
    }
}

fn filters_leave_out_puts_or_deletes(s: &Subject) {
    let mut deletes = s.watch(filtered(&[FilterType::Noput]));
    let mut puts = s.watch(filtered(&[FilterType::Nodelete]));
    let first = s.set("a", "1");
    s.delete(delete("a")).unwrap();
    let mixed = revision(&s.txn(txn([Op::Put(put("b", "1")), Op::Put(put("c", "1"))])).unwrap().header);
    s.txn(txn([Op::Delete(delete("b")), Op::Put(put("d", "1"))])).unwrap();
    assert_eq!(events(&deletes.events(2)), format!("-a@{} -b@{}", first + 1, mixed + 1));
    assert_eq!(events(&puts.events(4)), format!("a=1@{first} b=1@{mixed} c=1@{mixed} d=1@{}", mixed + 1));
}

fn a_response_without_events_is_not_sent(s: &Subject) {
    let mut deletes = s.watch(filtered(&[FilterType::Noput]));
    let mut nothing = s.watch(filtered(&[FilterType::Noput, FilterType::Nodelete]));
    for value in ["1", "2", "3"] {
        s.set("a", value);
    }
    s.delete(delete("a")).unwrap();
    assert_eq!(events(&deletes.next().events), format!("-a@{}", s.revision()));
    nothing.cancel(0);
    assert!(nothing.next().canceled, "nothing came before");
}

fn the_old_pair_comes_if_asked_for(s: &Subject) {
    let mut watch = s.watch(WatchCreateRequest { prev_kv: true, ..watch_key("a", 0) });
    let first = s.set("a", "1");
    s.set("a", "2");
    s.delete(delete("a")).unwrap();
    s.set("a", "3");
    let seen = watch.events(4);
    let old: Vec<_> =
        seen.iter().map(|event| event.prev_kv.as_ref().map(|kv| (kv.value.clone(), numbers(kv)))).collect();
    assert_eq!(
        old,
        [None, Some((bytes("1"), (first, first, 1))), Some((bytes("2"), (first, first + 1, 2))), None,]
    );
    // The same from the past.
    let mut past = s.watch(WatchCreateRequest { prev_kv: true, ..watch_key("a", first) });
    assert_eq!(past.events(4), seen);
}

fn the_old_pair_is_missing_where_history_is_compacted(s: &Subject) {
    s.set("a", "1");
    let second = s.set("a", "2");
    let third = s.set("a", "3");
    s.compact(compact(second)).unwrap();
    let request = |start| WatchCreateRequest { prev_kv: true, ..watch_key("a", start) };
    let seen = s.watch(request(second)).events(2);
    assert_eq!(events(&seen), format!("a=2@{second} a=3@{third}"));
    assert_eq!(seen[0].prev_kv, None, "it is compacted");
    assert_eq!(seen[1].prev_kv.as_ref().unwrap().value, "2");
}

fn two_watchers_of_one_key_get_their_own(s: &Subject) {
    let mut stream = s.watch(WatchCreateRequest { prev_kv: true, ..watch_key("a", 0) });
    stream.create(filtered(&[FilterType::Nodelete]));
    assert!(stream.next().created);
    s.set("a", "1");
    let at = s.set("a", "2");
    let mut old_pairs = [0, 0];
    let mut last = [0, 0];
    for _ in 0..4 {
        let response = stream.next();
        let watcher = usize::try_from(response.watch_id).unwrap();
        for event in &response.events {
            old_pairs[watcher] += usize::from(event.prev_kv.is_some());
            last[watcher] = event.kv.as_ref().unwrap().mod_revision;
        }
    }
    assert_eq!((old_pairs, last), ([1, 0], [at, at]));
}

/// Two keys with values of 1.2 MiB, deleted by one revision: more than a response may hold without need.
fn delete_much(s: &Subject) -> i64 {
    for key in ["k/1", "k/2"] {
        s.set(key, vec![b'v'; 1_200 << 10]);
    }
    revision(&s.delete(delete_prefix("k/")).unwrap().header)
}

fn a_large_revision_comes_whole(s: &Subject) {
    let mut watch = s.watch(WatchCreateRequest {
        prev_kv: true,
        filters: vec![FilterType::Noput.into()],
        ..watch_prefix("k/", 0)
    });
    let at = delete_much(s);
    let response = watch.next();
    assert_eq!((events(&response.events), response.fragment), (format!("-k/1@{at} -k/2@{at}"), false));
}

fn a_large_revision_comes_in_fragments_if_asked_for(s: &Subject) {
    let mut watch = s.watch(WatchCreateRequest {
        prev_kv: true,
        fragment: true,
        filters: vec![FilterType::Noput.into()],
        ..watch_prefix("k/", 0)
    });
    let at = delete_much(s);
    for (key, more) in [("k/1", true), ("k/2", false)] {
        let response = watch.next();
        assert_eq!((events(&response.events), response.fragment), (format!("-{key}@{at}"), more));
        assert_eq!(event(&response, 0).prev_kv.as_ref().unwrap().value.len(), 1_200 << 10);
    }
    // What is small comes whole.
    s.set("k/3", "1");
    s.delete(delete("k/3")).unwrap();
    assert!(!watch.next().fragment);
}
