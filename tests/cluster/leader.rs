//! Who leads: moved on request, handed over at an end, and missed when it is lost.

use std::time::{Duration, Instant};

use bytes::Bytes;
use etcfs_proto::{
    etcdserverpb::{MoveLeaderRequest, WatchRequest, watch_client::WatchClient, watch_request::RequestUnion},
    etcfs::peer::{KeepAliveRequest, ProposeRequest, errands_client::ErrandsClient, peer_client::PeerClient},
};
use etcfs_tests::{
    api::{Api, watch_key},
    cluster::{Cluster, members, status},
    command::Client,
    wait,
};
use tonic::{Code, Request, metadata::MetadataMap};

#[test]
fn the_leader_moves_where_it_is_told() {
    let cluster = Cluster::etcfs(3);
    let leader = cluster.leader();
    let target = cluster.follower();
    let id = status(&cluster.api(target)).unwrap().header.unwrap().member_id;
    let ask = |nth: usize, target_id| {
        let api = cluster.api(nth);
        api.wait(api.maintenance().move_leader(MoveLeaderRequest { target_id }))
    };
    let refused = ask(target, id).unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::FailedPrecondition, "etcdserver: not leader"));
    let refused = ask(leader, 12345).unwrap_err();
    assert_eq!(refused.message(), "etcdserver: bad leader transferee");
    ask(leader, id).unwrap();
    assert_eq!(cluster.leader(), target);
    cluster.api(leader).set("a", "v");
}

/// It goes on to lead.
#[test]
fn a_leader_does_not_move_to_who_does_not_answer() {
    let cluster = Cluster::etcfs(3);
    let leader = cluster.leader();
    let target = cluster.follower();
    let target_id = status(&cluster.api(target)).unwrap().header.unwrap().member_id;
    cluster.members[target].pause();
    let api = cluster.api(leader);
    let refused = api.wait(api.maintenance().move_leader(MoveLeaderRequest { target_id })).unwrap_err();
    let late = "etcdserver: request timed out, leader transfer took too long";
    assert_eq!((refused.code(), refused.message()), (Code::Unknown, late));
    api.set("a", "v");
    cluster.members[target].resume();
    cluster.agree();
}

/// CVE-2020-15114: what members hand on goes one way at most. Who does not lead hands back what it is handed.
#[test]
fn a_member_that_does_not_lead_passes_nothing_on() {
    let cluster = Cluster::etcfs(3);
    let follower = &cluster.members[cluster.follower()];
    let own = status(&follower.api()).unwrap();
    let header = own.header.unwrap();
    let signed = |version: &str| {
        let mut metadata = MetadataMap::new();
        let ids = [
            ("etcfs-cluster", header.cluster_id),
            ("etcfs-from", own.leader),
            ("etcfs-to", header.member_id),
        ];
        for (key, id) in ids {
            metadata.insert(key, format!("{id:016x}").parse().unwrap());
        }
        metadata.insert("etcfs-version", version.parse().unwrap());
        metadata
    };
    let peers = Api::to(&follower.peer_endpoint());
    let mut request = Request::new(ProposeRequest { term: own.raft_term, batch: Bytes::new() });
    *request.metadata_mut() = signed(&own.version);
    let answer = peers.wait(PeerClient::new(peers.channel()).propose(request)).unwrap();
    assert!(answer.into_inner().refused, "it was not appended, by nobody");
    let mut request = Request::new(KeepAliveRequest { id: 1 });
    *request.metadata_mut() = signed(&own.version);
    let refused = peers.wait(ErrandsClient::new(peers.channel()).keep_alive(request)).unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::FailedPrecondition, "not leader"));
}

#[test]
fn etcdctl_moves_the_leader() {
    let cluster = Cluster::etcfs(3);
    cluster.leader();
    let target = cluster.follower();
    let id = status(&cluster.api(target)).unwrap().header.unwrap().member_id;
    let told = Client::etcdctl(&cluster.endpoints()).run(["move-leader", &format!("{id:x}")]).ok();
    assert!(told.starts_with("Leadership transferred from"), "{told}");
    assert_eq!(cluster.leader(), target);
}

/// A stop in order costs no election timeout: a write goes through at once.
#[test]
fn a_leader_that_is_stopped_hands_over_first() {
    let mut cluster = Cluster::etcfs(3);
    let leader = cluster.leader();
    let follower = cluster.follower();
    assert!(cluster.members[leader].stop().success());
    let log = cluster.members[leader].log_of_last_run();
    assert!(log.contains("another member leads now"), "{log}");
    cluster.api(follower).set("a", "v");
    assert!(members(&cluster.api(follower)).unwrap().len() == 3);
}

/// Each member in turn, with a client on another that notices nothing.
#[test]
fn a_rolling_restart_fails_no_write() {
    let mut cluster = Cluster::etcfs(3);
    for nth in 0..3 {
        let api = cluster.api((nth + 1) % 3);
        let writer = std::thread::spawn(move || {
            let until = Instant::now() + Duration::from_secs(3);
            let mut written = 0;
            while Instant::now() < until {
                api.set("a", "v");
                written += 1;
            }
            written
        });
        assert!(cluster.members[nth].stop().success());
        cluster.members[nth].run();
        assert!(writer.join().unwrap() > 0);
    }
    cluster.agree();
}

/// In etcd's words: refused at once, and an open stream is ended.
#[test]
fn who_asks_for_a_leader_is_refused_without_one() {
    let mut cluster = Cluster::etcfs(3);
    cluster.leader();
    let api = cluster.api(0);
    let (requests, queue) = tokio::sync::mpsc::channel(1);
    let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(watch_key("a", 0))) };
    requests.try_send(create).unwrap();
    let mut request = Request::new(tokio_stream::wrappers::ReceiverStream::new(queue));
    request.metadata_mut().insert("hasleader", "true".parse().unwrap());
    let mut client = WatchClient::new(api.channel());
    let mut stream = api.wait(client.watch(request)).unwrap().into_inner();
    assert!(api.wait(stream.message()).unwrap().unwrap().created);
    cluster.members[1].kill();
    cluster.members[2].kill();
    let lost = api.wait(stream.message()).unwrap_err();
    assert_eq!((lost.code(), lost.message()), (Code::Unavailable, "etcdserver: no leader"));
    let mut request = Request::new(etcfs_proto::etcdserverpb::RangeRequest {
        serializable: true,
        ..etcfs_tests::api::get("a")
    });
    request.metadata_mut().insert("hasleader", "true".parse().unwrap());
    let refused = api.wait(api.kv().range(request)).unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::Unavailable, "etcdserver: no leader"));
    drop(requests);
    cluster.members[1].run();
    wait::until_true("there is a leader again", || status(&api).unwrap().leader != 0);
}
