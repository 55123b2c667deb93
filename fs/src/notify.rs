//! Tells the kernel what it must no longer believe, on a thread of its own.
//!
//! A notification may block in the kernel until an operation in the same directory
//! is answered, so it is sent with no lock held and from no handler; whatever waits
//! for this thread holds nothing in the kernel that a notification needs. Messages
//! are written to the FUSE device here, since "look again before use" (expire) is
//! not in the library.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;

use crate::node::NodeId;
use crate::ops::Fs;

const NOTIFY_INVAL_INODE: i32 = 2;
const NOTIFY_INVAL_ENTRY: i32 = 3;

/// The name stays in use by those who hold it, and is looked up before its next use.
const EXPIRE_ONLY: u32 = 1;

/// Attributes only: no range of the page cache.
const NO_DATA: i64 = -1;

/// Starts the notifier on a duplicate of the session's descriptor. It ends when the
/// mount does.
pub fn start(fs: Arc<Fs>, device: OwnedFd) -> io::Result<JoinHandle<()>> {
    let device = Device(File::from(device));
    std::thread::Builder::new().name("notify".to_owned()).spawn(move || run(&fs, &device))
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
            report("drop attributes", device.attributes(id));
        }
        fs.nodes.with(|table| table.work_done(&work));
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

    fn attributes(&self, id: NodeId) -> io::Result<()> {
        let mut body = Vec::with_capacity(24);
        body.extend_from_slice(&id.0.to_ne_bytes());
        body.extend_from_slice(&NO_DATA.to_ne_bytes());
        body.extend_from_slice(&0_i64.to_ne_bytes());
        self.send(NOTIFY_INVAL_INODE, &body)
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
