//! Batches, full disks, and what goes on between the writes.

use std::sync::atomic::AtomicUsize;

use bytes::Bytes;
use etcfs_proto::etcfs::record::{LogId, Meta};
use futures_util::FutureExt as _;

use super::*;
use crate::storage::{
    MemoryEngine, codec,
    engine::{RowIter, Take},
    keyspace,
};
use crate::threads::Work;

/// Counts writes, and fails as told.
#[derive(Debug, Default)]
struct Probe {
    rows: MemoryEngine,
    writes: AtomicUsize,
    largest: AtomicUsize,
    flushes: AtomicUsize,
    failures: Mutex<VecDeque<i32>>,
}

impl Engine for Probe {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        self.rows.get(key)
    }
    fn walk(&self, start: &[u8], end: &[u8], take: Take<'_>) -> Result<(), StorageError> {
        self.rows.walk(start, end, take)
    }
    fn write(&self, batch: &Batch) -> Result<(), StorageError> {
        if let Some(errno) = self.failures.lock().pop_front() {
            let source = std::io::Error::from_raw_os_error(errno);
            return Err(StorageError::Engine { doing: "write a batch", source });
        }
        self.writes.fetch_add(1, Ordering::SeqCst);
        self.largest.fetch_max(batch.len(), Ordering::SeqCst);
        self.rows.write(batch)
    }
    fn flush(&self) -> Result<(), StorageError> {
        self.flushes.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
    fn size_on_disk(&self) -> Result<u64, StorageError> {
        self.rows.size_on_disk()
    }
    fn rewrite(&self) -> Result<bool, StorageError> {
        self.rows.rewrite()
    }
    fn replace(&self, rows: RowIter<'_>) -> Result<(), StorageError> {
        self.rows.replace(rows)
    }
}

fn batch(index: u64) -> Batch {
    let mut batch = Batch::default();
    (batch.applied_index, batch.revision) = (index, index as i64 + 1);
    let applied = Some(LogId { term: 1, node: 0, index });
    batch.put(keyspace::revision(index as i64 + 1, 0), "value".into());
    let meta = Meta { applied, revision: batch.revision, ..Meta::default() };
    batch.put(Bytes::from_static(keyspace::META), codec::encode(&meta));
    batch
}

fn start(engine: &Arc<Probe>, hooks: ImageHooks) -> Image {
    let options = ImageOptions { batch_age: Duration::from_secs(3600), ..ImageOptions::default() };
    Image::start(engine.clone(), Written::default(), options, hooks).expect("started")
}

#[tokio::test]
async fn many_entries_become_one_write_and_a_checkpoint_makes_them_durable() {
    let engine = Arc::new(Probe::default());
    let told = Arc::new(Mutex::new(Vec::new()));
    let on_written = Box::new({
        let told = told.clone();
        move |written| told.lock().push(written)
    });
    let image = start(&engine, ImageHooks { on_written, ..ImageHooks::default() });
    (1..=50).for_each(|index| image.submit(batch(index)));
    assert!(image.lag_bytes() > 0);
    assert_eq!(image.checkpoint().await.expect("made"), 50);
    assert_eq!((engine.writes.load(Ordering::SeqCst), engine.flushes.load(Ordering::SeqCst)), (1, 1));
    assert_eq!((image.durable_index(), image.lag_bytes()), (50, 0));
    assert_eq!(*told.lock(), [Written { applied_index: 50, revision: 51 }]);
    image.submit(batch(51));
    image.close();
    assert_eq!((engine.writes.load(Ordering::SeqCst), image.durable_index()), (2, 51));
    assert!(matches!(image.checkpoint().await, Err(StorageError::Closed)));
}

/// A backlog of any size used to be one write, and sled held a page for each of its rows.
#[tokio::test]
async fn a_backlog_is_written_in_batches_of_bounded_size() {
    let engine = Arc::new(Probe::default());
    // Away for as long as the backlog builds up.
    engine.failures.lock().push_back(libc::ENOSPC);
    let (away, reported) = oneshot::channel();
    let away = Mutex::new(Some(away));
    let on_no_space = Box::new(move |_: &StorageError| {
        away.lock().take().expect("once").send(()).expect("awaited");
    });
    let options =
        ImageOptions { batch_rows: 10, batch_age: Duration::from_secs(3600), ..ImageOptions::default() };
    let hooks = ImageHooks { on_no_space, ..ImageHooks::default() };
    let image = Image::start(engine.clone(), Written::default(), options, hooks).expect("started");
    (1..=5).for_each(|index| image.submit(batch(index)));
    reported.await.expect("the disk is full");
    (6..=500).for_each(|index| image.submit(batch(index)));
    assert_eq!(image.checkpoint().await.expect("made"), 500);
    assert_eq!((engine.largest.load(Ordering::SeqCst), image.lag_bytes()), (10, 0));
    assert_eq!(engine.writes.load(Ordering::SeqCst), 100);
    image.close();
}

