//! The comparisons and the requests of which transactions are made.

use bytes::Bytes;
use etcfs_proto::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp,
    compare::{CompareResult, CompareTarget, TargetUnion},
    request_op::Request,
};

/// Holds while a key is as it was at its last change; 0 stands for a key that is not there.
pub(crate) fn unchanged(key: &Bytes, mod_revision: i64) -> Compare {
    Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Mod.into(),
        key: key.clone(),
        target_union: Some(TargetUnion::ModRevision(mod_revision)),
        ..Compare::default()
    }
}

/// The key is the one that was made at this revision, whatever has been put to it since; 0 for none.
pub(crate) fn created_at(key: &Bytes, create_revision: i64) -> Compare {
    Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Create.into(),
        key: key.clone(),
        target_union: Some(TargetUnion::CreateRevision(create_revision)),
        ..Compare::default()
    }
}

pub(crate) fn put(request: PutRequest) -> RequestOp {
    RequestOp { request: Some(Request::RequestPut(request)) }
}

pub(crate) fn delete(key: Bytes) -> RequestOp {
    let request = DeleteRangeRequest { key, ..DeleteRangeRequest::default() };
    RequestOp { request: Some(Request::RequestDeleteRange(request)) }
}

pub(crate) fn get(key: Bytes) -> RequestOp {
    RequestOp { request: Some(Request::RequestRange(RangeRequest { key, ..RangeRequest::default() })) }
}
