//! A client whose every change is a transaction over two keys: none may be torn.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use etcfs_proto::mvccpb::{Event, event::EventType};
use etcfs_tests::api::{Api, Op, delete_prefix, event_revision, put, runtime, txn};
use tokio::{task::JoinHandle, time::timeout};

/// Keys of the pairs, all changed by each transaction.
const PREFIX: &str = "pair/";
const KEYS: [&str; 2] = ["pair/left", "pair/right"];
/// One in this many transactions deletes both.
const DELETE_EVERY: u64 = 10;

/// The running client.
#[derive(Debug)]
pub(crate) struct Pairs {
    stop: Arc<AtomicBool>,
    /// The revisions that were acknowledged.
    task: JoinHandle<Vec<i64>>,
}

impl Pairs {
    pub(crate) fn start(endpoint: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let work = work(Api::to(endpoint), stop.clone());
        Self { stop, task: runtime().spawn(work) }
    }

    /// Ends it and returns the revisions of its acknowledged transactions.
    pub(crate) fn stop(self) -> Vec<i64> {
        self.stop.store(true, Ordering::Relaxed);
        runtime().block_on(self.task).expect("the client does not panic")
    }
}

async fn work(api: Api, stop: Arc<AtomicBool>) -> Vec<i64> {
    let mut acknowledged = Vec::new();
    for number in 0_u64.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let ops = if number % DELETE_EVERY == DELETE_EVERY - 1 {
            vec![Op::Delete(delete_prefix(PREFIX))]
        } else {
            KEYS.map(|key| Op::Put(put(key, format!("{number}")))).to_vec()
        };
        match timeout(Duration::from_secs(3), api.kv().txn(txn(ops))).await {
            Ok(Ok(answer)) => {
                let revision = answer.into_inner().header.map_or(0, |header| header.revision);
                // A delete of what was never put changes nothing.
                if acknowledged.last() != Some(&revision) && number % DELETE_EVERY != DELETE_EVERY - 1 {
                    acknowledged.push(revision);
                }
            }
            _ => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
    acknowledged
}

/// Checks that each revision in the log changed both keys alike, and that those acknowledged are there.
#[track_caller]
pub(crate) fn check(acknowledged: &[i64], events: &[Event]) {
    let mut changes: BTreeMap<i64, Vec<(Bytes, Option<Bytes>)>> = BTreeMap::new();
    for event in events {
        let Some(kv) = event.kv.as_ref().filter(|kv| kv.key.starts_with(PREFIX.as_bytes())) else { continue };
        let value = (event.r#type() == EventType::Put).then(|| kv.value.clone());
        changes.entry(event_revision(event)).or_default().push((kv.key.clone(), value));
    }
    for (revision, changes) in &changes {
        let keys: Vec<&[u8]> = changes.iter().map(|(key, _)| key.as_ref()).collect();
        assert_eq!(keys, KEYS.map(str::as_bytes), "revision {revision} is torn: {changes:?}");
        assert_eq!(changes[0].1, changes[1].1, "revision {revision} is torn: {changes:?}");
    }
    let lost: Vec<i64> =
        acknowledged.iter().copied().filter(|revision| !changes.contains_key(revision)).collect();
    assert!(lost.is_empty(), "acknowledged transactions are lost: {lost:?}");
}
