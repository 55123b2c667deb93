//! The mount's watch: one watcher for each range, merged into whole revisions.
//!
//! etcd before 3.4.25 and 3.5.8 answers a question about progress at once, also before it has sent what lies before
//! it. Of such a server an answer counts only as the second in a row, each asked for after the one before had come,
//! and from a watch that has stood for a while: by then what waited to be sent was sent, since the server picks at
//! random between the two. Should that fail, a revision comes in two parts; nothing is lost.

use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use etcfs_client::{BatchKind, Client, ClientError, WatchBatch, WatchState, Watcher};
use etcfs_proto::etcdserverpb::WatchCreateRequest;
use etcfs_proto::key::KeyRange;
use futures_util::stream::{self, Stream, StreamExt};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::merge::Merge;
use super::patience::{Judged, Reach, judge};
use super::wire;
use crate::remote::{RemoteError, Revision, Watch, Watched};

/// Something waits for a range's progress: the server is asked again after so long.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// So long a new watch may take before it counts as lost.
const OPEN_WITHIN: Duration = Duration::from_secs(5);

/// A watch that is newer than this may still be catching up, ten times a second, on such a server.
const SETTLED: Duration = Duration::from_millis(300);

struct Open {
    client: Client,
    reach: Arc<Reach>,
    /// Whether the server's answers about progress can be believed at once; asked when first needed.
    honest: Option<bool>,
    /// The answer that each range's next one has to confirm.
    unconfirmed: Vec<Option<i64>>,
    watchers: Vec<Watcher>,
    states: Vec<watch::Receiver<WatchState>>,
    merge: Merge,
    /// How often each range's watch was made, as far as its batches have been taken.
    made: Vec<u64>,
    /// Ranges that have not said yet how far they are, beyond their events.
    silent: Vec<bool>,
    /// As last told to the reader.
    lost: bool,
    /// Until then a watcher that was never connected is not missed.
    open_by: Instant,
    ended: bool,
}

pub(super) fn open(client: &Client, reach: &Arc<Reach>, ranges: Vec<KeyRange>, from: Revision) -> Watch {
    let watchers: Vec<Watcher> = ranges
        .iter()
        .map(|range| {
            let (key, range_end) = wire::bounds(range);
            client.watch(WatchCreateRequest {
                key,
                range_end,
                start_revision: from.0,
                progress_notify: true,
                ..WatchCreateRequest::default()
            })
        })
        .collect();
    let open = Open {
        client: client.clone(),
        reach: reach.clone(),
        honest: None,
        unconfirmed: vec![None; watchers.len()],
        states: watchers.iter().map(Watcher::state).collect(),
        merge: Merge::new(watchers.len(), from),
        made: vec![0; watchers.len()],
        silent: vec![true; watchers.len()],
        watchers,
        lost: false,
        open_by: Instant::now() + OPEN_WITHIN,
        ended: false,
    };
    stream::unfold(open, |mut open| async move { Some((open.next().await?, open)) }).boxed()
}

impl Open {
    async fn next(&mut self) -> Option<Result<Watched, RemoteError>> {
        while !self.ended {
            if let Some(changed) = self.connection_changed() {
                return Some(Ok(changed));
            }
            if let Some(watched) = self.merge.next() {
                return Some(Ok(watched));
            }
            let mut behind: Vec<usize> = self.merge.behind().collect();
            behind.extend((0..self.silent.len()).filter(|&range| self.silent[range]));
            if !behind.is_empty() && self.honest.is_none() {
                self.honest = Some(is_honest(&self.client).await);
            }
            for &range in &behind {
                self.watchers[range].request_progress();
            }
            let never_connected =
                !self.lost && self.states.iter().any(|state| state.borrow().connected.is_none());
            tokio::select! {
                (range, batch) = next_batch(&mut self.watchers) => match batch {
                    Some(Ok(batch)) => self.take(range, batch),
                    Some(Err(error)) => {
                        self.ended = true;
                        return Some(Err(match judge(error) {
                            Judged::Final(error) => error,
                            Judged::Away { why, .. } | Judged::Nonsense { why } => {
                                RemoteError::Unsupported(why.to_string())
                            }
                        }));
                    }
                    None => self.ended = true,
                },
                () = any_changed(&mut self.states) => {}
                () = sleep(ASK_AGAIN), if !behind.is_empty() => {}
                () = sleep_until(self.open_by), if never_connected && Instant::now() < self.open_by => {}
            }
        }
        None
    }

