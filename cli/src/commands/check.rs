//! `etcfs check`

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use etcfs_client::Client;
use etcfs_proto::{
    etcdserverpb::{CompactionRequest, DeleteRangeRequest, RangeRequest},
    key::prefix_end,
};

use super::{bench, defrag};
use crate::{
    args::{Global, duration},
    bench::{
        load,
        plan::{Op, Plan},
        round::{self, Measured},
    },
    connect,
    error::{CliError, Kind},
};

/// Of the load's rate, so much has to be reached.
const SHARE_MIN: f64 = 0.9;
/// Longest that one put may take.
const SLOWEST_MAX: Duration = Duration::from_millis(500);
/// How far from each other the puts' times may be.
const DEVIATION_MAX: Duration = Duration::from_millis(100);
/// Longest that deleting all of it may take.
const CLEAN_UP_MAX: Duration = Duration::from_secs(120);
/// Callers that share a connection.
const CLIENTS_A_CONNECTION: usize = 50;

/// Checks whether the cluster bears a load.
#[derive(Args, Debug)]
pub(crate) struct CheckArgs {
    #[command(subcommand)]
    command: CheckCommand,
}

#[derive(Debug, Subcommand)]
enum CheckCommand {
    /// Puts at a fixed rate, and judges how many went through and how fast.
    ///
    /// Writes keys of its own and removes them. Exits with 1 if the cluster does not bear the load.
    #[command(after_help = "Example: etcfs check perf --load m")]
    Perf {
        /// s: 150 puts a second of 50 clients; m: 1000 of 200; l: 8000 of 500; xl: 15000 of 1000
        #[arg(long, default_value = "s", value_name = "SIZE")]
        load: Load,
        /// Begin of the keys that it writes; none may be there
        #[arg(long, default_value = "/etcdctl-check-perf/", value_name = "TEXT")]
        prefix: String,
        /// How long
        #[arg(long, default_value = "60s", value_parser = duration, value_name = "TIME")]
        duration: Duration,
        #[command(flatten)]
        auto: Auto,
    },
    /// Stores many keys, and says how much memory the server has taken for them.
    ///
    /// It asks the first endpoint, whose metrics it reads. It removes its keys afterwards.
    #[command(after_help = "Example: etcfs check datascale --load s --auto-compact")]
    Datascale {
        /// s: 10,000 keys; m: 100,000; l: 1,000,000; xl: 3,000,000
        #[arg(long, default_value = "s", value_name = "SIZE")]
        load: Load,
        /// Begin of the keys that it writes; none may be there
        #[arg(long, default_value = "/etcdctl-check-datascale/", value_name = "TEXT")]
        prefix: String,
        #[command(flatten)]
        auto: Auto,
    },
}

/// What follows a check.
#[derive(Args, Debug)]
struct Auto {
    /// Compact afterwards
    #[arg(long)]
    auto_compact: bool,
    /// Defragment every endpoint afterwards
    #[arg(long)]
    auto_defrag: bool,
}

/// etcdctl's four sizes.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Load {
    #[value(name = "s", alias = "small")]
    Small,
    #[value(name = "m", alias = "medium")]
    Medium,
    #[value(name = "l", alias = "large")]
    Large,
    #[value(name = "xl", alias = "xLarge")]
    XLarge,
}

impl Load {
    /// Puts a second, and clients.
    fn rate_and_clients(self) -> (u64, usize) {
        match self {
            Self::Small => (150, 50),
            Self::Medium => (1000, 200),
            Self::Large => (8000, 500),
            Self::XLarge => (15_000, 1000),
        }
    }

    /// Keys to store, and clients.
    fn keys_and_clients(self) -> (u64, usize) {
        match self {
            Self::Small => (10_000, 50),
            Self::Medium => (100_000, 200),
            Self::Large => (1_000_000, 500),
            Self::XLarge => (3_000_000, 1000),
        }
    }
}

pub(crate) fn run(global: &Global, args: CheckArgs) -> Result<(), CliError> {
    match args.command {
        CheckCommand::Perf { load, prefix, duration, auto } => perf(global, load, prefix, duration, auto),
        CheckCommand::Datascale { load, prefix, auto } => datascale(global, load, prefix, auto),
    }
}

fn plan(clients: usize, total: u64, prefix: String) -> Plan {
    Plan {
        clients,
        connections: clients.div_ceil(CLIENTS_A_CONNECTION),
        key_size: 256,
        value_size: 1024,
        total: Some(total),
        keys: 100_000,
        prefix,
        watchers: 0,
        leases: 0,
        rate: 0,
        server_pid: None,
        json: false,
    }
}

fn perf(global: &Global, load: Load, prefix: String, duration: Duration, auto: Auto) -> Result<(), CliError> {
    let (rate, clients) = load.rate_and_clients();
    let total = rate.saturating_mul(duration.as_secs().max(1));
    let plan = Plan { rate, ..plan(clients, total, prefix) }.checked();
    let clients = bench::clients(global, &global.endpoints, &plan)?;
    bench::on_one_thread(async {
        let client = connect::client(global)?;
        nothing_below(&client, &plan.prefix).await?;
        let measured = round::run(&clients, &plan, Op::Put).await?;
        clean_up(global, &client, &plan.prefix, &auto).await?;
        judge(&measured, rate)
    })
}

