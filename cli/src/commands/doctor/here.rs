//! What this machine needs to mount, and whether its mounts live.

use std::{fs::OpenOptions, io, path::PathBuf, time::Duration};

use super::Findings;
use crate::mounted;

/// A mount that takes longer to answer about itself does not answer.
const MOUNT_PATIENCE: Duration = Duration::from_secs(2);

pub(super) async fn check(findings: &mut Findings) {
    match OpenOptions::new().read(true).write(true).open("/dev/fuse") {
        Ok(_) => findings.good("/dev/fuse is there"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => findings.odd(
            "/dev/fuse is missing: nothing can be mounted here",
            "`modprobe fuse`; a container needs --device /dev/fuse",
        ),
        Err(error) => findings.odd(format!("/dev/fuse: {error}"), "who mounts needs to read and write it"),
    }
    let root = rustix::process::geteuid().is_root();
    match etcfs_fs::mounts::helper() {
        Some(helper) => findings.good(format!("{} mounts for who is not root", helper.display())),
        None if root => {}
        None => findings.odd("fusermount3 is missing: only root can mount", "install the package fuse3"),
    }
    let ours = |(point, mount): (PathBuf, _)| mounted::source_of(&mount, "http").map(|_| point);
    for point in etcfs_fs::mounts::all().into_iter().filter_map(ours) {
        let shown = point.display().to_string();
        match tokio::time::timeout(MOUNT_PATIENCE, answer(point)).await {
            Ok(Ok(())) => findings.good(format!("the mount {shown} answers")),
            Ok(Err(error)) => findings.broken(
                format!("the mount {shown} does not work: {error}"),
                &format!("`etcfs umount --lazy {shown}` takes it away; then mount it again"),
            ),
            Err(_) => findings.broken(
                format!("the mount {shown} does not answer"),
                "are its servers reached from here? Its %status says, or the log of mount.etcfs",
            ),
        }
    }
}

/// Asks a mount what the kernel never keeps, on a thread of its own, which a mount that hangs may keep.
async fn answer(point: PathBuf) -> io::Result<()> {
    let asked = tokio::task::spawn_blocking(move || Ok(rustix::fs::statfs(&point).map(drop)?));
    asked.await.unwrap_or_else(|panicked| Err(io::Error::other(panicked)))
}
