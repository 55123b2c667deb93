//! The Rust client that others use, the crate `etcd-client`, driven through every
//! call that it has against a cluster of ours.

use std::{collections::BTreeSet, time::Duration};

use etcd_client::{
    AlarmAction, AlarmType, Client, CompactionOptions, Compare, CompareOp, DeleteOptions, DowngradeOptions,
    Error, EventType, GetOptions, LeaseTimeToLiveOptions, LockOptions, MemberAddOptions, Permission,
    ProclaimOptions, PutOptions, ResignOptions, SortOrder, SortTarget, Txn, TxnOp, TxnOpResponse,
    WatchOptions,
};
use etcfs_server::net::METHODS;
use etcfs_tests::{
    api::runtime,
    cluster::{Cluster, SETTLE, status},
    server::{Server, http_get},
};
use tokio::time::{interval, timeout};

/// Calls that the crate does not have.
const LACKING: [&str; 1] = ["AuthStatus"];

type Done = Result<(), Error>;

#[test]
fn the_crate_etcd_client_makes_every_call() {
    let cluster = Cluster::with(etcfs_tests::server::Kind::Etcfs, 3, &["--bcrypt-cost=4"]);
    let leader = cluster.leader();
    let server = &cluster.members[leader];
    let mut newcomer = cluster.newcomer("m3", &[]);
    let follower = status(&cluster.api(cluster.follower())).unwrap().header.unwrap().member_id;
    runtime().block_on(async {
        let mut client = Client::connect([server.endpoint()], None).await.unwrap();
        keys(&mut client).await.unwrap();
        watches(&mut client).await.unwrap();
        leases(&mut client).await.unwrap();
        locks(&mut client).await.unwrap();
        elections(&mut client).await.unwrap();
        maintenance(&mut client).await.unwrap();
        users(&mut client, &server.endpoint()).await.unwrap();
        members(&mut client, &mut newcomer).await.unwrap();
        client.move_leader(follower).await.unwrap();
    });
    assert_ne!(cluster.leader(), leader);
    let made = answered(server);
    let all = METHODS
        .iter()
        .filter(|(service, ..)| !["grpc.", "etcfs."].iter().any(|other| service.starts_with(other)))
        .filter(|(_, method, _)| !LACKING.contains(method));
    let missing: Vec<_> = all.filter(|(_, method, _)| !made.contains(*method)).collect();
    assert!(missing.is_empty(), "not made, or never with success: {missing:?}");
}

/// Methods that a server has answered without an error.
fn answered(server: &Server) -> BTreeSet<String> {
    let metrics = http_get(&server.endpoint(), "/metrics").expect("it serves");
    let lines = metrics.lines().filter(|line| {
        line.starts_with("grpc_server_handled_total{")
            && line.contains("grpc_code=\"OK\"")
            && !line.ends_with(" 0")
    });
    let method = |line: &str| Some(line.split_once("grpc_method=\"")?.1.split_once('"')?.0.to_owned());
    lines.filter_map(method).collect()
}

async fn keys(client: &mut Client) -> Done {
    client.put("a", "1", None).await?;
    let again = client.put("a", "2", Some(PutOptions::new().with_prev_key())).await?;
    assert_eq!(again.prev_key().map(etcd_client::KeyValue::value), Some(&b"1"[..]));
    client.put("b", "3", None).await?;
    let sorted =
        GetOptions::new().with_all_keys().with_sort(SortTarget::Key, SortOrder::Descend).with_limit(1);
    let first = client.get("", Some(sorted)).await?;
    assert_eq!((first.kvs()[0].key_str()?, first.kvs()[0].value_str()?), ("b", "3"));
    assert!(first.more() && first.count() == 2);
    let txn = Txn::new()
        .when([Compare::version("a", CompareOp::Equal, 2), Compare::value("b", CompareOp::Equal, "3")])
        .and_then([
            TxnOp::put("c", "4", None),
            TxnOp::get("c", None),
            TxnOp::txn(Txn::new().and_then([TxnOp::delete("b", None)])),
        ])
        .or_else([TxnOp::delete("a", None)]);
    let done = client.txn(txn).await?;
    assert!(done.succeeded());
    match &done.op_responses()[..] {
        [TxnOpResponse::Put(_), TxnOpResponse::Get(got), TxnOpResponse::Txn(inner)] => {
            assert_eq!(got.kvs()[0].value_str()?, "4");
            assert!(
                matches!(&inner.op_responses()[..], [TxnOpResponse::Delete(gone)] if gone.deleted() == 1)
            );
        }
        other => panic!("{other:?}"),
    }
    client.put("b", "3", None).await?;
    let gone = client.delete("b", Some(DeleteOptions::new().with_prev_key())).await?;
    assert_eq!((gone.deleted(), gone.prev_kvs()[0].value_str()?), (1, "3"));
    let revision = gone.header().expect("every answer has a header").revision();
    client.compact(revision, Some(CompactionOptions::new().with_physical())).await?;
    let old = client.get("a", Some(GetOptions::new().with_revision(revision - 1))).await.unwrap_err();
    assert!(old.to_string().contains("mvcc: required revision has been compacted"), "{old}");
    Ok(())
}

