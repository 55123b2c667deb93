//! `etcfs mount` and `etcfs umount`.

use std::{fs, path::PathBuf, process::Command};

use etcfs_tests::{
    command::{self, Client},
    machine,
    server::{Kind, Server},
    wait,
};

/// A directory to mount at; no mount outlives it.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("mnt")
    }

    fn is_mounted(&self) -> bool {
        command::run(Command::new("mountpoint").arg("-q").arg(self.path()), b"").code == 0
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.is_mounted() {
            drop(Command::new("umount").arg("--lazy").arg(self.path()).status());
        }
    }
}

#[test]
fn keys_are_mounted_and_taken_away_again() {
    machine::needs_fuse();
    let server = Server::start(Kind::Etcfs);
    server.api().set("/project/a", "1");
    let place = Place::new();
    fs::create_dir(place.path()).expect("a directory of our own");
    let (dir, source) = (place.path().display().to_string(), format!("{}:/project", server.endpoint()));
    let etcfs = Client::etcfs(&server.endpoint());
    let none = etcfs.run(["umount", &dir]).failed();
    assert!(none.contains(&format!("{dir} is no mount point")), "{none}");

    etcfs.run(["mount", &source, &dir, "-o", "ro"]).ok();
    let file = place.path().join("a");
    assert_eq!(fs::read_to_string(&file).expect("a key"), "1");
    assert!(fs::write(&file, "2").is_err(), "it is mounted to be read");
    etcfs.run(["umount", &dir]).ok();
    assert!(!place.is_mounted() && !file.exists());

    etcfs.run(["mount", "--", "-o", "rw", &source, &dir]).ok();
    fs::write(&file, "2").expect("it is mounted to be written");
    assert_eq!(server.api().value("/project/a").as_deref(), Some("2"));
    let open = fs::File::open(&file).expect("a key");
    let busy = etcfs.run(["umount", &dir]).failed();
    assert!(busy.contains("Hint: a program uses it") && busy.contains("--lazy"), "{busy}");
    assert!(place.is_mounted());
    etcfs.run(["umount", "--lazy", &dir]).ok();
    wait::until_true("it is taken away", || !place.is_mounted());
    drop(open);
}
