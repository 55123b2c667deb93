//! `etcfs move-leader`

use clap::Args;
use etcfs_client::Client;

use super::member::parse_id;
use crate::{args::Global, connect, error::CliError};

/// Hands leadership to another member.
#[derive(Args, Debug)]
#[command(after_help = "Example: etcfs move-leader 8e9e05c52164694d")]
pub(crate) struct MoveLeaderArgs {
    /// Who is to lead, in hexadecimal
    #[arg(value_name = "ID")]
    args: Vec<String>,
}

pub(crate) async fn run(global: &Global, args: &MoveLeaderArgs) -> Result<(), CliError> {
    let [target] = args.args.as_slice() else {
        return Err(CliError::arguments("move-leader command needs 1 argument"));
    };
    let target = parse_id(target).map_err(CliError::arguments)?;
    let (leader, client) = find_leader(global).await?;
    client.maintenance().move_leader(target).await?;
    anstream::println!("Leadership transferred from {leader:x} to {target:x}");
    Ok(())
}

/// Only the leader hands over, so it has to be among the endpoints.
async fn find_leader(global: &Global) -> Result<(u64, Client), CliError> {
    for endpoint in &global.endpoints {
        let client = connect::client_of(global, vec![endpoint.clone()])?;
        let status = client.maintenance().status().await?;
        let member = status.header.unwrap_or_default().member_id;
        if status.leader == member {
            return Ok((member, client));
        }
    }
    let given = global.endpoints.join(" ");
    Err(CliError::arguments(format!("no leader endpoint given at [{given}]"))
        .hint("`etcfs endpoint status --cluster` shows who leads; name all members in --endpoints"))
}
