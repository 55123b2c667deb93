//! The etcd v3 API as tests call it: one blocking function an RPC, raw messages.
//!
//! On the generated stubs and not on our own client, so that what a server
//! answers is seen as it is: no retry, no failover, no resumed watch.

use std::{future::Future, sync::OnceLock, time::Duration};

use bytes::Bytes;
use etcfs_proto::{
    etcdserverpb::{
        AlarmRequest, AlarmResponse, AuthDisableRequest, AuthDisableResponse, AuthEnableRequest,
        AuthEnableResponse, AuthRoleAddRequest, AuthRoleAddResponse, AuthRoleDeleteRequest,
        AuthRoleDeleteResponse, AuthRoleGetRequest, AuthRoleGetResponse, AuthRoleGrantPermissionRequest,
        AuthRoleGrantPermissionResponse, AuthRoleListRequest, AuthRoleListResponse,
        AuthRoleRevokePermissionRequest, AuthRoleRevokePermissionResponse, AuthStatusRequest,
        AuthStatusResponse, AuthUserAddRequest, AuthUserAddResponse, AuthUserChangePasswordRequest,
        AuthUserChangePasswordResponse, AuthUserDeleteRequest, AuthUserDeleteResponse, AuthUserGetRequest,
        AuthUserGetResponse, AuthUserGrantRoleRequest, AuthUserGrantRoleResponse, AuthUserListRequest,
        AuthUserListResponse, AuthUserRevokeRoleRequest, AuthUserRevokeRoleResponse, AuthenticateRequest,
        AuthenticateResponse, CompactionRequest, CompactionResponse, DefragmentRequest, DefragmentResponse,
        DeleteRangeRequest, DeleteRangeResponse, HashKvRequest, HashKvResponse, HashRequest, HashResponse,
        LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
        LeaseLeasesRequest, LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse,
        LeaseTimeToLiveRequest, LeaseTimeToLiveResponse, MemberListRequest, MemberListResponse, PutRequest,
        PutResponse, RangeRequest, RangeResponse, RequestOp, StatusRequest, StatusResponse, TxnRequest,
        TxnResponse, WatchCancelRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest,
        WatchResponse, auth_client::AuthClient, cluster_client::ClusterClient, kv_client::KvClient,
        lease_client::LeaseClient, maintenance_client::MaintenanceClient, request_op,
        watch_client::WatchClient, watch_request,
    },
    key::{TO_END, prefix_end},
    mvccpb::{Event, KeyValue},
    v3electionpb::election_client::ElectionClient,
    v3lockpb::lock_client::LockClient,
};
use tokio::{runtime::Runtime, sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Status, Streaming,
    transport::{Channel, Endpoint},
};

use crate::wait::PATIENCE;

/// Requests of one stream that may wait to be sent.
const STREAM_QUEUE: usize = 256;

/// The runtime that all of a test process's calls run on.
pub fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("threads for a runtime")
    })
}

/// A connection to one server.
#[derive(Clone, Debug)]
pub struct Api {
    channel: Channel,
    /// Sent with every call.
    token: Option<String>,
}

/// What a call gives: the answer or the server's status, code and message.
pub type Answer<T> = Result<T, Status>;

macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident($request:ty) -> $response:ty = $client:ident . $method:ident;)*) => {
        $($(#[$doc])* pub fn $name(&self, request: $request) -> Answer<$response> {
            self.wait(self.$client().$method(self.signed(request))).map(tonic::Response::into_inner)
        })*
    };
}

