//! Runs one watch: connects, hands batches over, and takes it up again after a break.

use std::time::Instant;

use etcfs_proto::etcdserverpb::WatchCreateRequest;
use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};
use tonic::Code;

use super::{
    BatchKind, WatchBatch, WatchState,
    cursor::{Cursor, Step},
    raw::WatchStream,
};
use crate::{Client, ClientError, Lost, Unsent, backoff::Backoff, connection::Connection};

pub(super) struct Session {
    client: Client,
    cursor: Cursor,
    batches: mpsc::Sender<Result<WatchBatch, ClientError>>,
    progress: mpsc::Receiver<()>,
    state: watch::Sender<WatchState>,
    backoff: Backoff,
}

/// Why serving on one connection ended.
enum End {
    /// Take it up again.
    Broken(ClientError),
    Final(ClientError),
    /// Nobody reads any more.
    Unread,
}

impl Session {
    pub(super) fn new(
        client: Client,
        request: WatchCreateRequest,
        batches: mpsc::Sender<Result<WatchBatch, ClientError>>,
        progress: mpsc::Receiver<()>,
        state: watch::Sender<WatchState>,
    ) -> Self {
        Self { client, cursor: Cursor::new(request), batches, progress, state, backoff: Backoff::new() }
    }

    pub(super) async fn run(mut self) {
        loop {
            let end = match self.client.failover.connection().await {
                Err(unsent @ Unsent::Login { .. }) => End::Final(ClientError::Unsent(unsent)),
                Err(unsent) => End::Broken(ClientError::Unsent(unsent)),
                Ok(connection) => {
                    let end = self.serve(connection.clone()).await;
                    match end {
                        End::Final(error) if error.wants_login() && self.client.failover.logs_in() => {
                            self.client.failover.log_in_anew(&connection);
                            End::Broken(error)
                        }
                        End::Broken(_) => {
                            self.client.failover.leave(&connection);
                            end
                        }
                        End::Final(_) | End::Unread => end,
                    }
                }
            };
            self.state.send_modify(|state| state.connected = None);
            match end {
                End::Broken(error) => tracing::debug!(%error, "watch interrupted"),
                End::Final(error) => {
                    // A reader that is gone does not miss it.
                    drop(self.batches.send(Err(error)).await);
                    return;
                }
                End::Unread => return,
            }
            sleep(self.backoff.pause()).await;
        }
    }

    async fn serve(&mut self, connection: Connection) -> End {
        let endpoint = connection.endpoint().to_string();
        let mut stream = match WatchStream::begin(connection, Some(self.cursor.open())).await {
            Ok(stream) => stream,
            Err(error) => return judge(error),
        };
        loop {
            let answer = tokio::select! {
                answer = stream.next() => answer,
                Some(()) = self.progress.recv() => {
                    match stream.request_progress().await {
                        Ok(()) => continue,
                        Err(error) => return judge(error),
                    }
                }
                () = self.batches.closed() => return End::Unread,
            };
            let answer = match answer {
                Ok(Some(answer)) => answer,
                Ok(None) => {
                    return End::Broken(ClientError::Unknown(Lost::Broken("the stream ended".into())));
                }
                Err(error) => return judge(error),
            };
            match self.cursor.take(answer) {
                Step::Nothing => {}
                Step::End(error) => return End::Final(error),
                Step::Deliver(batch) => {
                    let kind = batch.kind;
                    if self.batches.send(Ok(batch)).await.is_err() {
                        return End::Unread;
                    }
                    self.note(kind, &endpoint);
                }
            }
        }
    }

    fn note(&mut self, kind: BatchKind, endpoint: &str) {
        self.state.send_modify(|state| {
            state.revision = self.cursor.delivered();
            if let BatchKind::Created { resumed } = kind {
                state.connected = Some((endpoint.to_owned(), Instant::now()));
                state.resumed += u64::from(resumed);
            }
        });
        if matches!(kind, BatchKind::Created { .. }) {
            self.backoff.reset();
        }
    }
}

/// Errors that another attempt cannot mend end the watch.
fn judge(error: ClientError) -> End {
    match error.code() {
        Some(
            Code::InvalidArgument
            | Code::NotFound
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::Unimplemented
            | Code::OutOfRange
            | Code::FailedPrecondition,
        ) => End::Final(error),
        _ => End::Broken(error),
    }
}
