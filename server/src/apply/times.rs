//! When revisions were made, as the machine keeps it, against a list of all entries.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use etcfs_proto::{
    etcdserverpb::{CompactionRequest, DeleteRangeRequest, PutRequest},
    etcfs::{
        command::{self, request::Body},
        record::{self, LogId},
    },
};
use proptest::prelude::*;

use super::{Machine, State};
use crate::{
    mvcc::{Made, StoreOptions},
    storage::{
        Batch, Engine, MemoryEngine, codec,
        keyspace::{META, TIMES},
    },
};

/// When the first entry is made.
const BEGIN_MS: u64 = 1_700_000_000_000;
/// So much a time may be early.
const ROW_MS: u64 = 100;
const NANOS_PER_MS: u64 = 1_000_000;

#[derive(Clone, Debug)]
enum Step {
    /// Keys put or deleted, each in a revision of its own, so long after the entry before; by a leader without a time
    /// for `None`.
    Apply(Vec<(u8, bool)>, Option<i64>),
    /// Compacts so far below the newest revision.
    Compact(i64),
    Scrub,
    /// The image gets so many of the batches that wait for it.
    Write(usize),
    Restart,
    /// A member that knows of no times applies what comes next.
    Old(Vec<(u8, bool)>),
}

fn changes() -> impl Strategy<Value = Vec<(u8, bool)>> {
    prop::collection::vec((0u8..12, prop::bool::weighted(0.8)), 0..4)
}

fn step() -> impl Strategy<Value = Step> {
    let passed = prop_oneof![4 => 0i64..60, 3 => 60i64..5000, 1 => -3000i64..0];
    prop_oneof![
        12 => (changes(), prop::option::weighted(0.9, passed)).prop_map(|(keys, passed)| Step::Apply(keys, passed)),
        2 => (0i64..12).prop_map(Step::Compact),
        4 => Just(Step::Scrub),
        3 => (0usize..6).prop_map(Step::Write),
        1 => Just(Step::Restart),
        1 => changes().prop_map(Step::Old),
    ]
}

struct Member {
    engine: Arc<MemoryEngine>,
    machine: Machine,
    state: State,
    log: Vec<command::Batch>,
    waiting: Vec<Batch>,
}

impl Member {
    fn new() -> Self {
        let engine = Arc::new(MemoryEngine::new());
        let (machine, state) = open(&engine);
        Self { engine, machine, state, log: Vec::new(), waiting: Vec::new() }
    }

    fn apply(&mut self, bodies: Vec<Body>, unix_ms: u64) {
        let requests = bodies.into_iter().map(|body| command::Request { body: Some(body) }).collect();
        self.log.push(command::Batch { requests, origin: None, unix_ms });
        self.replay(self.log.len() - 1);
    }

    fn replay(&mut self, place: usize) {
        let id = LogId { term: 1, node: 0, index: place as u64 + 1 };
        let applied = self.machine.apply(&id, &self.log[place]).unwrap();
        self.waiting.push(applied.batch);
        self.machine.publish(applied.revision);
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
        self.waiting.extend(self.machine.scrub());
    }

    fn restart(&mut self) {
        self.waiting.clear();
        (self.machine, self.state) = open(&self.engine);
        let applied = self.machine.meta().applied.map_or(0, |id| id.index);
        (applied as usize..self.log.len()).for_each(|place| self.replay(place));
    }

    fn settle(&mut self) {
        while self.machine.scrub_pending() {
            self.scrub();
        }
        self.write(usize::MAX);
    }

    /// Stops, has an older program apply an entry, and starts anew.
    fn be_old_for(&mut self, bodies: Vec<Body>) {
        self.write(usize::MAX);
        self.restart();
        self.apply(bodies, 0);
        let mut seen = Batch::default();
        for (key, value) in self.waiting.drain(..).flat_map(|batch| batch.ops().to_vec()).collect::<Vec<_>>()
        {
            match value {
                Some(value) if key == META => {
                    let meta: record::Meta = codec::decode(META, value).unwrap();
                    let meta = record::Meta { times_revision: 0, times_unix_ms: 0, ..meta };
                    seen.put(key, codec::encode(&meta));
                }
                _ if TIMES.start <= &*key && &*key < TIMES.end => {}
                Some(value) => seen.put(key, value),
                None => seen.delete(key),
            }
        }
        self.engine.write(&seen).unwrap();
        self.restart();
    }

