//! Clients that mean no good, or know no better: each is answered in gRPC's codes
//! or hung up on, and the server stays alive and small.

mod flood;
mod frames;
mod garbage;
mod many;
mod ranges;
mod slow;
mod watchers;

use etcfs_tests::server::{Kind, Options, Server};

/// What a server may take in each of these cases.
const RESIDENT_BYTES_MAX: u64 = 256 << 20;

/// A server of this case, which keeps few values in memory.
fn server(args: &[&str]) -> Server {
    let args = ["--value-cache-bytes=16777216", "--bcrypt-cost=4"].iter().chain(args);
    Server::with(Kind::Etcfs, Options { args: args.map(ToString::to_string).collect(), ..Default::default() })
}

/// Checks that it serves, has not grown above `max_bytes` at any time, and that nothing panicked.
#[track_caller]
fn lives(server: &Server, max_bytes: u64) {
    let before = server.api().set("alive", "yes");
    assert_eq!(server.api().get("alive").map(|kv| kv.mod_revision), Some(before));
    let peak = server.peak_bytes();
    assert!(peak <= max_bytes, "it took {} MiB at its peak, above {} MiB", peak >> 20, max_bytes >> 20);
    assert!(!server.log().contains("panicked"), "a thread panicked");
}
