//! One client: its connections, its randomness, and its notes.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use etcfs_proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, LeaseGrantRequest,
    LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseLeasesRequest,
    LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse, LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse, PutRequest, PutResponse, RangeRequest, RangeResponse, TxnRequest, TxnResponse,
};
use etcfs_tests::{
    api::Api,
    judge::{Call, Moment, Operation, Outcome, Refusal},
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::time::timeout;
use tonic::{Code, Response, Status};

/// Time after which a client gives a call up as lost.
const CALL_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause of a client that got no answer.
const AWAY: Duration = Duration::from_millis(20);
/// A client goes to another member after this many calls, on average.
const STAY: u32 = 8;

/// What all clients of a run share.
#[derive(Debug)]
pub(crate) struct Shared {
    start: Instant,
    stop: AtomicBool,
    /// The revision up to which the recorder holds every event.
    pub(crate) recorded: AtomicI64,
    /// The newest compaction that was acknowledged.
    pub(crate) compacted: AtomicI64,
    /// The last revision of the run, once it is known.
    pub(crate) goal: AtomicI64,
}

impl Shared {
    pub(crate) fn new() -> Self {
        Self {
            start: Instant::now(),
            stop: AtomicBool::new(false),
            recorded: AtomicI64::new(0),
            compacted: AtomicI64::new(0),
            goal: AtomicI64::new(i64::MAX),
        }
    }

    pub(crate) fn now(&self) -> Moment {
        self.start.elapsed()
    }

    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    pub(crate) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// One client.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) shared: Arc<Shared>,
    pub(crate) random: StdRng,
    /// Connections of its own, one to each member.
    pub(crate) apis: Vec<Api>,
    /// The member that it talks to for now.
    pub(crate) member: usize,
    name: String,
    values: u64,
    operations: Vec<Operation>,
}

impl Session {
    pub(crate) fn new(shared: &Arc<Shared>, endpoints: &[String], name: String, seed: u64) -> Self {
        let apis = endpoints.iter().map(|endpoint| Api::to(endpoint)).collect();
        let random = StdRng::seed_from_u64(seed);
        Self { shared: shared.clone(), random, apis, member: 0, name, values: 0, operations: Vec::new() }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn into_operations(self) -> Vec<Operation> {
        self.operations
    }

    /// A value that nobody else puts: mostly short, at times long enough to fill a window.
    pub(crate) fn value(&mut self) -> Bytes {
        self.values += 1;
        let length = if self.random.random_ratio(1, 50) { 4096 } else { self.random.random_range(0..200) };
        let mut value = format!("{}-{} ", self.name, self.values);
        value.extend(std::iter::repeat_n('.', length));
        value.into()
    }

    pub(crate) fn move_on(&mut self) {
        self.member = self.random.random_range(0..self.apis.len());
    }

    async fn call<T>(
        &mut self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> (Moment, Outcome<T>) {
        let asked = self.shared.now();
        let outcome = match timeout(CALL_TIMEOUT, call).await {
            Ok(Ok(answer)) => Outcome::Answered(answer.into_inner()),
            Ok(Err(status)) => refusal(&status).map_or(Outcome::Lost, Outcome::Refused),
            Err(_) => Outcome::Lost,
        };
        (asked, outcome)
    }

    /// Notes a call; goes elsewhere where nobody answered, and now and then.
    async fn note(&mut self, asked: Moment, call: Call) {
        let lost = call.is_lost();
        let operation = Operation { asked, answered: self.shared.now(), member: self.member, call };
        self.operations.push(operation);
        if lost {
            tokio::time::sleep(AWAY).await;
        }
        if lost || self.random.random_ratio(1, STAY) {
            self.move_on();
        }
    }
}

macro_rules! calls {
    ($($name:ident($request:ty) -> $response:ty = $client:ident . $method:ident as $call:ident;)*) => {
        impl Session {
            $(pub(crate) async fn $name(&mut self, request: $request) -> Outcome<$response> {
                let mut client = self.apis[self.member].$client();
                let asked = request.clone();
                let (at, outcome) = self.call(async move { client.$method(asked).await }).await;
                self.note(at, Call::$call(request, outcome.clone())).await;
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
    grant(LeaseGrantRequest) -> LeaseGrantResponse = lease.lease_grant as Grant;
    revoke(LeaseRevokeRequest) -> LeaseRevokeResponse = lease.lease_revoke as Revoke;
    time_to_live(LeaseTimeToLiveRequest) -> LeaseTimeToLiveResponse = lease.lease_time_to_live as TimeToLive;
    leases(LeaseLeasesRequest) -> LeaseLeasesResponse = lease.lease_leases as Leases;
}

impl Session {
    /// One renewal of a lease.
    pub(crate) async fn keep_alive(&mut self, id: i64) -> Outcome<LeaseKeepAliveResponse> {
        let request = LeaseKeepAliveRequest { id };
        let mut client = self.apis[self.member].lease();
        let call = async move {
            // The request side stays open until the answer is there: its end could be taken for the caller's.
            let (requests, queue) = tokio::sync::mpsc::channel(1);
            requests.try_send(request).expect("the queue is empty");
            let requests_queue = tokio_stream::wrappers::ReceiverStream::new(queue);
            let mut answers = client.lease_keep_alive(requests_queue).await?.into_inner();
            let answer = answers.message().await?.ok_or_else(|| Status::unknown("no answer"));
            drop(requests);
            answer.map(Response::new)
        };
        let (at, outcome) = self.call(call).await;
        self.note(at, Call::KeepAlive(request, outcome.clone())).await;
        outcome
    }
}

/// Why the server did not do it, where its words say that it never will.
fn refusal(status: &Status) -> Option<Refusal> {
    match status.code() {
        Code::OutOfRange if status.message().contains("compacted") => Some(Refusal::Compacted),
        Code::OutOfRange if status.message().contains("future") => Some(Refusal::Future),
        Code::NotFound if status.message().contains("lease not found") => Some(Refusal::NoLease),
        Code::InvalidArgument | Code::ResourceExhausted | Code::FailedPrecondition => Some(Refusal::Other),
        _ => None,
    }
}
