//! Clients that watch: pinned to a member, roaming, slow, and on the edge of what is compacted.
//!
//! Each is a careful client: when its stream ends, the next one begins after the
//! last revision that it was told of, or where the server says that history
//! begins. Everything a stream says is noted as it came.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use etcfs_proto::etcdserverpb::{
    WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse, watch_client::WatchClient,
    watch_create_request::FilterType, watch_request::RequestUnion,
};
use etcfs_tests::{
    api::{event_revision, watch_prefix},
    judge::{Moment, Stream},
};
use rand::RngExt as _;
use tokio::{sync::mpsc, time::timeout};
use tonic::Streaming;

use super::session::{Session, Shared};

/// How long a stream is waited for before the watcher looks around.
const TICK: Duration = Duration::from_millis(100);
/// How long opening a stream may take.
const OPENING: Duration = Duration::from_secs(1);
/// How long the recorder takes silence for nothing new.
const SILENCE: Duration = Duration::from_millis(700);
/// How long a watcher may take to come to the end once it is there.
const LAST_PATIENCE: Duration = Duration::from_secs(30);

/// What kind of client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Habit {
    /// Holds every event, trusts no progress, and tells the compactor how far it has come.
    Recorder,
    /// Stays with one member, whatever comes.
    Pinned(usize),
    /// Goes to another member every now and then, and takes progress for a bookmark.
    Roaming,
    /// Reads one message, and then none for a while.
    Slow(usize),
    /// Watches a few keys, and mostly asks for progress.
    Narrow,
    /// Opens short watches: at the compacted revision exactly, and from now on.
    Edge,
}

/// Watches until the run's last revision, or until it has waited for it too long.
pub(crate) async fn work(session: Session, habit: Habit) -> Vec<Stream> {
    let mut watcher = Watcher { session, habit, told: 0, streams: Vec::new(), since_goal: None };
    watcher.session.member = match habit {
        Habit::Pinned(member) | Habit::Slow(member) => member,
        _ => 0,
    };
    while !watcher.is_done() {
        watcher.one_stream().await;
    }
    watcher.streams
}

struct Watcher {
    session: Session,
    habit: Habit,
    /// The last revision that it was told of, by an event or by progress.
    told: i64,
    streams: Vec<Stream>,
    /// When the run's last revision became known.
    since_goal: Option<Moment>,
}

/// One open stream; its request side stays open as long.
struct Open {
    requests: mpsc::Sender<WatchRequest>,
    responses: Streaming<WatchResponse>,
}

impl Watcher {
    fn shared(&self) -> &Arc<Shared> {
        &self.session.shared
    }

    fn goal(&self) -> i64 {
        self.shared().goal.load(Ordering::Relaxed)
    }

    fn is_done(&mut self) -> bool {
        let goal = self.goal();
        if goal == i64::MAX {
            return false;
        }
        if self.habit == Habit::Edge || self.told >= goal {
            return true;
        }
        let now = self.shared().now();
        let late = now > *self.since_goal.get_or_insert(now) + LAST_PATIENCE;
        if late && let Some(stream) = self.streams.last_mut() {
            stream.stalled_before = Some(goal);
        }
        late
    }

    fn request(&mut self) -> WatchCreateRequest {
        let random = &mut self.session.random;
        let all = watch_prefix("", self.told + 1);
        match self.habit {
            Habit::Recorder | Habit::Slow(_) => all,
            Habit::Pinned(_) | Habit::Roaming => WatchCreateRequest { prev_kv: random.random(), ..all },
            Habit::Narrow => WatchCreateRequest { prev_kv: true, ..watch_prefix("kv/1", self.told + 1) },
            Habit::Edge => {
                let filters = match random.random_range(0..4) {
                    0 => vec![FilterType::Noput.into()],
                    1 => vec![FilterType::Nodelete.into()],
                    _ => vec![],
                };
                let compacted = self.session.shared.compacted.load(Ordering::Relaxed);
                let start_revision = if self.session.random.random_ratio(1, 4) { 0 } else { compacted };
                let prev_kv = self.session.random.random();
                WatchCreateRequest { start_revision, filters, prev_kv, ..all }
            }
        }
    }

