//! What needs no server: looking at a snapshot file, and a new member out of it.
//! The flags are etcdutl's.

use std::path::PathBuf;

use clap::Args;
use etcfs_server::offline::{self, Member, Options};

use crate::{args::Global, error::CliError, output::Output};

#[derive(Args, Debug)]
pub(super) struct RestoreArgs {
    #[arg(value_name = "FILE")]
    args: Vec<PathBuf>,
    /// Where the data is to lie; must not be there, or be empty [default: NAME.etcd]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Name of the member
    #[arg(long, default_value = "default", value_name = "NAME")]
    name: String,
    /// All members of the new cluster as name=url, separated by commas [default: this one alone]
    #[arg(long, value_name = "LIST")]
    initial_cluster: Option<String>,
    /// Tells clusters with the same URLs apart
    #[arg(long, default_value = "etcd-cluster", value_name = "TOKEN")]
    initial_cluster_token: String,
    /// Where the others will reach this member
    #[arg(long, default_value = "http://localhost:2380", value_name = "LIST")]
    initial_advertise_peer_urls: String,
    /// Take a file that has no hash behind it, as one out of a data directory
    #[arg(long)]
    skip_hash_check: bool,
    /// Raise the revision by so much, so that clients see none twice
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "NUMBER")]
    bump_revision: u64,
    /// Refused: the log lies in the data directory
    #[arg(long, value_name = "DIR")]
    wal_dir: Option<PathBuf>,
    /// Taken from scripts for etcdutl, and changes nothing: nothing is mapped into memory
    #[arg(long, value_name = "BYTES")]
    initial_memory_map_size: Option<u64>,
    /// End the history there, so that clients that know of an older one read anew
    #[arg(long)]
    mark_compacted: bool,
}

pub(super) fn status(global: &Global, args: &[PathBuf]) -> Result<(), CliError> {
    let [path] = args else {
        return Err(CliError::arguments("snapshot status requires exactly one argument"));
    };
    let status = offline::status(path).map_err(|error| CliError::failed(error.to_string()))?;
    Output::new(global)?.snapshot_status(&status.into())
}

impl From<offline::Status> for crate::output::SnapshotStatus {
    fn from(status: offline::Status) -> Self {
        let offline::Status { hash, revision, rows, bytes, version } = status;
        Self { hash, revision, rows, bytes, version: version.to_owned() }
    }
}

pub(super) fn restore(args: &RestoreArgs) -> Result<(), CliError> {
    let [snapshot] = args.args.as_slice() else {
        return Err(CliError::arguments("snapshot restore requires exactly one argument"));
    };
    if let Some(dir) = &args.wal_dir {
        let dir = dir.display();
        return Err(CliError::arguments(format!("--wal-dir {dir}: the log lies in the data directory"))
            .hint("leave it out; --data-dir on a fast disk serves the same end"));
    }
    if (args.bump_revision > 0) != args.mark_compacted {
        return Err(CliError::arguments(
            "--bump-revision and --mark-compacted go together: revisions that never were can't be read",
        ));
    }
    let member = Member {
        name: args.name.clone(),
        data_dir: args.data_dir.clone(),
        initial_cluster: args.initial_cluster.clone(),
        initial_cluster_token: args.initial_cluster_token.clone(),
        initial_advertise_peer_urls: args.initial_advertise_peer_urls.clone(),
    };
    let options = Options {
        skip_hash_check: args.skip_hash_check,
        bump_revision: args.bump_revision,
        mark_compacted: args.mark_compacted,
    };
    let restored = offline::member(snapshot, &member, options).map_err(|error| match error {
        offline::Error::Settings(error) => CliError::arguments(error.to_string()),
        offline::Error::Restore(error) => CliError::failed(error.to_string()),
    })?;
    anstream::println!(
        "Snapshot restored to {}: member {:x} of cluster {:x}",
        restored.data_dir.display(),
        restored.member_id,
        restored.cluster_id
    );
    Ok(())
}
