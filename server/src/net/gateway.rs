//! JSON over HTTP: each RPC at the path that its .proto gives it.
//!
//! A request becomes the gRPC request that it stands for and goes the same way
//! within this process, rights and limits included; the answer comes back in
//! etcd's JSON: bytes in base64, 64-bit numbers as text, nothing that is zero,
//! one line for each message of a stream. As with etcd, the content type is not
//! looked at, and what follows the one message of a call is passed over. A
//! WebSocket carries a call as well (`socket`). Whose
//! certificate a connection has shown is nobody's user here: who asks is told by
//! the token alone.

mod answer;
mod cut;
#[cfg(any(test, fuzzing))]
mod fuzz;
mod json;
mod long;
pub(super) mod socket;

use std::sync::{Arc, OnceLock};

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _, stream};
use http::{HeaderMap, HeaderName, Method as Verb, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;
use prost_reflect::MessageDescriptor;
use tonic::Status;

#[cfg(any(test, fuzzing))]
pub use self::fuzz::gateway;
use self::{
    answer::{answer, error_line, failure, message, refused},
    cut::Cutter,
    json::{Json, Route},
};
use super::{Rpc, body::Body, deadline, input::Input, unary};

/// Metadata of a call, as headers of the request: `Grpc-Metadata-Hasleader: true`.
const METADATA_PREFIX: &str = "grpc-metadata-";

/// What answers the JSON paths.
#[derive(Debug)]
pub struct Gateway {
    rpc: Arc<Rpc>,
    /// Of a request's text.
    max_text_bytes: usize,
    // Built when first asked for: few servers ever are, and it takes megabytes.
    json: OnceLock<Json>,
}

impl Gateway {
    pub fn new(rpc: Arc<Rpc>, max_receive_bytes: usize) -> Self {
        // As large as the largest message is in base64, and its field names.
        let max_text_bytes = max_receive_bytes.saturating_mul(3) / 2;
        Self { rpc, max_text_bytes, json: OnceLock::new() }
    }

    /// Whether a path is the gateway's to answer.
    pub(super) fn is_for(path: &str) -> bool {
        path.starts_with("/v3/") || path.starts_with("/v3beta/")
    }

    pub(super) async fn serve(self: &Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        let json = self.json.get_or_init(Json::new);
        let Some(route) = json.route(request.uri().path()) else {
            return refused(&Status::not_found("Not Found"));
        };
        if socket::is_upgrade(&request) {
            return socket::open(self, route, request);
        }
        if request.method() != Verb::POST {
            let mut answer = refused(&Status::unimplemented("Method Not Allowed"));
            *answer.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
            return answer;
        }
        self.forward(route, request).await.unwrap_or_else(|status| refused(&status))
    }

    async fn forward(&self, route: &Route, request: Request<Incoming>) -> Result<Response<Body>, Status> {
        let (parts, body) = request.into_parts();
        let input = if route.reads_stream {
            self.messages(route, body).await?
        } else {
            let text = self.text(body).await?;
            let framed = unary::write(&json::read(&route.input, &text)?)?;
            Input::made(stream::once(async { Ok(framed) }))
        };
        Ok(self.call(route, metadata(&parts.headers), input).await)
    }

    /// Makes a call; what it says in JSON.
    async fn call(&self, route: &Route, metadata: HeaderMap, input: Input) -> Response<Body> {
        self.answered(route, metadata, input).await.unwrap_or_else(|status| refused(&status))
    }

    async fn answered(
        &self,
        route: &Route,
        metadata: HeaderMap,
        input: Input,
    ) -> Result<Response<Body>, Status> {
        let mut call = Request::new(input);
        *call.uri_mut() = Uri::from_static(route.path);
        *call.headers_mut() = metadata;
        let (head, body) = self.rpc.call(call).await.into_parts();
        if let Some(status) = failure(&head.headers) {
            return Err(status);
        }
        match body {
            Body::Message(Some(framed)) => {
                let text = json::write(&route.output, message(&mut framed.into()).unwrap_or_default())?;
                Ok(answer(StatusCode::OK, Body::plain(text)))
            }
            Body::Pieces(pieces) => {
                let text = long::text(pieces, route.output.clone());
                Ok(answer(StatusCode::OK, Body::lines(text)))
            }
            messages => Ok(answer(StatusCode::OK, Body::lines(lines(messages, route.output.clone())))),
        }
    }

    /// The whole text of a call.
    async fn text(&self, body: Incoming) -> Result<Bytes, Status> {
        let max = self.max_text_bytes;
        match Limited::new(body, max).collect().await {
            Ok(whole) => Ok(whole.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => Err(unary::too_large(max + 1, max)),
            Err(error) => Err(Status::unknown(format!("the request broke off: {error}"))),
        }
    }

    /// The messages of a stream, as they come. The first is waited for: if it is no good,
    /// it is refused as a call's is; a later one ends the stream.
    async fn messages(&self, route: &Route, body: Incoming) -> Result<Input, Status> {
        let mut source = Box::pin(source(body, route.input.clone(), self.max_text_bytes));
        let first = source.next().await.transpose()?;
        let all = stream::iter(first.map(Ok)).chain(source);
        // Nobody can keep a body open for as long as a watch is to go on.
        let is_watch = route.path.ends_with("/Watch");
        Ok(if is_watch { Input::made(all.chain(stream::pending())) } else { Input::made(all) })
    }
}

/// What goes along with a call: the token, how long it may take, and what is marked as metadata.
fn metadata(headers: &HeaderMap) -> HeaderMap {
    let mut metadata = HeaderMap::new();
    for (name, value) in headers {
        let name = match name.as_str().strip_prefix(METADATA_PREFIX) {
            Some(name) => HeaderName::from_bytes(name.as_bytes()).ok(),
            None => Some(name.clone())
                .filter(|name| *name == http::header::AUTHORIZATION || name.as_str() == deadline::HEADER),
        };
        if let Some(name) = name {
            metadata.insert(name, value.clone());
        }
    }
    metadata
}

/// The JSON objects of a body as framed messages.
fn source(
    body: Incoming,
    descriptor: MessageDescriptor,
    max_bytes: usize,
) -> impl Stream<Item = Result<Bytes, Status>> + Send {
    stream::try_unfold((body, Cutter::new(max_bytes)), move |(mut body, mut cutter)| {
        let descriptor = descriptor.clone();
        async move {
            loop {
                if let Some(text) = cutter.next()? {
                    let framed = unary::write(&json::read(&descriptor, &text)?)?;
                    return Ok(Some((framed, (body, cutter))));
                }
                match body.frame().await {
                    Some(Ok(frame)) => cutter.feed(frame.into_data().unwrap_or_default()),
                    // The client has gone, or has no more to say.
                    Some(Err(_)) | None if cutter.is_between() => return Ok(None),
                    Some(Err(_)) | None => return Err(Status::invalid_argument("unexpected EOF")),
                }
            }
        }
    })
}

/// One answer a line.
fn lines(body: Body, output: MessageDescriptor) -> impl Stream<Item = Bytes> + Send {
    stream::unfold(Some((body, BytesMut::new())), move |state| {
        let output = output.clone();
        async move {
            let (mut body, mut buffer) = state?;
            let ended = loop {
                if let Some(message) = message(&mut buffer) {
                    match json::write(&output, message) {
                        Ok(text) => {
                            let line = [b"{\"result\":", text.as_ref(), b"}\n"].concat();
                            return Some((line.into(), Some((body, buffer))));
                        }
                        Err(status) => break status,
                    }
                }
                match body.frame().await? {
                    Err(status) => break status,
                    Ok(frame) => match frame.into_data() {
                        Ok(data) => buffer.extend_from_slice(&data),
                        Err(frame) => break failure(frame.trailers_ref()?)?,
                    },
                }
            };
            Some((error_line(&ended), None))
        }
    })
}
