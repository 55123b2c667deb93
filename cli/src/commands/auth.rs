//! `etcfs auth`

use clap::{Args, Subcommand};
use etcfs_client::{Client, ClientError};
use etcfs_proto::etcdserverpb::{AuthEnableResponse, AuthRoleAddRequest, AuthUserGrantRoleRequest};

use crate::{args::Global, connect, error::CliError, output::Output};

/// The user, and the role, that may do everything.
const ROOT: &str = "root";

/// Turns authentication on or off, or shows which it is.
#[derive(Args, Debug)]
pub(crate) struct AuthArgs {
    #[command(subcommand)]
    command: AuthCommand,
}

#[derive(Clone, Copy, Debug, Subcommand)]
enum AuthCommand {
    /// From now on every client has to name a user. Needs the user root.
    #[command(after_help = "Example: etcfs auth enable")]
    Enable,
    /// Everybody may do everything again.
    #[command(after_help = "Example: etcfs --user root auth disable")]
    Disable,
    /// Shows whether authentication is on.
    #[command(after_help = "Example: etcfs --user root auth status")]
    Status,
}

pub(crate) async fn run(global: &Global, args: AuthArgs) -> Result<(), CliError> {
    let output = Output::new(global)?;
    let client = connect::client(global)?;
    match args.command {
        AuthCommand::Enable => {
            let answer = enable(&client).await?;
            output.acknowledged(&answer, answer.header.as_ref(), "Authentication Enabled")
        }
        AuthCommand::Disable => {
            let answer = client.auth().auth_disable().await?;
            output.acknowledged(&answer, answer.header.as_ref(), "Authentication Disabled")
        }
        AuthCommand::Status => output.auth_status(&client.auth().auth_status().await?),
    }
}

/// Gives the user root its role first, where that is all that is missing.
async fn enable(client: &Client) -> Result<AuthEnableResponse, CliError> {
    let auth = client.auth();
    match auth.auth_enable().await {
        Err(ClientError::Status { message, .. }) if message.contains("root user does not have root role") => {
            // It may be there already.
            drop(auth.role_add(AuthRoleAddRequest { name: ROOT.into() }).await);
            auth.user_grant_role(AuthUserGrantRoleRequest { user: ROOT.into(), role: ROOT.into() }).await?;
            Ok(auth.auth_enable().await?)
        }
        answer => Ok(answer?),
    }
}
