//! turmoil's network under the members' own transport.

use std::{net::Ipv4Addr, time::Duration};

use etcfs_proto::etcfs::peer::errands_server::ErrandsServer;
use etcfs_server::{
    raft::{Connecting, Network, Node, PeerService, Stream},
    service::Errands,
};
use hyper::{server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio_util::sync::CancellationToken;
use tonic::service::{Routes, interceptor::InterceptedService};
use tower::Service as _;
use turmoil::net::{TcpListener, TcpStream};

/// The port that members are reached at.
pub(crate) const PORT: u16 = 2380;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Wire;

impl Network for Wire {
    fn connect(&self, host: String, port: u16) -> Connecting {
        Box::pin(async move {
            let stream = TcpStream::connect((host, port)).await?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        })
    }
}

/// Serves the other members for as long as this one lives.
pub(crate) async fn serve(node: Node, errands: Errands, ping: Duration) {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).await.expect("the port is free");
    let service = PeerService::new(&node, CancellationToken::new());
    let errands = InterceptedService::new(ErrandsServer::new(errands), node.guard());
    let routes = Routes::new(service.transport()).add_service(service.roster()).add_service(errands);
    loop {
        let (stream, _) = listener.accept().await.expect("listens until it is dropped");
        tokio::spawn(connection(stream, routes.clone(), ping));
    }
}

async fn connection(stream: TcpStream, routes: Routes, ping: Duration) {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    // As the product has it; a date would be another one in each run.
    builder.timer(TokioTimer::new()).auto_date_header(false);
    builder.keep_alive_interval(Some(ping)).keep_alive_timeout(ping);
    let service = service_fn(move |request| routes.clone().call(request));
    if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(target: "etcfs_sim", %error, "a connection ended");
    }
}
