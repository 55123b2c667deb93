//! The day after a disaster: a new cluster out of a snapshot of the old one.

use std::path::Path;

use etcfs_proto::etcdserverpb::RangeRequest;
use etcfs_tests::{
    api::{self, Api, grant, put_on_lease, watch_prefix},
    binary,
    cluster::{Cluster, members, status},
    command::{Output, sh},
    server::Kind,
};

fn etcfs(dir: &Path, args: &str) -> Output {
    sh(dir, &format!("{} {args}", binary::etcfs().display()))
}

/// Of an old cluster, with history, a lease and an alarm's worth of members.
fn snapshot(dir: &Path) -> (i64, i64) {
    let old = Cluster::etcfs(3);
    let api = old.api(0);
    for nth in 0..20 {
        api.set(&format!("k{nth:02}"), vec![nth; 1000]);
    }
    api.set("k00", "newer");
    api.delete(api::delete_prefix("k19")).unwrap();
    let lease = api.grant(grant(600)).unwrap().id;
    api.put(put_on_lease("leased", "v", lease)).unwrap();
    save(&old, dir);
    (api.revision(), lease)
}

pub(super) fn save(cluster: &Cluster, dir: &Path) {
    etcfs(dir, &format!("--endpoints {} snapshot save file", cluster.members[0].endpoint())).ok();
}

/// A cluster of three, each restored from the file.
pub(super) fn restored(dir: &Path, more: &str) -> Cluster {
    let mut cluster = Cluster::prepared(Kind::Etcfs, 3, &["--initial-cluster-token=new"]);
    let named: Vec<_> =
        cluster.members.iter().map(|member| format!("{}={}", member.name(), member.peer_url())).collect();
    for (nth, member) in cluster.members.iter_mut().enumerate() {
        let data = dir.join(format!("data{nth}"));
        let (name, url, cluster) = (member.name(), member.peer_url(), named.join(","));
        let told = etcfs(
            dir,
            &format!(
                "snapshot restore file --data-dir {} --name {name} --initial-cluster {cluster} \
                 --initial-cluster-token new --initial-advertise-peer-urls {url} {more}",
                data.display()
            ),
        );
        assert!(told.ok().starts_with("Snapshot restored to "));
        member.set_data_dir(data);
    }
    cluster.run();
    cluster
}

fn check(api: &Api, lease: i64) {
    assert_eq!(api.all("k").len(), 19);
    assert_eq!(api.value("k00").as_deref(), Some("newer"));
    assert_eq!(api.get("k07").unwrap().value, vec![7; 1000]);
    assert_eq!(api.get("leased").unwrap().lease, lease);
}

#[test]
fn a_restored_cluster_has_every_key_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (revision, lease) = snapshot(dir.path());
    let mut cluster = restored(dir.path(), "");
    let ids: Vec<u64> =
        (0..3).map(|nth| status(&cluster.api(nth)).unwrap().header.unwrap().cluster_id).collect();
    assert!(ids[0] == ids[1] && ids[1] == ids[2]);
    assert_eq!(members(&cluster.api(0)).unwrap().len(), 3, "the old members are none of it");
    for nth in 0..3 {
        check(&cluster.api(nth), lease);
    }
    assert_eq!(cluster.api(0).revision(), revision);
    // Its history is there as well.
    let old = RangeRequest { key: "k00".into(), revision: 2, ..Default::default() };
    assert_eq!(cluster.api(1).range(old).unwrap().kvs[0].value, vec![0; 1000]);
    cluster.api(2).set("after", "1");
    assert_eq!(cluster.api(0).get("after").unwrap().mod_revision, revision + 1);
    let leader = cluster.leader();
    cluster.members[leader].kill();
    let next = cluster.leader();
    cluster.api(next).set("after", "2");
    cluster.run();
    assert_eq!(cluster.api(leader).value("after").as_deref(), Some("2"));
    cluster.agree();
}

#[test]
fn a_raised_revision_ends_the_history_of_who_watched_before() {
    let dir = tempfile::tempdir().unwrap();
    let (revision, lease) = snapshot(dir.path());
    let alone = etcfs(dir.path(), "snapshot restore file --data-dir x --bump-revision 1000");
    assert_ne!(alone.code, 0);
    assert!(alone.stderr.contains("--mark-compacted"), "{}", alone.stderr);
    let cluster = restored(dir.path(), "--bump-revision 1000000000 --mark-compacted");
    let raised = revision + 1_000_000_000;
    let api = cluster.api(1);
    check(&api, lease);
    assert_eq!(api.revision(), raised);
    let old = RangeRequest { key: "k00".into(), revision, ..Default::default() };
    let error = api.range(old).unwrap_err();
    assert_eq!(error.message(), "etcdserver: mvcc: required revision has been compacted");
    let mut watch = api.watch_stream();
    watch.create(watch_prefix("k", revision));
    let told = loop {
        let told = watch.next();
        if told.canceled {
            break told;
        }
    };
    assert_eq!(told.compact_revision, raised, "who resumes is told where to begin anew");
    api.set("k00", "newest");
    assert_eq!(api.get("k00").unwrap().mod_revision, raised + 1);
    cluster.agree();
}

#[test]
fn a_file_is_looked_at_and_a_damaged_one_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (revision, _) = snapshot(dir.path());
    let simple = etcfs(dir.path(), "snapshot status file").ok();
    let words: Vec<&str> = simple.trim().split(", ").collect();
    assert_eq!((words.len(), words[1], words[4]), (5, revision.to_string().as_str(), "3.6.0"), "{simple}");
    let json: serde_json::Value =
        serde_json::from_str(&etcfs(dir.path(), "snapshot status file -w json").ok()).unwrap();
    assert_eq!(format!("{:x}", json["hash"].as_u64().unwrap()), words[0]);
    assert_eq!(json["totalKey"].as_u64().unwrap().to_string(), words[2]);
    // Somebody's data is never written over.
    sh(dir.path(), "mkdir full && touch full/x").ok();
    let full = etcfs(dir.path(), "snapshot restore file --data-dir full");
    assert!(full.code != 0 && full.stderr.contains("not empty"), "{}", full.stderr);
    sh(dir.path(), "printf x | dd of=file bs=1 seek=5000 conv=notrunc 2>&1").ok();
    assert_ne!(etcfs(dir.path(), "snapshot status file").code, 0);
    let damaged = etcfs(dir.path(), "snapshot restore file --data-dir damaged");
    assert!(damaged.code != 0 && damaged.stderr.contains("expected sha256"), "{}", damaged.stderr);
    let forced = etcfs(dir.path(), "snapshot restore file --data-dir damaged --skip-hash-check");
    assert_ne!(forced.code, 0, "its own hash is looked at all the same");
    assert!(!dir.path().join("damaged").exists());
}
