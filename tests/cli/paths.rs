//! Paths in a mount as arguments: they are the keys that they show, on the servers of that mount.

use std::{path::Path, process::Command};

use etcfs_tests::{
    binary, command,
    mount::Mount,
    server::{Kind, Server},
};

/// Runs `etcfs` with these words in a directory; nothing tells it of any server.
fn etcfs(dir: &Path, words: &str) -> command::Output {
    let mut command = Command::new(binary::etcfs());
    command.args(words.split(' ')).current_dir(dir).env("HOME", dir);
    for name in ["ETCFS_ENDPOINTS", "ETCDCTL_ENDPOINTS", "XDG_CONFIG_HOME", "ETCFS_CONFIG"] {
        command.env_remove(name);
    }
    command::run(&mut command, b"")
}

#[test]
fn a_path_in_a_mount_is_the_key_that_it_shows_mounted() {
    let server = Server::start(Kind::Etcfs);
    let api = server.api();
    api.set("/project/a/b", "1");
    let revision = api.set("/project/a/b", "2");
    api.set("/project/a/c", "3");
    api.set("/project/a", "4");
    let mount = Mount::with(&format!("{}:/project", server.endpoint()), "");
    let inside = mount.path();
    let ok = |words: &str| etcfs(&inside, words).ok();
    assert_eq!(ok("get ./a/b"), "/project/a/b\n2\n");
    assert_eq!(ok("get ./a/%value"), "/project/a\n4\n");
    assert_eq!(ok("get --prefix --keys-only ./a/"), "/project/a/b\n\n/project/a/c\n\n");
    assert_eq!(ok("get ./a/nosuch"), "", "a path need not exist");
    assert_eq!(ok("history ./a/b").lines().count(), 2);
    let newest = ok(&format!("get --rev {revision} ../mnt/a/b"));
    assert_eq!(newest, "/project/a/b\n2\n");
    // The first change since then, and no more.
    let first = format!("timeout 60 {} watch --rev {revision} ./a/b | head -3", binary::etcfs().display());
    assert_eq!(mount.sh(&format!("env -u ETCDCTL_ENDPOINTS {first}")), "PUT\n/project/a/b\n2\n");
    let refused = etcfs(&inside, "get ./%status").failed();
    assert!(refused.contains("./%status is the path of no key"), "{refused}");
    // Without the dot it is a key, and so it is where nothing is mounted.
    let named = |words: &str| format!("--endpoints {} {words}", server.endpoint());
    api.set("./a/b", "a key");
    assert_eq!(etcfs(&inside, &named("get /project/a/b")).ok(), "/project/a/b\n2\n");
    let outside = tempfile::tempdir().expect("a temporary directory");
    assert_eq!(etcfs(outside.path(), &named("get ./a/b")).ok(), "./a/b\na key\n");
}
