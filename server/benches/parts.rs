//! What the pure parts of the server cost, each by itself: no disk, no wire, no clock.
//!
//!     cargo bench -p etcfs-server
//!
//! criterion compares with the run before. `cargo test` runs each once.

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use etcfs_proto::{
    etcdserverpb::{
        Compare, PutRequest, RangeRequest, RequestOp, TxnRequest, WatchCreateRequest,
        compare::{CompareResult, CompareTarget, TargetUnion},
        request_op,
    },
    etcfs::{
        command::{self, request::Body},
        record::LogId,
    },
    key::prefix_end,
    mvccpb::KeyValue,
};
use etcfs_server::{
    apply::{Applied, Machine, State},
    mvcc::StoreOptions,
    storage::{MemoryEngine, codec},
    watch::{Hub, HubOptions, WatchControl, WatchStream},
};
use futures_util::{FutureExt as _, StreamExt as _};
use prost::Message as _;

const KEYS: usize = 100_000;
/// Requests of one log entry, as a busy server has them.
const ENTRY: usize = 100;
const WATCHERS: usize = 10_000;

/// A member's state, and what would be its log.
struct Member {
    machine: Machine,
    state: State,
    index: u64,
    /// Keys are written in an order of no use to anybody.
    next: usize,
}

impl Member {
    fn new() -> Self {
        let opened = Machine::open(Arc::new(MemoryEngine::new()), StoreOptions::default());
        let (machine, state) = opened.expect("nothing is stored yet");
        Self { machine, state, index: 0, next: 0 }
    }

    fn with_keys() -> Self {
        let mut member = Self::new();
        for from in (0..KEYS).step_by(ENTRY) {
            member.apply(&entry((from..from + ENTRY).map(|number| Body::Put(put(number))).collect()));
        }
        member
    }

    fn apply(&mut self, batch: &command::Batch) -> Applied {
        self.index += 1;
        let id = LogId { term: 1, node: 0, index: self.index };
        let applied = self.machine.apply(&id, batch).expect("memory does not fail");
        self.machine.publish(applied.revision);
        applied
    }

    fn next(&mut self) -> usize {
        self.next = (self.next + 7919) % KEYS;
        self.next
    }

    fn entry(&mut self, body: impl Fn(usize) -> Body) -> command::Batch {
        entry((0..ENTRY).map(|_| body(self.next())).collect())
    }
}

fn entry(bodies: Vec<Body>) -> command::Batch {
    let requests = bodies.into_iter().map(|body| command::Request { body: Some(body) }).collect();
    command::Batch { requests, ..Default::default() }
}

fn key(number: usize) -> Bytes {
    format!("/registry/pods/default/{number:08}").into()
}

fn put(number: usize) -> PutRequest {
    PutRequest { key: key(number), value: vec![b'v'; 256].into(), ..Default::default() }
}

/// Unless it is younger than it can be: put it, read it.
fn txn(number: usize) -> TxnRequest {
    let compare = Compare {
        result: CompareResult::Greater.into(),
        target: CompareTarget::Version.into(),
        key: key(number),
        target_union: Some(TargetUnion::Version(-1)),
        ..Default::default()
    };
    let op = |request| RequestOp { request: Some(request) };
    let get = RangeRequest { key: key(number), ..Default::default() };
    TxnRequest {
        compare: vec![compare],
        success: vec![
            op(request_op::Request::RequestPut(put(number))),
            op(request_op::Request::RequestRange(get)),
        ],
        failure: Vec::new(),
    }
}

fn records(criterion: &mut Criterion) {
    let PutRequest { key, value, .. } = put(1);
    let pair = KeyValue { key, value, create_revision: 7, mod_revision: 1 << 40, version: 3, lease: 0 };
    let row = codec::encode(&pair);
    let mut group = criterion.benchmark_group("record");
    group.bench_function("encode", |bencher| bencher.iter(|| codec::encode(black_box(&pair))));
    group.bench_function("decode", |bencher| {
        bencher.iter(|| codec::decode::<KeyValue>(b"row", black_box(&row).clone()).expect("a pair"));
    });
    let batch = entry((0..ENTRY).map(|number| Body::Put(put(number))).collect());
    let command = codec::encode(&batch);
    group.throughput(Throughput::Elements(ENTRY as u64));
    group.bench_function("encode a command of 100", |bencher| {
        bencher.iter(|| black_box(&batch).encode_to_vec());
    });
    group.bench_function("decode a command of 100", |bencher| {
        bencher.iter(|| command::Batch::decode(black_box(&command).clone()).expect("a command"));
    });
    group.finish();
}

