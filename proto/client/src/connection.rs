//! One HTTP/2 connection to one endpoint, and what is known when it fails.
//!
//! hyper hands a request back if it never wrote it; that, and a stream that
//! the server refused unprocessed, are the only failures reported as unsent.
//! The errors carry no `source`: tonic would turn a hyper error found there
//! into a plain status, and with it the distinction would be gone.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use etcfs_proto::etcdserverpb::AuthenticateRequest;
use http::{HeaderValue, Request, Response, header};
use http_body_util::{BodyExt, combinators::MapErr};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tonic::{Code, body::Body};

use crate::{
    Config, Credentials, PasswordSource, Unsent, auth,
    endpoint::{Endpoint, Scheme},
    tls::Connector,
};

/// Bytes that a server may send on one stream, and on the connection, before we have read them.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
const USER_AGENT: HeaderValue = HeaderValue::from_static(concat!("etcfs-client/", env!("CARGO_PKG_VERSION")));

/// A failure below gRPC.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum TransportError {
    #[error("{0}")]
    Unsent(String),
    #[error("{0}")]
    Lost(String),
}

/// A connection in use; clones share it.
#[derive(Clone)]
pub(crate) struct Connection {
    send: http2::SendRequest<Body>,
    endpoint: Arc<Endpoint>,
    /// Position of the endpoint in the client's list.
    pub(crate) place: usize,
    /// Tells connections to one endpoint apart.
    pub(crate) number: u64,
    /// What the login gave.
    token: Option<HeaderValue>,
    /// Largest answer that is taken.
    pub(crate) answer_bytes_max: usize,
}

impl Connection {
    pub(crate) async fn dial(
        endpoint: Arc<Endpoint>,
        place: usize,
        number: u64,
        config: &Config,
        tls: Option<&Connector>,
    ) -> Result<Self, Unsent> {
        let limit = config.connect_timeout;
        let failed = |reason: String| Unsent::Connect { endpoint: endpoint.to_string(), reason };
        let open = async {
            let tcp = TcpStream::connect(endpoint.authority()).await.map_err(|e| failed(e.to_string()))?;
            // Requests are small and wait for answers: Nagle would only delay them.
            tcp.set_nodelay(true).map_err(|e| failed(e.to_string()))?;
            let send = match tls.filter(|_| endpoint.scheme() != Scheme::Plain) {
                Some(tls) => {
                    let stream = tls.connect(endpoint.host(), tcp).await;
                    handshake(stream.map_err(|e| failed(e.to_string()))?, config).await
                }
                None => handshake(tcp, config).await,
            };
            let send = send.map_err(|e| failed(describe(&e)))?;
            let mut this = Self {
                send,
                endpoint: Arc::clone(&endpoint),
                place,
                number,
                token: None,
                answer_bytes_max: config.answer_bytes_max,
            };
            this.log_in(config).await?;
            Ok(this)
        };
        let opened = tokio::time::timeout(limit, open).await;
        opened.unwrap_or_else(|_| Err(failed(format!("no connection within {limit:?}"))))
    }

    async fn log_in(&mut self, config: &Config) -> Result<(), Unsent> {
        let Some(Credentials { user, password }) = &config.credentials else { return Ok(()) };
        let newer = config.password.as_ref().and_then(PasswordSource::ask);
        let password = newer.unwrap_or_else(|| password.clone());
        let request = AuthenticateRequest { name: user.clone(), password };
        let endpoint = || self.endpoint.to_string();
        match auth::stub(self.clone()).authenticate(request).await {
            Ok(answer) => {
                let token = HeaderValue::try_from(answer.into_inner().token);
                let mut token = token.map_err(|_| Unsent::Login {
                    endpoint: endpoint(),
                    reason: "its token is no text".into(),
                })?;
                token.set_sensitive(true);
                self.token = Some(token);
                Ok(())
            }
            // Nobody needs to log in there.
            Err(status) if status.message().ends_with("authentication is not enabled") => Ok(()),
            Err(status) => match status.code() {
                Code::InvalidArgument | Code::Unknown | Code::PermissionDenied | Code::Unimplemented
                    if std::error::Error::source(&status).is_none() =>
                {
                    Err(Unsent::Login { endpoint: endpoint(), reason: status.message().to_owned() })
                }
                _ => Err(Unsent::Connect { endpoint: endpoint(), reason: status.message().to_owned() }),
            },
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.send.is_closed()
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    pub(crate) fn origin(&self) -> http::Uri {
        self.endpoint.origin().clone()
    }
}

async fn handshake<S>(stream: S, config: &Config) -> hyper::Result<http2::SendRequest<Body>>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (send, driver) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .keep_alive_interval(Some(config.keepalive_interval).filter(|every| *every > Duration::ZERO))
        .keep_alive_timeout(config.keepalive_timeout)
        .keep_alive_while_idle(false)
        .handshake(TokioIo::new(stream))
        .await?;
    // Ends when the last handle is dropped or the connection breaks; each
    // request then learns of it by itself.
    tokio::spawn(async move {
        if let Err(error) = driver.await {
            tracing::debug!(%error, "connection ended");
        }
    });
    Ok(send)
}

/// The error with its causes: hyper's own message alone says little.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

fn refused_unprocessed(error: &hyper::Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if let Some(h2) = error.downcast_ref::<h2::Error>() {
            return h2.is_remote() && h2.is_reset() && h2.reason() == Some(h2::Reason::REFUSED_STREAM);
        }
        cause = error.source();
    }
    false
}

type AnswerBody = MapErr<Incoming, fn(hyper::Error) -> TransportError>;

impl tower::Service<Request<Body>> for Connection {
    type Response = Response<AnswerBody>;
    type Error = TransportError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, TransportError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        // A closed connection hands the request back from `call`.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        request.headers_mut().insert(header::USER_AGENT, USER_AGENT);
        if let Some(token) = &self.token {
            request.headers_mut().insert("token", token.clone());
        }
        let answer = self.send.try_send_request(request);
        Box::pin(async move {
            match answer.await {
                Ok(response) => Ok(response.map(|body| {
                    body.map_err(
                        (|e| TransportError::Lost(describe(&e))) as fn(hyper::Error) -> TransportError,
                    )
                })),
                Err(error) => {
                    let reason = describe(error.error());
                    if error.message().is_some() || refused_unprocessed(error.error()) {
                        Err(TransportError::Unsent(reason))
                    } else {
                        Err(TransportError::Lost(reason))
                    }
                }
            }
        })
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("endpoint", &self.endpoint.as_str())
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}
