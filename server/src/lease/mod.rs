//! Leases: what is granted and which keys hang on it.

pub mod table;

pub use table::{LeaseChange, LeaseFacts, TableHandle};
