//! The command line of the cluster and its file system.
//!
//! [`args`] has the flags of every command, [`commands`] one file for each
//! command, [`output`] one for each format, [`contexts`] the named clusters,
//! [`connect`] makes the client, [`error`] turns what went wrong into a
//! message, a hint and an exit code, [`cmdline`] keeps passwords out of sight.
//!
//! Flags, output and exit codes are etcdctl's (3.6's where it is known to
//! differ), so that scripts written for it go on working. It must not know
//! the insides of server and mount: only `commands/up.rs`, `mount.rs`, `umount.rs` and `doctor/here.rs`
//! call them; `export.rs`, `import.rs`, `role.rs` and [`mounted`] use the mount's map of keys to paths.

mod args;
mod bench;
mod cmdline;
mod commands;
mod connect;
mod contexts;
mod error;
mod files;
mod mounted;
mod output;
mod pages;
mod requests;
mod save;
mod session;
mod transfer;
mod words;

use std::{env, ffi::OsString, process::ExitCode};

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let line: Vec<OsString> = env::args_os().collect();
    // Where that can't be done, the line is as visible as etcdctl's.
    drop(cmdline::hide(commands::completion::is_asked().then_some("--")));
    if commands::completion::answer(&line) {
        return ExitCode::SUCCESS;
    }
    match commands::Arguments::read(line) {
        Ok(arguments) => commands::run(arguments).unwrap_or_else(|error| error.report()),
        Err(unread) => unread.report(),
    }
}
