//! The times of what was there before the mount, asked of the server.
//!
//! They are asked for on the way of an answer to who wants it: in one question for all that the answer tells of, and
//! no other time is needed for what the mount hears of later. No caller fails for want of a time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use etcfs_client::Client;
use etcfs_proto::etcfs::v1::TimesRequest;
use futures_util::StreamExt;
use parking_lot::Mutex;

use super::patience::{Judged, Reach, judge};
use super::wire;
use crate::remote::times::Times;
use crate::remote::{RemoteError, Revision, Watch, Watched};

/// A question is given up after so long: there is a way without its answer.
const WITHIN: Duration = Duration::from_millis(500);
/// After one that failed, no other is put for so long.
const PAUSE: Duration = Duration::from_secs(10);
/// Revisions in one question.
const REVISIONS_MAX: usize = 10_000;
/// Who goes through the past asks for so many revisions at once.
const AHEAD: i64 = 1000;

/// When revisions were made, and where to ask for that.
#[derive(Debug)]
pub(super) struct Past {
    pub(super) times: Times,
    client: Client,
    reach: Arc<Reach>,
    /// Until when no question is put.
    rests: Mutex<Option<Instant>>,
}

impl Past {
    pub(super) fn new(client: &Client, reach: &Arc<Reach>) -> Self {
        let client = client.with_request_timeout(WITHIN);
        Self { times: Times::default(), client, reach: reach.clone(), rests: Mutex::default() }
    }

    /// Sees to it that the times of these revisions are known, as far as the server knows them.
    pub(super) async fn learn(&self, revisions: impl IntoIterator<Item = Revision>) {
        let unknown = self.times.unknown(revisions);
        if unknown.is_empty() || self.rests() {
            return;
        }
        if self.reach.is_plain() {
            return self.times.be_own();
        }
        for revisions in unknown.chunks(REVISIONS_MAX) {
            let request = TimesRequest { revisions: revisions.to_vec() };
            let asked = tokio::time::timeout(WITHIN, self.client.tree().times(request)).await;
            match asked.map(|asked| asked.map_err(judge)) {
                Ok(Ok(answer)) => self.times.learn(wire::times(revisions, &answer)),
                // Of etcd, or of an etcfs that is older than the call.
                Ok(Err(Judged::Final(RemoteError::UnknownCall(_)))) => return self.times.be_own(),
                failed => {
                    tracing::debug!(?failed, "the server told no times of revisions");
                    *self.rests.lock() = Some(Instant::now() + PAUSE);
                    return;
                }
            }
        }
    }

    fn rests(&self) -> bool {
        self.rests.lock().is_some_and(|until| Instant::now() < until)
    }

    /// A watch whose events' times are known before it brings them.
    pub(super) fn on_the_way(self: &Arc<Self>, from: Revision, watch: Watch) -> Watch {
        if !self.times.is_past(from) {
            return watch;
        }
        let past = self.clone();
        let learned = watch.then(move |watched| {
            let past = past.clone();
            async move {
                if let Ok(Watched::Changed(changed)) = &watched
                    && past.times.unknown([changed.revision]).contains(&changed.revision.0)
                {
                    let revision = changed.revision.0;
                    past.learn((revision..revision.saturating_add(AHEAD)).map(Revision)).await;
                }
                watched
            }
        });
        learned.boxed()
    }
}