    fn rows(&self) -> Vec<(Bytes, Bytes)> {
        self.engine.range(TIMES.start, TIMES.end, usize::MAX).unwrap()
    }
}

fn open(engine: &Arc<MemoryEngine>) -> (Machine, State) {
    let engine: Arc<dyn Engine> = engine.clone();
    Machine::open(engine, StoreOptions::default()).unwrap()
}

fn key(number: u8) -> Bytes {
    vec![b'a' + number].into()
}

/// What is known without the machine.
#[derive(Default)]
struct Expected {
    /// The time of each revision's entry; 0 for one in a hole.
    made: BTreeMap<i64, u64>,
    /// As their leader had it.
    stamps: BTreeMap<i64, u64>,
    newest_ms: u64,
    /// Of the newest revision.
    known: bool,
    /// Revision and time of the newest row.
    row: (i64, u64),
    /// Keys that exist -> newest revision.
    live: BTreeMap<u8, i64>,
    /// What was told of each revision.
    told: BTreeMap<i64, i64>,
    /// From where on a time must be known where there is one: an older member's turn may have cost some before it.
    sure: i64,
}

impl Expected {
    /// The requests, and what becomes of them.
    fn bodies(&mut self, changes: &[(u8, bool)], unix_ms: u64) -> Vec<Body> {
        let time = self.time(unix_ms);
        let before = self.made.len();
        let mut bodies = Vec::new();
        for &(number, is_put) in changes {
            let next = self.newest() + 1;
            if is_put {
                self.live.insert(number, next);
                self.made.insert(next, time);
                self.stamps.insert(next, unix_ms);
                bodies.push(Body::Put(PutRequest { key: key(number), ..PutRequest::default() }));
            } else {
                if self.live.remove(&number).is_some() {
                    self.made.insert(next, time);
                    self.stamps.insert(next, unix_ms);
                }
                let delete = DeleteRangeRequest { key: key(number), ..DeleteRangeRequest::default() };
                bodies.push(Body::DeleteRange(delete));
            }
        }
        if self.made.len() > before {
            self.newest_ms = self.newest_ms.max(time);
            self.known = time > 0;
            if time >= self.row.1 + ROW_MS {
                self.row = (self.newest() - (self.made.len() - before) as i64 + 1, time);
            }
        }
        bodies
    }

    /// Of the next entry's revisions, if it makes any.
    fn time(&self, unix_ms: u64) -> u64 {
        match unix_ms {
            0 => 0,
            // A hole goes on until times go on rising behind it.
            _ if !self.known && unix_ms < self.row.1 + ROW_MS => 0,
            _ => unix_ms.max(self.newest_ms),
        }
    }

    fn newest(&self) -> i64 {
        self.made.last_key_value().map_or(1, |(&revision, _)| revision)
    }

    fn check(&mut self, member: &Member) {
        let revisions: Vec<i64> = self.made.keys().copied().collect();
        let made = member.state.store.times(revisions.iter().copied());
        let told: Vec<i64> =
            made.iter().map(|made| made.at().max(made.before())).filter(|&time| time > 0).collect();
        assert!(told.windows(2).all(|pair| pair[0] < pair[1]), "times rise with revisions");
        for (&revision, time) in revisions.iter().zip(made) {
            let time = time.at();
            let made = self.made[&revision];
            let is_kept = self.live.values().any(|&kept| kept == revision)
                || revision > member.state.store.compact_revision();
            if time == 0 {
                assert!(
                    made == 0 || !is_kept || revision < self.sure,
                    "revision {revision} has lost its time"
                );
                continue;
            }
            let earliest = made.saturating_sub(ROW_MS) * NANOS_PER_MS;
            let exact = made * NANOS_PER_MS;
            let nanos = time as u64;
            // An older member's turn may end a hole early: it drops the newest time from the meta row.
            if made == 0 && self.sure > 0 {
                let stamp = self.stamps[&revision];
                assert!(
                    stamp > 0 && stamp.saturating_sub(ROW_MS) * NANOS_PER_MS < nanos,
                    "{revision}: {time}"
                );
                continue;
            }
            assert!(
                earliest < nanos && nanos <= exact + revision as u64,
                "{revision}: {time}, and it was {made} ms"
            );
            assert_eq!(*self.told.entry(revision).or_insert(time), time, "a time that was told has changed");
        }
        let newest = self.newest();
        assert_eq!(member.state.store.times([0, newest + 1, i64::MAX, i64::MIN]), [Made::Unknown; 4]);
    }
}

