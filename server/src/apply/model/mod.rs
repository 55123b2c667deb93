//! The machine against a naive model of etcd's rules, through random commands,
//! compactions, partial writes of the image and restarts.

mod reference;

use std::sync::Arc;

use bytes::Bytes;
use etcfs_proto::{
    etcdserverpb::{
        CompactionRequest, Compare, DeleteRangeRequest, LeaseCheckpoint, LeaseGrantRequest,
        LeaseRevokeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
        compare::{CompareResult, CompareTarget, TargetUnion},
        request_op::Request,
    },
    etcfs::{
        command::{self, LeaseCheckpoints, LeaseExpire, request::Body},
        record::LogId,
    },
};
use proptest::prelude::*;

use self::reference::{Outcome, Reference};
use super::{Machine, State};
use crate::{
    mvcc::{HistoryLimits, RangedTxn, ReadError, StoreOptions},
    storage::{Batch, Engine, MemoryEngine},
};

/// What happens to the machine, beside commands.
#[derive(Clone, Debug)]
enum Step {
    Apply(Vec<Body>),
    /// Compacts so far below the newest revision.
    Compact(i64),
    Scrub,
    /// The image gets so many of the batches that wait for it.
    Write(usize),
    /// The process ends and comes back; what the image lacks is replayed.
    Restart,
    /// Reads so far below the newest revision.
    Read(RangeRequest, i64),
    ReadTxn(TxnRequest),
}

fn key() -> impl Strategy<Value = Bytes> {
    prop::sample::select(vec!["a", "a/", "a/b", "b", "c", "ca", "cb", "d", "\u{7f}"]).prop_map(Bytes::from)
}

fn range_end() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        3 => Just(Bytes::new()),
        2 => prop::sample::select(vec!["\0", "b", "c", "d", "zz", "a"]).prop_map(Bytes::from),
    ]
}

fn value() -> impl Strategy<Value = Bytes> {
    (0u8..4, 0usize..60).prop_map(|(byte, length)| vec![byte; length].into())
}

fn lease() -> impl Strategy<Value = i64> {
    prop_oneof![3 => Just(0), 2 => 1i64..4]
}

fn put() -> impl Strategy<Value = PutRequest> {
    let flags = (prop::bool::ANY, prop::bool::weighted(0.15), prop::bool::weighted(0.15));
    (key(), value(), lease(), flags).prop_map(|(key, value, lease, (prev_kv, ignore_value, ignore_lease))| {
        PutRequest {
            key,
            value: if ignore_value { Bytes::new() } else { value },
            lease: if ignore_lease { 0 } else { lease },
            prev_kv,
            ignore_value,
            ignore_lease,
        }
    })
}

fn delete() -> impl Strategy<Value = DeleteRangeRequest> {
    (key(), range_end(), prop::bool::ANY).prop_map(|(key, range_end, prev_kv)| DeleteRangeRequest {
        key,
        range_end,
        prev_kv,
    })
}

fn range() -> impl Strategy<Value = RangeRequest> {
    let bound = || prop_oneof![4 => Just(0i64), 1 => 1i64..30];
    let options = (0i64..4, 0i32..3, 0i32..5, prop::bool::weighted(0.2), prop::bool::weighted(0.1));
    (key(), range_end(), options, (bound(), bound(), bound(), bound())).prop_map(
        |(key, range_end, (limit, sort_order, sort_target, keys_only, count_only), bounds)| RangeRequest {
            key,
            range_end,
            limit,
            sort_order,
            sort_target,
            keys_only,
            count_only,
            min_mod_revision: bounds.0,
            max_mod_revision: bounds.1,
            min_create_revision: bounds.2,
            max_create_revision: bounds.3,
            ..RangeRequest::default()
        },
    )
}

