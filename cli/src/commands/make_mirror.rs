//! `etcfs make-mirror`

use std::{ffi::OsString, time::Duration};

use bytes::Bytes;
use clap::Args;
use etcfs_client::{BatchKind, Client, ClientError};
use etcfs_proto::{
    etcdserverpb::{PutRequest, RequestOp, TxnRequest, WatchCreateRequest},
    key::{TO_END, prefix_end},
    mvccpb::{KeyValue, event::EventType},
};
use futures_util::StreamExt as _;
use tokio::time::{Instant, interval_at};

use crate::{
    args::{self, Destination, Global},
    connect,
    error::CliError,
    pages::Pages,
    requests::{delete, put},
};

/// How often the number of requests that reached the destination is printed.
const REPORT_INTERVAL: Duration = Duration::from_secs(30);
/// Values that go into one transaction: servers refuse requests over 1.5 MiB.
const TXN_BYTES_MAX: usize = 1024 * 1024;

/// Copies keys to another cluster, and goes on with what changes until it is stopped.
///
/// Keys that are only at the destination stay there. Leases are not copied. Prints, every 30 seconds, how many puts
/// and deletes it made.
#[derive(Args, Debug)]
#[command(after_help = "Example: etcfs make-mirror --prefix /project/ 10.0.0.9:2379")]
pub(crate) struct MakeMirrorArgs {
    /// An endpoint of the cluster to copy to
    destination: Option<String>,
    /// Keys that start with this alone
    #[arg(long, default_value = "", hide_default_value = true)]
    prefix: OsString,
    /// Leave out what is there, and begin with changes of this revision; 0 to copy first
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "REVISION")]
    rev: i64,
    /// Requests that go into one transaction
    #[arg(long, default_value_t = 128, value_name = "N")]
    max_txn_ops: usize,
    /// What their names start with at the destination, instead of --prefix
    #[arg(long, default_value = "", hide_default_value = true, value_name = "PREFIX")]
    dest_prefix: OsString,
    /// Cut --prefix off, and put nothing in its place
    #[arg(long)]
    no_dest_prefix: bool,
    #[command(flatten)]
    there: Destination,
}

pub(crate) async fn run(global: &Global, args: MakeMirrorArgs) -> Result<(), CliError> {
    let security = args.there.security();
    let Some(destination) = args.destination else {
        return Err(CliError::arguments("make-mirror takes one destination argument"));
    };
    let dest_prefix = args::bytes(args.dest_prefix);
    if args.no_dest_prefix && !dest_prefix.is_empty() {
        return Err(CliError::arguments(
            "`--dest-prefix` and `--no-dest-prefix` cannot be set at the same time, choose one",
        ));
    }
    if args.max_txn_ops == 0 {
        return Err(CliError::arguments("--max-txn-ops 0: a transaction needs a request"));
    }
    let prefix = args::bytes(args.prefix);
    let mut mirror = Mirror {
        destination: connect::foreign(global, &security, vec![destination])?,
        dest_prefix: if args.no_dest_prefix || !dest_prefix.is_empty() {
            dest_prefix
        } else {
            prefix.clone()
        },
        prefix,
        max_txn_ops: args.max_txn_ops,
        requests: 0,
    };
    let source = connect::client(global)?;
    let from = if args.rev > 0 { args.rev } else { mirror.copy(&source).await? + 1 };
    mirror.follow(&source, from).await
}

struct Mirror {
    destination: Client,
    prefix: Bytes,
    dest_prefix: Bytes,
    max_txn_ops: usize,
    /// Puts and deletes that the destination has acknowledged.
    requests: u64,
}

impl Mirror {
    /// Copies what is there; gives the revision as of which it was.
    async fn copy(&mut self, source: &Client) -> Result<i64, CliError> {
        let mut pages = Pages::of(source, &self.prefix, false, 0);
        while let Some(page) = pages.next().await? {
            let puts = page.into_iter().map(|kv| self.put(kv)).collect();
            self.send(puts).await?;
        }
        Ok(pages.revision())
    }

    /// Repeats every change, a revision at a time as far as --max-txn-ops lets it.
    async fn follow(&mut self, source: &Client, from: i64) -> Result<(), CliError> {
        let (key, range_end) = if self.prefix.is_empty() {
            (Bytes::from_static(b"\0"), Bytes::from_static(TO_END))
        } else {
            (self.prefix.clone(), prefix_end(&self.prefix))
        };
        let request =
            WatchCreateRequest { key, range_end, start_revision: from, ..WatchCreateRequest::default() };
        let mut watcher = source.watch(request);
        let mut report = interval_at(Instant::now() + REPORT_INTERVAL, REPORT_INTERVAL);
        loop {
            let batch = tokio::select! {
                batch = watcher.next() => batch,
                _ = report.tick() => {
                    anstream::println!("{}", self.requests);
                    continue;
                }
            };
            let Some(batch) = batch else { return Err(CliError::failed("the watch ended")) };
            let batch = batch.map_err(|error| match error {
                ClientError::Compacted { .. } => CliError::from(error)
                    .hint("changes to repeat are gone: start anew, which copies everything first"),
                error => error.into(),
            })?;
            if batch.kind != BatchKind::Events {
                continue;
            }
            for changes in batch.events.chunk_by(|a, b| revision(&a.kv) == revision(&b.kv)) {
                let requests = changes.iter().filter_map(|event| {
                    let kv = event.kv.clone()?;
                    Some(match event.r#type() {
                        EventType::Put => self.put(kv),
                        EventType::Delete => delete(self.name(&kv.key)),
                    })
                });
                let requests = requests.collect();
                self.send(requests).await?;
            }
        }
    }

    fn name(&self, key: &Bytes) -> Bytes {
        [&self.dest_prefix[..], &key[self.prefix.len()..]].concat().into()
    }

    fn put(&self, kv: KeyValue) -> RequestOp {
        put(PutRequest { key: self.name(&kv.key), value: kv.value, ..PutRequest::default() })
    }

    /// Sends requests in order, in as few transactions as the limits allow.
    async fn send(&mut self, requests: Vec<RequestOp>) -> Result<(), CliError> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        for request in requests {
            let size = prost::Message::encoded_len(&request);
            if batch.len() == self.max_txn_ops || (!batch.is_empty() && bytes + size > TXN_BYTES_MAX) {
                self.send_one(std::mem::take(&mut batch)).await?;
                bytes = 0;
            }
            batch.push(request);
            bytes += size;
        }
        if batch.is_empty() { Ok(()) } else { self.send_one(batch).await }
    }

    async fn send_one(&mut self, success: Vec<RequestOp>) -> Result<(), CliError> {
        let number = success.len();
        let request = TxnRequest { success, ..TxnRequest::default() };
        self.destination.kv().txn(request).await?;
        self.requests += u64::try_from(number).unwrap_or(u64::MAX);
        Ok(())
    }
}

fn revision(kv: &Option<KeyValue>) -> i64 {
    kv.as_ref().map_or(0, |kv| kv.mod_revision)
}
