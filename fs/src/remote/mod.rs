//! The server as the mount needs it: keys, whole revisions, and changes whose outcome is always known.
//!
//! Two implementations: [`client`] speaks to a server, [`memory`] is a store in this process with the same rules,
//! for tests. [`unrecorded`] keeps from a server what the mount's user may not keep there, [`visible`] what he may not
//! read. Nothing here knows paths.
//! A call waits for the server as the mount's [`Patience`] says; dropping its future gives up waiting. What a
//! dropped [`Remote::commit`] did stays unknown to the caller, but happens at most once.

pub mod change;
pub mod client;
pub mod memory;
pub mod times;
pub mod unrecorded;
pub mod visible;

use std::fmt;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use etcfs_proto::key::{KeyRange, KeySet};
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;

use crate::map::Key;
pub use change::{Answer, Change, Committed, Compare, Lease, Move, Op};

/// A revision of the key space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Revision(pub i64);

/// A lease's id; 0 is none, and not to be made.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeaseId(pub i64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// As etcdctl prints it.
impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LeaseId({self})")
    }
}

/// A key with its value and history facts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    pub key: Key,
    pub value: Bytes,
    pub create_revision: Revision,
    pub mod_revision: Revision,
    pub version: i64,
    pub lease: Option<LeaseId>,
}

/// What was found, and the revision at which it was so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct At<T> {
    pub revision: Revision,
    pub found: T,
}

/// How new an answer must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// As new as any answer that anybody has got.
    Linearizable,
    /// At least this revision, from whichever member answers.
    AtLeast(Revision),
    /// Exactly as of this revision; [`RemoteError::Compacted`] where it is gone.
    Exactly(Revision),
}

/// A name to be looked up, in both readings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// As a file, with its value.
    pub key: Key,
    /// As a directory: keys below it.
    pub below: KeyRange,
    /// As a directory: its record, and records of directories below it.
    pub records: KeyRange,
}

/// What a [`Probe`] met, all at one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lookup {
    pub kv: Option<KeyValue>,
    /// The first key below.
    pub below: Option<Key>,
    /// The first record.
    pub record: Option<Key>,
}

/// Which keys of a range to read.
#[derive(Clone, Debug)]
pub struct PageRequest {
    /// From here on; raise `start` to go on after a page.
    pub range: KeyRange,
    /// At most so many; at least 1.
    pub limit: u32,
    /// Leave the values out.
    pub keys_only: bool,
    /// [`Freshness::Exactly`] the first page's revision for each further page.
    pub how: Freshness,
}

/// Keys of a range in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    pub kvs: Vec<KeyValue>,
    /// More of the range lies past the last one.
    pub more: bool,
}

/// Which names directly below a prefix to read.
#[derive(Clone, Debug)]
pub struct ChildrenRequest {
    /// With the slash at its end, as a rule.
    pub prefix: Bytes,
    /// [`Children::next`] of the page before; empty for the first.
    pub from: Bytes,
    /// [`Freshness::Exactly`] the first page's revision for each further page.
    pub how: Freshness,
}

/// Names below a prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Children {
    pub children: Vec<Child>,
    /// Where to go on; `None` after the last.
    pub next: Option<Bytes>,
}

/// What follows a prefix in keys, up to the next slash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Child {
    pub name: Bytes,
    pub is_key: bool,
    /// Keys lie below it. What is both may come once as each.
    pub below: bool,
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Put(KeyValue),
    Delete(Key),
}

/// All that one revision changed in the watched ranges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    pub revision: Revision,
    pub events: Vec<Event>,
}

/// What a watch brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Watched {
    /// The events of one whole revision, in order of revisions.
    Changed(Changed),
    /// Every change up to this revision has been brought.
    UpTo(Revision),
    /// The server can't be reached: what is cached gets old from now on.
    Lost,
    /// It answers again, and the watch goes on without a gap.
    Back,
}

/// A lease's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseFacts {
    /// As granted, in seconds.
    pub granted_seconds: i64,
    /// Left, in seconds.
    pub left_seconds: i64,
}

/// For statfs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// What the server may store; `None` where it does not say (before etcd 3.6).
    pub quota_bytes: Option<u64>,
    pub in_use_bytes: u64,
    /// Keys in the mount's ranges.
    pub keys: u64,
}

/// The member that answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerFacts {
    pub version: String,
    pub member: u64,
    /// 0 where there is none.
    pub leader: u64,
    pub revision: Revision,
}

/// Keeps a lease alive until it is dropped.
pub struct Renewal(#[allow(dead_code, reason = "held for its drop")] Box<dyn Send + Sync>);

impl Renewal {
    pub(crate) fn new(guard: impl Send + Sync + 'static) -> Self {
        Self(Box::new(guard))
    }
}

impl fmt::Debug for Renewal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Renewal")
    }
}

/// How long a call waits for a server that does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// For ever; a signal to the caller ends it.
    Hard,
    /// Then [`RemoteError::TimedOut`].
    Soft(Duration),
    /// While the watch is lost, reads take what any member has and changes fail with [`RemoteError::NotSent`]; what
    /// no member answers is [`RemoteError::TimedOut`] after that time.
    Stale(Duration),
}

/// A call's answer, some time.
pub type Call<'a, T> = BoxFuture<'a, Result<T, RemoteError>>;

