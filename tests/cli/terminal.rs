//! What a person at a terminal gets, and a pipe does not: colours, tables, and no bytes that steer the terminal.

use std::process::Command;

use etcfs_tests::{
    binary, command, machine,
    server::{Kind, Server},
};

/// What a command prints to a terminal.
fn shown(server: &Server, arguments: &str) -> String {
    shown_in(server, &[], arguments)
}

fn shown_in(server: &Server, variables: &[(&str, &str)], arguments: &str) -> String {
    let line = format!("{} {arguments}", binary::etcfs().display());
    let mut script = Command::new(machine::program("script"));
    script.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
    script.env("ETCFS_ENDPOINTS", server.endpoint()).env("TERM", "xterm").env_remove("NO_COLOR");
    // What shows a CI's log takes colours, whatever TERM says.
    script.env_remove("CI");
    script.envs(variables.iter().copied());
    command::run(&mut script, b"").stdout.replace("\r\n", "\n")
}

/// What it prints to a pipe.
fn piped(server: &Server, arguments: &str) -> String {
    let mut etcfs = Command::new(binary::etcfs());
    let output =
        command::run(etcfs.env("ETCFS_ENDPOINTS", server.endpoint()).args(arguments.split(' ')), b"");
    output.stdout + &output.stderr
}

#[test]
fn a_terminal_gets_colours_and_tables() {
    let server = Server::start(Kind::Etcfs);
    server.api().set("/a/b", "1");
    server.api().set("/c", "1");
    assert_eq!(shown(&server, "ls /"), "\x1b[1;34ma/\x1b[0m\nc\n");
    assert_eq!(piped(&server, "ls /"), "a/\nc\n");
    assert!(shown(&server, "tree /").starts_with("\x1b[1;34ma\x1b[0m/\n    b\nc\n"));
    for table in ["member list", "endpoint status", "endpoint health", "endpoint hashkv"] {
        assert!(shown(&server, table).starts_with("+--"), "{table}");
        assert!(!piped(&server, table).contains('+'), "{table}");
        assert!(!shown(&server, &format!("-w simple {table}")).contains("+--"), "{table}");
    }
    assert!(shown(&server, "doctor").contains("\x1b[32mok\x1b[0m    "));
    assert!(!piped(&server, "doctor").contains('\x1b'));
    let failed = shown(&server, "--endpoints 127.0.0.1:1 get a");
    assert!(
        failed.contains("\x1b[1;31mError:\x1b[0m ") && failed.contains("\x1b[1mHint:\x1b[0m "),
        "{failed:?}"
    );
    let failed = piped(&server, "--endpoints 127.0.0.1:1 get a");
    assert!(failed.starts_with("Error: ") && failed.contains("\nHint: "), "{failed:?}");
}

#[test]
fn a_key_does_not_steer_a_terminal_unless_it_is_asked_to() {
    let server = Server::start(Kind::Etcfs);
    server.api().set("k\x1b[2J", "v\x1b[2J");
    assert_eq!(shown(&server, "get --prefix k"), "k\\x1b[2J\nv\\x1b[2J\n");
    assert_eq!(shown(&server, "get --raw --prefix k"), "k\x1b[2J\nv\x1b[2J\n");
    assert_eq!(piped(&server, "get --prefix k"), "k\x1b[2J\nv\x1b[2J\n");
}

#[test]
fn colours_are_left_out_where_nobody_wants_them() {
    let server = Server::start(Kind::Etcfs);
    server.api().set("/a/b", "1");
    for variable in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        for command in ["ls /", "tree /", "doctor", "--endpoints 127.0.0.1:1 get a"] {
            let shown = shown_in(&server, &[variable], command);
            assert!(!shown.is_empty() && !shown.contains("\x1b["), "{variable:?} {command}: {shown:?}");
        }
    }
}

#[test]
fn long_work_shows_how_far_it_is_on_a_terminal_alone() {
    let server = Server::start(Kind::Etcfs);
    for number in 0..100 {
        server.api().set(&format!("/a/{number}"), "v");
    }
    let to = |name: &str| server.scratch().join(name).display().to_string();
    for (terminal, pipe) in [
        (format!("export /a {}", to("one")), format!("export /a {}", to("two"))),
        (format!("snapshot save {}", to("one.db")), format!("snapshot save {}", to("two.db"))),
        ("bench load --total 2000".to_owned(), "bench load --total 2000".to_owned()),
        ("bench put --total 200".to_owned(), "bench put --total 200".to_owned()),
    ] {
        let shown = shown(&server, &terminal);
        assert!(shown.contains('\u{2588}') || shown.contains('\u{2591}'), "{terminal}: {shown:?}");
        let piped = piped(&server, &pipe);
        assert!(piped.is_ascii() && !piped.contains('\r') && !piped.contains('\x1b'), "{pipe}: {piped:?}");
    }
}
