//! Fan-out: every put is seen by every watch; timed from the put's begin to
//! the event's arrival. One request of the round is one event delivered.

use std::{
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
const WATCHES_A_STREAM: u64 = 25;
/// A watch that gets nothing for so long has lost events.
const SILENCE_MAX: Duration = Duration::from_secs(10);

pub(super) async fn run(clients: &[Client], plan: &Plan, tally: &Rc<Tally>) -> Result<(), CliError> {
    let puts = plan.requests(Op::Watch);
    let epoch = Instant::now();
    let mut readers = JoinSet::new();
    let mut left = plan.watchers.max(1);
    let mut number = 0;
    while left > 0 {
        let watches = left.min(WATCHES_A_STREAM);
        left -= watches;
        let stream = open(&clients[number % clients.len()], plan, watches).await?;
        readers.spawn_local(read(stream, watches * puts, epoch, Rc::clone(tally)));
        number += 1;
    }
    tally.restart();
    let mut writers = JoinSet::new();
    let numbers = Rc::new(Tally::new(puts));
    for writer in 0..plan.clients.min(WRITERS_MAX) {
        let client = clients[writer % clients.len()].clone();
        writers.spawn_local(write(client, plan.clone(), Rc::clone(&numbers), epoch));
    }
    while writers.join_next().await.is_some() {}
    if let (_, errors @ 1.., first) = numbers.take() {
        tally.failed(&format!("{errors} puts failed, the first with: {}", first.unwrap_or_default()));
    }
    while readers.join_next().await.is_some() {}
    Ok(())
}

async fn open(client: &Client, plan: &Plan, watches: u64) -> Result<WatchStream, CliError> {
    let mut stream = client.watch_stream().await?;
    let prefix = Bytes::from(format!("{}watch/", plan.prefix));
    let range_end = prefix_end(&prefix);
    for _ in 0..watches {
        let request = WatchCreateRequest {
            key: prefix.clone(),
            range_end: range_end.clone(),
            ..WatchCreateRequest::default()
        };
        stream.create(request).await?;
    }
    let mut created = 0;
    while created < watches {
        match stream.next().await? {
            Some(answer) if answer.created && !answer.canceled => created += 1,
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

async fn write(client: Client, plan: Plan, numbers: Rc<Tally>, epoch: Instant) {
    while let Some((number, begin)) = numbers.next(&plan).await {
        let mut value = BytesMut::from(plan.value(number).as_ref());
        let sent = u64::try_from(epoch.elapsed().as_nanos()).unwrap_or(u64::MAX);
        (&mut value[..8]).put_u64_le(sent);
        let key = format!("{}watch/{}", plan.prefix, scramble(number) % plan.keys);
        let request = PutRequest { key: key.into(), value: value.freeze(), ..PutRequest::default() };
        numbers.record(begin, client.kv().put(request).await);
    }
}