/// The events of a watch; it ends only with [`RemoteError`]s that no wait mends.
pub type Watch = BoxStream<'static, Result<Watched, RemoteError>>;

/// A server, in keys.
pub trait Remote: fmt::Debug + Send + Sync + 'static {
    /// One key. The empty key is none.
    fn get(&self, key: Key, how: Freshness) -> Call<'_, At<Option<KeyValue>>>;

    /// Names in both readings, all as of one revision, an answer for each in order.
    fn lookup(&self, probes: Vec<Probe>, how: Freshness) -> Call<'_, At<Vec<Lookup>>>;

    /// The first keys of a range.
    fn page(&self, page: PageRequest) -> Call<'_, At<Page>>;

    /// What lies directly below a prefix, however much lies deeper. `None`: the server has no such call.
    fn children(&self, request: ChildrenRequest) -> Call<'_, Option<At<Children>>>;

    /// False once the server has refused to know an [`Op::Move`].
    fn moves(&self) -> bool;

    /// Carries out a change, once. An answer is exact: the change is done as [`Committed::succeeded`] says, also
    /// where the connection was lost between the request and the answer.
    fn commit(&self, change: Change) -> Call<'_, Committed>;

    /// All changes of the ranges, from revision `from` on, as one stream of whole revisions. How far it has come is
    /// told soon after it begins, also where nothing changes.
    fn watch(&self, ranges: Vec<KeyRange>, from: Revision) -> Watch;

    /// A new lease; at least this long.
    fn lease_grant(&self, ttl_seconds: i64) -> Call<'_, LeaseId>;

    /// `None` for a lease that is not, or no more.
    fn lease_facts(&self, lease: LeaseId) -> Call<'_, Option<LeaseFacts>>;

    /// Every lease there is.
    fn leases(&self) -> Call<'_, Vec<LeaseId>>;

    /// The keys attached to a lease; `None` for one that is not.
    fn lease_keys(&self, lease: LeaseId) -> Call<'_, Option<Vec<Key>>>;

    /// Ends a lease, and every key attached to it.
    fn lease_revoke(&self, lease: LeaseId) -> Call<'_, ()>;

    /// Renews a lease from now on, until the answer is dropped or the lease is gone.
    fn keep_alive(&self, lease: LeaseId) -> Renewal;

    /// Space, and the number of keys in `ranges`.
    fn usage(&self, ranges: Vec<KeyRange>) -> Call<'_, Usage>;

    /// What the server says of itself, for people.
    fn server(&self) -> Call<'_, ServerFacts>;

    /// Where this mount's user keeps what its mounts remember of their changes; ends in a slash.
    fn changes(&self) -> String;

    /// What the mount's user may read by now; `None` where that is everything.
    fn readable(&self) -> Call<'_, Option<KeySet>>;

    /// False for a key that the mount's user may not put, as far as that is known before it is tried.
    fn may_write(&self, key: &[u8]) -> bool;

    /// Which keys are shown, in words; `None` where it is all of them.
    fn shown(&self) -> Option<String>;

    /// The newest revision that any answer has told of.
    fn heard(&self) -> Revision;

    /// Where it is looked for.
    fn endpoints(&self) -> Vec<String>;

    /// When a revision was made, for mtime: strictly rising with the revision, the same whenever asked.
    fn time_of(&self, revision: Revision) -> SystemTime;

    /// The time of a revision that were made now.
    fn time_of_next(&self) -> SystemTime;

    /// Ends the mount's session: its slot records go away with it. Call it last.
    fn close(&self) -> Call<'_, ()>;
}

/// Why the server did not do it. What can be waited for has been waited for, as [`Patience`] has it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RemoteError {
    #[error("no answer from the server within {} s", .0.as_secs_f32())]
    TimedOut(Duration),
    /// With the newest compacted revision, where the server says it.
    #[error("the revision has been compacted")]
    Compacted(Option<Revision>),
    #[error("the revision is not made yet")]
    FutureRevision,
    #[error("the request is over the server's limit of one request")]
    TooLarge,
    #[error("the server's space quota is used up")]
    NoSpace,
    #[error("the user has no right to do this with these keys")]
    PermissionDenied,
    #[error("user name, password or token is not accepted")]
    Unauthenticated,
    #[error("there is no such lease")]
    NoSuchLease,
    #[error("the server can't grant a lease of this length")]
    LeaseTooLong,
    #[error("more keys than one transaction of the server takes")]
    TooManyOps,
    #[error("the server holds the request for invalid: {0}")]
    Invalid(String),
    #[error("the server reports its data to be corrupt")]
    Corrupt,
    #[error(
        "it can't be known whether the change was made: the connection was lost for longer than a session lasts"
    )]
    OutcomeLost,
    #[error("the server answered against the protocol: {0}")]
    Protocol(&'static str),
    #[error("the server can't: {0}")]
    Unsupported(String),
    /// As etcd, to a call of etcfs's extension.
    #[error("the server has no such call: {0}")]
    UnknownCall(String),
    #[error("the server can't be reached, and nothing was sent to it")]
    NotSent,
    #[error("the mount is going down")]
    Closed,
}

impl RemoteError {
    /// True iff it is for who the mount's user is that the server did not do it.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::PermissionDenied | Self::Unauthenticated)
    }
}
