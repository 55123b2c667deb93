//! The daemon's end of its helper: started, given one order at a time, started again when it dies.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::wire::{Order, REPLY_BYTES, Reply};
use crate::config::access::USER_VARIABLE;

/// The argument that makes the binary the helper.
pub(crate) const FLAG: &str = "--inotify-helper";

/// Where the helper works.
#[derive(Clone, Debug)]
pub struct Site {
    pub point: PathBuf,
    /// The mount's own device number: what lies at the path must be this mount.
    pub device: (u32, u32),
    /// What stands before the flag on the binary's command line.
    pub before: Vec<OsString>,
}

/// A running helper; killed when dropped.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    socket: UnixStream,
}

impl Process {
    /// Starts it. The calling thread must live as long as the daemon: its end ends the helper.
    pub(super) fn start(site: &Site) -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        let (major, minor) = site.device;
        let child = Command::new("/proc/self/exe")
            .arg0("mount.etcfs")
            .args(&site.before)
            .arg(FLAG)
            .arg(&site.point)
            .arg(format!("{major}:{minor}"))
            .arg(std::process::id().to_string())
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .current_dir("/")
            // It calls no server.
            .env_remove(USER_VARIABLE)
            // The terminal's signals are for the daemon.
            .process_group(0)
            .spawn()?;
        Ok(Self { child, socket: ours })
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Gives an order and waits until it is carried out. An error: the helper is gone.
    pub(super) fn order(&mut self, order: &Order) -> io::Result<Reply> {
        self.socket.write_all(&order.encode())?;
        let mut reply = [0; REPLY_BYTES];
        self.socket.read_exact(&mut reply)?;
        Ok(Reply::decode(reply))
    }

    /// Waits for the end of one that is gone; true if somebody killed it, so that it did not die of its order.
    pub(super) fn was_killed(mut self) -> bool {
        // It has closed its socket, so how it ends is settled, and this changes nothing of it.
        drop(self.child.kill());
        self.child.wait().is_ok_and(|status| status.signal() == Some(libc::SIGKILL))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may be gone already. One that is inside a call ends with the call.
        if self.child.kill().is_ok() {
            self.child.wait().ok();
        }
    }
}
