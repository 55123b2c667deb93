//! More than the cluster can take: what is over the limit is refused at once, by etcd's
//! words, and nothing else suffers.

use etcfs_proto::etcdserverpb::PutResponse;
use etcfs_tests::{
    api::{Answer, put, runtime},
    cluster::{Cluster, SETTLE},
    wait,
};
use tokio::task::JoinHandle;
use tonic::{Code, Status};

const VALUE_BYTES: usize = 1 << 20;
/// More than the 64 MiB that may wait.
const FILLING: usize = 80;
const FURTHER: usize = 200;
/// What puts that are refused may leave in memory: much less than they bring.
const GROWTH_MAX: u64 = 32 << 20;

fn is_refused(status: &Status) -> bool {
    status.code() == Code::ResourceExhausted && status.message() == "etcdserver: too many requests"
}

#[test]
fn what_the_queue_cannot_hold_is_refused_and_nothing_acknowledged_is_lost() {
    let cluster = Cluster::etcfs(3);
    let leader = cluster.leader();
    let api = cluster.api(leader);
    api.set("before", "1");
    let others = || (0..3).filter(|nth| *nth != leader);
    others().for_each(|nth| cluster.members[nth].pause());

    let value = bytes::Bytes::from(vec![b'v'; VALUE_BYTES]);
    let puts: Vec<JoinHandle<Answer<PutResponse>>> = (0..FILLING)
        .map(|nth| {
            let mut kv = api.kv();
            let request = put(&format!("k{nth}"), value.clone());
            runtime().spawn(async move { kv.put(request).await.map(tonic::Response::into_inner) })
        })
        .collect();
    // Nobody can be told anything yet but that there is no room, or that it took too long.
    wait::within(SETTLE, "the queue is full", || {
        (puts.iter().filter(|put| put.is_finished()).count() >= FILLING - 70).then_some(())
    });
    let resident = cluster.members[leader].resident_bytes();
    for nth in 0..FURTHER {
        let refused = api.put(put(&format!("further{nth}"), value.clone())).unwrap_err();
        assert!(is_refused(&refused), "{refused}");
    }
    let grown = cluster.members[leader].resident_bytes().saturating_sub(resident);
    assert!(grown < GROWTH_MAX, "{} MiB more in memory", grown >> 20);

    others().for_each(|nth| cluster.members[nth].resume());
    let answers: Vec<_> =
        puts.into_iter().map(|put| runtime().block_on(put).expect("a client does not panic")).collect();
    cluster.leader();
    cluster.agree();
    for (nth, answer) in answers.into_iter().enumerate() {
        let held = api.get(&format!("k{nth}"));
        match answer {
            Ok(_) => assert_eq!(held.expect("it was acknowledged").value, value),
            Err(status) if is_refused(&status) => assert!(held.is_none(), "k{nth} was refused"),
            // Its outcome is open: it waited for longer than a request may.
            Err(status) => assert_eq!(status.code(), Code::Unavailable, "{status}"),
        }
    }
    assert_eq!(api.all("further"), []);
}
