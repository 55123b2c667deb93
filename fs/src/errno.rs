//! The one table from what went wrong to the errno that a person can act on.
//!
//! Every reason is a variant of [`OpError`] or [`RemoteError`], and every variant has its line here; nothing else
//! in the crate names an errno.

use crate::map::NameError;
use crate::remote::RemoteError;

/// An errno, as the kernel takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub i32);

impl Errno {
    /// As errno(3) spells it.
    pub fn name(self) -> &'static str {
        match self.0 {
            libc::EACCES => "EACCES",
            libc::EAGAIN => "EAGAIN",
            libc::EBADF => "EBADF",
            libc::EEXIST => "EEXIST",
            libc::EFBIG => "EFBIG",
            libc::EINTR => "EINTR",
            libc::EINVAL => "EINVAL",
            libc::EIO => "EIO",
            libc::EISDIR => "EISDIR",
            libc::ENAMETOOLONG => "ENAMETOOLONG",
            libc::ENODATA => "ENODATA",
            libc::ENOENT => "ENOENT",
            libc::ENOLCK => "ENOLCK",
            libc::ENOMEM => "ENOMEM",
            libc::ENOSPC => "ENOSPC",
            libc::ENOTDIR => "ENOTDIR",
            libc::ENOTEMPTY => "ENOTEMPTY",
            libc::EOPNOTSUPP => "EOPNOTSUPP",
            libc::EPERM => "EPERM",
            libc::EPROTO => "EPROTO",
            libc::ERANGE => "ERANGE",
            libc::EROFS => "EROFS",
            libc::ESHUTDOWN => "ESHUTDOWN",
            libc::ESTALE => "ESTALE",
            libc::ETIMEDOUT => "ETIMEDOUT",
            libc::EXDEV => "EXDEV",
            _ => "other",
        }
    }
}

/// Why a file operation was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpError {
    #[error("no such file or directory")]
    NotFound,
    /// A name that no key has, where one was to be made.
    #[error("can't be made: {0}")]
    BadName(NameError),
    #[error("exists")]
    Exists,
    #[error("is a directory")]
    IsDirectory,
    #[error("is not a directory")]
    NotDirectory,
    #[error("the directory holds something")]
    NotEmpty,
    /// What the map or the mount's options rule out for everybody: a link or device, another mode or owner, the
    /// root's links, the mount's own records.
    #[error("not permitted: {0}")]
    NotPermitted(&'static str),
    #[error("mounted read-only")]
    ReadOnly,
    /// The value would be over what one request carries.
    #[error("the value would be over the limit of {limit_bytes} bytes")]
    TooBig { limit_bytes: u64 },
    /// The key was deleted or made anew elsewhere while this handle had unsaved data.
    #[error("the key was removed elsewhere since the file was opened")]
    Stale,
    /// A directory that neither the extension nor one transaction can rename.
    #[error("a directory can't be renamed in one step")]
    NotInOneStep,
    #[error("no such attribute")]
    NoAttribute,
    #[error("not supported")]
    NotSupported,
    #[error("malformed: {0}")]
    Malformed(&'static str),
    #[error("the buffer is too small for the attribute")]
    ShortBuffer,
    /// The handle was not opened for this.
    #[error("the file is not open for this")]
    BadHandle,
    #[error("too many files are open or too much is unsaved: {0}")]
    NoMemory(&'static str),
    /// A write through this handle has failed before; it puts nothing any more.
    #[error("an earlier write through this handle failed")]
    Failed(Errno),
    /// A lock that this mount held is lost: nothing may be changed by those who believe in it.
    #[error("a lock is lost: the lease of the mount's session has ended")]
    LocksLost,
    /// Somebody else has the lock, and the caller does not want to wait.
    #[error("somebody else holds the lock")]
    WouldBlock,
    #[error("there are no locks here")]
    NoLocks,
    /// The caller has a signal to take.
    #[error("interrupted")]
    Interrupted,
    #[error(transparent)]
    Remote(#[from] RemoteError),
}

impl From<&OpError> for Errno {
    fn from(error: &OpError) -> Self {
        Self(match error {
            OpError::NotFound => libc::ENOENT,
            OpError::BadName(NameError::NotCanonical) => libc::EINVAL,
            OpError::BadName(NameError::TooLong) => libc::ENAMETOOLONG,
            OpError::Exists => libc::EEXIST,
            OpError::IsDirectory => libc::EISDIR,
            OpError::NotDirectory => libc::ENOTDIR,
            OpError::NotEmpty => libc::ENOTEMPTY,
            OpError::NotPermitted(_) => libc::EPERM,
            OpError::ReadOnly => libc::EROFS,
            // A limit of the file system on a file's size, not of the space: EFBIG, which makes cp and dd stop.
            OpError::TooBig { .. } => libc::EFBIG,
            OpError::Stale => libc::ESTALE,
            // mv answers EXDEV by copying and deleting, which is what is left to do.
            OpError::NotInOneStep => libc::EXDEV,
            OpError::NoAttribute => libc::ENODATA,
            OpError::NotSupported => libc::EOPNOTSUPP,
            OpError::Malformed(_) => libc::EINVAL,
            OpError::ShortBuffer => libc::ERANGE,
            OpError::BadHandle => libc::EBADF,
            OpError::NoMemory(_) => libc::ENOMEM,
            OpError::Failed(errno) => return *errno,
            OpError::LocksLost => libc::EIO,
            OpError::WouldBlock => libc::EAGAIN,
            OpError::NoLocks => libc::ENOLCK,
            OpError::Interrupted => libc::EINTR,
            OpError::Remote(error) => return Self::from(error),
        })
    }
}

impl From<&RemoteError> for Errno {
    fn from(error: &RemoteError) -> Self {
        Self(match error {
            RemoteError::TimedOut(_) => libc::ETIMEDOUT,
            // An open snapshot that is gone: what is there now is found by opening again.
            RemoteError::Compacted(_) => libc::ESTALE,
            // Only a server that lost revisions, or another cluster behind the same name, answers so.
            RemoteError::FutureRevision => libc::EIO,
            RemoteError::TooLarge => libc::EFBIG,
            RemoteError::NoSpace => libc::ENOSPC,
            RemoteError::PermissionDenied => libc::EACCES,
            // Not EPERM: other credentials, not another operation, are what helps.
            RemoteError::Unauthenticated => libc::EACCES,
            RemoteError::NoSuchLease => libc::ENOENT,
            RemoteError::LeaseTooLong => libc::EINVAL,
            RemoteError::TooManyOps => libc::EFBIG,
            RemoteError::Invalid(_) => libc::EINVAL,
            RemoteError::Corrupt => libc::EIO,
            RemoteError::OutcomeLost => libc::EIO,
            RemoteError::Protocol(_) => libc::EPROTO,
            RemoteError::Unsupported(_) | RemoteError::UnknownCall(_) => libc::EOPNOTSUPP,
            // Only where nothing can have been changed: what waits for an answer goes on waiting.
            RemoteError::NotSent => libc::EROFS,
            RemoteError::Closed => libc::ESHUTDOWN,
        })
    }
}

/// In a lookup, a name that no key can have simply is not there.
impl OpError {
    pub fn in_lookup(error: NameError) -> Self {
        match error {
            NameError::NotCanonical => Self::NotFound,
            NameError::TooLong => Self::BadName(error),
        }
    }
}
