//! `etcfs role`

use std::ffi::OsString;

use bytes::Bytes;
use clap::{Args, Subcommand};
use etcfs_fs::map::{KeyMap, rights};
use etcfs_proto::{
    authpb::{Permission, permission::Type},
    etcdserverpb::{
        AuthRoleAddRequest, AuthRoleDeleteRequest, AuthRoleGetRequest, AuthRoleGrantPermissionRequest,
        AuthRoleRevokePermissionRequest,
    },
    key::{TO_END, prefix_end},
};

use crate::{args, args::Global, connect, error::CliError, output::Output};

/// Makes roles and says which keys they may read and write.
#[derive(Args, Debug)]
pub(crate) struct RoleArgs {
    #[command(subcommand)]
    command: RoleCommand,
}

#[derive(Debug, Subcommand)]
enum RoleCommand {
    /// Makes a role that may do nothing yet.
    #[command(after_help = "Example: etcfs role add dev")]
    Add {
        #[arg(value_name = "ROLE")]
        args: Vec<String>,
    },
    /// Removes a role, from its users too.
    #[command(after_help = "Example: etcfs role delete dev")]
    Delete {
        #[arg(value_name = "ROLE")]
        args: Vec<String>,
    },
    /// Shows what a role may do.
    #[command(after_help = "Example: etcfs role get dev")]
    Get {
        #[arg(value_name = "ROLE")]
        args: Vec<String>,
    },
    /// Lists all roles.
    #[command(after_help = "Example: etcfs role list")]
    List,
    /// Lets a role read, write or readwrite keys: ROLE TYPE KEY [RANGE_END]
    #[command(after_help = "Example: etcfs role grant-permission --prefix dev readwrite /project/")]
    // As far as etcdctl needs it, which has no grant-mount.
    #[command(aliases = ["gr", "gra", "gran", "grant", "grant-"])]
    GrantPermission {
        #[arg(value_name = "ARGUMENT")]
        args: Vec<OsString>,
        #[command(flatten)]
        reach: Reach,
    },
    /// Lets a role mount the keys below a prefix, as in a mount's SOURCE: ROLE PREFIX
    #[command(after_help = "Example: etcfs role grant-mount dev /project")]
    GrantMount {
        #[arg(value_name = "ARGUMENT")]
        args: Vec<String>,
        /// Only to read: for mounts with `-o ro`
        #[arg(long)]
        read_only: bool,
    },
    /// Takes a permission away, named as it was granted: ROLE KEY [RANGE_END]
    #[command(after_help = "Example: etcfs role revoke-permission --prefix dev /project/")]
    RevokePermission {
        #[arg(value_name = "ARGUMENT")]
        args: Vec<OsString>,
        #[command(flatten)]
        reach: Reach,
    },
}

/// Which keys a permission is about, beside the key that is named.
#[derive(Args, Clone, Copy, Debug)]
struct Reach {
    /// All keys that start with KEY
    #[arg(long)]
    prefix: bool,
    /// All keys from KEY on
    #[arg(long)]
    from_key: bool,
}

/// Where mounts keep what they remember of changes: whoever gets the role, below it by his name.
const CHANGES: &str = ".etcfs/op/";

const PREFIX: Reach = Reach { prefix: true, from_key: false };

impl Reach {
    /// Key and end as the server wants them.
    fn bounds(self, key: Bytes, end: Option<Bytes>) -> Result<(Bytes, Bytes), CliError> {
        let all = (Bytes::from_static(b"\0"), Bytes::from_static(TO_END));
        let unexpected =
            |flag: &str| Err(CliError::arguments(format!("unexpected endkey argument with {flag} flag")));
        match (self.prefix, self.from_key, end) {
            (true, true, _) => {
                Err(CliError::arguments("--from-key and --prefix flags are mutually exclusive"))
            }
            (true, false, Some(_)) => unexpected("--prefix"),
            (false, true, Some(_)) => unexpected("--from-key"),
            (true, false, None) | (false, true, None) if key.is_empty() => Ok(all),
            (true, false, None) => Ok((key.clone(), prefix_end(&key))),
            (false, true, None) => Ok((key, Bytes::from_static(TO_END))),
            (false, false, end) => Ok((key, end.unwrap_or_default())),
        }
    }
}

fn permission_type(word: &OsString) -> Result<Type, CliError> {
    match word.to_string_lossy().to_lowercase().as_str() {
        "read" => Ok(Type::Read),
        "write" => Ok(Type::Write),
        "readwrite" => Ok(Type::Readwrite),
        other => Err(CliError::arguments(format!("invalid permission type: {other}"))
            .hint("the types are read, write and readwrite")),
    }
}

