//! `etcfs lease`

use clap::{Args, Subcommand};
use etcfs_client::ClientError;
use etcfs_proto::etcdserverpb::{LeaseGrantRequest, LeaseTimeToLiveRequest};
use futures_util::StreamExt as _;

use crate::{
    args::Global,
    connect,
    error::{CliError, Kind},
    output::{Format, Output},
};

/// Grants, renews, shows and revokes leases: keys attached to one end with it.
#[derive(Args, Debug)]
pub(crate) struct LeaseArgs {
    #[command(subcommand)]
    command: LeaseCommand,
}

#[derive(Debug, Subcommand)]
enum LeaseCommand {
    /// Creates a lease and prints its ID.
    #[command(after_help = "Example: etcfs lease grant 60")]
    Grant {
        /// Seconds that it lives without renewal
        #[arg(value_name = "TTL")]
        args: Vec<String>,
    },
    /// Ends a lease and removes its keys.
    #[command(after_help = "Example: etcfs lease revoke 694d9a2f5e3c1b07")]
    Revoke {
        /// The lease, in hexadecimal
        #[arg(value_name = "ID")]
        args: Vec<String>,
    },
    /// Shows what is left of a lease.
    #[command(after_help = "Example: etcfs lease timetolive --keys 694d9a2f5e3c1b07")]
    Timetolive {
        /// The lease, in hexadecimal
        #[arg(value_name = "ID")]
        args: Vec<String>,
        /// Show its keys too
        #[arg(long)]
        keys: bool,
    },
    /// Lists the leases that live.
    #[command(after_help = "Example: etcfs lease list")]
    List,
    /// Renews a lease until it is stopped or the lease is gone.
    #[command(after_help = "Example: etcfs lease keep-alive 694d9a2f5e3c1b07")]
    KeepAlive {
        /// The lease, in hexadecimal
        #[arg(value_name = "ID")]
        args: Vec<String>,
        /// Renew once and stop
        #[arg(long)]
        once: bool,
    },
}

/// A lease's ID as etcdctl takes it; `what` begins the complaint.
pub(super) fn parse_id(text: &str, what: &str) -> Result<i64, CliError> {
    i64::from_str_radix(text, 16).map_err(|_| {
        let reason = format!("strconv.ParseInt: parsing {text:?}: invalid syntax");
        CliError::arguments(format!("{what} ({reason}), expecting ID in Hex"))
    })
}

fn id_of(args: &[String], complaint: &str) -> Result<i64, CliError> {
    match args {
        [id] => parse_id(id, "bad lease ID arg"),
        _ => Err(CliError::arguments(complaint)),
    }
}

pub(crate) async fn run(global: &Global, args: LeaseArgs) -> Result<(), CliError> {
    let output = Output::new(global)?;
    let client = connect::client(global)?;
    match args.command {
        LeaseCommand::Grant { args } => {
            let [ttl] = args.as_slice() else {
                return Err(CliError::arguments("lease grant command needs TTL argument"));
            };
            let ttl: i64 = ttl.parse().map_err(|_| {
                CliError::arguments(format!("bad TTL (strconv.ParseInt: parsing {ttl:?}: invalid syntax)"))
            })?;
            let granted = client.lease().grant(LeaseGrantRequest { ttl, id: 0 }).await;
            let granted = granted.map_err(|error| {
                CliError::from(error).reworded(Kind::Failed, |m| format!("failed to grant lease ({m})"))
            })?;
            output.lease_grant(&granted)
        }
        LeaseCommand::Revoke { args } => {
            let id = id_of(&args, "lease revoke command needs 1 argument")?;
            let revoked = client.lease().revoke(id).await.map_err(|error| {
                CliError::from(error).reworded(Kind::Failed, |m| format!("failed to revoke lease ({m})"))
            })?;
            output.lease_revoke(id, &revoked)
        }
        LeaseCommand::Timetolive { args, keys } => {
            let id = id_of(&args, "lease timetolive command needs lease ID as argument")?;
            let left = client.lease().time_to_live(LeaseTimeToLiveRequest { id, keys }).await?;
            output.lease_time_to_live(&left, keys)
        }
        LeaseCommand::List => output.leases(&client.lease().leases().await?),
        LeaseCommand::KeepAlive { args, once } => {
            let id = id_of(&args, "lease keep-alive command needs lease ID as argument")?;
            if once {
                return match client.lease().keep_alive_once(id).await {
                    Ok(renewed) => output.lease_keep_alive(&renewed),
                    Err(ClientError::LeaseGone { .. }) => {
                        Err(CliError::new(Kind::Connection, "etcdserver: requested lease not found"))
                    }
                    Err(error) => {
                        let message = CliError::from(error);
                        Err(message.reworded(Kind::Connection, str::to_owned))
                    }
                };
            }
            let mut renewals = client.lease().keep_alive(id);
            while let Some(renewal) = renewals.next().await {
                match renewal {
                    Ok(renewed) => output.lease_keep_alive(&renewed)?,
                    Err(ClientError::LeaseGone { .. }) if output.format != Format::Simple => {}
                    Err(ClientError::LeaseGone { .. }) => {
                        anstream::println!("lease {id:016x} expired or revoked.");
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            Ok(())
        }
    }
}
