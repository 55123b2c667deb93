//! Long or disk-bound work on the store, asked for by `service` and `background`.

mod backup;
mod hash;
mod sizes;

pub use backup::{Backups, Part};
pub use hash::Hash;
pub use sizes::Sizes;
// Of its work; `service` and `background` do not know storage itself.
pub use crate::storage::{Space, StorageError};
