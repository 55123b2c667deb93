//! Passwords: asked for on the terminal, read from a file, or on the command line.

use std::{fs, os::unix::fs::PermissionsExt as _, process::Command};

use etcfs_tests::{
    binary,
    command::{self, Output},
    machine,
    server::{Kind, Options, Server},
};

fn stage() -> Server {
    let args = vec!["--bcrypt-cost=4".to_owned()];
    Server::with(Kind::Etcfs, Options { args, ..Options::default() })
}

/// Runs a command on a terminal, where this is typed.
fn typed(server: &Server, arguments: &str, input: &str) -> Output {
    let line = format!("{} {arguments}", binary::etcfs().display());
    let mut script = Command::new(machine::program("script"));
    script.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
    script.env("ETCFS_ENDPOINTS", server.endpoint());
    command::run(&mut script, input.as_bytes())
}

/// Runs it where there is no terminal.
fn alone(server: &Server, arguments: &str) -> Output {
    let mut setsid = Command::new("setsid");
    setsid.arg("--wait").arg(binary::etcfs()).args(arguments.split(' '));
    command::run(setsid.env("ETCFS_ENDPOINTS", server.endpoint()), b"")
}

#[test]
fn a_password_is_asked_for() {
    let server = stage();
    let made = typed(&server, "user add root", "secret\nsecret\n");
    assert!(made.code == 0 && made.stdout.contains("Password of root: "), "{made:?}");
    assert!(made.stdout.contains("Type password of root again for confirmation: "), "{made:?}");
    let differs = typed(&server, "user add bob", "one\ntwo\n");
    assert!(differs.code == 128 && differs.stdout.contains("given passwords are different"), "{differs:?}");
    let nobody = alone(&server, "user add bob");
    assert!(nobody.code == 128 && nobody.stderr.contains("no password can be asked for"), "{nobody:?}");
    assert!(nobody.stderr.contains("--interactive=false"), "{nobody:?}");
    assert_eq!(alone(&server, "user list").ok(), "root\n");

    alone(&server, "user grant-role root root").ok();
    alone(&server, "auth enable").ok();
    let asked = typed(&server, "--user root user list", "secret\n");
    assert!(asked.code == 0 && asked.stdout.contains("Password: "), "{asked:?}");
    let wrong = typed(&server, "--user root user list", "wrong\n");
    assert!(wrong.code == 2 && wrong.stdout.contains("check --user and the password"), "{wrong:?}");
    let nobody = alone(&server, "--user root user list");
    assert!(nobody.code == 128 && nobody.stderr.contains("no password can be asked for"), "{nobody:?}");

    assert_eq!(alone(&server, "--user root --password secret user list").ok(), "root\n");
    let file = server.scratch().join("password");
    fs::write(&file, "secret\nmore\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let from_file = format!("--user root --password-file {} user list", file.display());
    assert_eq!(alone(&server, &from_file).ok(), "root\n");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(alone(&server, &from_file).failed().contains("others may read the password"));
}
