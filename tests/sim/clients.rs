//! What is asked of a member while it lives, by callers in its own process.
//!
//! They go where the gRPC door would lead them: to the services. A caller dies
//! with its member, so it never learns what became of its last call.

use std::{future::Future, time::Duration};

use bytes::Bytes;
use etcfs_proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, Compare, DeleteRangeRequest, DeleteRangeResponse,
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseRevokeRequest,
    LeaseRevokeResponse, PutRequest, PutResponse, RangeRequest, RangeResponse, TxnRequest, TxnResponse,
    compare::{CompareResult, CompareTarget, TargetUnion},
};
use etcfs_server::service::{Caller, Kv, Lease, Refusal as Refused};
use etcfs_tests::{
    api::Op,
    judge::{Call, Outcome, Refusal},
};
use tokio::time;

use crate::run::Run;

/// Keys that all callers share.
const KEYS: u32 = 8;
/// Where keys on leases lie.
pub(crate) const LEASE_PREFIX: &str = "lease/";
/// The longest time to live that is asked for, in seconds.
pub(crate) const TTL_MAX: i64 = 2;
/// How far back a read of an old revision goes: at times below the compaction.
const BACK: i64 = 60;
/// Revisions that a compaction leaves, at most.
const BEHIND: i64 = 40;

/// One caller of one member.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) run: Run,
    pub(crate) member: usize,
    pub(crate) kv: Kv,
    pub(crate) lease: Lease,
}

macro_rules! calls {
    ($($name:ident($request:ty) -> $response:ty = $service:ident . $method:ident as $call:ident;)*) => {
        impl Client {
            $(pub(crate) async fn $name(&self, request: $request) -> Outcome<$response> {
                let asked = self.run.asks(self.member, Call::$call(request.clone(), Outcome::Lost));
                let outcome = outcome(self.$service.$method(request.clone(), &Caller::Nobody)).await;
                asked.answered(Call::$call(request, outcome.clone()));
                outcome
            })*
        }
    };
}

calls! {
    put(PutRequest) -> PutResponse = kv.put as Put;
    delete(DeleteRangeRequest) -> DeleteRangeResponse = kv.delete_range as Delete;
    range(RangeRequest) -> RangeResponse = kv.range as Range;
    txn(TxnRequest) -> TxnResponse = kv.txn as Txn;
    compact(CompactionRequest) -> CompactionResponse = kv.compact as Compact;
    grant(LeaseGrantRequest) -> LeaseGrantResponse = lease.grant as Grant;
    keep_alive(LeaseKeepAliveRequest) -> LeaseKeepAliveResponse = lease.keep_alive as KeepAlive;
    revoke(LeaseRevokeRequest) -> LeaseRevokeResponse = lease.revoke as Revoke;
}

async fn outcome<T>(call: impl Future<Output = Result<T, Refused>>) -> Outcome<T> {
    match call.await {
        Ok(answer) => Outcome::Answered(answer),
        Err(Refused::Compacted) => Outcome::Refused(Refusal::Compacted),
        Err(Refused::FutureRevision) => Outcome::Refused(Refusal::Future),
        Err(Refused::LeaseNotFound) => Outcome::Refused(Refusal::NoLease),
        Err(Refused::TooManyRequests | Refused::LeaseExists) => Outcome::Refused(Refusal::Other),
        // Whatever else it says, it may have happened.
        Err(_) => Outcome::Lost,
    }
}

/// Does now this and now that, until all are to be quiet.
pub(crate) async fn keys(client: Client) {
    while !client.run.is_quiet() {
        pause(60).await;
        match rand::random_range(0..100) {
            0..36 => {
                client.put(put_of(key(), client.value())).await;
            }
            36..44 => {
                let prev_kv = rand::random();
                client.delete(DeleteRangeRequest { key: key(), prev_kv, ..Default::default() }).await;
            }
            44..60 => client.exchange().await,
            60..80 => {
                client.range(range()).await;
            }
            80..88 => {
                client.range(RangeRequest { serializable: true, ..range() }).await;
            }
            88..96 => {
                let revision = (client.run.seen() - rand::random_range(0..BACK)).max(1);
                client.range(RangeRequest { revision, ..range() }).await;
            }
            _ => client.forget().await,
        }
    }
}

