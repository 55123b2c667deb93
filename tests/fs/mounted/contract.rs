//! What the mount refuses, and the one errno it gives; what it keeps.

use std::{
    fs::{self, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink},
    path::Path,
    process::Command,
};

use etcfs_tests::{
    api::{delete, grant, put_on_lease},
    command::Followed,
    machine, wait,
};
use rustix::{
    fs::{CWD, RenameFlags, renameat_with as rename},
    io::Errno,
};

use super::Stage;

#[track_caller]
fn refuses<T>(result: io::Result<T>, errno: Errno) {
    let error = result.err().expect("it is refused");
    assert_eq!(error.raw_os_error(), Some(errno.raw_os_error()), "{error}");
}

/// A name is valid iff encoding what it decodes to gives it back
#[test]
fn a_name_that_no_key_has_is_refused() {
    let s = Stage::new();
    for name in ["%41", "50%off", "%2f", "%", "%zz"] {
        refuses(fs::metadata(s.mount.at(name)), Errno::NOENT);
        refuses(fs::write(s.mount.at(name), "v"), Errno::INVAL);
        refuses(fs::create_dir(s.mount.at(name)), Errno::INVAL);
    }
    refuses(fs::metadata(s.mount.at("x".repeat(256))), Errno::NAMETOOLONG);
    refuses(fs::write(s.mount.at("x".repeat(256)), "v"), Errno::NAMETOOLONG);
}

/// A name is a directory if a key lies below it, or if a record of it exists
#[test]
fn who_stands_in_a_directory_knows_where_while_its_keys_come_and_go() {
    const INSIDE: &str = "import os, sys\nfor _ in sys.stdin: print(os.listdir(), os.getcwd())";
    let s = Stage::new();
    s.api.set("/d/first", "v");
    let mut python = Command::new(machine::program("python3"));
    python.args(["-u", "-c", INSIDE]).current_dir(s.mount.at("d"));
    let mut inside = Followed::start_with_input(&mut python);
    // What the mount knows the directory by goes, while there is another key.
    s.api.set("/d/other", "v");
    s.api.delete(delete("/d/first")).expect("a delete is accepted");
    let path = s.mount.at("d").display().to_string();
    wait::until_true("it is gone", || {
        inside.type_in("\n");
        let (names, place) =
            inside.line().rsplit_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned())).expect("both");
        assert_eq!(place, path);
        names == "['other']"
    });
}

