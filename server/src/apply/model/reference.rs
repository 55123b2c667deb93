//! etcd's rules in the plainest way: the whole key space once for each revision.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use etcfs_proto::{
    etcdserverpb::{
        CompactionResponse, Compare, DeleteRangeRequest, DeleteRangeResponse, LeaseGrantResponse,
        LeaseRevokeResponse, PutRequest, PutResponse, RangeRequest, RangeResponse, RequestOp, ResponseHeader,
        ResponseOp, TxnRequest, TxnResponse,
        compare::{CompareResult, CompareTarget, TargetUnion},
        range_request::{SortOrder, SortTarget},
        request_op::Request,
        response_op,
    },
    etcfs::command::request::Body,
    key::KeyRange,
    mvccpb::KeyValue,
};

use crate::{
    apply::Response,
    mvcc::{EventKind, RevisionEvents, Store},
};

pub(super) type Outcome<T> = Result<T, String>;
type Keys = BTreeMap<Bytes, KeyValue>;

const COMPACTED: &str = "mvcc: required revision has been compacted";
const FUTURE: &str = "mvcc: required revision is a future revision";

pub(super) struct Reference {
    /// By revision, from 0 on; the store begins at 1.
    states: Vec<Keys>,
    /// Changes of each revision in order; `None` deletes.
    changes: Vec<Vec<(Bytes, Option<KeyValue>)>>,
    pub(super) compacted: i64,
    /// What is noted to be left of each.
    pub(super) leases: BTreeMap<i64, i64>,
}

impl Default for Reference {
    fn default() -> Self {
        let (states, changes) = (vec![Keys::new(); 2], vec![Vec::new(); 2]);
        Self { states, changes, compacted: -1, leases: BTreeMap::new() }
    }
}

/// A transaction on its way: the state that its operations see.
struct Work {
    keys: Keys,
    changes: Vec<(Bytes, Option<KeyValue>)>,
    base: i64,
}

impl Work {
    fn revision(&self) -> i64 {
        self.base + i64::from(!self.changes.is_empty())
    }
}

fn header(revision: i64) -> Option<ResponseHeader> {
    Some(ResponseHeader { revision, ..ResponseHeader::default() })
}

impl Reference {
    pub(super) fn current(&self) -> i64 {
        self.states.len() as i64 - 1
    }

    pub(super) fn now(&self) -> &Keys {
        self.states.last().unwrap()
    }

    pub(super) fn attached(&self, lease: i64) -> Option<Vec<Bytes>> {
        let keys = || self.now().values().filter(|kv| kv.lease == lease).map(|kv| kv.key.clone()).collect();
        self.leases.contains_key(&lease).then(keys)
    }

    fn work(&self) -> Work {
        Work { keys: self.now().clone(), changes: Vec::new(), base: self.current() }
    }

    fn commit(&mut self, work: Work) {
        if !work.changes.is_empty() {
            self.states.push(work.keys);
            self.changes.push(work.changes);
        }
    }

    pub(super) fn apply(&mut self, body: &Body, term: u64) -> Outcome<Response> {
        let mut work = self.work();
        let response = match body {
            Body::Put(put) => {
                self.check_put(put)?;
                Response::Put(do_put(&mut work, put))
            }
            Body::DeleteRange(delete) => Response::DeleteRange(do_delete(&mut work, delete)),
            Body::Txn(txn) => {
                self.check_txn(txn)?;
                let mut response = self.do_txn(&mut work, txn);
                response.header = header(work.revision());
                Response::Txn(response)
            }
            Body::Compaction(request) => {
                if request.revision <= self.compacted {
                    return Err(COMPACTED.into());
                }
                if request.revision > self.current() {
                    return Err(FUTURE.into());
                }
                self.compacted = request.revision;
                Response::Compaction(CompactionResponse { header: header(self.current()) })
            }
            Body::LeaseGrant(request) => {
                if self.leases.contains_key(&request.id) {
                    return Err("lease already exists".into());
                }
                self.leases.insert(request.id, 0);
                Response::LeaseGrant(LeaseGrantResponse {
                    header: header(self.current()),
                    id: request.id,
                    ttl: request.ttl,
                    error: String::new(),
                })
            }
            Body::LeaseRevoke(request) => {
                if !self.end_lease(request.id) {
                    return Err("requested lease not found".into());
                }
                return Ok(Response::LeaseRevoke(LeaseRevokeResponse { header: header(self.current()) }));
            }
            Body::LeaseExpire(request) => {
                if request.term != term {
                    return Err("decided in another term".into());
                }
                for &id in &request.ids {
                    self.end_lease(id);
                }
                return Ok(Response::Done);
            }
            Body::LeaseCheckpoint(request) => {
                if request.term != term {
                    return Err("decided in another term".into());
                }
                for checkpoint in &request.checkpoints {
                    if let Some(left) = self.leases.get_mut(&checkpoint.id) {
                        *left = checkpoint.remaining_ttl;
                    }
                }
                return Ok(Response::Done);
            }
            other => panic!("not modelled: {other:?}"),
        };
        self.commit(work);
        Ok(response)
    }

