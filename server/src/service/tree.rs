//! The Tree service: the key space as a file system sees it. etcd has nothing like it.
//!
//! A rename becomes the transaction that a client would write, did it know all keys and were there no limit on their
//! number: so rights, quota, size and the log are a transaction's, and no member needs to know of renames. What was
//! read for it is compared in it; if that has changed meanwhile, it is read again.

use bytes::Bytes;
use etcfs_proto::{
    etcdserverpb::{
        Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, TxnResponse,
        compare::{CompareResult, CompareTarget, TargetUnion},
        request_op::Request as Op,
        response_op,
    },
    etcfs::v1::{
        ChildrenRequest, ChildrenResponse, Move, RenameRequest, RenameResponse, TimesRequest, TimesResponse,
    },
    key::{TO_END, prefix_end, successor},
    mvccpb::KeyValue,
};

use super::{Kv, Refusal, check};
use crate::{
    auth::Caller,
    mvcc::{View, header},
};

/// Children in one answer.
const CHILDREN_MAX: usize = 10_000;

/// Revisions in one request.
const REVISIONS_MAX: usize = 10_000;

/// How often a rename is read anew because of changes that came between.
const TRIES_MAX: usize = 10;

/// Pairs read at a time.
const PAIRS_CHUNK: i64 = 1000;

#[derive(Clone, Debug)]
pub struct Tree {
    pub kv: Kv,
    /// Of a rename, written out.
    pub max_request_bytes: usize,
}

impl Tree {
    pub async fn children(
        &self,
        request: ChildrenRequest,
        caller: &Caller,
    ) -> Result<ChildrenResponse, Refusal> {
        let below = range(&request.prefix);
        self.kv.allowed(caller, |demand| demand.range(&below), self.read_children(&request)).await
    }

    async fn read_children(&self, request: &ChildrenRequest) -> Result<ChildrenResponse, Refusal> {
        self.kv.ready(request.serializable).await?;
        let limit = match usize::try_from(request.limit) {
            Ok(limit @ 1..CHILDREN_MAX) => limit,
            _ => CHILDREN_MAX,
        };
        let view = self.kv.store.view(request.revision)?;
        // Some thousand searches, and a key space of deleted keys is walked through.
        let found = tokio::task::block_in_place(|| view.children(&request.prefix, &request.from, limit))?;
        let mut response = ChildrenResponse {
            header: header(view.current()),
            children: found.children,
            next: found.next.unwrap_or_default(),
            revision: view.at(),
        };
        self.kv.headers.fill(&mut response.header);
        Ok(response)
    }

    /// As this member knows it by now: times don't change, and what it has not applied it can't tell.
    pub async fn times(&self, request: TimesRequest) -> Result<TimesResponse, Refusal> {
        if request.revisions.len() > REVISIONS_MAX {
            return Err(Refusal::TooManyRevisions);
        }
        self.kv.ready(true).await?;
        // Looked at first: a revision up to it that has no time will never have one.
        let header = header(self.kv.store.revision());
        let made = self.kv.store.times(request.revisions);
        let mut response = TimesResponse {
            header,
            unix_ns: made.iter().map(|made| made.at()).collect(),
            before_unix_ns: made.iter().map(|made| made.before()).collect(),
        };
        self.kv.headers.fill(&mut response.header);
        Ok(response)
    }

    pub async fn rename(&self, request: RenameRequest, caller: &Caller) -> Result<RenameResponse, Refusal> {
        let RenameRequest { txn, moves } = request;
        let txn = txn.unwrap_or_default();
        check::txn(&txn, self.kv.max_txn_ops)?;
        check::moves(&moves)?;
        // Before any of it is read: how much there is, is told by whether it is too large.
        self.kv.access.demand(caller, |demand| {
            demand.txn(&txn)?;
            moves.iter().try_for_each(|one| {
                demand.range(&range(&one.from))?;
                demand.delete_range(&delete_below(&one.from))?;
                demand.range(&range(&one.to))?;
                demand.delete_range(&delete_below(&one.to))
            })
        })?;
        for _ in 0..TRIES_MAX {
            self.kv.ready(false).await?;
            let written = tokio::task::block_in_place(|| self.write_out(&txn, &moves))?;
            // No operation of the transaction's own falls into what is moved.
            check::txn(&written.txn, usize::MAX)?;
            let TxnResponse { header, succeeded: unchanged, mut responses } =
                self.kv.write_txn(written.txn, caller).await?;
            if !unchanged {
                continue;
            }
            let Some(response_op::Response::ResponseTxn(TxnResponse { succeeded, mut responses, .. })) =
                responses.pop().and_then(|last| last.response)
            else {
                unreachable!("a transaction was the only operation");
            };
            responses.truncate(if succeeded { txn.success.len() } else { txn.failure.len() });
            let moved = if succeeded { written.moved } else { 0 };
            return Ok(RenameResponse { header, succeeded, responses, moved });
        }
        Err(Refusal::TooManyRequests)
    }

