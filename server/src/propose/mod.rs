//! All that one may ask of the cluster: to change it ([`Proposer`]), to be sure
//! that a read is up to date ([`ReadBarrier`]), and who is in it ([`Members`]).
//!
//! Limits are enforced here, before anything reaches the log: the size of a
//! request, how many may wait, and for how long.

mod errands;
mod error;
pub mod id;
mod members;
mod news;
mod read;
mod write;

pub use errands::Errands;
pub use error::ProposeError;
pub use members::Members;
pub use read::ReadBarrier;
pub use write::Proposer;

pub use crate::raft::{Alarms, ApplyError, ChangeError, MemberChange, MemberStatus, Response};
