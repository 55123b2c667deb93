//! `etcfs bench`

use std::path::PathBuf;

use clap::{Args, Subcommand};
use etcfs_client::Client;
use tokio::task::LocalSet;

use crate::{
    args::Global,
    bench::{
        compare::{self, Side},
        files::{self, FilesPlan},
        load,
        plan::{Op, Plan},
        report, round,
    },
    connect,
    error::CliError,
};

/// Keys that `load` stores if nobody says how many.
const LOAD_KEYS: u64 = 100_000;

/// Measures any etcd v3 endpoint: throughput, latency, and the server's cost.
#[derive(Args, Debug)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    command: BenchCommand,
}

#[derive(Debug, Subcommand)]
enum BenchCommand {
    /// Runs rounds: put, range, txn, watch, lease-grant and others, or all.
    #[command(after_help = "Example: etcfs bench run put range-l")]
    Run {
        /// What to measure, in this order [default: all]
        #[arg(value_name = "OPERATION")]
        ops: Vec<Op>,
        #[command(flatten)]
        plan: Plan,
    },
    /// Puts of one key each.
    #[command(after_help = "Example: etcfs bench put --clients 256 --total 100000")]
    Put(Plan),
    /// Reads of one key each, or of 10,000 keys at once.
    #[command(after_help = "Example: etcfs bench range --consistency s")]
    Range {
        /// l: confirmed by the cluster (linearizable); s: from one member (serializable)
        #[arg(long, default_value = "l", value_parser = ["l", "s"], value_name = "l|s")]
        consistency: String,
        /// Read 10,000 keys in one request
        #[arg(long)]
        large: bool,
        #[command(flatten)]
        plan: Plan,
    },
    /// Transactions: one comparison, one put, one read.
    #[command(after_help = "Example: etcfs bench txn")]
    Txn(Plan),
    /// Puts that many watches see; counts events.
    #[command(after_help = "Example: etcfs bench watch --watchers 1000")]
    Watch(Plan),
    /// Grants of leases.
    #[command(after_help = "Example: etcfs bench lease-grant")]
    LeaseGrant(Plan),
    /// Renewals of leases, each on a stream of its own.
    #[command(after_help = "Example: etcfs bench lease-keep-alive")]
    LeaseKeepAlive(Plan),
    /// Of twenty requests ten linearizable reads, five serializable ones, four puts and a transaction.
    #[command(after_help = "Example: etcfs bench mixed --rate 1000")]
    Mixed(Plan),
    /// Stores many keys quickly, 128 in a transaction.
    #[command(after_help = "Example: etcfs bench load --total 1000000")]
    Load(Plan),
    /// Measures endpoints A and B in alternating rounds and prints A/B.
    #[command(after_help = "Example: etcfs bench compare 127.0.0.1:2379 127.0.0.1:22379")]
    Compare {
        /// First endpoint
        a: String,
        /// Second endpoint
        b: String,
        /// What to measure, separated by commas [default: all]
        #[arg(long, value_delimiter = ',', value_name = "LIST")]
        ops: Vec<Op>,
        /// Pairs of rounds
        #[arg(long, default_value_t = 5, value_name = "N")]
        rounds: usize,
        /// Process ID of the server at A
        #[arg(long, value_name = "PID")]
        pid_a: Option<u32>,
        /// Process ID of the server at B
        #[arg(long, value_name = "PID")]
        pid_b: Option<u32>,
        #[command(flatten)]
        plan: Plan,
    },
    /// Measures a mount beside a trivial FUSE file system and a directory in memory.
    #[command(after_help = "Example: etcfs bench fs ./keys")]
    Fs {
        /// A directory of the mount
        dir: PathBuf,
        /// The directory in memory
        #[arg(long, default_value = "/dev/shm", value_name = "DIR")]
        beside: PathBuf,
        /// Files in the directory that is listed and searched by grep
        #[arg(long, default_value_t = 10_000, value_name = "N")]
        files: usize,
        /// Files in the tree that is searched by find
        #[arg(long, default_value_t = 100_000, value_name = "N")]
        tree: usize,
        /// Calls of each kind in a round
        #[arg(long, default_value_t = 2_000, value_name = "N")]
        calls: usize,
        /// Rounds of each kind
        #[arg(long, default_value_t = 5, value_name = "N")]
        rounds: usize,
        /// Process ID of the mount, for its memory
        #[arg(long, value_name = "PID")]
        pid: Option<u32>,
        /// Bytes of a file
        #[arg(long, default_value_t = 256, value_name = "BYTES")]
        value_size: usize,
        /// Print an object a line
        #[arg(long)]
        json: bool,
    },
    /// The trivial file system of `fs`, in a process of its own.
    #[command(hide = true)]
    Floor { point: PathBuf },
}

