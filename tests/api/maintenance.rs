//! Snapshots to take away, defragmentation, the quota and downgrades.

use etcfs_proto::etcdserverpb::{
    AlarmRequest, AlarmType, CompactionRequest, DefragmentRequest, DowngradeRequest, DowngradeResponse,
    SnapshotRequest, SnapshotResponse, StatusRequest, alarm_request::AlarmAction,
    downgrade_request::DowngradeAction,
};
use etcfs_tests::{
    api::{Answer, Api, delete_prefix, grant, put},
    command::sh,
    server::{Kind, Options, Server, http_get},
    wait,
};
use tonic::Code;

use crate::subject::{Subject, refused};

on_both! {
    a_snapshot_is_whole_and_says_so,
    a_defragmented_store_is_the_same,
}
on_ours! {
    only_the_version_before_is_one_to_go_back_to,
}

fn snapshot(s: &Api) -> Vec<SnapshotResponse> {
    s.wait(async {
        let mut parts = s.maintenance().snapshot(s.signed(SnapshotRequest {})).await?.into_inner();
        let mut all = Vec::new();
        while let Some(part) = parts.message().await? {
            all.push(part);
        }
        Ok(all)
    })
    .unwrap()
}

fn a_snapshot_is_whole_and_says_so(s: &Subject) {
    for n in 0..20 {
        s.set(&format!("k{n}"), vec![n; 10_000]);
    }
    let parts = snapshot(s);
    let file: Vec<u8> = parts.iter().flat_map(|part| part.blob.to_vec()).collect();
    assert_eq!(file.len() % 512, 32, "by which Go's client knows that the hash is there");
    assert!(file.len() > 200_000 && parts.iter().all(|part| part.blob.len() <= 32 << 10));
    let mut sent = 0;
    for part in &parts[..parts.len() - 1] {
        sent += part.blob.len();
        assert_eq!(part.remaining_bytes as usize, file.len() - 32 - sent);
    }
    let last = parts.last().unwrap();
    assert_eq!((last.remaining_bytes, last.blob.len()), (0, 32));
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("snapshot"), &file[..file.len() - 32]).unwrap();
    let hash = sh(dir.path(), "sha256sum snapshot | cut -c1-64").ok();
    let expected: String = last.blob.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hash.trim(), expected);
}

fn db_size(s: &Api) -> i64 {
    s.status(StatusRequest {}).unwrap().db_size
}

fn a_defragmented_store_is_the_same(s: &Subject) {
    s.set("a", "1");
    s.set("a", "2");
    let hash = || s.hash_kv(Default::default()).unwrap().hash;
    let before = hash();
    s.defragment(DefragmentRequest {}).unwrap();
    assert_eq!((hash(), s.value("a").as_deref()), (before, Some("2")));
    s.set("a", "3");
}

fn started(args: &[&str]) -> Server {
    let args = args.iter().map(|&arg| arg.to_owned()).collect();
    Server::with(Kind::Etcfs, Options { args, ..Default::default() })
}

fn compact_all(s: &Api) {
    s.compact(CompactionRequest { revision: s.revision(), physical: true }).unwrap();
}

/// What was deleted gives its space back, and meanwhile the server serves.
/// What was just put is in use before the image has it: dashboards divide the two.
#[test]
fn a_store_takes_no_less_than_what_is_in_use() {
    let server = started(&[]);
    let api = server.api();
    for round in 0..20 {
        api.set(&format!("k{round}"), vec![round; 10_000]);
        let status = api.status(StatusRequest {}).unwrap();
        assert!(status.db_size >= status.db_size_in_use && status.db_size_in_use > 0, "{status:?}");
    }
}

#[test]
fn defragmenting_gives_space_back_and_stops_nobody() {
    let mut server = started(&[]);
    let api = server.api();
    for n in 0..40 {
        api.set(&format!("k{n}"), vec![n; 500_000]);
    }
    for prefix in ["k1", "k2", "k3"] {
        api.delete(delete_prefix(prefix)).unwrap();
    }
    compact_all(&api);
    let before = db_size(&api);
    assert!(before > 20_000_000, "{before}");
    let writer = std::thread::spawn({
        let api = api.clone();
        move || {
            for n in 0..200 {
                api.set("during", format!("{n}"));
            }
        }
    });
    // Deleted rows are scrubbed a little later.
    wait::until_true("the space comes back", || {
        api.defragment(DefragmentRequest {}).unwrap();
        db_size(&api) < before / 3
    });
    writer.join().unwrap();
    let check = |api: &Api| {
        assert_eq!((api.all("k").len(), api.value("during").as_deref()), (7, Some("199")));
        assert_eq!(api.get("k9").unwrap().value, vec![9; 500_000]);
    };
    check(&api);
    server.kill();
    server.run();
    check(&server.api());
}

