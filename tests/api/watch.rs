//! Watchers: how they are created, numbered, refused and cancelled.

use etcfs_proto::etcdserverpb::{WatchCreateRequest, WatchResponse};
use etcfs_tests::{
    api::{WatchStream, compact, watch_key, watch_prefix},
    server::Server,
};
use tonic::Code;

use crate::subject::{Subject, bytes, events, revision};

on_both! {
    the_answer_to_a_create_precedes_all_events,
    ids_count_up_from_zero,
    a_chosen_id_is_kept_and_skipped_by_the_count,
    an_id_in_use_is_refused_and_the_stream_goes_on,
    an_id_is_free_again_after_its_cancel,
    an_inverted_range_is_refused,
    a_cancel_is_confirmed_and_ends_the_events,
    cancelling_what_is_not_there_is_not_answered,
    an_empty_key_is_the_lowest_key,
    a_negative_start_is_refused,
    streams_number_their_watchers_apart,
    a_request_without_content_is_passed_over,
    many_watchers_on_one_stream,
}

#[track_caller]
fn created(stream: &mut WatchStream, request: WatchCreateRequest) -> WatchResponse {
    stream.create(request);
    let answer = stream.next();
    assert!(answer.created, "{answer:?}");
    assert!(answer.events.is_empty(), "{answer:?}");
    answer
}

/// Checks that a create was refused with this reason and that the stream lives.
#[track_caller]
fn refused(s: &Subject, request: WatchCreateRequest, reason: &str) {
    let mut stream = s.watch_stream();
    let answer = created(&mut stream, request);
    assert_eq!((answer.canceled, answer.watch_id), (true, -1), "{answer:?}");
    assert_eq!(answer.cancel_reason, reason);
    assert!(!created(&mut stream, watch_key("a", 0)).canceled);
}

fn the_answer_to_a_create_precedes_all_events(s: &Subject) {
    let first = s.set("a", "1");
    let current = s.set("a", "2");
    let mut stream = s.watch_stream();
    let answer = created(&mut stream, watch_key("a", first));
    assert_eq!((answer.watch_id, answer.canceled, answer.compact_revision), (0, false, 0));
    assert_eq!((answer.cancel_reason.as_str(), answer.fragment), ("", false));
    let header = answer.header.unwrap();
    assert_eq!(header.revision, current);
    assert!(header.cluster_id != 0 && header.member_id != 0 && header.raft_term != 0);
    assert_eq!(events(&stream.events(2)), format!("a=1@{first} a=2@{current}"));
}

fn ids_count_up_from_zero(s: &Subject) {
    let mut stream = s.watch_stream();
    for id in 0..5 {
        assert_eq!(created(&mut stream, watch_key("a", 0)).watch_id, id);
    }
}

fn a_chosen_id_is_kept_and_skipped_by_the_count(s: &Subject) {
    let mut stream = s.watch_stream();
    let chosen = |watch_id| WatchCreateRequest { watch_id, ..watch_key("a", 0) };
    assert_eq!(created(&mut stream, chosen(1)).watch_id, 1);
    assert_eq!(created(&mut stream, chosen(7_000_000_000)).watch_id, 7_000_000_000);
    assert_eq!(created(&mut stream, chosen(0)).watch_id, 0, "0 is no choice");
    assert_eq!(created(&mut stream, chosen(0)).watch_id, 2);
    let revision = s.set("a", "1");
    let mut ids: Vec<i64> = (0..4)
        .map(|_| {
            let response = stream.next();
            assert_eq!(events(&response.events), format!("a=1@{revision}"));
            response.watch_id
        })
        .collect();
    ids.sort_unstable();
    assert_eq!(ids, [0, 1, 2, 7_000_000_000]);
}

fn an_id_in_use_is_refused_and_the_stream_goes_on(s: &Subject) {
    let mut stream = s.watch_stream();
    let chosen = || WatchCreateRequest { watch_id: 5, ..watch_key("a", 0) };
    created(&mut stream, chosen());
    let answer = created(&mut stream, chosen());
    assert_eq!((answer.canceled, answer.watch_id), (true, -1));
    assert_eq!(answer.cancel_reason, "mvcc: duplicate watch ID provided on the WatchStream");
    let revision = s.set("a", "1");
    let response = stream.next();
    assert_eq!((response.watch_id, events(&response.events)), (5, format!("a=1@{revision}")));
    assert!(!created(&mut stream, watch_key("b", 0)).canceled);
}

