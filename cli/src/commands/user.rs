//! `etcfs user`

use std::io::{self, BufRead as _, Write as _};

use clap::{Args, Subcommand};
use etcfs_proto::{
    authpb::UserAddOptions,
    etcdserverpb::{
        AuthRoleGetRequest, AuthUserAddRequest, AuthUserChangePasswordRequest, AuthUserDeleteRequest,
        AuthUserGetRequest, AuthUserGrantRoleRequest, AuthUserRevokeRoleRequest,
    },
};

use crate::{args::Global, connect, error::CliError, output::Output};

/// Makes users, sets their passwords, and gives them roles.
#[derive(Args, Debug)]
pub(crate) struct UserArgs {
    #[command(subcommand)]
    command: UserCommand,
}

#[derive(Debug, Subcommand)]
enum UserCommand {
    /// Makes a user; asks for the password, unless it is given as NAME:PASSWORD.
    #[command(after_help = "Example: etcfs user add alice")]
    Add {
        #[arg(value_name = "NAME")]
        args: Vec<String>,
        #[command(flatten)]
        interactive: Interactive,
        /// The password; better typed when it is asked for
        #[arg(long, default_value = "", hide_default_value = true, value_name = "PASSWORD")]
        new_user_password: String,
        /// A user who can't log in: known by a client certificate's name alone
        #[arg(long)]
        no_password: bool,
    },
    /// Removes a user.
    #[command(after_help = "Example: etcfs user delete alice")]
    Delete {
        #[arg(value_name = "NAME")]
        args: Vec<String>,
    },
    /// Shows a user's roles.
    #[command(after_help = "Example: etcfs user get --detail alice")]
    Get {
        #[arg(value_name = "NAME")]
        args: Vec<String>,
        /// Show what the roles may do, too
        #[arg(long)]
        detail: bool,
    },
    /// Lists all users.
    #[command(after_help = "Example: etcfs user list")]
    List,
    /// Sets a user's password.
    #[command(after_help = "Example: etcfs user passwd alice")]
    Passwd {
        #[arg(value_name = "NAME")]
        args: Vec<String>,
        #[command(flatten)]
        interactive: Interactive,
    },
    /// Gives a user a role.
    #[command(after_help = "Example: etcfs user grant-role alice dev")]
    GrantRole {
        #[arg(value_name = "NAME ROLE")]
        args: Vec<String>,
    },
    /// Takes a role from a user.
    #[command(after_help = "Example: etcfs user revoke-role alice dev")]
    RevokeRole {
        #[arg(value_name = "NAME ROLE")]
        args: Vec<String>,
    },
}

/// Where a password comes from.
#[derive(Args, Clone, Copy, Debug)]
struct Interactive {
    /// Ask for the password on the terminal; if false, the first line of standard input is it
    #[arg(long, default_value = "true")]
    interactive: bool,
}

impl Interactive {
    fn password(self, name: &str) -> Result<String, CliError> {
        if self.interactive {
            return asked_twice(name);
        }
        let mut line = String::new();
        io::stdin().lock().read_line(&mut line)?;
        Ok(line.trim_end_matches(['\n', '\r']).to_owned())
    }
}

/// Nothing that is typed is shown.
fn asked_twice(name: &str) -> Result<String, CliError> {
    let ask = |prompt: String| {
        io::stdout().lock().flush()?;
        rpassword::prompt_password(prompt)
    };
    let no_terminal = |error: io::Error| {
        CliError::arguments(format!("no password can be asked for: {error}"))
            .hint("--interactive=false reads it from standard input")
    };
    let first = ask(format!("Password of {name}: ")).map_err(no_terminal)?;
    let again = ask(format!("Type password of {name} again for confirmation: ")).map_err(no_terminal)?;
    if first != again {
        return Err(CliError::arguments("given passwords are different"));
    }
    Ok(first)
}

fn name_of(args: Vec<String>, command: &str) -> Result<String, CliError> {
    match <[String; 1]>::try_from(args) {
        Ok([name]) => Ok(name),
        Err(_) => {
            Err(CliError::arguments(format!("user {command} command requires user name as its argument")))
        }
    }
}

fn name_and_role(args: Vec<String>, command: &str) -> Result<(String, String), CliError> {
    match <[String; 2]>::try_from(args) {
        Ok([name, role]) => Ok((name, role)),
        Err(_) => Err(CliError::arguments(format!(
            "user {command} command requires user name and role name as its argument"
        ))),
    }
}

pub(crate) async fn run(global: &Global, args: UserArgs) -> Result<(), CliError> {
    let output = Output::new(global)?;
    let client = connect::client(global)?;
    let auth = client.auth();
    match args.command {
        UserCommand::Add { args, interactive, new_user_password, no_password } => {
            let word = name_of(args, "add")?;
            let (name, password) = match word.split_once(':') {
                _ if no_password || !new_user_password.is_empty() => (word, new_user_password),
                Some((name, password)) => (name.to_owned(), password.to_owned()),
                None => {
                    let password = interactive.password(&word)?;
                    (word, password)
                }
            };
            if name.is_empty() {
                return Err(CliError::arguments("empty user name is not allowed"));
            }
            let request = AuthUserAddRequest {
                name: name.clone(),
                password,
                options: Some(UserAddOptions { no_password }),
                ..AuthUserAddRequest::default()
            };
            let answer = auth.user_add(request).await?;
            output.acknowledged(&answer, answer.header.as_ref(), format_args!("User {name} created"))
        }
        UserCommand::Delete { args } => {
            let name = name_of(args, "delete")?;
            let answer = auth.user_delete(AuthUserDeleteRequest { name: name.clone() }).await?;
            output.acknowledged(&answer, answer.header.as_ref(), format_args!("User {name} deleted"))
        }
        UserCommand::Get { args, detail } => {
            let name = name_of(args, "get")?;
            let answer = auth.user_get(AuthUserGetRequest { name: name.clone() }).await?;
            if !detail {
                return output.user(&name, &answer);
            }
            anstream::println!("User: {name}");
            for role in answer.roles {
                let facts = auth.role_get(AuthRoleGetRequest { role: role.clone() }).await?;
                anstream::println!();
                output.role(&role, &facts)?;
            }
            Ok(())
        }
        UserCommand::List => output.users(&auth.user_list().await?),
        UserCommand::Passwd { args, interactive } => {
            let name = name_of(args, "passwd")?;
            let password = interactive.password(&name)?;
            let request =
                AuthUserChangePasswordRequest { name, password, ..AuthUserChangePasswordRequest::default() };
            let answer = auth.user_change_password(request).await?;
            output.acknowledged(&answer, answer.header.as_ref(), "Password updated")
        }
        UserCommand::GrantRole { args } => {
            let (user, role) = name_and_role(args, "grant-role")?;
            let request = AuthUserGrantRoleRequest { user: user.clone(), role: role.clone() };
            let answer = auth.user_grant_role(request).await?;
            let text = format_args!("Role {role} is granted to user {user}");
            output.acknowledged(&answer, answer.header.as_ref(), text)
        }
        UserCommand::RevokeRole { args } => {
            let (name, role) = name_and_role(args, "revoke-role")?;
            let request = AuthUserRevokeRoleRequest { name: name.clone(), role: role.clone() };
            let answer = auth.user_revoke_role(request).await?;
            let text = format_args!("Role {role} is revoked from user {name}");
            output.acknowledged(&answer, answer.header.as_ref(), text)
        }
    }
}
