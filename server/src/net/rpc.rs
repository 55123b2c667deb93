//! gRPC: from a path to a call of `service`, and back to bytes.

use std::{
    future::{Future, Ready, ready},
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use bytes::Bytes;
use etcfs_proto::etcdserverpb::{
    AuthDisableRequest, AuthEnableRequest, AuthRoleListRequest, AuthStatusRequest, AuthUserListRequest,
    DefragmentRequest, HashRequest, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseLeasesRequest,
    SnapshotRequest, StatusRequest, WatchRequest, WatchResponse,
};
use futures_util::{
    FutureExt as _, Stream, StreamExt as _,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use http::{HeaderMap, HeaderValue, Request, Response, header::CONTENT_TYPE};
use prometheus::IntCounter;
use prost::Message;
use tokio_util::sync::CancellationToken;
use tonic::{
    Code, Status, Streaming,
    server::{Grpc, StreamingService},
};
use tonic_prost::ProstCodec;
use tower::Service as _;

use super::{
    body::Body,
    deadline,
    input::Input,
    long,
    methods::{METHODS, Method},
    unary,
};
use crate::{
    config::Limits,
    metrics::Metrics,
    service::{Caller, Lease, Ranged, RangedTxn, Refusal, Right, Services, Watch},
};

/// Put into the extensions of requests that come over a verified connection.
#[derive(Clone, Debug)]
pub(super) struct CommonName(pub(super) Arc<str>);

type Answer = Response<Body>;
type Foreign =
    tower::util::BoxCloneSyncService<Request<Input>, Response<tonic::body::Body>, std::convert::Infallible>;

/// All RPCs.
pub struct Rpc {
    services: Services,
    metrics: Arc<Metrics>,
    max_receive_bytes: usize,
    shutdown: CancellationToken,
    slow_request: Duration,
    health: Foreign,
    // Built when first asked for: few ever do, and the descriptors take
    // megabytes when they are unfolded.
    reflection: OnceLock<Foreign>,
    reflection_alpha: OnceLock<Foreign>,
}

impl std::fmt::Debug for Rpc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rpc").field("services", &self.services).finish_non_exhaustive()
    }
}

impl Rpc {
    pub fn new(
        services: Services,
        metrics: Arc<Metrics>,
        limits: &Limits,
        shutdown: CancellationToken,
        slow_request: Duration,
    ) -> Self {
        // Its own status for "" is SERVING from the start; it is built when that is true.
        let (_reporter, health) = tonic_health::server::health_reporter();
        Self {
            services,
            metrics,
            max_receive_bytes: limits.max_receive_bytes(),
            shutdown,
            slow_request,
            health: Foreign::new(health),
            reflection: OnceLock::new(),
            reflection_alpha: OnceLock::new(),
        }
    }

    pub(super) async fn call(&self, mut request: Request<Input>) -> Answer {
        let Some(method) = Method::of(request.uri().path()) else {
            return refused(&unknown(request.uri().path()));
        };
        let metrics = &self.metrics.methods[method as usize];
        metrics.started.inc();
        let version = request.headers().get("client-api-version").and_then(|version| version.to_str().ok());
        self.metrics.asked(method as usize, version);
        let began = Instant::now();
        let answer = match is_broken(method) {
            false => self.admit_in_time(method, &mut request).await,
            true => Ok(nothing(method)),
        };
        let took = began.elapsed();
        metrics.took(took);
        if took >= self.slow_request && !method.waits() {
            let expected = self.slow_request;
            tracing::warn!(?took, ?expected, method = method.path(), "request took too long");
        }
        match answer {
            Ok(answer) => {
                metrics.handled(Code::Ok);
                answer
            }
            Err(status) => {
                metrics.handled(status.code());
                refused(&status)
            }
        }
    }

    async fn admit_in_time(&self, method: Method, request: &mut Request<Input>) -> Result<Answer, Status> {
        match deadline::of(request.headers()) {
            Some(time) if method.is_unary() => tokio::time::timeout(time, self.admit(method, request))
                .await
                .unwrap_or_else(|_| Err(Status::deadline_exceeded("context deadline exceeded"))),
            _ => self.admit(method, request).await,
        }
    }