    async fn open(&self, request: &WatchCreateRequest) -> Option<Open> {
        let (requests, queue) = mpsc::channel(64);
        let create = RequestUnion::CreateRequest(request.clone());
        requests.try_send(WatchRequest { request_union: Some(create) }).expect("the queue is empty");
        let channel = self.session.apis[self.session.member].channel();
        let mut client = WatchClient::new(channel).max_decoding_message_size(usize::MAX);
        let opening = client.watch(tokio_stream::wrappers::ReceiverStream::new(queue));
        let responses = timeout(OPENING, opening).await.ok()?.ok()?.into_inner();
        Some(Open { requests, responses })
    }

    /// Opens a stream and notes what it says, until it ends or the watcher goes elsewhere.
    async fn one_stream(&mut self) {
        let request = self.request();
        let Some(mut open) = self.open(&request).await else {
            tokio::time::sleep(TICK).await;
            return self.go_elsewhere();
        };
        let (name, member) = (self.session.name().to_owned(), self.session.member);
        self.streams.push(Stream { name, member, request, responses: Vec::new(), stalled_before: None });
        let opened = self.shared().now();
        let stay = Duration::from_millis(match self.habit {
            Habit::Roaming | Habit::Narrow => self.session.random.random_range(300..3000),
            Habit::Edge => self.session.random.random_range(200..1000),
            Habit::Recorder | Habit::Pinned(_) | Habit::Slow(_) => u64::MAX,
        });
        let mut heard = opened;
        while !self.is_done() {
            match timeout(TICK, open.responses.message()).await {
                Err(_) => {}
                Ok(Ok(Some(response))) => {
                    heard = self.shared().now();
                    if !self.hear(heard, response) {
                        break;
                    }
                }
                Ok(Ok(None) | Err(_)) => break,
            }
            let now = self.shared().now();
            let silent = self.habit == Habit::Recorder && now > heard + SILENCE;
            if now > opened.saturating_add(stay) || silent {
                break;
            }
            self.habits(&open).await;
        }
        if self.streams.last().is_some_and(|stream| stream.responses.len() < 2) {
            // It gave nothing: no hurry to ask again.
            tokio::time::sleep(TICK).await;
        }
        self.go_elsewhere();
    }

    /// Notes a response; false if it ends the watch.
    fn hear(&mut self, at: Moment, response: WatchResponse) -> bool {
        let header = response.header.as_ref().map_or(0, |header| header.revision);
        let goes_on = !response.canceled;
        if let Some(last) = response.events.last() {
            self.told = self.told.max(event_revision(last));
        } else if response.canceled {
            self.told = self.told.max(response.compact_revision - 1);
        } else if !response.created && self.habit != Habit::Recorder {
            self.told = self.told.max(header);
        }
        if self.habit == Habit::Recorder {
            self.shared().recorded.store(self.told, Ordering::Relaxed);
        }
        self.streams.last_mut().expect("one is open").responses.push((at, response));
        goes_on
    }

    /// What each kind does between two messages.
    async fn habits(&mut self, open: &Open) {
        let ending = self.goal() != i64::MAX;
        let random = &mut self.session.random;
        let asks = match self.habit {
            Habit::Recorder => false,
            Habit::Narrow => ending || random.random_ratio(1, 3),
            Habit::Pinned(_) | Habit::Slow(_) | Habit::Roaming | Habit::Edge => random.random_ratio(1, 20),
        };
        if asks {
            let progress = RequestUnion::ProgressRequest(WatchProgressRequest {});
            // A full queue has enough of them.
            drop(open.requests.try_send(WatchRequest { request_union: Some(progress) }));
        }
        if matches!(self.habit, Habit::Slow(_)) && !ending && random.random_ratio(1, 4) {
            let pause = Duration::from_millis(random.random_range(0..1500));
            tokio::time::sleep(pause).await;
        }
    }

    fn go_elsewhere(&mut self) {
        if !matches!(self.habit, Habit::Pinned(_) | Habit::Slow(_)) {
            self.session.move_on();
        }
    }
}
