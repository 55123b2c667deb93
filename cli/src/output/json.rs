//! JSON as etcdctl writes it, an answer a line: the protocol's names, zero
//! values left out, bytes in base64, 64-bit numbers as numbers. Watches and
//! some others have names of their own, as there.

use std::io::{self, Write};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use etcfs_client::{BatchKind, WatchBatch};
use etcfs_proto::{
    authpb::Permission,
    etcdserverpb::{
        AlarmMember, AlarmResponse, DeleteRangeResponse, HashKvResponse, LeaseGrantResponse,
        LeaseKeepAliveResponse, LeaseLeasesResponse, LeaseRevokeResponse, LeaseTimeToLiveResponse, Member,
        PutResponse, RangeResponse, ResponseHeader, StatusResponse, TxnResponse, response_op::Response,
    },
    mvccpb::{Event, KeyValue},
};
use serde_json::{Map, Value, json};

use super::{Health, SnapshotHash, SnapshotStatus};
use crate::words;

pub(super) fn line(out: &mut impl Write, value: &Value) -> io::Result<()> {
    writeln!(out, "{value}")
}

/// An object in the making: fields stay in order, empty ones are left out.
#[derive(Default)]
pub(super) struct Object(Map<String, Value>);

impl Object {
    /// A field that is there even if it is zero.
    pub(super) fn always(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.insert(name.to_owned(), value.into());
        self
    }

    pub(super) fn with(self, name: &str, value: impl Into<Value>) -> Self {
        let value = value.into();
        let empty = match &value {
            Value::Null => true,
            Value::Bool(set) => !set,
            Value::Number(number) => number.as_i64() == Some(0),
            Value::String(text) => text.is_empty(),
            Value::Array(items) => items.is_empty(),
            Value::Object(_) => false,
        };
        if empty { self } else { self.always(name, value) }
    }

    fn merge(mut self, other: Value) -> Self {
        if let Value::Object(fields) = other {
            self.0.extend(fields);
        }
        self
    }

    pub(super) fn done(self) -> Value {
        Value::Object(self.0)
    }
}

fn bytes(bytes: &[u8]) -> String {
    BASE64_STANDARD.encode(bytes)
}

fn header(header: &ResponseHeader) -> Value {
    Object::default()
        .with("cluster_id", header.cluster_id)
        .with("member_id", header.member_id)
        .with("revision", header.revision)
        .with("raft_term", header.raft_term)
        .done()
}

fn some_header(given: Option<&ResponseHeader>) -> Value {
    given.map_or(Value::Null, header)
}

/// An answer in the making, with its header.
pub(super) fn headed(given: Option<&ResponseHeader>) -> Object {
    Object::default().with("header", some_header(given))
}

fn pair(kv: &KeyValue) -> Value {
    Object::default()
        .with("key", bytes(&kv.key))
        .with("create_revision", kv.create_revision)
        .with("mod_revision", kv.mod_revision)
        .with("version", kv.version)
        .with("value", bytes(&kv.value))
        .with("lease", kv.lease)
        .done()
}

fn pairs(kvs: &[KeyValue]) -> Value {
    kvs.iter().map(pair).collect()
}

pub(super) fn put(answer: &PutResponse) -> Value {
    headed(answer.header.as_ref()).with("prev_kv", answer.prev_kv.as_ref().map_or(Value::Null, pair)).done()
}

pub(super) fn range(answer: &RangeResponse) -> Value {
    headed(answer.header.as_ref())
        .with("kvs", pairs(&answer.kvs))
        .with("more", answer.more)
        .with("count", answer.count)
        .done()
}

pub(super) fn delete(answer: &DeleteRangeResponse) -> Value {
    headed(answer.header.as_ref())
        .with("deleted", answer.deleted)
        .with("prev_kvs", pairs(&answer.prev_kvs))
        .done()
}

pub(super) fn txn(answer: &TxnResponse) -> Value {
    let op = |response: &Option<Response>| match response {
        Some(Response::ResponseRange(answer)) => json!({ "ResponseRange": range(answer) }),
        Some(Response::ResponsePut(answer)) => json!({ "ResponsePut": put(answer) }),
        Some(Response::ResponseDeleteRange(answer)) => json!({ "ResponseDeleteRange": delete(answer) }),
        Some(Response::ResponseTxn(answer)) => json!({ "ResponseTxn": txn(answer) }),
        None => Value::Null,
    };
    let responses: Value = answer.responses.iter().map(|r| json!({ "Response": op(&r.response) })).collect();
    headed(answer.header.as_ref()).with("succeeded", answer.succeeded).with("responses", responses).done()
}