async fn watches(client: &mut Client) -> Done {
    let mut watch = client.watch("w", Some(WatchOptions::new().with_prefix().with_prev_key())).await?;
    let created = watch.message().await?.expect("the stream goes on");
    assert!(created.created());
    client.put("w/1", "1", None).await?;
    client.delete("w/1", None).await?;
    let mut events = Vec::new();
    while events.len() < 2 {
        events.extend(watch.message().await?.expect("the stream goes on").events().to_vec());
    }
    assert_eq!(events[0].event_type(), EventType::Put);
    assert_eq!(events[1].event_type(), EventType::Delete);
    assert_eq!(events[1].prev_kv().map(etcd_client::KeyValue::value), Some(&b"1"[..]));
    watch.request_progress().await?;
    let progress = watch.message().await?.expect("the stream goes on");
    assert!(progress.events().is_empty() && progress.watch_id() == -1);
    watch.cancel(created.watch_id()).await?;
    assert!(watch.message().await?.expect("the stream goes on").canceled());
    Ok(())
}

async fn leases(client: &mut Client) -> Done {
    let lease = client.lease_grant(600, None).await?;
    client.put("leased", "1", Some(PutOptions::new().with_lease(lease.id()))).await?;
    let (mut keeper, mut answers) = client.lease_keep_alive(lease.id()).await?;
    keeper.keep_alive().await?;
    let renewed = answers.message().await?.expect("the stream goes on");
    assert_eq!((renewed.id(), renewed.ttl()), (lease.id(), 600));
    let asked = Some(LeaseTimeToLiveOptions::new().with_keys());
    let left = client.lease_time_to_live(lease.id(), asked).await?;
    assert_eq!((left.granted_ttl(), left.keys()), (600, &[b"leased".to_vec()][..]));
    assert!(client.leases().await?.leases().iter().any(|held| held.id() == lease.id()));
    client.lease_revoke(lease.id()).await?;
    assert_eq!(client.get("leased", None).await?.count(), 0);
    Ok(())
}

async fn locks(client: &mut Client) -> Done {
    let lease = client.lease_grant(600, None).await?.id();
    let held = client.lock("lock", Some(LockOptions::new().with_lease(lease))).await?;
    assert_eq!(client.get(held.key(), None).await?.count(), 1);
    let mut other = client.clone();
    assert!(timeout(Duration::from_millis(300), other.lock("lock", None)).await.is_err(), "it is held");
    client.unlock(held.key()).await?;
    assert_eq!(client.get(held.key(), None).await?.count(), 0);
    Ok(())
}

async fn elections(client: &mut Client) -> Done {
    let lease = client.lease_grant(600, None).await?.id();
    let won = client.campaign("election", "one", lease).await?;
    let key = won.leader().expect("it leads").clone();
    let mut seen = client.observe("election").await?;
    let word = |answer: &etcd_client::LeaderResponse| answer.kv().map(|kv| kv.value().to_vec());
    assert_eq!(word(&seen.message().await?.expect("the stream goes on")).as_deref(), Some(&b"one"[..]));
    client.proclaim("two", Some(ProclaimOptions::new().with_leader(key.clone()))).await?;
    assert_eq!(word(&seen.message().await?.expect("the stream goes on")).as_deref(), Some(&b"two"[..]));
    assert_eq!(word(&client.leader("election").await?).as_deref(), Some(&b"two"[..]));
    client.resign(Some(ResignOptions::new().with_leader(key))).await?;
    assert!(client.leader("election").await.is_err(), "nobody leads");
    Ok(())
}

