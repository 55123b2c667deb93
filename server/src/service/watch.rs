//! The Watch service: one gRPC stream onto one stream of the hub.
//!
//! Requests go to the hub in order, answers come back with their headers
//! filled. The client's requests are read only while there is room for their
//! answers, so a client that does not read cannot fill memory.

mod guard;

use std::{future::ready, sync::Arc, time::Duration};

use etcfs_proto::etcdserverpb::{WatchRequest, WatchResponse, watch_request::RequestUnion};
use futures_util::{Stream, StreamExt as _, stream};
use tokio::{sync::watch, time};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use self::guard::Guard;
use super::{Access, Headers, Refusal};
use crate::{
    auth::Caller,
    watch::{Hub, WatchControl},
};

#[derive(Clone, Debug)]
pub struct Watch {
    pub hub: Hub,
    pub headers: Headers,
    pub access: Access,
    /// Told when users or roles have changed.
    pub changes: watch::Receiver<()>,
}

impl Watch {
    /// Serves one stream until the client ends it or the hub shuts down.
    pub fn serve<S>(
        &self,
        requests: S,
        caller: Result<Caller, Refusal>,
    ) -> impl Stream<Item = Result<WatchResponse, Status>> + Send + use<S>
    where
        S: Stream<Item = Result<WatchRequest, Status>> + Send + Unpin + 'static,
    {
        let (control, answers) = self.hub.open();
        let headers = self.headers.clone();
        let guard = Arc::new(Guard::new(self.access.clone(), caller));
        let passing = guard.clone();
        let answers = answers.filter_map(move |mut answer| {
            let passes = passing.passes(&answer);
            // The hub leaves the revision at 0 where etcd does.
            headers.fill(&mut answer.header);
            ready(passes.then_some(Ok(answer)))
        });
        // Answers end by themselves only when the hub shuts down.
        let stopped = stream::once(async { Some(Err(Refusal::Stopped.into())) });
        let answers = answers.map(Some).chain(stopped);
        let requests = stream::once(follow(control, requests, guard, self.changes.clone()));
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
async fn follow<S>(
    control: WatchControl,
    mut requests: S,
    guard: Arc<Guard>,
    mut changes: watch::Receiver<()>,
) -> Option<Result<WatchResponse, Status>>
where
    S: Stream<Item = Result<WatchRequest, Status>> + Unpin,
{
    changes.mark_unchanged();
    loop {
        control.room().await;
        let request = tokio::select! {
            request = requests.next() => request,
            Ok(()) = changes.changed() => {
                guard.recheck();
                continue;
            }
            lost = guard.lost() => {
                for (watch_id, refusal) in lost {
                    control.end(watch_id, refusal.in_go());
                }
                continue;
            }
        };
        let Some(Ok(request)) = request else { return None };
        match request.request_union {
            Some(RequestUnion::CreateRequest(create)) => match guard.admit(&create) {
                Ok(()) => control.create(create),
                Err(refusal) => control.refuse(refusal.in_go()),
            },
            Some(RequestUnion::CancelRequest(cancel)) => control.cancel(cancel.watch_id),
            Some(RequestUnion::ProgressRequest(_)) => control.progress(),
            // As etcd: a request of a kind not known here is passed over.
            None => {}
        }
    }
}
