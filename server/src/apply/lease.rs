//! Leases: granted, revoked, expired, checkpointed.

use etcfs_proto::{
    etcdserverpb::{LeaseGrantRequest, LeaseGrantResponse, LeaseRevokeRequest, LeaseRevokeResponse},
    etcfs::{
        command::{LeaseCheckpoints, LeaseExpire},
        record,
    },
};

use super::ApplyError;
use crate::{
    lease::table::{LEASE_TTL_SECONDS_MAX, LeaseFacts, LeaseTable},
    mvcc::{RevisionEvents, Writer, header},
    storage::{Batch, codec, keyspace},
};

pub(super) fn grant(
    leases: &LeaseTable,
    batch: &mut Batch,
    revision: i64,
    request: &LeaseGrantRequest,
) -> Result<LeaseGrantResponse, ApplyError> {
    let LeaseGrantRequest { id, ttl } = *request;
    if ttl > LEASE_TTL_SECONDS_MAX {
        return Err(ApplyError::LeaseTtlTooLarge);
    }
    // The proposer has picked an id; 0 means none wherever keys are attached.
    if id == 0 {
        return Err(ApplyError::LeaseNotFound);
    }
    if !leases.grant(id, ttl) {
        return Err(ApplyError::LeaseExists);
    }
    store(batch, LeaseFacts { id, ttl, remaining_ttl: 0 });
    Ok(LeaseGrantResponse { header: header(revision), id, ttl, error: String::new() })
}

pub(super) fn revoke(
    writer: &mut Writer,
    leases: &LeaseTable,
    batch: &mut Batch,
    events: &mut Vec<RevisionEvents>,
    request: &LeaseRevokeRequest,
) -> Result<LeaseRevokeResponse, ApplyError> {
    if !end(writer, leases, batch, events, request.id) {
        return Err(ApplyError::LeaseNotFound);
    }
    Ok(LeaseRevokeResponse { header: header(writer.revision()) })
}

/// Ends the leases that the leader of `term` saw expire, each at a revision of its own.
pub(super) fn expire(
    writer: &mut Writer,
    leases: &LeaseTable,
    batch: &mut Batch,
    events: &mut Vec<RevisionEvents>,
    request: &LeaseExpire,
    term: u64,
) -> Result<(), ApplyError> {
    if request.term != term {
        return Err(ApplyError::StaleTerm);
    }
    for &id in &request.ids {
        // One that was revoked meanwhile is as it should be.
        end(writer, leases, batch, events, id);
    }
    Ok(())
}

/// Notes what the leader of `term` knows to be left of some leases.
pub(super) fn checkpoint(
    leases: &LeaseTable,
    batch: &mut Batch,
    request: &LeaseCheckpoints,
    term: u64,
) -> Result<(), ApplyError> {
    if request.term != term {
        return Err(ApplyError::StaleTerm);
    }
    for checkpoint in &request.checkpoints {
        if let Some(facts) = leases.checkpoint(checkpoint.id, checkpoint.remaining_ttl) {
            store(batch, facts);
        }
    }
    Ok(())
}

/// Removes a lease with all its keys at one revision, in key order. False: there is none.
fn end(
    writer: &mut Writer,
    leases: &LeaseTable,
    batch: &mut Batch,
    events: &mut Vec<RevisionEvents>,
    id: i64,
) -> bool {
    let Some(keys) = leases.revoke(id) else { return false };
    let mut txn = writer.begin(batch);
    for key in keys {
        txn.delete(key);
    }
    events.extend(txn.finish());
    batch.delete(keyspace::lease(id));
    true
}

fn store(batch: &mut Batch, LeaseFacts { id, ttl, remaining_ttl }: LeaseFacts) {
    batch.put(keyspace::lease(id), codec::encode(&record::Lease { id, ttl, remaining_ttl }));
}