/// Writes until the quota refuses one; gives how many it took.
fn fill(api: &Api) -> usize {
    (0..100)
        .find(|n| match api.put(put(&format!("fill/{n}"), vec![7; 500_000])) {
            Ok(_) => false,
            Err(status) => {
                assert_eq!(status.message(), "etcdserver: mvcc: database space exceeded");
                assert_eq!(status.code(), Code::ResourceExhausted);
                true
            }
        })
        .expect("the quota is reached")
}

#[test]
fn the_quota_refuses_what_adds_and_its_alarm_goes_with_the_need() {
    let server = started(&["--quota-backend-bytes", "10000000"]);
    let api = server.api();
    let taken = fill(&api);
    assert!((17..20).contains(&taken), "{taken}");
    let full = "etcdserver: mvcc: database space exceeded";
    refused(api.grant(grant(60)), Code::ResourceExhausted, full);
    let status = api.status(StatusRequest {}).unwrap();
    assert!(status.errors[0].contains("NOSPACE"), "{:?}", status.errors);
    assert!(http_get(&server.endpoint(), "/health").unwrap().contains("ALARM NOSPACE"));
    // Reading, deleting and compacting are the way out.
    assert_eq!(api.all("fill/").len(), taken);
    api.delete(delete_prefix("fill/1")).unwrap();
    compact_all(&api);
    wait::until_true("the alarm is cleared", || {
        api.alarm(AlarmRequest::default()).unwrap().alarms.is_empty()
    });
    assert!(server.log().contains("there is room again"), "and it is said");
    assert!(http_get(&server.endpoint(), "/health").unwrap().contains("\"true\""));
    api.set("fill/0", "small");
    assert_eq!(api.all("fill/").len(), taken - (taken - 9), "nothing else was lost");
}

#[test]
fn an_alarm_raised_by_hand_stays() {
    let server = started(&[]);
    let api = server.api();
    let own = api.status(StatusRequest {}).unwrap().header.unwrap().member_id;
    let change =
        |action| AlarmRequest { action: action as i32, member_id: own, alarm: AlarmType::Nospace as i32 };
    // The keeper looks once a tick; let it have seen that there is no need.
    wait::until_true("it has looked", || server.metric("etcd_server_has_leader") == Some(1.0));
    api.alarm(change(AlarmAction::Activate)).unwrap();
    assert_eq!(api.alarm(AlarmRequest::default()).unwrap().alarms.len(), 1);
    assert_eq!(api.alarm(change(AlarmAction::Deactivate)).unwrap().alarms.len(), 1);
    assert!(api.alarm(AlarmRequest::default()).unwrap().alarms.is_empty());
}

fn downgrade(s: &Api, action: DowngradeAction, version: &str) -> Answer<DowngradeResponse> {
    let request = DowngradeRequest { action: action as i32, version: version.into() };
    s.wait(s.maintenance().downgrade(s.signed(request))).map(tonic::Response::into_inner)
}

fn only_the_version_before_is_one_to_go_back_to(s: &Subject) {
    use DowngradeAction::{Cancel, Enable, Validate};
    let format = "etcdserver: wrong downgrade target version format";
    let target = "etcdserver: invalid downgrade target version";
    for version in ["", "x", "3", "3.x"] {
        refused(downgrade(s, Validate, version), Code::InvalidArgument, format);
    }
    for version in ["3.6", "3.4", "3.7.0", "2.5"] {
        refused(downgrade(s, Enable, version), Code::InvalidArgument, target);
    }
    let none = "etcdserver: no inflight downgrade job";
    refused(downgrade(s, Cancel, ""), Code::FailedPrecondition, none);
    assert_eq!(downgrade(s, Validate, "3.5").unwrap().version, "3.6.0");
    downgrade(s, Enable, "3.5.0").unwrap();
    let info = s.status(StatusRequest {}).unwrap().downgrade_info.unwrap();
    assert_eq!((info.enabled, info.target_version.as_str()), (true, "3.5.0"));
    let in_process = "etcdserver: cluster has a downgrade job in progress";
    refused(downgrade(s, Enable, "3.5"), Code::FailedPrecondition, in_process);
    downgrade(s, Cancel, "").unwrap();
    assert!(!s.status(StatusRequest {}).unwrap().downgrade_info.unwrap().enabled);
}
