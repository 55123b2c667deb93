//! `etcfs context`

use clap::{Args, Subcommand};

use crate::{
    contexts::{self, Contexts},
    error::CliError,
};

/// Names clusters, so that commands need not: kept in $XDG_CONFIG_HOME/etcfs/config.yaml.
///
/// A context is a set of global options. The current one is taken where neither the command line nor the
/// environment names servers; --context NAME takes another one.
#[derive(Args, Debug)]
#[command(
    after_help = "Example: etcfs context set prod endpoints=10.0.0.1:2379 user=alice password-file=prod.pw"
)]
pub(crate) struct ContextArgs {
    #[command(subcommand)]
    command: ContextCommand,
}

#[derive(Debug, Subcommand)]
enum ContextCommand {
    /// Lists the contexts; a star marks the current one.
    #[command(after_help = "Example: etcfs context list")]
    List,
    /// Makes one the current context, or with "" none.
    #[command(after_help = "Example: etcfs context use prod")]
    Use { name: String },
    /// Shows what a context sets, or the current one.
    #[command(after_help = "Example: etcfs context show prod")]
    Show { name: Option<String> },
    /// Makes or changes a context; the first one becomes the current one.
    ///
    /// SETTING is the name of a global option without its dashes; an empty VALUE unsets it.
    #[command(
        after_help = "Example: etcfs context set prod endpoints=10.0.0.1:2379,10.0.0.2:2379 user=alice"
    )]
    Set {
        name: String,
        #[arg(value_name = "SETTING=VALUE", required = true)]
        settings: Vec<String>,
    },
    /// Forgets a context.
    #[command(after_help = "Example: etcfs context delete prod")]
    Delete { name: String },
}

pub(crate) fn run(args: ContextArgs) -> Result<(), CliError> {
    let path = contexts::path()?;
    let mut contexts = Contexts::read(&path)?;
    match args.command {
        ContextCommand::List => {
            for name in contexts.contexts.keys() {
                let mark = if contexts.current_context.as_ref() == Some(name) { '*' } else { ' ' };
                anstream::println!("{mark} {name}");
            }
            return Ok(());
        }
        ContextCommand::Show { name } => {
            let Some(name) = name.or_else(|| contexts.current_context.clone()) else {
                return Err(
                    CliError::arguments("no context is the current one").hint("`etcfs context use NAME`")
                );
            };
            for (setting, value) in contexts.get(&name)? {
                anstream::println!("{setting}={value}");
            }
            return Ok(());
        }
        ContextCommand::Use { name } if name.is_empty() => contexts.current_context = None,
        ContextCommand::Use { name } => {
            contexts.get(&name)?;
            contexts.current_context = Some(name);
        }
        ContextCommand::Set { name, settings } => {
            if contexts.contexts.is_empty() {
                contexts.current_context = Some(name.clone());
            }
            for pair in settings {
                let Some((setting, value)) = pair.split_once('=') else {
                    return Err(CliError::arguments(format!("{pair}: a setting is SETTING=VALUE")));
                };
                contexts.set(&name, setting, value)?;
            }
        }
        ContextCommand::Delete { name } => {
            contexts.get(&name)?;
            contexts.contexts.remove(&name);
            if contexts.current_context.as_ref() == Some(&name) {
                contexts.current_context = None;
            }
        }
    }
    contexts.write(&path)
}
