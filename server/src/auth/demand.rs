//! What a request must be allowed to do, down to the last nested operation.

use bytes::Bytes;
use etcfs_proto::etcdserverpb::{
    DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, request_op::Request,
};

use super::{Access, AuthError, Rights};

/// One user's rights, asked for what requests need.
#[derive(Clone, Copy)]
pub struct Demand<'a> {
    rights: &'a Rights,
    /// The keys that hang on a lease.
    lease_keys: &'a dyn Fn(i64) -> Vec<Bytes>,
}

impl std::fmt::Debug for Demand<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Demand").field("rights", &self.rights).finish_non_exhaustive()
    }
}

impl<'a> Demand<'a> {
    pub fn new(rights: &'a Rights, lease_keys: &'a dyn Fn(i64) -> Vec<Bytes>) -> Self {
        Self { rights, lease_keys }
    }

    fn keys(&self, access: Access, key: &Bytes, range_end: &Bytes) -> Result<(), AuthError> {
        if self.rights.permit(access, key, range_end) { Ok(()) } else { Err(AuthError::Denied) }
    }

    pub fn range(&self, request: &RangeRequest) -> Result<(), AuthError> {
        self.keys(Access::Read, &request.key, &request.range_end)
    }

    pub fn put(&self, request: &PutRequest) -> Result<(), AuthError> {
        if request.prev_kv {
            self.keys(Access::Read, &request.key, &Bytes::new())?;
        }
        self.keys(Access::Write, &request.key, &Bytes::new())?;
        match request.lease {
            0 => Ok(()),
            // Who can hang keys on a lease can have them deleted with its others.
            lease => self.lease(Access::Write, lease),
        }
    }

    pub fn delete_range(&self, request: &DeleteRangeRequest) -> Result<(), AuthError> {
        if request.prev_kv {
            self.keys(Access::Read, &request.key, &request.range_end)?;
        }
        self.keys(Access::Write, &request.key, &request.range_end)
    }

    /// Of both branches: which one runs may not depend on what the caller can't know.
    pub fn txn(&self, request: &TxnRequest) -> Result<(), AuthError> {
        for compare in &request.compare {
            self.keys(Access::Read, &compare.key, &compare.range_end)?;
        }
        request.success.iter().chain(&request.failure).try_for_each(|op| self.op(op))
    }

    fn op(&self, op: &RequestOp) -> Result<(), AuthError> {
        match &op.request {
            Some(Request::RequestRange(request)) => self.range(request),
            Some(Request::RequestPut(request)) => self.put(request),
            Some(Request::RequestDeleteRange(request)) => self.delete_range(request),
            Some(Request::RequestTxn(request)) => self.txn(request),
            None => Ok(()),
        }
    }

    /// Access to every key that hangs on a lease; one that does not exist has none.
    pub fn lease(&self, access: Access, id: i64) -> Result<(), AuthError> {
        if self.rights.is_root() {
            return Ok(());
        }
        (self.lease_keys)(id).iter().try_for_each(|key| self.keys(access, key, &Bytes::new()))
    }

    pub fn root(&self) -> Result<(), AuthError> {
        if self.rights.is_root() { Ok(()) } else { Err(AuthError::Denied) }
    }
}
