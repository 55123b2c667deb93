//! `etcfs endpoint`

use std::time::Instant;

use clap::{Args, Subcommand};
use etcfs_proto::etcdserverpb::{
    AlarmRequest, AlarmType, HashKvRequest, RangeRequest, alarm_request::AlarmAction,
};
use futures_util::future::join_all;

use crate::{
    args::Global,
    connect,
    error::{CliError, Kind},
    output::{Health, Output},
};

/// Asks each endpoint by itself how it is.
#[derive(Args, Debug)]
pub(crate) struct EndpointArgs {
    #[command(subcommand)]
    command: EndpointCommand,
    /// Ask every member of the cluster, not the given endpoints alone
    #[arg(long, global = true)]
    cluster: bool,
}

#[derive(Debug, Subcommand)]
enum EndpointCommand {
    /// Shows whether an endpoint serves: a confirmed read, and no alarm.
    #[command(alias = "he", after_help = "Example: etcfs endpoint health --cluster")]
    Health,
    /// Shows version, size, leader and log position.
    #[command(after_help = "Example: etcfs endpoint status --cluster -w table")]
    Status,
    /// Shows a hash over keys and history, equal on all members.
    #[command(after_help = "Example: etcfs endpoint hashkv --cluster")]
    Hashkv {
        /// Hash the state of this revision; 0 for now
        #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "REVISION")]
        rev: i64,
    },
}

pub(crate) async fn run(global: &Global, args: EndpointArgs) -> Result<(), CliError> {
    let output = Output::new(global)?;
    let endpoints =
        if args.cluster { connect::endpoints_of_cluster(global).await? } else { global.endpoints.clone() };
    match args.command {
        EndpointCommand::Health => health(global, output, endpoints).await,
        EndpointCommand::Status => status(global, output, endpoints).await,
        EndpointCommand::Hashkv { rev } => hash(global, output, endpoints, rev).await,
    }
}

async fn health(global: &Global, output: Output, endpoints: Vec<String>) -> Result<(), CliError> {
    let ask = |endpoint: String| async move {
        let begin = Instant::now();
        let error = healthy(global, &endpoint).await.err().map(|error| error.message().to_owned());
        Health { endpoint, took: begin.elapsed(), error }
    };
    let healths = join_all(endpoints.into_iter().map(ask)).await;
    output.endpoint_health(&healths)?;
    if healths.iter().any(|health| health.error.is_some()) {
        return Err(CliError::failed("unhealthy cluster"));
    }
    Ok(())
}

async fn healthy(global: &Global, endpoint: &str) -> Result<(), CliError> {
    let client = connect::client_of(global, vec![endpoint.to_owned()])?;
    client.kv().range(RangeRequest { key: "health".into(), ..RangeRequest::default() }).await?;
    let alarms = AlarmRequest { action: AlarmAction::Get.into(), ..AlarmRequest::default() };
    let alarms = client.maintenance().alarm(alarms).await?.alarms;
    if alarms.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = alarms.iter().map(|member| AlarmType::try_from(member.alarm)).collect();
    let names: Vec<_> =
        names.into_iter().map(|name| name.map_or("unknown", |name| name.as_str_name())).collect();
    Err(CliError::failed(format!("Active Alarm(s): {}", names.join(", "))))
}

async fn status(global: &Global, output: Output, endpoints: Vec<String>) -> Result<(), CliError> {
    let ask = |endpoint: String| async move {
        let client = connect::client_of(global, vec![endpoint.clone()]);
        let answer = match client {
            Ok(client) => client.maintenance().status().await.map_err(CliError::from),
            Err(error) => Err(error),
        };
        (endpoint, answer)
    };
    gather(join_all(endpoints.into_iter().map(ask)).await, "status", |answers| {
        output.endpoint_status(answers)
    })
}

async fn hash(
    global: &Global,
    output: Output,
    endpoints: Vec<String>,
    revision: i64,
) -> Result<(), CliError> {
    let ask = |endpoint: String| async move {
        let client = connect::client_of(global, vec![endpoint.clone()]);
        let answer = match client {
            Ok(client) => {
                client.maintenance().hash_kv(HashKvRequest { revision }).await.map_err(CliError::from)
            }
            Err(error) => Err(error),
        };
        (endpoint, answer)
    };
    gather(join_all(endpoints.into_iter().map(ask)).await, "hash", |answers| output.endpoint_hash(answers))
}

/// Prints the answers that came and names the endpoints that gave none.
fn gather<T>(
    answers: Vec<(String, Result<T, CliError>)>,
    what: &str,
    print: impl FnOnce(&[(String, T)]) -> Result<(), CliError>,
) -> Result<(), CliError> {
    let mut good = Vec::new();
    let mut last = None;
    for (endpoint, answer) in answers {
        match answer {
            Ok(answer) => good.push((endpoint, answer)),
            Err(error) => {
                anstream::eprintln!("Failed to get the {what} of endpoint {endpoint} ({})", error.message());
                last = Some(error);
            }
        }
    }
    print(&good)?;
    last.map_or(Ok(()), |error| Err(error.reworded(Kind::Failed, str::to_owned)))
}
