//! `etcfs hashkv`

use std::path::PathBuf;

use clap::Args;
use etcfs_server::offline::{self, KvHash};

use crate::{
    args::Global,
    error::CliError,
    output::{Output, SnapshotHash},
};

/// Prints the hash of the keys and their history in a snapshot, as `endpoint hashkv` does of a member.
#[derive(Args, Debug)]
#[command(after_help = "Example: etcfs hashkv backup.db")]
pub(crate) struct HashkvArgs {
    #[arg(value_name = "FILE")]
    args: Vec<PathBuf>,
    /// Newest revision that counts [default: the newest of all]
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "REVISION")]
    rev: i64,
}

pub(crate) fn run(global: &Global, args: &HashkvArgs) -> Result<(), CliError> {
    let [path] = args.args.as_slice() else {
        return Err(CliError::arguments("hashkv requires exactly one argument"));
    };
    let hash = offline::hash_kv(path, args.rev).map_err(|error| CliError::failed(error.to_string()))?;
    let KvHash { hash, hash_revision: revision, compact_revision } = hash;
    Output::new(global)?.snapshot_hash(&SnapshotHash { hash, revision, compact_revision })
}