    fn take(&mut self, range: usize, batch: WatchBatch) {
        match batch.kind {
            BatchKind::Created { resumed } => {
                self.unconfirmed[range] = None;
                self.made[range] += 1;
                if resumed {
                    self.merge.expect(Revision(batch.revision));
                }
            }
            BatchKind::Events => {
                for (revision, event) in batch.events.into_iter().filter_map(wire::event) {
                    self.merge.event(revision, event);
                }
                self.merge.know(range, Revision(batch.revision));
            }
            BatchKind::Progress => self.know(range, batch.revision),
            BatchKind::ProgressAnswer if self.honest == Some(true) => {
                self.know(range, batch.revision);
            }
            BatchKind::ProgressAnswer => {
                let connected =
                    self.states[range].borrow().connected.as_ref().map(|(_, since)| since.elapsed());
                if connected.is_some_and(|age| age >= SETTLED) {
                    let confirmed = self.unconfirmed[range].replace(batch.revision);
                    if let Some(revision) = confirmed {
                        self.know(range, revision);
                    }
                }
            }
        }
    }

    fn know(&mut self, range: usize, revision: i64) {
        self.silent[range] = false;
        self.merge.know(range, Revision(revision));
    }

    fn connection_changed(&mut self) -> Option<Watched> {
        // A watch that stands again, but whose first batch waits here, has not said yet what is expected of it.
        let mut standing = self.states.iter_mut().zip(&self.made).map(|(state, made)| {
            let state = state.borrow_and_update();
            state.connected.is_some() && *made > state.resumed
        });
        let all = standing.by_ref().fold(true, |all, stands| all & stands);
        let lost = (!all && (Instant::now() >= self.open_by || self.lost))
            // It stands again, but what happened meanwhile is still to come.
            || (all && self.lost && !self.merge.has_caught_up());
        if all {
            // From now on an interruption is told at once.
            self.open_by = Instant::now();
        }
        if lost == self.lost {
            return None;
        }
        self.lost = lost;
        self.reach.set_lost(lost);
        Some(if lost { Watched::Lost } else { Watched::Back })
    }
}

type Batch = Option<Result<WatchBatch, ClientError>>;

async fn next_batch(watchers: &mut [Watcher]) -> (usize, Batch) {
    std::future::poll_fn(|cx| {
        for (range, watcher) in watchers.iter_mut().enumerate() {
            if let Poll::Ready(batch) = Pin::new(watcher).poll_next(cx) {
                return Poll::Ready((range, batch));
            }
        }
        Poll::Pending
    })
    .await
}

async fn any_changed(states: &mut [watch::Receiver<WatchState>]) {
    let changes = states.iter_mut().map(|state| Box::pin(state.changed()));
    // An error is a watcher that has ended: its last batch says why.
    if let (Err(_), ..) = futures_util::future::select_all(changes).await {
        std::future::pending::<()>().await;
    }
}

/// Whether the server tells its progress only once what lies before it is sent.
async fn is_honest(client: &Client) -> bool {
    // A server that does not say what it is, is taken for an old one: that costs a round trip more.
    let Ok(status) = client.maintenance().status().await else { return false };
    let mut numbers = status.version.split(['.', '-']).map(|number| number.parse::<u32>().unwrap_or(0));
    let mut next = || numbers.next().unwrap_or(0);
    match (next(), next(), next()) {
        (3, 4, patch) => patch >= 25,
        (3, 5, patch) => patch >= 8,
        version => version >= (3, 6, 0),
    }
}
