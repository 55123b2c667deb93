//! Long or disk-bound work on the store, asked for by `service` and `background`.

mod backup;
mod disk;
mod hash;
mod sizes;

pub use backup::{Backups, Part};
pub use disk::Disk;
pub use hash::Hash;
pub use sizes::Sizes;
// The error of its work; `service` does not know storage itself.
pub use crate::storage::error::StorageError;
