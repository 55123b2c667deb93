//! Keeps one lease alive on a stream of its own, over broken connections.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use etcfs_proto::etcdserverpb::{LeaseKeepAliveRequest, LeaseKeepAliveResponse};
use futures_util::Stream;
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;

use super::stub;
use crate::{Client, ClientError, Lost, Unsent, backoff::Backoff, connection::Connection, task::OwnedTask};

/// Renewals that wait for a reader; later ones are dropped, renewing goes on.
const UNREAD_RENEWALS_MAX: usize = 16;
/// However short the TTL, renewals are at least this far apart.
const SHORTEST_PAUSE: Duration = Duration::from_millis(300);

/// The renewals of one lease; ends with [`ClientError::LeaseGone`].
///
/// Nobody has to read it: the lease is kept while it exists.
#[derive(Debug)]
pub struct KeepAlive {
    renewals: mpsc::Receiver<Result<LeaseKeepAliveResponse, ClientError>>,
    _task: OwnedTask,
}

impl KeepAlive {
    pub(super) fn start(client: Client, id: i64) -> Self {
        let (sender, renewals) = mpsc::channel(UNREAD_RENEWALS_MAX);
        Self { renewals, _task: OwnedTask::spawn(keep(client, id, sender)) }
    }
}

impl Stream for KeepAlive {
    type Item = Result<LeaseKeepAliveResponse, ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.renewals.poll_recv(cx)
    }
}

async fn keep(client: Client, id: i64, renewals: mpsc::Sender<Result<LeaseKeepAliveResponse, ClientError>>) {
    let mut backoff = Backoff::new();
    loop {
        let error = match client.failover.connection().await {
            Err(unsent) => ClientError::Unsent(unsent),
            Ok(connection) => {
                let error = keep_on(&client, connection.clone(), id, &renewals, &mut backoff).await;
                if error.wants_login() && client.failover.logs_in() {
                    client.failover.log_in_anew(&connection);
                    sleep(backoff.pause()).await;
                    continue;
                }
                client.failover.leave(&connection);
                error
            }
        };
        if is_final(&error) {
            // The reader may be slow, or gone; the last word waits for it.
            drop(renewals.send(Err(error)).await);
            return;
        }
        tracing::debug!(%error, id, "lease renewal interrupted");
        sleep(backoff.pause()).await;
    }
}

/// Renews on one connection until that fails.
async fn keep_on(
    client: &Client,
    connection: Connection,
    id: i64,
    renewals: &mpsc::Sender<Result<LeaseKeepAliveResponse, ClientError>>,
    backoff: &mut Backoff,
) -> ClientError {
    let limit = client.request_timeout;
    let late = |_| ClientError::Unknown(Lost::Deadline(limit));
    let (requests, stream) = mpsc::channel(1);
    let ask = LeaseKeepAliveRequest { id };
    // The first request goes before the stream is open: a server may send its headers only with the first answer.
    if requests.try_send(ask).is_err() {
        return late(());
    }
    let mut service = stub(connection);
    let opened = timeout(limit, service.lease_keep_alive(ReceiverStream::new(stream))).await;
    let mut answers = match opened {
        Err(_) => return late(()),
        Ok(Err(status)) => return status.into(),
        Ok(Ok(answers)) => answers.into_inner(),
    };
    loop {
        match timeout(limit, answers.message()).await {
            Err(_) => return late(()),
            Ok(Err(status)) => return status.into(),
            Ok(Ok(None)) => return ClientError::Unknown(Lost::Broken("the server ended the stream".into())),
            Ok(Ok(Some(answer))) if answer.ttl <= 0 => return ClientError::LeaseGone { id },
            Ok(Ok(Some(answer))) => {
                backoff.reset();
                let pause = pause_of(answer.ttl);
                drop(renewals.try_send(Ok(answer)));
                sleep(pause).await;
            }
        }
        if requests.send(ask).await.is_err() {
            return ClientError::Unknown(Lost::Broken("the stream is closed".into()));
        }
    }
}

/// A third of the TTL: two renewals may get lost.
fn pause_of(ttl_seconds: i64) -> Duration {
    let ttl = Duration::from_secs(u64::try_from(ttl_seconds).unwrap_or(0));
    (ttl / 3).max(SHORTEST_PAUSE)
}

fn is_final(error: &ClientError) -> bool {
    use tonic::Code;
    match error {
        ClientError::LeaseGone { .. } | ClientError::Unsent(Unsent::Login { .. }) => true,
        ClientError::Status { code, .. } => {
            matches!(code, Code::Unimplemented | Code::PermissionDenied | Code::Unauthenticated)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewals_come_at_a_third_of_the_ttl() {
        assert_eq!(pause_of(60), Duration::from_secs(20));
        assert_eq!(pause_of(0), SHORTEST_PAUSE);
        assert_eq!(pause_of(9_000_000_000), Duration::from_secs(3_000_000_000));
    }
}
