//! The types with which openraft is filled, and their way to and from the
//! messages that lie on disk and cross the wire.

use std::{collections::BTreeSet, fmt, sync::Arc};

use bytes::Bytes;
use etcfs_proto::etcfs::{command, record};
use openraft::{
    EntryPayload, RaftTypeConfig,
    impls::{BoxedErrorSource, InlineBatch, TokioRuntime},
    type_config::alias::{EntryOf, LogIdOf, SnapshotMetaOf, SnapshotOf, StoredMembershipOf, VoteOf},
    vote::leader_id_std,
};
use prost::Message;

use crate::storage::{SnapshotFile, WalEntry};

/// What openraft is generic over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TypeConfig;

impl RaftTypeConfig for TypeConfig {
    type D = Command;
    // Outcomes go to who waits for them on this member, not back through openraft.
    type R = ();
    type NodeId = u64;
    type Node = Peer;
    type Term = u64;
    // One leader a term, as the API reports terms.
    type LeaderId = leader_id_std::LeaderId<u64, u64>;
    type Vote = openraft::Vote<Self::LeaderId>;
    type Payload = EntryPayload<Command, u64, Peer>;
    type Entry = openraft::Entry<leader_id_std::CommittedLeaderId<u64>, Self::Payload>;
    type AsyncRuntime = TokioRuntime;
    type Responder<T>
        = Reply<T>
    where
        T: Send + 'static;
    type Batch<T>
        = InlineBatch<T>
    where
        T: Send + 'static;
    type ErrorSource = BoxedErrorSource;
}

pub(super) type LogId = LogIdOf<TypeConfig>;
pub(super) type Vote = VoteOf<TypeConfig>;
pub(super) type Entry = EntryOf<TypeConfig>;
pub(super) type Membership = openraft::Membership<u64, Peer>;
pub(super) type StoredMembership = StoredMembershipOf<TypeConfig>;
pub(super) type SnapshotMeta = SnapshotMetaOf<TypeConfig>;
pub(super) type Snapshot = SnapshotOf<TypeConfig, SnapshotFile>;

/// How to reach a member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Peer {
    pub(super) urls: Vec<String>,
    /// Meant to stay without a vote.
    pub(super) learner: bool,
}

/// A batch of requests, and the bytes by which the log and the peers know it.
#[derive(Clone, PartialEq)]
pub(super) struct Command {
    batch: Arc<command::Batch>,
    encoded: Bytes,
}

impl Command {
    pub(super) fn new(batch: command::Batch) -> Self {
        let encoded = batch.encode_to_vec().into();
        Self { batch: Arc::new(batch), encoded }
    }

    pub(super) fn decode(encoded: Bytes) -> Result<Self, prost::DecodeError> {
        let batch = Arc::new(command::Batch::decode(encoded.clone())?);
        Ok(Self { batch, encoded })
    }

    /// Says when it is appended. A field behind the others: they are not encoded again.
    pub(super) fn set_time(&mut self, unix_ms: u64) {
        let time = command::Batch { unix_ms, ..command::Batch::default() };
        let mut encoded = Vec::with_capacity(self.encoded.len() + time.encoded_len());
        encoded.extend_from_slice(&self.encoded);
        encoded.extend_from_slice(&time.encode_to_vec());
        self.encoded = encoded.into();
        Arc::make_mut(&mut self.batch).unix_ms = unix_ms;
    }

    pub(super) fn batch(&self) -> &command::Batch {
        &self.batch
    }

    pub(super) fn encoded(&self) -> Bytes {
        self.encoded.clone()
    }

    /// The requests again, to go into another batch.
    pub(super) fn into_requests(self) -> Vec<command::Request> {
        Arc::try_unwrap(self.batch).map_or_else(|shared| shared.requests.clone(), |batch| batch.requests)
    }

    /// Memory that an entry with it holds: the requests, their bytes, and as many for the log and the peers. Of small
    /// requests, a lease's or a delete's, the first is nearly all.
    pub(super) fn bytes(&self) -> usize {
        self.batch.requests.capacity() * size_of::<command::Request>() + 2 * self.encoded.len()
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} requests in {} bytes", self.batch.requests.len(), self.encoded.len())
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Takes a result where it is made, without another task in between. Should it
/// be dropped instead, so is the function, and what that holds must notice.
pub(super) struct Reply<T>(pub(super) Box<dyn FnOnce(T) + Send>);

impl<T: Send + 'static> openraft::raft::responder::Responder<TypeConfig, T> for Reply<T> {
    fn on_complete(self, result: T) {
        (self.0)(result);
    }
}

