//! The least that a call costs on a machine: tonic's own server, which reads each Put, Range and
//! Txn and answers with an empty message. What etcfsd takes beyond it is its own work.
//!
//!     floor ADDRESS:PORT

use std::{
    convert::Infallible,
    future::ready,
    net::SocketAddr,
    task::{Context, Poll},
};

use anyhow::Context as _;
use etcfs_proto::etcdserverpb::{
    PutRequest, PutResponse, RangeRequest, RangeResponse, TxnRequest, TxnResponse,
};
use prost::Message;
use tonic::{
    Request, Response, Status,
    body::Body,
    codegen::{BoxFuture, Service, http},
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
    Server::builder().add_service(Kv).serve(address).await?;
    Ok(())
}

#[derive(Clone)]
struct Kv;

impl NamedService for Kv {
    const NAME: &'static str = "etcdserverpb.KV";
}

impl Service<http::Request<Body>> for Kv {
    type Response = Answer;
    type Error = Infallible;
    type Future = BoxFuture<Answer, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            Ok(match request.uri().path() {
                "/etcdserverpb.KV/Put" => nothing::<PutRequest, PutResponse>(request).await,
                "/etcdserverpb.KV/Range" => nothing::<RangeRequest, RangeResponse>(request).await,
                "/etcdserverpb.KV/Txn" => nothing::<TxnRequest, TxnResponse>(request).await,
                _ => Status::unimplemented("the floor knows no such method").into_http(),
            })
        })
    }
}

async fn nothing<Q, A>(request: http::Request<Body>) -> Answer
where
    Q: Message + Default + 'static,
    A: Message + Default + 'static,
{
    let answer = service_fn(|_: Request<Q>| ready(Ok(Response::new(A::default()))));
    Grpc::new(ProstCodec::<A, Q>::default()).unary(answer, request).await
}
