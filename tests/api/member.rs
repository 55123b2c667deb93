//! The cluster of one and its state: MemberList, Status, HashKV, Hash, Alarm.

use etcfs_proto::etcdserverpb::{
    AlarmRequest, AlarmResponse, HashKvRequest, HashKvResponse, HashRequest, Member, MemberListRequest,
    ResponseHeader, StatusRequest, StatusResponse,
};
use etcfs_tests::api::{compact, delete, get};
use tonic::Code;

use crate::subject::{Subject, refused};

on_both! {
    the_one_member_is_listed,
    a_member_list_makes_no_statement_on_revisions,
    status_tells_of_a_leader_and_its_log,
    the_log_goes_on_with_each_put,
    the_hash_is_of_the_history_up_to_a_revision,
    a_hash_of_a_future_or_compacted_revision_is_refused,
    the_whole_store_has_a_hash,
    there_is_no_alarm,
}
on_ours! {
    status_tells_of_the_version_3_6,
}
on_both_alone! {
    ids_are_those_of_etcd,
    the_hash_of_a_store_never_compacted_says_so,
}

fn members(s: &Subject, linearizable: bool) -> (ResponseHeader, Vec<Member>) {
    let answer = s.wait(s.cluster().member_list(MemberListRequest { linearizable })).unwrap().into_inner();
    (answer.header.unwrap(), answer.members)
}

fn status(s: &Subject) -> StatusResponse {
    s.wait(s.maintenance().status(StatusRequest {})).unwrap().into_inner()
}

fn hash(s: &Subject, revision: i64) -> etcfs_tests::api::Answer<HashKvResponse> {
    s.wait(s.maintenance().hash_kv(HashKvRequest { revision })).map(tonic::Response::into_inner)
}

fn the_one_member_is_listed(s: &Subject) {
    let own = s.range(get("a")).unwrap().header.unwrap().member_id;
    for linearizable in [false, true] {
        let (_, members) = members(s, linearizable);
        assert_eq!(members.len(), 1);
        assert_eq!((members[0].id, members[0].name.as_str(), members[0].is_learner), (own, "default", false));
        assert_eq!(members[0].client_ur_ls, [format!("http://{}", s.endpoint())]);
        assert_eq!(members[0].peer_ur_ls.len(), 1);
        assert!(members[0].peer_ur_ls[0].starts_with("http://127.0.0.1:"), "{members:?}");
    }
}

fn a_member_list_makes_no_statement_on_revisions(s: &Subject) {
    let (header, members) = members(s, true);
    assert_eq!((header.revision, header.member_id), (0, members[0].id));
    assert!(header.cluster_id != 0 && header.raft_term != 0);
}

/// A cluster's ids follow from its peer URLs and token alone, as etcd derives them.
fn ids_are_those_of_etcd(s: &Subject) {
    let (header, members) = members(s, false);
    let (member, cluster) = etcd_ids(&members[0].peer_ur_ls[0]);
    assert_eq!((members[0].id, header.cluster_id), (member, cluster));
}

/// SHA-1 of the URL and the token, and of the member's id, as the program that everybody has computes it.
fn etcd_ids(peer_url: &str) -> (u64, u64) {
    let first_eight = |input: &str| {
        let script = format!("printf '{input}' | sha1sum | cut -c1-16");
        let output = etcfs_tests::command::sh(std::path::Path::new("/"), &script).ok();
        u64::from_str_radix(output.trim(), 16).unwrap()
    };
    let member = first_eight(&format!("{peer_url}etcd-cluster"));
    let octal: String = member.to_be_bytes().iter().map(|byte| format!("\\\\{byte:03o}")).collect();
    (member, first_eight(&octal.replace("\\\\", "\\")))
}

fn status_tells_of_a_leader_and_its_log(s: &Subject) {
    let before = s.set("a", "1");
    let status = status(s);
    let header = status.header.unwrap();
    assert_eq!((status.leader, header.revision), (header.member_id, before));
    assert_eq!((status.raft_term, status.is_learner), (header.raft_term, false));
    assert!(status.raft_index > 0 && status.raft_applied_index > 0);
    assert!(status.raft_applied_index <= status.raft_index);
    assert!(status.db_size > 0 && status.db_size_in_use > 0);
    assert!(status.db_size_in_use <= status.db_size, "{} of {}", status.db_size_in_use, status.db_size);
    assert_eq!(status.version.split('.').count(), 3, "{}", status.version);
    assert!(status.errors.is_empty(), "{:?}", status.errors);
}

fn status_tells_of_the_version_3_6(s: &Subject) {
    let status = status(s);
    assert!(status.version.starts_with("3.6."), "clients parse it: {}", status.version);
    assert_eq!(status.storage_version, "3.6.0");
    assert_eq!(status.db_size_quota, 2 << 30);
    assert!(status.downgrade_info.is_none_or(|info| !info.enabled));
}

fn the_log_goes_on_with_each_put(s: &Subject) {
    let before = status(s);
    for value in ["1", "2", "3"] {
        s.set("a", value);
    }
    let after = status(s);
    assert!(after.raft_index >= before.raft_index + 3, "{} {}", before.raft_index, after.raft_index);
    assert_eq!(after.raft_term, before.raft_term);
}

fn the_hash_is_of_the_history_up_to_a_revision(s: &Subject) {
    let first = s.set("a", "1");
    let second = s.set("a", "2");
    let of_second = hash(s, second).unwrap();
    assert_eq!(hash(s, 0).unwrap().hash, of_second.hash, "0 is the newest");
    assert_ne!(hash(s, first).unwrap().hash, of_second.hash);
    s.delete(delete("a")).unwrap();
    assert_eq!(hash(s, second).unwrap().hash, of_second.hash, "later changes don't show");
    assert_ne!(hash(s, 0).unwrap().hash, of_second.hash);
    s.compact(compact(first)).unwrap();
    assert_eq!(hash(s, second).unwrap().compact_revision, first);
    assert_eq!(of_second.header.unwrap().revision, second);
    if !s.is_v3_4() {
        assert_eq!(of_second.hash_revision, second);
    }
}

fn the_hash_of_a_store_never_compacted_says_so(s: &Subject) {
    s.set("a", "1");
    assert_eq!(hash(s, 0).unwrap().compact_revision, -1);
}

fn a_hash_of_a_future_or_compacted_revision_is_refused(s: &Subject) {
    let first = s.set("a", "1");
    let second = s.set("a", "2");
    let future = "etcdserver: mvcc: required revision is a future revision";
    refused(hash(s, second + 1), Code::OutOfRange, future);
    s.compact(compact(second)).unwrap();
    let compacted = "etcdserver: mvcc: required revision has been compacted";
    refused(hash(s, first), Code::OutOfRange, compacted);
}

fn the_whole_store_has_a_hash(s: &Subject) {
    s.set("a", "1");
    let answer = s.wait(s.maintenance().hash(HashRequest {})).unwrap().into_inner();
    assert!(answer.hash != 0 && answer.header.unwrap().member_id != 0);
}

fn there_is_no_alarm(s: &Subject) {
    let AlarmResponse { alarms, .. } =
        s.wait(s.maintenance().alarm(AlarmRequest::default())).unwrap().into_inner();
    assert!(alarms.is_empty(), "{alarms:?}");
}