#[tokio::test]
async fn a_full_disk_delays_the_image_and_loses_nothing() {
    let engine = Arc::new(Probe::default());
    let reports = Arc::new(AtomicUsize::new(0));
    let on_no_space = Box::new({
        let reports = reports.clone();
        move |_: &StorageError| {
            reports.fetch_add(1, Ordering::SeqCst);
        }
    });
    engine.failures.lock().push_back(libc::ENOSPC);
    let options = ImageOptions { batch_age: Duration::ZERO, ..ImageOptions::default() };
    let hooks = ImageHooks { on_no_space, ..ImageHooks::default() };
    let image = Image::start(engine.clone(), Written::default(), options, hooks).expect("started");
    image.submit(batch(1));
    while reports.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    image.submit(batch(2));
    assert_eq!(image.checkpoint().await.expect("room again"), 2);
    assert!(engine.get(&keyspace::revision(2, 0)).expect("read").is_some());
    image.close();
}

#[tokio::test]
async fn an_engine_that_fails_is_reported_once_and_written_no_more() {
    let engine = Arc::new(Probe::default());
    engine.failures.lock().push_back(libc::EIO);
    let (report, reported) = oneshot::channel();
    let report = Mutex::new(Some(report));
    let on_failure = Box::new(move |error: &StorageError| {
        let report = report.lock().take().expect("once");
        report.send(error.to_string()).expect("awaited");
    });
    let options = ImageOptions { batch_age: Duration::ZERO, ..ImageOptions::default() };
    let hooks = ImageHooks { on_failure, ..ImageHooks::default() };
    let image = Image::start(engine.clone(), Written::default(), options, hooks).expect("started");
    image.submit(batch(1));
    assert!(reported.await.expect("reported").contains("write a batch"));
    assert!(matches!(image.checkpoint().await, Err(StorageError::Closed)));
    image.close();
    assert_eq!(engine.writes.load(Ordering::SeqCst), 0);
}

/// Has the test take the turns.
#[derive(Default)]
struct ByHand(Mutex<Option<Work>>);

impl fmt::Debug for ByHand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByHand").finish_non_exhaustive()
    }
}

impl Threads for Arc<ByHand> {
    fn start(&self, _: &str, _: Bell, work: Work) -> std::io::Result<Join> {
        *self.0.lock() = Some(work);
        Ok(Box::new(|| ()))
    }
    fn aside(&self, _: &str, _: Box<dyn FnOnce() + Send>) -> std::io::Result<()> {
        Err(std::io::ErrorKind::Unsupported.into())
    }
}

/// Who loaded millions of keys waited five seconds for it.
#[tokio::test]
async fn writes_go_on_while_snapshots_are_built() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (engine, hand) = (Arc::new(Probe::default()), Arc::new(ByHand::default()));
    let options = ImageOptions {
        batch_age: Duration::ZERO,
        threads: Arc::new(hand.clone()),
        ..ImageOptions::default()
    };
    let image = Image::start(engine.clone(), Written::default(), options, ImageHooks::default());
    let image = image.expect("started");
    let mut work = hand.0.lock().take().expect("started");
    let mut large = batch(1);
    (0..200).for_each(|id| large.put(keyspace::lease(id), vec![7; 100_000].into()));
    image.submit(large);
    let mut building = Vec::new();
    for name in ["first", "second"] {
        let path = dir.path().join(name);
        std::fs::create_dir(&path).expect("created");
        building.push(Box::pin(image.build_snapshot(path, Durability::OnDisk)));
    }
    let (mut index, mut built) = (1, Vec::new());
    while !building.is_empty() {
        building.retain_mut(|snapshot| {
            let snapshot = snapshot.now_or_never();
            let is_pending = snapshot.is_none();
            built.extend(snapshot.map(|snapshot| (snapshot.expect("built"), index)));
            is_pending
        });
        assert_eq!(work(), Turn::Again);
        index += 1;
        image.submit(batch(index));
    }
    assert_eq!(built[0].0.index(), 1);
    assert!(built[1].0.index() > 30, "{built:?}");
    for (snapshot, ended) in built {
        assert!(snapshot.index() + 30 < ended, "{ended}: {snapshot:?}");
        let rows = snapshot.rows().expect("opened").map(|row| row.expect("read").0);
        let revisions: Vec<_> = rows.filter(|key| keyspace::is_revision(key)).collect();
        let expected: Vec<_> =
            (0..snapshot.index() as i64).map(|nth| keyspace::revision(nth + 2, 0)).collect();
        assert_eq!(revisions, expected);
    }
}

#[tokio::test]
async fn a_snapshot_holds_all_that_was_submitted_and_replaces_another_image() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (from, into) = (Arc::new(Probe::default()), Arc::new(Probe::default()));
    let image = start(&from, ImageHooks::default());
    (1..=7).for_each(|index| image.submit(batch(index)));
    let snapshot = image.build_snapshot(dir.path().to_owned(), Durability::Passing).await.expect("built");
    assert_eq!((snapshot.index(), image.durable_index()), (7, 7));
    let other = start(&into, ImageHooks::default());
    other.submit(batch(900));
    other.replace(snapshot).await.expect("replaced");
    assert_eq!((other.durable_index(), other.lag_bytes()), (7, 0));
    assert_eq!(into.rows.rows(), from.rows.rows());
    image.close();
    other.close();
}
