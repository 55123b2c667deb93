//! A change of the key space: one transaction, with compares on what it read.

use bytes::Bytes;
use etcfs_proto::key::KeyRange;

use super::{KeyValue, LeaseId, Revision};
use crate::map::Key;

/// If every compare holds, `then`, else `otherwise`; all in one revision.
///
/// Put reads last in `then`: where the answer was lost they are read again as of the revision that the change
/// made, so they see all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    pub compares: Vec<Compare>,
    pub then: Vec<Op>,
    /// Reads only: for the caller to see what was there instead.
    pub otherwise: Vec<Op>,
}

/// All keys below one prefix get another instead, as many as one request of the server could write out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    pub from: Bytes,
    pub to: Bytes,
    /// Takes away what lies below `to`; else nothing may.
    pub replace: bool,
    /// Those that it takes away or makes, as far as the caller knows.
    pub keys: Vec<Bytes>,
}

/// A condition on what is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compare {
    /// The key is as it was at its revision: not put, deleted or made anew since.
    Unchanged(Key, Revision),
    /// There is no such key.
    Absent(Key),
    /// The key exists.
    Present(Key),
    /// The key is still the one that was created at that revision, whatever was put since.
    SameSince(Key, Revision),
    /// No key lies in the range. Look first: over a range that may be full it costs the server all of it.
    NothingIn(KeyRange),
    /// No key of the range has been put since that revision; deletes do not count. For ranges that hold little.
    NotPutSince(KeyRange, Revision),
}

/// What becomes of a key's lease in a put.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lease {
    /// It has none afterwards.
    #[default]
    None,
    /// It has what it had; the key must exist, so compare that.
    Keep,
    To(LeaseId),
}

/// One step of a transaction. No key may be written twice in one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    Put {
        key: Key,
        value: Bytes,
        lease: Lease,
    },
    /// The same value again under another lease, or none; the key must exist.
    Attach {
        key: Key,
        lease: Option<LeaseId>,
    },
    Delete(Key),
    DeleteRange(KeyRange),
    /// Only where [`super::Remote::moves`]: [`super::RemoteError::UnknownCall`] elsewhere.
    Move(Move),
    Get(Key),
    /// The first keys of a range, without values.
    Keys {
        range: KeyRange,
        limit: u32,
    },
}

impl Change {
    /// True where it takes keys away and puts none.
    pub(super) fn only_removes(&self) -> bool {
        self.then.iter().all(|op| !op.writes() || matches!(op, Op::Delete(_) | Op::DeleteRange(_)))
    }
}

impl Op {
    pub fn put(key: Key, value: Bytes) -> Self {
        Self::Put { key, value, lease: Lease::None }
    }

    pub(super) fn writes(&self) -> bool {
        !matches!(self, Self::Get(_) | Self::Keys { .. })
    }
}

/// What a change did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Of the change if it succeeded, else one at which a compare did not hold.
    pub revision: Revision,
    /// The compares held, and `then` is done.
    pub succeeded: bool,
    /// One for each op of the branch taken.
    pub answers: Vec<Answer>,
}

/// What an [`Op`] brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Of a put, attach or delete.
    Done,
    Got(Option<KeyValue>),
    Keys(Vec<Key>),
}
