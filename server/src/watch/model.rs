//! Watchers against a model: each gets exactly its revisions, whole, in order,
//! once, whatever the interleaving of changes, handing out, catching up,
//! compactions and slow readers.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use etcfs_proto::{
    etcdserverpb::{WatchCreateRequest, WatchResponse, watch_create_request::FilterType},
    key::KeyRange,
    mvccpb::{Event, KeyValue, event::EventType},
};
use futures_util::Stream;
use proptest::prelude::*;

use super::{Hub, HubOptions, WatchControl, WatchStream};
use crate::{
    mvcc::{RevisionEvents, Scrubbed, Store, StoreOptions, Writer},
    storage::{Batch, Engine, MemoryEngine},
};

#[derive(Clone, Debug)]
enum Step {
    /// One revision; `None` deletes.
    Change(Vec<(u8, Option<usize>)>),
    HandOut,
    CatchUp,
    /// So far below the newest revision.
    Compact(i64),
    Scrub,
    /// The image gets everything, so that rows may leave memory.
    Write,
    Create {
        stream: usize,
        keys: (u8, End),
        back: Option<i64>,
        wish: (bool, bool, bool),
        chosen: i64,
    },
    Cancel {
        stream: usize,
        watch_id: i64,
    },
    Progress {
        stream: usize,
    },
    Tick,
    /// The reader takes so many responses.
    Read {
        stream: usize,
        responses: usize,
    },
    /// Events are lost on the way to the hub, as when it falls far behind or a snapshot comes.
    Lose,
}

#[derive(Clone, Copy, Debug)]
enum End {
    One,
    Key(u8),
    Open,
}

const STREAMS: usize = 2;

fn step() -> impl Strategy<Value = Step> {
    let stream = || 0..STREAMS;
    let end = prop_oneof![2 => Just(End::One), 2 => (b'a'..b'h').prop_map(End::Key), 1 => Just(End::Open)];
    let change = (b'a'..b'g', prop::option::weighted(0.7, 0usize..400));
    prop_oneof![
        12 => prop::collection::vec(change, 1..4).prop_map(Step::Change),
        6 => Just(Step::HandOut),
        5 => Just(Step::CatchUp),
        1 => (0i64..6).prop_map(Step::Compact),
        2 => Just(Step::Scrub),
        2 => Just(Step::Write),
        5 => (stream(), (b'a'..b'g', end), prop::option::of(-4i64..12), any::<(bool, bool, bool)>(),
              prop::sample::select(vec![0, 0, 0, 7]))
            .prop_map(|(stream, keys, back, wish, chosen)| Step::Create { stream, keys, back, wish, chosen }),
        1 => (stream(), 0i64..6).prop_map(|(stream, watch_id)| Step::Cancel { stream, watch_id }),
        2 => stream().prop_map(|stream| Step::Progress { stream }),
        1 => Just(Step::Tick),
        6 => (stream(), 1usize..5).prop_map(|(stream, responses)| Step::Read { stream, responses }),
        1 => Just(Step::Lose),
    ]
}

/// What a client knows of one of its watchers.
struct Client {
    range: KeyRange,
    wish: (bool, bool, bool),
    /// First revision that it has not been told of.
    next: i64,
}

struct World {
    engine: Arc<MemoryEngine>,
    store: Arc<Store>,
    writer: Writer,
    pending: Batch,
    hub: Hub,
    streams: Vec<(WatchControl, WatchStream)>,
    clients: Vec<BTreeMap<i64, Client>>,
    /// Creations in the order in which they were asked for and will be answered.
    creating: Vec<Vec<(Client, i64)>>,
    /// Events by revision, with the pair before each.
    history: BTreeMap<i64, Vec<Event>>,
    keys: BTreeMap<u8, KeyValue>,
}

impl World {
    fn new(stream_bytes_max: usize, value_cache_bytes: u64, direct_watchers_max: usize) -> Self {
        let engine = Arc::new(MemoryEngine::new());
        let shared: Arc<dyn Engine> = engine.clone();
        let meta = etcfs_proto::etcfs::record::Meta {
            revision: 1,
            compact_revision: -1,
            scrubbed_revision: -1,
            ..Default::default()
        };
        let options = StoreOptions { value_cache_bytes };
        let (store, writer, _) = Store::open(shared, &meta, &options).unwrap();
        let options = HubOptions {
            stream_bytes_max,
            fragment_bytes: 600,
            direct_watchers_max,
            pass_rows_max: 3,
            ..HubOptions::default()
        };
        let hub = Hub::without_loops(store.clone(), options);
        let streams = (0..STREAMS).map(|_| hub.open()).collect();
        Self {
            engine,
            store,
            writer,
            pending: Batch::default(),
            hub,
            streams,
            clients: (0..STREAMS).map(|_| BTreeMap::new()).collect(),
            creating: (0..STREAMS).map(|_| Vec::new()).collect(),
            history: BTreeMap::new(),
            keys: BTreeMap::new(),
        }
    }