fn key_index(criterion: &mut Criterion) {
    let mut member = Member::with_keys();
    let store = Arc::clone(&member.state.store);
    let read = |request: RangeRequest| store.range(&request).expect("the newest revision is there");
    let all = RangeRequest {
        key: "/registry/".into(),
        range_end: prefix_end(&Bytes::from("/registry/")),
        ..Default::default()
    };
    let mut group = criterion.benchmark_group("key index");
    group.bench_function("one of 100,000 keys", |bencher| {
        bencher.iter(|| read(RangeRequest { key: key(member.next()), ..Default::default() }));
    });
    group.bench_function("an absent key", |bencher| {
        bencher.iter(|| read(RangeRequest { key: "/registry/pods/none".into(), ..Default::default() }));
    });
    group.bench_function("count of 100,000 keys", |bencher| {
        bencher.iter(|| read(RangeRequest { count_only: true, ..all.clone() }));
    });
    group.throughput(Throughput::Elements(10_000));
    group.bench_function("range of 10,000 keys", |bencher| {
        bencher.iter(|| read(RangeRequest { limit: 10_000, ..all.clone() }));
    });
    group.finish();
}

fn apply(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("apply");
    group.throughput(Throughput::Elements(ENTRY as u64));
    for (name, body) in [
        ("100 puts", (|number| Body::Put(put(number))) as fn(usize) -> Body),
        ("100 transactions", |number| Body::Txn(txn(number))),
    ] {
        let mut member = Member::with_keys();
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|rounds| {
                timed(rounds, &mut member, |member| member.entry(body), |member, batch| member.apply(&batch))
            });
        });
    }
    group.bench_function("100 new keys", |bencher| {
        let batch = entry((0..ENTRY).map(|number| Body::Put(put(number))).collect());
        bencher.iter_batched(Member::new, |mut member| member.apply(&batch), BatchSize::LargeInput);
    });
    group.finish();
}

/// The time of `work` alone, without that of what it is given.
fn timed<T, R>(
    rounds: u64,
    member: &mut Member,
    prepare: impl Fn(&mut Member) -> T,
    work: impl Fn(&mut Member, T) -> R,
) -> Duration {
    let mut spent = Duration::ZERO;
    for _ in 0..rounds {
        let given = prepare(member);
        let began = Instant::now();
        let result = black_box(work(member, given));
        spent += began.elapsed();
        drop(result);
        // Nobody reads the older rows again: they may leave memory.
        member.state.store.written(member.state.store.revision());
    }
    spent
}

/// A stream with a watcher for each request.
fn watched(hub: &Hub, requests: impl Iterator<Item = WatchCreateRequest>) -> (WatchControl, WatchStream) {
    let (control, mut stream) = hub.open();
    for request in requests {
        control.create(request);
        take(&mut stream);
    }
    (control, stream)
}

/// Takes what waits; so many responses were there.
fn take(stream: &mut WatchStream) -> usize {
    std::iter::from_fn(|| stream.next().now_or_never().flatten()).count()
}

fn watch(criterion: &mut Criterion) {
    let one = |number: usize| WatchCreateRequest { key: key(number), ..Default::default() };
    // Ranges that overlap: each key lies in ten of them.
    let range = |number: usize| {
        let range_end = key((number * 10 + 100).min(KEYS));
        WatchCreateRequest { key: key(number * 10), range_end, ..Default::default() }
    };
    // Handed out by who publishes, so that it is all in the time.
    let options = || HubOptions { direct_watchers_max: usize::MAX, ..HubOptions::default() };
    let mut group = criterion.benchmark_group("watch");
    group.throughput(Throughput::Elements(ENTRY as u64));
    let mut member = Member::with_keys();
    for (name, requests) in [
        ("100 puts beside 10,000 watchers of a key", (0..WATCHERS).map(one).collect::<Vec<_>>()),
        ("100 puts beside 10,000 watchers of a range", (0..WATCHERS).map(range).collect()),
    ] {
        let hub = Hub::new(Arc::clone(&member.state.store), options());
        let (_control, mut stream) = watched(&hub, requests.into_iter());
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|rounds| {
                let mut spent = Duration::ZERO;
                for _ in 0..rounds {
                    let batch = member.entry(|number| Body::Put(put(number)));
                    let events = member.apply(&batch).events;
                    let began = Instant::now();
                    hub.publish(events);
                    black_box(take(&mut stream));
                    spent += began.elapsed();
                    member.state.store.written(member.state.store.revision());
                }
                spent
            });
        });
    }
    group.finish();
}

criterion_group!(parts, records, key_index, apply, watch);
criterion_main!(parts);
