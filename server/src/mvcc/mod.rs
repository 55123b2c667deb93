//! The multi-version store: every key with its history.
//!
//! One writer ([`write::Writer`], owned by apply) adds revisions; any number of
//! readers look at the store as it was at one revision. What a reader sees is
//! what has been published, never half of a log entry. The key index is wholly
//! in memory; values of recent revisions and often read ones are kept within a
//! byte budget and the rest is read from the image. Nothing in here knows a
//! clock, a task or a wire.

pub mod error;
pub mod event;
pub mod revision;
pub mod store;

pub use error::ReadError;
pub use event::{EventKind, Previous, RevisionEvents, WatchEvent};
pub use revision::Revision;
pub use store::{KvHash, Store, StoreOptions};
