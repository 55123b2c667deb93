//! etcfsd: a clustered key-value server that speaks the etcd v3 API.
//!
//! A write comes in at `net`, is checked by `service`, becomes part of a batch
//! in `propose`, is replicated and made durable by `raft` (whose log lies in
//! `storage::wal`), is applied by `apply` to `mvcc` and `lease`, is written
//! behind to the image on disk by `storage::image`, and its events go out
//! through `watch`. A linearizable read waits at `propose` for the read barrier
//! and then reads `mvcc`; a serializable one reads at once.

pub mod apply;
pub mod auth;
pub mod background;
pub mod config;
pub mod discovery;
mod heap;
pub mod lease;
pub mod maintain;
pub mod metrics;
pub mod mvcc;
pub mod net;
pub mod offline;
pub mod process;
pub mod propose;
pub mod raft;
pub mod run;
pub mod service;
pub mod storage;
pub mod telemetry;
pub mod threads;
pub mod tls;
pub mod version;
pub mod watch;

pub use config::Config;
pub use run::{Next, run};
