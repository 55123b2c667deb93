//! `etcfs elect`

use std::{ffi::OsString, os::unix::ffi::OsStrExt as _};

use bytes::Bytes;
use clap::Args;
use etcfs_client::{Client, ClientError};
use etcfs_proto::{
    etcdserverpb::{
        RangeRequest, RangeResponse, WatchCreateRequest,
        range_request::{SortOrder, SortTarget},
    },
    key::prefix_end,
    mvccpb::event::EventType,
};
use futures_util::StreamExt as _;

use crate::{
    args::{self, Global},
    connect,
    error::CliError,
    output::Output,
    session::{Place, Session, expired, interrupted},
};

/// Seconds after which another leads, should this command die.
const TTL_SECONDS: i64 = 60;

/// Stands for leader of a name, and leads until Ctrl-C; or shows who leads.
#[derive(Args, Debug)]
#[command(after_help = "Example: etcfs elect /project/leader host1")]
pub(crate) struct ElectArgs {
    /// NAME [PROPOSAL]: what the leader says is there for all to read
    #[arg(value_name = "NAME")]
    args: Vec<OsString>,
    /// Show the leader and each that follows
    #[arg(short, long)]
    listen: bool,
}

pub(crate) async fn run(global: &Global, args: ElectArgs) -> Result<(), CliError> {
    let output = Output::new(global)?;
    let mut words = args.args.into_iter();
    let (Some(name), proposal, None) = (words.next(), words.next(), words.next()) else {
        return Err(CliError::arguments(
            "elect takes one election name argument and an optional proposal argument",
        ));
    };
    let client = connect::client(global)?;
    match (proposal, args.listen) {
        (None, false) => Err(CliError::arguments("no proposal argument but -l not set")),
        (Some(_), true) => Err(CliError::arguments("proposal given but -l is set")),
        (None, true) => observe(&client, name.as_bytes(), output).await,
        (Some(proposal), false) => {
            let mut session = Session::open(&client, TTL_SECONDS).await?;
            let led = lead(&client, &mut session, name.as_bytes(), args::bytes(proposal), output).await;
            let closed = session.close(&client).await;
            led.and(closed)
        }
    }
}

async fn lead(
    client: &Client,
    session: &mut Session,
    name: &[u8],
    proposal: Bytes,
    output: Output,
) -> Result<(), CliError> {
    let lease = session.lease();
    let leading = async {
        let place = Place::take(client, name, lease, proposal).await?;
        place.first(client).await?;
        let request = RangeRequest { key: place.key.clone(), ..RangeRequest::default() };
        output.range(&client.kv().range(request.clone()).await?, &request, false)?;
        // Until something else ends it.
        std::future::pending::<Result<(), CliError>>().await
    };
    tokio::select! {
        failed = leading => failed,
        () = session.lost() => Err(expired()),
        interrupted = interrupted() => interrupted,
    }
}

/// Prints the leader of each moment, until Ctrl-C.
async fn observe(client: &Client, name: &[u8], output: Output) -> Result<(), CliError> {
    let prefix: Bytes = [name, b"/"].concat().into();
    let watching = async {
        let mut shown = None;
        loop {
            let (request, answer) = leader(client, &prefix).await?;
            let from = answer.header.unwrap_or_default().revision + 1;
            let key = answer.kvs.first().map(|kv| kv.key.clone());
            let now = answer.kvs.first().map(|kv| (kv.key.clone(), kv.mod_revision));
            if now.is_some() && now != shown {
                output.range(&answer, &request, false)?;
            }
            shown = now;
            changed(client, &prefix, key, from).await?;
        }
    };
    tokio::select! {
        failed = watching => failed,
        interrupted = interrupted() => interrupted,
    }
}

async fn leader(client: &Client, prefix: &Bytes) -> Result<(RangeRequest, RangeResponse), CliError> {
    let request = RangeRequest {
        key: prefix.clone(),
        range_end: prefix_end(prefix),
        sort_order: SortOrder::Ascend.into(),
        sort_target: SortTarget::Create.into(),
        limit: 1,
        ..RangeRequest::default()
    };
    let answer = client.kv().range(request.clone()).await?;
    Ok((request, answer))
}

/// Waits for a change of the leader's key; without a leader, for any key to be made.
async fn changed(client: &Client, prefix: &Bytes, leader: Option<Bytes>, from: i64) -> Result<(), CliError> {
    let any = leader.is_none();
    let (key, range_end) = match leader {
        Some(key) => (key, Bytes::new()),
        None => (prefix.clone(), prefix_end(prefix)),
    };
    let request =
        WatchCreateRequest { key, range_end, start_revision: from, ..WatchCreateRequest::default() };
    let mut watch = client.watch(request);
    while let Some(batch) = watch.next().await {
        match batch {
            Ok(batch) if batch.events.iter().any(|event| !any || event.r#type() == EventType::Put) => break,
            Ok(_) => {}
            Err(ClientError::Compacted { .. }) => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
