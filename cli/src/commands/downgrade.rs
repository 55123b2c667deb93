//! `etcfs downgrade`

use clap::{Args, Subcommand};
use etcfs_proto::etcdserverpb::{DowngradeRequest, downgrade_request::DowngradeAction};

use crate::{args::Global, connect, error::CliError, output::Output};

/// Prepares a cluster for members of the version before its own.
#[derive(Args, Debug)]
pub(crate) struct DowngradeArgs {
    #[command(subcommand)]
    command: DowngradeCommand,
}

#[derive(Debug, Subcommand)]
enum DowngradeCommand {
    /// Says whether the cluster can go down to a version; changes nothing.
    #[command(after_help = "Example: etcfs downgrade validate 3.5.0")]
    Validate(Target),
    /// Lets the cluster go down to a version: then replace its members, one by one.
    #[command(after_help = "Example: etcfs downgrade enable 3.5.0")]
    Enable(Target),
    /// Stays at the version that there is.
    #[command(after_help = "Example: etcfs downgrade cancel")]
    Cancel,
}

#[derive(Args, Debug)]
struct Target {
    /// The version, one minor below the cluster's
    #[arg(value_name = "VERSION")]
    args: Vec<String>,
}

pub(crate) async fn run(global: &Global, args: DowngradeArgs) -> Result<(), CliError> {
    let output = Output::new(global)?;
    let version = |target: Target| match <[String; 1]>::try_from(target.args) {
        Ok([version]) => Ok(version),
        Err(_) => Err(CliError::arguments("TARGET_VERSION not provided")),
    };
    let (name, action, version) = match args.command {
        DowngradeCommand::Validate(target) => ("validate", DowngradeAction::Validate, version(target)?),
        DowngradeCommand::Enable(target) => ("enable", DowngradeAction::Enable, version(target)?),
        DowngradeCommand::Cancel => ("cancel", DowngradeAction::Cancel, String::new()),
    };
    let request = DowngradeRequest { action: action.into(), version };
    let answer = connect::client(global)?.maintenance().downgrade(request).await?;
    let text = format!("Downgrade {name} success, cluster version {}", answer.version);
    output.acknowledged(&answer, answer.header.as_ref(), text)
}