fn name_of(args: Vec<String>, command: &str) -> Result<String, CliError> {
    match <[String; 1]>::try_from(args) {
        Ok([name]) => Ok(name),
        Err(_) => {
            Err(CliError::arguments(format!("role {command} command requires role name as its argument")))
        }
    }
}

pub(crate) async fn run(global: &Global, args: RoleArgs) -> Result<(), CliError> {
    let output = Output::new(global)?;
    let client = connect::client(global)?;
    let auth = client.auth();
    match args.command {
        RoleCommand::Add { args } => {
            let name = name_of(args, "add")?;
            let answer = auth.role_add(AuthRoleAddRequest { name: name.clone() }).await?;
            output.acknowledged(&answer, answer.header.as_ref(), format_args!("Role {name} created"))
        }
        RoleCommand::Delete { args } => {
            let role = name_of(args, "delete")?;
            let answer = auth.role_delete(AuthRoleDeleteRequest { role: role.clone() }).await?;
            output.acknowledged(&answer, answer.header.as_ref(), format_args!("Role {role} deleted"))
        }
        RoleCommand::Get { args } => {
            let role = name_of(args, "get")?;
            let answer = auth.role_get(AuthRoleGetRequest { role: role.clone() }).await?;
            output.role(&role, &answer)
        }
        RoleCommand::List => output.roles(&auth.role_list().await?),
        RoleCommand::GrantPermission { args, reach } => {
            let mut args = args.into_iter();
            let (Some(role), Some(kind), Some(key), end, None) =
                (args.next(), args.next(), args.next(), args.next(), args.next())
            else {
                return Err(CliError::arguments(
                    "role grant command requires role name, permission type, and key [endkey] as its argument",
                ));
            };
            let perm_type = permission_type(&kind)?.into();
            let (key, range_end) = reach.bounds(args::bytes(key), end.map(args::bytes))?;
            let role = role.to_string_lossy().into_owned();
            let request = AuthRoleGrantPermissionRequest {
                name: role.clone(),
                perm: Some(Permission { perm_type, key, range_end }),
            };
            let answer = auth.role_grant_permission(request).await?;
            output.acknowledged(&answer, answer.header.as_ref(), format_args!("Role {role} updated"))
        }
        RoleCommand::GrantMount { args, read_only } => {
            let Ok([name, prefix]) = <[String; 2]>::try_from(args) else {
                return Err(CliError::arguments(
                    "role grant-mount command requires role name and prefix as its argument",
                ));
            };
            let prefix =
                KeyMap::parse_prefix(&prefix).map_err(|error| CliError::arguments(error.to_string()))?;
            let perm_type = if read_only { Type::Read } else { Type::Readwrite }.into();
            let mut last = None;
            for (_, range) in rights::ranges(&prefix, read_only, CHANGES) {
                let (key, range_end) = PREFIX.bounds(range.start, None)?;
                let perm = Some(Permission { perm_type, key, range_end });
                let request = AuthRoleGrantPermissionRequest { name: name.clone(), perm };
                last = Some(auth.role_grant_permission(request).await?);
            }
            let answer = last.expect("a mount needs its keys at least");
            output.acknowledged(&answer, answer.header.as_ref(), format_args!("Role {name} updated"))
        }
        RoleCommand::RevokePermission { args, reach } => {
            let mut args = args.into_iter();
            let (Some(role), Some(key), end, None) = (args.next(), args.next(), args.next(), args.next())
            else {
                return Err(CliError::arguments(
                    "role revoke-permission command requires role name and key [endkey] as its argument",
                ));
            };
            let (key, range_end) = reach.bounds(args::bytes(key), end.map(args::bytes))?;
            let role = role.to_string_lossy().into_owned();
            let what = output.permitted(&key, &range_end);
            let request = AuthRoleRevokePermissionRequest { role: role.clone(), key, range_end };
            let answer = auth.role_revoke_permission(request).await?;
            let text = format_args!("Permission of {what} is revoked from role {role}");
            output.acknowledged(&answer, answer.header.as_ref(), text)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permission_reaches_a_key_a_range_a_prefix_or_to_the_end() {
        let reach = |prefix, from_key, key: &'static str, end: Option<&'static str>| {
            Reach { prefix, from_key }.bounds(key.into(), end.map(Bytes::from)).ok()
        };
        let pair = |key: &'static str, end: &'static str| Some((Bytes::from(key), Bytes::from(end)));
        assert_eq!(reach(false, false, "a", None), pair("a", ""));
        assert_eq!(reach(false, false, "a", Some("c")), pair("a", "c"));
        assert_eq!(reach(true, false, "a/", None), pair("a/", "a0"));
        assert_eq!(reach(true, false, "", None), pair("\0", "\0"));
        assert_eq!(reach(false, true, "k", None), pair("k", "\0"));
        assert_eq!(reach(true, false, "a", Some("c")), None);
        assert_eq!(reach(true, true, "a", None), None);
    }
}