fn compare() -> impl Strategy<Value = Compare> {
    let union = prop_oneof![
        (0i64..4).prop_map(TargetUnion::Version),
        (0i64..40).prop_map(TargetUnion::CreateRevision),
        (0i64..40).prop_map(TargetUnion::ModRevision),
        value().prop_map(TargetUnion::Value),
        (0i64..4).prop_map(TargetUnion::Lease),
    ];
    (key(), range_end(), 0i32..4, union, prop::bool::weighted(0.05)).prop_map(
        |(key, range_end, result, union, other)| {
            let target = match union {
                _ if other => CompareTarget::Create,
                TargetUnion::Version(_) => CompareTarget::Version,
                TargetUnion::CreateRevision(_) => CompareTarget::Create,
                TargetUnion::ModRevision(_) => CompareTarget::Mod,
                TargetUnion::Value(_) => CompareTarget::Value,
                TargetUnion::Lease(_) => CompareTarget::Lease,
            };
            let result = CompareResult::try_from(result).unwrap().into();
            Compare { key, range_end, result, target: target.into(), target_union: Some(union) }
        },
    )
}

fn op(depth: u32) -> BoxedStrategy<RequestOp> {
    let request = prop_oneof![
        4 => put().prop_map(Request::RequestPut),
        2 => delete().prop_map(Request::RequestDeleteRange),
        2 => (range(), -2i64..20).prop_map(|(mut range, revision)| {
            // Mostly the newest; now and then an old one, a compacted or a future one.
            range.revision = if revision < 10 { 0 } else { revision };
            Request::RequestRange(range)
        }),
    ];
    let request = if depth == 0 {
        request.boxed()
    } else {
        prop_oneof![6 => request, 1 => txn(depth - 1).prop_map(Request::RequestTxn)].boxed()
    };
    request.prop_map(|request| RequestOp { request: Some(request) }).boxed()
}

fn txn(depth: u32) -> BoxedStrategy<TxnRequest> {
    let ops = || prop::collection::vec(op(depth), 0..5);
    (prop::collection::vec(compare(), 0..3), ops(), ops())
        .prop_map(|(compare, mut success, mut failure)| {
            reference::drop_duplicates(&mut success);
            reference::drop_duplicates(&mut failure);
            TxnRequest { compare, success, failure }
        })
        .boxed()
}

fn body() -> impl Strategy<Value = Body> {
    prop_oneof![
        8 => put().prop_map(Body::Put),
        3 => delete().prop_map(Body::DeleteRange),
        5 => txn(2).prop_map(Body::Txn),
        1 => (1i64..4).prop_map(|id| Body::LeaseGrant(LeaseGrantRequest { id, ttl: 10 })),
        1 => (1i64..4).prop_map(|id| Body::LeaseRevoke(LeaseRevokeRequest { id })),
        1 => (prop::collection::vec(1i64..4, 1..3), 1u64..3)
            .prop_map(|(ids, term)| Body::LeaseExpire(LeaseExpire { ids, term })),
        1 => (prop::collection::vec((1i64..4, 0i64..10), 1..3), 1u64..3).prop_map(|(left, term)| {
            let note = |(id, remaining_ttl)| LeaseCheckpoint { id, remaining_ttl };
            Body::LeaseCheckpoint(LeaseCheckpoints { checkpoints: left.into_iter().map(note).collect(), term })
        }),
    ]
}

pub(super) fn bodies() -> impl Strategy<Value = Vec<Body>> {
    prop::collection::vec(body(), 1..4)
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => bodies().prop_map(Step::Apply),
        2 => (-1i64..12).prop_map(Step::Compact),
        3 => Just(Step::Scrub),
        3 => (0usize..6).prop_map(Step::Write),
        1 => Just(Step::Restart),
        8 => (range(), -1i64..15).prop_map(|(range, back)| Step::Read(range, back)),
        2 => txn(1).prop_map(Step::ReadTxn),
    ]
}

/// Term in which every entry is proposed.
const TERM: u64 = 1;

