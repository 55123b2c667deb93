//! `etcfs whoami`

use std::{fs, path::Path};

use clap::Args;
use etcfs_client::{ClientError, Code};
use etcfs_proto::etcdserverpb::{AuthRoleGetRequest, AuthUserGetRequest};

use crate::{
    args::{Global, Security},
    connect,
    error::CliError,
    output::Output,
};

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
    let name = name(&global.security)?;
    let found = auth.user_get(AuthUserGetRequest { name: name.clone() }).await?;
    output.user(&name, &found)?;
    for role in found.roles {
        let rights = auth.role_get(AuthRoleGetRequest { role: role.clone() }).await?;
        output.role(&role, &rights)?;
    }
    Ok(())
}

/// Who the servers take us for: the user that was named, else the name in our certificate.
fn name(security: &Security) -> Result<String, CliError> {
    match (&security.user, &security.password, &security.cert) {
        (Some(user), None, _) => Ok(user.split_once(':').map_or(user.as_str(), |(name, _)| name).to_owned()),
        (Some(user), Some(_), _) => Ok(user.clone()),
        (None, _, Some(cert)) => common_name(cert),
        (None, _, None) => Err(CliError::failed("nobody: no user was named")
            .hint("--user NAME, with the password in ETCFS_PASSWORD")),
    }
}

/// The common name of a certificate (PEM).
fn common_name(path: &Path) -> Result<String, CliError> {
    let failed = |why: String| CliError::failed(format!("{}: {why}", path.display()));
    let pem = fs::read(path).map_err(|error| failed(error.to_string()))?;
    let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).map_err(|error| failed(error.to_string()))?;
    let certificate = pem.parse_x509().map_err(|error| failed(error.to_string()))?;
    let mut names = certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok());
    let name = names.next().filter(|name| !name.is_empty());
    name.map(str::to_owned).ok_or_else(|| {
        failed("the certificate has no common name, so its owner is nobody".to_owned())
            .hint("--user NAME, with the password in ETCFS_PASSWORD")
    })
}
