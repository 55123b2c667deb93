//! `etcfs member`

use clap::{Args, Subcommand};
use etcfs_client::Client;
use etcfs_proto::etcdserverpb::{
    MemberAddRequest, MemberListRequest, MemberPromoteRequest, MemberRemoveRequest, MemberUpdateRequest,
};

use crate::{
    args::Global,
    connect,
    error::{CliError, Kind},
    output::{MemberChange, Output},
};

/// Shows the members of the cluster and changes who they are.
#[derive(Args, Debug)]
pub(crate) struct MemberArgs {
    #[command(subcommand)]
    command: MemberCommand,
}

#[derive(Debug, Subcommand)]
enum MemberCommand {
    /// Lists all members.
    #[command(after_help = "Example: etcfs member list -w table")]
    List {
        /// l: confirmed by the cluster (linearizable); s: from one member (serializable)
        #[arg(long, default_value = "l", value_name = "l|s")]
        consistency: String,
    },
    /// Makes room for a member, and prints the settings with which to start it.
    #[command(after_help = "Example: etcfs member add --peer-urls http://10.0.0.4:2380 node4")]
    Add {
        /// What the new member is called
        #[arg(value_name = "NAME")]
        args: Vec<String>,
        /// Where the others reach it
        #[arg(long, default_value = "", hide_default_value = true, value_name = "URL[,URL]")]
        peer_urls: String,
        /// It learns all that the others know before it counts
        #[arg(long)]
        learner: bool,
    },
    /// Takes a member out; it stops by itself.
    #[command(after_help = "Example: etcfs member remove 8e9e05c52164694d")]
    Remove {
        /// The member, in hexadecimal
        #[arg(value_name = "ID")]
        args: Vec<String>,
    },
    /// Tells the others where a member is reached from now on.
    #[command(after_help = "Example: etcfs member update --peer-urls http://10.0.0.5:2380 8e9e05c52164694d")]
    Update {
        /// The member, in hexadecimal
        #[arg(value_name = "ID")]
        args: Vec<String>,
        /// Where the others reach it
        #[arg(long, default_value = "", hide_default_value = true, value_name = "URL[,URL]")]
        peer_urls: String,
    },
    /// Lets a learner that has caught up count as a member.
    #[command(after_help = "Example: etcfs member promote 8e9e05c52164694d")]
    Promote {
        /// The learner, in hexadecimal
        #[arg(value_name = "ID")]
        args: Vec<String>,
    },
}

/// A member's id as etcdctl takes it; or what is wrong with it.
pub(super) fn parse_id(text: &str) -> Result<u64, String> {
    u64::from_str_radix(text, 16).map_err(|_| format!("strconv.ParseUint: parsing {text:?}: invalid syntax"))
}

fn id_of(args: &[String]) -> Result<u64, CliError> {
    let [id] = args else { return Err(CliError::arguments("member ID is not provided")) };
    parse_id(id)
        .map_err(|error| CliError::arguments(format!("bad member ID arg ({error}), expecting ID in Hex")))
}

fn urls(list: &str) -> Result<Vec<String>, CliError> {
    if list.is_empty() {
        return Err(CliError::arguments("member peer urls not provided")
            .hint("--peer-urls says where the others reach it, as http://10.0.0.4:2380"));
    }
    Ok(list.split(',').map(str::to_owned).collect())
}

async fn list(client: &Client, output: Output, consistency: &str) -> Result<(), CliError> {
    let linearizable = match consistency {
        "l" => true,
        "s" => false,
        other => return Err(CliError::new(Kind::Feature, format!("unknown consistency flag {other:?}"))),
    };
    output.members(&client.cluster().member_list(MemberListRequest { linearizable }).await?)
}

pub(crate) async fn run(global: &Global, args: MemberArgs) -> Result<(), CliError> {
    let output = Output::new(global)?;
    let client = connect::client(global)?;
    let cluster = client.cluster();
    match args.command {
        MemberCommand::List { consistency } => list(&client, output, &consistency).await,
        MemberCommand::Add { args, peer_urls, learner } => {
            let [name] = args.as_slice() else {
                return Err(CliError::arguments("member name not provided"));
            };
            let request = MemberAddRequest { peer_ur_ls: urls(&peer_urls)?, is_learner: learner };
            output.member_added(name, &cluster.member_add(request).await?)
        }
        MemberCommand::Remove { args } => {
            let id = id_of(&args)?;
            let answer = cluster.member_remove(MemberRemoveRequest { id }).await?;
            output.member_changed(id, MemberChange::Removed, &answer, answer.header.as_ref(), &answer.members)
        }
        MemberCommand::Update { args, peer_urls } => {
            let id = id_of(&args)?;
            let request = MemberUpdateRequest { id, peer_ur_ls: urls(&peer_urls)? };
            let answer = cluster.member_update(request).await?;
            output.member_changed(id, MemberChange::Updated, &answer, answer.header.as_ref(), &answer.members)
        }
        MemberCommand::Promote { args } => {
            let id = id_of(&args)?;
            let answer = cluster.member_promote(MemberPromoteRequest { id }).await?;
            let change = MemberChange::Promoted;
            output.member_changed(id, change, &answer, answer.header.as_ref(), &answer.members)
        }
    }
}
