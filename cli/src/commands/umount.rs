//! `etcfs umount`

use std::{io, path::PathBuf};

use clap::Args;

use crate::error::CliError;

/// Takes a mount away.
#[derive(Args, Debug)]
#[command(after_help = "Example: etcfs umount /mnt")]
pub(crate) struct UmountArgs {
    /// Where it is mounted
    dir: PathBuf,
    /// Also while it is in use: users of it go on until they close it
    #[arg(long)]
    lazy: bool,
}

pub(crate) fn run(args: &UmountArgs) -> Result<(), CliError> {
    // Not canonical: a dead mount answers nothing, and its path is what counts.
    let dir = std::path::absolute(&args.dir)?;
    let Err(error) = etcfs_fs::mounts::unmount(&dir, args.lazy) else { return Ok(()) };
    let failed = CliError::failed(format!("{}: {error}", dir.display()));
    Err(match error.kind() {
        io::ErrorKind::ResourceBusy => {
            failed.hint("a program uses it (`fuser -vm DIR` says which); --lazy does not wait")
        }
        io::ErrorKind::InvalidInput => CliError::failed(format!("{} is no mount point", dir.display())),
        _ => failed,
    })
}
