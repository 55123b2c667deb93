//! Contexts: named clusters in a file, taken as a whole, and only where nothing nearer names servers.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf, process::Command};

use etcfs_tests::{
    binary,
    command::{self, Output},
    server::{Kind, Server},
};
use tempfile::TempDir;

/// A home with a configuration of its own.
struct Home(TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    fn run_in(&self, variables: &[(&str, &str)], line: &str) -> Output {
        let mut etcfs = Command::new(binary::etcfs());
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ETCFS_")) {
            etcfs.env_remove(name);
        }
        etcfs
            .env_remove("ETCDCTL_ENDPOINTS")
            .env("XDG_CONFIG_HOME", self.0.path())
            .current_dir(self.0.path());
        command::run(etcfs.envs(variables.iter().copied()).args(line.split(' ')), b"")
    }

    fn run(&self, line: &str) -> Output {
        self.run_in(&[], line)
    }

    #[track_caller]
    fn says(&self, line: &str) -> String {
        self.run(line).ok()
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("etcfs/config.yaml")
    }
}

#[test]
fn a_context_names_the_servers_until_something_nearer_does() {
    let (home, one, two) = (Home::new(), Server::start(Kind::Etcfs), Server::start(Kind::Etcd));
    one.api().set("who", "one");
    two.api().set("who", "two");
    home.says(&format!("context set one endpoints={}", one.endpoint()));
    home.says(&format!("context set two endpoints={} command-timeout=7s", two.endpoint()));
    assert_eq!(home.says("context list"), "* one\n  two\n");
    let who = |variables: &[(&str, &str)], options: &str| {
        home.run_in(variables, &format!("get{options} --print-value-only who")).ok()
    };
    assert_eq!(who(&[], ""), "one\n");
    assert_eq!(who(&[], " --context two"), "two\n");
    assert_eq!(who(&[("ETCFS_CONTEXT", "two")], ""), "two\n");
    let there = two.endpoint();
    assert_eq!(who(&[], &format!(" --endpoints {there}")), "two\n");
    assert_eq!(who(&[("ETCDCTL_ENDPOINTS", &there)], ""), "two\n");
    // Who names a context on the line means it, whatever the environment says.
    assert_eq!(who(&[("ETCDCTL_ENDPOINTS", &there)], " --context one"), "one\n");
    home.says("context use two");
    assert_eq!(who(&[], ""), "two\n");
    assert_eq!(home.says("context show"), format!("command-timeout=7s\nendpoints={there}\n"));
    home.says("context set two command-timeout=");
    assert_eq!(home.says("context show two"), format!("endpoints={there}\n"));
    home.says("context delete two");
    assert_eq!(home.says("context list"), "  one\n");
    let unknown = home.run("--context two get who");
    assert_eq!(unknown.code, 128);
    assert!(unknown.stderr.contains("no context \"two\"\nHint: there are: one"), "{unknown:?}");
}

/// The current context's user is not taken to servers that the line names.
#[test]
fn a_password_stands_in_a_file_and_goes_to_its_own_servers_alone() {
    let (home, server, other) = (Home::new(), Server::start(Kind::Etcfs), Server::start(Kind::Etcfs));
    for line in ["user add root:top", "user grant-role root root", "auth enable"] {
        command::run(
            Command::new(binary::etcfs()).env("ETCFS_ENDPOINTS", server.endpoint()).args(line.split(' ')),
            b"",
        )
        .ok();
    }
    let secret = home.0.path().join("secret");
    fs::write(&secret, "top\n").expect("a file of our own");
    let mode = |file: &PathBuf, mode| {
        fs::set_permissions(file, fs::Permissions::from_mode(mode)).expect("a file of our own");
    };
    mode(&secret, 0o600);
    home.says(&format!("context set c endpoints={} user=root password-file=secret", server.endpoint()));
    home.says("put k v");
    assert_eq!(home.says("get k"), "k\nv\n");
    let there = other.endpoint();
    other.api().set("k", "other");
    assert_eq!(home.says(&format!("get k --endpoints {there}")), "k\nother\n");
    let named = home.run(&format!("whoami --endpoints {there}")).ok();
    assert!(named.contains("Authentication is off"), "{named}");

    mode(&secret, 0o644);
    let refused = home.run("get k");
    assert_eq!(refused.code, 128);
    assert!(refused.stderr.contains("others may read the password\nHint: chmod 600"), "{refused:?}");
    mode(&secret, 0o600);
    mode(&home.file(), 0o666);
    let refused = home.run("get k");
    assert!(refused.stderr.contains("others may write it"), "{refused:?}");
    // Without a server to ask, nobody needs the file.
    home.says("version");
}

#[test]
fn a_file_with_a_mistake_says_where_it_is() {
    let home = Home::new();
    home.says("context set c endpoints=127.0.0.1:1");
    assert!(home.run("context set c endpoint=x").stderr.contains("endpoint is no setting of a context"));
    assert!(home.run("context use d").stderr.contains("no context \"d\""));
    fs::write(home.file(), "contexts:\n  c:\n    endpoint: x\n").expect("a file of our own");
    let refused = home.run("get k");
    assert_eq!(refused.code, 128);
    assert!(
        refused.stderr.contains("config.yaml: context c has endpoint, which is no setting"),
        "{refused:?}"
    );
}

#[test]
fn the_version_is_told() {
    let told = Home::new().says("version");
    assert!(told.starts_with("etcfs version: ") && told.contains("API version: 3."), "{told}");
}
