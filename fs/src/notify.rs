//! Tells the kernel what it must no longer believe, on a thread of its own.
//!
//! A notification may block in the kernel until an operation in the same directory
//! is answered, so it is sent with no lock held and from no handler; whatever waits
//! for this thread holds nothing in the kernel that a notification needs. One is sent
//! elsewhere: that a listing's pages go, which waits for no directory, by the handler
//! that must not tell a listing's end before. Messages
//! are written to the FUSE device here, since "look again before use" (expire) is
//! not in the library.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread::JoinHandle;

use tokio::sync::watch;

use crate::node::{NodeId, Trust};
use crate::ops::Fs;

/// `_IOR(229, 0, u32)`
const FUSE_DEV_IOC_CLONE: libc::c_ulong = 0x8004_e500;

const NOTIFY_INVAL_INODE: i32 = 2;
const NOTIFY_INVAL_ENTRY: i32 = 3;

/// Every name is looked up again before its next use. Since Linux 6.16; older kernels say EINVAL.
const NOTIFY_INC_EPOCH: i32 = 8;

/// The name stays in use by those who hold it, and is looked up before its next use.
const EXPIRE_ONLY: u32 = 1;

/// Attributes only: no range of the page cache.
const NO_DATA: i64 = -1;

/// All of the page cache, which is where a directory's listing is.
const ALL_DATA: i64 = 0;

/// Starts the notifier on a duplicate of the session's descriptor. It ends when the
/// mount does.
///
/// A notification may be blocked in the kernel when the process is killed, on a
/// directory that a request of this very mount holds; the process can't end before
/// it, and the request is not answered any more. So the thread has a channel of its
/// own to the same mount and a descriptor table of its own without the session's: the
/// session's channel is closed by the rest of the process, which ends the
/// requests that were read from it, and with them the wait.
///
/// Returns once the thread has that table: it is a copy, and must not hold what is opened from now on. The other
/// end of a socket, kept open there, would never be seen to close.
pub fn start(fs: Arc<Fs>, device: OwnedFd) -> io::Result<JoinHandle<()>> {
    let everything = Device(File::from(device.try_clone()?));
    fs.runtime.spawn(doubt(fs.trust_changes(), everything));
    let own = match own_channel(&device) {
        Ok(channel) => Some(channel),
        Err(error) => {
            // An unprivileged mount where the device itself can't be opened again.
            tracing::info!(%error, "notifications share the session's channel");
            None
        }
    };
    let (apart, is_apart) = channel::<()>();
    let notifier = std::thread::Builder::new().name("notify".to_owned()).spawn(move || {
        let device = match own {
            Some(own) => {
                drop(device);
                alone_with(&own);
                own
            }
            None => device,
        };
        drop(apart);
        run(&fs, &Device(File::from(device)));
    })?;
    // Nothing is ever sent: it ends.
    is_apart.recv().unwrap_or(());
    Ok(notifier)
}

/// Another channel to the mount behind `session`.
#[expect(unsafe_code, reason = "the device's ioctl has no wrapper")]
fn own_channel(session: &OwnedFd) -> io::Result<OwnedFd> {
    let channel = File::options().read(true).write(true).open("/dev/fuse")?;
    let mut from = session.as_raw_fd() as u32;
    // SAFETY: FUSE_DEV_IOC_CLONE reads one u32 through the pointer, which outlives the call.
    let done = unsafe { libc::ioctl(channel.as_raw_fd(), FUSE_DEV_IOC_CLONE, &raw mut from) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(channel.into()) }
}

/// Gives the calling thread a descriptor table of its own, without the session's
/// channels, connections and pipes, which must not stay open for its sake: whoever
/// started the daemon waits for the end of its pipes. The rest stays: waking the
/// runtime writes to a descriptor of its.
#[expect(unsafe_code, reason = "unshare has no safe wrapper")]
fn alone_with(channel: &OwnedFd) {
    // SAFETY: CLONE_FILES copies this thread's descriptor table; numbers keep their meaning.
    let apart = unsafe { libc::unshare(libc::CLONE_FILES) } == 0;
    if !apart {
        tracing::info!(error = %io::Error::last_os_error(), "the notifier shares the process's descriptors");
        return;
    }
    let Ok(open) = std::fs::read_dir("/proc/thread-self/fd") else { return };
    let foreign: Vec<i32> = open
        .flatten()
        .filter_map(|entry| {
            let fd: i32 = entry.file_name().to_str()?.parse().ok()?;
            let target = std::fs::read_link(entry.path()).ok()?;
            let session = target == Path::new("/dev/fuse") && fd != channel.as_raw_fd();
            let pipe = target.as_os_str().as_encoded_bytes().starts_with(b"pipe:");
            (session || pipe || is_connection(fd)).then_some(fd)
        })
        .collect();
    for fd in foreign {
        // SAFETY: this thread's own copy of the descriptor; its owner's is in the other table.
        unsafe { libc::close(fd) };
    }
}

