//! Many leases, which end all at once.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use etcfs_proto::etcdserverpb::LeaseLeasesRequest;
use etcfs_tests::{
    api::{grant, runtime},
    machine::setting,
    process::show,
    server::Server,
    wait,
};
use tokio::{sync::Semaphore, task::JoinSet};

use super::{RESIDENT_BYTES_MAX, lives, server};

/// Grants under way at a time.
const AT_ONCE: usize = 256;
const TTL_SECONDS: i64 = 30;
/// How long their end may take, once it has begun.
const END_MAX: Duration = Duration::from_secs(10);

/// A restart renews all leases to their full time, so that they end at the same moment.
#[test]
fn many_leases_that_end_at_once_are_gone_soon_and_nobody_is_elected() {
    let leases = setting("ETCFS_TEST_LEASES", 100_000);
    let mut server = server(&[]);
    let slots = Arc::new(Semaphore::new(AT_ONCE));
    let begun = Instant::now();
    runtime().block_on(async {
        let mut grants = JoinSet::new();
        let api = server.api();
        for _ in 0..leases {
            let slot = slots.clone().acquire_owned().await.expect("it is never closed");
            let mut lease = api.lease();
            grants.spawn(async move {
                let granted = lease.lease_grant(grant(TTL_SECONDS)).await;
                drop(slot);
                granted
            });
        }
        while let Some(granted) = grants.join_next().await {
            granted.expect("a call does not panic").expect("a lease is granted");
        }
    });
    show(&format!("{leases} leases in {:.1?}", begun.elapsed()));
    assert!(server.stop().success());
    server.run();
    let restarted = Instant::now();
    let left = |server: &Server| {
        server.api().leases(LeaseLeasesRequest {}).expect("leases are listed").leases.len() as u64
    };
    let held = left(&server);
    assert!(held > 0, "some leases live over the restart");
    wait::within(Duration::from_secs(TTL_SECONDS.unsigned_abs() + 10), "the first ends", || {
        (left(&server) < held).then_some(())
    });
    let ending = Instant::now();
    wait::within(END_MAX, "the last has ended", || (left(&server) == 0).then_some(()));
    show(&format!(
        "{held} ended within {:.1?}, {:.1?} after the restart",
        ending.elapsed(),
        restarted.elapsed()
    ));
    assert!(restarted.elapsed() >= Duration::from_secs(TTL_SECONDS.unsigned_abs() - 5), "none ends early");
    assert_eq!(server.metric("etcd_server_leader_changes_seen_total"), Some(1.0), "its own at the start");
    lives(&server, RESIDENT_BYTES_MAX);
}
