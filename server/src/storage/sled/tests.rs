//! Rows that are bundled, reopened, replaced, copied, and that go missing.

use std::time::{Duration, Instant};

use etcfs_proto::etcfs::record::Meta;
use proptest::prelude::*;

use super::*;
use crate::storage::{MemoryEngine, SnapshotFile, codec};

fn row(nth: u32) -> (Bytes, Bytes) {
    (nth.to_be_bytes().to_vec().into(), format!("value {nth}").into())
}

fn put_all(engine: &DiskEngine, rows: impl Iterator<Item = (Bytes, Bytes)>) {
    let mut batch = Batch::default();
    rows.for_each(|(key, value)| batch.put(key, value));
    engine.write(&batch).expect("written");
}

#[test]
fn rows_survive_reopening_and_come_in_order() {
    let dir = tempfile::tempdir().expect("temp dir");
    let engine = DiskEngine::open(dir.path()).expect("opened");
    put_all(&engine, (0..100).map(row));
    let mut batch = Batch::default();
    batch.delete(row(7).0);
    // Beyond sled's inline size, so that it makes a blob file.
    batch.put("big".into(), vec![7; 1 << 20].into());
    engine.write(&batch).expect("written");
    engine.flush().expect("flushed");
    drop(engine);
    let engine = DiskEngine::open(dir.path()).expect("opened");
    assert_eq!(engine.get(&row(3).0).expect("read"), Some(row(3).1));
    assert_eq!(engine.get(&row(7).0).expect("read"), None);
    assert_eq!(engine.get(b"big").expect("read").map(|value| value.len()), Some(1 << 20));
    let page = engine.range(&row(5).0, &row(50).0, 3).expect("read");
    assert_eq!(page, [row(5), row(6), row(8)]);
    let rest = engine.range(&keyspace::successor(&page[2].0), &row(50).0, 1000).expect("read");
    assert_eq!((rest.len(), &rest[0]), (41, &row(9)));
}

#[test]
fn replacing_all_rows_leaves_no_old_one_and_survives_reopening() {
    let dir = tempfile::tempdir().expect("temp dir");
    let engine = DiskEngine::open(dir.path()).expect("opened");
    put_all(&engine, (0..10).map(row));
    engine.replace(&mut (100..COPY_ROWS as u32 + 200).map(|nth| Ok(row(nth)))).expect("replaced");
    assert_eq!(engine.get(&row(3).0).expect("read"), None);
    drop(engine);
    let engine = DiskEngine::open(dir.path()).expect("opened");
    let rows = engine.range(b"", b"\xff", usize::MAX).expect("read");
    assert_eq!((rows.len(), &rows[0]), (COPY_ROWS + 100, &row(100)));
}

#[derive(Clone, Debug)]
enum Step {
    Write(Vec<(i64, i64, Option<Vec<u8>>)>),
    Read(i64, i64, usize),
    Rewrite,
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let value = prop_oneof![Just(vec![0; 3]), (1..700_usize).prop_map(|bytes| vec![7; bytes])];
    let change = (0..60_i64, 0..2_i64, prop::option::weighted(0.7, value));
    let step = prop_oneof![
        6 => prop::collection::vec(change, 1..40).prop_map(Step::Write),
        6 => (0..62_i64, 0..62_i64, 1..50_usize).prop_map(|(from, to, limit)| Step::Read(from, to, limit)),
        1 => Just(Step::Rewrite),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..30)
}

