//! What can go wrong with a request, told apart by what the caller may do next.
//!
//! The question after a failed write is whether it was carried out. Only two
//! answers are honest: surely not, or unknown. [`ClientError::outcome`] gives
//! it for every error; the retry rules and the mount both ask there.

use std::time::Duration;

use tonic::{Code, Status};

use crate::connection::TransportError;

/// What a server says to a token that is none any more, or to none.
const STALE_LOGIN: [&str; 3] = [
    "etcdserver: invalid auth token",
    "etcdserver: revision of auth store is old",
    "etcdserver: user name is empty",
];

/// Why a request or a watch failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ClientError {
    #[error("bad endpoint {endpoint:?}: {reason}")]
    Endpoint { endpoint: String, reason: &'static str },
    /// Certificates or keys can't be used.
    #[error("TLS: {0}")]
    Tls(String),
    /// No byte of it reached a server.
    #[error("request not sent: {0}")]
    Unsent(Unsent),
    /// It left, and no answer came: it may have been carried out.
    #[error("no answer to the request: {0}")]
    Unknown(Lost),
    /// The server's own verdict.
    #[error("{message}")]
    Status { code: Code, message: String },
    /// The watch needs events that compaction has removed.
    #[error("watch needs revisions that are compacted up to {revision}")]
    Compacted { revision: i64 },
    /// The server ended the watch.
    #[error("watch canceled by the server: {reason}")]
    WatchCanceled { reason: String },
    /// The lease does not exist any more.
    #[error("lease {id:x} expired or revoked")]
    LeaseGone { id: i64 },
}

/// Why a request never left.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Unsent {
    #[error("cannot connect to {endpoint}: {reason}")]
    Connect { endpoint: String, reason: String },
    /// The server does not know the user, or not by this password.
    #[error("{endpoint} refuses the login: {reason}")]
    Login { endpoint: String, reason: String },
    #[error("no connection within {0:?}")]
    Deadline(Duration),
    #[error("connection closed before it was sent: {0}")]
    Returned(String),
}

/// Why an answer never came.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Lost {
    #[error("connection broke: {0}")]
    Broken(String),
    #[error("nothing within {0:?}")]
    Deadline(Duration),
}

/// Whether a request that failed may still have been carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    NotExecuted,
    Unknown,
}

impl ClientError {
    /// Says if a write that ended with this error may have been carried out.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Endpoint { .. } | Self::Tls(_) | Self::Unsent(_) => Outcome::NotExecuted,
            Self::Unknown(_) => Outcome::Unknown,
            Self::Status { code, .. } => match code {
                // etcd answers these from its checks, or from the applied entry itself.
                Code::InvalidArgument
                | Code::NotFound
                | Code::AlreadyExists
                | Code::PermissionDenied
                | Code::ResourceExhausted
                | Code::FailedPrecondition
                | Code::OutOfRange
                | Code::Unimplemented
                | Code::Unauthenticated => Outcome::NotExecuted,
                // "request timed out", "server stopped", "leader changed": the
                // proposal may be in the log. The others are not etcd's own words.
                Code::Ok
                | Code::Cancelled
                | Code::Unknown
                | Code::DeadlineExceeded
                | Code::Aborted
                | Code::Internal
                | Code::Unavailable
                | Code::DataLoss => Outcome::Unknown,
            },
            // Of watches and leases that are over: nothing was asked to be changed.
            Self::Compacted { .. } | Self::WatchCanceled { .. } | Self::LeaseGone { .. } => {
                Outcome::NotExecuted
            }
        }
    }

    /// The gRPC code, if a server gave the verdict.
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Status { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// True iff another login may help: the token has ended, or users have changed since it was made.
    pub(crate) fn wants_login(&self) -> bool {
        match self {
            Self::Status { message: text, .. } | Self::WatchCanceled { reason: text } => {
                STALE_LOGIN.iter().any(|stale| text.contains(stale))
            }
            _ => false,
        }
    }

    /// True iff time ran out, with or without the request having left.
    pub fn is_deadline(&self) -> bool {
        matches!(self, Self::Unsent(Unsent::Deadline(_)) | Self::Unknown(Lost::Deadline(_)))
    }
}

impl From<Status> for ClientError {
    /// Tells the transport's failures from a server's words: ours travel as
    /// the status' source, a server's status has none.
    fn from(status: Status) -> Self {
        let source = std::error::Error::source(&status).and_then(|e| e.downcast_ref::<TransportError>());
        match source {
            Some(TransportError::Unsent(reason)) => Self::Unsent(Unsent::Returned(reason.clone())),
            Some(TransportError::Lost(reason)) => Self::Unknown(Lost::Broken(reason.clone())),
            None => Self::Status { code: status.code(), message: status.message().to_owned() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transport_failure_keeps_what_it_knows_through_a_status() {
        let unsent = Status::from_error(Box::new(TransportError::Unsent("closed".into())));
        assert!(matches!(ClientError::from(unsent), ClientError::Unsent(Unsent::Returned(_))));
        let lost = Status::from_error(Box::new(TransportError::Lost("reset".into())));
        let error = ClientError::from(lost);
        assert!(matches!(error, ClientError::Unknown(Lost::Broken(_))));
        assert_eq!(error.outcome(), Outcome::Unknown);
    }

    #[test]
    fn a_servers_check_is_certain_and_its_timeout_is_not() {
        let verdict = ClientError::from(Status::not_found("etcdserver: requested lease not found"));
        assert_eq!(verdict.outcome(), Outcome::NotExecuted);
        let timeout = ClientError::from(Status::unavailable("etcdserver: request timed out"));
        assert_eq!(timeout.outcome(), Outcome::Unknown);
    }
}
