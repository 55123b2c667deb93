//! Progress: what a watcher may take as delivered when no event comes.

use std::time::Duration;

use etcfs_proto::etcdserverpb::WatchCreateRequest;
use etcfs_tests::{
    api::{event_revision, runtime, watch_key, watch_prefix},
    server::Kind,
};

use crate::subject::{Subject, events, revision};

on_both! {
    a_progress_request_is_answered_for_the_whole_stream,
    a_progress_request_without_watchers,
}
on_ours! {
    progress_never_runs_ahead_of_events,
    a_watcher_from_the_future_does_not_hold_up_progress,
}

fn a_progress_request_is_answered_for_the_whole_stream(s: &Subject) {
    let mut stream = s.watch(watch_key("a", 0));
    stream.create(watch_key("b", 0));
    assert!(stream.next().created);
    let current = s.set("c", "1");
    stream.progress();
    let answer = stream.next();
    assert_eq!((answer.watch_id, answer.events.len(), revision(&answer.header)), (-1, 0, current));
    assert!(!answer.created && !answer.canceled);
    let at = s.set("a", "1");
    assert_eq!(events(&stream.next().events), format!("a=1@{at}"));
}

/// 3.4 answers, 3.6 does not.
fn a_progress_request_without_watchers(s: &Subject) {
    let mut stream = s.watch_stream();
    stream.progress();
    if s.is_v3_4() {
        assert_eq!(stream.next().watch_id, -1);
    }
    stream.create(watch_key("a", 0));
    assert!(stream.next().created, "nothing came before");
}

/// The bug of 3.4 that Kubernetes has to know of.
fn progress_never_runs_ahead_of_events(s: &Subject) {
    const COUNT: i64 = 400;
    let first = s.revision() + 1;
    for n in 0..COUNT {
        s.set("k", format!("{n}"));
    }
    let writer = {
        let api = etcfs_tests::api::Api::clone(s);
        runtime().spawn_blocking(move || {
            for n in 0..COUNT {
                api.set("k", format!("{n}"));
            }
        })
    };
    // It begins far behind, and asks again and again while it catches up.
    let mut stream = s.watch(watch_prefix("k", first));
    let last = first + 2 * COUNT - 1;
    let (mut delivered, mut answers) = (first - 1, 0);
    stream.progress();
    // More than wait at a time say nothing new, and on a slow machine fill the queue.
    let (mut asked, waiting_max) = (1, 100);
    while delivered < last || answers == 0 {
        let response = stream.next();
        if response.watch_id == -1 {
            let told = revision(&response.header);
            assert!(told <= delivered, "progress says {told}, but only {delivered} was delivered");
            answers += 1;
        }
        for event in &response.events {
            assert_eq!(event_revision(event), delivered + 1);
            delivered += 1;
        }
        if asked < answers + waiting_max {
            stream.progress();
            asked += 1;
        }
    }
    runtime().block_on(writer).unwrap();
}

fn a_watcher_from_the_future_does_not_hold_up_progress(s: &Subject) {
    let current = s.set("a", "1");
    let mut stream = s.watch(watch_key("a", 0));
    stream.create(watch_key("a", current + 1000));
    assert!(stream.next().created);
    stream.progress();
    let answer = stream.next();
    assert_eq!((answer.watch_id, revision(&answer.header)), (-1, current));
}

/// Only who asks gets notified, with its own id, when no event came for the interval.
#[test]
fn idle_watchers_are_notified_in_the_interval_if_asked_for() {
    let s = Subject::alone(Kind::Etcfs, &["--watch-progress-notify-interval=200ms"]);
    s.set("a", "0");
    let mut stream = s.watch(watch_key("quiet", 0));
    stream.create(WatchCreateRequest { progress_notify: true, ..watch_key("a", 0) });
    assert!(stream.next().created);
    let current = s.set("b", "1");
    for _ in 0..2 {
        let notice = stream.next_within(Duration::from_secs(5)).expect("a notice comes");
        assert_eq!((notice.watch_id, notice.events.len()), (1, 0), "{notice:?}");
        assert!(!notice.created && !notice.canceled);
        assert_eq!(revision(&notice.header), current);
    }
    let at = s.set("a", "1");
    let event = loop {
        let response = stream.next();
        if !response.events.is_empty() {
            break response;
        }
    };
    assert_eq!(events(&event.events), format!("a=1@{at}"));
}