/// A key's path is its bytes, spelled where they can't stand in a name
#[test]
fn odd_keys_have_a_path_and_the_path_leads_back() {
    let s = Stage::new();
    let long = "x".repeat(400);
    let keys = [
        "/",
        "//",
        "/a/",
        "/a//b",
        "/a\0",
        "/%41",
        "/..",
        "/.",
        "/\u{85}",
        "/new\nline",
        &format!("/{long}"),
    ];
    for (number, key) in keys.iter().enumerate() {
        s.api.set(key, format!("value {number}"));
    }
    s.comes_to_print("cat %empty/%value", "value 0");
    for (number, path) in [
        (1, "%empty/%empty".to_owned()),
        (2, "a/%empty/%value".to_owned()),
        (3, "a/%empty/b".to_owned()),
        (4, "a%00".to_owned()),
        (5, "%2541".to_owned()),
        (6, "%2E%2E".to_owned()),
        (7, "%2E".to_owned()),
        (8, "%C2%85".to_owned()),
        (9, "new%0Aline".to_owned()),
        (10, format!("{}%more/{}", "x".repeat(250), "x".repeat(150))),
    ] {
        let value = fs::read_to_string(s.mount.at(&path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert_eq!(value, format!("value {number}"), "{path}");
    }
    // Every key is found by walking, and nothing else is.
    let found: usize = s.sh("find . -type f | wc -l").trim().parse().expect("a number");
    assert_eq!(found, keys.len());
}

/// Mode, owner and times come from the mount
#[test]
fn what_a_key_can_not_hold_is_refused_with_its_errno() {
    let s = Stage::new();
    s.sh("echo v > f");
    let file = s.mount.at("f");
    refuses(symlink("f", s.mount.at("link")), Errno::PERM);
    refuses(fs::hard_link(&file, s.mount.at("hard")), Errno::PERM);
    refuses(fs::set_permissions(&file, fs::Permissions::from_mode(0o777)), Errno::PERM);
    // A change to what is already so is none.
    let metadata = fs::metadata(&file).expect("it is there");
    fs::set_permissions(&file, metadata.permissions()).expect("it is so already");
    std::os::unix::fs::chown(&file, Some(metadata.uid()), Some(metadata.gid())).expect("it is so already");
    refuses(std::os::unix::fs::chown(&file, Some(metadata.uid() + 1), None), Errno::PERM);
    let output = etcfs_tests::command::sh(&s.mount.path(), "mkfifo pipe");
    assert!(output.failed().contains("Operation not permitted"));
    let output = etcfs_tests::command::sh(&s.mount.path(), "setfattr -n user.other -v x f");
    assert!(output.failed().contains("Operation not supported"));
    assert_eq!(s.api.all("/").len(), 1);
}

/// A name is a directory if a key lies below it, or if a record of it exists
/// rmdir of a directory that holds anything deletes nothing
#[test]
fn directories_are_made_and_removed_as_posix_says() {
    let s = Stage::new();
    s.api.set("/below/key", "v");
    s.comes_to_print("test -d below && echo yes", "yes\n");
    fs::remove_file(s.mount.at("below/key")).expect("it is removed");
    fs::remove_dir(s.mount.at("below")).expect("it is empty");
    fs::create_dir(s.mount.at("d")).expect("it is made");
    assert!(s.api.get(".etcfs/dir//d/").is_some());
    refuses(fs::create_dir(s.mount.at("d")), Errno::EXIST);
    fs::write(s.mount.at("d/f"), "v").expect("it is written");
    refuses(fs::remove_dir(s.mount.at("d")), Errno::NOTEMPTY);
    refuses(fs::remove_dir(s.mount.at("d/f")), Errno::NOTDIR);
    refuses(fs::remove_file(s.mount.at("d")), Errno::ISDIR);
    refuses(fs::create_dir(s.mount.at("nowhere/d")), Errno::NOENT);
    refuses(fs::read(s.mount.at("d/f/x")), Errno::NOTDIR);
    fs::remove_file(s.mount.at("d/f")).expect("it is removed");
    // The directory stays without its last child, in a new mount too.
    assert_eq!(s.sh("ls"), "d\n");
    let other = etcfs_tests::mount::Mount::root(&s.server.endpoint());
    assert_eq!(other.sh("ls"), "d\n");
    fs::remove_dir(s.mount.at("d")).expect("it is empty");
    assert_eq!(s.sh("ls"), "");
    assert!(s.api.all("").iter().all(|kv| kv.key.starts_with(b".etcfs/op/")), "{:?}", s.api.all(""));
}

/// The lease of a key survives writes
#[test]
fn mounted_files_change_places_in_one_revision_or_not_at_all() {
    let s = Stage::new();
    let exchange = |flags| {
        let (one, two) = (s.mount.at("one"), s.mount.at("two"));
        rename(CWD, &one, CWD, &two, flags).map_err(io::Error::from)
    };
    let lease = s.api.grant(grant(600)).expect("a lease is granted").id;
    s.api.put(put_on_lease("/one", "first", lease)).expect("a put is accepted");
    s.api.set("/two", "second");
    refuses(exchange(RenameFlags::NOREPLACE), Errno::EXIST);
    exchange(RenameFlags::EXCHANGE).expect("both are there");
    let (one, two) = (s.api.get("/one").expect("it is there"), s.api.get("/two").expect("it is there"));
    assert_eq!((one.value.as_ref(), one.lease), (&b"second"[..], 0));
    assert_eq!((two.value.as_ref(), two.lease), (&b"first"[..], lease), "a lease goes with its value");
    assert_eq!(one.mod_revision, two.mod_revision);
    assert_eq!(s.sh("cat one two"), "secondfirst");
    // Each fits into a request, both together do not.
    for name in ["/one", "/two"] {
        s.api.set(name, vec![b'x'; 900_000]);
    }
    s.comes_to_print("stat -c %s one two", "900000\n900000\n");
    let before = s.api.revision();
    refuses(exchange(RenameFlags::EXCHANGE), Errno::FBIG);
    assert_eq!(s.api.revision(), before);
}

/// Unlinked here, an open file goes on without a name
#[test]
fn a_file_that_was_unlinked_here_goes_on_without_a_name() {
    let s = Stage::new();
    s.sh("echo v > f");
    let mut file = OpenOptions::new().read(true).write(true).open(s.mount.at("f")).expect("it opens");
    fs::remove_file(s.mount.at("f")).expect("it is removed");
    let mut text = String::new();
    file.read_to_string(&mut text).expect("it can be read");
    assert_eq!(text, "v\n");
    file.write_all(b"more").expect("it can be written");
    file.sync_all().expect("and closed");
    drop(file);
    assert_eq!(s.api.get("/f"), None);
}

/// A dirty close of a file deleted elsewhere resurrects nothing
#[test]
fn a_file_that_was_deleted_elsewhere_is_not_resurrected() {
    let s = Stage::new();
    s.sh("echo 0123456789 > f");
    let file = OpenOptions::new().read(true).write(true).open(s.mount.at("f")).expect("it opens");
    file.write_all_at(b"X", 3).expect("it is buffered");
    s.api.delete(delete("/f")).expect("a delete is accepted");
    refuses(file.sync_all(), Errno::STALE);
    drop(file);
    assert_eq!(s.api.get("/f"), None);
}

/// Numbers that a key has not are told by the mount
#[test]
fn times_and_sizes_are_the_keys_own() {
    let s = Stage::new();
    fs::create_dir_all(s.mount.at("d/sub")).expect("they are made");
    let dir = fs::metadata(s.mount.at("d")).expect("it is there");
    let root = fs::metadata(s.mount.path()).expect("it is there");
    assert_eq!(dir.nlink(), 1);
    assert!(dir.modified().ok() > root.modified().ok(), "d/sub came after d: {dir:?} {root:?}");
    s.api.set("/sized", vec![b'x'; 5000]);
    s.comes_to_print("stat -c %s sized", "5000\n");
    let sized = fs::metadata(s.mount.at("sized")).expect("it is there");
    assert!(sized.blocks() * 512 >= 5000 && sized.blocks() * 512 < 5000 + 4096, "{}", sized.blocks());
    assert_eq!((sized.nlink(), sized.atime(), sized.atime_nsec()), (1, sized.mtime(), sized.mtime_nsec()));
    s.sh("echo one > f; echo one > g");
    let times = |name: &str| fs::metadata(s.mount.at(name)).map(|m| (m.mtime(), m.mtime_nsec(), m.len()));
    let (f, g) = (times("f").expect("f"), times("g").expect("g"));
    assert!(f < g, "a later revision has a later time: {f:?} {g:?}");
    s.sh("echo longer >> f");
    assert!(times("f").expect("f") > g);
    assert_eq!(times("f").expect("f").2, 11);
    let quota = rustix::fs::statvfs(s.mount.path().as_path()).expect("statfs");
    assert!(quota.f_blocks > quota.f_bfree && quota.f_bfree > 0, "{} of {}", quota.f_bfree, quota.f_blocks);
}

/// Only etcfs's own attributes exist
#[test]
fn wrong_attributes_are_refused_with_their_errno() {
    let s = Stage::new();
    s.sh("echo v > f");
    let set = |name: &str, value: &str| {
        etcfs_tests::command::sh(&s.mount.path(), &format!("setfattr -n user.etcfs.{name} -v '{value}' f"))
            .failed()
    };
    assert!(set("lease", "no-hex").contains("Invalid argument"));
    assert!(set("lease", "1234").contains("No such file or directory"));
    assert!(set("ttl", "soon").contains("Invalid argument"));
    assert!(set("revision", "7").contains("Operation not permitted"));
    assert!(set("key", "/g").contains("Operation not permitted"));
    assert_eq!(s.api.get("/f").expect("it is there").lease, 0);
}

#[test]
fn git_and_friends_work_in_a_mount() {
    let s = Stage::new();
    let script = "git init -q . && git config user.email a@b && git config user.name a && \
                  for i in 1 2 3 4 5; do echo $i > file$i; done && git add . && git commit -qm one && \
                  echo changed > file3 && git commit -qam two && git fsck --strict 2>&1 && git log --oneline | wc -l";
    fs::create_dir(s.mount.at("repo")).expect("it is made");
    let output = etcfs_tests::command::sh(Path::new(&s.mount.at("repo")), script);
    assert!(output.code == 0, "{output:?}");
    assert!(output.stdout.ends_with("2\n"), "{output:?}");
}
