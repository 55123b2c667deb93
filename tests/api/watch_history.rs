//! Watching from the past and from the future, over compactions and restarts.

use etcfs_proto::{etcdserverpb::CompactionRequest, mvccpb::Event};
use etcfs_tests::{
    api::{Api, WatchStream, compact, delete, event_revision, runtime, watch_key, watch_prefix},
    server::{Kind, Server},
};

use crate::subject::{Subject, events, put_many, revision};

on_both! {
    a_watch_from_the_past_gives_every_event_since,
    a_start_between_two_events_begins_at_the_later,
    the_current_revision_is_the_past_too,
    a_watch_from_the_future_waits_for_its_revision,
    a_long_past_comes_in_order_and_complete,
    the_past_joins_the_present_without_gap_or_double,
    a_compacted_start_is_cancelled_and_the_stream_goes_on,
    the_compacted_revision_itself_can_be_watched,
    a_tombstone_at_the_compacted_revision_is_watched,
    a_deleted_key_has_its_past,
    a_broken_stream_is_resumed_after_its_last_event,
}

/// One put, update or delete a revision: `count` of them. Returns the first and how they must show.
fn history(s: &Api, count: i64) -> (i64, Vec<String>) {
    let mut shown = Vec::new();
    for n in 0..count {
        let key = format!("k{}", n % 4);
        if n % 9 == 8 && s.get(&key).is_some() {
            let at = revision(&s.delete(delete(&key)).unwrap().header);
            shown.push(format!("-{key}@{at}"));
        } else {
            shown.push(format!("{key}={n}@{}", s.set(&key, format!("{n}"))));
        }
    }
    (s.revision() + 1 - count, shown)
}

fn a_watch_from_the_past_gives_every_event_since(s: &Subject) {
    let (first, shown) = history(s, 40);
    for skip in [0, 1, 20, 39] {
        let mut watch = s.watch(watch_prefix("k", first + skip as i64));
        assert_eq!(events(&watch.events(40 - skip)), shown[skip..].join(" "));
    }
    let mut one = s.watch(watch_key("k1", first));
    let of_one: Vec<_> = shown.iter().filter(|event| event.contains("k1")).cloned().collect();
    assert_eq!(events(&one.events(of_one.len())), of_one.join(" "));
}

fn a_start_between_two_events_begins_at_the_later(s: &Subject) {
    let first = s.set("a", "1");
    s.set("b", "1");
    let third = s.set("a", "2");
    assert_eq!(events(&s.watch(watch_key("a", first + 1)).next().events), format!("a=2@{third}"));
}

fn the_current_revision_is_the_past_too(s: &Subject) {
    s.set("a", "1");
    let current = s.set("a", "2");
    let mut watch = s.watch(watch_key("a", current));
    assert_eq!(events(&watch.next().events), format!("a=2@{current}"));
    let next = s.set("a", "3");
    assert_eq!(events(&watch.next().events), format!("a=3@{next}"));
}

fn a_watch_from_the_future_waits_for_its_revision(s: &Subject) {
    let current = s.set("a", "0");
    let mut stream = s.watch_stream();
    stream.create(watch_key("a", current + 3));
    let created = stream.next();
    assert_eq!((created.created, revision(&created.header)), (true, current));
    for value in ["1", "2", "3", "4"] {
        s.set("a", value);
    }
    assert_eq!(events(&stream.events(2)), format!("a=3@{} a=4@{}", current + 3, current + 4));
}

/// More than one of etcd's catch-up batches of 1000 revisions.
fn a_long_past_comes_in_order_and_complete(s: &Subject) {
    const COUNT: i64 = 2500;
    let first = s.revision() + 1;
    put_many(s, "long", COUNT);
    let mut watch = s.watch(watch_prefix("long", first));
    let seen: Vec<i64> = watch.events(COUNT as usize).iter().map(event_revision).collect();
    assert_eq!(seen, (first..first + COUNT).collect::<Vec<_>>());
}

fn the_past_joins_the_present_without_gap_or_double(s: &Subject) {
    const EACH: i64 = 300;
    let first = s.revision() + 1;
    put_many(s, "k", EACH);
    let writer = {
        let api = Api::clone(s);
        runtime()
            .spawn_blocking(move || (0..EACH).for_each(|n| drop(api.set("k", format!("{n}")).to_string())))
    };
    // Watchers that begin in the past while revisions are made.
    let mut watches: Vec<(i64, WatchStream)> = (0..12)
        .map(|n| {
            let start = first + n * 25;
            (start, s.watch(watch_prefix("k", start)))
        })
        .collect();
    runtime().block_on(writer).unwrap();
    let last = s.revision();
    assert_eq!(last + 1 - first, EACH * 2);
    for (start, watch) in &mut watches {
        let seen: Vec<i64> = watch.events((last + 1 - *start) as usize).iter().map(event_revision).collect();
        assert_eq!(seen, (*start..=last).collect::<Vec<_>>());
    }
}

