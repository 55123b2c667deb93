//! The least that requests cost on a machine: tonic's own server, which reads each Put, Range, Txn
//! and LeaseKeepAlive and answers with an empty message, and sends the value of each Put to every
//! watch of its key or of a range that has it. What etcfsd takes beyond it is its own work.
//!
//!     floor ADDRESS:PORT

use std::{
    collections::HashMap,
    convert::Infallible,
    future::ready,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use anyhow::Context as _;
use bytes::Bytes;
use etcfs_proto::{
    etcdserverpb::{
        LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
        LeaseRevokeRequest, LeaseRevokeResponse, PutRequest, PutResponse, RangeRequest, RangeResponse,
        TxnRequest, TxnResponse, WatchCreateRequest, WatchRequest, WatchResponse,
        watch_request::RequestUnion,
    },
    mvccpb::{Event, KeyValue},
};
use futures_util::{StreamExt as _, stream};
use prost::Message;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    codegen::{BoxFuture, BoxStream, Service, http},
    server::{Grpc, NamedService},
    transport::Server,
};
use tonic_prost::ProstCodec;
use tower::service_fn;

type Answer = http::Response<Body>;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let address = std::env::args().nth(1).context("where to listen is missing: ADDRESS:PORT")?;
    let address: SocketAddr = address.parse().with_context(|| format!("{address} is not ADDRESS:PORT"))?;
    let watches = Watches::default();
    Server::builder()
        .add_service(Calls::<KV>(watches.clone()))
        .add_service(Calls::<WATCH>(watches.clone()))
        .add_service(Calls::<LEASE>(watches))
        .serve(address)
        .await?;
    Ok(())
}

const KV: u8 = 0;
const WATCH: u8 = 1;
const LEASE: u8 = 2;

/// All services, of which each has a name of its own.
#[derive(Clone)]
struct Calls<const SERVICE: u8>(Watches);

impl NamedService for Calls<KV> {
    const NAME: &'static str = "etcdserverpb.KV";
}

impl NamedService for Calls<WATCH> {
    const NAME: &'static str = "etcdserverpb.Watch";
}

impl NamedService for Calls<LEASE> {
    const NAME: &'static str = "etcdserverpb.Lease";
}

impl<const SERVICE: u8> Service<http::Request<Body>> for Calls<SERVICE> {
    type Response = Answer;
    type Error = Infallible;
    type Future = BoxFuture<Answer, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let watches = self.0.clone();
        Box::pin(async move {
            Ok(match request.uri().path() {
                "/etcdserverpb.KV/Put" => {
                    let put = move |PutRequest { key, value, .. }| {
                        watches.tell(&key, &value);
                        PutResponse::default()
                    };
                    answer(request, put).await
                }
                "/etcdserverpb.KV/Range" => answer(request, |_: RangeRequest| RangeResponse::default()).await,
                "/etcdserverpb.KV/Txn" => answer(request, |_: TxnRequest| TxnResponse::default()).await,
                "/etcdserverpb.Watch/Watch" => watch(request, watches).await,
                "/etcdserverpb.Lease/LeaseGrant" => {
                    let grant = |asked: LeaseGrantRequest| LeaseGrantResponse {
                        id: LEASE_ID,
                        ttl: asked.ttl,
                        ..LeaseGrantResponse::default()
                    };
                    answer(request, grant).await
                }
                "/etcdserverpb.Lease/LeaseRevoke" => {
                    answer(request, |_: LeaseRevokeRequest| LeaseRevokeResponse::default()).await
                }
                "/etcdserverpb.Lease/LeaseKeepAlive" => keep_alive(request).await,
                _ => Status::unimplemented("the floor knows no such method").into_http(),
            })
        })
    }
}

/// That of all leases: none is kept.
const LEASE_ID: i64 = 1;

async fn keep_alive(request: http::Request<Body>) -> Answer {
    let keep_alive = service_fn(|asked: Request<Streaming<LeaseKeepAliveRequest>>| {
        let renewed = asked.into_inner().map(|asked| {
            asked.map(|LeaseKeepAliveRequest { id }| LeaseKeepAliveResponse {
                id,
                ttl: 1,
                ..LeaseKeepAliveResponse::default()
            })
        });
        ready(Ok::<_, Status>(Response::new(renewed)))
    });
    let codec = ProstCodec::<LeaseKeepAliveResponse, LeaseKeepAliveRequest>::default();
    Grpc::new(codec).streaming(keep_alive, request).await
}

