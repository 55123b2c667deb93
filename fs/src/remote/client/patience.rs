//! Which errors are worth a wait, and how long the mount waits.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use etcfs_client::{ClientError, Code, Outcome};
use tokio::time::{sleep, timeout};

use crate::remote::{Patience, RemoteError, Revision};

const PAUSE_FIRST: Duration = Duration::from_millis(20);
const PAUSE_LONGEST: Duration = Duration::from_secs(1);

/// Answers that make no sense may come from a connection that broke inside one, so they are asked again; a server
/// that goes on like this is not one to wait for.
const NONSENSE_MAX: u32 = 8;

/// What an error means to the caller's wait.
#[derive(Debug)]
pub(super) enum Judged {
    /// No wait mends it, and what was asked for is not done.
    Final(RemoteError),
    /// The server is out of reach, or has no leader, or too much to do.
    Away { maybe_done: bool, why: ClientError },
    /// No error that a server that is well gives.
    Nonsense { why: ClientError },
}

/// How the server is reached, and how long one waits for that.
#[derive(Debug)]
pub(super) struct Reach {
    patience: Patience,
    /// So that the log has one line for an outage, not one for each call.
    away: AtomicBool,
    /// The watch is lost.
    lost: AtomicBool,
    /// The server has said that it does not know etcfs's extension of the API.
    plain: AtomicBool,
}

/// One call's wait.
#[derive(Debug)]
pub(super) struct Wait<'a> {
    reach: &'a Reach,
    pause: Duration,
    nonsense: u32,
}

impl Reach {
    pub(super) fn new(patience: Patience) -> Self {
        let [away, lost, plain] = [false; 3].map(AtomicBool::new);
        Self { patience, away, lost, plain }
    }

    pub(super) fn set_lost(&self, lost: bool) {
        self.lost.store(lost, Ordering::Relaxed);
        // Another server may answer next.
        self.plain.store(false, Ordering::Relaxed);
    }

    /// True once the server is known to have no more than etcd's API.
    pub(super) fn is_plain(&self) -> bool {
        self.plain.load(Ordering::Relaxed)
    }

    /// Takes note of what an error tells about the server.
    pub(super) fn learn(&self, error: &RemoteError) {
        if matches!(error, RemoteError::UnknownCall(_)) && !self.plain.swap(true, Ordering::Relaxed) {
            tracing::debug!("the server has etcd's API and no more");
        }
    }

    /// True while what is older will do, and nothing is to be sent that changes anything.
    pub(super) fn is_stale(&self) -> bool {
        matches!(self.patience, Patience::Stale(_)) && self.lost.load(Ordering::Relaxed)
    }

    /// True where a change that was never sent fails, and does not wait.
    pub(super) fn fails_unsent(&self) -> bool {
        matches!(self.patience, Patience::Stale(_))
    }

    pub(super) fn wait(&self) -> Wait<'_> {
        Wait { reach: self, pause: PAUSE_FIRST, nonsense: 0 }
    }

    /// A call, given up where the mount's patience ends.
    pub(super) async fn within<T>(
        &self,
        call: impl Future<Output = Result<T, RemoteError>>,
    ) -> Result<T, RemoteError> {
        match self.patience {
            Patience::Hard => call.await,
            Patience::Soft(limit) | Patience::Stale(limit) => {
                timeout(limit, call).await.unwrap_or(Err(RemoteError::TimedOut(limit)))
            }
        }
    }

    pub(super) fn answered(&self) {
        if self.away.load(Ordering::Relaxed) && self.away.swap(false, Ordering::Relaxed) {
            tracing::info!("the server answers again");
        }
    }

    /// Asks until there is an answer: for what may be asked twice.
    pub(super) async fn ask<T, F>(&self, ask: impl Fn() -> F) -> Result<T, RemoteError>
    where
        F: Future<Output = Result<T, ClientError>>,
    {
        self.ask_again(|_| {
            let asked = ask();
            async { asked.await.map_err(judge) }
        })
        .await
    }

    /// The same for what has to know whether an earlier attempt may have been carried out.
    pub(super) async fn ask_again<T, F>(&self, mut ask: impl FnMut(bool) -> F) -> Result<T, RemoteError>
    where
        F: Future<Output = Result<T, Judged>>,
    {
        let mut wait = self.wait();
        let mut again = false;
        loop {
            match ask(again).await {
                Ok(answer) => {
                    self.answered();
                    return Ok(answer);
                }
                Err(judged) => again |= wait.after(judged).await?,
            }
        }
    }
}

impl Wait<'_> {
    /// Waits before the next attempt; true if the one that failed may have been carried out.
    pub(super) async fn after(&mut self, judged: Judged) -> Result<bool, RemoteError> {
        let (maybe_done, why) = match judged {
            Judged::Final(error) => {
                self.reach.answered();
                return Err(error);
            }
            Judged::Away { maybe_done, why } => {
                self.nonsense = 0;
                (maybe_done, why)
            }
            Judged::Nonsense { why } => {
                self.nonsense += 1;
                if self.nonsense >= NONSENSE_MAX {
                    return Err(RemoteError::Unsupported(why.to_string()));
                }
                (true, why)
            }
        };
        if !self.reach.away.swap(true, Ordering::Relaxed) {
            tracing::warn!(%why, "the server does not answer; still trying");
        }
        sleep(self.pause).await;
        self.pause = (self.pause * 2).min(PAUSE_LONGEST);
        Ok(maybe_done)
    }
}