impl Api {
    /// Connects when first used.
    pub fn to(endpoint: &str) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{endpoint}")).expect("host and port");
        let _guard = runtime().enter();
        Self { channel: endpoint.connect_timeout(Duration::from_secs(5)).connect_lazy(), token: None }
    }

    /// The same connection for who has `token`.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Self { channel: self.channel.clone(), token: Some(token.to_owned()) }
    }

    /// The same connection for a user who logs in.
    #[must_use]
    #[track_caller]
    pub fn log_in(&self, name: &str, password: &str) -> Self {
        let request = AuthenticateRequest { name: name.into(), password: password.into() };
        self.with_token(&self.authenticate(request).expect("the login is accepted").token)
    }

    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// A request with the token, if there is one.
    pub fn signed<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        if let Some(token) = &self.token {
            request.metadata_mut().insert("token", token.parse().expect("a token is plain text"));
        }
        request
    }

    pub fn lock(&self) -> LockClient<Channel> {
        LockClient::new(self.channel.clone())
    }
    pub fn election(&self) -> ElectionClient<Channel> {
        ElectionClient::new(self.channel.clone())
    }
    pub fn auth(&self) -> AuthClient<Channel> {
        AuthClient::new(self.channel.clone())
    }

    pub fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel.clone()).max_decoding_message_size(usize::MAX)
    }
    pub fn lease(&self) -> LeaseClient<Channel> {
        LeaseClient::new(self.channel.clone())
    }
    pub fn cluster(&self) -> ClusterClient<Channel> {
        ClusterClient::new(self.channel.clone())
    }
    pub fn maintenance(&self) -> MaintenanceClient<Channel> {
        MaintenanceClient::new(self.channel.clone())
    }
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Runs `call` to its end; one that is never answered fails the test.
    pub fn wait<T>(&self, call: impl Future<Output = Answer<T>>) -> Answer<T> {
        runtime().block_on(async { timeout(PATIENCE, call).await.expect("every call is answered") })
    }

    calls! {
        range(RangeRequest) -> RangeResponse = kv.range;
        put(PutRequest) -> PutResponse = kv.put;
        delete(DeleteRangeRequest) -> DeleteRangeResponse = kv.delete_range;
        txn(TxnRequest) -> TxnResponse = kv.txn;
        compact(CompactionRequest) -> CompactionResponse = kv.compact;
        grant(LeaseGrantRequest) -> LeaseGrantResponse = lease.lease_grant;
        revoke(LeaseRevokeRequest) -> LeaseRevokeResponse = lease.lease_revoke;
        time_to_live(LeaseTimeToLiveRequest) -> LeaseTimeToLiveResponse = lease.lease_time_to_live;
        leases(LeaseLeasesRequest) -> LeaseLeasesResponse = lease.lease_leases;
        authenticate(AuthenticateRequest) -> AuthenticateResponse = auth.authenticate;
        auth_enable(AuthEnableRequest) -> AuthEnableResponse = auth.auth_enable;
        auth_disable(AuthDisableRequest) -> AuthDisableResponse = auth.auth_disable;
        auth_status(AuthStatusRequest) -> AuthStatusResponse = auth.auth_status;
        user_add(AuthUserAddRequest) -> AuthUserAddResponse = auth.user_add;
        user_get(AuthUserGetRequest) -> AuthUserGetResponse = auth.user_get;
        user_list(AuthUserListRequest) -> AuthUserListResponse = auth.user_list;
        user_delete(AuthUserDeleteRequest) -> AuthUserDeleteResponse = auth.user_delete;
        user_change_password(AuthUserChangePasswordRequest) -> AuthUserChangePasswordResponse = auth.user_change_password;
        user_grant_role(AuthUserGrantRoleRequest) -> AuthUserGrantRoleResponse = auth.user_grant_role;
        user_revoke_role(AuthUserRevokeRoleRequest) -> AuthUserRevokeRoleResponse = auth.user_revoke_role;
        role_add(AuthRoleAddRequest) -> AuthRoleAddResponse = auth.role_add;
        role_get(AuthRoleGetRequest) -> AuthRoleGetResponse = auth.role_get;
        role_list(AuthRoleListRequest) -> AuthRoleListResponse = auth.role_list;
        role_delete(AuthRoleDeleteRequest) -> AuthRoleDeleteResponse = auth.role_delete;
        role_grant_permission(AuthRoleGrantPermissionRequest) -> AuthRoleGrantPermissionResponse = auth.role_grant_permission;
        role_revoke_permission(AuthRoleRevokePermissionRequest) -> AuthRoleRevokePermissionResponse = auth.role_revoke_permission;
        alarm(AlarmRequest) -> AlarmResponse = maintenance.alarm;
        status(StatusRequest) -> StatusResponse = maintenance.status;
        hash(HashRequest) -> HashResponse = maintenance.hash;
        hash_kv(HashKvRequest) -> HashKvResponse = maintenance.hash_kv;
        defragment(DefragmentRequest) -> DefragmentResponse = maintenance.defragment;
        member_list(MemberListRequest) -> MemberListResponse = cluster.member_list;
    }

    /// Puts a value; returns the revision it made.
    #[track_caller]
    pub fn set(&self, key: &str, value: impl Into<Bytes>) -> i64 {
        let answer = self.put(put(key, value)).expect("a put is accepted");
        answer.header.expect("every answer has a header").revision
    }

    /// The pair under `key`.
    #[track_caller]
    pub fn get(&self, key: &str) -> Option<KeyValue> {
        self.range(get(key)).expect("a range is answered").kvs.pop()
    }

    /// The value under `key`, as text.
    #[track_caller]
    pub fn value(&self, key: &str) -> Option<String> {
        self.get(key).map(|kv| String::from_utf8_lossy(&kv.value).into_owned())
    }

    /// Every pair under `prefix`.
    #[track_caller]
    pub fn all(&self, prefix_: &str) -> Vec<KeyValue> {
        self.range(prefix(prefix_)).expect("a range is answered").kvs
    }

    /// The current revision of the store.
    #[track_caller]
    pub fn revision(&self) -> i64 {
        let request = RangeRequest { count_only: true, ..get("no such key") };
        self.range(request).expect("a range is answered").header.expect("every answer has a header").revision
    }

    /// One renewal of `lease`.
    pub fn keep_alive(&self, lease: i64) -> Answer<LeaseKeepAliveResponse> {
        self.wait(async {
            let requests = tokio_stream::once(LeaseKeepAliveRequest { id: lease });
            let mut answers = self.lease().lease_keep_alive(self.signed(requests)).await?.into_inner();
            answers.message().await?.ok_or_else(|| Status::unknown("the stream ended without an answer"))
        })
    }

    /// Opens a watch stream without watchers.
    pub fn watch_stream(&self) -> WatchStream {
        let (requests, queue) = mpsc::channel(STREAM_QUEUE);
        let mut client = WatchClient::new(self.channel.clone()).max_decoding_message_size(usize::MAX);
        let request = self.signed(ReceiverStream::new(queue));
        let opening =
            runtime().spawn(async move { client.watch(request).await.map(tonic::Response::into_inner) });
        WatchStream { requests, opening: Some(opening), responses: None }
    }

    /// Opens a stream with one watcher that has been confirmed.
    #[track_caller]
    pub fn watch(&self, request: WatchCreateRequest) -> WatchStream {
        let mut stream = self.watch_stream();
        stream.create(request);
        let created = stream.next();
        assert!(created.created && !created.canceled, "the watch was refused: {created:?}");
        stream
    }

    /// Every event under `prefix_` from `revision` to the present, in order.
    #[track_caller]
    pub fn events_since(&self, prefix_: &str, revision: i64) -> Vec<Event> {
        let last = self.all(prefix_).iter().map(|kv| kv.mod_revision).max().unwrap_or(0);
        let current = self.revision();
        let mut events: Vec<Event> = Vec::new();
        let mut stream = self.watch(watch_prefix(prefix_, revision));
        // The newest event can be a delete, which no range shows: ask for progress until it passes.
        let mut seen = 0;
        while seen < current {
            if seen < last {
                let response = stream.next();
                seen = seen.max(response.events.last().map_or(0, event_revision));
                events.extend(response.events);
            } else {
                stream.progress();
                let response = stream.next();
                if response.events.is_empty() {
                    seen = response.header.map_or(0, |header| header.revision);
                }
                events.extend(response.events);
            }
        }
        events
    }
}

