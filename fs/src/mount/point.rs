//! What lies at a path, and what keeps this process from mounting on it.

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use fuser::{MountOption, SessionACL};

use super::{
    MountError,
    mounts::{self, Mounted},
};
use crate::config::Config;

const DEVICE: &str = "/dev/fuse";

/// So long a mount on the point has to answer; one that is dead says so at once.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// Makes the mount point ready: a directory, with nothing of ours on it, dead or alive. Gives its full path.
pub(crate) fn prepare(config: &Config) -> Result<PathBuf, MountError> {
    let point = &config.mount_point;
    let failed = |error| MountError::PointIo { point: point.clone(), error };
    loop {
        // Before the path is looked at at all: a mount may keep whoever does.
        if clear_ours(&std::path::absolute(point).map_err(failed)?, config)? {
            continue;
        }
        let (metadata, full) = match fs::metadata(point).and_then(|found| Ok((found, point.canonicalize()?)))
        {
            Ok(found) => found,
            Err(error) if is_dead(&error) => {
                clear_dead(point)?;
                continue;
            }
            Err(error) => return Err(failed(error)),
        };
        if !metadata.is_dir() {
            return Err(MountError::Point { point: point.clone(), reason: "is not a directory" });
        }
        if !clear_ours(&full, config)? {
            return Ok(full);
        }
    }
}

/// Takes away a mount of the same source whose daemon is gone; true if there was one.
fn clear_ours(full: &Path, config: &Config) -> Result<bool, MountError> {
    let ours = |mounted: &Mounted| mounted.kind.starts_with("fuse") && mounted.source == config.source.text;
    let Some(mounted) = mounts::at(full).filter(ours) else { return Ok(false) };
    match is_alive(full) {
        Some(false) => clear_dead(full)?,
        // What is left of it is looked at anew.
        None if is_daemon_held() => {
            mounts::abort(full, &mounted)
                .map_err(|error| MountError::Dead { point: full.to_path_buf(), error })?;
            tracing::warn!(point = %full.display(), "ended a mount whose daemon was killed, and is held in the kernel");
        }
        // A daemon that hangs is there still.
        None | Some(true) => {
            return Err(MountError::Mounted { point: full.to_path_buf(), source_text: mounted.source });
        }
    }
    Ok(true)
}

fn is_dead(error: &io::Error) -> bool {
    // The first where a request meets the daemon's end, the second after it.
    matches!(error.raw_os_error(), Some(libc::ECONNABORTED | libc::ENOTCONN))
}

/// Asks a mount of ours for what it answers without a server; `None` if it does not answer. What the kernel has kept
/// of the mount point says nothing: it is shown for a while after the daemon's end.
fn is_alive(point: &Path) -> Option<bool> {
    let status = point.join("%status");
    let (sender, answered) = mpsc::channel();
    std::thread::spawn(move || {
        let dead = fs::File::open(status).is_err_and(|error| is_dead(&error));
        // Whoever asked may have waited long enough.
        sender.send(!dead).ok();
    });
    answered.recv_timeout(ANSWER_WITHIN).ok()
}

/// True if a daemon was killed and the kernel can't end it: one of its threads tells of a name in a directory, whose
/// lock a program holds that waits for the daemon. The mount would hang for ever.
fn is_daemon_held() -> bool {
    let Ok(own_name) = fs::read_to_string("/proc/self/comm") else { return false };
    let Ok(processes) = fs::read_dir("/proc") else { return false };
    processes.flatten().map(|process| process.path()).any(|process| {
        let has_name = fs::read_to_string(process.join("comm")).is_ok_and(|name| name == own_name);
        has_name && state(&process) == Some('Z') && {
            let mut threads = fs::read_dir(process.join("task")).into_iter().flatten().flatten();
            threads.any(|thread| state(&thread.path()) == Some('D'))
        }
    })
}

/// Of a process or a thread, as proc(5) spells it.
fn state(task: &Path) -> Option<char> {
    let stat = fs::read_to_string(task.join("stat")).ok()?;
    // Behind the name, which may hold anything, and its parenthesis.
    stat.rsplit_once(") ")?.1.chars().next()
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

fn clear_dead(point: &Path) -> Result<(), MountError> {
    let cleared = std::path::absolute(point).and_then(|full| detach(&full));
    cleared.map_err(|error| MountError::Dead { point: point.to_path_buf(), error })?;
    tracing::info!(point = %point.display(), "cleared a dead mount");
    Ok(())
}