/// What a server's memory grows by with so many keys: as etcdctl, the first endpoint's.
fn datascale(global: &Global, load: Load, prefix: String, auto: Auto) -> Result<(), CliError> {
    let (keys, clients) = load.keys_and_clients();
    let plan = Plan { keys, key_size: 1024, ..plan(clients, keys, prefix) }.checked();
    let endpoint = &global.endpoints[0];
    let only = std::slice::from_ref(endpoint);
    let clients = bench::clients(global, only, &plan)?;
    bench::on_one_thread(async {
        let client = connect::client_of(global, only.to_vec())?;
        nothing_below(&client, &plan.prefix).await?;
        anstream::println!(
            "Start data scale check for work load [{keys} key-value pairs, {} bytes per key-value, {} concurrent clients].",
            plan.value_size,
            plan.clients
        );
        let before = memory(global, endpoint).await?;
        let loaded = load::fill(&clients, &plan, keys).await;
        let after = memory(global, endpoint).await?;
        clean_up(global, &client, &plan.prefix, &auto).await?;
        if let Err(error) = loaded {
            anstream::println!("FAIL: too many errors");
            return Err(error);
        }
        let megabytes = (after - before) / (1024.0 * 1024.0);
        anstream::println!("PASS: Approximate system memory used : {megabytes:.2} MB.");
        Ok(())
    })
}

async fn memory(global: &Global, endpoint: &str) -> Result<f64, CliError> {
    let metrics = connect::metrics(global, endpoint).await?;
    metrics.value(&["process_resident_memory_bytes"]).ok_or_else(|| {
        CliError::failed(format!("{endpoint} does not tell process_resident_memory_bytes in its metrics"))
    })
}

/// Keys of somebody else must not be deleted afterwards.
async fn nothing_below(client: &Client, prefix: &str) -> Result<(), CliError> {
    let (key, range_end) = (prefix.to_owned().into(), prefix_end(prefix.as_bytes()));
    let range = RangeRequest { key, range_end, limit: 1, ..RangeRequest::default() };
    if client.kv().range(range).await?.kvs.is_empty() {
        return Ok(());
    }
    let message = format!("prefix {prefix:?} has keys. Delete with etcfs del --prefix {prefix} first.");
    Err(CliError::new(Kind::Input, message))
}

async fn clean_up(global: &Global, client: &Client, prefix: &str, auto: &Auto) -> Result<(), CliError> {
    let (key, range_end) = (prefix.to_owned().into(), prefix_end(prefix.as_bytes()));
    // It may take long.
    let client = client.with_request_timeout(global.command_timeout.max(CLEAN_UP_MAX));
    let delete = DeleteRangeRequest { key, range_end, ..DeleteRangeRequest::default() };
    let deleted = client.kv().delete_range(delete).await?;
    if auto.auto_compact {
        let revision = deleted.header.unwrap_or_default().revision;
        client.kv().compact(CompactionRequest { revision, physical: true }).await?;
        anstream::println!("Compacted with revision {revision}");
    }
    if auto.auto_defrag {
        defrag::endpoints(global, global.endpoints.clone()).await?;
    }
    Ok(())
}

/// Says what passed and what did not.
fn judge(measured: &Measured, rate: u64) -> Result<(), CliError> {
    let mut passed = true;
    let mut tell = |good: bool, passes: String, fails: String| {
        anstream::println!("{}", if good { format!("PASS: {passes}") } else { format!("FAIL: {fails}") });
        passed &= good;
    };
    if measured.errors > 0 {
        let first = measured.first_error.as_deref().unwrap_or_default();
        tell(
            false,
            String::new(),
            format!("too many errors: {}, the first of them: {first}", measured.errors),
        );
    }
    let reached = measured.ops_per_second();
    tell(
        reached > rate as f64 * SHARE_MIN,
        format!("Throughput is {reached:.0} writes/s"),
        format!("Throughput too low: {reached:.0} writes/s"),
    );
    let slowest = Duration::from_nanos(measured.latencies.max());
    tell(
        slowest <= SLOWEST_MAX,
        format!("Slowest request took {:.6}s", slowest.as_secs_f64()),
        format!("Slowest request took too long: {:.6}s", slowest.as_secs_f64()),
    );
    let deviation = Duration::from_secs_f64(measured.latencies.stdev() / 1e9);
    tell(
        deviation <= DEVIATION_MAX,
        format!("Stddev is {:.6}s", deviation.as_secs_f64()),
        format!("Stddev too high: {:.6}s", deviation.as_secs_f64()),
    );
    if passed {
        anstream::println!("PASS");
        return Ok(());
    }
    anstream::println!("FAIL");
    Err(CliError::failed("the cluster does not bear this load")
        .hint("`etcfs doctor` and the metrics of the disk's syncs may tell why"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::tally::latencies;

    fn measured(millis: &[u64], seconds: u64, errors: u64) -> Measured {
        let mut latencies = latencies();
        for millis in millis {
            latencies.record(millis * 1_000_000).unwrap();
        }
        let time = Duration::from_secs(seconds);
        Measured { op: "put", clients: 1, time, latencies, errors, first_error: None, server: None }
    }

    #[test]
    fn a_load_is_borne_in_time_and_without_errors_or_not_at_all() {
        let even = [5; 100];
        assert!(judge(&measured(&even, 1, 0), 100).is_ok());
        assert!(judge(&measured(&even, 1, 1), 100).is_err());
        assert!(judge(&measured(&even, 2, 0), 100).is_err());
        let one_slow = [&even[..], &[501]].concat();
        assert!(judge(&measured(&one_slow, 1, 0), 100).is_err());
        let uneven = [[1; 50], [250; 50]].concat();
        assert!(judge(&measured(&uneven, 1, 0), 100).is_err());
    }
}
