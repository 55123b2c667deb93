//! openraft's own suite on our log and state machine, and members started,
//! stopped and robbed of their files.

use std::{
    fs, io,
    path::PathBuf,
    sync::atomic::AtomicBool,
    time::{Duration, Instant},
};

use bytes::Bytes;
use etcfs_proto::etcdserverpb::{
    CompactionRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, request_op,
};
use openraft::{
    StorageError as RaftStorageError,
    testing::log::{StoreBuilder, Suite},
};
use tempfile::TempDir;
use tokio::sync::oneshot;

use super::{log::LogStore, outcomes::Outcomes, snapshots::Snapshots, state_machine::StateMachine, *};
use crate::{
    apply::Machine,
    mvcc::StoreOptions,
    storage::{
        Batch, DiskEngine, Durability, ImageHooks, ImageOptions, MemoryEngine, StorageError, WalOptions,
        Written, engine::Take, keyspace,
    },
    threads::Post,
    watch::HubOptions,
};

struct Stores;

/// Ends the threads before their files go.
struct Files {
    image: Image,
    wal: Wal,
    _dir: TempDir,
}

impl Drop for Files {
    fn drop(&mut self) {
        self.image.close();
        self.wal.close();
    }
}

impl StoreBuilder<TypeConfig, LogStore, StateMachine, Files> for Stores {
    async fn build(&self) -> Result<(Files, LogStore, StateMachine), RaftStorageError<TypeConfig>> {
        let dir = tempfile::tempdir().expect("temp dir");
        for sub in ["wal", "image", "snap"] {
            fs::create_dir(dir.path().join(sub)).expect("made");
        }
        let options = WalOptions { segment_bytes: 1 << 20, ..WalOptions::default() };
        let wal = Wal::open(&dir.path().join("wal"), options).expect("opened");
        let engine = DiskEngine::open(&dir.path().join("image")).expect("opened");
        let state_machine = state_machine(Arc::new(engine), dir.path().join("snap"));
        let image = state_machine.image.clone();
        Ok((
            Files { image, wal: wal.clone(), _dir: dir },
            LogStore::new(wal, None, Post::start().expect("started")),
            state_machine,
        ))
    }
}