/// Grants leases, hangs keys on them, and renews them more or less in time.
pub(crate) async fn leases(client: Client) {
    while !client.run.is_quiet() {
        pause(100).await;
        // Nobody waits for the end of a lease that begins when all is quiet.
        if client.run.is_quiet() {
            return;
        }
        let (ttl, id) = (rand::random_range(1..=TTL_MAX), rand::random_range(1..i64::MAX));
        let Outcome::Answered(granted) = client.grant(LeaseGrantRequest { ttl, id }).await else { continue };
        let ttl_ms = 1000 * granted.ttl.unsigned_abs();
        client.put_on(id).await;
        for _ in 0..rand::random_range(0..5) {
            time::sleep(Duration::from_millis(rand::random_range(ttl_ms / 10..ttl_ms * 11 / 10))).await;
            if client.run.is_quiet() {
                return;
            }
            let renewed = client.keep_alive(LeaseKeepAliveRequest { id }).await;
            if renewed.answer().is_some_and(|answer| answer.ttl <= 0) {
                break;
            }
            if rand::random() {
                client.put_on(id).await;
            }
        }
        if rand::random_ratio(1, 4) {
            client.revoke(LeaseRevokeRequest { id }).await;
        }
    }
}

impl Client {
    /// One that nobody else puts.
    pub(crate) fn value(&self) -> Bytes {
        let length = if rand::random_ratio(1, 30) { 3000 } else { rand::random_range(0..60) };
        format!("{} {}", self.run.number(), ".".repeat(length)).into()
    }

    async fn put_on(&self, lease: i64) {
        let key = format!("{LEASE_PREFIX}{}/{}", self.member, rand::random_range(0..3));
        self.put(PutRequest { lease, ..put_of(key.into(), self.value()) }).await;
    }

    /// Changes a key only as it was read.
    async fn exchange(&self) {
        let key = key();
        let get = RangeRequest { key: key.clone(), ..Default::default() };
        let Outcome::Answered(found) = self.range(get.clone()).await else { return };
        let revision = found.kvs.first().map_or(0, |kv| kv.mod_revision);
        let unchanged = Compare {
            key: key.clone(),
            result: CompareResult::Equal.into(),
            target: CompareTarget::Mod.into(),
            target_union: Some(TargetUnion::ModRevision(revision)),
            ..Default::default()
        };
        let put = put_of(key, self.value());
        let request = TxnRequest {
            compare: vec![unchanged],
            success: vec![Op::Put(put).into(), Op::Range(get.clone()).into()],
            failure: vec![Op::Range(get).into()],
        };
        self.txn(request).await;
    }

    /// Compacts, not much behind what was seen.
    async fn forget(&self) {
        let revision = self.run.seen() - rand::random_range(0..BEHIND);
        if revision <= self.run.compacted() {
            return;
        }
        if let Outcome::Answered(_) = self.compact(CompactionRequest { revision, physical: false }).await {
            self.run.note_compacted(revision);
        }
    }
}

fn key() -> Bytes {
    format!("kv/{}", rand::random_range(0..KEYS)).into()
}

fn put_of(key: Bytes, value: Bytes) -> PutRequest {
    PutRequest { key, value, prev_kv: rand::random_ratio(1, 3), ..Default::default() }
}

/// One key or all of them.
fn range() -> RangeRequest {
    let range_end = if rand::random_ratio(1, 3) { Bytes::from_static(b"kv0") } else { Bytes::new() };
    // With a limit, so that it is read at once: here is no second thread to read it on.
    RangeRequest { key: key(), range_end, limit: 100, ..Default::default() }
}

async fn pause(max_ms: u64) {
    time::sleep(Duration::from_millis(rand::random_range(0..max_ms))).await;
}
