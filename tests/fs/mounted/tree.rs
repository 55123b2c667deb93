//! Directories where the server knows of them, and where it is etcd's: the same to see, but for what one transaction
//! holds.

use std::{
    collections::BTreeSet,
    fs,
    time::{Duration, SystemTime},
};

use etcfs_tests::{
    api::Api,
    mount::Mount,
    server::{Kind, Server},
    wait,
};

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
    assert!(wait::poll(wait::PATIENCE, || beside.at("new/sub/0000").exists()));
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

fn mtime(mount: &Mount, name: &str) -> SystemTime {
    fs::metadata(mount.at(name)).expect("it is there").modified().expect("it has a time")
}

/// Keys that were put some time before there is any mount, and when.
fn aged(server: &Server) -> Vec<(String, SystemTime)> {
    let api = server.api();
    let put = |number: usize| {
        let name = format!("d/{number:03}");
        api.set(&format!("/{name}"), "some value");
        (name, SystemTime::now())
    };
    let mut all: Vec<_> = (0..200).map(put).collect();
    // Longer than a time may be early, and than the kernel's clock is coarse.
    let later = |than: SystemTime| than.elapsed().is_ok_and(|passed| passed > Duration::from_millis(1500));
    wait::until_true("they are old", || later(all[199].1));
    all.push(put(200));
    wait::until_true("that is old, too", || later(all[200].1));
    all
}

/// A key that is older than the mount has its own time
#[test]
fn keys_have_their_own_times_in_each_new_mount_and_through_another_server_mounted() {
    const CLOSE: Duration = Duration::from_secs(1);
    let mut server = Server::etcfs();
    let keys = aged(&server);
    let mount = Mount::root(&server.endpoint());
    // By a listing, and by a look at one name that nobody has listed.
    let listed = mount.sh("cd d; find . -type f -printf '%f %T@\\n' | sort");
    let told: Vec<SystemTime> = keys.iter().map(|(name, _)| mtime(&mount, name)).collect();
    for ((name, put), &told) in keys.iter().zip(&told) {
        let off = put.duration_since(told).unwrap_or_else(|early| early.duration());
        assert!(off < CLOSE, "{name} was put at {put:?} and is said to be of {told:?}");
    }
    assert!(told.is_sorted_by(|one, other| one < other), "times rise with revisions");
    mount.sh("echo 1 > new");
    let new = mtime(&mount, "new");
    assert!(new > told[200] + CLOSE && new.elapsed().is_ok_and(|age| age < CLOSE * 60));
    mount.unmount();
    server.kill();
    server.run();
    let again = Mount::root(&server.endpoint());
    assert_eq!(mtime(&again, "d/200"), told[200], "asked for alone");
    assert_eq!(again.sh("cd d; find . -type f -printf '%f %T@\\n' | sort"), listed, "to the nanosecond");
    let past = again.sh(
        "stat -c %Y d/007; cd %rev/$(getfattr --only-values -n user.etcfs.revision d/200); stat -c %Y d/007",
    );
    let past: BTreeSet<&str> = past.lines().collect();
    assert_eq!(past.len(), 1, "the past shows the same: {past:?}");
}

#[test]
fn keys_older_than_a_mount_of_etcd_are_told_in_their_order_just_before_it_mounted() {
    let server = Server::etcd();
    let keys = aged(&server);
    let before = SystemTime::now();
    let mount = Mount::root(&server.endpoint());
    let told: Vec<SystemTime> = keys.iter().map(|(name, _)| mtime(&mount, name)).collect();
    assert!(told.is_sorted_by(|one, other| one < other), "times rise with revisions");
    let oldest = before.duration_since(told[0]).unwrap_or_default();
    assert!(oldest < Duration::from_secs(1) && keys[200].1 < told[200], "{oldest:?}");
    assert_eq!(mtime(&mount, "d/007"), told[7]);
}
