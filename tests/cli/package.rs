//! The Debian package, from its making to its end, on a bare Debian and on this machine, each under an overlay: it has
//! its usual ports there, no service manager, and what it leaves behind is told.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use etcfs_tests::{
    binary, command, machine,
    overlay::{self, Ground},
};

/// The programs by the names of their targets, and as the package installs them.
fn programs() -> [(&'static str, PathBuf); 3] {
    [("etcfs", binary::etcfs()), ("etcfsd", binary::etcfsd()), ("mount-etcfs", binary::mount_etcfs())]
}

/// Makes the package of the binaries under test, as `just deb` makes it of those of a release.
fn build(dir: &Path) -> PathBuf {
    let built = dir.join("release");
    fs::create_dir(&built).expect("a directory of our own");
    for (name, program) in programs() {
        // Without what only a debugger reads: it is most of them.
        let mut strip = Command::new(machine::program("strip"));
        command::run(strip.arg("-o").arg(built.join(name)).arg(program), b"").ok();
    }
    machine::program("dpkg-shlibdeps");
    let deb = dir.join("etcfs.deb");
    let mut cargo = Command::new(machine::crate_program("cargo-deb"));
    cargo.args([
        "deb",
        "--no-build",
        "--no-strip",
        "--fast",
        "--locked",
        "--offline",
        "--package",
        "etcfs-cli",
    ]);
    cargo.arg("--output").arg(&deb).env("CARGO_TARGET_DIR", dir);
    cargo.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    command::run(&mut cargo, b"").ok();
    deb
}

/// One package for all that is done with it: compressing it takes longest.
#[test]
fn a_package_is_installed_mounted_and_removed() {
    machine::needs_fuse();
    let dir = tempfile::tempdir().expect("a temporary directory");
    machine::open_to_all(dir.path());
    build(dir.path());
    for ground in [Ground::Bare, Ground::Machine] {
        in_use_it_leaves_only_data(dir.path(), ground);
        unused_it_leaves_nothing(dir.path(), ground);
    }
    newcomers_come_to_a_mount(dir.path());
    a_tarball_has_what_it_has(dir.path());
}

/// What the system itself notes about packages and users: not of the package.
fn is_the_systems_own(path: &str) -> bool {
    const KEPT: [&str; 10] = [
        "var/lib/dpkg/",
        "var/log/",
        "var/cache/",
        "var/lib/systemd/",
        "run/",
        "etc/fstab",
        "etc/passwd-",
        "etc/shadow-",
        "etc/group-",
        "etc/gshadow-",
    ];
    KEPT.iter().any(|kept| path.starts_with(kept)) || path == "etc/.pwd.lock"
}

fn left(said: &str) -> Vec<&str> {
    said.lines()
        .filter_map(|line| line.strip_prefix("left "))
        .filter(|path| !is_the_systems_own(path))
        .collect()
}

/// Installed, served by the unit's command line, mounted by fstab, used by a user, removed: only data stays.
fn in_use_it_leaves_only_data(dir: &Path, ground: Ground) {
    let said = overlay::run(
        dir,
        ground,
        r#"
dpkg --install /in/etcfs.deb >/dev/null
getent passwd etcfs >/dev/null
# A bare Debian has no man.
! command -v man >/dev/null || man -w etcfs etcfs.7 etcfs.conf etcfsd mount.etcfs >/dev/null
for file in /usr/share/man/man1/etcfs.1.gz /usr/share/bash-completion/completions/etcfs /usr/lib/systemd/system/etcfsd.service \
    /usr/share/doc/etcfs/examples/etcfsd.env /sbin/mount.etcfs; do test -s $file; done

# The unit's own words, without a service manager.
unit=/usr/lib/systemd/system/etcfsd.service
of() { sed -n "s/^$1=//p" $unit; }
setpriv --reuid "$(of User)" --regid "$(of Group)" --clear-groups env "$(of Environment)" $(of ExecStart) >/scratch/log 2>&1 &
server=$!
for try in $(seq 600); do
    etcfs endpoint health >/dev/null 2>&1 && break
    read -rt 0.1 <> <(:) || true
done
etcfs put /app/greeting hello

echo '127.0.0.1:2379:/ /mnt etcfs _netdev,nofail,allow_other,uid=65534,gid=65534 0 0' >>/etc/fstab
mount -a
setpriv --reuid nobody --regid nogroup --clear-groups env HOME=/ bash -eu <<'END'
cat /mnt/app/greeting; echo
mkdir /mnt/app/jobs
echo of nobody >/mnt/app/jobs/one
ls /mnt/app
etcfs get --print-value-only /app/jobs/one
END
echo of root >/mnt/app/other
etcfs get --print-value-only /app/other
umount /mnt
kill $server; wait $server || { cat /scratch/log; false; }

dpkg --remove etcfs >/dev/null
test ! -e /usr/bin/etcfs
dpkg --purge etcfs
ls -ld /var/lib/etcfs | cut -d' ' -f1,3,4
getent passwd etcfs >/dev/null && echo its owner stays
"#,
    );
    assert!(said.starts_with("OK\nhello\ngreeting\njobs\nof nobody\n\nof root\n"), "{ground:?}: {said}");
    assert!(said.contains("The data in /var/lib/etcfs stays, and the user etcfs, whose it is.\n"), "{said}");
    assert!(said.contains("drwx------ etcfs etcfs\nits owner stays\n"), "{said}");
    let users = ["etc/passwd", "etc/group", "etc/shadow", "etc/gshadow"];
    let other: Vec<_> = left(&said)
        .into_iter()
        .filter(|path| !path.starts_with("var/lib/etcfs/") && !users.contains(path))
        .collect();
    assert!(other.is_empty(), "{ground:?}: {other:?}");
    assert!(left(&said).iter().any(|path| path.starts_with("var/lib/etcfs/")), "data: {said}");
}

/// Without data the user goes too, and everything is as before.
fn unused_it_leaves_nothing(dir: &Path, ground: Ground) {
    let said = overlay::run(
        dir,
        ground,
        r#"
files="/etc/passwd /etc/group /etc/shadow /etc/gshadow"
sort $files >/scratch/before
dpkg --install /in/etcfs.deb >/dev/null
cmp -s /scratch/before <(sort $files) && exit 1
dpkg --purge etcfs >/dev/null
diff /scratch/before <(sort $files)
"#,
    );
    assert!(left(&said).is_empty(), "{:?}", left(&said));
}

/// By the ways that the README has from a package, which this times there.
fn newcomers_come_to_a_mount(dir: &Path) {
    machine::program("etcd");
    let newcomer = concat!(env!("CARGO_MANIFEST_DIR"), "/bench/newcomer");
    for way in ["package", "etcd"] {
        let mut newcomer = Command::new(newcomer);
        let said = command::run(newcomer.arg(way).arg(dir.join("etcfs.deb")).env("WARM", "1"), b"").ok();
        assert!(said.starts_with("dpkg: ") && said.contains("\nfirst ls: "), "{way}: {said}");
    }
}

/// The tarball has the package's files, and its programs need the C library alone.
fn a_tarball_has_what_it_has(dir: &Path) {
    let tarball = concat!(env!("CARGO_MANIFEST_DIR"), "/../cli/dist/tarball");
    let script = format!(
        "{tarball} etcfs.deb out && cd out && sha256sum --check --quiet *.sha256 && tar tf *.tar.gz | sed 's,^[^/]*/,./,' | grep -vx ./ | \
         sort >../packed && dpkg-deb --fsys-tarfile ../etcfs.deb | tar t | sort >../package && diff ../package ../packed"
    );
    let said = command::bash(dir, &script).ok();
    assert!(said.contains("out/etcfs-") && said.contains(".tar.gz"), "{said}");
}