    async fn admit(&self, method: Method, request: &mut Request<Input>) -> Result<Answer, Status> {
        self.check_metadata(request)?;
        if !method.is_for_learners() {
            self.services.refuse_if_learner()?;
        }
        let caller = match method.right() {
            // A client with an old token may log in anew.
            Right::Open => Ok(Caller::Nobody),
            _ => self.services.auth.logins.caller(token(request.headers()), certificate(request)).await,
        };
        if method == Method::Watch {
            // Each request on the stream is answered for itself, also for who is not let in.
            return Ok(self.watch(request, caller).await);
        }
        let caller = caller?;
        self.services.authorize(method.right(), &caller)?;
        self.dispatch(method, request, &caller).await
    }

    fn check_metadata(&self, request: &Request<Input>) -> Result<(), Refusal> {
        let headers = request.headers();
        if wants_leader(headers) {
            self.services.require_leader()?;
        }
        match headers.get("client-api-version") {
            Some(version) if std::str::from_utf8(version.as_bytes()).is_err() => {
                Err(Refusal::InvalidClientApiVersion)
            }
            _ => Ok(()),
        }
    }

    /// The calls that a busy server has thousands of.
    async fn dispatch(
        &self,
        method: Method,
        request: &mut Request<Input>,
        caller: &Caller,
    ) -> Result<Answer, Status> {
        let (kv, metrics) = (&self.services.kv, &self.metrics);
        match method {
            Method::Range => {
                metrics.ranges.inc();
                self.range(request, caller).await
            }
            Method::Put => {
                metrics.puts.inc();
                self.unary(request, |message| kv.put(message, caller)).await
            }
            Method::Txn => {
                metrics.txns.inc();
                self.txn(request, caller).await
            }
            Method::DeleteRange => {
                metrics.deletes.inc();
                self.unary(request, |message| kv.delete_range(message, caller)).await
            }
            // Each call's task has room for whatever it may become, and is moved with it: the
            // largest of these would be most of what a put costs there.
            _ => self.dispatch_other(method, request, caller).boxed().await,
        }
    }