pub(crate) fn run(global: &Global, args: BenchArgs) -> Result<(), CliError> {
    match args.command {
        BenchCommand::Run { ops, plan } if ops.is_empty() => rounds(global, &Op::ALL, plan),
        BenchCommand::Run { ops, plan } => rounds(global, &ops, plan),
        BenchCommand::Put(plan) => rounds(global, &[Op::Put], plan),
        BenchCommand::Range { consistency, large, plan } => {
            let op = match (consistency.as_str(), large) {
                ("s", false) => Op::RangeS,
                ("s", true) => Op::RangeS10k,
                (_, false) => Op::RangeL,
                (_, true) => Op::RangeL10k,
            };
            rounds(global, &[op], plan)
        }
        BenchCommand::Txn(plan) => rounds(global, &[Op::Txn], plan),
        BenchCommand::Watch(plan) => rounds(global, &[Op::Watch], plan),
        BenchCommand::LeaseGrant(plan) => rounds(global, &[Op::LeaseGrant], plan),
        BenchCommand::LeaseKeepAlive(plan) => rounds(global, &[Op::LeaseKeepAlive], plan),
        BenchCommand::Mixed(plan) => rounds(global, &[Op::Mixed], plan),
        BenchCommand::Load(plan) => {
            let plan = plan.checked();
            let clients = clients(global, &global.endpoints, &plan)?;
            on_one_thread(load::run(&clients, &plan, plan.total.unwrap_or(LOAD_KEYS)))
        }
        BenchCommand::Compare { a, b, ops, rounds, pid_a, pid_b, plan } => {
            let plan = plan.checked();
            let side = |endpoint: String, server_pid| {
                let clients = clients(global, std::slice::from_ref(&endpoint), &plan)?;
                Ok::<_, CliError>(Side { endpoint, clients, server_pid })
            };
            let sides = [side(a, pid_a)?, side(b, pid_b)?];
            let ops = if ops.is_empty() { Op::ALL.to_vec() } else { ops };
            on_one_thread(compare::run(sides, &plan, &ops, rounds))
        }
        BenchCommand::Fs { dir, beside, files, tree, calls, rounds, value_size, pid, json } => {
            let plan = FilesPlan { files, tree, calls, rounds, value_size, pid, json };
            files::run(&dir, &beside, || connect::client(global), plan)
        }
        BenchCommand::Floor { point } => Ok(files::serve_floor(&point)?),
    }
}

fn rounds(global: &Global, ops: &[Op], plan: Plan) -> Result<(), CliError> {
    let plan = plan.checked();
    let clients = clients(global, &global.endpoints, &plan)?;
    on_one_thread(async {
        report::titles(&plan)?;
        let mut errors = 0;
        for op in ops {
            let measured = round::run(&clients, &plan, *op).await?;
            report::round(&plan, &measured)?;
            errors += measured.errors;
        }
        if errors > 0 { Err(CliError::failed(format!("{errors} requests failed"))) } else { Ok(()) }
    })
}

/// One client for each connection; with several endpoints they take turns to be first.
pub(crate) fn clients(global: &Global, endpoints: &[String], plan: &Plan) -> Result<Vec<Client>, CliError> {
    let turned = |number: usize| {
        let mut endpoints = endpoints.to_vec();
        let turns = number % endpoints.len().max(1);
        endpoints.rotate_left(turns);
        connect::client_of(global, endpoints)
    };
    (0..plan.connections).map(turned).collect()
}

pub(crate) fn on_one_thread(work: impl Future<Output = Result<(), CliError>>) -> Result<(), CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, work)
}
