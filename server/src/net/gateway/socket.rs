//! The gateway over a WebSocket, as etcd has it.
//!
//! Each JSON object that comes is a message of the call, and each message of its
//! answer goes as a text of its own. A browser gives the token as a protocol
//! (`Sec-WebSocket-Protocol: Bearer, TOKEN`) or in a cookie, since a page can't set headers.
//! A socket is one call: it ends with the answer, or the call with the socket.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{
    Sink, SinkExt as _, Stream, StreamExt as _,
    stream::{self, SplitSink, SplitStream},
};
use http::{HeaderMap, HeaderValue, Method as Verb, Request, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::{
    body::Incoming,
    upgrade::{self, Upgraded},
};
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message, Utf8Bytes,
        handshake::derive_accept_key,
        protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
    },
};
use tonic::Status;

use super::{
    super::{body::Body, http::text, input::Input, place::Place, unary},
    Cutter, Gateway, Route, json, refused,
};

/// How a browser gives a token: as the second protocol that it offers.
const TOKEN_PROTOCOL: &str = "Bearer";
const TOKEN_COOKIE: &str = "token=";

type Socket = WebSocketStream<TokioIo<Upgraded>>;
type Messages = mpsc::Receiver<Result<Bytes, Status>>;

/// Whether a request asks for another protocol: its connection's place goes with it.
pub(in super::super) fn is_upgrade<B>(request: &Request<B>) -> bool {
    request.method() == Verb::GET && request.headers().contains_key(header::UPGRADE)
}

/// Answers a request for a WebSocket, which then makes a call of `route`.
pub(super) fn open(gateway: &Arc<Gateway>, route: &Route, mut request: Request<Incoming>) -> Response<Body> {
    let Some(accept) = accept(request.headers()) else {
        return text(StatusCode::BAD_REQUEST, "Bad Request: this is no WebSocket handshake of version 13\n");
    };
    let Some(place) = request.extensions_mut().remove::<Arc<Place>>() else {
        // HTTP/2, which has another handshake for it.
        return text(StatusCode::BAD_REQUEST, "Bad Request: a WebSocket takes HTTP/1.1\n");
    };
    let mut answer = Response::new(Body::Empty);
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    if protocol_token(request.headers()).is_some() {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(TOKEN_PROTOCOL));
    }
    let upgraded = upgrade::on(&mut request);
    let call =
        Call { gateway: Arc::clone(gateway), route: route.clone(), headers: metadata(request.headers()) };
    // The server's end waits for its place.
    tokio::spawn(async move {
        if let Ok(upgraded) = upgraded.await {
            call.run(upgraded, &place).await;
        }
    });
    answer
}

/// The key that answers a handshake's, if it is one.
fn accept(headers: &HeaderMap) -> Option<HeaderValue> {
    let has = |name, word: &str| {
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|given| given.trim().eq_ignore_ascii_case(word))
    };
    let is_handshake = has(header::CONNECTION, "upgrade")
        && has(header::UPGRADE, "websocket")
        && has(header::SEC_WEBSOCKET_VERSION, "13");
    let key = headers.get(header::SEC_WEBSOCKET_KEY).filter(|_| is_handshake)?;
    HeaderValue::try_from(derive_accept_key(key.as_bytes())).ok()
}

/// What goes along with the call: as for any other, and the token of a page.
fn metadata(headers: &HeaderMap) -> HeaderMap {
    let mut metadata = super::metadata(headers);
    let token = cookie_token(headers).or_else(|| protocol_token(headers));
    if let Some(token) = token.and_then(|token| HeaderValue::try_from(format!("Bearer {token}")).ok()) {
        metadata.insert(header::AUTHORIZATION, token);
    }
    metadata
}

fn protocol_token(headers: &HeaderMap) -> Option<&str> {
    let (name, token) = headers.get(header::SEC_WEBSOCKET_PROTOCOL)?.to_str().ok()?.split_once(',')?;
    (name.trim() == TOKEN_PROTOCOL).then(|| token.trim())
}

fn cookie_token(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    cookies.flat_map(|value| value.split(';')).find_map(|cookie| cookie.trim().strip_prefix(TOKEN_COOKIE))
}

/// One socket's.
struct Call {
    gateway: Arc<Gateway>,
    route: Route,
    headers: HeaderMap,
}

