//! One field a line, `"Name" : value`: easy to pick with grep.

use std::io::{self, Write};

use etcfs_client::{BatchKind, WatchBatch};
use etcfs_proto::{
    etcdserverpb::{
        AlarmResponse, DeleteRangeResponse, HashKvResponse, LeaseGrantResponse, LeaseKeepAliveResponse,
        LeaseLeasesResponse, LeaseTimeToLiveResponse, Member, PutResponse, RangeResponse, ResponseHeader,
        StatusResponse, TxnResponse, response_op::Response,
    },
    mvccpb::{KeyValue, event::EventType},
};

use super::{Health, SnapshotHash, SnapshotStatus};
use crate::words::{self, quoted};

fn field(out: &mut impl Write, name: &str, value: impl std::fmt::Display) -> io::Result<()> {
    writeln!(out, "\"{name}\" : {value}")
}

pub(super) fn header(out: &mut impl Write, header: Option<&ResponseHeader>) -> io::Result<()> {
    let header = header.copied().unwrap_or_default();
    field(out, "ClusterID", header.cluster_id)?;
    field(out, "MemberID", header.member_id)?;
    field(out, "Revision", header.revision)?;
    field(out, "RaftTerm", header.raft_term)
}

fn pair(out: &mut impl Write, prefix: &str, kv: &KeyValue) -> io::Result<()> {
    field(out, &format!("{prefix}Key"), quoted(&kv.key))?;
    field(out, &format!("{prefix}CreateRevision"), kv.create_revision)?;
    field(out, &format!("{prefix}ModRevision"), kv.mod_revision)?;
    field(out, &format!("{prefix}Version"), kv.version)?;
    field(out, &format!("{prefix}Value"), quoted(&kv.value))?;
    field(out, &format!("{prefix}Lease"), kv.lease)
}

pub(super) fn put(out: &mut impl Write, answer: &PutResponse) -> io::Result<()> {
    header(out, answer.header.as_ref())?;
    answer.prev_kv.iter().try_for_each(|kv| pair(out, "Prev", kv))
}

pub(super) fn range(out: &mut impl Write, answer: &RangeResponse) -> io::Result<()> {
    header(out, answer.header.as_ref())?;
    answer.kvs.iter().try_for_each(|kv| pair(out, "", kv))?;
    field(out, "More", answer.more)?;
    field(out, "Count", answer.count)
}

pub(super) fn delete(out: &mut impl Write, answer: &DeleteRangeResponse) -> io::Result<()> {
    header(out, answer.header.as_ref())?;
    field(out, "Deleted", answer.deleted)?;
    answer.prev_kvs.iter().try_for_each(|kv| pair(out, "Prev", kv))
}

pub(super) fn txn(out: &mut impl Write, answer: &TxnResponse) -> io::Result<()> {
    header(out, answer.header.as_ref())?;
    field(out, "Succeeded", answer.succeeded)?;
    for op in &answer.responses {
        match &op.response {
            Some(Response::ResponseRange(answer)) => range(out, answer)?,
            Some(Response::ResponsePut(answer)) => put(out, answer)?,
            Some(Response::ResponseDeleteRange(answer)) => delete(out, answer)?,
            Some(Response::ResponseTxn(answer)) => txn(out, answer)?,
            None => {}
        }
    }
    Ok(())
}

