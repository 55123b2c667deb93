//! Why the cluster did not do what it was asked.

use crate::raft::{ApplyError, Late};

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
    /// As `Timeout`; a leader was lost meanwhile.
    #[error("request timed out, possibly due to previous leader failure")]
    TimeoutByLeaderFailure,
    /// As `Timeout`; a connection that was needed was lost meanwhile.
    #[error("request timed out, possibly due to connection lost")]
    TimeoutByLostConnection,
    /// Outcome unknown, as with `LeaderChanged`.
    #[error("server stopped")]
    Stopped,
    #[error("request is too large")]
    TooLarge,
}

impl From<Late> for ProposeError {
    fn from(cause: Late) -> Self {
        match cause {
            Late::LeaderFailed => Self::TimeoutByLeaderFailure,
            Late::ConnectionLost => Self::TimeoutByLostConnection,
            Late::Unknown => Self::Timeout,
        }
    }
}