    /// The transaction that `txn` and the moves are: one around it compares that nothing has changed since.
    fn write_out(&self, txn: &TxnRequest, moves: &[Move]) -> Result<Written, Refusal> {
        let view = self.kv.store.view(0)?;
        let mut budget = self.max_request_bytes;
        let mut outer = TxnRequest::default();
        let mut inner = txn.clone();
        let mut moved = 0;
        for one in moves {
            let kvs = read_below(&view, &one.from, one.to.len(), &mut budget)?;
            let there = match one.replace {
                true => read_below(&view, &one.to, 0, &mut budget)?,
                false if view_holds(&view, &one.to)? => return Err(Refusal::TargetNotEmpty),
                false => Vec::new(),
            };
            moved += kvs.len() as i64;
            for (prefix, kvs) in [(&one.from, &kvs), (&one.to, &there)] {
                // No key of it has come or changed, and none of those has gone.
                outer.compare.push(none_since(prefix, view.at()));
                outer.compare.extend(kvs.iter().map(unchanged));
            }
            let renamed = |kv: &KeyValue| [&one.to, &kv.key[one.from.len()..]].concat();
            let new: Vec<Vec<u8>> = kvs.iter().map(renamed).collect();
            inner.success.push(op(Op::RequestDeleteRange(delete_below(&one.from))));
            let left_over =
                there.iter().filter(|kv| new.binary_search_by(|key| key[..].cmp(&kv.key)).is_err());
            inner.success.extend(left_over.map(|kv| {
                op(Op::RequestDeleteRange(DeleteRangeRequest { key: kv.key.clone(), ..Default::default() }))
            }));
            inner.success.extend(kvs.into_iter().zip(new).map(|(kv, key)| {
                let put =
                    PutRequest { key: key.into(), value: kv.value, lease: kv.lease, ..Default::default() };
                op(Op::RequestPut(put))
            }));
        }
        outer.success.push(op(Op::RequestTxn(inner)));
        Ok(Written { txn: outer, moved })
    }
}

/// A rename as the log is to hold it.
struct Written {
    txn: TxnRequest,
    moved: i64,
}

/// All pairs below a prefix, as long as what a transaction says of them fits.
fn read_below(
    view: &View<'_>,
    prefix: &Bytes,
    new_prefix_bytes: usize,
    budget: &mut usize,
) -> Result<Vec<KeyValue>, Refusal> {
    let mut all: Vec<KeyValue> = Vec::new();
    let mut next = range(prefix);
    next.limit = PAIRS_CHUNK;
    loop {
        let page = view.range(&next)?;
        for kv in &page.kvs {
            // It is compared and put.
            let bytes = 2 * kv.key.len() + new_prefix_bytes + kv.value.len();
            *budget = budget.checked_sub(bytes).ok_or(Refusal::RequestTooLarge)?;
        }
        if let Some(last) = page.kvs.last() {
            next.key = successor(&last.key);
        }
        all.extend(page.kvs);
        if !page.more {
            return Ok(all);
        }
    }
}

fn view_holds(view: &View<'_>, prefix: &Bytes) -> Result<bool, Refusal> {
    let page = view.range(&RangeRequest { limit: 1, keys_only: true, ..range(prefix) })?;
    Ok(!page.kvs.is_empty())
}

/// All keys that begin with `prefix`, as a request names them.
fn bounds(prefix: &Bytes) -> (Bytes, Bytes) {
    // A request may not begin with the empty key, which does not exist.
    let key = if prefix.is_empty() { Bytes::from_static(TO_END) } else { prefix.clone() };
    (key, prefix_end(prefix))
}

fn range(prefix: &Bytes) -> RangeRequest {
    let (key, range_end) = bounds(prefix);
    RangeRequest { key, range_end, ..RangeRequest::default() }
}

fn delete_below(prefix: &Bytes) -> DeleteRangeRequest {
    let (key, range_end) = bounds(prefix);
    DeleteRangeRequest { key, range_end, ..DeleteRangeRequest::default() }
}

fn none_since(prefix: &Bytes, revision: i64) -> Compare {
    let (key, range_end) = bounds(prefix);
    Compare {
        result: CompareResult::Less.into(),
        target: CompareTarget::Mod.into(),
        key,
        range_end,
        target_union: Some(TargetUnion::ModRevision(revision + 1)),
    }
}

fn unchanged(kv: &KeyValue) -> Compare {
    Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Mod.into(),
        key: kv.key.clone(),
        range_end: Bytes::new(),
        target_union: Some(TargetUnion::ModRevision(kv.mod_revision)),
    }
}

fn op(request: Op) -> RequestOp {
    RequestOp { request: Some(request) }
}