fn event(event: &Event) -> Value {
    Object::default()
        .with("type", event.r#type)
        .with("kv", event.kv.as_ref().map_or(Value::Null, pair))
        .with("prev_kv", event.prev_kv.as_ref().map_or(Value::Null, pair))
        .done()
}

fn watch_answer(head: Value, events: Value, compact_revision: i64, canceled: bool, created: bool) -> Value {
    Object::default()
        .always("Header", head)
        .always("Events", events)
        .always("CompactRevision", compact_revision)
        .always("Canceled", canceled)
        .always("Created", created)
        .done()
}

pub(super) fn watch(batch: &WatchBatch) -> Value {
    let created = matches!(batch.kind, BatchKind::Created { .. });
    watch_answer(header(&batch.header), batch.events.iter().map(event).collect(), 0, false, created)
}

pub(super) fn watch_compacted(revision: i64) -> Value {
    watch_answer(json!({}), json!([]), revision, true, false)
}

fn flat(head: Option<&ResponseHeader>) -> Object {
    Object::default().merge(some_header(head))
}

pub(super) fn lease_grant(answer: &LeaseGrantResponse) -> Value {
    flat(answer.header.as_ref())
        .always("ID", answer.id)
        .always("TTL", answer.ttl)
        .always("Error", answer.error.clone())
        .done()
}

pub(super) fn lease_revoke(answer: &LeaseRevokeResponse) -> Value {
    headed(answer.header.as_ref()).done()
}

pub(super) fn lease_keep_alive(answer: &LeaseKeepAliveResponse) -> Value {
    flat(answer.header.as_ref()).always("ID", answer.id).always("TTL", answer.ttl).done()
}

pub(super) fn lease_time_to_live(answer: &LeaseTimeToLiveResponse) -> Value {
    let keys: Value = match answer.keys.as_slice() {
        [] => Value::Null,
        keys => keys.iter().map(|key| bytes(key)).collect(),
    };
    flat(answer.header.as_ref())
        .always("id", answer.id)
        .always("ttl", answer.ttl)
        .always("granted-ttl", answer.granted_ttl)
        .always("keys", keys)
        .done()
}

pub(super) fn leases(answer: &LeaseLeasesResponse) -> Value {
    let leases: Value = answer.leases.iter().map(|lease| json!({ "id": lease.id })).collect();
    flat(answer.header.as_ref()).always("leases", leases).done()
}

pub(super) fn alarms(answer: &AlarmResponse) -> Value {
    let alarm = |alarm: &AlarmMember| {
        Object::default().with("memberID", alarm.member_id).with("alarm", alarm.alarm).done()
    };
    headed(answer.header.as_ref()).with("alarms", answer.alarms.iter().map(alarm).collect::<Value>()).done()
}

pub(super) fn permission(permission: &Permission) -> Value {
    Object::default()
        .with("permType", permission.perm_type)
        .with("key", bytes(&permission.key))
        .with("range_end", bytes(&permission.range_end))
        .done()
}

pub(super) fn member(member: &Member) -> Value {
    Object::default()
        .with("ID", member.id)
        .with("name", member.name.clone())
        .with("peerURLs", member.peer_ur_ls.clone())
        .with("clientURLs", member.client_ur_ls.clone())
        .with("isLearner", member.is_learner)
        .done()
}

pub(super) fn endpoint_status(statuses: &[(String, StatusResponse)]) -> Value {
    let status = |status: &StatusResponse| {
        let downgrade = status.downgrade_info.as_ref().map_or(Value::Null, |info| {
            Object::default()
                .with("enabled", info.enabled)
                .with("targetVersion", info.target_version.clone())
                .done()
        });
        Object::default()
            .with("header", some_header(status.header.as_ref()))
            .with("version", status.version.clone())
            .with("dbSize", status.db_size)
            .with("leader", status.leader)
            .with("raftIndex", status.raft_index)
            .with("raftTerm", status.raft_term)
            .with("raftAppliedIndex", status.raft_applied_index)
            .with("errors", status.errors.clone())
            .with("dbSizeInUse", status.db_size_in_use)
            .with("isLearner", status.is_learner)
            .with("storageVersion", status.storage_version.clone())
            .with("dbSizeQuota", status.db_size_quota)
            .with("downgradeInfo", downgrade)
            .done()
    };
    statuses.iter().map(|(endpoint, answer)| json_pair(endpoint, "Status", status(answer))).collect()
}

fn json_pair(endpoint: &str, name: &str, value: Value) -> Value {
    Object::default().always("Endpoint", endpoint).always(name, value).done()
}

pub(super) fn snapshot_status(status: &SnapshotStatus) -> Value {
    Object::default()
        .with("hash", status.hash)
        .with("revision", status.revision)
        .with("totalKey", status.rows)
        .with("totalSize", status.bytes)
        .with("version", status.version.clone())
        .done()
}

pub(super) fn snapshot_hash(hash: &SnapshotHash) -> Value {
    Object::default()
        .always("hash", hash.hash)
        .always("hashRevision", hash.revision)
        .always("compactRevision", hash.compact_revision)
        .done()
}

pub(super) fn endpoint_health(healths: &[Health]) -> Value {
    let health = |health: &Health| {
        Object::default()
            .always("endpoint", health.endpoint.clone())
            .always("health", health.error.is_none())
            .always("took", words::duration(health.took))
            .with("error", health.error.clone().unwrap_or_default())
            .done()
    };
    healths.iter().map(health).collect()
}

pub(super) fn endpoint_hash(hashes: &[(String, HashKvResponse)]) -> Value {
    let hash = |answer: &HashKvResponse| {
        Object::default()
            .with("header", some_header(answer.header.as_ref()))
            .with("hash", answer.hash)
            .with("compact_revision", answer.compact_revision)
            .with("hash_revision", answer.hash_revision)
            .done()
    };
    hashes.iter().map(|(endpoint, answer)| json_pair(endpoint, "HashKV", hash(answer))).collect()
}
