//! `etcfs defrag`

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use etcfs_server::offline;

use crate::{args::Global, connect, error::CliError};

/// A member with much to copy takes long, and answers at the end.
const PATIENCE_MIN: Duration = Duration::from_secs(600);

/// Gives back the disk space of what was deleted, one member after the other.
#[derive(Args, Debug)]
#[command(after_help = "Example: etcfs defrag --cluster")]
pub(crate) struct DefragArgs {
    /// Every member of the cluster, not the given endpoints alone
    #[arg(long)]
    cluster: bool,
    /// The data directory of a member that does not run, instead of any endpoint
    #[arg(long, value_name = "DIR", conflicts_with = "cluster")]
    data_dir: Option<PathBuf>,
}

pub(crate) async fn run(global: &Global, args: &DefragArgs) -> Result<(), CliError> {
    if let Some(dir) = &args.data_dir {
        return data_dir(dir);
    }
    let endpoints =
        if args.cluster { connect::endpoints_of_cluster(global).await? } else { global.endpoints.clone() };
    self::endpoints(global, endpoints).await
}

fn data_dir(dir: &Path) -> Result<(), CliError> {
    offline::defragment(dir).map_err(|error| CliError::failed(error.to_string()))?;
    anstream::println!("Finished defragmenting directory[{}]", dir.display());
    Ok(())
}

/// Defragments one endpoint after the other.
pub(crate) async fn endpoints(global: &Global, endpoints: Vec<String>) -> Result<(), CliError> {
    let mut failed = false;
    for endpoint in endpoints {
        let client = connect::client_of(global, vec![endpoint.clone()])?;
        let client = client.with_request_timeout(global.command_timeout.max(PATIENCE_MIN));
        match client.maintenance().defragment().await {
            Ok(_) => anstream::println!("Finished defragmenting etcd member[{endpoint}]"),
            Err(error) => {
                anstream::eprintln!("Failed to defragment etcd member[{endpoint}] ({error})");
                failed = true;
            }
        }
    }
    if failed { Err(CliError::failed("not every member was defragmented")) } else { Ok(()) }
}
