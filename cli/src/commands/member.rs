//! `etcfs member`

use clap::{Args, Subcommand};
use etcfs_proto::etcdserverpb::MemberListRequest;

use crate::{
    args::Global,
    connect,
    error::{CliError, Kind},
    output::Output,
};

/// Shows the members of the cluster.
#[derive(Args, Debug)]
pub(crate) struct MemberArgs {
    #[command(subcommand)]
    command: MemberCommand,
}

#[derive(Debug, Subcommand)]
enum MemberCommand {
    /// Lists all members.
    List {
        /// l: confirmed by the cluster (linearizable); s: from one member (serializable)
        #[arg(long, default_value = "l", value_name = "l|s")]
        consistency: String,
    },
}

pub(crate) async fn run(global: &Global, args: MemberArgs) -> Result<(), CliError> {
    let output = Output::new(global)?;
    let MemberCommand::List { consistency } = args.command;
    let linearizable = match consistency.as_str() {
        "l" => true,
        "s" => false,
        other => return Err(CliError::new(Kind::Feature, format!("unknown consistency flag {other:?}"))),
    };
    let request = MemberListRequest { linearizable };
    output.members(&connect::client(global)?.cluster().member_list(request).await?)
}