    async fn dispatch_other(
        &self,
        method: Method,
        request: &mut Request<Input>,
        caller: &Caller,
    ) -> Result<Answer, Status> {
        let Services { kv, lease, cluster, maintenance, auth, lock, election, tree, .. } = &self.services;
        let metrics = &self.metrics;
        match method {
            Method::Range | Method::Put | Method::Txn | Method::DeleteRange => {
                unreachable!("dispatched before")
            }
            Method::Compact => self.unary(request, |message| kv.compact(message, caller)).await,
            // Before this, as it is judged request by request.
            Method::Watch => Ok(self.watch(request, Ok(caller.clone())).await),
            Method::LeaseGrant => {
                metrics.lease_granted.inc();
                self.unary(request, |message| lease.grant(message, caller)).await
            }
            Method::LeaseRevoke => {
                metrics.lease_revoked.inc();
                self.unary(request, |message| lease.revoke(message, caller)).await
            }
            Method::LeaseKeepAlive => Ok(self.keep_alive(request, caller.clone()).await),
            Method::LeaseTimeToLive => {
                self.unary(request, |message| lease.time_to_live(message, caller)).await
            }
            Method::LeaseLeases => self.unary(request, |LeaseLeasesRequest {}| lease.leases(caller)).await,
            Method::MemberList => self.unary(request, |message| cluster.member_list(message)).await,
            Method::Status => self.unary(request, |StatusRequest {}| ready(maintenance.status())).await,
            Method::Alarm => self.unary(request, |message| maintenance.alarm(message, caller)).await,
            Method::Hash => self.unary(request, |HashRequest {}| maintenance.hash()).await,
            Method::HashKv => self.unary(request, |message| maintenance.hash_kv(message)).await,
            Method::AuthStatus => self.unary(request, |AuthStatusRequest {}| ready(Ok(auth.status()))).await,
            Method::HealthCheck | Method::HealthWatch => Ok(foreign(&self.health, request).await),
            Method::Reflection => {
                let build = || Foreign::new(reflection().build_v1().expect(VALID));
                Ok(foreign(self.reflection.get_or_init(build), request).await)
            }
            Method::ReflectionAlpha => {
                let build = || Foreign::new(reflection().build_v1alpha().expect(VALID));
                Ok(foreign(self.reflection_alpha.get_or_init(build), request).await)
            }
            Method::MemberAdd => self.unary(request, |message| cluster.member_add(message)).await,
            Method::MemberRemove => self.unary(request, |message| cluster.member_remove(message)).await,
            Method::MemberUpdate => self.unary(request, |message| cluster.member_update(message)).await,
            Method::MemberPromote => self.unary(request, |message| cluster.member_promote(message)).await,
            Method::Defragment => {
                let _timer = metrics.defragment_seconds.start_timer();
                let _inflight = metrics.defragmenting();
                self.unary(request, |DefragmentRequest {}| maintenance.defragment()).await
            }
            Method::Snapshot => {
                self.server_stream(request, |SnapshotRequest {}| maintenance.snapshot()).await
            }
            Method::MoveLeader => self.unary(request, |message| maintenance.move_leader(message)).await,
            Method::Downgrade => self.unary(request, |message| maintenance.downgrade(message, caller)).await,
            Method::Authenticate => self.unary(request, |message| auth.authenticate(message)).await,
            Method::AuthEnable => self.unary(request, |AuthEnableRequest {}| auth.enable(caller)).await,
            Method::AuthDisable => self.unary(request, |AuthDisableRequest {}| auth.disable(caller)).await,
            Method::UserAdd => self.unary(request, |message| auth.user_add(message, caller)).await,
            Method::UserGet => self.unary(request, |message| auth.user_get(message, caller)).await,
            Method::UserList => self.unary(request, |AuthUserListRequest {}| auth.user_list()).await,
            Method::UserDelete => self.unary(request, |message| auth.user_delete(message, caller)).await,
            Method::UserChangePassword => {
                self.unary(request, |message| auth.user_change_password(message, caller)).await
            }
            Method::UserGrantRole => {
                self.unary(request, |message| auth.user_grant_role(message, caller)).await
            }
            Method::UserRevokeRole => {
                self.unary(request, |message| auth.user_revoke_role(message, caller)).await
            }
            Method::RoleAdd => self.unary(request, |message| auth.role_add(message, caller)).await,
            Method::RoleGet => self.unary(request, |message| auth.role_get(message, caller)).await,
            Method::RoleList => self.unary(request, |AuthRoleListRequest {}| auth.role_list()).await,
            Method::RoleDelete => self.unary(request, |message| auth.role_delete(message, caller)).await,
            Method::RoleGrantPermission => {
                self.unary(request, |message| auth.role_grant_permission(message, caller)).await
            }
            Method::RoleRevokePermission => {
                self.unary(request, |message| auth.role_revoke_permission(message, caller)).await
            }
            Method::Lock => self.unary(request, |message| lock.lock(message, caller)).await,
            Method::Unlock => self.unary(request, |message| lock.unlock(message, caller)).await,
            Method::Campaign => self.unary(request, |message| election.campaign(message, caller)).await,
            Method::Proclaim => self.unary(request, |message| election.proclaim(message, caller)).await,
            Method::Leader => self.unary(request, |message| election.leader(message, caller)).await,
            Method::Resign => self.unary(request, |message| election.resign(message, caller)).await,
            Method::TreeChildren => self.unary(request, |message| tree.children(message, caller)).await,
            Method::TreeTimes => self.unary(request, |message| tree.times(message)).await,
            Method::TreeRename => self.unary(request, |message| tree.rename(message, caller)).await,
            Method::Observe => {
                self.server_stream(request, |message| election.observe(message, caller.clone())).await
            }
        }
    }

