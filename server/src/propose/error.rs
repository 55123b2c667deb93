//! Why the cluster did not do what it was asked.

use crate::raft::{ApplyError, BarrierError, SubmitError};

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Refused by the state; nothing changed.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// Not taken on: too much waits already.
    #[error("too many requests")]
    TooManyRequests,
    /// Not taken on.
    #[error("no leader")]
    NoLeader,
    /// Outcome unknown: the request may yet be carried out.
    #[error("the leader changed")]
    LeaderChanged,
    /// Outcome unknown, as with `LeaderChanged`.
    #[error("request timed out")]
    Timeout,
    /// Outcome unknown, as with `LeaderChanged`.
    #[error("server stopped")]
    Stopped,
    #[error("request is too large")]
    TooLarge,
}

impl From<SubmitError> for ProposeError {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::NotLeader => Self::NoLeader,
            SubmitError::LeaderChanged => Self::LeaderChanged,
        }
    }
}

impl From<BarrierError> for ProposeError {
    fn from(error: BarrierError) -> Self {
        match error {
            BarrierError::NoLeader => Self::NoLeader,
            // Nothing was changed by a read, so this is only a matter of time.
            BarrierError::NoQuorum => Self::Timeout,
            BarrierError::Stopped => Self::Stopped,
        }
    }
}
