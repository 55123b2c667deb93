//! Accepts connections within limits, and lets them finish at the end.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{Request, Version};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Door, gateway::socket, pings::Pings, place::Place, rpc::CommonName, wire::Wire};
use crate::{
    config::{Limits, ListenUrl},
    metrics::Metrics,
    tls::Acceptor,
};

/// Pause when the system has no file descriptor left for a connection.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);
/// A handshake that failed is in the log once in this time.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(10);
/// Headers of one request; a flood of CONTINUATION frames ends here.
const HEADER_LIST_BYTES_MAX: u32 = 64 * 1024;
/// Calls that a client may have reset before they were accepted; beyond them
/// the connection is closed, so that a flood of resets costs nothing.
const PENDING_RESETS_MAX: usize = 100;
/// What a client may have sent on one connection before it is read: as much as etcd's windows grow
/// to. The HTTP/2 library ends a connection once half of it is taken by frames below 256 bytes,
/// each counted as that many; so this bounds how many small calls may begin at once, too: 32,768.
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// An open port.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    tls: Option<Acceptor>,
}

impl Listener {
    /// With `tls` where the URL asks for it.
    pub async fn open(url: &ListenUrl, tls: Option<&Acceptor>) -> io::Result<Self> {
        let addresses = url.resolve().await?;
        let socket = TcpListener::bind(addresses.as_slice()).await?;
        Ok(Self { socket, tls: tls.filter(|_| url.secure).cloned() })
    }

    pub fn is_secure(&self) -> bool {
        self.tls.is_some()
    }

    /// Where it listens, with the port that the system chose for port 0.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

/// Serves a port until `shutdown`; returns when its connections have ended.
pub async fn serve(
    listener: Listener,
    door: Door,
    limits: Limits,
    slots: Arc<Semaphore>,
    metrics: Arc<Metrics>,
    shutdown: CancellationToken,
) {
    let tasks = TaskTracker::new();
    let builder = Arc::new(builder(&limits));
    let complaints = Arc::new(Complaints::default());
    while let Some(accepted) = shutdown.run_until_cancelled(accept(&listener.socket, &slots)).await {
        let (stream, from, slot) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                metrics.connections_refused.inc();
                tracing::warn!(%error, "could not accept a connection");
                let _elapsed = shutdown.run_until_cancelled(time::sleep(ACCEPT_RETRY)).await;
                continue;
            }
        };
        let (door, builder, metrics, shutdown) =
            (door.clone(), builder.clone(), metrics.clone(), shutdown.clone());
        let (tls, complaints) = (listener.tls.clone(), complaints.clone());
        let awaited = tasks.token();
        tasks.spawn(async move {
            let place = Place::take(slot, door.is_for_clients(), metrics.clone(), awaited, shutdown.clone());
            let place = Arc::new(place);
            match tls {
                None => connection(stream, None, &builder, door, place, &limits).await,
                Some(tls) => match shutdown.run_until_cancelled(tls.accept(stream)).await {
                    Some(Ok((stream, name))) => {
                        let name = name.map(|name| CommonName(name.into()));
                        connection(stream, name, &builder, door, place, &limits).await;
                    }
                    Some(Err(error)) => {
                        metrics.connections_refused.inc();
                        let from = from.ip();
                        if complaints.is_due() {
                            tracing::warn!(%error, %from, "refused a connection: the TLS handshake failed");
                        } else {
                            tracing::debug!(%error, %from, "a TLS handshake failed");
                        }
                    }
                    None => {}
                },
            }
        });
    }
    // New clients must be turned away at once, not left in the backlog.
    drop(listener);
    tasks.close();
    tasks.wait().await;
}

/// What strangers do is told now and then: they could fill the log.
#[derive(Debug, Default)]
struct Complaints(Mutex<Option<Instant>>);

impl Complaints {
    fn is_due(&self) -> bool {
        let mut last = self.0.lock();
        let is_due = last.is_none_or(|last| last.elapsed() >= COMPLAINT_INTERVAL);
        if is_due {
            *last = Some(Instant::now());
        }
        is_due
    }
}

type Slot = tokio::sync::OwnedSemaphorePermit;

async fn accept(listener: &TcpListener, slots: &Arc<Semaphore>) -> io::Result<(TcpStream, SocketAddr, Slot)> {
    let slot = slots.clone().acquire_owned().await.expect("the semaphore is never closed");
    let (stream, from) = listener.accept().await?;
    // Answers are small and waited for.
    stream.set_nodelay(true)?;
    Ok((stream, from, slot))
}

fn builder(limits: &Limits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .max_concurrent_streams(limits.max_concurrent_streams)
        .max_header_list_size(HEADER_LIST_BYTES_MAX)
        .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .keep_alive_interval(limits.keepalive_interval)
        .keep_alive_timeout(limits.keepalive_timeout);
    builder
}

async fn connection<S>(
    stream: S,
    name: Option<CommonName>,
    builder: &auto::Builder<TokioExecutor>,
    door: Door,
    place: Arc<Place>,
    limits: &Limits,
) where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let shutdown = place.shutdown.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        let door = door.clone();
        if socket::is_upgrade(&request) && request.version() < Version::HTTP_2 {
            request.extensions_mut().insert(place.clone());
        }
        if let Some(name) = &name {
            request.extensions_mut().insert(name.clone());
        }
        async move { Ok::<_, Infallible>(door.serve(request).await) }
    });
    let stream = TokioIo::new(Wire::new(stream, limits.keepalive_min.map(Pings::new)));
    let mut connection = pin!(builder.serve_connection_with_upgrades(stream, service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            match time::timeout(limits.drain, connection).await {
                Ok(ended) => ended,
                Err(_) => return,
            }
        }
    };
    if let Err(error) = ended {
        // Clients go as they please; only a debugger wants to know.
        tracing::debug!(%error, "a connection ended");
    }
}
