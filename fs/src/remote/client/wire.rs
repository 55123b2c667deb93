//! The remote's words <-> the protocol's messages.

use bytes::Bytes;
use etcfs_proto::etcdserverpb::{
    Compare as PbCompare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, ResponseOp, TxnRequest,
    TxnResponse, compare, request_op, response_op,
};
use etcfs_proto::etcfs::v1;
use etcfs_proto::key::{KeyRange, TO_END};
use etcfs_proto::mvccpb;

use super::How;
use super::slots::Slot;
use crate::map::Key;
use crate::remote::{
    Answer, Change, Child, Children, ChildrenRequest, Compare, Event, KeyValue, Lease, LeaseId, Lookup, Move,
    Op, PageRequest, Probe, RemoteError, Revision,
};

const BAD_ANSWER: RemoteError = RemoteError::Protocol("an answer to another request");

/// `(key, range_end)` of a range.
pub(super) fn bounds(range: &KeyRange) -> (Bytes, Bytes) {
    // The empty key does not exist, and a request may not begin with it.
    let key = if range.start.is_empty() { Bytes::from_static(b"\0") } else { range.start.clone() };
    (key, range.end.clone().unwrap_or(Bytes::from_static(TO_END)))
}

pub(super) fn key_value(kv: mvccpb::KeyValue) -> KeyValue {
    KeyValue {
        key: Key::from(kv.key),
        value: kv.value,
        create_revision: Revision(kv.create_revision),
        mod_revision: Revision(kv.mod_revision),
        version: kv.version,
        lease: (kv.lease != 0).then_some(LeaseId(kv.lease)),
    }
}

pub(super) fn event(event: mvccpb::Event) -> Option<(Revision, Event)> {
    let deleted = event.r#type() == mvccpb::event::EventType::Delete;
    let kv = key_value(event.kv?);
    Some((kv.mod_revision, if deleted { Event::Delete(kv.key) } else { Event::Put(kv) }))
}

pub(super) fn get(key: &Key, how: How) -> RangeRequest {
    let How { serializable, revision } = how;
    // Stands for the empty key, which no server lets one ask for: no key is before it.
    let key = if key.is_empty() { Bytes::from_static(b"\0") } else { key.bytes() };
    RangeRequest { key, serializable, revision, ..RangeRequest::default() }
}

pub(super) fn page(page: &PageRequest, how: How) -> RangeRequest {
    RangeRequest { limit: i64::from(page.limit.max(1)), keys_only: page.keys_only, ..span(&page.range, how) }
}

pub(super) fn children(request: &ChildrenRequest, how: How) -> v1::ChildrenRequest {
    v1::ChildrenRequest {
        prefix: request.prefix.clone(),
        from: request.from.clone(),
        limit: 0,
        revision: how.revision,
        serializable: how.serializable,
    }
}

/// Adds to `told` the times that come with them.
pub(super) fn children_of(answer: v1::ChildrenResponse, told: &mut Vec<(i64, Option<u64>)>) -> Children {
    let keys =
        answer.children.iter().filter_map(|child| child.key.as_ref()).filter(|key| key.mod_unix_ns > 0);
    told.extend(keys.map(|key| (key.mod_revision, Some(key.mod_unix_ns.unsigned_abs()))));
    let children = answer.children.into_iter();
    Children {
        children: children
            .map(|child| Child { name: child.name, is_key: child.key.is_some(), below: child.below })
            .collect(),
        next: Some(answer.next).filter(|next| !next.is_empty()),
    }
}

/// The time of each revision that the server has made; where only a later one's is known, the latest that it may be.
pub(super) fn times(revisions: &[i64], answer: &v1::TimesResponse) -> Vec<(i64, Option<u64>)> {
    let newest = answer.header.as_ref().map_or(0, |header| header.revision);
    let before = answer.before_unix_ns.iter().chain(std::iter::repeat(&0));
    let told = answer.unix_ns.iter().zip(before).map(|(&at, &before)| if at > 0 { at } else { before });
    let told = revisions.iter().copied().zip(told).filter(|&(revision, _)| revision <= newest);
    told.map(|(revision, nanos)| (revision, (nanos > 0).then(|| nanos.unsigned_abs()))).collect()
}

/// What a transaction has no word for.
pub(super) fn moves(ops: &[Op]) -> Vec<v1::Move> {
    let moves = ops.iter().filter_map(|op| match op {
        Op::Move(Move { from, to, replace, .. }) => {
            Some(v1::Move { from: from.clone(), to: to.clone(), replace: *replace })
        }
        _ => None,
    });
    moves.collect()
}