    async fn unary<Q, A, F>(
        &self,
        request: &mut Request<Input>,
        call: impl FnOnce(Q) -> F,
    ) -> Result<Answer, Status>
    where
        Q: Message + Default,
        A: Message,
        F: Future<Output = Result<A, Refusal>>,
    {
        let (message, length) = unary::read(request.body_mut(), self.max_receive_bytes).await?;
        self.metrics.received_bytes.inc_by(length as u64);
        let answer = unary::write(&call(message).await?)?;
        self.metrics.sent_bytes.inc_by(answer.len() as u64);
        Ok(grpc(Body::Message(Some(answer))))
    }

    /// One message in, and one out, which is made while it is sent if it is long.
    async fn range(&self, request: &mut Request<Input>, caller: &Caller) -> Result<Answer, Status> {
        let (message, length) = unary::read(request.body_mut(), self.max_receive_bytes).await?;
        self.metrics.received_bytes.inc_by(length as u64);
        let (body, length) = match self.services.kv.ranged(message, caller).await? {
            Ranged::Whole(answer) => {
                let answer = unary::write(&answer)?;
                let length = answer.len();
                (Body::Message(Some(answer)), length)
            }
            Ranged::Long(rest, pairs) => {
                let (pieces, length) = long::answer(&rest, pairs)?;
                (Body::pieces(pieces), length)
            }
        };
        self.metrics.sent_bytes.inc_by(length as u64);
        Ok(grpc(body))
    }

    /// The same for a transaction that only reads.
    async fn txn(&self, request: &mut Request<Input>, caller: &Caller) -> Result<Answer, Status> {
        let (message, length) = unary::read(request.body_mut(), self.max_receive_bytes).await?;
        self.metrics.received_bytes.inc_by(length as u64);
        let (body, length) = match self.services.kv.ranged_txn(message, caller).await? {
            RangedTxn::Whole(answer) => {
                let answer = unary::write(&answer)?;
                let length = answer.len();
                (Body::Message(Some(answer)), length)
            }
            RangedTxn::Long(rest, parts) => {
                let (pieces, length) = long::txn_answer(&rest, parts)?;
                (Body::pieces(pieces), length)
            }
            RangedTxn::TooLong => return Err(Refusal::AnswerTooLong.into()),
        };
        self.metrics.sent_bytes.inc_by(length as u64);
        Ok(grpc(body))
    }

    /// One message in, a stream out, which ends with the server.
    async fn server_stream<Q, A, S>(
        &self,
        request: &mut Request<Input>,
        call: impl FnOnce(Q) -> S,
    ) -> Result<Answer, Status>
    where
        Q: Message + Default,
        A: Message,
        S: Stream<Item = Result<A, Refusal>> + Send + 'static,
    {
        let (message, length) = unary::read(request.body_mut(), self.max_receive_bytes).await?;
        self.metrics.received_bytes.inc_by(length as u64);
        let stopped = self.shutdown.clone().cancelled_owned();
        let answers = call(message).map(|answer| unary::write(&answer?)).take_until(stopped);
        Ok(grpc(Body::messages(answers)))
    }

    fn leader_lost(&self, request: &Request<Input>) -> LeaderLost {
        wants_leader(request.headers()).then(|| self.services.clone().leader_lost().boxed())
    }

    fn watch(
        &self,
        request: &mut Request<Input>,
        caller: Result<Caller, Refusal>,
    ) -> BoxFuture<'static, Answer> {
        let led = self.leader_lost(request);
        let broken = self.metrics.broken_streams("watch");
        let call = WatchCall(self.services.watch.clone(), caller, self.max_receive_bytes, led, broken);
        streaming::<WatchRequest, WatchResponse, _>(call, take(request), self.max_receive_bytes).boxed()
    }

    fn keep_alive(&self, request: &mut Request<Input>, caller: Caller) -> BoxFuture<'static, Answer> {
        let led = self.leader_lost(request);
        let broken = self.metrics.broken_streams("lease-keepalive");
        let lease = self.services.lease.clone();
        let call = KeepAliveCall(lease, caller.into(), self.shutdown.clone(), led, broken);
        let max_bytes = self.max_receive_bytes;
        streaming::<LeaseKeepAliveRequest, LeaseKeepAliveResponse, _>(call, take(request), max_bytes).boxed()
    }
}

