//! `etcfs whoami`

use clap::Args;
use etcfs_client::{ClientError, Code};
use etcfs_proto::etcdserverpb::{AuthRoleGetRequest, AuthUserGetRequest};

use crate::{args::Global, connect, error::CliError, output::Output};

/// Shows who we are to the servers: our roles, and which keys they let us read and write.
#[derive(Args, Debug)]
#[command(after_help = "Example: ETCFS_PASSWORD=secret etcfs --user alice whoami")]
pub(crate) struct WhoamiArgs {}

pub(crate) async fn run(global: &Global, _: WhoamiArgs) -> Result<(), CliError> {
    let output = Output::new(global)?;
    let client = connect::client(global)?;
    let auth = client.auth();
    match auth.auth_status().await {
        Ok(status) if !status.enabled => {
            anstream::println!("Authentication is off: everybody may do everything.");
            return Ok(());
        }
        // Servers before 3.5 do not know the question, and those with users may not answer everybody.
        Ok(_) => {}
        Err(ClientError::Status {
            code: Code::Unimplemented | Code::PermissionDenied | Code::InvalidArgument,
            ..
        }) => {}
        Err(error) => return Err(error.into()),
    }
    let Some(user) = &global.security.user else {
        return Err(match global.security.cert {
            Some(_) => CliError::failed("the servers take our name from the certificate's common name")
                .hint("`etcfs user get NAME` shows its roles"),
            None => CliError::failed("nobody: no user was named")
                .hint("--user NAME, with the password in ETCFS_PASSWORD"),
        });
    };
    let name = match (&global.security.password, user.split_once(':')) {
        (None, Some((name, _))) => name,
        _ => user,
    };
    let found = auth.user_get(AuthUserGetRequest { name: name.to_owned() }).await?;
    output.user(name, &found)?;
    for role in found.roles {
        let rights = auth.role_get(AuthRoleGetRequest { role: role.clone() }).await?;
        output.role(&role, &rights)?;
    }
    Ok(())
}