    fn end_lease(&mut self, id: i64) -> bool {
        let Some(keys) = self.attached(id) else { return false };
        let mut work = self.work();
        for key in keys {
            work.keys.remove(&key);
            work.changes.push((key, None));
        }
        self.commit(work);
        self.leases.remove(&id).is_some()
    }

    fn check_put(&self, put: &PutRequest) -> Outcome<()> {
        if put.lease != 0 && !self.leases.contains_key(&put.lease) {
            return Err("requested lease not found".into());
        }
        if (put.ignore_value || put.ignore_lease) && !self.now().contains_key(&put.key) {
            return Err("key not found".into());
        }
        Ok(())
    }

    fn holds(&self, compare: &Compare) -> bool {
        let range = KeyRange::from_request(&compare.key, &compare.range_end);
        let pairs: Vec<_> = self.now().values().filter(|kv| range.contains(&kv.key)).collect();
        if pairs.is_empty() {
            return compare.target() != CompareTarget::Value && pair_holds(compare, &KeyValue::default());
        }
        pairs.into_iter().all(|kv| pair_holds(compare, kv))
    }

    fn branch<'a>(&self, txn: &'a TxnRequest) -> (bool, &'a [RequestOp]) {
        let succeeded = txn.compare.iter().all(|compare| self.holds(compare));
        (succeeded, if succeeded { &txn.success } else { &txn.failure })
    }

    fn check_txn(&self, txn: &TxnRequest) -> Outcome<()> {
        let (_, ops) = self.branch(txn);
        for op in ops {
            match op.request.as_ref().unwrap() {
                Request::RequestPut(put) => self.check_put(put)?,
                Request::RequestRange(range) => {
                    self.readable(range.revision)?;
                }
                _ => {}
            }
        }
        // A level's own operations come before those of the levels below.
        for op in ops {
            if let Some(Request::RequestTxn(inner)) = &op.request {
                self.check_txn(inner)?;
            }
        }
        Ok(())
    }

    fn do_txn(&self, work: &mut Work, txn: &TxnRequest) -> TxnResponse {
        let (succeeded, ops) = self.branch(txn);
        let mut responses = Vec::new();
        for op in ops {
            responses.push(ResponseOp {
                response: Some(match op.request.as_ref().unwrap() {
                    Request::RequestPut(put) => response_op::Response::ResponsePut(do_put(work, put)),
                    Request::RequestDeleteRange(delete) => {
                        response_op::Response::ResponseDeleteRange(do_delete(work, delete))
                    }
                    Request::RequestRange(range) => {
                        let old = range.revision > 0 && range.revision != work.revision();
                        let keys = if old { &self.states[range.revision as usize] } else { &work.keys };
                        let mut response = do_range(keys, range);
                        response.header = header(work.revision());
                        response_op::Response::ResponseRange(response)
                    }
                    Request::RequestTxn(inner) => {
                        response_op::Response::ResponseTxn(self.do_txn(work, inner))
                    }
                }),
            });
        }
        TxnResponse { header: Some(ResponseHeader::default()), succeeded, responses }
    }

    fn readable(&self, revision: i64) -> Outcome<i64> {
        if revision > self.current() {
            return Err(FUTURE.into());
        }
        let at = if revision <= 0 { self.current() } else { revision };
        if at < self.compacted { Err(COMPACTED.into()) } else { Ok(at) }
    }

    pub(super) fn check_range(&self, request: &RangeRequest, actual: Outcome<RangeResponse>) {
        let expected = self.readable(request.revision).map(|at| {
            let response = do_range(&self.states[at as usize], request);
            RangeResponse { header: header(self.current()), ..response }
        });
        match (actual, expected) {
            (Ok(actual), Ok(expected)) => same_range(request, &actual, &expected),
            (actual, expected) => assert_eq!(actual, expected, "{request:?}"),
        }
    }

    /// `events` are exactly the changes from revision `from` on.
    pub(super) fn check_events(&self, from: i64, events: &[RevisionEvents], store: &Store) {
        let revisions: Vec<_> = events.iter().map(|events| events.revision).collect();
        assert_eq!(revisions, (from..=self.current()).collect::<Vec<_>>());
        for RevisionEvents { revision, events } in events {
            let expected = &self.changes[*revision as usize];
            assert_eq!(events.len(), expected.len());
            for (event, (key, after)) in events.iter().zip(expected) {
                assert_eq!(event.kv.key, key);
                match after {
                    Some(kv) => assert_eq!((event.kind, &event.kv), (EventKind::Put, kv)),
                    None => {
                        let tombstone =
                            KeyValue { key: key.clone(), mod_revision: *revision, ..KeyValue::default() };
                        assert_eq!((event.kind, &event.kv), (EventKind::Delete, &tombstone));
                    }
                }
                let before = *revision - 1;
                let previous = store.previous(event).unwrap();
                if before >= self.compacted {
                    assert_eq!(previous.as_ref(), self.states[before as usize].get(key));
                }
            }
        }
    }
}