proptest! {
    #[test]
    fn each_kept_revision_has_its_time_through_compactions_and_restarts(
        steps in prop::collection::vec(step(), 1..80)
    ) {
        let (mut member, mut expected) = (Member::new(), Expected::default());
        let mut now = BEGIN_MS;
        let mut has_been_old = false;
        for step in steps {
            match step {
                Step::Apply(changes, passed) => {
                    now = now.saturating_add_signed(passed.unwrap_or(0));
                    let unix_ms = if passed.is_some() { now } else { 0 };
                    member.apply(expected.bodies(&changes, unix_ms), unix_ms);
                }
                Step::Compact(back) => {
                    let revision = member.state.store.revision() - back;
                    let request = CompactionRequest { revision, physical: false };
                    member.apply(vec![Body::Compaction(request)], now);
                }
                Step::Scrub => member.scrub(),
                Step::Write(batches) => member.write(batches),
                Step::Restart => member.restart(),
                Step::Old(changes) => {
                    member.be_old_for(expected.bodies(&changes, 0));
                    // Only the newest row's own revision surely keeps its time.
                    expected.sure = expected.newest() + 1;
                    expected.known &= expected.row.0 == expected.newest();
                    has_been_old = true;
                }
            }
            expected.check(&member);
        }
        member.settle();
        expected.check(&member);
        let rows = member.rows();
        let kept = expected.live.len() as i64 + member.state.store.revision()
            - member.state.store.compact_revision().max(0) + 1;
        prop_assert!(rows.len() as i64 <= 2 * kept + 1, "{} rows for {kept} revisions", rows.len());
        member.restart();
        expected.check(&member);
        prop_assert!(has_been_old || rows == member.rows());
        // Whoever applies the same log has the same rows, whenever it scrubs.
        let mut other = Member::new();
        for entry in &member.log {
            other.log.push(entry.clone());
            other.replay(other.log.len() - 1);
        }
        other.settle();
        prop_assert!(has_been_old || rows == other.rows(), "{rows:?} {:?}", other.rows());
        // And who takes the image instead of the log.
        let mut newcomer = Member::new();
        let engine: Arc<dyn Engine> = member.engine.clone();
        newcomer.machine.install(engine).unwrap();
        expected.check(&newcomer);
    }
}

#[test]
fn a_leader_whose_clock_is_behind_takes_no_time_back() {
    let (mut member, mut expected) = (Member::new(), Expected::default());
    for unix_ms in [BEGIN_MS, BEGIN_MS - 60_000, BEGIN_MS - 59_000, BEGIN_MS + 99, BEGIN_MS + 100] {
        member.apply(expected.bodies(&[(1, true)], unix_ms), unix_ms);
    }
    let begin = (BEGIN_MS * NANOS_PER_MS) as i64;
    let times = member.state.store.times(2..7);
    assert_eq!(
        times.iter().map(|made| made.at()).collect::<Vec<_>>(),
        [begin, begin + 1, begin + 2, begin + 3, begin + 100_000_000]
    );
    assert_eq!(member.machine.meta().times_revision, 6);
    member.settle();
    assert_eq!(member.rows().len(), 2);
}

#[test]
fn what_a_member_without_times_brings_into_the_log_has_none_and_borrows_none() {
    let (mut member, mut expected) = (Member::new(), Expected::default());
    for unix_ms in [0, BEGIN_MS, 0, BEGIN_MS + 99, BEGIN_MS + 100] {
        member.apply(expected.bodies(&[(1, true)], unix_ms), unix_ms);
    }
    let begin = BEGIN_MS * NANOS_PER_MS;
    let later = begin + ROW_MS * NANOS_PER_MS;
    let expected_times = [
        Made::Before(begin - 1),
        Made::At(begin),
        Made::Before(later - 2),
        Made::Before(later - 1),
        Made::At(later),
    ];
    assert_eq!(member.state.store.times(2..7), expected_times);
    expected.check(&member);
}

#[test]
fn times_are_in_no_hash_of_keys() {
    let (mut with, mut without) = (Member::new(), Member::new());
    for number in 0..9 {
        let bodies = Expected::default().bodies(&[(number, true)], 0);
        with.apply(bodies.clone(), BEGIN_MS + u64::from(number) * 1000);
        without.apply(bodies, 0);
    }
    with.settle();
    without.settle();
    assert_eq!((with.rows().len(), without.rows().len()), (9, 0));
    assert_eq!(with.state.store.hash_kv(0).unwrap(), without.state.store.hash_kv(0).unwrap());
}
