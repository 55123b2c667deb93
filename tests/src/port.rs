//! Ports that no other test takes, in this process or another.
//!
//! They lie below the kernel's range for outgoing connections, so that no
//! client's socket takes one between two runs of the same server, and each is
//! held by a lock on a file for as long as its value lives.

use std::{
    fs::{self, File},
    net::TcpListener,
    path::Path,
};

use rustix::fs::{FlockOperation, flock};

const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;
const LOCKS: &str = "/tmp/etcfs-test-ports";

/// A TCP port of 127.0.0.1 that this value alone uses.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _lock: File,
}

impl Port {
    pub fn take() -> Self {
        // Other users may run tests beside us.
        if fs::create_dir(LOCKS).is_ok() {
            let open = std::os::unix::fs::PermissionsExt::from_mode(0o1777);
            fs::set_permissions(LOCKS, open).expect("the directory of port locks is ours");
        }
        let start = rand::random::<u16>() % COUNT;
        (0..COUNT)
            .find_map(|step| Self::try_take(FIRST + (start + step) % COUNT))
            .expect("12,000 ports are not all in use")
    }

    fn try_take(number: u16) -> Option<Self> {
        let lock = File::create(Path::new(LOCKS).join(number.to_string())).ok()?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).ok()?;
        TcpListener::bind(("127.0.0.1", number)).ok()?;
        Some(Self { number, _lock: lock })
    }

    pub fn number(&self) -> u16 {
        self.number
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.number)
    }
}
