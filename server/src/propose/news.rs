//! Waiting for a leader.

use std::{future::pending, time::Duration};

use tokio::{sync::watch, time};

use crate::raft::MemberStatus;

/// Returns once `status` has changed, or after `pause`.
///
/// A member that has ended has no news any more: that is no reason to try again
/// at once, and at once again.
pub(super) async fn news(mut status: watch::Receiver<MemberStatus>, pause: Duration) {
    let changed = async {
        if status.changed().await.is_err() {
            pending::<()>().await;
        }
    };
    // Whichever came first, whoever waits looks anew.
    drop(time::timeout(pause, changed).await);
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    const PAUSE: Duration = Duration::from_millis(50);

    #[tokio::test(start_paused = true)]
    async fn news_cut_the_pause_short() {
        let (told, status) = watch::channel(MemberStatus::default());
        let began = Instant::now();
        told.send(MemberStatus { term: 1, ..MemberStatus::default() }).expect("waited for");
        news(status, PAUSE).await;
        assert!(began.elapsed() < PAUSE);
    }

    /// It used to return at once, and requests without a leader went round without a rest.
    #[tokio::test(start_paused = true)]
    async fn a_member_that_has_ended_is_not_asked_without_a_pause() {
        let (told, status) = watch::channel(MemberStatus::default());
        drop(told);
        let began = Instant::now();
        news(status, PAUSE).await;
        assert_eq!(began.elapsed(), PAUSE);
    }
}
