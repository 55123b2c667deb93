//! Whether this machine can mount at all; if not, what to do about it.

use std::{fs::OpenOptions, io::ErrorKind};

use crate::error::CliError;

const DEVICE: &str = "/dev/fuse";
const WITHOUT: &str = "`--no-mount` serves the keys without a mount";

/// Refuses, with the remedy, where a mount can't work.
pub(super) fn check() -> Result<(), CliError> {
    let Err(error) = OpenOptions::new().read(true).write(true).open(DEVICE) else {
        return check_helper();
    };
    let (reason, remedy) = match error.kind() {
        ErrorKind::NotFound => (
            format!("there is no {DEVICE}, so nothing can be mounted"),
            "load it with `modprobe fuse`; a container needs `--device /dev/fuse --cap-add SYS_ADMIN`",
        ),
        ErrorKind::PermissionDenied => (
            format!("{DEVICE} may not be opened ({error})"),
            "run as a user who may, or allow it (`chmod 666 /dev/fuse`); a container needs `--device /dev/fuse --cap-add SYS_ADMIN`",
        ),
        _ => (
            format!("{DEVICE} can't be opened ({error})"),
            "the kernel has no FUSE: load it with `modprobe fuse`; a container gets it from its host",
        ),
    };
    Err(CliError::failed(reason).hint(format!("{remedy}; {WITHOUT}")))
}

/// Only root mounts by itself; others need the helper of package fuse3.
fn check_helper() -> Result<(), CliError> {
    if rustix::process::geteuid().is_root() || etcfs_fs::mounts::helper().is_some() {
        return Ok(());
    }
    Err(CliError::failed("fusermount3 is missing, without which only root can mount")
        .hint(format!("install it (`apt install fuse3`); {WITHOUT}")))
}
