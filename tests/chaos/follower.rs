//! A watcher of everything that resumes by itself after each break.
//!
//! It is what a careful client does: when its stream breaks, a new one starts
//! after the last event that it has. In the end it must hold exactly the log.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use etcfs_proto::{
    etcdserverpb::{WatchRequest, watch_client::WatchClient, watch_request::RequestUnion},
    mvccpb::Event,
};
use etcfs_tests::api::{Api, event_revision, runtime, watch_prefix};
use tokio::{task::JoinHandle, time::timeout};
use tonic::Status;

/// How long a stream may be silent before it is taken for dead.
const SILENCE: Duration = Duration::from_secs(2);
/// Pause while the server is away.
const AWAY: Duration = Duration::from_millis(5);

/// A running follower.
#[derive(Debug)]
pub(crate) struct Follower {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Seen>,
}

/// What it saw.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) events: Vec<Event>,
    pub(crate) streams: usize,
    complaints: Vec<String>,
}

impl Follower {
    /// Follows all keys from the first revision on.
    pub(crate) fn start(endpoint: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let follow = follow(Api::to(endpoint), stop.clone());
        Self { stop, task: runtime().spawn(follow) }
    }

    /// Waits until it is silent and ends it; panics with what was wrong in its streams.
    pub(crate) fn finish(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        let seen = runtime().block_on(self.task).expect("the follower does not panic");
        assert!(seen.complaints.is_empty(), "{}", seen.complaints.join("\n"));
        seen
    }
}

async fn follow(api: Api, stop: Arc<AtomicBool>) -> Seen {
    let mut seen = Seen::default();
    loop {
        match stream(&api, &mut seen).await {
            // Silent: the end, if nobody writes any more.
            Ok(()) if stop.load(Ordering::Relaxed) => return seen,
            Ok(()) => {}
            Err(_) => tokio::time::sleep(AWAY).await,
        }
    }
}

/// Takes events from one stream until it breaks or is silent.
async fn stream(api: &Api, seen: &mut Seen) -> Result<(), Status> {
    let last = seen.events.last().map_or(1, event_revision);
    let request =
        WatchRequest { request_union: Some(RequestUnion::CreateRequest(watch_prefix("", last + 1))) };
    // The request side stays open: its end would be the stream's.
    let (requests, queue) = tokio::sync::mpsc::channel(1);
    requests.try_send(request).expect("the queue is empty");
    let mut client = WatchClient::new(api.channel()).max_decoding_message_size(usize::MAX);
    let mut responses = client.watch(tokio_stream::wrappers::ReceiverStream::new(queue)).await?.into_inner();
    seen.streams += 1;
    loop {
        let Ok(response) = timeout(SILENCE, responses.message()).await else { return Ok(()) };
        let Some(response) = response? else { return Ok(()) };
        if response.canceled {
            seen.complaints.push(format!("the watch was cancelled: {response:?}"));
            return Ok(());
        }
        let told = response.header.map_or(0, |header| header.revision);
        let mut before = seen.events.last().map_or(1, event_revision);
        if let Some(first) = response.events.first().filter(|first| event_revision(first) != before + 1) {
            seen.complaints.push(format!("revision {} comes after {before}", event_revision(first)));
        }
        for event in response.events {
            let revision = event_revision(&event);
            if revision != before && revision != before + 1 {
                seen.complaints.push(format!("revision {revision} comes after {before} in one response"));
            }
            if revision > told {
                seen.complaints.push(format!("revision {revision} comes with a header of {told}"));
            }
            before = revision;
            seen.events.push(event);
        }
    }
}