/// When a stream that asked for a leader has none any more; never for another.
type LeaderLost = Option<BoxFuture<'static, ()>>;

/// `answers` until the leader is lost, and then etcd's word for it.
fn while_led<A: Send + 'static>(
    answers: BoxStream<'static, Result<A, Status>>,
    lost: LeaderLost,
) -> BoxStream<'static, Result<A, Status>> {
    let Some(lost) = lost else { return answers };
    let lost = lost.map(|()| Some(Err(Refusal::NoLeader.into()))).into_stream();
    // `None` is the end of the answers, which is the end of all.
    let answers = answers.map(Some).chain(stream::once(ready(None)));
    stream::select(answers, lost).take_while(|item| ready(item.is_some())).filter_map(ready).boxed()
}

fn wants_leader(headers: &HeaderMap) -> bool {
    headers.get("hasleader").is_some_and(|value| value == "true")
}

async fn streaming<Q, A, C>(call: C, request: Request<Input>, max_bytes: usize) -> Answer
where
    Q: Message + Default + 'static,
    A: Message + 'static,
    C: StreamingService<Q, Response = A> + Send,
    C::ResponseStream: Send + 'static,
{
    let mut grpc = Grpc::new(ProstCodec::<A, Q>::default())
        .max_decoding_message_size(max_bytes)
        .max_encoding_message_size(usize::MAX);
    grpc.streaming(call, request).await.map(Body::Stream)
}

struct WatchCall(Watch, Result<Caller, Refusal>, usize, LeaderLost, IntCounter);

impl StreamingService<WatchRequest> for WatchCall {
    type Response = WatchResponse;
    type ResponseStream = BoxStream<'static, Result<WatchResponse, Status>>;
    type Future = Ready<Result<tonic::Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: tonic::Request<Streaming<WatchRequest>>) -> Self::Future {
        let max_bytes = self.2;
        let requests = request.into_inner();
        let broken = self.4.clone();
        let requests = requests.inspect(move |request| note_broken(request, &broken));
        let requests = requests.map(move |request| request.map_err(|status| etcd_words(status, max_bytes)));
        let answers = self.0.serve(requests, self.1.clone()).boxed();
        ready(Ok(tonic::Response::new(while_led(answers, self.3.take()))))
    }
}

/// One answer for each request, in their order.
struct KeepAliveCall(Lease, Arc<Caller>, CancellationToken, LeaderLost, IntCounter);

impl StreamingService<LeaseKeepAliveRequest> for KeepAliveCall {
    type Response = LeaseKeepAliveResponse;
    type ResponseStream = BoxStream<'static, Result<LeaseKeepAliveResponse, Status>>;
    type Future = Ready<Result<tonic::Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: tonic::Request<Streaming<LeaseKeepAliveRequest>>) -> Self::Future {
        let (lease, caller) = (self.0.clone(), self.1.clone());
        let broken = self.4.clone();
        let requests = request.into_inner().inspect(move |request| note_broken(request, &broken));
        let answers = requests.then(move |request| {
            let (lease, caller) = (lease.clone(), caller.clone());
            async move { Ok(lease.keep_alive(request?, &caller).await?) }
        });
        let answers = answers.take_until(self.2.clone().cancelled_owned()).boxed();
        ready(Ok(tonic::Response::new(while_led(answers, self.3.take()))))
    }
}

/// Counts a stream that ends with an error; not one that its client has given up.
fn note_broken<Q>(request: &Result<Q, Status>, broken: &IntCounter) {
    if request.as_ref().is_err_and(|status| status.code() != Code::Cancelled) {
        broken.inc();
    }
}

