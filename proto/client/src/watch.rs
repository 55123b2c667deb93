//! The Watch service: changes in order, each once, over broken connections.
//!
//! [`Watcher`] is one watch. What has been delivered and where to go on after
//! a break is decided in [`cursor`], without a socket; [`session`] runs it.
//! [`WatchStream`] is the bare stream with many watches, for those who count
//! events and want nothing done for them.

mod cursor;
mod raw;
mod session;

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use etcfs_proto::{
    etcdserverpb::{ResponseHeader, WatchCreateRequest},
    mvccpb::Event,
};
use futures_util::Stream;
use tokio::sync::{mpsc, watch};

pub use raw::WatchStream;

use crate::{Client, ClientError, task::OwnedTask};

/// Batches that wait for the reader; then the connection's flow control holds the server back.
const UNREAD_BATCHES_MAX: usize = 32;
/// Progress requests that may wait to be sent; more say nothing new.
const PROGRESS_REQUESTS_MAX: usize = 1;

/// Why a batch came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchKind {
    /// The watch stands; after a break again, with `resumed`.
    Created { resumed: bool },
    /// Changes: all of one revision are in one batch.
    Events,
    /// The server's regular sign of life: everything up to `revision` was delivered.
    Progress,
    /// The answer to a progress request. etcd before 3.4.25 and 3.5.8 gives it
    /// even if events up to `revision` are still on their way.
    ProgressAnswer,
}

/// What the server had to say at once.
#[derive(Clone, Debug)]
pub struct WatchBatch {
    pub kind: BatchKind,
    /// For events the revision of the last one, else the server's at that time.
    pub revision: i64,
    pub events: Vec<Event>,
    /// The header as it came; its revision may be ahead of the events.
    pub header: ResponseHeader,
}

/// How the watch stands at this moment.
#[derive(Clone, Debug)]
pub struct WatchState {
    /// The endpoint and the time since which the server serves the watch; none while it is not served.
    pub connected: Option<(String, Instant)>,
    /// Every matching change up to here has been handed over.
    pub revision: i64,
    /// Times that the watch was broken and taken up again.
    pub resumed: u64,
}

/// One watch, as a stream that ends with an error or not at all.
///
/// Broken connections, leader changes and server restarts are taken up again
/// at the revision after the last one delivered. Errors are final: most of
/// all [`ClientError::Compacted`], if that revision is gone.
#[derive(Debug)]
pub struct Watcher {
    batches: mpsc::Receiver<Result<WatchBatch, ClientError>>,
    progress: mpsc::Sender<()>,
    state: watch::Receiver<WatchState>,
    _task: OwnedTask,
}

impl Client {
    /// Starts a watch; dropping the watcher ends it.
    ///
    /// `watch_id` and `fragment` of the request are not used: the watch has
    /// its stream for itself, and the events of a revision are not torn apart.
    pub fn watch(&self, request: WatchCreateRequest) -> Watcher {
        let (batch_sender, batches) = mpsc::channel(UNREAD_BATCHES_MAX);
        let (progress, progress_requests) = mpsc::channel(PROGRESS_REQUESTS_MAX);
        let (state_sender, state) = watch::channel(WatchState {
            connected: None,
            revision: (request.start_revision - 1).max(0),
            resumed: 0,
        });
        let session =
            session::Session::new(self.clone(), request, batch_sender, progress_requests, state_sender);
        Watcher { batches, progress, state, _task: OwnedTask::spawn(session.run()) }
    }

    /// Opens the bare watch stream.
    pub async fn watch_stream(&self) -> Result<WatchStream, ClientError> {
        WatchStream::open(self).await
    }
}

impl Watcher {
    /// Asks for a [`BatchKind::ProgressAnswer`]; nothing comes while the server is behind.
    pub fn request_progress(&self) {
        // A full queue holds a request that is as good as this one.
        let _ = self.progress.try_send(());
    }

    /// How the watch stands, and a way to wait for changes of it.
    pub fn state(&self) -> watch::Receiver<WatchState> {
        self.state.clone()
    }
}

impl Stream for Watcher {
    type Item = Result<WatchBatch, ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.batches.poll_recv(cx)
    }
}
