//! The least that requests cost on a machine: tonic's own server, which reads each Put, Range and
//! Txn and answers with an empty message, and sends the value of each Put to every watch, whatever
//! that asked for. What etcfsd takes beyond it is its own work.
//!
//!     floor ADDRESS:PORT

use std::{
    convert::Infallible,
    future::ready,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    task::{Context, Poll},
};

use anyhow::Context as _;
use bytes::Bytes;
use etcfs_proto::{
    etcdserverpb::{
        PutRequest, PutResponse, RangeRequest, RangeResponse, TxnRequest, TxnResponse, WatchRequest,
        WatchResponse,
    },
    mvccpb::{Event, KeyValue},
};
use futures_util::{StreamExt as _, stream};
use prost::Message;
use tokio::sync::broadcast;
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

/// Puts that a stream of watches may be behind.
const PUTS_BEHIND: usize = 65_536;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let address = std::env::args().nth(1).context("where to listen is missing: ADDRESS:PORT")?;
    let address: SocketAddr = address.parse().with_context(|| format!("{address} is not ADDRESS:PORT"))?;
    let (puts, _) = broadcast::channel(PUTS_BEHIND);
    let (calls, watches) = (Calls::<false>(puts.clone()), Calls::<true>(puts));
    Server::builder().add_service(calls).add_service(watches).serve(address).await?;
    Ok(())
}

/// Both services, of which each has a name of its own.
#[derive(Clone)]
struct Calls<const WATCHES: bool>(broadcast::Sender<Bytes>);

impl NamedService for Calls<false> {
    const NAME: &'static str = "etcdserverpb.KV";
}

impl NamedService for Calls<true> {
    const NAME: &'static str = "etcdserverpb.Watch";
}

impl<const WATCHES: bool> Service<http::Request<Body>> for Calls<WATCHES> {
    type Response = Answer;
    type Error = Infallible;
    type Future = BoxFuture<Answer, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let puts = self.0.clone();
        Box::pin(async move {
            Ok(match request.uri().path() {
                "/etcdserverpb.KV/Put" => {
                    let put = move |put: PutRequest| {
                        // Nobody need be there.
                        puts.send(put.value).ok();
                        PutResponse::default()
                    };
                    answer(request, put).await
                }
                "/etcdserverpb.KV/Range" => answer(request, |_: RangeRequest| RangeResponse::default()).await,
                "/etcdserverpb.KV/Txn" => answer(request, |_: TxnRequest| TxnResponse::default()).await,
                "/etcdserverpb.Watch/Watch" => watch(request, puts).await,
                _ => Status::unimplemented("the floor knows no such method").into_http(),
            })
        })
    }
}

async fn watch(request: http::Request<Body>, puts: broadcast::Sender<Bytes>) -> Answer {
    let watch = service_fn(|asked: Request<Streaming<WatchRequest>>| {
        ready(Ok::<_, Status>(Response::new(events(asked.into_inner(), puts.subscribe()))))
    });
    Grpc::new(ProstCodec::<WatchResponse, WatchRequest>::default()).streaming(watch, request).await
}

/// Each request begins a watch, and each put is one message to each of those that have begun.
fn events(asked: Streaming<WatchRequest>, puts: broadcast::Receiver<Bytes>) -> BoxStream<WatchResponse> {
    let begun = Arc::new(AtomicI64::new(0));
    let watches = Arc::clone(&begun);
    let created = asked.map(move |asked| {
        let watch_id = begun.fetch_add(1, Ordering::Relaxed);
        asked.map(|_| WatchResponse { watch_id, created: true, ..WatchResponse::default() })
    });
    let puts = stream::unfold(puts, async |mut puts| Some((puts.recv().await.ok()?, puts)));
    let events = puts.flat_map(move |value| {
        let event = Event { kv: Some(KeyValue { value, ..KeyValue::default() }), ..Event::default() };
        let told = move |watch_id| WatchResponse {
            watch_id,
            events: vec![event.clone()],
            ..WatchResponse::default()
        };
        stream::iter((0..watches.load(Ordering::Relaxed)).map(told).map(Ok))
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
