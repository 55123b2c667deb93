//! Many watchers at once, with the hub's own threads.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use etcfs_proto::{
    etcdserverpb::{WatchCreateRequest, WatchResponse},
    etcfs::record,
};
use futures_util::StreamExt;

use super::{Hub, HubOptions, WatchStream};
use crate::{
    mvcc::{Store, StoreOptions, Writer},
    storage::{Batch, Engine, MemoryEngine},
};

const DEADLINE: Duration = Duration::from_secs(60);

struct Crowd {
    store: Arc<Store>,
    writer: Writer,
    hub: Hub,
}

impl Crowd {
    fn new() -> Self {
        let engine: Arc<dyn Engine> = Arc::new(MemoryEngine::new());
        let meta =
            record::Meta { revision: 1, compact_revision: -1, scrubbed_revision: -1, ..Default::default() };
        let (store, writer, _) = Store::open(engine, &meta, &StoreOptions::default()).unwrap();
        let hub = Hub::new(store.clone(), HubOptions::default());
        Self { store, writer, hub }
    }

    fn put(&mut self, key: &str) -> i64 {
        let mut batch = Batch::default();
        let mut txn = self.writer.begin(&mut batch);
        txn.put(key.to_owned().into(), "value".into(), 0);
        let events = txn.finish().unwrap();
        let revision = events.revision;
        self.writer.publish(revision);
        self.hub.publish(vec![events]);
        revision
    }
}

fn watch(key: &str, start_revision: i64) -> WatchCreateRequest {
    WatchCreateRequest { key: key.to_owned().into(), start_revision, ..WatchCreateRequest::default() }
}

async fn next(stream: &mut WatchStream) -> WatchResponse {
    tokio::time::timeout(DEADLINE, stream.next()).await.expect("it comes in time").expect("the hub runs")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_watchers_on_one_stream_get_one_event_each() {
    const WATCHERS: i64 = 10_000;
    let mut crowd = Crowd::new();
    let (control, mut answers) = crowd.hub.open();
    let reader = tokio::spawn(async move {
        for id in 0..WATCHERS {
            let created = next(&mut answers).await;
            assert_eq!((created.watch_id, created.created), (id, true));
        }
        answers
    });
    for number in 0..WATCHERS {
        control.room().await;
        control.create(watch(&format!("key{number}"), 0));
    }
    let mut answers = reader.await.unwrap();
    assert_eq!(crowd.hub.metrics().watchers, WATCHERS as u64);
    for number in (0..WATCHERS).rev() {
        crowd.put(&format!("key{number}"));
    }
    for id in (0..WATCHERS).rev() {
        let response = next(&mut answers).await;
        assert_eq!((response.watch_id, response.events.len()), (id, 1));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_streams_each_get_every_event_of_one_key_from_the_past_on() {
    const STREAMS: usize = 10_000;
    let mut crowd = Crowd::new();
    let first = crowd.put("key");
    let mut readers = Vec::new();
    for _ in 0..STREAMS {
        let (control, mut answers) = crowd.hub.open();
        control.create(watch("key", first));
        readers.push(tokio::spawn(async move {
            let _control = control;
            assert!(next(&mut answers).await.created);
            let mut revisions = Vec::new();
            while revisions.len() < 5 {
                let events = next(&mut answers).await.events;
                revisions.extend(events.iter().map(|event| event.kv.as_ref().unwrap().mod_revision));
            }
            revisions
        }));
    }
    for _ in 0..4 {
        crowd.put("other");
        crowd.put("key");
    }
    for reader in readers {
        assert_eq!(reader.await.unwrap(), [2, 4, 6, 8, 10]);
    }
    crowd.hub.shutdown();
    assert_eq!(crowd.store.revision(), 10);
}

#[tokio::test]
async fn the_streams_end_with_the_hub_and_new_ones_at_once() {
    let crowd = Crowd::new();
    let (control, mut answers) = crowd.hub.open();
    control.create(watch("key", 0));
    assert!(next(&mut answers).await.created);
    crowd.hub.shutdown();
    assert_eq!(answers.next().await, None);
    let (_control, mut answers) = crowd.hub.open();
    assert_eq!(answers.next().await, None);
}

#[tokio::test]
async fn a_control_that_goes_takes_its_watchers_along() {
    let crowd = Crowd::new();
    let (control, mut answers) = crowd.hub.open();
    for key in ["a", "b"] {
        control.create(watch(key, 0));
    }
    assert_eq!((crowd.hub.metrics().watchers, crowd.hub.metrics().streams), (2, 1));
    drop(control);
    assert_eq!((crowd.hub.metrics().watchers, crowd.hub.metrics().streams), (0, 0));
    assert_eq!(answers.next().await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_created_amid_changes_gets_the_very_next_one() {
    let mut crowd = Crowd::new();
    let hub = crowd.hub.clone();
    let done = Arc::new(AtomicBool::new(false));
    let stop = Arc::clone(&done);
    let writer = std::thread::spawn(move || {
        while !stop.load(Ordering::Acquire) {
            crowd.put("key");
        }
    });
    // Mostly it is the only one: the hub goes from telling nobody to telling it and back.
    for _ in 0..300 {
        let (control, mut answers) = hub.open();
        control.create(watch("key", 0));
        let created = next(&mut answers).await;
        let mut expected = created.header.unwrap().revision;
        while expected < created.header.unwrap().revision + 5 {
            for event in next(&mut answers).await.events {
                expected += 1;
                assert_eq!(event.kv.unwrap().mod_revision, expected);
            }
        }
        control.progress();
        drop(control);
    }
    done.store(true, Ordering::Release);
    writer.join().unwrap();
    assert_eq!(hub.metrics().watchers, 0);
}
