//! The RPCs: check the request, ask `propose` or `mvcc`, fill the header.
//!
//! One file per gRPC service, each call about ten lines. What is wrong with a
//! request is decided in `check`, before anything is proposed; what an error
//! is called on the wire stands in `status` alone. Nothing here knows about
//! sockets, the log or the disk: whether a call came by gRPC or through some
//! other door is `net`'s affair.

mod check;
mod header;
mod status;

pub mod auth;
pub mod cluster;
pub mod health;
pub mod kv;
pub mod lease;
pub mod maintenance;
pub mod watch;

pub use header::Headers;
pub use status::Refusal;
