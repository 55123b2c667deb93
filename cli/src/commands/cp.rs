//! `etcfs cp`

use clap::Args;

use crate::{
    args::Global,
    connect,
    error::CliError,
    transfer::{Names, Way, transfer},
};

/// Copies the value of a key, or of all keys of a prefix, to other names.
///
/// A prefix is copied as of one revision, with a transaction for each key. Leases are not copied.
#[derive(Args, Debug)]
#[command(after_help = "Example: etcfs cp --prefix /project/ /backup/project/")]
pub(crate) struct CpArgs {
    #[command(flatten)]
    names: Names,
    /// Values as of this revision; 0 for now
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "REVISION")]
    rev: i64,
}

pub(crate) async fn run(global: &Global, args: CpArgs) -> Result<(), CliError> {
    let client = connect::client(global)?;
    let tally = transfer(&client, args.names, Way::Copy { revision: args.rev }).await?;
    tally.tell("copied");
    Ok(())
}