    fn change(&mut self, changes: Vec<(u8, Option<usize>)>) {
        let mut expected = Vec::new();
        let mut txn = self.writer.begin(&mut self.pending);
        let mut done = BTreeSet::new();
        for (key, value) in changes {
            let before = self.keys.get(&key).cloned();
            if !done.insert(key) || (value.is_none() && before.is_none()) {
                continue;
            }
            let name = Bytes::from(vec![key]);
            match value {
                Some(length) => txn.put(name.clone(), vec![key; length].into(), 0),
                None => txn.delete(name.clone()),
            }
            let revision = txn.revision();
            let mut kv = KeyValue { key: name, mod_revision: revision, ..KeyValue::default() };
            let kind = if let Some(length) = value {
                kv.value = vec![key; length].into();
                kv.create_revision = before.as_ref().map_or(revision, |kv| kv.create_revision);
                kv.version = before.as_ref().map_or(1, |kv| kv.version + 1);
                self.keys.insert(key, kv.clone());
                EventType::Put
            } else {
                self.keys.remove(&key);
                EventType::Delete
            };
            expected.push(Event { r#type: kind.into(), kv: Some(kv), prev_kv: before });
        }
        let Some(events) = txn.finish() else { return };
        self.history.insert(events.revision, expected);
        self.writer.publish(events.revision);
        self.publish(events);
    }

    fn publish(&self, events: RevisionEvents) {
        self.hub.publish(vec![events]);
    }

    fn create(
        &mut self,
        stream: usize,
        (key, end): (u8, End),
        back: Option<i64>,
        wish: (bool, bool, bool),
        chosen: i64,
    ) {
        let key = Bytes::from(vec![key]);
        let range_end = match end {
            End::One => Bytes::new(),
            End::Key(byte) => vec![byte].into(),
            End::Open => Bytes::from_static(b"\0"),
        };
        let start_revision = back.map_or(0, |back| (self.store.revision() - back).max(1));
        let (puts, deletes, prev_kv) = wish;
        let mut filters = Vec::new();
        if !puts {
            filters.push(FilterType::Noput.into());
        }
        if !deletes {
            filters.push(FilterType::Nodelete.into());
        }
        let range = KeyRange::from_request(&key, &range_end);
        let next = if start_revision == 0 { self.store.revision() + 1 } else { start_revision };
        self.creating[stream].push((Client { range, wish, next }, chosen));
        self.streams[stream].0.create(WatchCreateRequest {
            key,
            range_end,
            start_revision,
            prev_kv,
            filters,
            watch_id: chosen,
            fragment: stream == 1,
            progress_notify: true,
        });
    }

    /// Takes a response and checks it; false: there is none.
    fn read(&mut self, stream: usize) -> bool {
        let Some(mut response) = self.take(stream) else { return false };
        while response.fragment {
            assert_eq!(stream, 1, "who does not ask for fragments gets none");
            let more = self.take(stream).expect("the rest of a split response follows at once");
            assert_eq!(more.watch_id, response.watch_id);
            response.events.extend(more.events);
            response.fragment = more.fragment;
        }
        let revision = response.header.as_ref().unwrap().revision;
        let id = response.watch_id;
        if response.created {
            let (client, chosen) = self.creating[stream].remove(0);
            if response.canceled {
                assert_eq!((id, response.cancel_reason.is_empty()), (-1, false));
                let in_use = chosen != 0 && self.clients[stream].contains_key(&chosen);
                assert!(client.range.is_empty() || in_use);
            } else {
                assert!(chosen == 0 || chosen == id);
                assert!(self.clients[stream].insert(id, client).is_none(), "the id was free");
            }
        } else if response.canceled {
            let client = self.clients[stream].remove(&id).expect("only a known watcher is cancelled");
            if response.compact_revision != 0 {
                assert!(client.next < response.compact_revision, "nothing that it needs is compacted");
                assert_eq!(revision, 0);
            }
        } else if response.events.is_empty() {
            let ids: Vec<_> =
                if id == -1 { self.clients[stream].keys().copied().collect() } else { vec![id] };
            for id in ids {
                self.check(stream, id, Vec::new(), revision);
            }
        } else {
            self.check(stream, id, response.events, revision);
        }
        true
    }

    /// The events are all that the watcher wants from its next revision to `upto`, and none other.
    fn check(&mut self, stream: usize, id: i64, events: Vec<Event>, upto: i64) {
        let client = self.clients[stream].get_mut(&id).expect("events are for a watcher that was created");
        let (puts, deletes, prev_kv) = client.wish;
        let wanted = |event: &&Event| {
            client.range.contains(&event.kv.as_ref().unwrap().key)
                && if event.r#type() == EventType::Put { puts } else { deletes }
        };
        let due = self.history.iter().filter(|(revision, _)| (client.next..=upto).contains(revision));
        let expected: Vec<Event> = due.flat_map(|(_, events)| events).filter(wanted).cloned().collect();
        assert_eq!(events.len(), expected.len(), "watcher {id} from {} to {upto}: {events:?}", client.next);
        for (event, mut expected) in events.into_iter().zip(expected) {
            let before = expected.kv.as_ref().unwrap().mod_revision - 1;
            if !prev_kv || (event.prev_kv.is_none() && before < self.store.compact_revision()) {
                expected.prev_kv = None;
            }
            assert_eq!(event, expected);
        }
        client.next = client.next.max(upto + 1);
    }

    fn take(&mut self, stream: usize) -> Option<WatchResponse> {
        match pin!(&mut self.streams[stream].1).poll_next(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(response) => Some(response.expect("the stream does not end by itself")),
            Poll::Pending => None,
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Change(changes) => self.change(changes),
            Step::HandOut => drop(self.hub.shared().hand_out()),
            Step::CatchUp => drop(self.hub.shared().catch_up()),
            Step::Compact(back) => {
                if self.writer.compact(self.store.revision() - back).is_ok() {
                    self.writer.publish(self.store.revision());
                }
            }
            Step::Scrub => {
                if let Scrubbed::Chunk(mut batch) | Scrubbed::Last(mut batch, _) = self.writer.scrub() {
                    self.pending.append(&mut batch);
                }
            }
            Step::Write => {
                self.engine.write(&std::mem::take(&mut self.pending)).unwrap();
                self.store.written(self.store.revision());
            }
            Step::Create { stream, keys, back, wish, chosen } => {
                self.create(stream, keys, back, wish, chosen);
            }
            Step::Cancel { stream, watch_id } => self.streams[stream].0.cancel(watch_id),
            Step::Progress { stream } => self.streams[stream].0.progress(),
            Step::Tick => self.hub.tick_progress(),
            Step::Read { stream, responses } => {
                for _ in 0..responses {
                    if !self.read(stream) {
                        break;
                    }
                }
            }
            Step::Lose => self.hub.replaced(),
        }
    }

    /// Lets everything come to rest: then each watcher has everything.
    fn settle(&mut self) {
        let mut busy = true;
        while busy {
            busy = self.hub.shared().hand_out();
            busy |= self.hub.shared().catch_up();
            for stream in 0..STREAMS {
                while self.read(stream) {
                    busy = true;
                }
            }
        }
        let newest = self.store.revision();
        assert_eq!(self.hub.metrics().slow_watchers, 0);
        for stream in 0..STREAMS {
            assert!(self.creating[stream].is_empty(), "each creation was answered");
            // Nobody lags, so the answer comes and vouches for all.
            self.streams[stream].0.progress();
            assert_eq!(self.read(stream), !self.clients[stream].is_empty());
            for (id, client) in &self.clients[stream] {
                assert!(client.next > newest, "watcher {id} has been told of everything");
            }
        }
    }
}

proptest! {
    #[test]
    fn each_watcher_gets_exactly_its_revisions(
        steps in prop::collection::vec(step(), 0..120),
        stream_bytes_max in prop::sample::select(vec![200usize, 1500, 1 << 20]),
        value_cache_bytes in prop::sample::select(vec![0u64, 1500, 1 << 20]),
        direct_watchers_max in prop::sample::select(vec![0usize, 1, 16]),
    ) {
        let mut world = World::new(stream_bytes_max, value_cache_bytes, direct_watchers_max);
        for step in steps {
            world.step(step);
        }
        world.settle();
    }
}

#[test]
fn a_watch_from_the_compacted_revision_sees_the_deletion_made_there() {
    let mut world = World::new(1 << 20, 0, 0);
    world.change(vec![(b'a', Some(1))]);
    world.change(vec![(b'a', None)]);
    world.change(vec![(b'b', Some(1))]);
    // Revision 3 deletes.
    world.step(Step::Write);
    world.step(Step::Compact(1));
    for _ in 0..3 {
        world.step(Step::Scrub);
    }
    world.step(Step::Write);
    assert_eq!(world.store.compact_revision(), 3);
    world.create(0, (b'a', End::One), Some(1), (true, true, true), 0);
    world.settle();
}

#[test]
fn a_reader_that_never_reads_costs_no_more_than_its_share() {
    let mut world = World::new(4000, 1500, 16);
    world.create(0, (b'a', End::Open), None, (true, true, false), 0);
    world.create(1, (b'a', End::One), None, (true, true, false), 0);
    for round in 0..200 {
        world.change(vec![(b'a', Some(100 + round))]);
        world.step(Step::HandOut);
        world.step(Step::CatchUp);
        while world.read(1) {}
    }
    let metrics = world.hub.metrics();
    assert_eq!(metrics.slow_watchers, 1);
    assert!(metrics.pending_events < 40, "{metrics:?}");
    world.settle();
}
