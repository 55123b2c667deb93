//! What is wrong with a request, known before anything is proposed.
//!
//! Pure. The order of the checks is etcd's, because a request with two faults
//! must be refused for the same one.

use std::collections::HashSet;

use bytes::Bytes;
use etcfs_proto::{
    etcdserverpb::{
        DeleteRangeRequest, LeaseGrantRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
        range_request::{SortOrder, SortTarget},
        request_op::Request,
    },
    etcfs::v1::Move,
    key::{KeyRange, KeySet},
};

use super::Refusal;

/// Longer leases are refused; etcd's own bound.
const LEASE_TTL_MAX_SECONDS: i64 = 9_000_000_000;

/// Prefixes that one rename may move.
const MOVES_MAX: usize = 16;

pub(super) fn range(request: &RangeRequest) -> Result<(), Refusal> {
    if request.key.is_empty() {
        return Err(Refusal::EmptyKey);
    }
    let order = SortOrder::try_from(request.sort_order);
    let target = SortTarget::try_from(request.sort_target);
    if order.is_err() || target.is_err() {
        return Err(Refusal::InvalidSortOption);
    }
    Ok(())
}

pub(super) fn put(request: &PutRequest) -> Result<(), Refusal> {
    if request.key.is_empty() {
        return Err(Refusal::EmptyKey);
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(Refusal::ValueProvided);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(Refusal::LeaseProvided);
    }
    Ok(())
}

pub(super) fn delete_range(request: &DeleteRangeRequest) -> Result<(), Refusal> {
    if request.key.is_empty() {
        return Err(Refusal::EmptyKey);
    }
    Ok(())
}

/// The TTL to grant: raised to the shortest one that is safe.
pub(super) fn lease_grant(request: &LeaseGrantRequest, min_ttl: i64) -> Result<i64, Refusal> {
    if request.ttl > LEASE_TTL_MAX_SECONDS {
        return Err(Refusal::LeaseTtlTooLarge);
    }
    Ok(request.ttl.max(min_ttl))
}

pub(super) fn txn(request: &TxnRequest, max_ops: usize) -> Result<(), Refusal> {
    ops(request, max_ops)?;
    // Most transactions can't have a duplicate: one operation a branch.
    for branch in [&request.success, &request.failure] {
        if branch.len() > 1 || matches!(branch.first(), Some(op) if is_txn(op)) {
            Writes::of(branch)?;
        }
    }
    Ok(())
}

/// Moves that stand for themselves: none ends where another, or itself, begins.
pub(super) fn moves(moves: &[Move]) -> Result<(), Refusal> {
    let prefixes: Vec<&Bytes> = moves.iter().flat_map(|one| [&one.from, &one.to]).collect();
    if moves.len() > MOVES_MAX || moves.is_empty() {
        return Err(Refusal::TooManyOps);
    }
    if prefixes.iter().any(|prefix| prefix.is_empty()) {
        return Err(Refusal::EmptyKey);
    }
    let nested = |one: usize, two: usize| one != two && prefixes[two].starts_with(prefixes[one]);
    let all = 0..prefixes.len();
    if all.clone().any(|one| all.clone().any(|two| nested(one, two))) {
        return Err(Refusal::DuplicateKey);
    }
    Ok(())
}

/// True for a transaction that changes nothing, and so needs no log.
///
/// As with etcd, a nested transaction counts as a write whatever it holds.
pub(super) fn is_read_only(request: &TxnRequest) -> bool {
    let mut all = request.success.iter().chain(&request.failure);
    all.all(|op| matches!(op.request, Some(Request::RequestRange(_))))
}

/// True if each of its reads may be of the local state.
pub(super) fn is_serializable(request: &TxnRequest) -> bool {
    let mut all = request.success.iter().chain(&request.failure);
    all.all(|op| matches!(&op.request, Some(Request::RequestRange(range)) if range.serializable))
}

fn is_txn(op: &RequestOp) -> bool {
    matches!(op.request, Some(Request::RequestTxn(_)))
}

/// Each level may hold as many operations as the levels above have left.
fn ops(request: &TxnRequest, max_ops: usize) -> Result<(), Refusal> {
    let widest = request.compare.len().max(request.success.len()).max(request.failure.len());
    let left = max_ops.checked_sub(widest).ok_or(Refusal::TooManyOps)?;
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(Refusal::EmptyKey);
    }
    for op in request.success.iter().chain(&request.failure) {
        match &op.request {
            Some(Request::RequestRange(request)) => range(request)?,
            Some(Request::RequestPut(request)) => put(request)?,
            Some(Request::RequestDeleteRange(request)) => delete_range(request)?,
            Some(Request::RequestTxn(request)) => ops(request, left)?,
            None => return Err(Refusal::KeyNotFound),
        }
    }
    Ok(())
}

/// What one branch of a transaction writes, nested transactions included.
///
/// A key may be put once, and a put may not fall into a range that is deleted:
/// all changes of a transaction have one revision, so a key has one fate in
/// it. Deletions may overlap. The branches of a nested transaction exclude
/// each other, so both may put one key.
#[derive(Default)]
struct Writes<'a> {
    puts: HashSet<&'a Bytes>,
    deletes: KeySet,
}

impl<'a> Writes<'a> {
    fn of(branch: &'a [RequestOp]) -> Result<Self, Refusal> {
        let mut writes = Self::default();
        // The deletions of this level stand before any put is judged ...
        for op in branch {
            if let Some(Request::RequestDeleteRange(delete)) = &op.request {
                writes.deletes.insert(&KeyRange::from_request(&delete.key, &delete.range_end));
            }
        }
        // ... then come the nested transactions, and the puts of this level last.
        for op in branch {
            if let Some(Request::RequestTxn(nested)) = &op.request {
                let then = Self::of(&nested.success)?;
                let or_else = Self::of(&nested.failure)?;
                let puts: HashSet<_> = then.puts.union(&or_else.puts).copied().collect();
                for key in puts {
                    writes.put(key)?;
                }
                writes.deletes.merge(then.deletes);
                writes.deletes.merge(or_else.deletes);
            }
        }
        for op in branch {
            if let Some(Request::RequestPut(put)) = &op.request {
                writes.put(&put.key)?;
            }
        }
        Ok(writes)
    }

    fn put(&mut self, key: &'a Bytes) -> Result<(), Refusal> {
        if self.deletes.contains(key) || !self.puts.insert(key) {
            return Err(Refusal::DuplicateKey);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