async fn maintenance(client: &mut Client) -> Done {
    let status = client.status().await?;
    assert!(status.version().starts_with("3.6.") && status.leader() != 0 && status.errors().is_empty());
    assert!(client.alarm(AlarmAction::Get, AlarmType::None, None).await?.alarms().is_empty());
    client.defragment().await?;
    assert_eq!(client.hash().await?.hash(), client.hash().await?.hash());
    assert_ne!(client.hash_kv(0).await?.hash(), 0);
    let mut snapshot = client.snapshot().await?;
    let (mut bytes, mut left) = (0, u64::MAX);
    while let Some(part) = snapshot.message().await? {
        bytes += part.blob().len();
        left = part.remaining_bytes();
    }
    assert!(bytes > 1000 && left == 0, "{bytes} bytes, {left} left");
    let told = client.maintenance_client().downgrade(DowngradeOptions::Validate("3.5.0".into())).await?;
    assert_eq!(told.version(), "3.6.0");
    Ok(())
}

async fn users(client: &mut Client, endpoint: &str) -> Done {
    client.user_add("root", "rootpw", None).await?;
    client.user_grant_role("root", "root").await?;
    client.role_add("reader").await?;
    client.role_grant_permission("reader", Permission::read("a")).await?;
    client.role_grant_permission("reader", Permission::read("b")).await?;
    client.role_revoke_permission("reader", "b", None).await?;
    let permissions = client.role_get("reader").await?.permissions();
    assert_eq!(permissions, [Permission::read("a")]);
    client.user_add("joe", "early", None).await?;
    client.user_grant_role("joe", "reader").await?;
    client.user_change_password("joe", "joepw").await?;
    assert_eq!(client.user_get("joe").await?.roles(), ["reader"]);
    assert_eq!(client.user_list().await?.users(), ["joe", "root"]);
    assert_eq!(client.role_list().await?.roles(), ["reader"]);
    client.auth_enable().await?;
    let login = |name: &str, password: &str| etcd_client::ConnectOptions::new().with_user(name, password);
    let mut joe = Client::connect([endpoint], Some(login("joe", "joepw"))).await?;
    assert_eq!(joe.get("a", None).await?.count(), 1);
    for denied in [joe.get("b", None).await.map(drop), joe.put("a", "x", None).await.map(drop)] {
        assert!(denied.unwrap_err().to_string().contains("permission denied"));
    }
    let wrong = Client::connect([endpoint], Some(login("joe", "early"))).await.map(drop);
    assert!(wrong.unwrap_err().to_string().contains("authentication failed"));
    let mut root = Client::connect([endpoint], Some(login("root", "rootpw"))).await?;
    root.user_revoke_role("joe", "reader").await?;
    root.user_delete("joe").await?;
    root.role_delete("reader").await?;
    root.auth_disable().await?;
    assert_eq!(client.get("a", None).await?.count(), 1);
    Ok(())
}

async fn members(client: &mut Client, newcomer: &mut Server) -> Done {
    assert_eq!(client.member_list().await?.members().len(), 3);
    // A moment before all are known to be healthy, an addition is refused.
    let learner = Some(MemberAddOptions::new().with_is_learner());
    let added =
        patiently(async || client.clone().member_add([newcomer.peer_url()], learner.clone()).await).await;
    let id = added.member().expect("it is told").id();
    newcomer.launch();
    // Not before it has caught up.
    patiently(async || client.clone().member_promote(id).await).await;
    let urls = vec![newcomer.peer_url(), "http://127.0.0.1:9".to_owned()];
    client.member_update(id, urls.clone()).await?;
    let listed = client.member_list().await?;
    let told = listed.members().iter().find(|member| member.id() == id).expect("it is one of them");
    assert_eq!((told.peer_urls(), told.is_learner()), (&urls[..], false));
    patiently(async || client.clone().member_remove(id).await).await;
    assert_eq!(client.member_list().await?.members().len(), 3);
    Ok(())
}

/// Until the cluster is ready for it.
async fn patiently<T>(call: impl AsyncFn() -> Result<T, Error>) -> T {
    let tried = async {
        let mut turn = interval(Duration::from_millis(100));
        loop {
            turn.tick().await;
            if let Ok(answer) = call().await {
                return answer;
            }
        }
    };
    timeout(SETTLE, tried).await.expect("it is done in time")
}