fn state_machine(engine: Arc<dyn Engine>, snapshots: PathBuf) -> StateMachine {
    let (machine, state) = Machine::open(engine.clone(), StoreOptions::default()).expect("opened");
    let image =
        Image::start(engine.clone(), Written::default(), ImageOptions::default(), ImageHooks::default());
    let image = image.expect("started");
    StateMachine {
        machine,
        engine,
        image: image.clone(),
        wal: None,
        hub: Hub::new(state.store, HubOptions::default()),
        outcomes: Outcomes::new(),
        snapshots: Snapshots::new(snapshots, image),
        slow: Arc::default(),
        slow_from: Duration::MAX,
        scrub: Arc::default(),
        on_apply: Box::new(|_, _, _| ()),
        start_anew: CancellationToken::new(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn our_log_and_state_machine_pass_the_suite_of_openraft() {
    Suite::test_all(Stores).await.expect("passes");
}

fn options(data_dir: &std::path::Path) -> RaftOptions {
    RaftOptions {
        host: Host::default(),
        data_dir: data_dir.to_owned(),
        bootstrap: Bootstrap {
            name: "test".into(),
            members: vec![InitialMember {
                name: "test".into(),
                peer_urls: vec!["http://localhost:2380".into()],
            }],
            token: "etcd-cluster".into(),
            existing: false,
        },
        dialer: Dialer::new(Duration::from_secs(1), None),
        force_new_cluster: false,
        version: "3.6.0",
        rules: MemberRules { strict: true, max_learners: 1 },
        heartbeat_interval: Duration::from_millis(100),
        election_timeout: Duration::from_secs(1),
        snapshot_count: 100_000,
        store: StoreOptions::default(),
        hub: HubOptions::default(),
        on_fsync: Box::new(|_| ()),
        on_round_trip: Box::new(|_, _| ()),
        on_apply: Box::new(|_, _, _| ()),
        slow_apply: Duration::from_millis(100),
        on_image_commit: Box::new(|_| ()),
    }
}

async fn running(data_dir: &std::path::Path) -> Node {
    start(options(data_dir)).await.expect("started")
}

/// Puts all of `keys` in one entry.
async fn put(node: &Node, keys: &[String]) {
    let request = |key: &String| {
        let put = PutRequest {
            key: key.clone().into(),
            value: format!("value of {key}").into(),
            ..Default::default()
        };
        command::Request { body: Some(command::request::Body::Put(put)) }
    };
    let (told, answer) = oneshot::channel();
    let requests = keys.iter().map(request).collect();
    node.submit(requests, Duration::from_secs(5), (), move |result| drop(told.send(result)));
    let result = answer.await.expect("answered");
    let (outcomes, _) = result.unwrap_or_else(|error| panic!("accepted: {error}"));
    assert_eq!(outcomes.len(), keys.len());
    outcomes.into_iter().for_each(|outcome| drop(outcome.expect("applied")));
}

fn key(nth: u32) -> String {
    format!("key {nth:06}")
}

fn count(node: &Node) -> i64 {
    let all =
        RangeRequest { key: "\0".into(), range_end: "\0".into(), count_only: true, ..Default::default() };
    node.state().store.range(&all).expect("read").count
}

fn assert_holds(node: &Node, keys: u32) {
    assert_eq!(count(node), i64::from(keys));
    for nth in (0..keys).step_by(7) {
        let one = RangeRequest { key: key(nth).into(), ..Default::default() };
        let found = node.state().store.range(&one).expect("read");
        assert_eq!(found.kvs[0].value, format!("value of {}", key(nth)));
    }
    assert_eq!(node.state().store.revision(), i64::from(keys) + 1);
}

/// What a kill at this moment would leave.
fn copy_of(data_dir: &std::path::Path) -> TempDir {
    fn copy(from: &std::path::Path, to: &std::path::Path) {
        fs::create_dir_all(to).expect("made");
        for entry in fs::read_dir(from).expect("listed") {
            let entry = entry.expect("listed");
            let to = to.join(entry.file_name());
            match entry.file_type().expect("known").is_dir() {
                true => copy(&entry.path(), &to),
                // The log makes its next segment beside all this.
                false if entry.file_name() == "spare.tmp" => {}
                false => drop(fs::copy(entry.path(), to).expect("copied")),
            }
        }
    }
    let dir = tempfile::tempdir().expect("temp dir");
    copy(data_dir, dir.path());
    dir
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_directory_becomes_a_cluster_of_one_and_goes_on_after_a_stop() {
    let dir = tempfile::tempdir().expect("temp dir");
    let node = running(dir.path()).await;
    assert_eq!((node.member_id(), node.cluster_id()), (0x8e9e_05c5_2164_694d, 0xcdf8_1819_4e3a_8c32));
    put(&node, &[key(0), key(1)]).await;
    node.read_barrier(Duration::from_secs(5)).await.expect("leads");
    assert!(node.leads_alone());
    let before = node.status();
    assert_eq!(before.leader, Some(node.member_id()));
    node.shutdown().await;
    drop(node);
    let node = running(dir.path()).await;
    assert_holds(&node, 2);
    assert!(node.status().term > before.term);
    put(&node, &[key(2)]).await;
    assert_holds(&node, 3);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_a_kill_however_far_the_image_is() {
    let dir = tempfile::tempdir().expect("temp dir");
    let node = running(dir.path()).await;
    for nth in 0..60 {
        put(&node, &[key(nth)]).await;
        if nth == 30 {
            node.image().checkpoint().await.expect("made");
        }
        if nth % 20 == 10 {
            let copy = copy_of(dir.path());
            let killed = running(copy.path()).await;
            assert_holds(&killed, nth + 1);
            killed.shutdown().await;
        }
    }
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_or_broken_image_is_rebuilt_from_the_log() {
    let dir = tempfile::tempdir().expect("temp dir");
    let node = running(dir.path()).await;
    put(&node, &(0..500).map(key).collect::<Vec<_>>()).await;
    node.shutdown().await;
    drop(node);
    let image = dir.path().join("member/image");
    fs::remove_dir_all(&image).expect("removed");
    let node = running(dir.path()).await;
    assert_holds(&node, 500);
    node.shutdown().await;
    drop(node);
    let generation = fs::read_to_string(image.join("CURRENT")).expect("named");
    let db = image.join(generation.trim()).join("db");
    let mut bytes = fs::read(&db).expect("read");
    bytes.iter_mut().skip(100).step_by(50).for_each(|byte| *byte ^= 0x55);
    fs::write(&db, bytes).expect("written");
    let node = running(dir.path()).await;
    assert_holds(&node, 500);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_purged_behind_snapshot_and_image_which_then_can_rebuild_each_other() {
    let dir = tempfile::tempdir().expect("temp dir");
    let node = start(RaftOptions { snapshot_count: 20, ..options(dir.path()) }).await.expect("started");
    let mut keys = 0;
    let purged = || node.inner.wal.purged().map(|id| id.index);
    let deadline = Instant::now() + Duration::from_secs(60);
    while purged().is_none_or(|purged| purged < 60) {
        assert!(Instant::now() < deadline, "never purged");
        put(&node, &[key(keys)]).await;
        keys += 1;
        time::sleep(Duration::from_millis(5)).await;
    }
    let upto = purged().expect("just seen");
    let snapshot = node.inner.snapshots.current().expect("listed").expect("one");
    assert!(snapshot.snapshot.index() >= upto + 20, "entries are kept behind a snapshot");
    assert!(node.image().durable_index() >= upto + 20);
    node.shutdown().await;
    drop(node);

    let without_image = copy_of(dir.path());
    fs::remove_dir_all(without_image.path().join("member/image")).expect("removed");
    let node = running(without_image.path()).await;
    assert_holds(&node, keys);
    put(&node, &[key(keys)]).await;
    assert_holds(&node, keys + 1);
    node.shutdown().await;

    let without_snapshot = copy_of(dir.path());
    fs::remove_dir_all(without_snapshot.path().join("member/snap")).expect("removed");
    let node = running(without_snapshot.path()).await;
    assert_holds(&node, keys);
    node.shutdown().await;

    let without_both = copy_of(dir.path());
    fs::remove_dir_all(without_both.path().join("member/snap")).expect("removed");
    fs::remove_dir_all(without_both.path().join("member/image")).expect("removed");
    let refused = start(options(without_both.path())).await;
    assert!(matches!(refused, Err(StartError::Lost { purged }) if purged == upto), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_dropped_unanswered_once_the_member_stops() {
    let dir = tempfile::tempdir().expect("temp dir");
    let node = running(dir.path()).await;
    node.shutdown().await;
    let (told, answer) = oneshot::channel();
    node.submit(Vec::new(), Duration::from_secs(5), (), move |result| drop(told.send(result)));
    // Nobody leads a member that has ended; and a batch that got through to it is dropped.
    let taken = answer.await;
    assert!(matches!(taken, Err(_) | Ok(Err(SubmitError::NotAppended(_)))), "{taken:?}");
}

/// Rows whose reads meet a full disk, once that is said, and of which nobody walks on while that is said.
#[derive(Debug, Default)]
struct FullEngine {
    rows: MemoryEngine,
    is_full: AtomicBool,
    is_held: AtomicBool,
}

impl FullEngine {
    fn check(&self) -> Result<(), StorageError> {
        if !self.is_full.load(Ordering::SeqCst) {
            return Ok(());
        }
        Err(StorageError::Engine { doing: "read a row", source: io::ErrorKind::StorageFull.into() })
    }
}

impl Engine for FullEngine {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        self.check()?;
        self.rows.get(key)
    }

    fn walk(&self, start: &[u8], end: &[u8], take: Take<'_>) -> Result<(), StorageError> {
        while self.is_held.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        self.check()?;
        self.rows.walk(start, end, take)
    }

    fn write(&self, batch: &Batch) -> Result<(), StorageError> {
        self.rows.write(batch)
    }

    fn flush(&self) -> Result<(), StorageError> {
        self.rows.flush()
    }

    fn size_on_disk(&self) -> Result<u64, StorageError> {
        self.rows.size_on_disk()
    }

    fn replace(
        &self,
        rows: &mut dyn Iterator<Item = Result<(Bytes, Bytes), StorageError>>,
    ) -> Result<(), StorageError> {
        self.rows.replace(rows)
    }

    fn rewrite(&self) -> Result<bool, StorageError> {
        self.rows.rewrite()
    }
}

/// It ended the process, disk full or not.
#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_needs_rows_which_a_full_disk_hides_has_the_member_start_anew() {
    let dir = tempfile::tempdir().expect("temp dir");
    let engine = Arc::new(FullEngine::default());
    let mut options = options(dir.path());
    options.store.value_cache_bytes = 0;
    let opened = engine.clone();
    options.host.open_engine = Arc::new(move |_| Ok(opened.clone()));
    options.host.die = Arc::new(|| panic!("it lives on"));
    let node = start(options).await.expect("started");
    put(&node, &[key(1)]).await;
    node.image().checkpoint().await.expect("written");
    engine.is_full.store(true, Ordering::SeqCst);
    let read = RangeRequest { key: key(1).into(), ..Default::default() };
    let read = RequestOp { request: Some(request_op::Request::RequestRange(read)) };
    let txn = TxnRequest { success: vec![read], ..Default::default() };
    let requests = vec![command::Request { body: Some(command::request::Body::Txn(txn)) }];
    let (told, answer) = oneshot::channel();
    node.submit(requests, Duration::from_secs(5), (), move |result| drop(told.send(result)));
    time::timeout(Duration::from_secs(10), node.start_anew().cancelled()).await.expect("it says so");
    node.shutdown().await;
    assert!(answer.await.is_err(), "it was not applied");
}

/// Each that goes meanwhile would be held in memory, and there may be millions.
#[tokio::test(flavor = "multi_thread")]
async fn compacted_rows_stay_while_a_snapshot_is_built() {
    let dir = tempfile::tempdir().expect("temp dir");
    let engine = Arc::new(FullEngine::default());
    let mut member = state_machine(engine.clone(), dir.path().to_owned());
    let put = PutRequest { key: "k".into(), ..Default::default() };
    let put = command::request::Body::Put(put);
    let compaction = CompactionRequest { revision: 3, physical: false };
    let bodies = [put.clone(), put, command::request::Body::Compaction(compaction)];
    let requests = bodies.map(|body| command::Request { body: Some(body) }).to_vec();
    let id = record::LogId { term: 1, node: 1, index: 1 };
    let applied = member.machine.apply(&id, &command::Batch { requests, ..Default::default() });
    let applied = applied.expect("applied");
    member.image.submit(applied.batch);
    member.machine.publish(applied.revision);

    engine.is_held.store(true, Ordering::SeqCst);
    let image = member.image.clone();
    let snapshot = tokio::spawn({
        let (image, dir) = (image.clone(), dir.path().to_owned());
        async move { image.build_snapshot(dir, Durability::OnDisk).await }
    });
    let deadline = Instant::now() + Duration::from_secs(10);
    while !image.is_building() {
        assert!(Instant::now() < deadline, "it begins");
        tokio::task::yield_now().await;
    }
    assert!(member.scrub(), "rows wait to be deleted");
    assert_eq!(image.lag_bytes(), 0);

    engine.is_held.store(false, Ordering::SeqCst);
    snapshot.await.expect("no panic").expect("built");
    let first = || engine.rows.get(&keyspace::revision(2, 0)).expect("in memory");
    assert!(first().is_some());
    while member.scrub() {}
    image.checkpoint().await.expect("written");
    assert_eq!(first(), None);
    image.close();
}
