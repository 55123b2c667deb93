//! How a mount is run: by mount(8) and fstab(5), by users, for others, under a supervisor.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use etcfs_tests::{
    binary,
    command::{self, sh},
    machine,
    mount::{Mount, mounted},
    process::Process,
    server::Server,
    wait,
};
use tempfile::TempDir;

use super::Stage;

const NOBODY: u32 = 65534;

/// A directory that everybody may look into, with the program and a mount point in it.
struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        machine::open_to_all(dir.path());
        let sbin = dir.path().join("sbin");
        fs::create_dir(&sbin).expect("a directory of our own");
        // Not a link: where the build lies, not everybody may look.
        fs::copy(binary::mount_etcfs(), sbin.join("mount.etcfs")).expect("the program is copied");
        fs::create_dir(dir.path().join("mnt")).expect("a directory of our own");
        Self { dir }
    }

    fn mnt(&self) -> PathBuf {
        self.dir.path().join("mnt")
    }

    /// Runs a script, in a mount namespace of its own, whose `/dev/fuse` is open to all and whose `/usr/sbin` holds
    /// nothing but our program: mount(8) looks for helpers there.
    #[track_caller]
    fn run(&self, script: &str) -> String {
        machine::needs_root("makes a mount namespace");
        let before = "set -e; mount -t tmpfs -o mode=755 none dev; mknod -m 666 dev/fuse c 10 229; \
                      mount --bind dev/fuse /dev/fuse; mount --bind sbin /usr/sbin; ";
        fs::create_dir_all(self.dir.path().join("dev")).expect("a directory of our own");
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &format!("{before}{script}")]).current_dir(self.dir.path());
        command::run(&mut command, b"").ok()
    }
}

/// Reports success only once the mount answers
#[test]
fn mount_and_fstab_mount_it_by_its_type() {
    let server = Server::etcfs();
    server.api().set("/project/f", "v\n");
    let (place, endpoint) = (Place::new(), server.endpoint());
    let mounted =
        format!("mount -t etcfs -o noatime {endpoint}:/ mnt; cat mnt/project/f; umount mnt; ls mnt");
    assert_eq!(place.run(&mounted), "v\n");
    let line = format!("{endpoint}:/project {} etcfs _netdev,nofail,umask=077 0 0\n", place.mnt().display());
    fs::write(place.dir.path().join("fstab"), line).expect("a file of our own");
    let mounted = "mount -a -T fstab; mount -a -T fstab; cat mnt/f; stat -c %a mnt/f; umount mnt; ls mnt";
    assert_eq!(place.run(mounted), "v\n600\n");
}

/// It was busy while the helper for inotify was tried.
#[test]
fn a_mount_can_be_unmounted_as_soon_as_it_is_there_mounted() {
    let (server, place) = (Server::etcfs(), Place::new());
    let script =
        format!("for round in $(seq 20); do mount -t etcfs {}:/ mnt; umount mnt; done", server.endpoint());
    assert_eq!(place.run(&script), "");
}

#[test]
fn a_user_mounts_and_unmounts_by_fusermount3() {
    machine::program("fusermount3");
    let server = Server::etcfs();
    server.api().set("/f", "v\n");
    let (place, endpoint) = (Place::new(), server.endpoint());
    chown(place.mnt(), Some(NOBODY), Some(NOBODY)).expect("a directory of our own");
    let user = "setpriv --reuid 65534 --regid 65534 --clear-groups";
    let script = format!(
        "{user} sbin/mount.etcfs {endpoint}:/ mnt; {user} sh -c 'cat mnt/f; echo w > mnt/g; stat -c %u:%g mnt/g'; \
         cat mnt/f 2>/dev/null && exit 1; {user} fusermount3 -u mnt; ls mnt"
    );
    assert_eq!(place.run(&script), "v\n65534:65534\n");
    assert_eq!(server.api().value("/g").as_deref(), Some("w\n"));
    // Without fuse.conf's leave a user can't let others in, and hears what to do.
    let script = format!("{user} sbin/mount.etcfs -o allow_other {endpoint}:/ mnt 2>&1 || true");
    let complaint = place.run(&script);
    assert!(complaint.contains("user_allow_other"), "{complaint}");
}

