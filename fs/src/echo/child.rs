//! The helper: a process that makes the system calls which inotify's listeners hear.
//!
//! It is the mount's own binary, executed again with nothing open but a socket to the daemon. It must be another
//! process: a thread of the daemon that waits in the kernel for a request of its own mount can't be killed, and
//! keeps the device open that would have to be closed to end the wait. This one ends with its daemon, by the
//! socket's end and by the kernel's word that its parent is dead, and holds the mount only while it is inside a
//! call. It goes nowhere but into the one mount: a path that leads out of it is an error.

use std::collections::HashMap;
use std::ffi::{CString, OsStr, OsString};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags, ResolveFlags, StatxFlags};
use rustix::io::Errno;
use rustix::process::{Signal, getppid, set_parent_process_death_signal};

use super::wire::{IN_DIRECTORY, LENGTH_BYTES, Order, Path, Reply};

/// What one path of a system call may be long; longer ones are walked in parts.
const PATH_BYTES_MAX: usize = 4000;

/// The kernel's handle of a FUSE inode: `FILEID_INO64_GEN`, the node's number in two halves, its generation.
const HANDLE_TYPE: i32 = 0x81;
const HANDLE_BYTES: u32 = 12;

#[repr(C)]
struct Handle {
    bytes: u32,
    kind: i32,
    node_high: u32,
    node_low: u32,
    generation: u32,
}

/// `POINT MAJOR:MINOR PARENT`: serves orders until the daemon is gone.
pub(crate) fn main(args: &[OsString]) -> ExitCode {
    match Helper::start(args) {
        Some(mut helper) => {
            helper.serve();
            ExitCode::SUCCESS
        }
        None => ExitCode::FAILURE,
    }
}

struct Helper {
    socket: UnixStream,
    point: PathBuf,
    device: (u32, u32),
    /// Inodes held for their listeners, where handles can't be opened.
    held: HashMap<u64, OwnedFd>,
}

impl Helper {
    fn start(args: &[OsString]) -> Option<Self> {
        let [point, device, parent] = args else { return None };
        let (major, minor) = device.to_str()?.split_once(':')?;
        let parent: i32 = parent.to_str()?.parse().ok()?;
        set_parent_process_death_signal(Some(Signal::KILL)).ok()?;
        if getppid()?.as_raw_pid() != parent {
            return None;
        }
        close_all_but_socket();
        #[expect(unsafe_code, reason = "a descriptor that was inherited has no owner yet")]
        // SAFETY: descriptor 0 is the socket that the daemon started this process with; nothing else uses it.
        let socket = unsafe { UnixStream::from_raw_fd(0) };
        let device = (major.parse().ok()?, minor.parse().ok()?);
        Some(Self { socket, point: point.into(), device, held: HashMap::new() })
    }

    fn serve(&mut self) {
        let mut message = Vec::new();
        loop {
            let mut length = [0; LENGTH_BYTES];
            if self.socket.read_exact(&mut length).is_err() {
                return;
            }
            message.resize(u32::from_le_bytes(length) as usize, 0);
            if self.socket.read_exact(&mut message).is_err() {
                return;
            }
            let Some(order) = Order::decode(&message) else { return };
            let reply = match self.carry_out(&order) {
                Ok(node) => Reply { errno: 0, node },
                Err(errno) => Reply { errno: errno.raw_os_error(), node: 0 },
            };
            if self.socket.write_all(&reply.encode()).is_err() {
                return;
            }
        }
    }

    fn carry_out(&mut self, order: &Order) -> Result<u64, Errno> {
        let root = self.root()?;
        match order {
            Order::Create { at, len } => {
                let how = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let parent = walk(&root, &at.parent)?;
                let file = rustix::fs::openat(&parent, name(at), how, Mode::from_raw_mode(0o666))?;
                rustix::fs::ftruncate(file, *len)?;
            }
            Order::Modify { at, len } => {
                let file = open(&walk(&root, &at.parent)?, name(at), OFlags::WRONLY | OFlags::NOFOLLOW)?;
                // Not one byte: that would lie in caches. A length is set, and the answer says the true one.
                rustix::fs::ftruncate(file, *len)?;
            }
            Order::Remove { at } => {
                rustix::fs::unlinkat(walk(&root, &at.parent)?, name(at), AtFlags::empty())?;
            }
            Order::MakeDir { at } => {
                rustix::fs::mkdirat(walk(&root, &at.parent)?, name(at), Mode::from_raw_mode(0o777))?;
            }
            Order::RemoveDir { at } => {
                rustix::fs::unlinkat(walk(&root, &at.parent)?, name(at), AtFlags::REMOVEDIR)?;
            }
            Order::MakeLink { at, target } => {
                rustix::fs::symlinkat(OsStr::from_bytes(target), walk(&root, &at.parent)?, name(at))?;
            }
            Order::Move { from, to } => {
                let (old, new) = (walk(&root, &from.parent)?, walk(&root, &to.parent)?);
                rustix::fs::renameat_with(old, name(from), new, name(to), RenameFlags::empty())?;
            }
            Order::Touch { node, len } => {
                let file = self.open_node(&root, *node, OFlags::WRONLY)?;
                rustix::fs::ftruncate(&file, *len)?;
                return Ok(if has_name(&file)? { IN_DIRECTORY } else { 0 });
            }
            Order::Look { node } => {
                rustix::fs::fstat(self.open_node(&root, *node, OFlags::RDONLY)?)?;
            }
            Order::Hold { at } => {
                let file = open(&walk(&root, &at.parent)?, name(at), OFlags::PATH | OFlags::NOFOLLOW)?;
                let node = node_of(&file)?;
                self.held.insert(node, file);
                return Ok(node);
            }
            Order::LetGo { node } => {
                self.held.remove(node);
            }
        }
        Ok(0)
    }