/// One stream of watches.
#[derive(Debug)]
pub struct WatchStream {
    requests: mpsc::Sender<WatchRequest>,
    opening: Option<tokio::task::JoinHandle<Answer<Streaming<WatchResponse>>>>,
    responses: Option<Streaming<WatchResponse>>,
}

impl WatchStream {
    pub fn create(&self, request: WatchCreateRequest) {
        self.send(watch_request::RequestUnion::CreateRequest(request));
    }
    pub fn cancel(&self, watch_id: i64) {
        self.send(watch_request::RequestUnion::CancelRequest(WatchCancelRequest { watch_id }));
    }
    pub fn progress(&self) {
        self.send(watch_request::RequestUnion::ProgressRequest(WatchProgressRequest {}));
    }
    /// Sends a request that asks for nothing.
    pub fn empty(&self) {
        self.queue(WatchRequest { request_union: None });
    }
    fn send(&self, union: watch_request::RequestUnion) {
        self.queue(WatchRequest { request_union: Some(union) });
    }
    fn queue(&self, request: WatchRequest) {
        self.requests.try_send(request).expect("the stream is open and its queue long enough");
    }

    /// The next response.
    #[expect(clippy::should_implement_trait, reason = "a stream that ends fails the test")]
    #[track_caller]
    pub fn next(&mut self) -> WatchResponse {
        self.next_within(PATIENCE).expect("a response comes")
    }