fn do_put(work: &mut Work, put: &PutRequest) -> PutResponse {
    let previous = work.keys.get(&put.key).cloned();
    let main = work.base + 1;
    let mut kv = KeyValue {
        key: put.key.clone(),
        create_revision: main,
        mod_revision: main,
        version: 1,
        value: put.value.clone(),
        lease: put.lease,
    };
    if let Some(old) = &previous {
        kv.create_revision = old.create_revision;
        kv.version = old.version + 1;
        if put.ignore_value {
            kv.value = old.value.clone();
        }
        if put.ignore_lease {
            kv.lease = old.lease;
        }
    }
    work.keys.insert(put.key.clone(), kv.clone());
    work.changes.push((put.key.clone(), Some(kv)));
    PutResponse { header: header(work.revision()), prev_kv: previous.filter(|_| put.prev_kv) }
}

fn do_delete(work: &mut Work, delete: &DeleteRangeRequest) -> DeleteRangeResponse {
    let range = KeyRange::from_request(&delete.key, &delete.range_end);
    let gone: Vec<_> = work.keys.values().filter(|kv| range.contains(&kv.key)).cloned().collect();
    for kv in &gone {
        work.keys.remove(&kv.key);
        work.changes.push((kv.key.clone(), None));
    }
    DeleteRangeResponse {
        header: header(work.revision()),
        deleted: gone.len() as i64,
        prev_kvs: if delete.prev_kv { gone } else { Vec::new() },
    }
}

fn do_range(keys: &Keys, request: &RangeRequest) -> RangeResponse {
    let range = KeyRange::from_request(&request.key, &request.range_end);
    let mut kvs: Vec<_> = keys.values().filter(|kv| range.contains(&kv.key)).cloned().collect();
    let count = kvs.len() as i64;
    if request.count_only {
        return RangeResponse { count, ..RangeResponse::default() };
    }
    let limit = request.limit as usize;
    let bounds = [
        request.max_mod_revision,
        request.min_mod_revision,
        request.max_create_revision,
        request.min_create_revision,
    ];
    let everything = request.sort_order() != SortOrder::None || bounds.iter().any(|&bound| bound != 0);
    if limit > 0 && !everything {
        kvs.truncate(limit + 1);
    }
    kvs.retain(|kv| {
        (request.max_mod_revision == 0 || kv.mod_revision <= request.max_mod_revision)
            && (request.min_mod_revision == 0 || kv.mod_revision >= request.min_mod_revision)
            && (request.max_create_revision == 0 || kv.create_revision <= request.max_create_revision)
            && (request.min_create_revision == 0 || kv.create_revision >= request.min_create_revision)
    });
    kvs.sort_by_key(|kv| sort_key(request, kv));
    if request.sort_order() == SortOrder::Descend {
        kvs.reverse();
    }
    let more = limit > 0 && kvs.len() > limit;
    if limit > 0 {
        kvs.truncate(limit);
    }
    if request.keys_only {
        kvs.iter_mut().for_each(|kv| kv.value = Bytes::new());
    }
    RangeResponse { header: None, kvs, more, count }
}

fn sort_key(request: &RangeRequest, kv: &KeyValue) -> (i64, Bytes) {
    match request.sort_target() {
        SortTarget::Key => (0, kv.key.clone()),
        SortTarget::Version => (kv.version, Bytes::new()),
        SortTarget::Create => (kv.create_revision, Bytes::new()),
        SortTarget::Mod => (kv.mod_revision, Bytes::new()),
        SortTarget::Value => (0, kv.value.clone()),
    }
}

/// Equal but for the order of pairs that the sort does not tell apart.
fn same_range(request: &RangeRequest, actual: &RangeResponse, expected: &RangeResponse) {
    assert_eq!(
        (&actual.header, actual.more, actual.count, actual.kvs.len()),
        (&expected.header, expected.more, expected.count, expected.kvs.len()),
        "{request:?}"
    );
    let sorted = |response: &RangeResponse| -> Vec<_> {
        response.kvs.iter().map(|kv| sort_key(request, kv)).collect()
    };
    assert_eq!(sorted(actual), sorted(expected), "{request:?}");
    if !expected.more {
        let all = |response: &RangeResponse| -> BTreeMap<Bytes, KeyValue> {
            response.kvs.iter().map(|kv| (kv.key.clone(), kv.clone())).collect()
        };
        assert_eq!(all(actual), all(expected), "{request:?}");
    }
}