pub(super) fn watch(out: &mut impl Write, batch: &WatchBatch) -> io::Result<()> {
    if matches!(batch.kind, BatchKind::Created { .. }) {
        return Ok(());
    }
    header(out, Some(&batch.header))?;
    for event in &batch.events {
        field(out, "Type", if event.r#type() == EventType::Put { "PUT" } else { "DELETE" })?;
        event.prev_kv.iter().try_for_each(|kv| pair(out, "Prev", kv))?;
        event.kv.iter().try_for_each(|kv| pair(out, "", kv))?;
    }
    Ok(())
}

pub(super) fn lease_grant(out: &mut impl Write, answer: &LeaseGrantResponse) -> io::Result<()> {
    header(out, answer.header.as_ref())?;
    field(out, "ID", answer.id)?;
    field(out, "TTL", answer.ttl)
}

pub(super) fn lease_keep_alive(out: &mut impl Write, answer: &LeaseKeepAliveResponse) -> io::Result<()> {
    header(out, answer.header.as_ref())?;
    field(out, "ID", answer.id)?;
    field(out, "TTL", answer.ttl)
}

pub(super) fn lease_time_to_live(out: &mut impl Write, answer: &LeaseTimeToLiveResponse) -> io::Result<()> {
    header(out, answer.header.as_ref())?;
    field(out, "ID", answer.id)?;
    field(out, "TTL", answer.ttl)?;
    field(out, "GrantedTTL", answer.granted_ttl)?;
    let mut keys: Vec<_> = answer.keys.iter().collect();
    keys.sort();
    keys.into_iter().try_for_each(|key| field(out, "Key", quoted(key)))
}

pub(super) fn leases(out: &mut impl Write, answer: &LeaseLeasesResponse) -> io::Result<()> {
    header(out, answer.header.as_ref())?;
    answer.leases.iter().try_for_each(|lease| field(out, "ID", lease.id))
}

pub(super) fn names(out: &mut impl Write, name: &str, names: &[String]) -> io::Result<()> {
    let names: Vec<_> = names.iter().map(|name| quoted(name.as_bytes())).collect();
    field(out, name, names.join(" "))
}

pub(super) fn alarms(out: &mut impl Write, answer: &AlarmResponse) -> io::Result<()> {
    header(out, answer.header.as_ref())?;
    answer.alarms.iter().try_for_each(|alarm| {
        field(out, "MemberID", alarm.member_id)?;
        field(out, "AlarmType", alarm.alarm().as_str_name())?;
        writeln!(out)
    })
}

pub(super) fn member(out: &mut impl Write, member: &Member) -> io::Result<()> {
    field(out, "ID", member.id)?;
    field(out, "Name", quoted(member.name.as_bytes()))?;
    member.peer_ur_ls.iter().try_for_each(|url| field(out, "PeerURL", quoted(url.as_bytes())))?;
    member.client_ur_ls.iter().try_for_each(|url| field(out, "ClientURL", quoted(url.as_bytes())))?;
    field(out, "IsLearner", member.is_learner)?;
    writeln!(out)
}

pub(super) fn endpoint_status(out: &mut impl Write, statuses: &[(String, StatusResponse)]) -> io::Result<()> {
    for (endpoint, status) in statuses {
        header(out, status.header.as_ref())?;
        field(out, "Version", quoted(status.version.as_bytes()))?;
        field(out, "StorageVersion", quoted(status.storage_version.as_bytes()))?;
        field(out, "DBSize", status.db_size)?;
        field(out, "DBSizeInUse", status.db_size_in_use)?;
        field(out, "DBSizeQuota", status.db_size_quota)?;
        field(out, "Leader", status.leader)?;
        field(out, "IsLearner", status.is_learner)?;
        field(out, "RaftIndex", status.raft_index)?;
        field(out, "RaftTerm", status.raft_term)?;
        field(out, "RaftAppliedIndex", status.raft_applied_index)?;
        let errors: Vec<_> = status.errors.iter().map(|error| quoted(error.as_bytes())).collect();
        field(out, "Errors", format_args!("[{}]", errors.join(" ")))?;
        field(out, "Endpoint", quoted(endpoint.as_bytes()))?;
        let downgrade = status.downgrade_info.clone().unwrap_or_default();
        field(out, "DowngradeTargetVersion", quoted(downgrade.target_version.as_bytes()))?;
        field(out, "DowngradeEnabled", downgrade.enabled)?;
        writeln!(out)?;
    }
    Ok(())
}

pub(super) fn snapshot_status(out: &mut impl Write, status: &SnapshotStatus) -> io::Result<()> {
    field(out, "Hash", status.hash)?;
    field(out, "Revision", status.revision)?;
    field(out, "Keys", status.rows)?;
    field(out, "Size", status.bytes)?;
    field(out, "Version", &status.version)
}

pub(super) fn snapshot_hash(out: &mut impl Write, hash: &SnapshotHash) -> io::Result<()> {
    field(out, "Hash", hash.hash)?;
    field(out, "Hash revision", hash.revision)?;
    field(out, "Compact revision", hash.compact_revision)
}

pub(super) fn endpoint_health(out: &mut impl Write, healths: &[Health]) -> io::Result<()> {
    for Health { endpoint, took, error } in healths {
        field(out, "Endpoint", quoted(endpoint.as_bytes()))?;
        field(out, "Health", error.is_none())?;
        field(out, "Took", words::duration(*took))?;
        field(out, "Error", error.as_deref().unwrap_or(""))?;
        writeln!(out)?;
    }
    Ok(())
}

pub(super) fn endpoint_hash(out: &mut impl Write, hashes: &[(String, HashKvResponse)]) -> io::Result<()> {
    for (endpoint, hash) in hashes {
        header(out, hash.header.as_ref())?;
        field(out, "Endpoint", quoted(endpoint.as_bytes()))?;
        field(out, "Hash", hash.hash)?;
        field(out, "HashRevision", hash.hash_revision)?;
        writeln!(out)?;
    }
    Ok(())
}
