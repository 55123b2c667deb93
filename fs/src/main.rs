//! `mount.etcfs`: mounts the key space of an etcd v3 server.

use std::process::ExitCode;

fn main() -> ExitCode {
    etcfs_fs::main_with(std::env::args_os())
}
