//! Members that do not hold what the others hold: found at the start, and found while they serve.

use etcfs_proto::etcdserverpb::{
    AlarmRequest, AlarmType, AuthUserAddRequest, MemberRemoveRequest, RangeRequest,
    alarm_request::AlarmAction,
};
use etcfs_tests::{
    api::{Api, compact, get, put},
    cluster::{Cluster, SETTLE, status, whole_hash},
    server::{Kind, Server, http_get},
    wait,
};
use tonic::Code;

/// Has a member keep another value than the one it was given, for each put of its next run.
const SPOIL: (&str, &str) = ("FAILPOINTS", "mvcc-spoil-value=return");

fn alarms(api: &Api) -> Vec<(u64, AlarmType)> {
    let request = AlarmRequest { action: AlarmAction::Get as i32, ..AlarmRequest::default() };
    let alarms = api.alarm(request).unwrap().alarms;
    alarms.iter().map(|alarm| (alarm.member_id, alarm.alarm())).collect()
}

fn id_of(server: &Server) -> u64 {
    status(&server.api()).unwrap().header.unwrap().member_id
}

/// What a member itself holds, whatever the others do.
fn local(api: &Api, key: &str) -> Option<bytes::Bytes> {
    let range = RangeRequest { serializable: true, ..get(key) };
    api.range(range).unwrap().kvs.into_iter().next().map(|kv| kv.value)
}

#[test]
fn a_member_that_holds_other_values_is_named_and_nothing_of_it_is_served() {
    let mut cluster = Cluster::prepared(Kind::Etcfs, 3, &["--corrupt-check-time=500ms"]);
    cluster.members[2].set_env(SPOIL.0, SPOIL.1);
    cluster.run();
    let broken = id_of(&cluster.members[2]);
    let api = cluster.api(0);
    assert_eq!(alarms(&api), []);
    api.set("a", "v");
    wait::within(SETTLE, "the alarm is raised", || (!alarms(&api).is_empty()).then_some(()));
    assert_eq!(alarms(&api), [(broken, AlarmType::Corrupt)]);
    for nth in 0..3 {
        let api = cluster.api(nth);
        let corrupt = |status: tonic::Status| {
            assert_eq!((status.code(), status.message()), (Code::DataLoss, "etcdserver: corrupt cluster"));
        };
        wait::until_true("each knows", || alarms(&api).len() == 1);
        corrupt(api.put(put("a", "w")).unwrap_err());
        corrupt(api.range(get("a")).unwrap_err());
        corrupt(api.grant(etcfs_tests::api::grant(60)).unwrap_err());
        corrupt(api.compact(compact(2)).unwrap_err());
        let health = http_get(&cluster.members[nth].endpoint(), "/health").unwrap();
        assert!(health.contains("ALARM CORRUPT"), "{health}");
        assert_eq!(status(&api).unwrap().errors, [format!("memberID:{broken} alarm:CORRUPT ")]);
    }
    // The way out: without the member, its alarm goes.
    let remove = MemberRemoveRequest { id: broken };
    wait::within(SETTLE, "it is removed", || api.wait(api.cluster().member_remove(remove)).ok());
    drop(cluster.members.remove(2));
    wait::within(SETTLE, "its alarm goes with it", || alarms(&api).is_empty().then_some(()));
    assert_eq!(api.value("a").as_deref(), Some("v"));
    api.set("a", "w");
    cluster.agree();
}

#[test]
fn a_member_that_holds_other_values_does_not_start_and_the_others_do() {
    let mut cluster = Cluster::prepared(Kind::Etcfs, 3, &[]);
    cluster.members[2].set_env(SPOIL.0, SPOIL.1);
    cluster.run();
    cluster.api(0).set("a", "v");
    wait::until_true("the member has the key", || local(&cluster.api(2), "a").is_some());
    assert_eq!(local(&cluster.api(2), "a").unwrap(), "w", "one bit of it was turned");
    // Stopped in order, its image holds it, with a checksum that is right.
    assert!(cluster.members[2].stop().success());
    cluster.members[2].unset_env(SPOIL.0);
    cluster.members[2].add_arg("--experimental-initial-corrupt-check=true");
    cluster.members[2].launch();
    let ended = cluster.members[2].process().wait_for_end(SETTLE);
    let log = cluster.members[2].log_of_last_run();
    assert!(!ended.success() && log.contains("found data inconsistency with peers"), "{log}");
    assert!(!log.contains("ready to serve client requests"), "{log}");
    cluster.members.truncate(2);
    for nth in 0..2 {
        assert!(cluster.members[nth].stop().success());
        cluster.members[nth].add_arg("--feature-gates=InitialCorruptCheck=true");
        cluster.members[nth].run();
        let log = cluster.members[nth].log_of_last_run();
        assert!(log.contains("the keys and history are those of the other members"), "{log}");
    }
    assert_eq!(cluster.api(1).value("a").as_deref(), Some("v"));
}

#[test]
fn a_member_that_holds_another_password_is_named() {
    let mut cluster = Cluster::prepared(Kind::Etcfs, 3, &["--corrupt-check-time=500ms", "--bcrypt-cost=4"]);
    cluster.members[2].set_env("FAILPOINTS", "auth-spoil-password=return");
    cluster.run();
    let broken = id_of(&cluster.members[2]);
    let api = cluster.api(0);
    api.set("a", "v");
    let user = AuthUserAddRequest { name: "joe".into(), password: "joe's".into(), ..Default::default() };
    api.user_add(user).unwrap();
    wait::within(SETTLE, "the alarm is raised", || (!alarms(&api).is_empty()).then_some(()));
    assert_eq!(alarms(&api), [(broken, AlarmType::Corrupt)]);
    let log: String = cluster.members.iter().map(Server::log).collect();
    assert!(log.contains("the users and roles differ between the members"), "{log}");
    assert!(!log.contains("the keys and history differ between the members"), "{log}");
}

/// etcd's HashKV says nothing of them: `Hash` does.
#[test]
fn a_user_that_is_added_changes_the_hash_alike_on_all_members() {
    let cluster = Cluster::with(Kind::Etcfs, 3, &["--bcrypt-cost=4"]);
    let api = cluster.api(0);
    api.set("a", "v");
    cluster.agree();
    let before = whole_hash(&api).unwrap();
    let user = AuthUserAddRequest { name: "joe".into(), password: "joe's".into(), ..Default::default() };
    api.user_add(user).unwrap();
    cluster.agree();
    assert_ne!(whole_hash(&api).unwrap(), before);
}

#[test]
fn members_that_agree_are_left_alone_while_they_write_and_compact() {
    let cluster = Cluster::with(Kind::Etcfs, 3, &["--corrupt-check-time=100ms", "--log-level=debug"]);
    let api = cluster.api(0);
    wait::within(SETTLE, "the members have been compared some times", || {
        let revision = api.set("a", "v");
        if revision % 50 == 0 {
            api.compact(compact(revision - 10)).unwrap();
        }
        let log: String = cluster.members.iter().map(Server::log).collect();
        let agreed = log
            .lines()
            .filter(|line| line.contains("the members hold the same") && line.contains("\"members\":3"));
        (agreed.count() >= 5).then_some(())
    });
    assert_eq!(alarms(&api), []);
}
