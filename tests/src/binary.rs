//! The binaries under test: this crate builds them from their own `main.rs`.
//!
//! Cargo makes them before the tests, in the same profile and with failpoints,
//! and tells their paths at run time. They run under the names that packages
//! give them, since help texts and logs print `argv[0]`.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process,
    sync::OnceLock,
};

/// The server.
pub fn etcfsd() -> PathBuf {
    named("etcfsd", "etcfsd-under-test")
}

/// The mount daemon.
pub fn mount_etcfs() -> PathBuf {
    named("mount.etcfs", "mount-etcfs-under-test")
}

/// The command line.
pub fn etcfs() -> PathBuf {
    named("etcfs", "etcfs-under-test")
}

fn named(name: &str, target: &str) -> PathBuf {
    let variable = format!("CARGO_BIN_EXE_{target}");
    let built = env::var_os(&variable).map(PathBuf::from).unwrap_or_else(|| {
        panic!("{variable} is not set: run the tests by cargo (or tests/run), not by hand")
    });
    let dir = links(built.parent().expect("a file lies in a directory"));
    let link = dir.join(name);
    if fs::read_link(&link).is_ok_and(|to| to == built) {
        return link;
    }
    // Tests run beside each other: make it under a name of our own, then swap it in.
    let own = dir.join(format!(".{name}.{}.{:x}", process::id(), rand::random::<u32>()));
    std::os::unix::fs::symlink(&built, &own).expect("a link beside the binaries");
    fs::rename(&own, &link).expect("a link beside the binaries");
    link
}

fn links(built: &Path) -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        let dir = built.join("under-test");
        fs::create_dir_all(&dir).expect("a directory beside the binaries");
        dir
    })
}
