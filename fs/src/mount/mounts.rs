//! What is mounted where, and how it is taken away: the kernel's table, umount(2), and fusermount3 for who is not
//! root. Nothing here asks a mount anything, so a dead one hangs nobody.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::io::Errno;
use rustix::mount::UnmountFlags;

const HELPER: &str = "fusermount3";

/// Where system programs are, whatever PATH says.
const SYSTEM_DIRS: [&str; 4] = ["/bin", "/usr/bin", "/sbin", "/usr/sbin"];

/// A line of the mount table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mounted {
    /// `fuse.etcfs`, `tmpfs` ...
    pub kind: String,
    pub source: String,
    /// Major and minor number of its device.
    pub device: (u32, u32),
}

/// The topmost mount on exactly this path.
pub fn at(point: &Path) -> Option<Mounted> {
    let table = fs::read_to_string("/proc/self/mountinfo").ok()?;
    table.lines().rev().filter_map(parse).find_map(|(path, mounted)| (path == point).then_some(mounted))
}

/// Everything that is mounted, with its path.
pub fn all() -> Vec<(PathBuf, Mounted)> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table.lines().filter_map(parse).collect()
}

/// Takes a mount away from its path; `lazy`, also while somebody uses it: its users go on until they close it.
///
/// # Errors
/// Those of umount(2), and what fusermount3 says where only that may unmount.
pub fn unmount(point: &Path, lazy: bool) -> io::Result<()> {
    let flags = if lazy { UnmountFlags::DETACH } else { UnmountFlags::NOFOLLOW };
    match rustix::mount::unmount(point, flags) {
        Err(Errno::PERM) => by_helper(point, lazy),
        done => Ok(done?),
    }
}

/// Ends a mount's connection with its daemon: who waits for that gets ENOTCONN.
///
/// # Errors
/// Those of umount(2), or of the file that ends it in the kernel's control file system, where only that may.
pub(crate) fn abort(point: &Path, mounted: &Mounted) -> io::Result<()> {
    match rustix::mount::unmount(point, UnmountFlags::FORCE | UnmountFlags::NOFOLLOW) {
        // It is ended, and in use for a moment more.
        Ok(()) | Err(Errno::BUSY) => Ok(()),
        Err(Errno::PERM) => fs::write(format!("/sys/fs/fuse/connections/{}/abort", mounted.device.1), "1"),
        Err(error) => Err(error.into()),
    }
}

/// The program that mounts and unmounts for users.
pub fn helper() -> Option<PathBuf> {
    helper_on(&std::env::var_os("PATH").unwrap_or_default())
}

fn helper_on(path: &OsStr) -> Option<PathBuf> {
    let dirs = std::env::split_paths(path).chain(SYSTEM_DIRS.map(PathBuf::from));
    dirs.map(|dir| dir.join(HELPER)).find(|program| program.exists())
}

fn by_helper(point: &Path, lazy: bool) -> io::Result<()> {
    let Some(helper) = helper() else {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            "fusermount3 is missing, without which only root can unmount: install the package fuse3",
        ));
    };
    let output = Command::new(helper).arg("-u").args(lazy.then_some("-z")).arg("--").arg(point).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

/// `ID PARENT MAJOR:MINOR ROOT POINT OPTIONS... - TYPE SOURCE SUPER-OPTIONS`
fn parse(line: &str) -> Option<(PathBuf, Mounted)> {
    let (front, back) = line.split_once(" - ")?;
    let point = unescape(front.split(' ').nth(4)?).into();
    let (major, minor) = front.split(' ').nth(2)?.split_once(':')?;
    let device = (major.parse().ok()?, minor.parse().ok()?);
    let mut back = back.split(' ');
    let (kind, source) = (back.next()?.to_owned(), unescape(back.next()?));
    Some((point, Mounted { kind, source: source.to_string_lossy().into_owned(), device }))
}

/// The table writes blanks and the like as a backslash and three octal digits.
fn unescape(text: &str) -> OsString {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let code = match rest {
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..] => {
                Some((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'))
            }
            _ => None,
        };
        out.push(code.unwrap_or(*first));
        rest = if code.is_some() { &rest[4..] } else { tail };
    }
    OsString::from_vec(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_read_as_the_kernel_writes_them() {
        let line =
            r"47 29 0:51 / /tmp/with\040blank rw,nosuid shared:9 - fuse.etcfs 127.0.0.1:2379:/p rw,user_id=0";
        let source = "127.0.0.1:2379:/p".to_owned();
        let wanted = Mounted { kind: "fuse.etcfs".to_owned(), source, device: (0, 51) };
        assert_eq!(parse(line), Some((PathBuf::from("/tmp/with blank"), wanted)));
        assert_eq!(parse("no line of the table"), None);
    }

    /// A mount made where PATH did not name the helper's directory could not be unmounted there.
    #[test]
    fn the_helper_is_found_whatever_path_says() {
        let program =
            helper_on(OsStr::new("/nowhere")).expect("the package fuse3 is installed (see tests/run)");
        assert!(program.ends_with(HELPER));
    }
}