struct Member {
    engine: Arc<MemoryEngine>,
    machine: Machine,
    state: State,
    log: Vec<command::Batch>,
    outcomes: Vec<Vec<super::Outcome>>,
    /// Batches that wait for the image.
    waiting: Vec<Batch>,
    cache_bytes: u64,
}

impl Member {
    fn new(cache_bytes: u64) -> Self {
        let engine = Arc::new(MemoryEngine::new());
        let (machine, state) = open(&engine, cache_bytes);
        Self { engine, machine, state, log: vec![], outcomes: vec![], waiting: vec![], cache_bytes }
    }

    /// Applies a new entry; gives its outcomes and events.
    fn apply(&mut self, bodies: Vec<Body>) -> super::Applied {
        let requests = bodies.into_iter().map(|body| command::Request { body: Some(body) }).collect();
        self.log.push(command::Batch { requests, origin: None, unix_ms: 0 });
        let applied = self.replay(self.log.len() - 1);
        self.outcomes.push(applied.outcomes.clone());
        applied
    }

    fn replay(&mut self, place: usize) -> super::Applied {
        let id = LogId { term: TERM, node: 1, index: place as u64 + 1 };
        let mut applied = self.machine.apply(&id, &self.log[place]).unwrap();
        assert_eq!(applied.batch.applied_index, id.index);
        self.waiting.push(std::mem::take(&mut applied.batch));
        self.machine.publish(applied.revision);
        applied
    }

    fn write(&mut self, batches: usize) {
        let mut sum = Batch::default();
        for mut batch in self.waiting.drain(..batches.min(self.waiting.len())) {
            sum.append(&mut batch);
        }
        self.engine.write(&sum).unwrap();
        self.state.store.written(sum.revision);
    }

    fn scrub(&mut self) {
        if let Some(batch) = self.machine.scrub() {
            self.waiting.push(batch);
        }
    }

    fn restart(&mut self) {
        self.waiting.clear();
        (self.machine, self.state) = open(&self.engine, self.cache_bytes);
        let applied = self.machine.meta().applied.map_or(0, |id| id.index);
        for place in applied as usize..self.log.len() {
            let again = self.replay(place);
            assert_eq!(again.outcomes, self.outcomes[place], "a replayed entry has the outcome it had");
        }
    }
}

fn open(engine: &Arc<MemoryEngine>, value_cache_bytes: u64) -> (Machine, State) {
    let engine: Arc<dyn Engine> = engine.clone();
    Machine::open(engine, StoreOptions { value_cache_bytes }).unwrap()
}

fn read_outcome<T>(result: Result<T, ReadError>) -> Outcome<T> {
    result.map_err(|error| error.to_string())
}

/// Everything that can be seen of the store is as the model has it.
fn check_all(member: &Member, reference: &Reference) {
    let store = &member.state.store;
    let (compacted, current) = (reference.compacted, reference.current());
    assert_eq!((store.revision(), store.compact_revision()), (current, compacted));
    for revision in (compacted - 2).max(1)..=current + 1 {
        let all =
            RangeRequest { key: "\0".into(), range_end: "\0".into(), revision, ..RangeRequest::default() };
        for keys_only in [false, true] {
            let request = RangeRequest { keys_only, ..all.clone() };
            reference.check_range(&request, read_outcome(store.range(&request)));
        }
    }
    for from in compacted.max(2)..=current + 1 {
        // Whatever the stretches in which it is read.
        for limits in [HistoryLimits { rows: 1, bytes: 1 << 20 }, HistoryLimits { rows: 50, bytes: 100 }] {
            let (mut events, mut next) = (Vec::new(), from);
            while next <= current {
                let history = store.events_since(next, limits, |_| true).unwrap();
                assert!(history.next > next, "no way on from {next}");
                next = history.next;
                events.extend(history.events);
            }
            assert_eq!(next, current + 1);
            reference.check_events(from, &events, store);
        }
    }
    for id in 0..5 {
        assert_eq!(member.state.leases.keys(id), reference.attached(id), "keys of lease {id}");
        let noted = member.state.leases.lookup(id).map(|facts| facts.remaining_ttl);
        assert_eq!(noted.as_ref(), reference.leases.get(&id), "what is left of lease {id}");
    }
    assert_eq!(store.keys() as usize, reference.now().len());
}