/// A rename's answer as that of a transaction.
pub(super) fn renamed(answer: v1::RenameResponse) -> TxnResponse {
    TxnResponse { header: answer.header, succeeded: answer.succeeded, responses: answer.responses }
}

pub(super) fn count(range: &KeyRange) -> RangeRequest {
    RangeRequest { count_only: true, ..span(range, How { serializable: true, revision: 0 }) }
}

fn span(range: &KeyRange, how: How) -> RangeRequest {
    let (key, range_end) = bounds(range);
    RangeRequest {
        key,
        range_end,
        serializable: how.serializable,
        revision: how.revision,
        ..RangeRequest::default()
    }
}

pub(super) fn probes(probes: &[Probe], how: How) -> Vec<RequestOp> {
    let first = |range| RangeRequest { limit: 1, keys_only: true, ..span(range, how) };
    probes
        .iter()
        .flat_map(|probe| [get(&probe.key, how), first(&probe.below), first(&probe.records)])
        .map(|range| op(request_op::Request::RequestRange(range)))
        .collect()
}

pub(super) fn lookups(probes: &[Probe], responses: Vec<ResponseOp>) -> Result<Vec<Lookup>, RemoteError> {
    if responses.len() != 3 * probes.len() {
        return Err(BAD_ANSWER);
    }
    let mut firsts =
        responses.into_iter().map(|response| Ok(kvs(response)?.into_iter().next().map(key_value)));
    let mut next = || firsts.next().unwrap_or(Err(BAD_ANSWER));
    probes
        .iter()
        .map(|probe| {
            Ok(Lookup {
                kv: next()?.filter(|kv| kv.key == probe.key),
                below: next()?.map(|kv| kv.key),
                record: next()?.map(|kv| kv.key),
            })
        })
        .collect()
}

fn kvs(response: ResponseOp) -> Result<Vec<mvccpb::KeyValue>, RemoteError> {
    match response.response {
        Some(response_op::Response::ResponseRange(range)) => Ok(range.kvs),
        _ => Err(BAD_ANSWER),
    }
}

/// The transaction of a change. `fence` for one that may have been sent before: see `commit`.
pub(super) fn txn(change: &Change, slot: &Slot, lease: LeaseId, fence: bool) -> TxnRequest {
    let ours = mod_revision_is(&slot.key, slot.revision);
    let put = |value: String| {
        let put = PutRequest {
            key: slot.key.bytes(),
            value: value.into(),
            lease: lease.0,
            ..PutRequest::default()
        };
        op(request_op::Request::RequestPut(put))
    };
    let mut success: Vec<RequestOp> = change.then.iter().filter_map(request).collect();
    success.push(put(slot.done()));
    let mut failure: Vec<RequestOp> = change.otherwise.iter().filter_map(request).collect();
    failure.push(op(request_op::Request::RequestRange(get(&slot.key, NEWEST))));
    if fence {
        let fence =
            TxnRequest { compare: vec![ours.clone()], success: vec![put(slot.refused())], failure: vec![] };
        failure.push(op(request_op::Request::RequestTxn(fence)));
    }
    let compare = change.compares.iter().map(condition).chain([ours]).collect();
    TxnRequest { compare, success, failure }
}

/// A change as it is, without a slot: for one that puts nothing.
pub(super) fn bare_txn(change: &Change) -> TxnRequest {
    TxnRequest {
        compare: change.compares.iter().map(condition).collect(),
        success: change.then.iter().filter_map(request).collect(),
        failure: change.otherwise.iter().filter_map(request).collect(),
    }
}

/// The reads among `ops`, as of `revision`.
pub(super) fn reads(ops: &[Op], revision: Revision) -> TxnRequest {
    let mut success: Vec<RequestOp> = ops.iter().filter(|op| !op.writes()).filter_map(request).collect();
    for op in &mut success {
        if let Some(request_op::Request::RequestRange(range)) = &mut op.request {
            range.revision = revision.0;
        }
    }
    TxnRequest { success, ..TxnRequest::default() }
}

/// Gives each op its answer; `responses` may go on with others.
pub(super) fn answers(
    ops: &[Op],
    responses: &mut impl Iterator<Item = ResponseOp>,
) -> Result<Vec<Answer>, RemoteError> {
    ops.iter()
        .map(|op| match op {
            Op::Move(_) => Ok(Answer::Done),
            op => answer(op, responses.next().ok_or(BAD_ANSWER)?),
        })
        .collect()
}

