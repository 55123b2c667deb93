//! The one table from errors to what a client sees: gRPC code and etcd's text.
//!
//! Clients match on both, so the texts are etcd's to the letter. A new error
//! gets a line here and nowhere else.

use tonic::{Code, Status};

use crate::{
    maintain::StorageError,
    mvcc::ReadError,
    propose::{ApplyError, ChangeError, ProposeError},
};

macro_rules! refusals {
    ($($(#[$doc:meta])* $name:ident = $code:ident $text:literal,)*) => {
        /// Every way in which a request may fail.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
        pub enum Refusal {
            $($(#[$doc])* #[error($text)] $name,)*
        }

        impl Refusal {
            /// The gRPC code that goes with the text.
            pub fn code(self) -> Code {
                match self {
                    $(Self::$name => Code::$code,)*
                }
            }

            /// The text, which `Display` prints too.
            pub fn text(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

refusals! {
    EmptyKey = InvalidArgument "etcdserver: key is not provided",
    /// Also what etcd says of an operation in a transaction that is none.
    KeyNotFound = InvalidArgument "etcdserver: key not found",
    ValueProvided = InvalidArgument "etcdserver: value is provided",
    LeaseProvided = InvalidArgument "etcdserver: lease is provided",
    TooManyOps = InvalidArgument "etcdserver: too many operations in txn request",
    DuplicateKey = InvalidArgument "etcdserver: duplicate key given in txn request",
    InvalidClientApiVersion = InvalidArgument "etcdserver: invalid client api version",
    InvalidSortOption = InvalidArgument "etcdserver: invalid sort option",
    RequestTooLarge = InvalidArgument "etcdserver: request is too large",
    UserEmpty = InvalidArgument "etcdserver: user name is empty",
    WrongDowngradeVersion = InvalidArgument "etcdserver: wrong downgrade target version format",
    InvalidDowngradeVersion = InvalidArgument "etcdserver: invalid downgrade target version",
    RoleEmpty = InvalidArgument "etcdserver: role name is empty",
    AuthFailed = InvalidArgument "etcdserver: authentication failed, invalid user ID or password",
    PermissionNotGiven = InvalidArgument "etcdserver: permission not given",
    InvalidAuthManagement = InvalidArgument "etcdserver: invalid auth management",
    AuthOldRevision = InvalidArgument "etcdserver: revision of auth store is old",
    /// etcd hashes the first 72 bytes, or fails in words of its library.
    PasswordTooLong = InvalidArgument "bcrypt: password length exceeds 72 bytes",
    /// By a setting that etcd does not have.
    PasswordTooShort = InvalidArgument "etcdserver: password is shorter than --auth-min-password-length",
    /// Without code, as in etcd.
    NoPasswordUser = Unknown "auth: authentication failed, password was given for no password user",
    SessionExpired = Unknown "mutex: session is expired",
    NoElectedLeader = Unknown "election: no leader",
    NotElectedLeader = Unknown "election: not leader",
    LeaderNotGiven = Unknown "\"leader\" field must be provided",
    NoSigningKey = Unknown "auth: token signing attempted with verify-only configuration",
    Compacted = OutOfRange "etcdserver: mvcc: required revision has been compacted",
    FutureRevision = OutOfRange "etcdserver: mvcc: required revision is a future revision",
    LeaseTtlTooLarge = OutOfRange "etcdserver: too large lease TTL",
    NoSpace = ResourceExhausted "etcdserver: mvcc: database space exceeded",
    TooManyRequests = ResourceExhausted "etcdserver: too many requests",
    /// Of a transaction's ranges. grpc-go's words, which say how long it is; here it is not made.
    AnswerTooLong = ResourceExhausted "grpc: trying to send message larger than max (2147483647)",
    LeaseNotFound = NotFound "etcdserver: requested lease not found",
    MemberNotFound = NotFound "etcdserver: member not found",
    MemberBadUrls = InvalidArgument "etcdserver: given member URLs are invalid",
    PeerUrlExists = FailedPrecondition "etcdserver: Peer URLs already exists",
    MemberNotEnoughStarted = FailedPrecondition "etcdserver: re-configuration failed due to not enough started members",
    MemberNotLearner = FailedPrecondition "etcdserver: can only promote a learner member",
    LearnerNotReady = FailedPrecondition "etcdserver: can only promote a learner member which is in sync with leader",
    TooManyLearners = FailedPrecondition "etcdserver: too many learner members in cluster",
    NotSupportedForLearner = FailedPrecondition "etcdserver: rpc not supported for learner",
    NotLeader = FailedPrecondition "etcdserver: not leader",
    BadLeaderTransferee = FailedPrecondition "etcdserver: bad leader transferee",
    /// etcd gives it no code of its own.
    LeaderTransferTimeout = Unknown "etcdserver: request timed out, leader transfer took too long",
    Unhealthy = Unavailable "etcdserver: unhealthy cluster",
    LeaseExists = FailedPrecondition "etcdserver: lease already exists",
    AuthNotEnabled = FailedPrecondition "etcdserver: authentication is not enabled",
    ClusterVersionUnavailable = FailedPrecondition "etcdserver: cluster version not found during downgrade",
    DowngradeInProcess = FailedPrecondition "etcdserver: cluster has a downgrade job in progress",
    NoInflightDowngrade = FailedPrecondition "etcdserver: no inflight downgrade job",
    RootUserMissing = FailedPrecondition "etcdserver: root user does not exist",
    RootRoleMissing = FailedPrecondition "etcdserver: root user does not have root role",
    UserExists = FailedPrecondition "etcdserver: user name already exists",
    UserNotFound = FailedPrecondition "etcdserver: user name not found",
    RoleExists = FailedPrecondition "etcdserver: role name already exists",
    RoleNotFound = FailedPrecondition "etcdserver: role name not found",
    RoleNotGranted = FailedPrecondition "etcdserver: role is not granted to the user",
    PermissionNotGranted = FailedPrecondition "etcdserver: permission is not granted to the role",
    /// Of etcfs's own: keys lie where others were to be moved.
    TargetNotEmpty = FailedPrecondition "etcfs: keys lie below the new prefix",
    /// Of etcfs's own.
    TooManyRevisions = InvalidArgument "etcfs: too many revisions in one request",
    PermissionDenied = PermissionDenied "etcdserver: permission denied",
    InvalidToken = Unauthenticated "etcdserver: invalid auth token",
    NoLeader = Unavailable "etcdserver: no leader",
    LeaderChanged = Unavailable "etcdserver: leader changed",
    Stopped = Unavailable "etcdserver: server stopped",
    Timeout = Unavailable "etcdserver: request timed out",
    TimeoutByLeaderFailure = Unavailable "etcdserver: request timed out, possibly due to previous leader failure",
    TimeoutByLostConnection = Unavailable "etcdserver: request timed out, possibly due to connection lost",
    Corrupt = DataLoss "etcdserver: corrupt cluster",
    /// This member is older than the one that proposed the request.
    UnknownCommand = Unimplemented "etcdserver: request is of a newer version",
    /// etcd has no such text: its process ends where ours can still answer.
    Storage = Internal "etcdserver: storage failed",
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal.code(), refusal.text())
    }
}

impl Refusal {
    /// As Go prints the error, which is how etcd gives reasons within a stream.
    pub(super) fn in_go(self) -> String {
        format!("rpc error: code = {:?} desc = {}", self.code(), self.text())
    }
}

impl From<ReadError> for Refusal {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Compacted => Self::Compacted,
            ReadError::FutureRevision => Self::FutureRevision,
            ReadError::Storage(cause) => cause.into(),
        }
    }
}

impl From<StorageError> for Refusal {
    fn from(cause: StorageError) -> Self {
        tracing::error!(%cause, "storage failed");
        Self::Storage
    }
}

impl From<ChangeError> for Refusal {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::NotLeader => Self::NoLeader,
            ChangeError::NotFound => Self::MemberNotFound,
            ChangeError::UrlTaken => Self::PeerUrlExists,
            ChangeError::NotEnoughStarted => Self::MemberNotEnoughStarted,
            ChangeError::Unhealthy => Self::Unhealthy,
            ChangeError::NotLearner => Self::MemberNotLearner,
            ChangeError::LearnerNotReady => Self::LearnerNotReady,
            ChangeError::TooManyLearners => Self::TooManyLearners,
            ChangeError::Late => Self::Timeout,
        }
    }
}

impl From<ApplyError> for Refusal {
    fn from(error: ApplyError) -> Self {
        match error {
            ApplyError::Compacted => Self::Compacted,
            ApplyError::FutureRevision => Self::FutureRevision,
            ApplyError::LeaseNotFound => Self::LeaseNotFound,
            ApplyError::LeaseExists => Self::LeaseExists,
            ApplyError::KeyNotFound => Self::KeyNotFound,
            ApplyError::NoSpace => Self::NoSpace,
            ApplyError::Corrupt => Self::Corrupt,
            ApplyError::LeaseTtlTooLarge => Self::LeaseTtlTooLarge,
            ApplyError::AnswerTooLong => Self::AnswerTooLong,
            ApplyError::MemberNotFound => Self::MemberNotFound,
            ApplyError::Auth(error) => error.into(),
            // No client proposes a version.
            ApplyError::UnknownCommand | ApplyError::BadVersion => Self::UnknownCommand,
            // Decided under a leader that is none any more.
            ApplyError::StaleTerm => Self::LeaderChanged,
        }
    }
}

impl From<ProposeError> for Refusal {
    fn from(error: ProposeError) -> Self {
        match error {
            ProposeError::Apply(error) => error.into(),
            // etcd hands this one out with code Unknown by oversight; its own
            // clients know it by its text, and others by the code meant.
            ProposeError::TooManyRequests => Self::TooManyRequests,
            ProposeError::NoLeader => Self::NoLeader,
            ProposeError::LeaderChanged => Self::LeaderChanged,
            ProposeError::Timeout => Self::Timeout,
            ProposeError::TimeoutByLeaderFailure => Self::TimeoutByLeaderFailure,
            ProposeError::TimeoutByLostConnection => Self::TimeoutByLostConnection,
            ProposeError::Stopped => Self::Stopped,
            ProposeError::TooLarge => Self::RequestTooLarge,
        }
    }
}
