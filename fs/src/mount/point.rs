//! What lies at a path, and what keeps this process from mounting on it.

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use fuser::{MountOption, SessionACL};
use rustix::mount::UnmountFlags;

use super::MountError;
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
    match mounted_at(&full) {
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
    if !rustix::process::geteuid().is_root() && !helper_is_there() {
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
    match rustix::mount::unmount(point, UnmountFlags::DETACH) {
        Err(rustix::io::Errno::PERM) => helper(&["-u", "-z"], point),
        done => Ok(done?),
    }
}

fn clear_dead(point: &Path) -> io::Result<()> {
    detach(&std::path::absolute(point)?)
}

fn helper(arguments: &[&str], point: &Path) -> io::Result<()> {
    let output = Command::new("fusermount3").args(arguments).arg("--").arg(point).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

fn helper_is_there() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let known = ["/bin", "/usr/bin", "/sbin", "/usr/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(known).any(|dir| dir.join("fusermount3").exists())
}

/// A line of the mount table.
struct Mounted {
    kind: String,
    source: String,
}

/// The topmost mount on exactly this path.
fn mounted_at(point: &Path) -> Option<Mounted> {
    let table = fs::read_to_string("/proc/self/mountinfo").ok()?;
    table.lines().rev().find_map(|line| mounted(line, point))
}

/// `ID PARENT MAJOR:MINOR ROOT POINT OPTIONS... - TYPE SOURCE SUPER-OPTIONS`
fn mounted(line: &str, point: &Path) -> Option<Mounted> {
    let (front, back) = line.split_once(" - ")?;
    let on = unescape(front.split(' ').nth(4)?);
    if Path::new(&on) != point {
        return None;
    }
    let mut back = back.split(' ');
    Some(Mounted { kind: back.next()?.to_owned(), source: unescape(back.next()?) })
}

/// The table writes blanks and the like as three octal digits.
fn unescape(text: &str) -> String {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let octal =
            tail.get(..3).and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match octal {
            Some(byte) if *first == b'\\' => {
                out.push(byte);
                rest = &tail[3..];
            }
            _ => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_table_is_read_as_the_kernel_writes_it() {
        let line =
            r"47 29 0:51 / /tmp/with\040blank rw,nosuid shared:9 - fuse.etcfs 127.0.0.1:2379:/p rw,user_id=0";
        let mounted = mounted(line, Path::new("/tmp/with blank")).expect("the line is of this path");
        assert_eq!((mounted.kind.as_str(), mounted.source.as_str()), ("fuse.etcfs", "127.0.0.1:2379:/p"));
        assert!(super::mounted(line, Path::new("/tmp")).is_none());
    }
}