/// The one table from the client's errors.
pub(super) fn judge(error: ClientError) -> Judged {
    let maybe_done = error.outcome() == Outcome::Unknown;
    let (code, message) = match &error {
        ClientError::Status { code, message } => (*code, message.as_str()),
        ClientError::Unsent(_) | ClientError::Unknown(_) => return Judged::Away { maybe_done, why: error },
        ClientError::Compacted { revision } => {
            return Judged::Final(RemoteError::Compacted(Some(Revision(*revision))));
        }
        ClientError::LeaseGone { .. } => return Judged::Final(RemoteError::NoSuchLease),
        ClientError::WatchCanceled { reason } if reason.contains("permission denied") => {
            return Judged::Final(RemoteError::PermissionDenied);
        }
        ClientError::Endpoint { .. } | ClientError::Tls(_) | ClientError::WatchCanceled { .. } => {
            return Judged::Final(RemoteError::Invalid(error.to_string()));
        }
    };
    let text = || message.to_owned();
    // etcd gives this one with the code Unknown.
    if message.contains("too many requests") {
        return Judged::Away { maybe_done: false, why: error };
    }
    Judged::Final(match code {
        Code::InvalidArgument if message.contains("request is too large") => RemoteError::TooLarge,
        Code::InvalidArgument if message.contains("too many operations") => RemoteError::TooManyOps,
        Code::InvalidArgument if message.contains("authentication failed") => RemoteError::Unauthenticated,
        Code::InvalidArgument => RemoteError::Invalid(text()),
        Code::ResourceExhausted if message.contains("database space exceeded") => RemoteError::NoSpace,
        // gRPC's own limit on a message, in front of the server's on a request.
        Code::ResourceExhausted => RemoteError::TooLarge,
        Code::OutOfRange if message.contains("compacted") => RemoteError::Compacted(None),
        Code::OutOfRange if message.contains("future revision") => RemoteError::FutureRevision,
        Code::OutOfRange if message.contains("lease TTL") => RemoteError::LeaseTooLong,
        // Also gRPC's, of a message that is over the sender's limit.
        Code::OutOfRange => RemoteError::TooLarge,
        Code::NotFound => RemoteError::NoSuchLease,
        Code::PermissionDenied => RemoteError::PermissionDenied,
        Code::Unauthenticated => RemoteError::Unauthenticated,
        Code::FailedPrecondition | Code::AlreadyExists => RemoteError::Unsupported(text()),
        Code::Unimplemented => RemoteError::UnknownCall(text()),
        Code::DataLoss => RemoteError::Corrupt,
        Code::Unavailable | Code::DeadlineExceeded | Code::Aborted | Code::Cancelled => {
            return Judged::Away { maybe_done, why: error };
        }
        Code::Unknown | Code::Internal | Code::Ok => return Judged::Nonsense { why: error },
    })
}

/// A lease of that id is there already.
pub(super) fn is_lease_exists(error: &ClientError) -> bool {
    matches!(error, ClientError::Status { message, .. } if message.contains("lease already exists"))
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    fn away(maybe_done: bool) -> Judged {
        let message = "etcdserver: request timed out".to_owned();
        Judged::Away { maybe_done, why: ClientError::Status { code: Code::Unavailable, message } }
    }

    /// A soft mount gives up after its time
    #[tokio::test(start_paused = true)]
    async fn a_soft_mount_gives_up_after_its_time_and_not_before() {
        let limit = Duration::from_secs(10);
        let reach = Reach::new(Patience::Soft(limit));
        let began = Instant::now();
        let asked = reach.within(reach.ask_again(|_| async { Err::<(), _>(away(false)) })).await;
        assert_eq!(asked, Err(RemoteError::TimedOut(limit)));
        assert_eq!(began.elapsed(), limit);
        // Also where no attempt ends: a server that takes the request and is silent.
        let asked = reach.within(reach.ask_again(|_| std::future::pending::<Result<(), _>>())).await;
        assert_eq!(asked, Err(RemoteError::TimedOut(limit)));
        assert_eq!(began.elapsed(), limit * 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_hard_mount_waits_until_the_server_is_back() {
        let reach = Reach::new(Patience::Hard);
        let began = Instant::now();
        let answer = reach
            .ask_again(|again| async move {
                if began.elapsed() < Duration::from_secs(7200) { Err(away(true)) } else { Ok(again) }
            })
            .await;
        assert_eq!(answer, Ok(true), "and remembers that an attempt may have been carried out");
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_only_answers_nonsense_is_not_waited_for() {
        let reach = Reach::new(Patience::Hard);
        let asked = reach
            .ask(|| async {
                Err::<(), _>(ClientError::Status { code: Code::Internal, message: "bad frame".into() })
            })
            .await;
        assert!(matches!(asked, Err(RemoteError::Unsupported(_))));
    }

    #[test]
    fn the_servers_words_become_reasons() {
        for (code, message, reason) in [
            (Code::InvalidArgument, "etcdserver: request is too large", RemoteError::TooLarge),
            (Code::ResourceExhausted, "grpc: received message larger than max", RemoteError::TooLarge),
            (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded", RemoteError::NoSpace),
            (Code::NotFound, "etcdserver: requested lease not found", RemoteError::NoSuchLease),
            (
                Code::OutOfRange,
                "etcdserver: mvcc: required revision has been compacted",
                RemoteError::Compacted(None),
            ),
            (Code::PermissionDenied, "etcdserver: permission denied", RemoteError::PermissionDenied),
        ] {
            let judged = judge(ClientError::Status { code, message: message.into() });
            assert!(matches!(judged, Judged::Final(error) if error == reason), "{message}");
        }
        let refused = ClientError::WatchCanceled { reason: "etcdserver: permission denied".into() };
        assert!(matches!(judge(refused), Judged::Final(RemoteError::PermissionDenied)));
        let busy =
            ClientError::Status { code: Code::Unknown, message: "etcdserver: too many requests".into() };
        assert!(matches!(judge(busy), Judged::Away { maybe_done: false, .. }));
    }
}