/// Who watches what.
#[derive(Clone, Default)]
struct Watches(Arc<Mutex<Watched>>);

#[derive(Default)]
struct Watched {
    keys: HashMap<Bytes, Vec<Watching>>,
    /// By their begins and ends.
    ranges: HashMap<(Bytes, Bytes), Vec<Watching>>,
}

/// A stream with all its watches of the same.
struct Watching {
    told: UnboundedSender<Put>,
    watch_ids: Arc<Vec<i64>>,
}

/// The value of a put, and who on the stream is told of it.
type Put = (Bytes, Arc<Vec<i64>>);

impl Watches {
    fn watched(&self) -> MutexGuard<'_, Watched> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, asked: WatchCreateRequest, watch_id: i64, told: &UnboundedSender<Put>) {
        let Watched { keys, ranges } = &mut *self.watched();
        let streams = match asked.range_end.is_empty() {
            true => keys.entry(asked.key).or_default(),
            false => ranges.entry((asked.key, asked.range_end)).or_default(),
        };
        streams.retain(|stream| !stream.told.is_closed());
        match streams.iter_mut().find(|stream| stream.told.same_channel(told)) {
            Some(stream) => Arc::make_mut(&mut stream.watch_ids).push(watch_id),
            None => streams.push(Watching { told: told.clone(), watch_ids: Arc::new(vec![watch_id]) }),
        }
    }

    fn tell(&self, key: &Bytes, value: &Bytes) {
        let Watched { keys, ranges } = &*self.watched();
        let ranges = ranges.iter().filter(|((begin, end), _)| begin <= key && key < end);
        for stream in keys.get(key).into_iter().chain(ranges.map(|(_, streams)| streams)).flatten() {
            // Nobody need be there.
            stream.told.send((value.clone(), stream.watch_ids.clone())).ok();
        }
    }
}

async fn watch(request: http::Request<Body>, watches: Watches) -> Answer {
    let watch = service_fn(|asked: Request<Streaming<WatchRequest>>| {
        ready(Ok::<_, Status>(Response::new(events(asked.into_inner(), watches.clone()))))
    });
    Grpc::new(ProstCodec::<WatchResponse, WatchRequest>::default()).streaming(watch, request).await
}

/// Each request begins a watch, and each put that it watches is one message to it.
fn events(asked: Streaming<WatchRequest>, watches: Watches) -> BoxStream<WatchResponse> {
    let (told, puts) = unbounded_channel();
    let created = asked.enumerate().map(move |(number, asked)| {
        let watch_id = i64::try_from(number).unwrap_or(i64::MAX);
        if let Some(RequestUnion::CreateRequest(create)) = asked?.request_union {
            watches.begin(create, watch_id, &told);
        }
        Ok(WatchResponse { watch_id, created: true, ..WatchResponse::default() })
    });
    let puts =
        stream::unfold(puts, async |mut puts: UnboundedReceiver<Put>| Some((puts.recv().await?, puts)));
    let events = puts.flat_map(|(value, watch_ids)| {
        let event = Event { kv: Some(KeyValue { value, ..KeyValue::default() }), ..Event::default() };
        let watches = watch_ids.len();
        let told = move |number: usize| WatchResponse {
            watch_id: watch_ids[number],
            events: vec![event.clone()],
            ..WatchResponse::default()
        };
        stream::iter((0..watches).map(told).map(Ok))
    });
    Box::pin(stream::select(created, events))
}

async fn answer<Q, A>(request: http::Request<Body>, answer: impl Fn(Q) -> A + Send) -> Answer
where
    Q: Message + Default + 'static,
    A: Message + Default + 'static,
{
    let answer = service_fn(|asked: Request<Q>| ready(Ok(Response::new(answer(asked.into_inner())))));
    Grpc::new(ProstCodec::<A, Q>::default()).unary(answer, request).await
}
