//! A rolling restart: each member stops in order and comes back, and no client of
//! all of them is told of an error. The client sends nothing again but what
//! surely never left it, so what is in the store is what it was told.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use etcfs_client::{Client, Config};
use etcfs_proto::{
    etcdserverpb::{
        Compare, LeaseGrantRequest, TxnRequest,
        compare::{CompareTarget, TargetUnion},
    },
    mvccpb::Event,
};
use etcfs_tests::{
    api::{self, Op, event_revision, runtime, txn, watch_prefix},
    cluster::Cluster,
    process::show,
    server::Server,
};
use tokio_stream::StreamExt as _;

/// Times that each member is restarted.
const ROUNDS: usize = 2;
/// Clients that write, each with the members in another order.
const WRITERS: usize = 6;
/// Changes that a client makes before the next member goes.
const STEP: u64 = 30;
/// Seconds that a lease lives without a renewal: longer than an election, shorter than the test.
const TTL: i64 = 4;

/// What the clients have done so far.
#[derive(Debug, Default)]
struct Progress {
    stop: AtomicBool,
    made: [AtomicU64; WRITERS],
    /// The longest that anything took, in milliseconds.
    longest: AtomicU64,
}

impl Progress {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn took(&self, began: Instant) {
        self.longest.fetch_max(began.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// Waits until each writer has made some changes more.
    fn wait_for_more(&self) {
        let made = || self.made.each_ref().map(|made| made.load(Ordering::Relaxed));
        let before = made();
        etcfs_tests::wait::until_true("every client goes on", || {
            made().iter().zip(before).all(|(now, before)| *now >= before + STEP)
        });
    }
}

fn client(cluster: &Cluster, first: usize) -> Client {
    let mut endpoints: Vec<String> = cluster.members.iter().map(Server::endpoint).collect();
    let first = first % endpoints.len();
    endpoints.rotate_left(first);
    let _guard = runtime().enter();
    Client::connect(Config { endpoints, ..Config::default() }).unwrap()
}

/// Changes a key of its own, by puts and guarded transactions in turn, and reads it back; returns how often.
async fn write(client: Client, number: usize, progress: Arc<Progress>) -> u64 {
    let key = format!("/rolling/{number}");
    let mut made = 0;
    while !progress.stopped() {
        let began = Instant::now();
        let put = api::put(&key, made.to_string());
        if made % 2 == 0 {
            client.kv().put(put).await.unwrap_or_else(|error| panic!("put {made} of {key}: {error:?}"));
        } else {
            let version = Compare {
                key: key.clone().into(),
                target: CompareTarget::Version.into(),
                target_union: Some(TargetUnion::Version(made as i64)),
                ..Default::default()
            };
            let request = TxnRequest { compare: vec![version], ..txn([Op::Put(put)]) };
            let answer = client.kv().txn(request).await;
            let answer = answer.unwrap_or_else(|error| panic!("transaction {made} of {key}: {error:?}"));
            assert!(answer.succeeded, "change {made} of {key} is not the next one");
        }
        made += 1;
        let read = client.kv().range(api::get(&key)).await;
        let read = read.unwrap_or_else(|error| panic!("a read of {key}: {error:?}"));
        assert_eq!(read.kvs[0].version as u64, made, "{key}");
        progress.took(began);
        progress.made[number].store(made, Ordering::Relaxed);
    }
    made
}

/// Keeps a lease alive with a key on it; returns once told to stop.
async fn keep(client: Client, progress: Arc<Progress>) {
    let granted = client.lease().grant(LeaseGrantRequest { ttl: TTL, id: 0 }).await.unwrap();
    client.kv().put(api::put_on_lease("/leased", "v", granted.id)).await.unwrap();
    let mut renewals = client.lease().keep_alive(granted.id);
    while !progress.stopped() {
        let renewal = renewals.next().await.expect("renewing goes on").unwrap();
        assert!(renewal.ttl > 0, "the lease is gone");
    }
    let left = client.kv().range(api::get("/leased")).await.unwrap();
    assert_eq!(left.kvs.len(), 1, "its key is there as long as it is renewed");
}

/// Watches until it has seen `changes` of them, or waits for ever.
async fn watch(client: Client, total: tokio::sync::oneshot::Receiver<u64>) -> Vec<Event> {
    let mut watcher = client.watch(watch_prefix("/rolling/", 1));
    let mut total = std::pin::pin!(total);
    let (mut events, mut goal) = (Vec::new(), u64::MAX);
    while (events.len() as u64) < goal {
        tokio::select! {
            batch = watcher.next() => events.extend(batch.expect("a watch does not end").unwrap().events),
            count = &mut total, if goal == u64::MAX => goal = count.unwrap(),
        }
    }
    events
}

#[test]
fn no_client_is_told_of_an_error_while_all_members_restart_in_turn() {
    let mut cluster = Cluster::etcfs(3);
    cluster.leader();
    let progress = Arc::new(Progress::default());
    let writers: Vec<_> = (0..WRITERS)
        .map(|number| runtime().spawn(write(client(&cluster, number), number, progress.clone())))
        .collect();
    let keepers: Vec<_> =
        (0..3).map(|number| runtime().spawn(keep(client(&cluster, number), progress.clone()))).collect();
    let (totals, watchers): (Vec<_>, Vec<_>) = (0..3)
        .map(|number| {
            let (total, known) = tokio::sync::oneshot::channel();
            (total, runtime().spawn(watch(client(&cluster, number), known)))
        })
        .unzip();
    for _ in 0..ROUNDS {
        for member in 0..3 {
            progress.wait_for_more();
            assert!(cluster.members[member].stop().success(), "it ends in order");
            progress.wait_for_more();
            cluster.members[member].run();
        }
    }
    progress.wait_for_more();
    progress.stop.store(true, Ordering::Relaxed);
    let made: u64 = writers.into_iter().map(|writer| runtime().block_on(writer).unwrap()).sum();
    keepers.into_iter().for_each(|keeper| runtime().block_on(keeper).unwrap());
    totals.into_iter().for_each(|total| total.send(made).unwrap());
    for watcher in watchers {
        let patience = async { tokio::time::timeout(Duration::from_secs(30), watcher).await };
        let events = runtime().block_on(patience).expect("every event comes").unwrap();
        assert_eq!(events.len() as u64, made, "each change is one event");
        assert!(events.is_sorted_by_key(event_revision), "in order");
    }
    let longest = progress.longest.load(Ordering::Relaxed);
    show(&format!("{made} changes; the longest that one and a read of it took is {longest} ms"));
    cluster.agree();
}
