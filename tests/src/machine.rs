//! What the machine must offer, and the words for what it lacks.
//!
//! A test that drives a program asks for it here first. A missing one fails the
//! test with the Debian package's name and the way to get it; nothing is skipped.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// The Debian package that holds each program the tests drive.
const PACKAGES: [(&str, &str); 36] = [
    ("bash", "bash"),
    ("busybox", "busybox"),
    ("cc", "gcc"),
    ("curl", "curl"),
    ("dpkg-shlibdeps", "dpkg-dev"),
    ("etcd", "etcd-server"),
    ("etcdctl", "etcd-client"),
    ("fish", "fish"),
    ("fusermount3", "fuse3"),
    ("getfattr", "attr"),
    ("setfattr", "attr"),
    ("git", "git"),
    ("inotifywait", "inotify-tools"),
    ("ip", "iproute2"),
    ("less", "less"),
    ("losetup", "mount"),
    ("make", "make"),
    ("mandoc", "mandoc"),
    ("mkfs.ext4", "e2fsprogs"),
    ("mount", "mount"),
    ("nano", "nano"),
    ("node", "nodejs"),
    ("nsenter", "util-linux"),
    ("openssl", "openssl"),
    ("ps", "procps"),
    ("python3", "python3"),
    ("rsync", "rsync"),
    ("script", "bsdutils"),
    ("sqlite3", "sqlite3"),
    ("strace", "strace"),
    ("strip", "binutils"),
    ("systemd-analyze", "systemd"),
    ("umount", "mount"),
    ("unshare", "util-linux"),
    ("vim", "vim"),
    ("zsh", "zsh"),
];

/// Finds `program`; panics with its package's name where it is missing.
pub fn program(program: &str) -> PathBuf {
    let Some(found) = find(program) else {
        match PACKAGES.iter().find(|(name, _)| *name == program) {
            Some((_, package)) => panic!(
                "`{program}` is not installed: it is in the Debian package `{package}`, \
                 which `tests/run` installs (or: apt-get install {package})"
            ),
            None => panic!("`{program}` is not installed"),
        }
    };
    found
}

fn find(program: &str) -> Option<PathBuf> {
    // Administrators' programs are not on every user's PATH.
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|dir| dir.join(program))
        .find(|file| fs::metadata(file).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0))
}

/// Finds a program that `tests/run` builds from crates.io, in the version that it says.
pub fn crate_program(program: &str) -> PathBuf {
    prepared(&format!("bin/{program}"))
}

/// The files of a Debian as it is when it has just been installed, of the release that runs here, in an archive.
pub fn bare_debian() -> PathBuf {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    prepared(&format!("debian-{}.tar", name.unwrap_or("unknown")))
}

/// Finds what `tests/run` makes once, and keeps.
fn prepared(name: &str) -> PathBuf {
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cache")));
    let found = cache.unwrap_or_default().join("etcfs-tests").join(name);
    assert!(found.is_file(), "there is no {}: `tests/run --packages` makes it", found.display());
    found
}

/// Lets every user into a directory.
pub fn open_to_all(dir: &Path) {
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).expect("a directory of our own");
}

/// Panics where the test's user is not root, with what it `does` that takes root.
pub fn needs_root(does: &str) {
    assert!(is_root(), "this test {does}: run it as root");
}

/// Panics where file systems can't be mounted here, with what to do about it.
pub fn needs_fuse() {
    if let Err(error) = fs::OpenOptions::new().read(true).write(true).open("/dev/fuse") {
        panic!(
            "/dev/fuse is not usable ({error}), so nothing can be mounted here: load the module `fuse`, \
             or give the container the device and CAP_SYS_ADMIN; `tests/run` runs all that does not mount"
        );
    }
    if !is_root() {
        program("fusermount3");
    }
}

/// Panics where the test's user may not make and mount loop devices.
pub fn needs_loop_devices() {
    assert!(is_root(), "loop devices need root: run this test as root");
    assert!(
        fs::metadata("/dev/loop-control").is_ok(),
        "there is no /dev/loop-control: load the module `loop`, or run this test on a machine that has it"
    );
    for name in ["losetup", "mkfs.ext4", "mount", "umount"] {
        program(name);
    }
}

/// Panics where the test's user may not make network namespaces.
pub fn needs_network_namespaces() {
    assert!(is_root(), "network namespaces need root: run this test as root");
    for name in ["ip", "nsenter"] {
        program(name);
    }
}

/// The library that gives a process a wall clock of its own.
pub fn faketime() -> PathBuf {
    let found = fs::read_dir("/usr/lib").into_iter().flatten().flatten().find_map(|dir| {
        let library = dir.path().join("faketime/libfaketimeMT.so.1");
        library.is_file().then_some(library)
    });
    found.expect(
        "libfaketime is not installed: it is in the Debian package `libfaketime`, \
         which `tests/run` installs (or: apt-get install libfaketime)",
    )
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The number in the environment variable `name`, or `default`.
pub fn setting(name: &str, default: u64) -> u64 {
    match env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")),
        Err(_) => default,
    }
}