/// Mode, owner and times come from the mount
#[test]
fn others_are_let_in_as_the_options_say() {
    machine::needs_root("changes users");
    let stranger = |dir: &Path, script: &str| {
        let user = ["--reuid", "65534", "--regid", "65534", "--clear-groups", "sh", "-c", script];
        command::run(Command::new("setpriv").args(user).current_dir("/").env("AT", dir), b"")
    };
    let s = Stage::new();
    s.sh("echo v > f");
    stranger(&s.mount.path(), "cat $AT/f").failed();

    let server = &s.server;
    let mount = Mount::for_all(&server.endpoint());
    assert_eq!(stranger(&mount.path(), "cat $AT/f").ok(), "v\n");
    assert!(stranger(&mount.path(), "echo w > $AT/f").failed().contains("Permission denied"));
    assert_eq!(server.api().value("/f").as_deref(), Some("v\n"));

    let options = "allow_other,uid=65534,gid=7,fmask=137,dmask=027";
    let mount = Mount::with(&format!("{}:/", server.endpoint()), options);
    fs::set_permissions(mount.path().parent().expect("it is in one"), fs::Permissions::from_mode(0o755))
        .expect("a directory of our own");
    assert_eq!(mount.sh("stat -c %u:%g:%a . f"), "65534:7:750\n65534:7:640\n");
    assert_eq!(stranger(&mount.path(), "echo w > $AT/f; cat $AT/f").ok(), "w\n");
}

/// A new mount over a dead one works
#[test]
fn a_supervised_mount_is_back_within_two_seconds() {
    let unit = include_str!("../../../fs/dist/etcfs-mnt.service");
    let setting = |name: &str| unit.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    assert_eq!(setting("Restart"), Some("always"));
    let pause: f64 =
        setting("RestartSec").and_then(|time| time.strip_suffix("ms")?.parse().ok()).expect("a time");
    let start = setting("ExecStart").expect("a command");
    assert_eq!(start, "/sbin/mount.etcfs -f 127.0.0.1:2379:/ /mnt");

    // What systemd does with this unit, without systemd.
    let server = Server::etcfs();
    server.api().set("/f", "v");
    let place = Place::new();
    let supervise = format!(
        "while :; do {} -f {}:/ {} & echo $! > pid; wait; sleep {}; done",
        binary::mount_etcfs().display(),
        server.endpoint(),
        place.mnt().display(),
        pause / 1000.0
    );
    let log = place.dir.path().join("log");
    let mut command = Command::new("sh");
    command.args(["-c", &supervise]).current_dir(place.dir.path());
    let mut supervisor = Process::start("a supervisor", &mut command, &log);
    let file = place.mnt().join("f");
    let answers = || fs::read_to_string(&file).is_ok_and(|text| text == "v");
    wait::until_true("the mount answers", answers);
    let pid_file = place.dir.path().join("pid");
    // The mount may answer before the shell has written it.
    let pid = || {
        wait::until("its process is known", || {
            let pid = fs::read_to_string(&pid_file).ok()?.trim().to_owned();
            (!pid.is_empty() && Path::new("/proc").join(&pid).exists()).then_some(pid)
        })
    };
    let mut soonest = Duration::MAX;
    // On a loaded machine one of three is not held up.
    for _ in 0..3 {
        let killed = Instant::now();
        sh(place.dir.path(), &format!("kill -9 {}", pid())).ok();
        wait::until_true("the daemon is dead", || !answers());
        wait::until_true("the mount is back", answers);
        soonest = soonest.min(killed.elapsed());
    }
    let last = pid();
    supervisor.kill();
    sh(place.dir.path(), &format!("kill {last}")).ok();
    wait::until_true("the mount is gone", || !mounted(&place.mnt()));
    assert!(soonest < Duration::from_secs(2), "back after {soonest:?}");
}
