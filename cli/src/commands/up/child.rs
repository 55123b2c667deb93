//! What a child of `up` does: be the server or the mount, and end with `up`.

use std::{ffi::OsString, net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::{Args, Subcommand};
use etcfs_server::config::EmbeddedMember;
use rustix::process::{Signal, getppid, set_parent_process_death_signal};

use crate::error::CliError;

/// The name of the hidden command.
pub(crate) const NAME: &str = "up-child";

#[derive(Args, Debug)]
pub(crate) struct ChildArgs {
    /// Process ID of `up`
    #[arg(long)]
    parent: i32,
    #[command(subcommand)]
    part: PartArgs,
}

#[derive(Debug, Subcommand)]
enum PartArgs {
    Server {
        data_dir: PathBuf,
        listen: SocketAddr,
    },
    Member {
        data_dir: PathBuf,
        listen: SocketAddr,
        name: String,
        peer: SocketAddr,
        initial_cluster: String,
        token: String,
    },
    Mount {
        source: OsString,
        dir: PathBuf,
    },
}

/// Becomes the part. Call it before there is any thread.
pub(crate) fn run(args: ChildArgs) -> Result<ExitCode, CliError> {
    // Also when `up` is killed: the server closes its log, the mount puts what it holds.
    set_parent_process_death_signal(Some(Signal::TERM)).map_err(std::io::Error::from)?;
    if getppid().map(|pid| pid.as_raw_nonzero().get()) != Some(args.parent) {
        return Err(CliError::failed("`etcfs up` is gone already"));
    }
    Ok(match args.part {
        PartArgs::Server { data_dir, listen } => {
            etcfs_server::process::serve(etcfs_server::Config::embedded(data_dir, listen))
        }
        PartArgs::Member { data_dir, listen, name, peer, initial_cluster, token } => {
            let member = EmbeddedMember { name, peer, initial_cluster, token };
            let config = etcfs_server::Config::embedded_member(data_dir, listen, member);
            etcfs_server::process::serve(config.map_err(|error| CliError::failed(error.to_string()))?)
        }
        PartArgs::Mount { source, dir } => {
            etcfs_fs::main_with([OsString::from(etcfs_fs::AS_COMMAND), source, dir.into(), "-f".into()])
        }
    })
}
