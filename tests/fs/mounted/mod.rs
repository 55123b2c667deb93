//! A server, a mount of it, and what a user does there.

mod access;
mod bench;
mod changes;
mod consistency;
mod contract;
mod cut;
mod daemon;
mod drills;
mod follow;
mod inotify;
mod lease;
mod listing;
mod lock;
mod metrics;
mod options;
mod posix;
mod programs;
mod quota;
mod requests;
mod restart;
mod revisions;
mod rolling;
mod running;
mod scratch;
mod signals;
mod size;
mod tree;
mod tutorial;
mod unsaved;
mod virtuals;

use etcfs_tests::{
    api::Api,
    mount::Mount,
    server::{Kind, Server},
};

/// One server and one mount of all keys that begin with `/`.
struct Stage {
    mount: Mount,
    api: Api,
    server: Server,
}

impl Stage {
    fn new() -> Self {
        Self::on(Kind::Etcfs)
    }

    fn on(kind: Kind) -> Self {
        let server = Server::start(kind);
        let mount = Mount::root(&server.endpoint());
        Self { mount, api: server.api(), server }
    }

    /// Runs a script in the mount point; it succeeds.
    #[track_caller]
    fn sh(&self, script: &str) -> String {
        self.mount.sh(script)
    }

    /// Waits until a script in the mount point prints `output`: for changes made elsewhere.
    #[track_caller]
    fn comes_to_print(&self, script: &str, output: &str) {
        self.mount.comes_to_print(script, output);
    }
}
