//! The plain format: what a person or a shell script wants first.

use std::io::{self, Write};

use etcfs_client::{BatchKind, WatchBatch};
use etcfs_proto::{
    etcdserverpb::{
        AlarmResponse, DeleteRangeResponse, HashKvResponse, LeaseLeasesResponse, LeaseTimeToLiveResponse,
        PutResponse, RangeResponse, StatusResponse, TxnResponse, response_op::Response,
    },
    mvccpb::{KeyValue, event::EventType},
};

use super::{Health, Output, SnapshotHash, SnapshotStatus, table};
use crate::words;

fn line(out: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    out.write_all(bytes)?;
    out.write_all(b"\n")
}

fn pair(out: &mut impl Write, output: Output, kv: &KeyValue, values_only: bool) -> io::Result<()> {
    if !values_only {
        line(out, &output.key(&kv.key))?;
    }
    line(out, &output.value(&kv.value))
}

pub(super) fn put(out: &mut impl Write, output: Output, answer: &PutResponse) -> io::Result<()> {
    writeln!(out, "OK")?;
    answer.prev_kv.iter().try_for_each(|kv| pair(out, output, kv, false))
}

pub(super) fn range(
    out: &mut impl Write,
    output: Output,
    answer: &RangeResponse,
    values_only: bool,
) -> io::Result<()> {
    answer.kvs.iter().try_for_each(|kv| pair(out, output, kv, values_only))
}

pub(super) fn delete(out: &mut impl Write, output: Output, answer: &DeleteRangeResponse) -> io::Result<()> {
    writeln!(out, "{}", answer.deleted)?;
    answer.prev_kvs.iter().try_for_each(|kv| pair(out, output, kv, false))
}

pub(super) fn txn(out: &mut impl Write, output: Output, answer: &TxnResponse) -> io::Result<()> {
    writeln!(out, "{}", if answer.succeeded { "SUCCESS" } else { "FAILURE" })?;
    for op in &answer.responses {
        writeln!(out)?;
        match &op.response {
            Some(Response::ResponseRange(answer)) => range(out, output, answer, false)?,
            Some(Response::ResponsePut(answer)) => put(out, output, answer)?,
            Some(Response::ResponseDeleteRange(answer)) => delete(out, output, answer)?,
            Some(Response::ResponseTxn(answer)) => txn(out, output, answer)?,
            None => {}
        }
    }
    Ok(())
}

pub(super) fn watch(out: &mut impl Write, output: Output, batch: &WatchBatch) -> io::Result<()> {
    match batch.kind {
        BatchKind::Created { .. } => {}
        BatchKind::Progress | BatchKind::ProgressAnswer => {
            writeln!(out, "progress notify: {}", batch.revision)?;
        }
        BatchKind::Events => {
            for event in &batch.events {
                let name = if event.r#type() == EventType::Put { "PUT" } else { "DELETE" };
                writeln!(out, "{name}")?;
                for kv in event.prev_kv.iter().chain(&event.kv) {
                    pair(out, output, kv, false)?;
                }
            }
        }
    }
    Ok(())
}

pub(super) fn lease_time_to_live(
    out: &mut impl Write,
    output: Output,
    answer: &LeaseTimeToLiveResponse,
    keys: bool,
) -> io::Result<()> {
    if answer.granted_ttl == 0 && answer.ttl == -1 {
        return writeln!(out, "lease {:016x} already expired", answer.id);
    }
    write!(
        out,
        "lease {:016x} granted with TTL({}s), remaining({}s)",
        answer.id, answer.granted_ttl, answer.ttl
    )?;
    if keys {
        let mut names: Vec<_> = answer.keys.iter().map(|key| output.key(key)).collect();
        names.sort();
        write!(out, ", attached keys([")?;
        out.write_all(&names.join(&b' '))?;
        write!(out, "])")?;
    }
    writeln!(out)
}

pub(super) fn leases(out: &mut impl Write, answer: &LeaseLeasesResponse) -> io::Result<()> {
    writeln!(out, "found {} leases", answer.leases.len())?;
    answer.leases.iter().try_for_each(|lease| writeln!(out, "{:016x}", lease.id))
}

/// As Go prints such a message, blank at the end and all.
pub(super) fn alarms(out: &mut impl Write, answer: &AlarmResponse) -> io::Result<()> {
    answer.alarms.iter().try_for_each(|alarm| {
        writeln!(out, "memberID:{} alarm:{} ", alarm.member_id, alarm.alarm().as_str_name())
    })
}

pub(super) fn endpoint_status(out: &mut impl Write, statuses: &[(String, StatusResponse)]) -> io::Result<()> {
    table::status_rows(statuses).iter().try_for_each(|row| writeln!(out, "{}", row.join(", ")))
}

pub(super) fn snapshot_status(out: &mut impl Write, status: &SnapshotStatus) -> io::Result<()> {
    writeln!(out, "{}", table::snapshot_row(status).join(", "))
}

pub(super) fn snapshot_hash(out: &mut impl Write, hash: &SnapshotHash) -> io::Result<()> {
    writeln!(out, "{}", table::hash_row(hash).join(", "))
}

pub(super) fn endpoint_health(out: &mut impl Write, healths: &[Health]) -> io::Result<()> {
    for Health { endpoint, took, error } in healths {
        match error {
            None => writeln!(
                out,
                "{endpoint} is healthy: successfully committed proposal: took = {}",
                words::duration(*took)
            )?,
            Some(error) => anstream::eprintln!("{endpoint} is unhealthy: failed to commit proposal: {error}"),
        }
    }
    Ok(())
}

pub(super) fn endpoint_hash(out: &mut impl Write, hashes: &[(String, HashKvResponse)]) -> io::Result<()> {
    table::hash_rows(hashes).iter().try_for_each(|row| writeln!(out, "{}", row.join(", ")))
}
