//! Readers beside a writer, a scrub and an image that is written behind: each
//! sees one revision, whole.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use etcfs_proto::{
    etcdserverpb::{RangeRequest, range_request::SortOrder},
    etcfs::record,
};

use super::{ReadError, Scrubbed, Store, StoreOptions, Writer};
use crate::storage::{Batch, Engine, MemoryEngine};

/// Keys that exist at every revision: each change deletes one and puts another. Enough of them
/// that counts add up blocks.
const KEYS: usize = 6000;
/// Put together in each revision, with the same value.
const SIBLINGS: usize = 40;
/// The first revision with keys: a new store is at 1.
const FIRST: i64 = 2;
const ROUNDS: usize = 1000;

fn open(engine: &Arc<MemoryEngine>) -> (Arc<Store>, Writer) {
    let engine: Arc<dyn Engine> = engine.clone();
    let meta =
        record::Meta { revision: 1, compact_revision: -1, scrubbed_revision: -1, ..Default::default() };
    // Next to nothing stays in memory, so that most values are read from the image.
    let options = StoreOptions { value_cache_bytes: 20_000 };
    let (store, writer, _) = Store::open(engine, &meta, &options).unwrap();
    (store, writer)
}

fn key(number: usize) -> String {
    format!("key/{number:06}")
}

fn prefix(prefix: &str) -> RangeRequest {
    let key = bytes::Bytes::from(prefix.to_owned());
    let range_end = etcfs_proto::key::prefix_end(&key);
    RangeRequest { key, range_end, ..RangeRequest::default() }
}

/// One read of each kind, now or a little in the past.
fn read(store: &Store, round: usize) -> Result<(), ReadError> {
    let back = (round % 7) as i64 * 5;
    let revision = if back == 0 { 0 } else { (store.revision() - back).max(FIRST) };
    let count = store.range(&RangeRequest { count_only: true, revision, ..prefix("key/") })?;
    assert_eq!(count.count as usize, KEYS);
    let few = RangeRequest { limit: 3, keys_only: true, revision, ..prefix("key/") };
    let few = store.range(&few)?;
    assert_eq!((few.count as usize, few.kvs.len(), few.more), (KEYS, 3, true));
    let order = if round.is_multiple_of(2) { SortOrder::Descend } else { SortOrder::Ascend };
    let siblings = store.range(&RangeRequest { sort_order: order.into(), revision, ..prefix("sibling/") })?;
    assert_eq!(siblings.kvs.len(), SIBLINGS);
    let first = &siblings.kvs[0];
    for kv in &siblings.kvs {
        assert_eq!((kv.mod_revision, &kv.value), (first.mod_revision, &first.value));
    }
    if revision != 0 {
        assert_eq!(first.mod_revision, revision);
    }
    if round.is_multiple_of(50) {
        let all = store.range(&RangeRequest { revision, ..prefix("key/") })?;
        assert_eq!((all.count as usize, all.kvs.len()), (KEYS, KEYS));
    }
    Ok(())
}

#[test]
fn readers_see_whole_revisions_whatever_goes_on() {
    let engine = Arc::new(MemoryEngine::new());
    let (store, mut writer) = open(&engine);
    let mut batch = Batch::default();
    let change = |writer: &mut Writer, batch: &mut Batch, round: usize| {
        let mut txn = writer.begin(batch);
        if round == 0 {
            for number in 0..KEYS {
                txn.put(key(number).into(), "v".into(), 0);
            }
        } else {
            txn.delete_range(key(round % KEYS).as_bytes(), b"", false).unwrap();
            txn.put(key(round % KEYS + 1_000_000 * round).into(), "v".into(), 0);
        }
        for number in 0..SIBLINGS {
            txn.put(format!("sibling/{number}").into(), format!("round {round}").into(), 0);
        }
        let events = txn.finish().unwrap();
        writer.publish(events.revision);
    };
    change(&mut writer, &mut batch, 0);
    assert_eq!(store.revision(), FIRST, "the oldest one that is read");
    let done = AtomicBool::new(false);
    let reads = std::thread::scope(|scope| {
        let reader = || {
            let (mut round, mut answered) = (0, 0);
            while !done.load(Ordering::Acquire) || round < 100 {
                match read(&store, round) {
                    Ok(()) => answered += 1,
                    // A compaction may come between choosing a revision and reading it.
                    Err(ReadError::Compacted) => {}
                    Err(error) => panic!("{error}"),
                }
                round += 1;
            }
            answered
        };
        let readers = [scope.spawn(reader), scope.spawn(reader)];
        for round in 1..ROUNDS {
            change(&mut writer, &mut batch, round);
            if round.is_multiple_of(5) {
                engine.write(&std::mem::take(&mut batch)).unwrap();
                store.written(writer.revision());
            }
            if round.is_multiple_of(20) {
                writer.compact(writer.revision() - 10).unwrap();
                writer.publish(writer.revision());
            }
            if let Scrubbed::Chunk(mut rows) | Scrubbed::Last(mut rows, _) = writer.scrub() {
                batch.append(&mut rows);
            }
        }
        done.store(true, Ordering::Release);
        readers.map(|reader| reader.join().unwrap())
    });
    assert!(reads.iter().all(|&answered| answered > 0), "{reads:?}");
}
