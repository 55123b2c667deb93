//! Leases: what is granted and which keys hang on it ([`table`], replicated),
//! and when each ends ([`lessor`], by the leader's clock alone).

mod deadlines;
pub mod lessor;
mod room;
pub mod table;
