//! `etcfs history`

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use etcfs_client::{BatchKind, Client, ClientError};
use etcfs_proto::{
    etcdserverpb::{RangeRequest, WatchCreateRequest},
    mvccpb::{Event, event::EventType},
};
use futures_util::StreamExt as _;

use crate::{
    args::{self, Global},
    connect,
    error::CliError,
    output::Output,
};

/// How much of a value a line shows.
const SHOWN_BYTES: usize = 60;

/// Servers before etcd 3.5.8 say how far they are before they have sent what lies before it; by a second time, so
/// much later, they have.
const CATCH_UP: Duration = Duration::from_millis(300);

/// Lists a key's revisions, oldest first: what was put when, and when it was deleted.
///
/// History goes back to the last compaction, which is named if it cuts the key's.
#[derive(Args, Debug)]
#[command(after_help = "Example: etcfs history /project/jobs/job1")]
pub(crate) struct HistoryArgs {
    /// A key, or a path in a mount, with ./ before it
    key: OsString,
}

impl HistoryArgs {
    pub(super) fn keys_mut(&mut self) -> &mut [OsString] {
        std::slice::from_mut(&mut self.key)
    }
}

pub(crate) async fn run(global: &Global, args: HistoryArgs) -> Result<(), CliError> {
    let output = Output::new(global)?;
    let client = connect::client(global)?;
    let key = args::bytes(args.key);
    let mut from = 1;
    let events = loop {
        match events(&client, &key, from).await {
            Err(ClientError::Compacted { revision }) if revision > from => from = revision,
            events => break events?,
        }
    };
    if from > 1 && events.first().is_none_or(|event| !is_beginning(event)) {
        anstream::eprintln!("History before revision {from} is compacted.");
    }
    let mut out = io::stdout().lock();
    for event in events {
        let Some(kv) = &event.kv else { continue };
        write!(out, "{:>10} ", kv.mod_revision)?;
        if event.r#type() == EventType::Delete {
            writeln!(out, "DELETE")?;
            continue;
        }
        let lease = if kv.lease == 0 { String::new() } else { format!(" lease {:016x}", kv.lease) };
        write!(out, "PUT    version {}{lease}, {} bytes: ", kv.version, kv.value.len())?;
        let shown = &kv.value[..kv.value.len().min(SHOWN_BYTES)];
        let first = shown.split(|&byte| byte == b'\n').next().unwrap_or_default();
        out.write_all(&output.key(first))?;
        writeln!(out, "{}", if first.len() < kv.value.len() { "..." } else { "" })?;
    }
    Ok(out.flush()?)
}

fn is_beginning(event: &Event) -> bool {
    event.kv.as_ref().is_some_and(|kv| kv.version == 1)
}

/// All that happened to a key from a revision until now.
async fn events(client: &Client, key: &Bytes, from: i64) -> Result<Vec<Event>, ClientError> {
    let request = RangeRequest { key: key.clone(), ..RangeRequest::default() };
    let now = client.kv().range(request).await?;
    let revision = now.header.unwrap_or_default().revision;
    // Its last put, where there is one. For a key that is gone only the server knows whether that was all.
    let last = now.kvs.first().map(|kv| kv.mod_revision);
    if last.is_some_and(|last| last < from) {
        // What is there stays readable, however old.
        return Ok(now.kvs.into_iter().map(|kv| Event { kv: Some(kv), ..Event::default() }).collect());
    }
    let request =
        WatchCreateRequest { key: key.clone(), start_revision: from, ..WatchCreateRequest::default() };
    let mut watch = client.watch(request);
    let mut events: Vec<Event> = Vec::new();
    let mut confirmed = false;
    loop {
        let batch = match tokio::time::timeout(CATCH_UP, watch.next()).await {
            Ok(Some(batch)) => batch?,
            Ok(None) => break,
            // A server that is behind lets the question go without an answer.
            Err(_) => {
                watch.request_progress();
                continue;
            }
        };
        match batch.kind {
            BatchKind::Created { .. } => {}
            BatchKind::Events => {
                events.extend(batch.events);
                let newest = events.last().and_then(|event| event.kv.as_ref());
                if last.is_some_and(|last| newest.is_some_and(|kv| kv.mod_revision >= last)) {
                    break;
                }
            }
            BatchKind::Progress | BatchKind::ProgressAnswer if last.is_some() => {}
            BatchKind::Progress | BatchKind::ProgressAnswer => {
                if confirmed && batch.revision >= revision {
                    break;
                }
                confirmed = true;
                tokio::time::sleep(CATCH_UP).await;
            }
        }
        if last.is_none() {
            watch.request_progress();
        }
    }
    Ok(events)
}