/// The same where only the reads were asked.
pub(super) fn read_answers(ops: &[Op], responses: Vec<ResponseOp>) -> Result<Vec<Answer>, RemoteError> {
    let mut responses = responses.into_iter();
    ops.iter()
        .map(
            |op| if op.writes() { Ok(Answer::Done) } else { answer(op, responses.next().ok_or(BAD_ANSWER)?) },
        )
        .collect()
}

fn answer(op: &Op, response: ResponseOp) -> Result<Answer, RemoteError> {
    Ok(match op {
        Op::Put { .. } | Op::Attach { .. } | Op::Delete(_) | Op::DeleteRange(_) | Op::Move(_) => Answer::Done,
        Op::Get(_) => Answer::Got(kvs(response)?.pop().map(key_value)),
        Op::Keys { .. } => Answer::Keys(kvs(response)?.into_iter().map(|kv| Key::from(kv.key)).collect()),
    })
}

/// The slot as the other branch saw it.
pub(super) fn slot_seen(response: Option<ResponseOp>) -> Result<Option<KeyValue>, RemoteError> {
    Ok(kvs(response.ok_or(BAD_ANSWER)?)?.pop().map(key_value))
}

fn op(request: request_op::Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

const NEWEST: How = How { serializable: false, revision: 0 };

/// A step in a transaction's words; `None` for a move.
fn request(step: &Op) -> Option<RequestOp> {
    use request_op::Request;
    Some(op(match step {
        Op::Move(_) => return None,
        Op::Put { key, value, lease } => Request::RequestPut(PutRequest {
            key: key.bytes(),
            value: value.clone(),
            lease: if let Lease::To(lease) = lease { lease.0 } else { 0 },
            ignore_lease: *lease == Lease::Keep,
            ..PutRequest::default()
        }),
        Op::Attach { key, lease } => Request::RequestPut(PutRequest {
            key: key.bytes(),
            lease: lease.map_or(0, |lease| lease.0),
            ignore_value: true,
            ..PutRequest::default()
        }),
        Op::Delete(key) => Request::RequestDeleteRange(DeleteRangeRequest {
            key: key.bytes(),
            ..DeleteRangeRequest::default()
        }),
        Op::DeleteRange(range) => {
            let (key, range_end) = bounds(range);
            Request::RequestDeleteRange(DeleteRangeRequest {
                key,
                range_end,
                ..DeleteRangeRequest::default()
            })
        }
        Op::Get(key) => Request::RequestRange(get(key, NEWEST)),
        Op::Keys { range, limit } => Request::RequestRange(RangeRequest {
            limit: i64::from(*limit),
            keys_only: true,
            ..span(range, NEWEST)
        }),
    }))
}

fn condition(compare: &Compare) -> PbCompare {
    use compare::{CompareResult, CompareTarget, TargetUnion};
    let created = |key: &Key, result: CompareResult, revision| PbCompare {
        result: result.into(),
        target: CompareTarget::Create.into(),
        key: key.bytes(),
        target_union: Some(TargetUnion::CreateRevision(revision)),
        range_end: Bytes::new(),
    };
    match compare {
        Compare::Unchanged(key, revision) => mod_revision_is(key, *revision),
        Compare::Absent(key) => created(key, CompareResult::Equal, 0),
        Compare::Present(key) => created(key, CompareResult::Greater, 0),
        Compare::SameSince(key, revision) => created(key, CompareResult::Equal, revision.0),
        Compare::NothingIn(range) => {
            let (key, range_end) = bounds(range);
            PbCompare { range_end, ..created(&Key::from(key), CompareResult::Equal, 0) }
        }
        Compare::NotPutSince(range, revision) => {
            let (key, range_end) = bounds(range);
            PbCompare {
                result: CompareResult::Less.into(),
                range_end,
                ..mod_revision_is(&Key::from(key), Revision(revision.0 + 1))
            }
        }
    }
}

fn mod_revision_is(key: &Key, revision: Revision) -> PbCompare {
    PbCompare {
        result: compare::CompareResult::Equal.into(),
        target: compare::CompareTarget::Mod.into(),
        key: key.bytes(),
        target_union: Some(compare::TargetUnion::ModRevision(revision.0)),
        range_end: Bytes::new(),
    }
}
