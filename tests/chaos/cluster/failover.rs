//! How long nobody can write when a leader dies.

use std::{
    sync::mpsc,
    time::{Duration, Instant},
};

use etcfs_tests::{
    api::{Api, put, runtime},
    machine::setting,
    partition::{Cluster, Shape},
    process::show,
    server::Kind,
    wait,
};
use serde_json::json;

use super::record;

/// Leaders killed of each store.
const KILLS: u64 = 1;
/// So many tell one store from the other; fewer show that it works.
const JUDGED: usize = 45;
/// The same for both, and etcd's defaults.
const ARGS: [&str; 2] = ["--heartbeat-interval=100", "--election-timeout=1000"];
/// Time between two puts to one member.
const STEP: Duration = Duration::from_millis(10);
/// Several election timeouts.
const CUT_OFF: Duration = Duration::from_secs(5);
/// How long it may take: far more than it does, or the cluster is stuck.
const PATIENCE: Duration = Duration::from_secs(30);

/// Pre-vote: one that asks for votes in vain, for it is cut off, raises no term meanwhile, and does
/// not make the others' leader step down when it is back.
#[test]
fn a_follower_that_was_cut_off_deposes_nobody() {
    let cluster = Cluster::start(Kind::Etcfs, Shape::default());
    let leader = wait::until("a leader is known", || cluster.leader());
    let follower = (leader + 1) % cluster.len();
    let told = |member| cluster.status(member).map(|status| (status.leader, status.raft_term));
    let before = wait::until("the leader tells its term", || told(leader));
    cluster.isolate(follower);
    wait::until_true("it misses the leader", || told(follower).is_some_and(|(leader, _)| leader == 0));
    let began = Instant::now();
    while began.elapsed() < CUT_OFF {
        cluster.api(leader).set("a", "v");
    }
    assert_eq!(told(follower), Some((0, before.1)), "it has raised no term");
    cluster.rejoin(follower);
    wait::within(PATIENCE, "it follows again", || (told(follower) == Some(before)).then_some(()));
    assert_eq!(told(leader), Some(before));
}

/// Both stores in turn, so that what else the machine does hits both alike; the medians are shown.
#[test]
fn a_killed_leader_is_replaced() {
    let kinds = [Kind::Etcd, Kind::Etcfs];
    let shape = Shape { args: ARGS.map(str::to_owned).into(), ..Shape::default() };
    let mut clusters = kinds.map(|kind| (Cluster::start(kind, shape.clone()), Vec::new()));
    for number in 0..setting("ETCFS_TEST_FAILOVERS", KILLS) {
        for (cluster, times) in &mut clusters {
            times.push(kill_the_leader(cluster, number));
        }
    }
    let mut stores = Vec::new();
    for (cluster, times) in &mut clusters {
        times.sort_unstable();
        let (median, slowest) = (times[times.len() / 2], times[times.len() - 1]);
        stores.push(json!({
            "store": format!("{:?}", cluster.kind()),
            "commit": record::version(cluster.kind()),
            "kills": times.len(),
            "median_ms": median.as_millis() as u64,
            "times_ms": times.iter().map(|time| time.as_millis() as u64).collect::<Vec<_>>(),
        }));
        show(&format!(
            "{:?}: from the kill of a leader to the next acknowledged put, median {median:.3?}, \
             slowest {slowest:.3?} of {}: {times:.3?}",
            cluster.kind(),
            times.len()
        ));
    }
    if let [(_, etcd), (_, etcfs)] = &clusters
        && etcd.len() >= JUDGED
    {
        assert!(etcfs[etcfs.len() / 2] <= etcd[etcd.len() / 2], "the median is to be at most etcd's");
    }
    let test = record::test();
    record::keep(&format!("{test}.json"), &json!({ "test": test, "args": ARGS, "stores": stores }));
}

/// Kills the leader of a cluster that has been at rest; returns the time to the next acknowledged put.
fn kill_the_leader(cluster: &mut Cluster, number: u64) -> Duration {
    cluster.wait_until_ready();
    // Each member takes a put: whoever was away has found the leader again.
    for member in 0..cluster.len() {
        cluster.api(member).set(&format!("warm/{member}"), format!("{number}"));
    }
    let leader = wait::until("there is a leader", || cluster.leader());
    let others: Vec<Api> = (0..cluster.len()).filter(|&m| m != leader).map(|m| cluster.api(m)).collect();
    for api in &others {
        // Connected before the clock runs.
        assert!(api.revision() > 0);
    }
    cluster.kill(leader);
    let killed = Instant::now();
    let (acknowledged, first) = mpsc::channel();
    let writers: Vec<_> = others
        .into_iter()
        .map(|api| runtime().spawn(put_again_and_again(api, acknowledged.clone())))
        .collect();
    let took = first.recv_timeout(PATIENCE).expect("a put is acknowledged again") - killed;
    writers.iter().for_each(tokio::task::JoinHandle::abort);
    cluster.launch(leader);
    took
}

/// Puts at a steady rate, whatever becomes of the puts before; tells when one is acknowledged.
async fn put_again_and_again(api: Api, acknowledged: mpsc::Sender<Instant>) {
    let mut puts = tokio::task::JoinSet::new();
    loop {
        let (mut kv, acknowledged) = (api.kv(), acknowledged.clone());
        puts.spawn(async move {
            if kv.put(put("failover", "v")).await.is_ok() {
                // An error says that the one who waits has heard enough.
                let _heard = acknowledged.send(Instant::now());
            }
        });
        tokio::time::sleep(STEP).await;
    }
}