    /// The next response, if one comes in `patience`.
    #[track_caller]
    pub fn next_within(&mut self, patience: Duration) -> Option<WatchResponse> {
        let next = async {
            if let Some(opening) = self.opening.take() {
                self.responses = Some(opening.await.expect("opening a stream does not panic")?);
            }
            self.responses.as_mut().expect("opened above").message().await
        };
        match runtime().block_on(async { timeout(patience, next).await }) {
            Err(_) => None,
            Ok(Ok(Some(response))) => Some(response),
            Ok(Ok(None)) => panic!("the server ended the watch stream"),
            Ok(Err(status)) => panic!("the watch stream broke: {status}"),
        }
    }

    /// The status that the server ends the stream with.
    #[track_caller]
    pub fn end(&mut self) -> Status {
        let responses = self.responses.as_mut().expect("a response has come");
        let ended = async {
            loop {
                match responses.message().await {
                    Ok(Some(_)) => {}
                    Ok(None) => return Status::ok(""),
                    Err(status) => return status,
                }
            }
        };
        runtime().block_on(async { timeout(PATIENCE, ended).await.expect("the stream ends") })
    }

    /// The next `count` events, over as many responses as they take.
    #[track_caller]
    pub fn events(&mut self, count: usize) -> Vec<Event> {
        let mut events = Vec::new();
        while events.len() < count {
            events.extend(self.next().events);
        }
        assert_eq!(events.len(), count, "more events than expected: {events:?}");
        events
    }
}

/// The revision that made an event.
pub fn event_revision(event: &Event) -> i64 {
    event.kv.as_ref().map_or(0, |kv| kv.mod_revision)
}

pub fn get(key: &str) -> RangeRequest {
    RangeRequest { key: Bytes::copy_from_slice(key.as_bytes()), ..Default::default() }
}
pub fn prefix(prefix: &str) -> RangeRequest {
    let (key, range_end) = prefix_bounds(prefix);
    RangeRequest { key, range_end, ..Default::default() }
}
pub fn put(key: &str, value: impl Into<Bytes>) -> PutRequest {
    PutRequest { key: Bytes::copy_from_slice(key.as_bytes()), value: value.into(), ..Default::default() }
}
pub fn put_on_lease(key: &str, value: impl Into<Bytes>, lease: i64) -> PutRequest {
    PutRequest { lease, ..put(key, value) }
}
pub fn delete(key: &str) -> DeleteRangeRequest {
    DeleteRangeRequest { key: Bytes::copy_from_slice(key.as_bytes()), ..Default::default() }
}
pub fn delete_prefix(prefix: &str) -> DeleteRangeRequest {
    let (key, range_end) = prefix_bounds(prefix);
    DeleteRangeRequest { key, range_end, ..Default::default() }
}
pub fn compact(revision: i64) -> CompactionRequest {
    CompactionRequest { revision, physical: false }
}
pub fn grant(ttl: i64) -> LeaseGrantRequest {
    LeaseGrantRequest { ttl, id: 0 }
}
pub fn watch_key(key: &str, start_revision: i64) -> WatchCreateRequest {
    WatchCreateRequest { key: Bytes::copy_from_slice(key.as_bytes()), start_revision, ..Default::default() }
}
pub fn watch_prefix(prefix: &str, start_revision: i64) -> WatchCreateRequest {
    let (key, range_end) = prefix_bounds(prefix);
    WatchCreateRequest { key, range_end, start_revision, ..Default::default() }
}

/// `key` and `range_end` for every key that starts with `prefix`.
fn prefix_bounds(prefix: &str) -> (Bytes, Bytes) {
    if prefix.is_empty() {
        return (Bytes::from_static(TO_END), Bytes::from_static(TO_END));
    }
    let key = Bytes::copy_from_slice(prefix.as_bytes());
    let end = prefix_end(&key);
    (key, end)
}

impl From<Op> for RequestOp {
    fn from(op: Op) -> Self {
        let request = match op {
            Op::Range(request) => request_op::Request::RequestRange(request),
            Op::Put(request) => request_op::Request::RequestPut(request),
            Op::Delete(request) => request_op::Request::RequestDeleteRange(request),
            Op::Txn(request) => request_op::Request::RequestTxn(request),
        };
        Self { request: Some(request) }
    }
}

/// One operation of a transaction.
#[derive(Clone, Debug)]
pub enum Op {
    Range(RangeRequest),
    Put(PutRequest),
    Delete(DeleteRangeRequest),
    Txn(TxnRequest),
}

/// A transaction of `ops` alone.
pub fn txn(ops: impl IntoIterator<Item = Op>) -> TxnRequest {
    TxnRequest { compare: vec![], success: ops.into_iter().map(RequestOp::from).collect(), failure: vec![] }
}