fn a_compacted_start_is_cancelled_and_the_stream_goes_on(s: &Subject) {
    let first = s.set("a", "1");
    let second = s.set("a", "2");
    let third = s.set("a", "3");
    s.compact(compact(second)).unwrap();
    let mut stream = s.watch_stream();
    stream.create(watch_key("a", first));
    let created = stream.next();
    assert_eq!((created.created, created.canceled, created.watch_id), (true, false, 0));
    let cancelled = stream.next();
    assert_eq!((cancelled.created, cancelled.canceled, cancelled.watch_id), (false, true, 0));
    assert_eq!((cancelled.compact_revision, cancelled.cancel_reason.as_str()), (second, ""));
    assert_eq!((cancelled.events.len(), revision(&cancelled.header)), (0, 0));
    stream.create(watch_key("a", third));
    assert!(stream.next().created);
    assert_eq!(events(&stream.next().events), format!("a=3@{third}"));
}

fn the_compacted_revision_itself_can_be_watched(s: &Subject) {
    s.set("a", "1");
    let second = s.set("a", "2");
    let third = s.set("a", "3");
    s.compact(compact(second)).unwrap();
    let mut watch = s.watch(watch_key("a", second));
    assert_eq!(events(&watch.events(2)), format!("a=2@{second} a=3@{third}"));
    let mut after = s.watch(watch_key("a", second + 1));
    assert_eq!(events(&after.events(1)), format!("a=3@{third}"));
}

/// 3.4 loses the delete: a known bug that later versions do not have.
fn a_tombstone_at_the_compacted_revision_is_watched(s: &Subject) {
    s.set("a", "1");
    let deleted = revision(&s.delete(delete("a")).unwrap().header);
    let again = s.set("a", "2");
    s.compact(CompactionRequest { revision: deleted, physical: true }).unwrap();
    let expected = s.by_version(format!("a=2@{again}"), format!("-a@{deleted} a=2@{again}"));
    let mut watch = s.watch(watch_key("a", deleted));
    let count = expected.split(' ').count();
    assert_eq!(events(&watch.events(count)), expected);
}

fn a_deleted_key_has_its_past(s: &Subject) {
    let first = s.set("a", "1");
    s.delete(delete("a")).unwrap();
    assert_eq!(events(&s.watch(watch_key("a", first)).events(2)), format!("a=1@{first} -a@{}", first + 1));
}

fn a_broken_stream_is_resumed_after_its_last_event(s: &Subject) {
    let (first, shown) = history(s, 30);
    let mut seen: Vec<Event> = Vec::new();
    let mut next = first;
    // A client that loses its stream after each response.
    while seen.len() < 30 {
        let mut watch = s.watch(watch_prefix("k", next));
        seen.extend(watch.next().events);
        next = event_revision(seen.last().unwrap()) + 1;
    }
    assert_eq!(events(&seen), shown.join(" "));
}

fn history_survives_a_restart(kind: Kind, end: fn(&mut Server)) {
    let mut server = Server::start(kind);
    let api = server.api();
    let (first, shown) = history(&api, 40);
    let compacted = first + 10;
    api.compact(compact(compacted)).unwrap();
    let current = api.revision();
    end(&mut server);
    server.run();
    let api = server.api();
    assert_eq!(api.revision(), current);
    let mut watch = api.watch(watch_prefix("k", compacted + 1));
    assert_eq!(events(&watch.events(29)), shown[11..].join(" "));
    let at = api.set("k", "new");
    assert_eq!(at, current + 1);
    assert_eq!(events(&watch.next().events), format!("k=new@{at}"));
    let mut old = api.watch(watch_prefix("k", first));
    assert_eq!(old.next().compact_revision, compacted);
}

fn stop(server: &mut Server) {
    assert!(server.stop().success() || server.kind() == Kind::Etcd, "ours ends in order");
}

#[test]
fn history_survives_a_restart_of_etcfsd() {
    history_survives_a_restart(Kind::Etcfs, stop);
}

#[test]
fn history_survives_a_kill_of_etcfsd() {
    history_survives_a_restart(Kind::Etcfs, Server::kill);
}

#[test]
fn history_survives_a_restart_of_etcd() {
    history_survives_a_restart(Kind::Etcd, stop);
}
