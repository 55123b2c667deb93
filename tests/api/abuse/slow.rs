//! A watcher that does not read.

use etcfs_tests::{
    api::{Api, event_revision, watch_key},
    server::Server,
};

use super::{lives, server};

const EVENTS: usize = 300;
const VALUE_BYTES: usize = 500_000;
/// What may wait in memory for one watcher, and what two servers differ by anyway.
const WATCHER_BYTES_MAX: u64 = 64 << 20;

/// 150 MB of values; the most memory that the server has held by then.
fn fill(server: &Server) -> u64 {
    let api: Api = server.api();
    for nth in 0..EVENTS {
        let mut value = vec![b'x'; VALUE_BYTES];
        value[..8].copy_from_slice(&(nth as u64).to_be_bytes());
        api.set("big", value);
    }
    server.peak_bytes()
}

/// What waits for it waits in the store, not in memory, and all of it comes once it reads.
#[test]
fn a_watcher_that_does_not_read_costs_little_and_loses_nothing() {
    let without = fill(&server(&[]));
    let server = server(&[]);
    let mut watch = server.api().watch(watch_key("big", 0));
    let with = fill(&server);
    assert!(
        with <= without + WATCHER_BYTES_MAX,
        "{} MiB with a watcher that does not read, {} MiB without",
        with >> 20,
        without >> 20
    );
    let events = watch.events(EVENTS);
    for (nth, event) in events.iter().enumerate() {
        let value = &event.kv.as_ref().expect("every event has a pair").value;
        assert_eq!(value[..8], (nth as u64).to_be_bytes(), "event {nth}");
    }
    assert!(events.windows(2).all(|pair| event_revision(&pair[0]) < event_revision(&pair[1])));
    lives(&server, u64::MAX);
}