/// sled lets go of its file on a thread of its own, some time after its end.
fn reopen(dir: &Path) -> DiskEngine {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match DiskEngine::open(dir) {
            Err(error)
                if error.to_string().contains("could not acquire lock") && Instant::now() < deadline =>
            {
                // So many attempts would make it refuse its rows.
                fs::remove_file(dir.join(OPENING)).expect("removed");
                std::thread::yield_now();
            }
            opened => return opened.expect("opened"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is bundled with what, and though revisions never come in this order.
    #[test]
    fn rows_of_revisions_are_those_of_an_ordered_map(steps in steps()) {
        let dir = tempfile::tempdir().expect("temp dir");
        let mut engine = DiskEngine::open(dir.path()).expect("opened");
        let model = MemoryEngine::new();
        for step in steps {
            match step {
                Step::Write(changes) => {
                    let mut batch = Batch::default();
                    for (main, sub, value) in changes {
                        let key = keyspace::revision(main, sub);
                        // Revisions are written once.
                        let is_new = model.get(&key).expect("read").is_none()
                            && batch.ops().iter().all(|(other, _)| *other != key);
                        match value {
                            Some(value) if is_new => batch.put(key, value.into()),
                            Some(_) => batch.put(keyspace::lease(main), "lease".into()),
                            None => batch.delete(key),
                        }
                    }
                    engine.write(&batch).expect("written");
                    model.write(&batch).expect("written");
                }
                Step::Read(from, to, limit) => {
                    let (from, to) = (keyspace::revision(from, 1), keyspace::revision(to, 1));
                    prop_assert_eq!(engine.get(&from).expect("read"), model.get(&from).expect("read"));
                    let expected = model.range(&from, &to, limit).expect("read");
                    prop_assert_eq!(engine.range(&from, &to, limit).expect("read"), expected);
                }
                Step::Rewrite => while !engine.rewrite().expect("copied") {},
                Step::Reopen => {
                    engine.flush().expect("flushed");
                    drop(engine);
                    engine = reopen(dir.path());
                    engine.verify().expect("whole");
                }
            }
        }
        engine.verify().expect("whole");
        prop_assert_eq!(all(&engine), model.rows());
    }
}

/// As all were stored before there were bundles.
#[test]
fn rows_that_stand_alone_are_read_deleted_and_bundled_by_a_rewrite() {
    let dir = tempfile::tempdir().expect("temp dir");
    let engine = DiskEngine::open(dir.path()).expect("opened");
    let rows: Vec<_> = (1..40).map(|n| (keyspace::revision(n, 0), Bytes::from(format!("\n{n}")))).collect();
    let sled = || engine.rows().0;
    for (key, value) in &rows {
        let mut batch = Batch::default();
        batch.put(key.clone(), value.clone());
        engine.write(&batch).expect("written");
        assert_eq!(sled().get(key).expect("read").as_deref(), Some(&value[..]));
    }
    let mut batch = Batch::default();
    batch.delete(keyspace::revision(3, 0));
    engine.write(&batch).expect("written");
    let expected: Vec<_> = rows.into_iter().filter(|(key, _)| *key != keyspace::revision(3, 0)).collect();
    let revisions = || engine.range(REVISIONS.start, REVISIONS.end, 100).expect("read");
    assert_eq!((revisions(), sled().len()), (expected.clone(), 38 + 1));
    while !engine.rewrite().expect("copied") {}
    engine.verify().expect("whole");
    assert_eq!((revisions(), sled().len()), (expected, 3 + 1));
}

/// What sled does with a damaged part of its file: rows go missing in silence.
#[test]
fn a_row_that_went_missing_or_came_back_is_found() {
    let dir = tempfile::tempdir().expect("temp dir");
    let engine = DiskEngine::open(dir.path()).expect("opened");
    engine.verify().expect("nothing is whole");
    let revisions = |from: i64| (from..from + 100).map(|n| (keyspace::revision(n, 0), format!("{n}").into()));
    put_all(&engine, revisions(0));
    put_all(&engine, revisions(100).chain((0..10).map(row)));
    let mut batch = Batch::default();
    batch.delete(keyspace::revision(50, 0));
    batch.delete(keyspace::revision(5000, 0));
    batch.put(row(3).0, "another value".into());
    engine.write(&batch).expect("written");
    engine.verify().expect("whole");
    drop(engine);
    let engine = DiskEngine::open(dir.path()).expect("opened");
    engine.verify().expect("whole");
    let key = keyspace::revision(60, 0);
    let (key, value) = engine.rows().bundle_of(&key).expect("read").expect("is there");
    engine.rows().0.remove(&key).expect("removed");
    let error = engine.verify().expect_err("rows are missing");
    assert!(error.to_string().contains("of 209 rows written, 194 are found"), "{error}");
    engine.rows().0.insert(&key, value).expect("inserted");
    engine.verify().expect("whole again");
    engine.rows().0.insert(keyspace::revision(50, 0), "50").expect("inserted");
    engine.verify().expect_err("a deleted row is back");
    engine.replace(&mut revisions(0).map(Ok)).expect("replaced");
    engine.verify().expect("whole again");
}

#[test]
fn no_snapshot_is_built_of_rows_that_are_not_all_there() {
    let dir = tempfile::tempdir().expect("temp dir");
    let snapshots = tempfile::tempdir().expect("temp dir");
    let engine = DiskEngine::open(dir.path()).expect("opened");
    let meta = Meta { revision: 99, ..Meta::default() };
    let meta = (Bytes::from_static(keyspace::META), codec::encode(&meta));
    put_all(&engine, (1..100).map(|n| (keyspace::revision(n, 0), "value".into())).chain([meta]));
    SnapshotFile::build(&engine, snapshots.path()).expect("built").verify().expect("whole");
    let (bound, _) = engine.rows().bundle_of(&keyspace::revision(50, 0)).expect("read").expect("is there");
    engine.rows().0.remove(bound).expect("removed");
    let refused = SnapshotFile::build(&engine, snapshots.path());
    assert!(matches!(refused, Err(StorageError::Corrupt { .. })), "{refused:?}");
    assert!(SnapshotFile::newest(snapshots.path()).expect("listed").is_some(), "the older one stays");
}

#[test]
fn a_replacement_that_fails_leaves_the_old_rows() {
    let dir = tempfile::tempdir().expect("temp dir");
    let engine = DiskEngine::open(dir.path()).expect("opened");
    put_all(&engine, (0..10).map(row));
    let broken = [Ok(row(50)), Err(StorageError::Closed)];
    engine.replace(&mut broken.into_iter()).expect_err("broken");
    assert_eq!(engine.range(b"", b"\xff", 100).expect("read").len(), 10);
}

fn all(engine: &DiskEngine) -> Vec<(Bytes, Bytes)> {
    engine.range(keyspace::ALL.start, keyspace::ALL.end, usize::MAX).expect("read")
}

/// What is written between two parts of the copy lies before, at or behind the place it has come to.
#[test]
fn a_rewrite_keeps_every_row_also_those_that_change_meanwhile() {
    let dir = tempfile::tempdir().expect("temp dir");
    let engine = DiskEngine::open(dir.path()).expect("opened");
    let last = 3 * COPY_ROWS as u32;
    put_all(&engine, (0..last).map(row));
    let mut parts = 0;
    while !engine.rewrite().expect("copied") {
        parts += 1;
        let mut batch = Batch::default();
        for nth in [0, 7, 1500, last - 1] {
            batch.put(row(nth).0, format!("changed {parts}").into());
        }
        batch.delete(row(parts).0);
        batch.delete(row(last - 10 - parts).0);
        batch.put(row(last + parts).0, "new".into());
        engine.write(&batch).expect("written");
    }
    assert_eq!(parts, 3);
    let rows = all(&engine);
    let value = |nth: u32| rows.iter().find(|(key, _)| *key == row(nth).0).map(|(_, value)| value.clone());
    assert_eq!(rows.len() as u32, last - 3);
    for nth in [0, 7, 1500, last - 1] {
        assert_eq!(value(nth), Some(format!("changed {parts}").into()), "{nth}");
    }
    assert_eq!((value(1), value(last - 11), value(last + 3)), (None, None, Some("new".into())));
    engine.verify().expect("whole");
    put_all(&engine, (0..3).map(row));
    engine.flush().expect("flushed");
    let expected = all(&engine);
    drop(engine);
    let engine = DiskEngine::open(dir.path()).expect("opened");
    engine.verify().expect("whole");
    assert_eq!(all(&engine), expected);
}

#[test]
fn a_rewrite_gives_back_what_deleted_rows_took() {
    let dir = tempfile::tempdir().expect("temp dir");
    let engine = DiskEngine::open(dir.path()).expect("opened");
    let large = |nth: u32| (row(nth).0, Bytes::from(vec![nth as u8; 500_000]));
    (0..40).for_each(|nth| put_all(&engine, std::iter::once(large(nth))));
    let mut batch = Batch::default();
    (0..30).for_each(|nth| batch.delete(row(nth).0));
    engine.write(&batch).expect("written");
    engine.flush().expect("flushed");
    let before = engine.size_on_disk().expect("told");
    while !engine.rewrite().expect("copied") {}
    let after = engine.size_on_disk().expect("told");
    // Of large values sled keeps some copies, also of those that were never deleted.
    assert!(before > 20_000_000 && (5_000_000..before / 2).contains(&after), "{before} {after}");
    assert_eq!(fs::read_dir(dir.path()).expect("listed").count(), 3, "CURRENT, OPENING, one generation");
}

#[test]
fn an_image_that_kills_its_openers_is_refused_after_some() {
    let dir = tempfile::tempdir().expect("temp dir");
    for _ in 0..OPENINGS_MAX {
        drop(DiskEngine::open(dir.path()).expect("one more try"));
    }
    assert!(matches!(DiskEngine::open(dir.path()), Err(StorageError::Corrupt { .. })));
    fs::remove_file(dir.path().join(OPENING)).expect("removed");
    for _ in 0..2 * OPENINGS_MAX {
        DiskEngine::open(dir.path()).expect("opened").verify().expect("whole");
    }
    let error = StorageError::Closed;
    DiskEngine::distrust(dir.path(), &error).expect("written");
    assert!(matches!(DiskEngine::open(dir.path()), Err(StorageError::Corrupt { .. })));
}
