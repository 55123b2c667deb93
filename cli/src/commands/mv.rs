//! `etcfs mv`

use clap::Args;

use crate::{
    args::Global,
    connect,
    error::CliError,
    transfer::{Names, Way, transfer},
};

/// Gives a key, or all keys of a prefix, another name; leases stay.
///
/// Each key moves in one transaction of its own: nobody sees it twice or not at all, and a value that changes at the
/// same moment moves as it became.
#[derive(Args, Debug)]
#[command(after_help = "Example: etcfs mv /project/jobs/job1 /project/done/job1")]
pub(crate) struct MvArgs {
    #[command(flatten)]
    names: Names,
}

pub(crate) async fn run(global: &Global, args: MvArgs) -> Result<(), CliError> {
    let client = connect::client(global)?;
    transfer(&client, args.names, Way::Move).await?.tell("moved");
    Ok(())
}
