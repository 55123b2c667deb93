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
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{Notify, Semaphore},
    time,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Door, gateway::socket, gather::Gather, pings::Pings, place::Place, rpc::CommonName, wire::Wire};
use crate::{
    config::{Limits, ListenUrl},
    metrics::Metrics,
    tls::Acceptor,
};

/// Connections that wait to be accepted: as many as the system lets, which is what etcd has. Who finds no room waits for
/// a second at least.
const BACKLOG: u32 = u16::MAX as u32;
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

/// A client that has connected has so long to say something once the server is to end. One that is
/// hung up on before that, without a GOAWAY, can't know that its call was not begun.
const GREETING_MAX: Duration = Duration::from_secs(1);

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
        let mut refused = None;
        let socket = addresses.into_iter().find_map(|address| {
            let opened = listen(address);
            opened.map_err(|error| refused = Some(error)).ok()
        });
        let socket =
            socket.ok_or_else(|| refused.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into()))?;
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

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A port is free as soon as its last server has gone.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
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
    let Listener { socket, tls } = listener;
    let tasks = TaskTracker::new();
    let builder = Arc::new(builder(&limits));
    let complaints = Arc::new(Complaints::default());
    let begin = |stream: TcpStream, from: SocketAddr, slot: Slot| {
        let (door, builder, metrics, shutdown) =
            (door.clone(), builder.clone(), metrics.clone(), shutdown.clone());
        let (tls, complaints) = (tls.clone(), complaints.clone());
        let awaited = tasks.token();
        tasks.spawn(async move {
            let place = Place::take(slot, door.is_for_clients(), metrics.clone(), awaited, shutdown.clone());
            let place = Arc::new(place);
            match tls {
                None => {
                    // Boxed, and not before it is needed: who says nothing takes little room.
                    let _readable = shutdown.run_until_cancelled(stream.readable()).await;
                    Box::pin(connection(stream, None, &builder, door, place, &limits)).await;
                }
                Some(tls) => match shutdown.run_until_cancelled(Box::pin(tls.accept(stream))).await {
                    Some(Ok((stream, name))) => {
                        let name = name.map(|name| CommonName(name.into()));
                        Box::pin(connection(stream, name, &builder, door, place, &limits)).await;
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
    };
    while let Some(accepted) = shutdown.run_until_cancelled(accept(&socket, &slots)).await {
        match accepted {
            Ok((stream, from, slot)) => begin(stream, from, slot),
            Err(error) => {
                metrics.connections_refused.inc();
                tracing::warn!(%error, "could not accept a connection");
                let _elapsed = shutdown.run_until_cancelled(time::sleep(ACCEPT_RETRY)).await;
            }
        }
    }
    // Those who have connected by now may have sent a call; new clients must be turned away at once.
    if let Ok(socket) = socket.into_std() {
        while let Ok(slot) = slots.clone().try_acquire_owned()
            && let Ok((stream, from)) = socket.accept()
            && let Ok(stream) = adopted(stream)
        {
            begin(stream, from, slot);
        }
    }
    tasks.close();
    tasks.wait().await;
}

fn adopted(stream: std::net::TcpStream) -> io::Result<TcpStream> {
    stream.set_nonblocking(true)?;
    stream.set_nodelay(true)?;
    TcpStream::from_std(stream)
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
    let heard = Arc::new(Notify::new());
    let service = service_fn(move |mut request: Request<Incoming>| {
        let door = door.clone();
        if socket::is_upgrade(&request) && request.version() < Version::HTTP_2 {
            request.extensions_mut().insert(place.clone());
        }
        if let Some(name) = &name {
            request.extensions_mut().insert(name.clone());
        }
        // Boxed, or a stream's task would keep room for it for as long as that is open.
        Box::pin(async move { Ok::<_, Infallible>(door.serve(request).await) })
    });
    let wire = Wire::new(stream, limits.keepalive_min.map(Pings::new), heard.clone());
    let stream = TokioIo::new(Gather::new(wire));
    let mut connection = pin!(builder.serve_connection_with_upgrades(stream, service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            // Boxed: idle connections, of which there may be thousands, need no room for it.
            let ending = Box::pin(async {
                tokio::select! {
                    ended = connection.as_mut() => return Some(ended),
                    _silent = time::timeout(GREETING_MAX, heard.notified()) => {}
                }
                connection.as_mut().graceful_shutdown();
                time::timeout(limits.drain, connection.as_mut()).await.ok()
            });
            match ending.await {
                Some(ended) => ended,
                None => return,
            }
        }
    };
    if let Err(error) = ended {
        // Clients go as they please; only a debugger wants to know.
        tracing::debug!(%error, "a connection ended");
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tonic::service::Routes;

    use super::*;
    use crate::net::authority::PREFACE;

    const SETTINGS: u8 = 4;
    const GOAWAY: u8 = 7;
    const LIMITS: Limits = Limits {
        max_txn_ops: 1,
        max_request_bytes: 1,
        max_concurrent_streams: 1,
        max_client_connections: 8,
        // The clients below don't answer what they are told.
        drain: Duration::from_millis(100),
        keepalive_interval: Duration::from_secs(60),
        keepalive_timeout: Duration::from_secs(60),
        keepalive_min: None,
    };

    /// The kinds of the frames that come until the connection's end.
    async fn told(mut client: TcpStream) -> Vec<u8> {
        client.write_all(&[PREFACE, &[0, 0, 0, SETTINGS, 0, 0, 0, 0, 0]].concat()).await.unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        let mut kinds = Vec::new();
        let mut rest = &answer[..];
        while let [a, b, c, kind, ..] = *rest {
            kinds.push(kind);
            rest = &rest[9 + u32::from_be_bytes([0, a, b, c]) as usize..];
        }
        kinds
    }

    /// They were hung up on: their calls had an unknown outcome.
    #[tokio::test]
    async fn who_has_just_connected_is_told_that_the_server_ends() {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let slots = Arc::new(Semaphore::new(8));
        let shutdown = CancellationToken::new();
        let serving = tokio::spawn(serve(
            Listener { socket, tls: None },
            Door::Peers(Routes::default()),
            LIMITS,
            slots.clone(),
            Arc::new(Metrics::new(&[], false)),
            shutdown.clone(),
        ));
        let accepted = TcpStream::connect(address).await.unwrap();
        // Its own, and that of whom is waited for.
        while slots.available_permits() > 6 {
            tokio::task::yield_now().await;
        }
        let waiting = std::net::TcpStream::connect(address).unwrap();
        shutdown.cancel();
        let waiting = adopted(waiting).unwrap();
        for kinds in <[_; 2]>::from(tokio::join!(told(accepted), told(waiting))) {
            assert_eq!(kinds.first(), Some(&SETTINGS), "{kinds:?}");
            assert!(kinds.contains(&GOAWAY), "{kinds:?}");
        }
        serving.await.unwrap();
        assert_eq!(slots.available_permits(), 8);
    }
}
