//! What each command of the log does to the state.
//!
//! Pure and synchronous: the same commands give the same state and the same
//! outcomes on every member, so nothing here asks a clock or draws a number.
//! [`machine`] takes a log entry apart, [`admit`] says what alarms forbid, and
//! there is one file for each kind of command.

mod admit;
mod alarm;
mod compaction;
mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod kv;
mod lease;
mod machine;
mod member;
mod op;
mod outcome;
mod txn;

#[cfg(test)]
mod model;
#[cfg(test)]
mod times;

pub use alarm::Alarms;
pub use error::ApplyError;
pub use machine::{Machine, State};
pub use member::Cluster;
pub use op::{op, succeeded};
pub use outcome::{Applied, Outcome, Response};