impl<T> fmt::Debug for Reply<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reply")
    }
}

// Kinds of log entries on disk.
const BLANK: u8 = 0;
const BATCH: u8 = 1;
const MEMBERSHIP: u8 = 2;

/// A log entry's bytes that make no sense.
#[derive(Debug, thiserror::Error)]
pub(super) enum EntryError {
    #[error("log entry {index} cannot be decoded: {source}")]
    Decode { index: u64, source: prost::DecodeError },
    #[error("log entry {index} is of the unknown kind {kind}")]
    Kind { index: u64, kind: u8 },
    #[error("log entry {index} names no valid membership: {reason}")]
    Membership { index: u64, reason: String },
}

pub(super) fn to_wal(entry: &Entry) -> WalEntry {
    let (kind, payload) = match &entry.payload {
        EntryPayload::Blank => (BLANK, Bytes::new()),
        EntryPayload::Normal(command) => (BATCH, command.encoded.clone()),
        EntryPayload::Membership(membership) => {
            (MEMBERSHIP, to_membership(membership).encode_to_vec().into())
        }
    };
    WalEntry { id: to_id(&entry.log_id), kind, payload }
}

/// An entry of a membership that no leader proposed.
pub(super) fn membership_entry(id: record::LogId, membership: &record::Membership) -> WalEntry {
    WalEntry { id, kind: MEMBERSHIP, payload: membership.encode_to_vec().into() }
}

/// Tells entries apart, for those who compare what members have applied.
pub(super) fn checksum(entry: &Entry) -> u64 {
    let WalEntry { kind, payload, .. } = to_wal(entry);
    u64::from(kind) << 32 | u64::from(crc32c::crc32c(&payload))
}

pub(super) fn from_wal(entry: WalEntry) -> Result<Entry, EntryError> {
    let index = entry.id.index;
    let failed = |source| EntryError::Decode { index, source };
    let payload = match entry.kind {
        BLANK => EntryPayload::Blank,
        BATCH => EntryPayload::Normal(Command::decode(entry.payload).map_err(failed)?),
        MEMBERSHIP => {
            let membership = record::Membership::decode(entry.payload).map_err(failed)?;
            EntryPayload::Membership(from_membership(&membership, index)?)
        }
        kind => return Err(EntryError::Kind { index, kind }),
    };
    Ok(Entry { log_id: from_id(&entry.id), payload })
}

pub(super) fn to_entry(entry: &Entry) -> record::Entry {
    let WalEntry { id, kind, payload } = to_wal(entry);
    record::Entry { id: Some(id), kind: kind.into(), payload }
}

pub(super) fn from_entry(entry: record::Entry) -> Result<Entry, EntryError> {
    let id = entry.id.unwrap_or_default();
    let kind = u8::try_from(entry.kind).unwrap_or(u8::MAX);
    // A copy: a slice would keep the whole message in memory, with all its other entries.
    from_wal(WalEntry { id, kind, payload: Bytes::copy_from_slice(&entry.payload) })
}

/// The leader's id is not in it: the term alone names the leader of an entry.
pub(super) fn to_id(id: &LogId) -> record::LogId {
    record::LogId { term: id.leader_id.term, node: 0, index: id.index }
}

pub(super) fn from_id(id: &record::LogId) -> LogId {
    LogId { leader_id: id.term.into(), index: id.index }
}

pub(super) fn to_vote(vote: &Vote) -> record::Vote {
    let leader = &vote.leader_id;
    record::Vote { term: leader.term, node: Some(leader.voted_for), committed: vote.committed }
}

pub(super) fn from_vote(vote: &record::Vote) -> Vote {
    let node = vote.node.unwrap_or_default();
    Vote {
        leader_id: leader_id_std::LeaderId { term: vote.term, voted_for: node },
        committed: vote.committed,
    }
}

pub(super) fn to_membership(membership: &Membership) -> record::Membership {
    let sets = membership.get_joint_config().iter();
    let voters = sets.map(|ids| record::VoterSet { ids: ids.iter().copied().collect() });
    let nodes = membership.nodes().map(|(id, peer)| record::Node {
        id: *id,
        peer_urls: peer.urls.clone(),
        learner: peer.learner,
    });
    record::Membership { voters: voters.collect(), nodes: nodes.collect() }
}

