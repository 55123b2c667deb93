//! The log, and what happens to the process when something is badly wrong.

use std::io;

use tracing_subscriber::{EnvFilter, fmt};

use crate::config::{Log, LogFormat, LogLevel};

/// Opens the log on standard error. `RUST_LOG` narrows or widens it by module.
pub fn open(log: &Log) {
    let level = match log.level {
        LogLevel::Debug => "debug",
        LogLevel::Info => "info",
        LogLevel::Warn => "warn",
        LogLevel::Error => "error",
    };
    // Of the libraries only what an operator of this server can act on: openraft warns of each
    // attempt to reach a member that is away, which this server tells once.
    let default = format!("warn,openraft=error,etcfs_server={level}");
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let lines = fmt().with_env_filter(filter).with_writer(io::stderr);
    // Already open means that the program we are embedded in has opened its own.
    let _opened = match log.format {
        LogFormat::Json => lines.json().flatten_event(true).with_target(false).try_init(),
        LogFormat::Console => lines.with_target(false).with_ansi(false).try_init(),
    };
}

/// Makes a panic of any thread end the process.
///
/// A panic is a bug, and state that a panic left half done must not be served:
/// the disk holds all that was acknowledged, so a restart is safe.
pub fn abort_on_panic() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        print(panic);
        std::process::abort();
    }));
}
