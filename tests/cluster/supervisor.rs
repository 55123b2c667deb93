//! What systemd is told, on a socket of the test's own.

use std::{os::unix::net::UnixDatagram, time::Duration};

use etcfs_tests::{
    server::{Kind, Options, Server},
    wait,
};

const WATCHDOG: Duration = Duration::from_millis(400);

/// Everything that was said by now, a line each.
fn said(socket: &UnixDatagram) -> Vec<String> {
    let mut buffer = [0; 4096];
    let mut lines = Vec::new();
    while let Ok(length) = socket.recv(&mut buffer) {
        lines.extend(String::from_utf8_lossy(&buffer[..length]).lines().map(str::to_owned));
    }
    lines
}

#[test]
fn systemd_is_told_of_the_start_of_life_and_of_the_end() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket of our own");
    socket.set_nonblocking(true).expect("it can be");
    let env = vec![
        ("NOTIFY_SOCKET".to_owned(), path.display().to_string()),
        ("WATCHDOG_USEC".to_owned(), WATCHDOG.as_micros().to_string()),
    ];
    let mut server = Server::prepared(Kind::Etcfs, Options { env, ..Options::default() });
    server.launch();
    let mut lines: Vec<String> = Vec::new();
    wait::until_true("it says that it is ready", || {
        lines.extend(said(&socket));
        lines.iter().any(|line| line == "READY=1")
    });
    server.wait_until_ready();
    let signs = |lines: &[String]| lines.iter().filter(|line| *line == "WATCHDOG=1").count();
    wait::until_true("it gives signs of life", || {
        lines.extend(said(&socket));
        signs(&lines) >= 5
    });
    assert!(!lines.contains(&"STOPPING=1".to_owned()), "{lines:?}");
    assert!(server.stop().success());
    assert!(said(&socket).contains(&"STOPPING=1".to_owned()));
}
