//! The multi-version store: every key with its history.
//!
//! One writer ([`Writer`], owned by apply) adds revisions; any number of
//! readers look at the store as it was at one revision. What a reader sees is
//! what has been published, never half of a log entry. The key index is wholly
//! in memory; values of recent revisions and often read ones are kept within a
//! byte budget and the rest is read from the image. Nothing in here knows a
//! clock, a task or a wire.
//!
//! A change is a [`Revision`]; its row is the encoded pair ([`row`]); the
//! [`index`] maps each key to its history ([`key_index`]); the rows in memory
//! are [`values`]; [`sorted`] is how the index searches. [`store`] holds all of it behind one lock, [`read`] and
//! [`write`] are its two sides, [`long`] and [`long_txn`] read what is too
//! much to be held at once, [`order`] sorts it, [`children`] reads it as a tree, [`compact`] forgets history,
//! [`times`] says when revisions were made.

mod children;
mod compact;
mod compare;
mod error;
mod event;
mod hash;
mod history;
mod index;
mod key_index;
mod long;
mod long_txn;
mod order;
mod pins;
mod read;
mod restore;
mod revision;
mod row;
mod sorted;
mod store;
mod times;
mod values;
mod write;

#[cfg(test)]
mod concurrent;

pub use children::Children;
pub use compact::Scrubbed;
pub use compare::Branch;
pub use error::ReadError;
pub use event::{EventKind, Previous, RevisionEvents, WatchEvent};
pub use hash::KvHash;
pub use history::{History, HistoryLimits};
pub use long::{LongRange, Ranged};
pub use long_txn::{Part, RangedTxn};
pub use read::View;
pub(crate) use read::header;
pub use revision::{FIRST_REVISION, NEVER_COMPACTED, Revision};
pub use store::{Store, StoreOptions};
pub use times::Made;
pub use write::{WriteTxn, Writer};

/// Longest answer there is, as etcd's: what gRPC's libraries take at most.
pub const ANSWER_BYTES_MAX: usize = i32::MAX as usize;
