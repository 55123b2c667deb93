//! The harness of the end-to-end tests: real processes, real mounts, real faults.
//!
//! A test owns what it starts: ports, directories, servers, mounts and commands
//! end with their value. Nothing here sleeps for a guess: [`wait`] asks for a
//! condition until a deadline, and says which condition did not come true.
//! What the machine lacks fails the test that needs it, by name ([`machine`]).

pub mod api;
pub mod binary;
pub mod certs;
pub mod clock;
pub mod cluster;
pub mod command;
pub mod commit;
pub mod curl;
pub mod disk;
pub mod dns;
pub mod history;
pub mod judge;
pub mod listener;
pub mod load;
pub mod machine;
pub mod mount;
pub mod mutation;
pub mod overlay;
pub mod partition;
pub mod port;
pub mod process;
pub mod proxy;
pub mod raw;
pub mod record;
pub mod server;
pub mod shared;
pub mod tmpfs;
pub mod wait;
