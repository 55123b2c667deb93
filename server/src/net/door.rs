//! Tells gRPC from plain HTTP, request by request.

use std::sync::Arc;

use futures_util::FutureExt as _;
use http::{Request, Response, header::CONTENT_TYPE};
use hyper::body::Incoming;
use tonic::service::Routes;
use tower::Service as _;

use super::{Http, Rpc, Web, body::Body, input::Input};

/// What a listener serves.
#[derive(Clone, Debug)]
pub enum Door {
    /// gRPC, the gateway and the plain endpoints.
    Clients(Arc<Rpc>, Arc<Web>),
    /// The plain endpoints alone.
    Metrics(Arc<Http>),
    /// What members ask of each other.
    Peers(Routes),
}

impl Door {
    pub(super) async fn serve(&self, request: Request<Incoming>) -> Response<Body> {
        match self {
            Self::Clients(rpc, _) if is_grpc(&request) => rpc.call(request.map(Input::Wire)).await,
            // Boxed, or each gRPC call's task would have room for them.
            Self::Clients(_, web) => web.serve(request).boxed().await,
            Self::Metrics(http) => http.serve(request).boxed().await,
            Self::Peers(routes) => match routes.clone().call(request).await {
                Ok(answer) => answer.map(Body::Stream),
                Err(never) => match never {},
            },
        }
    }

    /// False for members, who are not counted among the clients.
    pub(super) fn is_for_clients(&self) -> bool {
        !matches!(self, Self::Peers(_))
    }
}

fn is_grpc(request: &Request<Incoming>) -> bool {
    let content = request.headers().get(CONTENT_TYPE);
    content.is_some_and(|content| content.as_bytes().starts_with(b"application/grpc"))
}
