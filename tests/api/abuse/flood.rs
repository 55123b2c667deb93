//! Floods of one connection, and many idle ones.

use std::net::TcpStream;

use etcfs_tests::{server::Server, wait};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{
    RESIDENT_BYTES_MAX,
    frames::{
        CANCEL, CONTINUATION, Connection, END_HEADERS, End, HEADERS, PING, RST_STREAM, call_headers, frame,
    },
    lives, server,
};

/// HTTP/2's word for a client that asks too much.
const ENHANCE_YOUR_CALM: End = End::GoAway(11);

/// Sends until the server ends the connection; how much it took until then.
#[track_caller]
fn send_until_it_ends(server: &Server, max: usize, mut next: impl FnMut(usize) -> Vec<u8>) -> (usize, End) {
    let mut connection = Connection::open(&server.endpoint());
    for sent in 0..max {
        if let Some(end) = connection.has_ended() {
            return (sent, end);
        }
        if connection.send(&next(sent)).is_err() {
            return (sent, connection.end());
        }
    }
    panic!("the server took {max} of them");
}

/// CVE-2023-44487: calls that are taken back as soon as they are made.
#[test]
fn a_rapid_reset_of_calls_is_ended() {
    let server = server(&[]);
    let headers = call_headers("/etcdserverpb.KV/Range");
    const AT_ONCE: u32 = 500;
    let (batches, end) = send_until_it_ends(&server, 1000, |batch| {
        let first = u32::try_from(batch).expect("few batches") * AT_ONCE;
        let calls = (first..first + AT_ONCE).map(|nth| {
            let stream = 2 * nth + 1;
            let reset = frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes());
            [frame(HEADERS, END_HEADERS, stream, &headers), reset].concat()
        });
        calls.collect::<Vec<_>>().concat()
    });
    assert!(matches!(end, ENHANCE_YOUR_CALM | End::HungUp), "{end:?} after {batches} batches");
    lives(&server, RESIDENT_BYTES_MAX);
}

/// CVE-2023-45288: headers without an end.
#[test]
fn a_flood_of_continuations_is_ended() {
    let server = server(&[]);
    // A literal header of 100 bytes, again and again.
    let header = [&[0, 1, b'x', 100][..], &[b'y'; 100][..]].concat();
    let piece = frame(CONTINUATION, 0, 1, &header.repeat(100));
    let (frames, end) = send_until_it_ends(&server, 10_000, |sent| match sent {
        0 => frame(HEADERS, 0, 1, &call_headers("/etcdserverpb.KV/Range")),
        _ => piece.clone(),
    });
    assert!(matches!(end, End::GoAway(_) | End::HungUp), "{end:?} after {frames} frames");
    lives(&server, RESIDENT_BYTES_MAX);
}

/// CVE-2019-9512. The fourth ping is the last, as with etcd.
#[test]
fn a_flood_of_pings_is_ended() {
    let ping = frame(PING, 0, 0, &[0; 8]);
    for server in [server(&[]), Server::etcd()] {
        let mut connection = Connection::open(&server.endpoint());
        connection.send(&ping.repeat(3)).expect("it reads");
        wait::until_true("three are answered", || connection.pongs() == 3);
        connection.send(&ping).expect("it reads");
        assert_eq!(connection.end(), ENHANCE_YOUR_CALM, "of {:?}", server.kind());
    }
    let server = server(&["--grpc-keepalive-min-time=0s"]);
    let mut connection = Connection::open(&server.endpoint());
    connection.send(&ping.repeat(1000)).expect("it reads");
    wait::until_true("all are answered", || connection.pongs() == 1000);
    lives(&server, RESIDENT_BYTES_MAX);
}

#[test]
fn ten_thousand_idle_connections_cost_little_and_go() {
    const CONNECTIONS: usize = 10_000;
    let server = server(&[]);
    server.api().set("a", "1");
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("up to the maximum is allowed");
    let before = server.resident_bytes();
    let open = || server.metric("etcfs_client_connections").unwrap_or_default() as usize;
    let mut idle = Vec::with_capacity(CONNECTIONS);
    while idle.len() < CONNECTIONS {
        idle.push(TcpStream::connect(server.endpoint()).unwrap_or_else(|error| {
            let nth = idle.len();
            panic!("connection {nth}: {error}; this test needs {CONNECTIONS} open files (ulimit -n)")
        }));
        // A queue that overflows costs seconds.
        if idle.len().is_multiple_of(500) {
            wait::until_true("all are accepted", || open() >= idle.len());
        }
    }
    let grown = server.resident_bytes().saturating_sub(before);
    assert!(grown < 64 << 20, "{CONNECTIONS} idle connections took {} MiB", grown >> 20);
    lives(&server, RESIDENT_BYTES_MAX);
    drop(idle);
    wait::until_true("all are gone", || open() < 10);
}