/// True for an internet socket.
#[expect(unsafe_code, reason = "the socket option has no safe wrapper for a bare number")]
fn is_connection(fd: i32) -> bool {
    let mut domain: libc::c_int = 0;
    let mut len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: both pointers are to locals of the size that is said.
    let done = unsafe {
        libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_DOMAIN, (&raw mut domain).cast(), &raw mut len)
    };
    done == 0 && matches!(domain, libc::AF_INET | libc::AF_INET6)
}

/// Has the kernel doubt all names at once where what it was told counts no more, which blocks on nothing: a
/// directory's own notifications wait for those who wait for the server in it.
async fn doubt(mut trust: watch::Receiver<Trust>, device: Device) {
    while trust.changed().await.is_ok() {
        if let Err(error) = device.everything() {
            tracing::info!(%error, "the kernel is told of each name by itself");
            return;
        }
    }
}

fn run(fs: &Fs, device: &Device) {
    while let Some(work) = fs.nodes.wait_work() {
        if let Some((parent, name)) = &work.drop_name {
            report("drop a name", device.entry(*parent, name, 0));
        }
        if let Some((parent, name)) = &work.expire_name {
            report("expire a name", device.entry(*parent, name, EXPIRE_ONLY));
        }
        for &id in &work.attributes {
            report("drop attributes", device.inode(id, NO_DATA));
        }
        if let Some(id) = work.drop_listing {
            report("drop a listing", device.inode(id, ALL_DATA));
        }
        let skipped = fs.nodes.with(|table| {
            table.work_done(&work);
            table.take_skipped()
        });
        if skipped > 0 {
            tracing::warn!(skipped, "a slow follower missed values");
        }
    }
}

fn report(what: &str, result: io::Result<()>) {
    match result {
        Ok(()) => {}
        // What the kernel does not know it can't believe; and after an unmount it knows nothing.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR | libc::ENODEV)) => {}
        Err(error) => tracing::warn!(%error, "the kernel was told to {what}"),
    }
}

/// The FUSE device, for messages that answer nothing.
struct Device(File);

impl Device {
    fn entry(&self, parent: NodeId, name: &OsString, flags: u32) -> io::Result<()> {
        let name: &OsStr = name;
        let bytes = name.as_encoded_bytes();
        let mut body = Vec::with_capacity(16 + bytes.len() + 1);
        body.extend_from_slice(&parent.0.to_ne_bytes());
        body.extend_from_slice(&(bytes.len() as u32).to_ne_bytes());
        body.extend_from_slice(&flags.to_ne_bytes());
        body.extend_from_slice(bytes);
        body.push(0);
        self.send(NOTIFY_INVAL_ENTRY, &body)
    }

    /// Drops the attributes, and what is kept of the data from an offset on.
    fn inode(&self, id: NodeId, from: i64) -> io::Result<()> {
        let mut body = Vec::with_capacity(24);
        body.extend_from_slice(&id.0.to_ne_bytes());
        body.extend_from_slice(&from.to_ne_bytes());
        body.extend_from_slice(&0_i64.to_ne_bytes());
        self.send(NOTIFY_INVAL_INODE, &body)
    }

    fn everything(&self) -> io::Result<()> {
        self.send(NOTIFY_INC_EPOCH, &[])
    }

    fn send(&self, code: i32, body: &[u8]) -> io::Result<()> {
        let mut header = Vec::with_capacity(16);
        header.extend_from_slice(&(16 + body.len() as u32).to_ne_bytes());
        header.extend_from_slice(&code.to_ne_bytes());
        // Unique 0: no request is answered by this.
        header.extend_from_slice(&0_u64.to_ne_bytes());
        // One write is one message: the device takes it whole or not at all.
        let mut device = &self.0;
        device.write_vectored(&[IoSlice::new(&header), IoSlice::new(body)]).map(drop)
    }
}
