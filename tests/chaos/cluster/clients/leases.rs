//! A client of leases: keys that live as long as it renews.

use std::time::Duration;

use bytes::Bytes;
use etcfs_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseLeasesRequest, LeaseRevokeRequest, LeaseTimeToLiveRequest, PutRequest,
};
use etcfs_tests::judge::{Operation, Outcome};
use rand::RngExt as _;

use super::session::Session;

/// Where keys on leases lie.
pub(crate) const PREFIX: &str = "lease/";
/// Keys of each client.
const KEYS: u32 = 5;
/// Times to live that are asked for: about as long as the faults.
const TTLS: std::ops::RangeInclusive<i64> = 2..=4;
/// The longest of them.
pub(crate) const TTL_MAX: Duration = Duration::from_secs(4);

/// Works until it is told to stop; returns all it saw.
pub(crate) async fn work(mut session: Session) -> Vec<Operation> {
    session.move_on();
    while !session.shared.stopped() {
        one_lease(&mut session).await;
    }
    session.into_operations()
}

async fn one_lease(session: &mut Session) {
    let ttl = session.random.random_range(TTLS);
    let id = if session.random.random() { session.random.random_range(1..i64::MAX) } else { 0 };
    let Outcome::Answered(granted) = session.grant(LeaseGrantRequest { ttl, id }).await else { return };
    let (id, ttl) = (granted.id, Duration::from_secs(granted.ttl.unsigned_abs()));
    for _ in 0..session.random.random_range(1..4) {
        put_on(session, id).await;
    }
    for _ in 0..session.random.random_range(0..8) {
        // At times so late that it has just ended, or is about to.
        let share = session.random.random_range(0.1..1.1);
        pause(session, ttl.mul_f64(share)).await;
        if session.shared.stopped() {
            return;
        }
        if let Outcome::Answered(answer) = session.keep_alive(id).await
            && answer.ttl <= 0
        {
            return;
        }
        if session.random.random_ratio(1, 3) {
            put_on(session, id).await;
        }
        if session.random.random() {
            look(session, id).await;
        }
    }
    match session.random.random_range(0..4) {
        0 => {
            session.revoke(LeaseRevokeRequest { id }).await;
            look(session, id).await;
        }
        1 => pause(session, ttl).await,
        _ => {}
    }
}

/// Asks what is known of the lease; at times of all leases.
async fn look(session: &mut Session, id: i64) {
    if session.random.random_ratio(1, 5) {
        session.leases(LeaseLeasesRequest {}).await;
    } else {
        let keys = session.random.random();
        session.time_to_live(LeaseTimeToLiveRequest { id, keys }).await;
    }
}

async fn put_on(session: &mut Session, lease: i64) {
    let number = session.random.random_range(0..KEYS);
    let key = format!("{PREFIX}{}/{number}", session.name());
    let (key, value) = (Bytes::from(key), session.value());
    session.put(PutRequest { key, value, lease, ..Default::default() }).await;
}

/// Lets time pass, but not much of it once the run is to end.
async fn pause(session: &Session, time: Duration) {
    let until = session.shared.now() + time;
    while session.shared.now() < until && !session.shared.stopped() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
