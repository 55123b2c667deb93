//! Why a command of the log was refused, or could not be applied.

use crate::{auth::AuthError, mvcc::ReadError, storage::StorageError};

/// A refusal in etcd's words; it is alike on every member, and changes nothing but for `AnswerTooLong`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    #[error("mvcc: required revision has been compacted")]
    Compacted,
    #[error("mvcc: required revision is a future revision")]
    FutureRevision,
    #[error("requested lease not found")]
    LeaseNotFound,
    #[error("lease already exists")]
    LeaseExists,
    #[error("too large lease TTL")]
    LeaseTtlTooLarge,
    /// A put with ignore_value or ignore_lease on a key that isn't there.
    #[error("key not found")]
    KeyNotFound,
    #[error("mvcc: database space exceeded")]
    NoSpace,
    #[error("corrupt cluster")]
    Corrupt,
    /// A deposed leader's clock ends no lease.
    #[error("decided in another term")]
    StaleTerm,
    #[error("member not found")]
    MemberNotFound,
    /// The transaction was carried out, but nobody could take its answer.
    #[error("the answer is too long")]
    AnswerTooLong,
    /// Not a version, or a lower one than the cluster's.
    #[error("invalid cluster version")]
    BadVersion,
    /// The caller may not, or users and roles are not so.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// A request of a newer version, or an empty one.
    #[error("unknown command")]
    UnknownCommand,
}

/// A refusal is an outcome; a failure of the image ends the node.
#[derive(Debug)]
pub(super) enum Failure {
    Refused(ApplyError),
    Storage(StorageError),
}

impl From<ApplyError> for Failure {
    fn from(error: ApplyError) -> Self {
        Self::Refused(error)
    }
}

impl From<AuthError> for Failure {
    fn from(error: AuthError) -> Self {
        Self::Refused(error.into())
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Compacted => Self::Refused(ApplyError::Compacted),
            ReadError::FutureRevision => Self::Refused(ApplyError::FutureRevision),
            ReadError::Storage(error) => Self::Storage(error),
        }
    }
}
