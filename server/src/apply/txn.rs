//! Transactions: compares choose a branch, whose operations share a revision.
//!
//! Everything that could refuse an operation of the branch is checked before
//! the first is done, so that a refused transaction leaves no trace. That its
//! answer is too long to be told refuses none: it is done all the same, as with etcd.

use etcfs_proto::etcdserverpb::{
    RequestOp, ResponseHeader, ResponseOp, TxnRequest, TxnResponse, request_op::Request,
    response_op::Response,
};

use super::{error::Failure, kv};
use crate::{
    lease::table::LeaseTable,
    mvcc::{ANSWER_BYTES_MAX, Branch, View, WriteTxn, header},
};

/// Carries a transaction out. `None`: what its ranges found is too long for an answer.
pub(super) fn txn(
    txn: &mut WriteTxn<'_>,
    leases: &LeaseTable,
    request: &TxnRequest,
) -> Result<Option<TxnResponse>, Failure> {
    let branch = {
        let before = txn.view();
        let branch = Branch::choose(&before, request)?;
        check(&before, leases, &branch)?;
        branch
    };
    let mut room = Some(ANSWER_BYTES_MAX);
    let response = run(txn, leases, &branch, &mut room)?;
    Ok(room.map(|_| TxnResponse { header: header(txn.revision()), ..response }))
}

fn check(before: &View<'_>, leases: &LeaseTable, branch: &Branch<'_>) -> Result<(), Failure> {
    for op in branch.ops {
        match &op.request {
            Some(Request::RequestPut(put)) => kv::check_put(before, leases, put)?,
            Some(Request::RequestRange(range)) => before.check_revision(range.revision)?,
            Some(Request::RequestDeleteRange(_) | Request::RequestTxn(_)) | None => {}
        }
    }
    branch.nested.iter().try_for_each(|nested| check(before, leases, nested))
}

/// Carries a branch out. `room`: what its ranges may still take; once they have taken more, none, and no further
/// range is read.
fn run(
    txn: &mut WriteTxn<'_>,
    leases: &LeaseTable,
    branch: &Branch<'_>,
    room: &mut Option<usize>,
) -> Result<TxnResponse, Failure> {
    let mut nested = branch.nested.iter();
    let mut one = |op: &RequestOp| -> Result<Option<Response>, Failure> {
        Ok(match &op.request {
            Some(Request::RequestPut(put)) => Some(Response::ResponsePut(kv::put(txn, leases, put)?)),
            Some(Request::RequestDeleteRange(delete)) => {
                Some(Response::ResponseDeleteRange(kv::delete_range(txn, leases, delete)?))
            }
            Some(Request::RequestRange(range)) => {
                let found = match room {
                    Some(room) => txn.view().range_within(range, room)?,
                    None => None,
                };
                if found.is_none() {
                    *room = None;
                }
                found.map(Response::ResponseRange)
            }
            Some(Request::RequestTxn(_)) => {
                let inner = nested.next().expect("a branch was chosen for each nested transaction");
                Some(Response::ResponseTxn(run(txn, leases, inner, room)?))
            }
            // The service refuses these; in an old log they do nothing.
            None => None,
        })
    };
    let responses: Result<Vec<_>, Failure> =
        branch.ops.iter().map(|op| Ok(ResponseOp { response: one(op)? })).collect();
    // Like etcd, only the outermost header says the revision.
    let header = Some(ResponseHeader::default());
    Ok(TxnResponse { header, succeeded: branch.succeeded, responses: responses? })
}