fn run(steps: Vec<Step>, cache_bytes: u64) {
    let mut member = Member::new(cache_bytes);
    let mut reference = Reference::default();
    for step in steps {
        match step {
            Step::Apply(bodies) => {
                let before = reference.current();
                let expected: Vec<_> = bodies.iter().map(|body| reference.apply(body, TERM)).collect();
                let applied = member.apply(bodies);
                assert_eq!(applied.revision, reference.current());
                assert_eq!(applied.outcomes.len(), expected.len());
                for (outcome, expected) in applied.outcomes.iter().zip(expected) {
                    reference::check_outcome(outcome, expected);
                }
                // Before the next compaction, so that what was replaced is there.
                reference.check_events(before + 1, &applied.events, &member.state.store);
            }
            Step::Compact(back) => {
                let revision = reference.current() - back;
                let body = Body::Compaction(CompactionRequest { revision, physical: false });
                let expected = reference.apply(&body, TERM);
                let applied = member.apply(vec![body]);
                reference::check_outcome(&applied.outcomes[0], expected);
            }
            Step::Scrub => member.scrub(),
            Step::Write(batches) => member.write(batches),
            Step::Restart => member.restart(),
            Step::Read(mut range, back) => {
                range.revision = if back == 0 { 0 } else { reference.current() - back };
                reference.check_range(&range, read_outcome(member.state.store.range(&range)));
            }
            Step::ReadTxn(mut txn) => {
                reference::keep_ranges(&mut txn);
                let expected = reference.apply(&Body::Txn(txn.clone()), TERM);
                let read = read_outcome(member.state.store.ranged_txn(&txn));
                match (read, expected) {
                    (Ok(RangedTxn::Whole(response)), Ok(super::Response::Txn(expected))) => {
                        assert_eq!(response.succeeded, expected.succeeded);
                        assert_eq!(response.header, expected.header);
                        assert_eq!(response.responses.len(), expected.responses.len());
                    }
                    (read, expected) => assert_eq!(read.is_err(), expected.is_err()),
                }
            }
        }
    }
    check_all(&member, &reference);
    let hash = member.state.store.hash_kv(0).unwrap();
    // What was deleted on disk, written or evicted has no part in the checksum.
    while member.machine.scrub_pending() {
        member.scrub();
    }
    member.write(usize::MAX);
    check_all(&member, &reference);
    assert_eq!(member.state.store.hash_kv(0).unwrap(), hash);
    member.restart();
    check_all(&member, &reference);
    assert_eq!(member.state.store.hash_kv(0).unwrap(), hash);
    let size = member.state.store.size_in_use();
    let mut fresh = Member::new(1 << 20);
    fresh.log = member.log.clone();
    fresh.outcomes = member.outcomes.clone();
    fresh.restart();
    assert_eq!(fresh.state.store.hash_kv(0).unwrap(), hash);
    while fresh.machine.scrub_pending() {
        fresh.scrub();
    }
    assert_eq!(fresh.state.store.size_in_use(), size);
    check_all(&fresh, &reference);
    // A snapshot's engine takes the place of the state, behind the same handles.
    let other = Member::new(1 << 20);
    let (mut machine, state) = (other.machine, other.state);
    machine.install(member.engine.clone()).unwrap();
    let installed = Member { machine, state, ..other };
    check_all(&installed, &reference);
}

proptest! {
    #[test]
    fn the_machine_does_what_the_model_says(
        steps in prop::collection::vec(step(), 0..60),
        cache_bytes in prop::sample::select(vec![0u64, 1000, 4000, 1 << 20]),
    ) {
        run(steps, cache_bytes);
    }
}
