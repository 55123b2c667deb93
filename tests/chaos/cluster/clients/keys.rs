//! A client of keys: puts, deletions, transactions, and reads of all kinds.

use bytes::Bytes;
use etcfs_proto::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, TxnRequest,
    compare::{CompareResult, CompareTarget, TargetUnion},
};
use etcfs_tests::{
    api::{Op, txn},
    judge::{Operation, Outcome},
};
use rand::RngExt as _;

use super::session::Session;

/// Keys that all clients of this kind share.
const KEYS: u32 = 24;
/// How far back a read of an old revision goes: at times below the compaction.
const BACK: i64 = 400;

/// Works until it is told to stop; returns all it saw.
pub(crate) async fn work(mut session: Session) -> Vec<Operation> {
    session.move_on();
    while !session.shared.stopped() {
        match session.random.random_range(0..100) {
            0..30 => put(&mut session).await,
            30..38 => delete(&mut session).await,
            38..52 => increment(&mut session).await,
            52..62 => exchange(&mut session).await,
            62..74 => read(&mut session).await,
            74..84 => read_serializable(&mut session).await,
            84..94 => read_old(&mut session).await,
            _ => read_two(&mut session).await,
        }
    }
    session.into_operations()
}

fn key(session: &mut Session) -> Bytes {
    format!("kv/{:02}", session.random.random_range(0..KEYS)).into()
}

/// One key, a few neighbours or all of them; at times with a limit or without values.
fn range(session: &mut Session) -> RangeRequest {
    let key = key(session);
    let range_end = match session.random.random_range(0..4) {
        0 => Bytes::from_static(b"kv0"),
        1 => Bytes::from_static(b"kv/10"),
        _ => Bytes::new(),
    };
    RangeRequest {
        key,
        range_end,
        limit: if session.random.random_ratio(1, 5) { session.random.random_range(1..6) } else { 0 },
        keys_only: session.random.random_ratio(1, 10),
        count_only: session.random.random_ratio(1, 10),
        ..Default::default()
    }
}

fn put_of(session: &mut Session, key: Bytes) -> PutRequest {
    let prev_kv = session.random.random_ratio(1, 3);
    PutRequest { key, value: session.value(), prev_kv, ..Default::default() }
}

async fn put(session: &mut Session) {
    let key = key(session);
    let request = put_of(session, key);
    session.put(request).await;
}

async fn delete(session: &mut Session) {
    let (key, prev_kv) = (key(session), session.random.random_ratio(1, 3));
    session.delete(DeleteRangeRequest { key, prev_kv, ..Default::default() }).await;
}

fn compare(key: &Bytes, result: CompareResult, target: CompareTarget, union: TargetUnion) -> Compare {
    let (result, target) = (result.into(), target.into());
    Compare { key: key.clone(), result, target, target_union: Some(union), ..Default::default() }
}

/// Reads a key and changes it if nobody else did meanwhile.
async fn increment(session: &mut Session) {
    let key = key(session);
    let get = RangeRequest { key: key.clone(), ..Default::default() };
    let Outcome::Answered(found) = session.range(get.clone()).await else { return };
    let unchanged = match found.kvs.first() {
        Some(kv) => {
            let (kind, revision) = (CompareTarget::Mod, TargetUnion::ModRevision(kv.mod_revision));
            compare(&key, CompareResult::Equal, kind, revision)
        }
        None => compare(&key, CompareResult::Equal, CompareTarget::Version, TargetUnion::Version(0)),
    };
    let put = put_of(session, key);
    let request = TxnRequest {
        compare: vec![unchanged],
        success: vec![Op::Put(put).into(), Op::Range(get.clone()).into()],
        failure: vec![Op::Range(get).into()],
    };
    session.txn(request).await;
}

/// Deletes several keys and notes it under another, or puts two; nested, with a read among them.
async fn exchange(session: &mut Session) {
    let (key, other) = (key(session), Bytes::from(format!("mark/{}", session.name())));
    let value = session.value();
    let there = compare(&key, CompareResult::Greater, CompareTarget::Create, TargetUnion::CreateRevision(0));
    let mark = PutRequest { key: other.clone(), value: value.clone(), ..Default::default() };
    let put = PutRequest { key: key.clone(), value, ..Default::default() };
    let delete =
        DeleteRangeRequest { key: key.clone(), range_end: Bytes::from_static(b"kv/12"), prev_kv: true };
    let all = RangeRequest { key, range_end: Bytes::from_static(b"kv0"), ..Default::default() };
    let inner = TxnRequest { compare: vec![there.clone()], ..txn([Op::Delete(delete), Op::Range(all)]) };
    let request = TxnRequest {
        compare: vec![there],
        success: vec![Op::Put(mark.clone()).into(), Op::Txn(inner).into()],
        failure: vec![Op::Put(put).into(), Op::Put(mark).into()],
    };
    session.txn(request).await;
}

async fn read(session: &mut Session) {
    let request = range(session);
    session.range(request).await;
}

async fn read_serializable(session: &mut Session) {
    let request = RangeRequest { serializable: true, ..range(session) };
    session.range(request).await;
}

async fn read_old(session: &mut Session) {
    let newest = session.shared.recorded.load(std::sync::atomic::Ordering::Relaxed);
    let revision = newest - session.random.random_range(0..BACK);
    let serializable = session.random.random_ratio(1, 4);
    let request = RangeRequest { revision: revision.max(1), serializable, ..range(session) };
    session.range(request).await;
}

/// Two reads in one transaction see one state.
async fn read_two(session: &mut Session) {
    let request = txn([Op::Range(range(session)), Op::Range(range(session))]);
    session.txn(request).await;
}
