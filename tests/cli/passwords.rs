//! Passwords: asked for on the terminal, read from a file, or on the command line.

use std::{fs, net::TcpListener, os::unix::fs::PermissionsExt as _, process::Command};

use etcfs_tests::{
    binary,
    command::{self, Output},
    machine,
    process::Process,
    server::{Kind, Options, Server},
    wait,
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

/// Everybody on the machine may read what /proc and ps show of a command.
#[test]
fn a_password_on_the_command_line_is_not_seen_in_proc() {
    // Takes connections and never says a word, so that each command waits.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let dir = tempfile::tempdir().unwrap();
    for (arguments, shown) in [
        ("--user root:s3cret watch a", "--user root:****** watch a"),
        ("watch a --user=root --password=s3cret", "watch a --user=root --password=******"),
        ("--user root --password s3cret get a:b", "--user root --password ****** get a:b"),
        ("user add root:s3cret", "user add root:******"),
        ("user add root --new-user-password s3cret", "user add root --new-user-password ******"),
        ("make-mirror --dest-user=a:s3cret 127.0.0.1:1", "make-mirror --dest-user=a:****** 127.0.0.1:1"),
    ] {
        let mut command = Command::new(binary::etcfs());
        command.args(["--endpoints", &endpoint, "--dial-timeout=1m", "--command-timeout=1m"]);
        command.args(arguments.split(' '));
        let mut process = Process::start("etcfs", &mut command, &dir.path().join("log"));
        let proc = format!("/proc/{}/cmdline", process.pid());
        let seen = || String::from_utf8(fs::read(&proc).unwrap()).unwrap().replace('\0', " ");
        wait::until_true("the password is hidden", || seen().trim_end().ends_with(shown));
        assert!(!seen().contains("s3cret"), "{}", seen());
        process.kill();
    }
}

/// What is hidden is not lost: it is the password all the same.
#[test]
fn a_password_on_the_command_line_is_used() {
    let server = stage();
    alone(&server, "user add root:s3cret").ok();
    alone(&server, "user grant-role root root").ok();
    alone(&server, "auth enable").ok();
    assert_eq!(alone(&server, "--user root:s3cret user list").ok(), "root\n");
    alone(&server, "--user root --password s3cret user add joe --new-user-password an0ther").ok();
    assert_eq!(alone(&server, "--user joe:an0ther user get joe").ok(), "User: joe\nRoles: \n");
}
