//! What each command of the log does to the state.
//!
//! Pure and synchronous: the same commands give the same state and the same
//! outcomes on every member, so nothing here asks a clock or draws a number.

pub mod error;
pub mod machine;
pub mod outcome;
pub mod state;

pub use error::ApplyError;
pub use machine::{Machine, State};
pub use outcome::{Applied, Outcome, Response};
pub use state::{Alarms, Cluster};