fn an_id_is_free_again_after_its_cancel(s: &Subject) {
    let mut stream = s.watch_stream();
    let chosen = || WatchCreateRequest { watch_id: 5, ..watch_key("a", 0) };
    created(&mut stream, chosen());
    stream.cancel(5);
    assert!(stream.next().canceled);
    let answer = created(&mut stream, chosen());
    assert_eq!((answer.watch_id, answer.canceled), (5, false));
}

fn an_inverted_range_is_refused(s: &Subject) {
    for (key, end) in [("b", "a"), ("b", "b")] {
        let request = WatchCreateRequest { range_end: bytes(end), ..watch_key(key, 0) };
        refused(s, request, "mvcc: watcher range is empty");
    }
}

fn a_cancel_is_confirmed_and_ends_the_events(s: &Subject) {
    let mut stream = s.watch(watch_key("a", 0));
    created(&mut stream, watch_key("b", 0));
    stream.cancel(0);
    let answer = stream.next();
    assert_eq!((answer.watch_id, answer.canceled, answer.created), (0, true, false));
    assert_eq!((answer.compact_revision, answer.cancel_reason.as_str()), (0, ""));
    assert_eq!(revision(&answer.header), s.revision());
    s.set("a", "1");
    let at = s.set("b", "1");
    let response = stream.next();
    assert_eq!((response.watch_id, events(&response.events)), (1, format!("b=1@{at}")));
}

fn cancelling_what_is_not_there_is_not_answered(s: &Subject) {
    let mut stream = s.watch(watch_key("a", 0));
    stream.cancel(99);
    stream.cancel(-1);
    stream.cancel(0);
    stream.cancel(0);
    let answer = stream.next();
    assert_eq!((answer.watch_id, answer.canceled), (0, true));
    assert_eq!(created(&mut stream, watch_key("a", 0)).watch_id, 1, "nothing came in between");
}

fn an_empty_key_is_the_lowest_key(s: &Subject) {
    // With an open end it is everything; alone it is the one key `\0`.
    let mut all = s.watch(WatchCreateRequest { range_end: bytes("\0"), ..Default::default() });
    let mut one = s.watch(WatchCreateRequest::default());
    let first = s.set("a", "1");
    let second = s.set("\0", "2");
    assert_eq!(events(&all.events(2)), format!("a=1@{first} \0=2@{second}"));
    assert_eq!(events(&one.events(1)), format!("\0=2@{second}"));
}

/// 3.4 creates the watcher and cancels it a moment later, as for any compacted start.
fn a_negative_start_is_refused(s: &Subject) {
    let current = s.set("a", "1");
    s.compact(compact(current)).unwrap();
    if s.is_v3_4() {
        let mut stream = s.watch(watch_key("a", -1));
        let answer = stream.next();
        assert_eq!((answer.canceled, answer.compact_revision), (true, current));
    } else {
        for start in [-1, i64::MIN] {
            refused(s, watch_key("a", start), "etcdserver: mvcc: required revision has been compacted");
        }
    }
}

fn streams_number_their_watchers_apart(s: &Subject) {
    let mut streams = [s.watch(watch_key("a", 0)), s.watch(watch_key("a", 0))];
    let at = s.set("a", "1");
    for stream in &mut streams {
        let response = stream.next();
        assert_eq!((response.watch_id, events(&response.events)), (0, format!("a=1@{at}")));
    }
}

fn a_request_without_content_is_passed_over(s: &Subject) {
    let mut stream = s.watch_stream();
    stream.empty();
    assert_eq!(created(&mut stream, watch_key("a", 0)).watch_id, 0);
}

fn many_watchers_on_one_stream(s: &Subject) {
    const MANY: i64 = 200;
    let mut stream = s.watch_stream();
    for id in 0..MANY {
        assert_eq!(created(&mut stream, watch_prefix("k", 0)).watch_id, id);
    }
    let at = s.set("k", "1");
    let mut seen: Vec<i64> = (0..MANY)
        .map(|_| {
            let response = stream.next();
            assert_eq!(events(&response.events), format!("k=1@{at}"));
            response.watch_id
        })
        .collect();
    seen.sort_unstable();
    assert_eq!(seen, (0..MANY).collect::<Vec<_>>());
}

/// Like the other watches it is told to go on elsewhere.
#[test]
fn a_watch_is_told_when_its_server_stops() {
    let mut server = Server::etcfs();
    let mut stream = server.api().watch(watch_key("a", 0));
    assert!(server.stop().success());
    let status = stream.end();
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "etcdserver: server stopped"));
}