/// Whether a test has this method do nothing, and say that all is well:
/// `FAILPOINTS=rpc-broken=return(/etcdserverpb.KV/Put)`.
#[cfg(feature = "failpoints")]
fn is_broken(method: Method) -> bool {
    fail::eval("rpc-broken", |path| path).flatten().as_deref() == Some(method.path())
}

/// Never, without the feature.
#[cfg(not(feature = "failpoints"))]
fn is_broken(_method: Method) -> bool {
    false
}

/// An empty message, or a stream without any.
fn nothing(method: Method) -> Answer {
    let (_, _, kind) = METHODS[method as usize];
    grpc(match kind {
        "unary" => Body::Message(Some(Bytes::from_static(&[0; unary::FRAME_HEADER_BYTES]))),
        _ => Body::messages(stream::empty()),
    })
}

/// As Go's client sends it, or the gateway's.
fn token(headers: &HeaderMap) -> Option<&str> {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    text("token").or_else(|| text("authorization").map(|text| text.strip_prefix("Bearer ").unwrap_or(text)))
}

/// The common name of the certificate that the connection's other end has shown.
fn certificate(request: &Request<Input>) -> Option<&str> {
    request.extensions().get::<CommonName>().map(|name| &*name.0)
}

const VALID: &str = "the descriptors are compiled in, and a test reads them";

fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(etcfs_proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

/// For who must have a request of their own. Where it is lent, no call's task has room for it twice.
fn take(request: &mut Request<Input>) -> Request<Input> {
    std::mem::replace(request, Request::new(Input::made(stream::empty())))
}

async fn foreign(service: &Foreign, request: &mut Request<Input>) -> Answer {
    match service.clone().call(take(request)).await {
        Ok(answer) => answer.map(Body::Stream),
        Err(never) => match never {},
    }
}

/// tonic has its own words for a message above the limit.
fn etcd_words(status: Status, max_bytes: usize) -> Status {
    if status.code() == Code::OutOfRange && status.message().contains("message length too large") {
        let length = status.message().split_whitespace().find_map(|word| word.parse().ok());
        return unary::too_large(length.unwrap_or(max_bytes + 1), max_bytes);
    }
    status
}

fn grpc(body: Body) -> Answer {
    let mut answer = Response::new(body);
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    answer
}

/// An error needs no body: its status stands in the headers.
fn refused(status: &Status) -> Answer {
    let mut answer = grpc(Body::Empty);
    if let Err(status) = status.add_header(answer.headers_mut()) {
        unreachable!("a status without metadata always fits into headers: {status}");
    }
    answer
}

/// grpc-go's words for a path that names nothing.
fn unknown(path: &str) -> Status {
    let Some((service, method)) = path.strip_prefix('/').and_then(|path| path.rsplit_once('/')) else {
        return Status::unimplemented(format!("malformed method name: {path:?}"));
    };
    if METHODS.iter().any(|(known, _, _)| *known == service) {
        Status::unimplemented(format!("unknown method {method} for service {service}"))
    } else {
        Status::unimplemented(format!("unknown service {service}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_descriptors_serve_reflection() {
        assert!(reflection().build_v1().is_ok() && reflection().build_v1alpha().is_ok());
    }

    #[test]
    fn an_unknown_path_is_answered_in_grpcs_words() {
        let text = |path| unknown(path).message().to_owned();
        assert_eq!(text("/etcdserverpb.KV/Nope"), "unknown method Nope for service etcdserverpb.KV");
        assert_eq!(text("/no.Such/Thing"), "unknown service no.Such");
        assert_eq!(text("nothing"), "malformed method name: \"nothing\"");
    }

    #[test]
    fn a_stream_message_above_the_limit_is_refused_in_grpcs_words() {
        let tonics = Status::out_of_range(
            "Error, decoded message length too large: found 4294967294 bytes, the limit is: 100 bytes",
        );
        let status = etcd_words(tonics, 100);
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(status.message(), "grpc: received message larger than max (4294967294 vs. 100)");
    }
}
