//! Many watchers of one client.

use etcfs_tests::{
    api::{event_revision, watch_prefix},
    wait,
};

use super::{RESIDENT_BYTES_MAX, lives, server};

/// Ten thousand watchers on one stream each hear of what is theirs.
#[test]
fn ten_thousand_watchers_on_one_stream_are_told() {
    const WATCHERS: usize = 10_000;
    let server = server(&[]);
    let mut stream = server.api().watch_stream();
    for _ in 0..WATCHERS / 100 {
        for _ in 0..100 {
            stream.create(watch_prefix("k/", 0));
        }
        for _ in 0..100 {
            assert!(stream.next().created);
        }
    }
    let revision = server.api().set("k/a", "1");
    let mut told = std::collections::BTreeSet::new();
    while told.len() < WATCHERS {
        let response = stream.next();
        assert_eq!(response.events.first().map(event_revision), Some(revision));
        assert!(told.insert(response.watch_id), "watcher {} is told twice", response.watch_id);
    }
    lives(&server, RESIDENT_BYTES_MAX);
    drop(stream);
    wait::until_true("all go with their stream", || {
        server.metric("etcd_debugging_mvcc_watcher_total") == Some(0.0)
    });
}

/// So do ten thousand streams of one watcher each.
#[test]
fn ten_thousand_streams_are_told() {
    const STREAMS: usize = 10_000;
    let server = server(&[]);
    let api = server.api();
    let mut streams: Vec<_> = Vec::new();
    for _ in 0..STREAMS / 100 {
        let mut opened: Vec<_> = (0..100).map(|_| api.watch_stream()).collect();
        opened.iter().for_each(|stream| stream.create(watch_prefix("k/", 0)));
        assert!(opened.iter_mut().all(|stream| stream.next().created));
        streams.append(&mut opened);
    }
    let revision = api.set("k/a", "1");
    for stream in &mut streams {
        assert_eq!(stream.next().events.first().map(event_revision), Some(revision));
    }
    lives(&server, RESIDENT_BYTES_MAX);
    drop(streams);
    wait::until_true("all go with their clients", || {
        server.metric("etcd_debugging_mvcc_watch_stream_total") == Some(0.0)
    });
}
