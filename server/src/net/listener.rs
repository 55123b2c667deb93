//! Accepts connections within limits, and lets them finish at the end.

use std::{convert::Infallible, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::Door;
use crate::{
    config::{Limits, ListenUrl},
    metrics::Metrics,
};

/// How long calls in flight may take to finish once the server is to end.
const DRAIN_MAX: Duration = Duration::from_secs(2);
/// Pause when the system has no file descriptor left for a connection.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);
/// Headers of one request; a flood of CONTINUATION frames ends here.
const HEADER_LIST_BYTES_MAX: u32 = 64 * 1024;
/// Calls that a client may have reset before they were accepted; beyond them
/// the connection is closed, so that a flood of resets costs nothing.
const PENDING_RESETS_MAX: usize = 100;

/// An open port.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
}

impl Listener {
    pub async fn open(url: &ListenUrl) -> io::Result<Self> {
        let addresses = url.resolve().await?;
        let socket = TcpListener::bind(addresses.as_slice()).await?;
        Ok(Self { socket })
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
    while let Some(accepted) = shutdown.run_until_cancelled(accept(&listener.socket, &slots)).await {
        let (stream, slot) = match accepted {
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
        tasks.spawn(async move {
            let counted = i64::from(door.is_for_clients());
            metrics.connections.add(counted);
            connection(stream, &builder, door, &shutdown).await;
            metrics.connections.sub(counted);
            drop(slot);
        });
    }
    // New clients must be turned away at once, not left in the backlog.
    drop(listener);
    tasks.close();
    tasks.wait().await;
}

type Slot = tokio::sync::OwnedSemaphorePermit;

async fn accept(listener: &TcpListener, slots: &Arc<Semaphore>) -> io::Result<(TcpStream, Slot)> {
    let slot = slots.clone().acquire_owned().await.expect("the semaphore is never closed");
    let (stream, _) = listener.accept().await?;
    // Answers are small and waited for.
    stream.set_nodelay(true)?;
    Ok((stream, slot))
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
        .keep_alive_interval(limits.keepalive_interval)
        .keep_alive_timeout(limits.keepalive_timeout);
    builder
}

async fn connection(
    stream: TcpStream,
    builder: &auto::Builder<TokioExecutor>,
    door: Door,
    shutdown: &CancellationToken,
) {
    let service = service_fn(move |request| {
        let door = door.clone();
        async move { Ok::<_, Infallible>(door.serve(request).await) }
    });
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            match time::timeout(DRAIN_MAX, connection).await {
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
