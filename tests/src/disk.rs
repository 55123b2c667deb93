//! A disk that can lose power: an ext4 file system on a loop device.
//!
//! The device reads and writes its backing file directly (no page cache in
//! between), so the file holds at each moment what a real disk would hold: what
//! was synced, and whatever the kernel wrote back by itself. A copy of it is the
//! disk after a power cut.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    time::SystemTime,
};

use tempfile::TempDir;

use crate::{command, machine, wait};

/// A mounted image; unmounted and its loop device freed when dropped.
#[derive(Debug)]
pub struct Disk {
    dir: TempDir,
    device: String,
}

impl Disk {
    /// An empty file system of `bytes`.
    pub fn empty(bytes: u64) -> Self {
        machine::needs_loop_devices();
        let dir =
            tempfile::Builder::new().prefix("etcfs-tests-disk-").tempdir().expect("a temporary directory");
        let image = dir.path().join("image");
        File::create(&image).and_then(|file| file.set_len(bytes)).expect("a sparse file");
        // No lazy initialisation: the kernel would go on writing while we copy.
        run(Command::new(machine::program("mkfs.ext4"))
            .args(["-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"])
            .arg(&image));
        Self::attach(dir)
    }

    fn attach(dir: TempDir) -> Self {
        let image = dir.path().join("image");
        let device = run(Command::new(machine::program("losetup"))
            .args(["--find", "--show", "--direct-io=on"])
            .arg(&image));
        let disk = Self { device: device.trim().to_owned(), dir };
        fs::create_dir_all(disk.path()).expect("a directory of our own");
        // A long commit interval: what nobody syncs stays off the disk.
        run(Command::new(machine::program("mount"))
            .args(["-o", "commit=60"])
            .arg(&disk.device)
            .arg(disk.path()));
        disk
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("mnt")
    }

    /// The disk as a power cut at this moment leaves it.
    ///
    /// Whoever writes must be stopped, or the copy is of no one moment; a copy
    /// during which the kernel wrote is made again.
    pub fn after_power_cut(&self) -> Self {
        let dir =
            tempfile::Builder::new().prefix("etcfs-tests-disk-").tempdir().expect("a temporary directory");
        let (image, copy) = (self.dir.path().join("image"), dir.path().join("image"));
        wait::until("the disk is copied between two writes of the kernel's", || {
            let before = modified(&image);
            run(Command::new("cp").arg("--sparse=always").arg(&image).arg(&copy));
            (modified(&image) == before).then_some(())
        });
        Self::attach(dir)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a failed test may still have a server on it.
        drop(command::run(Command::new("umount").arg("--lazy").arg(self.path()), b""));
        drop(command::run(Command::new("losetup").args(["--detach", &self.device]), b""));
    }
}

fn modified(path: &Path) -> SystemTime {
    fs::metadata(path).and_then(|m| m.modified()).expect("the image is there")
}

#[track_caller]
fn run(command: &mut Command) -> String {
    let shown = format!("{command:?}");
    let output = command::run(command, b"");
    assert!(output.code == 0, "{shown} failed ({}): {}", output.code, output.stderr);
    output.stdout
}
