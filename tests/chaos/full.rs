//! A disk that is full: writes are refused, the process lives on, nothing is lost.

use std::{
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use etcfs_tests::{
    api::{Api, compact, delete, put},
    command, machine,
    server::{Kind, Options, Server},
    wait,
};
use tempfile::TempDir;
use tonic::{Code, Status};

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

/// Takes all the room that is left, as another program on the disk may.
fn fill_up(disk: &Tmpfs) -> PathBuf {
    let filler = disk.path().join("filler");
    let script = format!("dd if=/dev/zero of={} bs=64k 2>&1", filler.display());
    assert_ne!(command::sh(Path::new("/"), &script).code, 0, "the disk has an end");
    filler
}

/// Puts until one is refused; gives the revisions of the others.
fn put_until_refused(api: &Api) -> (Vec<i64>, Status) {
    let mut acknowledged = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        assert!(Instant::now() < deadline, "{} puts fit into {SMALL_MIB} MiB", acknowledged.len());
        let number = acknowledged.len();
        match api.put(put(&format!("k{number:05}"), value(number))) {
            Ok(answer) => acknowledged.push(answer.header.unwrap().revision),
            Err(status) => return (acknowledged, status),
        }
    }
}

/// All that was acknowledged, from the `first` on, as it was put.
fn check(api: &Api, first: usize, acknowledged: &[i64]) {
    let found = api.all("k");
    assert_eq!(found.len(), acknowledged.len() - first);
    for (number, (kv, revision)) in found.iter().zip(&acknowledged[first..]).enumerate() {
        let number = first + number;
        assert_eq!(
            (kv.mod_revision, kv.version, kv.value == value(number)),
            (*revision, 1, true),
            "{number}"
        );
    }
}

/// sled can't be relied on after it: the server starts anew once there is room. That used to be an end of its process,
/// or of its image alone, which waited for ever.
#[test]
fn a_full_disk_refuses_puts_loses_nothing_and_ends_no_process() {
    let disk = Tmpfs::of(SMALL_MIB);
    let socket_path = disk.path().join("notify");
    let socket = UnixDatagram::bind(&socket_path).unwrap();
    socket.set_nonblocking(true).unwrap();
    let env = vec![("NOTIFY_SOCKET".to_owned(), socket_path.display().to_string())];
    let data_dir = Some(disk.path().join("data"));
    let mut server = Server::with(Kind::Etcfs, Options { env, data_dir, ..Default::default() });
    let (api, pid) = (server.api(), server.pid());
    let (acknowledged, refused) = put_until_refused(&api);
    etcfs_tests::process::show(&format!("{} puts fit; then: {refused}", acknowledged.len()));
    assert_eq!(refused.message(), "etcdserver: mvcc: database space exceeded");
    assert!(acknowledged.len() as u64 > SMALL_MIB / 16, "only {} puts fit", acknowledged.len());
    // Somebody else takes the rest: not a byte is left, and the server lives on. The log has a
    // segment in reserve for what makes room.
    let filler = fill_up(&disk);
    check(&api, 0, &acknowledged);
    api.delete(delete("k00000")).unwrap();
    api.compact(compact(api.revision())).unwrap();
    check(&api, 1, &acknowledged);
    assert_eq!(api.put(put("more", "v")).unwrap_err().code(), Code::ResourceExhausted);
    wait::until_true("its image waits", || server.log().contains("the image waits for room"));
    // With room the alarm goes by itself.
    std::fs::remove_file(filler).unwrap();
    disk.resize(LARGE_MIB);
    wait::until_true("it starts anew", || server.log().contains("starting anew after a full disk"));
    wait::until_true("puts are taken again", || api.put(put("more", "v")).is_ok());
    check(&api, 1, &acknowledged);
    assert_eq!((server.is_running(), server.pid()), (true, pid));
    // Its supervisor hears of no end, which it would see to.
    let mut said = String::new();
    let mut buffer = [0; 4096];
    while let Ok(length) = socket.recv(&mut buffer) {
        said.push_str(&String::from_utf8_lossy(&buffer[..length]));
    }
    assert_eq!((said.matches("READY=1").count(), said.contains("STOPPING=1")), (2, false), "{said}");
    // And the image goes on: what was written is there after a kill.
    server.kill();
    server.run();
    check(&server.api(), 1, &acknowledged);
    assert_eq!(server.api().value("more").as_deref(), Some("v"));
    server.kill();
}

/// Members that have joined since would be thrown out.
#[test]
fn a_server_that_forced_a_new_cluster_does_not_do_so_again_after_a_full_disk() {
    let disk = Tmpfs::of(SMALL_MIB);
    let data_dir = Some(disk.path().join("data"));
    let mut server = Server::with(Kind::Etcfs, Options { data_dir, ..Default::default() });
    assert!(server.stop().success());
    server.set_env("ETCFSD_FORCE_NEW_CLUSTER", "true");
    server.run();
    let api = server.api();
    put_until_refused(&api);
    let filler = fill_up(&disk);
    api.delete(delete("k00000")).unwrap();
    wait::until_true("its image waits", || server.log().contains("the image waits for room"));
    std::fs::remove_file(filler).unwrap();
    disk.resize(LARGE_MIB);
    wait::until_true("it starts anew", || server.log().contains("starting anew after a full disk"));
    wait::until_true("puts are taken", || api.put(put("more", "v")).is_ok());
    let log = server.log_of_last_run();
    assert!(!log.contains("is a cluster of its own from here on"), "{log}");
    assert!(server.log().contains("it is not forced again"), "{}", server.log());
    assert_eq!(server.api().value("more").as_deref(), Some("v"));
    server.kill();
}

#[test]
fn a_server_waits_for_room_to_start_in() {
    let disk = Tmpfs::of(SMALL_MIB);
    let data_dir = Some(disk.path().join("data"));
    let mut server = Server::with(Kind::Etcfs, Options { data_dir, ..Default::default() });
    server.api().set("a", "1");
    server.kill();
    let filler = fill_up(&disk);
    server.launch();
    wait::until_true("it says what it waits for", || {
        let log = server.log();
        log.contains("waiting for room to start in") || log.contains("raising the NOSPACE alarm")
    });
    std::fs::remove_file(filler).unwrap();
    server.wait_until_ready();
    let api = server.api();
    assert_eq!(api.value("a").as_deref(), Some("1"));
    wait::until_true("puts are taken", || api.put(put("a", "2")).is_ok());
    server.kill();
}
