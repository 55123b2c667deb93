//! Directories where the server knows of them, and where it is etcd's: the same to see, but for what one transaction
//! holds.

use std::{collections::BTreeSet, fs};

use etcfs_tests::{api::Api, mount::Mount, server::Kind};

use super::Stage;

/// More than a transaction of etcd's takes, each beside an empty directory.
const FILES: usize = 400;

fn fill(stage: &Stage) {
    for number in 0..FILES {
        stage.api.set(&format!("/old/sub/{number:04}"), format!("value {number}"));
    }
    stage.api.set("/old", "its own");
    stage.sh("mkdir -p old/empty/inner old/also; ls -R old >/dev/null");
}

fn keys(api: &Api, prefix: &str) -> Vec<(String, String)> {
    let pairs = api.all(prefix).into_iter();
    let text = |bytes: bytes::Bytes| String::from_utf8_lossy(&bytes).into_owned();
    pairs.map(|kv| (text(kv.key), text(kv.value))).collect()
}

/// A directory is renamed whole or not at all
#[test]
fn a_directory_over_a_transactions_limit_is_renamed_in_one_revision_by_a_server_that_can_mounted() {
    let stage = Stage::on(Kind::Etcfs);
    fill(&stage);
    let listed = stage.sh("cd old; find . -printf '%y %p %s\\n' | sort");
    let beside = Mount::root(&stage.server.endpoint());
    assert_eq!(fs::read_dir(beside.at("old")).unwrap().count(), 4);
    let before = stage.api.revision();
    fs::rename(stage.mount.at("old"), stage.mount.at("new")).expect("it is one request");
    assert_eq!(stage.sh("cd new; find . -printf '%y %p %s\\n' | sort"), listed);
    assert!(!stage.mount.at("old").exists());
    assert_eq!(stage.sh("cat new/sub/0399 new/%value"), "value 399its own");
    let moved = stage.api.all("/new");
    assert_eq!(moved.len(), FILES + 1);
    assert!(moved.iter().all(|kv| kv.mod_revision == before + 1), "one revision");
    assert_eq!(keys(&stage.api, "/old"), []);
    let records = keys(&stage.api, ".etcfs/dir/");
    let records: BTreeSet<_> = records.iter().map(|(key, _)| key.as_str()).collect();
    assert!(records.contains(".etcfs/dir//new/empty/inner/") && records.contains(".etcfs/dir//new/also/"));
    assert!(!records.iter().any(|record| record.contains("/old/")), "{records:?}");
    // Another mount, and a rename back over an empty directory.
    assert!(etcfs_tests::wait::poll(etcfs_tests::wait::PATIENCE, || beside.at("new/sub/0000").exists()));
    stage.sh("mkdir old; mv -T new old; ls old/empty/inner; rmdir old/empty/inner");
    assert_eq!(keys(&stage.api, "/old/sub/").len(), FILES);
    // What is there is not written over.
    stage.sh("mkdir full; echo 1 > full/x; ! mv -T old full 2>/dev/null");
    assert_eq!(keys(&stage.api, "/full/"), [("/full/x".to_owned(), "1\n".to_owned())]);
}

#[test]
fn a_directory_over_a_transactions_limit_is_copied_by_mv_on_etcd_mounted() {
    let stage = Stage::on(Kind::Etcd);
    fill(&stage);
    let error = fs::rename(stage.mount.at("old"), stage.mount.at("new")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EXDEV));
    assert_eq!(keys(&stage.api, "/old/").len(), FILES);
    assert_eq!(keys(&stage.api, "/new"), []);
}

/// A listing is complete
#[test]
fn a_listing_is_the_same_whether_or_not_the_server_knows_of_directories_mounted() {
    let names = [
        "/d/a", "/d/a-b", "/d/a/x", "/d/ab", "/d/a//y", "/d//z", "/d/b/c/d", "/d/e/", "/d", "/f//", "bare",
        "bare/x", "dir/y", "/d/\u{1}", "/d/%41",
    ];
    let long = format!("/d/{}/x", "long".repeat(100));
    let shown = [Kind::Etcfs, Kind::Etcd].map(|kind| {
        let stage = Stage::on(kind);
        for name in names.iter().copied().chain([long.as_str()]) {
            stage.api.set(name, name.to_owned());
        }
        stage.sh("mkdir -p d/kept/inner d/a/kept");
        stage.sh("find . -printf '%y %P\\n' | sort")
    });
    assert_eq!(shown[0], shown[1]);
    assert!(shown[0].lines().count() > 25, "{}", shown[0]);
}

#[test]
fn a_directory_above_many_keys_is_listed_at_once_mounted() {
    let stage = Stage::on(Kind::Etcfs);
    for dir in 0..20 {
        for key in 0..500 {
            stage.api.set(&format!("/big/{dir:02}/{key}"), "");
        }
    }
    let ranges = |stage: &Stage| stage.server.metric("etcd_mvcc_range_total").expect("the server counts");
    let before = ranges(&stage);
    assert_eq!(stage.sh("ls big | wc -l"), "20\n");
    assert!(ranges(&stage) - before <= 2.0, "one page of names, and the directory's own key");
}