fn pair_holds(compare: &Compare, kv: &KeyValue) -> bool {
    let number = match (compare.target(), compare.target_union.as_ref().unwrap()) {
        (CompareTarget::Version, TargetUnion::Version(number))
        | (CompareTarget::Create, TargetUnion::CreateRevision(number))
        | (CompareTarget::Mod, TargetUnion::ModRevision(number))
        | (CompareTarget::Lease, TargetUnion::Lease(number)) => *number,
        _ => 0,
    };
    let ordering = match compare.target() {
        CompareTarget::Version => kv.version.cmp(&number),
        CompareTarget::Create => kv.create_revision.cmp(&number),
        CompareTarget::Mod => kv.mod_revision.cmp(&number),
        CompareTarget::Lease => kv.lease.cmp(&number),
        CompareTarget::Value => match compare.target_union.as_ref().unwrap() {
            TargetUnion::Value(value) => kv.value.cmp(value),
            _ => kv.value.cmp(&Bytes::new()),
        },
    };
    match compare.result() {
        CompareResult::Equal => ordering.is_eq(),
        CompareResult::Greater => ordering.is_gt(),
        CompareResult::Less => ordering.is_lt(),
        CompareResult::NotEqual => ordering.is_ne(),
    }
}

pub(super) fn check_outcome(actual: &crate::apply::Outcome, expected: Outcome<Response>) {
    let actual = actual.clone().map_err(|error| error.to_string());
    match (&actual, &expected) {
        (Ok(Response::Txn(actual)), Ok(Response::Txn(expected))) => same_txn(actual, expected),
        _ => assert_eq!(actual, expected),
    }
}

fn same_txn(actual: &TxnResponse, expected: &TxnResponse) {
    assert_eq!((&actual.header, actual.succeeded), (&expected.header, expected.succeeded));
    assert_eq!(actual.responses.len(), expected.responses.len());
    for (actual, expected) in actual.responses.iter().zip(&expected.responses) {
        match (actual.response.as_ref().unwrap(), expected.response.as_ref().unwrap()) {
            (response_op::Response::ResponseTxn(actual), response_op::Response::ResponseTxn(expected)) => {
                same_txn(actual, expected);
            }
            (
                response_op::Response::ResponseRange(actual),
                response_op::Response::ResponseRange(expected),
            ) => {
                // Which of equal ones a sorted and limited range gives is open.
                assert_eq!(
                    (&actual.header, actual.count, actual.more, actual.kvs.len()),
                    (&expected.header, expected.count, expected.more, expected.kvs.len())
                );
            }
            (actual, expected) => assert_eq!(actual, expected),
        }
    }
}

/// Drops operations that the service would refuse a transaction for: a key put twice, or put and
/// deleted. Stricter than it is about the branches of nested ones.
pub(super) fn drop_duplicates(ops: &mut Vec<RequestOp>) {
    let (mut puts, mut deletes) = (BTreeSet::new(), Vec::new());
    ops.retain(|op| {
        let (mut new_puts, mut new_deletes) = (Vec::new(), Vec::new());
        changes(op, &mut new_puts, &mut new_deletes);
        let clash = new_puts
            .iter()
            .any(|key| puts.contains(key) || deletes.iter().any(|range: &KeyRange| range.contains(key)))
            || new_deletes.iter().any(|range| puts.iter().any(|key: &Bytes| range.contains(key)));
        if !clash {
            puts.extend(new_puts);
            deletes.extend(new_deletes);
        }
        !clash
    });
}

fn changes(op: &RequestOp, puts: &mut Vec<Bytes>, deletes: &mut Vec<KeyRange>) {
    match op.request.as_ref().unwrap() {
        Request::RequestPut(put) => puts.push(put.key.clone()),
        Request::RequestDeleteRange(delete) => {
            deletes.push(KeyRange::from_request(&delete.key, &delete.range_end));
        }
        Request::RequestRange(_) => {}
        Request::RequestTxn(txn) => {
            txn.success.iter().chain(&txn.failure).for_each(|op| changes(op, puts, deletes));
        }
    }
}

/// Makes a transaction one that only reads.
pub(super) fn keep_ranges(txn: &mut TxnRequest) {
    for ops in [&mut txn.success, &mut txn.failure] {
        ops.retain(|op| matches!(op.request, Some(Request::RequestRange(_))));
    }
}
