//! Connections to other members: the one place that opens them.

use std::{fmt, io, pin::Pin, sync::Arc, time::Duration};

use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tonic::transport::{Channel, Endpoint};

use crate::tls::Connector;

/// Receive windows: a snapshot must not wait for a round trip every 64 KiB.
const STREAM_WINDOW_BYTES: u32 = 2 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;

/// The port of a member whose URL names none.
const DEFAULT_PORT: u16 = 80;

/// Bytes to a member and back.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for T {}

/// A stream once it is there.
pub type Connecting = Pin<Box<dyn Future<Output = io::Result<Box<dyn Stream>>> + Send>>;

/// What connections run over.
pub trait Network: Send + Sync + fmt::Debug + 'static {
    fn connect(&self, host: String, port: u16) -> Connecting;
}

/// The system's network.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tcp;

impl Network for Tcp {
    fn connect(&self, host: String, port: u16) -> Connecting {
        Box::pin(async move {
            let stream = TcpStream::connect((host, port)).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        })
    }
}

/// How peers are reached; cheap to clone.
#[derive(Clone, Debug)]
pub struct Dialer {
    network: Arc<dyn Network>,
    /// Silence after which a connection is pinged, and the time to answer in:
    /// packets to an isolated host vanish without an error.
    ping: Duration,
    connect_timeout: Duration,
    /// For members whose URLs begin with https.
    tls: Option<Connector>,
}

/// Why a member's URL is of no use.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    #[error("it is no URL: {0}")]
    Url(#[from] tonic::transport::Error),
    #[error("https needs a certificate of our own: --peer-cert-file, or --peer-auto-tls")]
    NoCertificate,
}

impl Dialer {
    /// For members that give each other `election_timeout` before they look for another leader.
    pub fn new(election_timeout: Duration, tls: Option<Connector>) -> Self {
        // A handshake that was lost is tried again by the kernel after 1 s, 3 s, 7 s: sooner is ours.
        let ping = election_timeout / 2;
        Self { network: Arc::new(Tcp), ping, connect_timeout: election_timeout, tls }
    }

    /// The same over another network.
    pub fn over(self, network: Arc<dyn Network>) -> Self {
        Self { network, ..self }
    }

    /// A connection that is made when first used, and again after a loss.
    pub(super) fn channel(&self, url: &str) -> Result<Channel, DialError> {
        let endpoint = Endpoint::from_shared(url.to_owned())?
            .connect_timeout(self.connect_timeout)
            .http2_keep_alive_interval(self.ping)
            .keep_alive_timeout(self.ping)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
        let tls = match endpoint.uri().scheme_str() {
            Some("https") => Some(self.tls.clone().ok_or(DialError::NoCertificate)?),
            _ => None,
        };
        let network = self.network.clone();
        let connect = move |url: Uri| {
            let host = url.host().unwrap_or_default();
            // An IPv6 address stands in brackets there.
            let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
            let connecting = network.connect(host.clone(), url.port_u16().unwrap_or(DEFAULT_PORT));
            let tls = tls.clone();
            async move {
                let stream = connecting.await?;
                let stream: Box<dyn Stream> = match tls {
                    Some(tls) => Box::new(tls.connect(host, stream).await?),
                    None => stream,
                };
                Ok::<_, io::Error>(TokioIo::new(stream))
            }
        };
        Ok(endpoint.connect_with_connector_lazy(tower::service_fn(connect)))
    }
}
