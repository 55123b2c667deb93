//! `etcfs umount`

use std::{io, path::PathBuf, process::Command};

use clap::Args;
use rustix::mount::UnmountFlags;

use crate::error::CliError;

/// Takes a mount away.
#[derive(Args, Debug)]
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
    let flags = if args.lazy { UnmountFlags::DETACH } else { UnmountFlags::NOFOLLOW };
    let error = match rustix::mount::unmount(&dir, flags) {
        Ok(()) => return Ok(()),
        // Only root unmounts by itself.
        Err(rustix::io::Errno::PERM) => return helper(args, &dir),
        Err(error) => error,
    };
    let failed = CliError::failed(format!("{}: {}", dir.display(), io::Error::from(error)));
    Err(match error {
        rustix::io::Errno::BUSY => {
            failed.hint("a program uses it (`fuser -vm DIR` says which); --lazy does not wait")
        }
        rustix::io::Errno::INVAL => CliError::failed(format!("{} is no mount point", dir.display())),
        _ => failed,
    })
}

fn helper(args: &UmountArgs, dir: &std::path::Path) -> Result<(), CliError> {
    let mut command = Command::new("fusermount3");
    command.arg("-u").args(args.lazy.then_some("-z")).arg("--").arg(dir);
    let output = command.output().map_err(|error| {
        CliError::failed(format!("fusermount3: {error}")).hint("install it (`apt install fuse3`)")
    })?;
    if output.status.success() {
        return Ok(());
    }
    Err(CliError::failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}
