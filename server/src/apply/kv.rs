//! Put and delete, alone or within a transaction.

use etcfs_proto::etcdserverpb::{DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse};

use super::{ApplyError, error::Failure};
use crate::{
    lease::table::LeaseTable,
    mvcc::{View, WriteTxn, header},
};

/// Refuses a put that cannot be done, before anything is.
pub(super) fn check_put(view: &View<'_>, leases: &LeaseTable, request: &PutRequest) -> Result<(), Failure> {
    // No service lets one pass. An image that holds one would be refused at the next start.
    if request.key.is_empty() {
        return Err(ApplyError::KeyNotFound.into());
    }
    if request.lease != 0 && !leases.exists(request.lease) {
        return Err(ApplyError::LeaseNotFound.into());
    }
    if (request.ignore_value || request.ignore_lease) && !view.exists(&request.key)? {
        return Err(ApplyError::KeyNotFound.into());
    }
    Ok(())
}

/// Puts what [`check_put`] has let pass.
pub(super) fn put(
    txn: &mut WriteTxn<'_>,
    leases: &LeaseTable,
    request: &PutRequest,
) -> Result<PutResponse, Failure> {
    let wants_previous = request.prev_kv || request.ignore_value || request.ignore_lease;
    let previous = if wants_previous { txn.view().get(&request.key)? } else { None };
    let (mut value, mut lease) = (request.value.clone(), request.lease);
    if let Some(previous) = &previous {
        if request.ignore_value {
            value = previous.value.clone();
        }
        if request.ignore_lease {
            lease = previous.lease;
        }
    }
    txn.put(request.key.clone(), value, lease);
    leases.attach(&request.key, lease);
    let prev_kv = previous.filter(|_| request.prev_kv);
    Ok(PutResponse { header: header(txn.revision()), prev_kv })
}

pub(super) fn delete_range(
    txn: &mut WriteTxn<'_>,
    leases: &LeaseTable,
    request: &DeleteRangeRequest,
) -> Result<DeleteRangeResponse, Failure> {
    let deleted = txn.delete_range(&request.key, &request.range_end, request.prev_kv)?;
    for (key, leased) in &deleted.keys {
        if *leased {
            leases.attach(key, 0);
        }
    }
    let count = i64::try_from(deleted.keys.len()).expect("a list's length is an i64");
    Ok(DeleteRangeResponse { header: header(txn.revision()), deleted: count, prev_kvs: deleted.pairs })
}
