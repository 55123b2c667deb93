//! `etcfs compaction`

use clap::Args;
use etcfs_proto::etcdserverpb::CompactionRequest;

use crate::{args::Global, connect, error::CliError};

/// Gives up history: what was superseded at or before a revision.
#[derive(Args, Debug)]
#[command(after_help = "Example: etcfs compaction 1234")]
pub(crate) struct CompactionArgs {
    /// The oldest revision that can be read afterwards
    #[arg(value_name = "REVISION")]
    args: Vec<String>,
    /// Wait until the history is removed from the server's disk
    #[arg(long)]
    physical: bool,
}

pub(crate) async fn run(global: &Global, args: CompactionArgs) -> Result<(), CliError> {
    let [revision] = args.args.as_slice() else {
        return Err(CliError::arguments("compaction command needs 1 argument"));
    };
    let bad = |_| CliError::failed(format!("strconv.ParseInt: parsing {revision:?}: invalid syntax"));
    let revision: i64 = revision.parse().map_err(bad)?;
    let request = CompactionRequest { revision, physical: args.physical };
    connect::client(global)?.kv().compact(request).await?;
    anstream::println!("compacted revision {revision}");
    Ok(())
}
