//! Servers that another program starts: no flags, no environment, the defaults.

use std::{net::SocketAddr, path::PathBuf};

use super::{Config, ConfigError, Invocation, parse};

/// The place of a server in a cluster that the same program starts.
#[derive(Clone, Debug)]
pub struct EmbeddedMember {
    pub name: String,
    /// Where the others reach it.
    pub peer: SocketAddr,
    /// As `--initial-cluster` has it.
    pub initial_cluster: String,
    pub token: String,
}

impl Config {
    /// A server of one member inside another program, serving at `client`.
    pub fn embedded(data_dir: PathBuf, client: SocketAddr) -> Self {
        match embedded(data_dir, client, Vec::new()) {
            // It stays alone, so nobody need reach it.
            Ok(config) => Self { listen_peer: Vec::new(), ..config },
            Err(_) => unreachable!("defaults with a loopback address are a valid configuration"),
        }
    }

    /// A server of several.
    pub fn embedded_member(
        data_dir: PathBuf,
        client: SocketAddr,
        member: EmbeddedMember,
    ) -> Result<Self, ConfigError> {
        let peer = format!("http://{}", member.peer);
        let args = [
            format!("--name={}", member.name),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster={}", member.initial_cluster),
            format!("--initial-cluster-token={}", member.token),
        ];
        embedded(data_dir, client, args.into())
    }
}

fn embedded(data_dir: PathBuf, client: SocketAddr, args: Vec<String>) -> Result<Config, ConfigError> {
    let url = format!("http://{client}");
    let argv = [
        "etcfsd".to_owned(),
        format!("--listen-client-urls={url}"),
        format!("--advertise-client-urls={url}"),
        "--log-format=console".to_owned(),
    ];
    match parse(argv.into_iter().chain(args).map(Into::into), std::iter::empty())? {
        Invocation::Serve(config) => Ok(Config { data_dir, ..*config }),
        Invocation::Version | Invocation::Help(_) | Invocation::Print(_) => {
            unreachable!("neither is asked for")
        }
    }
}
