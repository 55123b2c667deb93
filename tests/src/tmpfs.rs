//! A file system of the kernel's own: the control for what is asked of a mount.

use std::{fs, path::PathBuf, process::Command};

use tempfile::TempDir;

use crate::{command, machine};

/// A mounted tmpfs; gone when dropped.
#[derive(Debug)]
pub struct Tmpfs {
    dir: TempDir,
}

impl Tmpfs {
    pub fn mount() -> Self {
        machine::needs_root("mounts a tmpfs");
        let dir =
            tempfile::Builder::new().prefix("etcfs-tests-tmpfs-").tempdir().expect("a temporary directory");
        machine::open_to_all(dir.path());
        let tmpfs = Self { dir };
        fs::create_dir(tmpfs.path()).expect("a directory of our own");
        let mut mount = Command::new(machine::program("mount"));
        command::run(mount.args(["-t", "tmpfs", "none"]).arg(tmpfs.path()), b"").ok();
        tmpfs
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("mnt")
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        drop(command::run(Command::new("umount").arg("--lazy").arg(self.path()), b""));
    }
}
