//! A client that has history forgotten, right behind the recorder and before slow watchers.

use std::{sync::atomic::Ordering, time::Duration};

use etcfs_proto::etcdserverpb::CompactionRequest;
use etcfs_tests::judge::{Operation, Outcome};
use rand::RngExt as _;

use super::session::Session;

/// Revisions that a compaction leaves, at most.
const BEHIND: i64 = 150;

/// Works until it is told to stop; returns all it saw.
pub(crate) async fn work(mut session: Session) -> Vec<Operation> {
    while !session.shared.stopped() {
        tokio::time::sleep(Duration::from_millis(session.random.random_range(200..1500))).await;
        let recorded = session.shared.recorded.load(Ordering::Relaxed);
        let revision = recorded - session.random.random_range(0..BEHIND);
        if revision <= session.shared.compacted.load(Ordering::Relaxed) {
            continue;
        }
        let physical = session.random.random_ratio(1, 4);
        if let Outcome::Answered(_) = session.compact(CompactionRequest { revision, physical }).await {
            session.shared.compacted.store(revision, Ordering::Relaxed);
        }
    }
    session.into_operations()
}
