//! The Watch service: one gRPC stream onto one stream of the hub.
//!
//! Requests go to the hub in order, answers come back with their headers
//! filled. The client's requests are read only while there is room for their
//! answers, so a client that does not read cannot fill memory.

use std::{future::ready, time::Duration};

use etcfs_proto::etcdserverpb::{WatchRequest, WatchResponse, watch_request::RequestUnion};
use futures_util::{Stream, StreamExt as _, stream};
use tokio::time;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::{Headers, Refusal};
use crate::watch::{Hub, WatchControl};

#[derive(Clone, Debug)]
pub struct Watch {
    pub hub: Hub,
    pub headers: Headers,
}

impl Watch {
    /// Serves one stream until the client ends it or the hub shuts down.
    pub fn serve<S>(&self, requests: S) -> impl Stream<Item = Result<WatchResponse, Status>> + Send + use<S>
    where
        S: Stream<Item = Result<WatchRequest, Status>> + Send + Unpin + 'static,
    {
        let (control, answers) = self.hub.open();
        let headers = self.headers.clone();
        let answers = answers.map(move |mut answer| {
            // The hub leaves the revision at 0 where etcd does.
            headers.fill(&mut answer.header);
            Ok(answer)
        });
        // Answers end by themselves only when the hub shuts down.
        let stopped = stream::once(async { Some(Err(Refusal::Stopped.into())) });
        let answers = answers.map(Some).chain(stopped);
        let requests = stream::once(follow(control, requests));
        // `None` is the client's end, after which nothing more is sent.
        stream::select(answers, requests).take_while(|item| ready(item.is_some())).filter_map(ready)
    }

    /// Tells quiet watchers that asked for it how far they are, until `shutdown`.
    pub async fn tell_progress(self, interval: Duration, shutdown: CancellationToken) {
        let mut ticks = time::interval(interval);
        ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
            self.hub.tick_progress();
        }
    }
}

/// Hands requests on until the client is done; then its watchers go.
async fn follow<S>(control: WatchControl, mut requests: S) -> Option<Result<WatchResponse, Status>>
where
    S: Stream<Item = Result<WatchRequest, Status>> + Unpin,
{
    loop {
        control.room().await;
        let Some(Ok(request)) = requests.next().await else { return None };
        match request.request_union {
            Some(RequestUnion::CreateRequest(create)) => control.create(create),
            Some(RequestUnion::CancelRequest(cancel)) => control.cancel(cancel.watch_id),
            Some(RequestUnion::ProgressRequest(_)) => control.progress(),
            // As etcd: a request of a kind not known here is passed over.
            None => {}
        }
    }
}
