//! What lies on disk: the Raft log and the image of the state machine.
//!
//! The log ([`wal`]) is what an acknowledgement rests on. The image is rows in
//! an [`Engine`], written behind the log by one thread ([`image`]) and always
//! together with the applied index, so that a restart knows from where to
//! replay. Nothing here knows what a row means beyond its key ([`keyspace`]).

pub mod backup;
pub mod batch;
mod bundle;
pub mod codec;
pub mod datadir;
pub mod disk;
pub mod engine;
pub mod error;
pub mod failpoint;
mod fingerprint;
pub mod image;
pub mod keyspace;
pub mod memory;
pub mod sled;
pub mod snapshot;
pub mod space;
pub mod wal;

pub use backup::{Backup, BackupError};
pub use batch::Batch;
pub use datadir::{DataDir, DataDirError, Identity};
pub use disk::{Disk, DiskFile, OsDisk};
pub use engine::Engine;
pub use error::StorageError;
pub use fingerprint::Fingerprint;
pub use image::{Image, ImageHooks, ImageOptions, Written};
pub use memory::MemoryEngine;
pub use sled::DiskEngine;
pub use snapshot::{Durability, IncomingSnapshot, SnapshotFile};
pub use space::Space;
pub use wal::{Wal, WalEntry, WalError, WalOptions};
