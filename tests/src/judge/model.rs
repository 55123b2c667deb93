//! The store as etcd's documentation has it: one map, changed by one request at a time.
//!
//! A request is tried at a revision and tells the answer and the events that it
//! must give. What it changed can be undone, so that where a store did otherwise
//! the replay goes on from what the store did.

use std::{cmp::Ordering, collections::BTreeMap, ops::Bound};

use bytes::Bytes;
use etcfs_proto::{
    etcdserverpb::{
        Compare, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse, RangeRequest,
        RangeResponse, RequestOp, ResponseOp, TxnRequest, TxnResponse,
        compare::{CompareResult, CompareTarget, TargetUnion},
        request_op::Request,
        response_op::Response,
    },
    key::KeyRange,
    mvccpb::{Event, KeyValue, event::EventType},
};

/// Every pair of one revision.
#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    keys: BTreeMap<Bytes, KeyValue>,
}

/// What a request does at one revision.
#[derive(Debug)]
pub(super) struct Trial {
    /// Without headers.
    pub(super) answer: Response,
    /// Each with the pair that it replaced.
    pub(super) events: Vec<Event>,
}

/// A request on its way.
struct Attempt<'model> {
    model: &'model mut Model,
    revision: i64,
    events: Vec<Event>,
}

impl Model {
    /// Runs `request`, whose changes would make `revision`.
    pub(super) fn run(&mut self, request: &Request, revision: i64) -> Trial {
        let mut attempt = Attempt { model: self, revision, events: Vec::new() };
        let answer = attempt.request(request);
        Trial { answer, events: attempt.events }
    }

    /// Takes back what a run has changed.
    pub(super) fn undo(&mut self, events: &[Event]) {
        for event in events.iter().rev() {
            let key = key_of(event);
            match &event.prev_kv {
                Some(before) => self.keys.insert(key, before.clone()),
                None => self.keys.remove(&key),
            };
        }
    }

    /// Makes the changes that a store told of; returns them, each with the pair that it replaced.
    pub(super) fn follow(&mut self, events: &[Event]) -> Vec<Event> {
        let change = |event: &Event| {
            let key = key_of(event);
            let before = match (event.r#type(), &event.kv) {
                (EventType::Put, Some(kv)) => self.keys.insert(key, kv.clone()),
                _ => self.keys.remove(&key),
            };
            Event { prev_kv: before, ..event.clone() }
        };
        events.iter().map(change).collect()
    }

    pub(super) fn all(&self) -> Vec<KeyValue> {
        self.keys.values().cloned().collect()
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<&KeyValue> {
        self.keys.get(key)
    }

    /// The keys that end with `lease`.
    pub(super) fn on_lease(&self, lease: i64) -> Vec<&Bytes> {
        self.keys.values().filter(|kv| kv.lease == lease).map(|kv| &kv.key).collect()
    }

    fn within(&self, range: &KeyRange) -> Vec<KeyValue> {
        if range.is_empty() {
            return Vec::new();
        }
        let end = range.end.as_ref().map_or(Bound::Unbounded, |end| Bound::Excluded(end.clone()));
        self.keys.range((Bound::Included(range.start.clone()), end)).map(|(_, kv)| kv.clone()).collect()
    }

    fn range(&self, request: &RangeRequest) -> RangeResponse {
        let mut kvs = self.within(&KeyRange::from_request(&request.key, &request.range_end));
        let count = kvs.len() as i64;
        let limit = usize::try_from(request.limit).unwrap_or(0);
        let mut more = limit > 0 && kvs.len() > limit;
        if more {
            kvs.truncate(limit);
        }
        if request.count_only {
            // None of them is left out: none was asked for.
            more = false;
            kvs.clear();
        }
        if request.keys_only {
            kvs.iter_mut().for_each(|kv| kv.value = Bytes::new());
        }
        RangeResponse { kvs, more, count, ..Default::default() }
    }

    fn holds(&self, compare: &Compare) -> bool {
        let found = self.within(&KeyRange::from_request(&compare.key, &compare.range_end));
        if found.is_empty() {
            // A key that is not there has no value, not even an empty one; its numbers are zero.
            return compare.target() != CompareTarget::Value && fits(compare, &KeyValue::default());
        }
        found.iter().all(|kv| fits(compare, kv))
    }
}

impl Attempt<'_> {
    fn request(&mut self, request: &Request) -> Response {
        match request {
            Request::RequestRange(range) => Response::ResponseRange(self.model.range(range)),
            Request::RequestPut(put) => Response::ResponsePut(self.put(put)),
            Request::RequestDeleteRange(delete) => Response::ResponseDeleteRange(self.delete(delete)),
            Request::RequestTxn(txn) => Response::ResponseTxn(self.txn(txn)),
        }
    }

