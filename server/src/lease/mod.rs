//! Leases: what is granted and which keys hang on it ([`table`], replicated),
//! and when each ends ([`lessor`], by the leader's clock alone).

mod deadlines;
pub mod lessor;
pub mod table;

pub use lessor::{KeepAlive, Lessor};
pub use table::{LEASE_TTL_SECONDS_MAX, LeaseChange, LeaseFacts, TableHandle};