pub(super) fn from_membership(membership: &record::Membership, index: u64) -> Result<Membership, EntryError> {
    let voters = membership.voters.iter().map(|set| set.ids.iter().copied().collect::<BTreeSet<_>>());
    let nodes = membership
        .nodes
        .iter()
        .map(|node| (node.id, Peer { urls: node.peer_urls.clone(), learner: node.learner }));
    let nodes: std::collections::BTreeMap<_, _> = nodes.collect();
    Membership::new(voters.collect(), nodes)
        .map_err(|error| EntryError::Membership { index, reason: error.to_string() })
}

/// What openraft wants to know of a state, from what the state says of itself.
pub(super) fn snapshot_meta(meta: &record::Meta) -> Result<SnapshotMeta, EntryError> {
    Ok(SnapshotMeta {
        last_log_id: meta.applied.as_ref().map(from_id),
        last_membership: stored_membership(meta)?,
    })
}

pub(super) fn stored_membership(meta: &record::Meta) -> Result<StoredMembership, EntryError> {
    let Some(stored) = &meta.membership else { return Ok(StoredMembership::default()) };
    let index = stored.id.map_or(0, |id| id.index);
    let membership = from_membership(&stored.membership.clone().unwrap_or_default(), index)?;
    Ok(StoredMembership::new(stored.id.as_ref().map(from_id), membership))
}

#[cfg(test)]
mod tests {
    use etcfs_proto::etcdserverpb::{LeaseGrantRequest, PutRequest};

    use super::*;

    /// A log that keeps 16 MiB of entries kept 25 MB of leases' grants.
    #[test]
    fn a_command_of_small_requests_is_reckoned_to_hold_their_memory() {
        let grant = LeaseGrantRequest { ttl: 60, id: 1 };
        let request = command::Request { body: Some(command::request::Body::LeaseGrant(grant)) };
        let command =
            Command::new(command::Batch { requests: vec![request; 1000], ..command::Batch::default() });
        assert!(command.bytes() > 1000 * size_of::<command::Request>(), "{} bytes", command.bytes());
    }

    fn entries() -> Vec<Entry> {
        let put = PutRequest { key: "k".into(), value: "v".into(), ..PutRequest::default() };
        let request = command::Request { body: Some(command::request::Body::Put(put)) };
        let nodes = [(3, Peer { urls: vec!["http://a:1".into()], learner: true }), (4, Peer::default())];
        let membership =
            Membership::new(vec![[3].into(), [3, 4].into()], std::collections::BTreeMap::from(nodes));
        let payloads = [
            EntryPayload::Blank,
            EntryPayload::Normal(Command::new(command::Batch {
                requests: vec![request],
                origin: None,
                unix_ms: 0,
            })),
            EntryPayload::Membership(membership.expect("valid")),
        ];
        let entry =
            |(nth, payload)| Entry { log_id: LogId { leader_id: 7.into(), index: nth as u64 }, payload };
        payloads.into_iter().enumerate().map(entry).collect()
    }

    #[test]
    fn entries_come_back_from_disk_and_from_the_wire() {
        for entry in entries() {
            assert_eq!(from_wal(to_wal(&entry)).expect("decodes"), entry);
            assert_eq!(from_entry(to_entry(&entry)).expect("decodes"), entry);
        }
        let unknown = WalEntry { id: record::LogId::default(), kind: 99, payload: Bytes::new() };
        assert!(matches!(from_wal(unknown), Err(EntryError::Kind { kind: 99, .. })));
    }

    /// As the leader stamps what another member proposes; the last of two stamps counts.
    #[test]
    fn a_batch_has_the_time_of_who_appends_it_and_all_else_as_it_was() {
        let put = PutRequest { key: "k".into(), value: "v".into(), ..PutRequest::default() };
        let request = command::Request { body: Some(command::request::Body::Put(put)) };
        let origin = Some(command::Origin { process: 7, number: 8 });
        let batch = command::Batch { requests: vec![request], origin, unix_ms: 0 };
        let mut command = Command::new(batch.clone());
        for unix_ms in [u64::MAX, 5] {
            command.set_time(unix_ms);
            let expected = command::Batch { unix_ms, ..batch.clone() };
            assert_eq!(*command.batch(), expected);
            assert_eq!(*Command::decode(command.encoded()).expect("decodes").batch(), expected);
        }
    }

    #[test]
    fn votes_come_back() {
        for vote in [Vote::new(3, 9), Vote::new_committed(4, 0)] {
            assert_eq!(from_vote(&to_vote(&vote)), vote);
        }
    }
}
