//! A disk that is full: writes are refused or the process ends; nothing is lost.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use etcfs_tests::{
    api::put,
    command, machine,
    server::{Kind, Options, Server},
};
use tempfile::TempDir;

/// Too small for what is put.
const SMALL_MIB: u64 = 256;
const LARGE_MIB: u64 = 1024;
/// One put's value.
const VALUE_BYTES: usize = 512 << 10;

/// A file system in memory, of a size that can be changed.
pub(crate) struct Tmpfs(TempDir);

impl Tmpfs {
    pub(crate) fn of(mib: u64) -> Self {
        assert!(machine::is_root(), "mounting a tmpfs needs root: run this test as root");
        let dir =
            tempfile::Builder::new().prefix("etcfs-tests-full-").tempdir().expect("a temporary directory");
        let tmpfs = Self(dir);
        mount(&["-t", "tmpfs", "-o", &format!("size={mib}m"), "none"], &tmpfs.path());
        tmpfs
    }

    fn resize(&self, mib: u64) {
        mount(&["-o", &format!("remount,size={mib}m")], &self.path());
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.0.path().to_owned()
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // Lazily: a failed test may still have a server on it.
        let mut umount = Command::new(machine::program("umount"));
        drop(command::run(umount.arg("--lazy").arg(self.path()), b""));
    }
}

fn mount(args: &[&str], at: &Path) {
    command::run(Command::new(machine::program("mount")).args(args).arg(at), b"").ok();
}

fn value(number: usize) -> Vec<u8> {
    let mut value = vec![b'.'; VALUE_BYTES];
    value[..8].copy_from_slice(&(number as u64).to_be_bytes());
    value
}

#[test]
fn nothing_acknowledged_is_lost_on_a_full_disk_and_room_heals_it() {
    let disk = Tmpfs::of(SMALL_MIB);
    let data_dir = Some(disk.path().join("data"));
    let mut server = Server::with(Kind::Etcfs, Options { data_dir, ..Default::default() });
    let api = server.api();
    let mut acknowledged = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(60);
    let refused = loop {
        assert!(Instant::now() < deadline, "{} puts fit into {SMALL_MIB} MiB", acknowledged.len());
        let number = acknowledged.len();
        match api.put(put(&format!("k{number:05}"), value(number))) {
            Ok(answer) => acknowledged.push(answer.header.unwrap().revision),
            Err(status) => break status,
        }
    };
    etcfs_tests::process::show(&format!("{} puts fit; then: {refused}", acknowledged.len()));
    assert!(acknowledged.len() as u64 > SMALL_MIB / 16, "only {} puts fit", acknowledged.len());
    // Whether it lives on and refuses, or has ended: with room it is whole again.
    server.kill();
    disk.resize(LARGE_MIB);
    server.run();
    let api = server.api();
    let found = api.all("k");
    // The put that was not answered may be there.
    assert!(found.len() == acknowledged.len() || found.len() == acknowledged.len() + 1, "{}", found.len());
    for (number, (kv, revision)) in found.iter().zip(&acknowledged).enumerate() {
        assert_eq!(
            (kv.mod_revision, kv.version, kv.value == value(number)),
            (*revision, 1, true),
            "{number}"
        );
    }
    api.set("more", "v");
    server.kill();
}