    fn put(&mut self, request: &PutRequest) -> PutResponse {
        let before = self.model.keys.get(&request.key).cloned();
        let kv = KeyValue {
            key: request.key.clone(),
            value: request.value.clone(),
            lease: request.lease,
            create_revision: before.as_ref().map_or(self.revision, |kv| kv.create_revision),
            version: before.as_ref().map_or(0, |kv| kv.version) + 1,
            mod_revision: self.revision,
        };
        self.model.keys.insert(request.key.clone(), kv.clone());
        let prev_kv = before.clone().filter(|_| request.prev_kv);
        self.events.push(Event { r#type: EventType::Put.into(), kv: Some(kv), prev_kv: before });
        PutResponse { prev_kv, ..Default::default() }
    }

    fn delete(&mut self, request: &DeleteRangeRequest) -> DeleteRangeResponse {
        let gone = self.model.within(&KeyRange::from_request(&request.key, &request.range_end));
        for before in &gone {
            self.model.keys.remove(&before.key);
            self.events.push(deletion(before.clone(), self.revision));
        }
        let deleted = gone.len() as i64;
        let prev_kvs = if request.prev_kv { gone } else { Vec::new() };
        DeleteRangeResponse { deleted, prev_kvs, ..Default::default() }
    }

    fn txn(&mut self, request: &TxnRequest) -> TxnResponse {
        let succeeded = request.compare.iter().all(|compare| self.model.holds(compare));
        let branch = if succeeded { &request.success } else { &request.failure };
        let run = |op: &RequestOp| ResponseOp { response: op.request.as_ref().map(|r| self.request(r)) };
        TxnResponse { succeeded, responses: branch.iter().map(run).collect(), ..Default::default() }
    }
}

/// The event of a pair's deletion.
pub(super) fn deletion(before: KeyValue, revision: i64) -> Event {
    let kv = KeyValue { key: before.key.clone(), mod_revision: revision, ..Default::default() };
    Event { r#type: EventType::Delete.into(), kv: Some(kv), prev_kv: Some(before) }
}

pub(super) fn key_of(event: &Event) -> Bytes {
    event.kv.as_ref().map(|kv| kv.key.clone()).unwrap_or_default()
}

/// Takes the headers out of an answer and of all in it: they tell of the member that answered.
pub(super) fn without_headers(mut answer: Response) -> Response {
    match &mut answer {
        Response::ResponseRange(answer) => answer.header = None,
        Response::ResponsePut(answer) => answer.header = None,
        Response::ResponseDeleteRange(answer) => answer.header = None,
        Response::ResponseTxn(answer) => {
            answer.header = None;
            for response in &mut answer.responses {
                response.response = response.response.take().map(without_headers);
            }
        }
    }
    answer
}

fn fits(compare: &Compare, kv: &KeyValue) -> bool {
    let order = match &compare.target_union {
        Some(TargetUnion::Version(version)) => kv.version.cmp(version),
        Some(TargetUnion::CreateRevision(revision)) => kv.create_revision.cmp(revision),
        Some(TargetUnion::ModRevision(revision)) => kv.mod_revision.cmp(revision),
        Some(TargetUnion::Value(value)) => kv.value.cmp(value),
        Some(TargetUnion::Lease(lease)) => kv.lease.cmp(lease),
        None => Ordering::Equal,
    };
    match compare.result() {
        CompareResult::Equal => order.is_eq(),
        CompareResult::NotEqual => order.is_ne(),
        CompareResult::Greater => order.is_gt(),
        CompareResult::Less => order.is_lt(),
    }
}
