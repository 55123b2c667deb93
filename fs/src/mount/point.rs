//! What lies at a path, and what keeps this process from mounting on it.

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use fuser::{MountOption, SessionACL};

use super::{MountError, mounts};
use crate::config::Config;

const DEVICE: &str = "/dev/fuse";

/// Makes the mount point ready: a directory, with nothing of ours on it, dead or alive. Gives its full path.
pub(crate) fn prepare(config: &Config) -> Result<PathBuf, MountError> {
    let point = &config.mount_point;
    let metadata = match fs::metadata(point) {
        Err(error) if error.raw_os_error() == Some(libc::ENOTCONN) => {
            clear_dead(point).map_err(|error| MountError::Dead { point: point.clone(), error })?;
            tracing::info!(point = %point.display(), "cleared a dead mount");
            fs::metadata(point)
        }
        found => found,
    };
    let metadata = metadata.map_err(|error| MountError::PointIo { point: point.clone(), error })?;
    if !metadata.is_dir() {
        return Err(MountError::Point { point: point.clone(), reason: "is not a directory" });
    }
    let full = point.canonicalize().map_err(|error| MountError::PointIo { point: point.clone(), error })?;
    match mounts::at(&full) {
        Some(mounted) if mounted.kind.starts_with("fuse") && mounted.source == config.source.text => {
            Err(MountError::Mounted { point: full, source_text: mounted.source })
        }
        _ => Ok(full),
    }
}

/// Sees that this process may mount before anything else is tried, so that the message can say what to do.
pub(crate) fn check_device() -> Result<(), MountError> {
    match fs::metadata(DEVICE) {
        Ok(metadata) if metadata.file_type().is_char_device() => {}
        _ => return Err(MountError::NoDevice),
    }
    match fs::File::options().read(true).write(true).open(DEVICE) {
        Ok(_) => {}
        // The node is there, the module is not.
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => return Err(MountError::NoDevice),
        Err(error) => return Err(MountError::Device { error }),
    }
    if !rustix::process::geteuid().is_root() && mounts::helper().is_none() {
        return Err(MountError::NoHelper);
    }
    Ok(())
}

/// Says what a failed mount means.
pub(crate) fn explain(error: io::Error, config: &Config) -> MountError {
    let text = error.to_string();
    let root = rustix::process::geteuid().is_root();
    match error.raw_os_error() {
        _ if text.contains("user_allow_other") => MountError::AllowOther,
        Some(libc::EPERM | libc::EACCES) => MountError::NotPermitted { error },
        // Root is refused by mount(2) first, and then by the helper or its absence.
        _ if root && (error.kind() == io::ErrorKind::NotFound || text.contains("fusermount")) => {
            MountError::NotPermitted { error }
        }
        _ if text.contains("not permitted") || text.contains("Permission denied") => {
            MountError::NotPermitted { error }
        }
        Some(libc::EBUSY) => MountError::Point { point: config.mount_point.clone(), reason: "is busy" },
        _ => MountError::Failed { error },
    }
}

/// What the kernel and its helper are told.
pub(crate) fn options(config: &Config) -> fuser::Config {
    let root = rustix::process::geteuid().is_root();
    // The helper splits its options at commas, the system call does not.
    let name = if root { config.source.text.clone() } else { config.source.text.replace(',', "\\,") };
    let mut options = fuser::Config::default();
    options.mount_options = vec![
        MountOption::FSName(name),
        MountOption::Subtype("etcfs".to_owned()),
        MountOption::NoSuid,
        MountOption::NoDev,
        MountOption::NoAtime,
        if config.view.read_only { MountOption::RO } else { MountOption::RW },
    ];
    if config.no_exec {
        options.mount_options.push(MountOption::NoExec);
    }
    if config.allow_other {
        options.acl = SessionACL::All;
        options.mount_options.push(MountOption::DefaultPermissions);
    }
    options.n_threads = Some(SESSION_THREADS);
    options
}

/// Threads that read the kernel's requests: one more than one, so that no request waits for a slow one.
const SESSION_THREADS: usize = 2;

/// Takes the mount away from its path, also while somebody uses it.
pub(crate) fn detach(point: &Path) -> io::Result<()> {
    mounts::unmount(point, true)
}

fn clear_dead(point: &Path) -> io::Result<()> {
    detach(&std::path::absolute(point)?)
}