impl Call {
    async fn run(self, upgraded: Upgraded, place: &Place) {
        let max_bytes = self.gateway.max_text_bytes;
        let config =
            WebSocketConfig::default().max_message_size(Some(max_bytes)).max_frame_size(Some(max_bytes));
        let socket: Socket =
            WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
        let (mut sink, source) = socket.split();
        let (queue, messages) = mpsc::channel(1);
        let ended = tokio::select! {
            // The client has gone, and so does the call.
            () = self.take(source, queue) => return,
            () = place.shutdown.cancelled() => Ok(CloseCode::Away),
            ended = self.answer(messages, &mut sink) => ended.map(|()| CloseCode::Normal),
        };
        if let Ok(code) = ended {
            let farewell = CloseFrame { code, reason: Utf8Bytes::default() };
            // It may be gone already.
            let _unheard = sink.send(Message::Close(Some(farewell))).await;
        }
    }

    /// Passes on what the client sends, until it closes the socket.
    async fn take(&self, mut source: SplitStream<Socket>, queue: mpsc::Sender<Result<Bytes, Status>>) {
        let mut cutter = Cutter::new(self.gateway.max_text_bytes);
        while let Some(Ok(message)) = source.next().await {
            if !message.is_text() && !message.is_binary() {
                continue;
            }
            cutter.feed(message.into_data());
            loop {
                let cut = cutter.next().and_then(|text| {
                    text.map(|text| unary::write(&json::read(&self.route.input, &text)?)).transpose()
                });
                let Some(message) = cut.transpose() else { break };
                let is_wrong = message.is_err();
                // Nobody takes a second message of a call that has but one.
                let _unread = queue.send(message).await;
                if is_wrong {
                    // The answer says so and ends; until then, the socket is read no more.
                    return std::future::pending().await;
                }
            }
        }
    }

    /// Makes the call, and sends what it answers.
    async fn answer(
        &self,
        mut messages: Messages,
        sink: &mut SplitSink<Socket, Message>,
    ) -> Result<(), Error> {
        let Some(first) = messages.recv().await else { return Ok(()) };
        let body = match first {
            Err(status) => refused(&status),
            Ok(first) => {
                let input = if self.route.reads_stream {
                    let all = stream::iter([Ok(first)]).chain(ReceiverStream::new(messages));
                    Input::made(all)
                } else {
                    drop(messages);
                    Input::made(stream::iter([Ok(first)]))
                };
                self.gateway.call(&self.route, self.headers.clone(), input).await
            }
        };
        send(self.texts(body.into_body()), sink).await
    }

    /// An answer as the texts that it is sent as.
    fn texts(&self, body: Body) -> impl Stream<Item = Bytes> + Send + use<> {
        let data = stream::unfold(body, |mut body| async move {
            // The gateway's bodies can't fail: what goes wrong is said in them.
            let frame = body.frame().await?.ok()?;
            Some((frame.into_data().unwrap_or_default(), body))
        });
        let whole = !self.route.answers_stream;
        stream::unfold(Some(data.boxed()), move |data| async move {
            let mut data = data?;
            if whole {
                let parts: Vec<Bytes> = data.collect().await;
                return Some((parts.concat().into(), None));
            }
            Some((data.next().await?, Some(data)))
        })
    }
}

async fn send<S>(texts: impl Stream<Item = Bytes>, sink: &mut S) -> Result<(), S::Error>
where
    S: Sink<Message, Error = Error> + Unpin,
{
    let mut texts = std::pin::pin!(texts);
    while let Some(text) = texts.next().await {
        let line = text.strip_suffix(b"\n").map_or_else(|| text.clone(), |line| text.slice_ref(line));
        let line = Utf8Bytes::try_from(line).expect("JSON is text");
        sink.send(Message::Text(line)).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(given: &[(&'static str, &'static str)]) -> HeaderMap {
        given
            .iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn a_handshake_is_answered_by_its_key_and_nothing_else_is_one() {
        // RFC 6455, 1.3.
        let good = [
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "WebSocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        assert_eq!(accept(&headers(&good)).unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        for without in 0..good.len() {
            let given: Vec<_> = (0..good.len()).filter(|nth| *nth != without).map(|nth| good[nth]).collect();
            assert_eq!(accept(&headers(&given)), None, "{given:?}");
        }
    }

    #[test]
    fn a_page_gives_its_token_as_a_protocol_or_in_a_cookie() {
        let bearer = |given: &[_]| metadata(&headers(given)).get("authorization").cloned();
        assert_eq!(bearer(&[("sec-websocket-protocol", "Bearer, abc.1")]).unwrap(), "Bearer abc.1");
        assert_eq!(bearer(&[("cookie", "a=b; token=abc.1")]).unwrap(), "Bearer abc.1");
        assert_eq!(bearer(&[("authorization", "abc.1")]).unwrap(), "abc.1");
        assert_eq!(bearer(&[("sec-websocket-protocol", "chat, abc.1"), ("cookie", "mytoken=x")]), None);
    }
}
