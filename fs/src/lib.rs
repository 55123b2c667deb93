//! `mount.etcfs`: the key space of an etcd v3 server as a file system.
//!
//! A file operation's way: `kernel` (fuser's calls) -> `ops` -> `node`, [`map`] (path <-> key)
//! -> [`remote`] (the server, in keys) and back; a change's way: [`remote`] watch -> `sync` -> `node` -> the
//! notifier thread. SEMANTICS.md says what it promises.
//!
//! This crate needs the etcd v3 API alone, so that it mounts any etcd of version 3.4 or later.

mod args;
pub mod config;
pub mod echo;
pub mod errno;
mod heap;
pub mod kernel;
mod lock;
pub mod map;
mod metrics;
mod mount;
mod node;
pub mod notify;
pub mod ops;
pub mod remote;
mod run;
mod scrape;
pub mod sync;
mod telemetry;
mod r#virtual;

pub use args::{SourceError, source};
pub use mount::mounts;
pub use run::{AS_COMMAND, main_with};
