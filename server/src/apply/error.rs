//! Why a command of the log was refused.

/// A refusal in etcd's words; it changes nothing and is alike on every member.
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
    /// A request of a newer version, or an empty one.
    #[error("unknown command")]
    UnknownCommand,
}