    /// The mount point, if it is still this mount that lies there.
    fn root(&self) -> Result<OwnedFd, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, &self.point, flags, Mode::empty())?;
        // What the kernel knows anyway: the daemon is not asked.
        let how = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
        let found = rustix::fs::statx(&root, "", how, StatxFlags::empty())?;
        if (found.stx_dev_major, found.stx_dev_minor) == self.device { Ok(root) } else { Err(Errno::NODEV) }
    }

    fn open_node(&self, root: &OwnedFd, node: u64, how: OFlags) -> Result<OwnedFd, Errno> {
        if let Some(held) = self.held.get(&node) {
            return rustix::fs::open(descriptor(held), how, Mode::empty());
        }
        match open_by_handle(root, node, how) {
            // Before Linux 6.13 or so the mount must be named by a descriptor that is open for more than its path.
            Err(Errno::BADF) => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                open_by_handle(&rustix::fs::openat(root, ".", flags, Mode::empty())?, node, how)
            }
            opened => opened,
        }
    }
}

fn name(at: &Path) -> &OsStr {
    OsStr::from_bytes(&at.name)
}

fn open(parent: &OwnedFd, name: &OsStr, how: OFlags) -> Result<OwnedFd, Errno> {
    let inside = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
    rustix::fs::openat2(parent, name, how | OFlags::CLOEXEC, Mode::empty(), inside)
}

/// The directory at `path` below `root`.
fn walk(root: &OwnedFd, path: &[u8]) -> Result<OwnedFd, Errno> {
    let mut at = root.try_clone().map_err(|_| Errno::MFILE)?;
    let mut rest = path;
    while !rest.is_empty() {
        let most = rest.len().min(PATH_BYTES_MAX);
        let end = if most == rest.len() {
            most
        } else {
            rest[..most].iter().rposition(|&byte| byte == b'/').ok_or(Errno::NAMETOOLONG)?
        };
        at = open(&at, OsStr::from_bytes(&rest[..end]), OFlags::PATH | OFlags::DIRECTORY)?;
        rest = rest[end..].strip_prefix(b"/").unwrap_or(&rest[end..]);
    }
    Ok(at)
}

#[expect(unsafe_code, reason = "handles have no safe wrapper")]
fn open_by_handle(mount: &OwnedFd, node: u64, how: OFlags) -> Result<OwnedFd, Errno> {
    let mut handle = Handle {
        bytes: HANDLE_BYTES,
        kind: HANDLE_TYPE,
        node_high: (node >> 32) as u32,
        node_low: node as u32,
        generation: 0,
    };
    let flags = (how | OFlags::CLOEXEC).bits() as libc::c_int;
    // SAFETY: the handle is laid out as `struct file_handle` with its bytes following, and outlives the call.
    let opened = unsafe { libc::open_by_handle_at(mount.as_raw_fd(), (&raw mut handle).cast(), flags) };
    if opened < 0 {
        return Err(last_errno());
    }
    // SAFETY: the call has just opened it for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(opened) })
}

/// True for a file that the kernel knows by a name in a directory, if only by one that was given up: one that is
/// known by its number alone shows as the root. An open file keeps what it is known by.
fn has_name(file: &OwnedFd) -> Result<bool, Errno> {
    let shown = rustix::fs::readlink(descriptor(file), Vec::new())?;
    Ok(shown.as_bytes() != b"/")
}

fn descriptor(file: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

/// The number of the inode behind a descriptor: any user may ask for the handle.
#[expect(unsafe_code, reason = "handles have no safe wrapper")]
fn node_of(file: &OwnedFd) -> Result<u64, Errno> {
    let mut handle = Handle { bytes: HANDLE_BYTES, kind: 0, node_high: 0, node_low: 0, generation: 0 };
    let (empty, mut mount_id) = (CString::default(), 0);
    // SAFETY: the handle has room for the bytes that it says, and all pointers outlive the call.
    let done = unsafe {
        libc::name_to_handle_at(
            file.as_raw_fd(),
            empty.as_ptr(),
            (&raw mut handle).cast(),
            &raw mut mount_id,
            libc::AT_EMPTY_PATH,
        )
    };
    if done < 0 || handle.kind != HANDLE_TYPE {
        return Err(if done < 0 { last_errno() } else { Errno::OPNOTSUPP });
    }
    Ok(u64::from(handle.node_high) << 32 | u64::from(handle.node_low))
}

fn last_errno() -> Errno {
    io::Error::last_os_error().raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error)
}

/// Whatever the daemon inherited: no pipe of its caller, and no channel to the kernel, stays open for this process.
#[expect(unsafe_code, reason = "descriptors that were inherited have no owner")]
fn close_all_but_socket() {
    // SAFETY: this process has opened nothing yet, so that none of these numbers is in use.
    unsafe { libc::close_range(1, libc::c_uint::MAX, 0) };
}
