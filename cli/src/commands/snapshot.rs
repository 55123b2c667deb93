//! `etcfs snapshot`

mod offline;

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use etcfs_client::Client;
use sha2::{Digest as _, Sha256};

use crate::{
    args::Global,
    connect,
    error::{CliError, Kind},
    output::progress,
};

/// Bytes of the hash that ends the file.
const HASH_BYTES: usize = 32;

/// Saves all that a member stores as a file, and makes new members out of such.
#[derive(Args, Debug)]
pub(crate) struct SnapshotArgs {
    #[command(subcommand)]
    command: SnapshotCommand,
}

#[derive(Debug, Subcommand)]
enum SnapshotCommand {
    /// Writes a snapshot of one member to a file; only a whole one gets its name.
    #[command(after_help = "Example: etcfs snapshot save backup.db")]
    Save {
        #[arg(value_name = "FILE")]
        args: Vec<PathBuf>,
    },
    /// Checks a file, and tells its hash, revision, number of rows, size and version.
    #[command(after_help = "Example: etcfs snapshot status -w table backup.db")]
    Status {
        #[arg(value_name = "FILE")]
        args: Vec<PathBuf>,
    },
    /// Makes the data directory of a member of a new cluster out of a file.
    #[command(after_help = "Example: etcfs snapshot restore --data-dir node1.etcd backup.db")]
    Restore(offline::RestoreArgs),
}

pub(crate) async fn run(global: &Global, args: SnapshotArgs) -> Result<(), CliError> {
    let args = match args.command {
        SnapshotCommand::Save { args } => args,
        SnapshotCommand::Status { args } => return offline::status(global, &args),
        SnapshotCommand::Restore(args) => return offline::restore(&args),
    };
    let [path] = args.as_slice() else {
        return Err(CliError::arguments("snapshot save expects one argument"));
    };
    if global.endpoints.len() != 1 {
        let given = global.endpoints.join(" ");
        return Err(CliError::arguments(format!(
            "snapshot must be requested to one selected node, not multiple [{given}]"
        )));
    }
    let client = connect::client(global)?;
    let part = part_of(path);
    let saved = save(&client, &part, path).await;
    if saved.is_err() {
        // What is half there is worth nothing.
        drop(fs::remove_file(&part));
    }
    saved?;
    anstream::println!("Snapshot saved at {}", path.display());
    Ok(())
}

fn part_of(path: &Path) -> PathBuf {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    part.into()
}

/// Writes all of it beside `path`, checks it, and gives it its name once it is on disk.
async fn save(client: &Client, part: &Path, path: &Path) -> Result<(), CliError> {
    let failed = |error: io::Error| {
        let part = part.display();
        CliError::new(Kind::Interrupted, format!("could not open {part} (open {part}: {error})"))
    };
    let mut file = File::create(part).map_err(failed)?;
    let mut stream = client.maintenance().snapshot().await?;
    let mut check = Check::default();
    let progress = progress::of_bytes();
    while let Some(chunk) = stream.next().await? {
        file.write_all(&chunk.blob)?;
        check.take(&chunk.blob);
        progress.set_length(check.bytes + chunk.remaining_bytes);
        progress.set_position(check.bytes);
    }
    progress.finish_and_clear();
    check.done()?;
    file.sync_all()?;
    fs::rename(part, path)?;
    // The new name is to survive a power cut as well.
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok(File::open(dir)?.sync_all()?)
}

/// Hashes a file that ends with its own hash.
#[derive(Default)]
struct Check {
    bytes: u64,
    hash: Sha256,
    /// The last bytes, which may be the hash and not part of what is hashed.
    tail: Vec<u8>,
}

impl Check {
    fn take(&mut self, chunk: &[u8]) {
        self.bytes += chunk.len() as u64;
        self.tail.extend_from_slice(chunk);
        let body = self.tail.len().saturating_sub(HASH_BYTES);
        self.hash.update(&self.tail[..body]);
        self.tail.drain(..body);
    }

    fn done(self) -> Result<(), CliError> {
        if self.hash.finalize().as_slice() == self.tail {
            return Ok(());
        }
        Err(CliError::failed("the snapshot came damaged: its hash is not that of its content")
            .hint("nothing was saved; try again, or another member"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(chunks: &[&[u8]]) -> bool {
        let mut check = Check::default();
        chunks.iter().for_each(|chunk| check.take(chunk));
        check.done().is_ok()
    }

    #[test]
    fn a_snapshot_is_whole_however_it_is_cut_or_it_is_refused() {
        let body = vec![7; 1000];
        let mut file = body.clone();
        file.extend_from_slice(&Sha256::digest(&body));
        assert!(checked(&[&file]));
        assert!(checked(&file.chunks(33).collect::<Vec<_>>()));
        assert!(checked(&[&file[..990], &file[990..1010], &file[1010..]]));
        assert!(!checked(&[&file[..1000]]));
        assert!(!checked(&[&file[1..]]));
        assert!(!checked(&[]));
    }
}
