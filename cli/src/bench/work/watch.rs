//! Fan-out: every put is seen by every watch, or by the one watch of its key;
//! timed from the put's begin to the event's arrival. One request of the round
//! is one event delivered.

use std::{
    ops::Range,
    rc::Rc,
    time::{Duration, Instant},
};

use bytes::{BufMut as _, Bytes, BytesMut};
use etcfs_client::{Client, WatchStream};
use etcfs_proto::{
    etcdserverpb::{PutRequest, WatchCreateRequest},
    key::prefix_end,
};
use tokio::{task::JoinSet, time::timeout};

use crate::{
    bench::{
        plan::{Op, Plan, scramble},
        tally::Tally,
    },
    error::CliError,
};

/// Writers of a fan-out; with more, events queue behind each other and hide the delay of one.
const WRITERS_MAX: usize = 8;
/// Watches on one stream; a stream orders its watches' events one after the other.
const WATCHES_A_STREAM: usize = 25;
/// A watch that gets nothing for so long has lost events.
const SILENCE_MAX: Duration = Duration::from_secs(10);

pub(super) async fn run(clients: &[Client], plan: &Plan, op: Op, tally: &Rc<Tally>) -> Result<(), CliError> {
    let puts = plan.requests(op);
    let keys = if op == Op::Watch { Keys::All(plan.keys) } else { Keys::One(plan.watchers.max(1)) };
    let epoch = Instant::now();
    let mut readers = JoinSet::new();
    let all = plan.watchers.max(1);
    let wanted = keys.events(all, puts);
    for (number, from) in (0..all).step_by(WATCHES_A_STREAM).enumerate() {
        let watches = from..all.min(from + WATCHES_A_STREAM as u64);
        let stream = open(&clients[number % clients.len()], plan, keys, watches).await?;
        readers.spawn_local(read(stream, wanted[number], epoch, Rc::clone(tally)));
    }
    tally.restart();
    let mut writers = JoinSet::new();
    let numbers = Rc::new(Tally::new(puts));
    for writer in 0..plan.clients.min(WRITERS_MAX) {
        let client = clients[writer % clients.len()].clone();
        writers.spawn_local(write(client, plan.clone(), keys, Rc::clone(&numbers), epoch));
    }
    while writers.join_next().await.is_some() {}
    if let (_, errors @ 1.., first) = numbers.take() {
        tally.failed(&format!("{errors} puts failed, the first with: {}", first.unwrap_or_default()));
    }
    while readers.join_next().await.is_some() {}
    Ok(())
}

/// What a watch sees of the keys that are put.
#[derive(Clone, Copy)]
enum Keys {
    /// All of so many.
    All(u64),
    /// One of so many.
    One(u64),
}

impl Keys {
    /// The key of a put.
    fn put(self, plan: &Plan, number: u64) -> Bytes {
        let (Self::All(keys) | Self::One(keys)) = self;
        key(plan, scramble(number) % keys)
    }

    /// What the watch of that number asks for.
    fn watch(self, plan: &Plan, number: u64) -> WatchCreateRequest {
        let (key, range_end) = match self {
            Self::All(_) => {
                let prefix = Bytes::from(format!("{}watch/", plan.prefix));
                let end = prefix_end(&prefix);
                (prefix, end)
            }
            Self::One(_) => (key(plan, number), Bytes::new()),
        };
        WatchCreateRequest { key, range_end, ..WatchCreateRequest::default() }
    }

    /// How many events each stream gets of so many puts.
    fn events(self, watches: u64, puts: u64) -> Vec<u64> {
        let mut seen: Vec<u64> = vec![0; usize::try_from(watches).unwrap_or(usize::MAX)];
        match self {
            Self::All(_) => seen.fill(puts),
            Self::One(keys) => {
                for number in 0..puts {
                    seen[usize::try_from(scramble(number) % keys).unwrap_or(0)] += 1;
                }
            }
        }
        seen.chunks(WATCHES_A_STREAM).map(|watches| watches.iter().sum()).collect()
    }
}

fn key(plan: &Plan, number: u64) -> Bytes {
    format!("{}watch/{number}", plan.prefix).into()
}

async fn open(
    client: &Client,
    plan: &Plan,
    keys: Keys,
    mut watches: Range<u64>,
) -> Result<WatchStream, CliError> {
    let mut stream = client.watch_stream().await?;
    for number in watches.clone() {
        stream.create(keys.watch(plan, number)).await?;
    }
    while !watches.is_empty() {
        match stream.next().await? {
            Some(answer) if answer.created && !answer.canceled => watches.start += 1,
            Some(_) => {}
            None => return Err(CliError::failed("the server closed the watch stream")),
        }
    }
    Ok(stream)
}

async fn read(mut stream: WatchStream, mut wanted: u64, epoch: Instant, tally: Rc<Tally>) {
    while wanted > 0 {
        let answer = match timeout(SILENCE_MAX, stream.next()).await {
            Ok(Ok(Some(answer))) if !answer.canceled => answer,
            Ok(Ok(_)) => return tally.failed(&"the server ended a watch"),
            Ok(Err(error)) => return tally.failed(&error),
            Err(_) => return tally.failed(&format!("{wanted} events did not arrive")),
        };
        let now = epoch.elapsed();
        for event in answer.events {
            let sent =
                event.kv.as_ref().and_then(|kv| kv.value.first_chunk().copied()).map(u64::from_le_bytes);
            let sent = Duration::from_nanos(sent.unwrap_or_default());
            tally.took(now.saturating_sub(sent));
            wanted = wanted.saturating_sub(1);
        }
    }
}

async fn write(client: Client, plan: Plan, keys: Keys, numbers: Rc<Tally>, epoch: Instant) {
    while let Some((number, begin)) = numbers.next(&plan).await {
        let mut value = BytesMut::from(plan.value(number).as_ref());
        let sent = u64::try_from(epoch.elapsed().as_nanos()).unwrap_or(u64::MAX);
        (&mut value[..8]).put_u64_le(sent);
        let key = keys.put(&plan, number);
        let request = PutRequest { key, value: value.freeze(), ..PutRequest::default() };
        numbers.record(begin, client.kv().put(request).await);
    }
}
