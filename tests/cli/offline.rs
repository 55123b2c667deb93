//! What needs no server: `hashkv`, and `defrag --data-dir`.

use std::{fs, path::Path};

use etcfs_tests::{
    api::{compact, delete_prefix},
    command::{self, Client},
    server::{Kind, Server},
    wait,
};
use serde_json::Value;

#[test]
fn the_hash_of_a_snapshot_is_that_of_its_member() {
    let server = Server::start(Kind::Etcfs);
    let (api, member, nobody) = (server.api(), Client::etcfs(&server.endpoint()), Client::etcfs(""));
    for round in 0..3 {
        for key in ["a", "b", "c"] {
            api.set(key, format!("{round}"));
        }
    }
    api.compact(compact(5)).unwrap();
    let file = server.scratch().join("backup.db").display().to_string();
    member.run(["snapshot", "save", &file]).ok();
    // What comes later is not in it.
    api.set("a", "later");
    let of_member = |revision: &str| -> Vec<Value> {
        let told: Value =
            serde_json::from_str(&member.run(["endpoint", "hashkv", "--rev", revision, "-w", "json"]).ok())
                .unwrap();
        let hash = &told[0]["HashKV"];
        vec![hash["hash"].clone(), hash["compact_revision"].clone()]
    };
    let of_file = |args: &[&str]| -> Value {
        let told = nobody.run(["hashkv", &file, "-w", "json"].iter().chain(args)).ok();
        serde_json::from_str(&told).unwrap()
    };
    let newest = of_file(&[]);
    assert_eq!(newest["hashRevision"], 10);
    assert_eq!(vec![newest["hash"].clone(), newest["compactRevision"].clone()], of_member("10"));
    let old = of_file(&["--rev", "7"]);
    assert_eq!(vec![old["hash"].clone(), old["compactRevision"].clone()], of_member("7"));
    assert_ne!(old["hash"], newest["hash"]);
    let line = nobody.run(["hashkv", &file]).ok();
    assert_eq!(line, format!("{}, 10, 5\n", newest["hash"]));
    let titles = nobody.run(["hashkv", &file, "-w", "table"]).ok();
    assert!(titles.contains("HASH REVISION"), "{titles}");
    let fields = nobody.run(["hashkv", &file, "-w", "fields"]).ok();
    assert!(fields.contains("\"Compact revision\" : 5\n"), "{fields}");
    let refused = nobody.run(["hashkv", &file, "--rev", "3"]).failed();
    assert!(refused.contains("required revision has been compacted"), "{refused}");
    let mut damaged = fs::read(&file).unwrap();
    damaged[100] ^= 1;
    fs::write(&file, damaged).unwrap();
    let refused = nobody.run(["hashkv", &file]).failed();
    assert!(refused.contains("sha256"), "{refused}");
}

#[test]
fn a_data_directory_is_defragmented_while_nobody_uses_it() {
    let mut server = Server::start(Kind::Etcfs);
    let (api, nobody) = (server.api(), Client::etcfs(""));
    let data_dir = server.data_dir().display().to_string();
    for number in 0..200 {
        api.set(&format!("k{number}"), vec![b'v'; 64 << 10]);
    }
    api.delete(delete_prefix("k")).unwrap();
    api.set("kept", "v");
    api.compact(compact(api.revision())).unwrap();
    let used = nobody.run(["defrag", "--data-dir", &data_dir]).failed();
    assert!(used.contains(&format!("is in use by process {}", server.pid())), "{used}");
    let image = server.data_dir().join("member/image");
    wait::until_true("its rows are on disk", || size(&image) > 200 * (64 << 10));
    assert!(server.stop().success());
    let before = size(&image);
    let told = nobody.run(["defrag", "--data-dir", &data_dir]).ok();
    assert_eq!(told, format!("Finished defragmenting directory[{data_dir}]\n"));
    let after = size(&image);
    assert!(after < before / 4, "{before} bytes became {after}");
    server.run();
    assert_eq!(server.api().value("kept").as_deref(), Some("v"));
    let none = nobody.run(["defrag", "--data-dir", "/nowhere"]).failed();
    assert!(none.contains("there is no data of a member in /nowhere"), "{none}");
}

#[test]
fn files_of_etcd_itself_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let nobody = Client::etcfs("");
    let file = dir.path().join("db").display().to_string();
    let server = Server::start(Kind::Etcd);
    server.api().set("a", "1");
    Client::etcdctl(&server.endpoint()).run(["snapshot", "save", &file]).ok();
    let new = dir.path().join("new").display().to_string();
    for args in [
        &["snapshot", "status", &file][..],
        &["snapshot", "restore", &file, "--data-dir", &new],
        &["snapshot", "restore", &file, "--data-dir", &new, "--skip-hash-check"],
        &["hashkv", &file],
    ] {
        let refused = nobody.run(args).failed();
        assert!(refused.contains("a database of etcd itself (bbolt)"), "{args:?}: {refused}");
        assert!(refused.contains("etcfs migrate"), "{args:?}: {refused}");
    }
    assert!(!Path::new(&new).exists());
    let data_dir = server.data_dir().display().to_string();
    let refused = nobody.run(["defrag", "--data-dir", &data_dir]).failed();
    assert!(refused.contains("there is no data of a member in"), "{refused}");
}

#[test]
fn what_etcdutl_takes_and_we_do_not_is_said() {
    let nobody = Client::etcfs("");
    let refused = nobody.run(["snapshot", "restore", "x", "--wal-dir", "/wal"]);
    assert!(
        refused.code == 128 && refused.stderr.contains("the log lies in the data directory"),
        "{refused:?}"
    );
    for line in
        ["migrate --data-dir d --target-version 3.6", "migrate --force", "migrate --target-version 3.6 x:1"]
    {
        let refused = nobody.run(line.split(' '));
        assert!(refused.code == 128 && refused.stderr.contains("etcdutl migrate"), "{line}: {refused:?}");
        assert!(refused.stderr.contains("Hint: `etcfs migrate DESTINATION`"), "{line}: {refused:?}");
    }
    assert!(nobody.run(["migrate"]).failed().contains("<DESTINATION>"));
    let server = Server::start(Kind::Etcfs);
    let file = server.scratch().join("backup.db").display().to_string();
    Client::etcfs(&server.endpoint()).run(["snapshot", "save", &file]).ok();
    let new = server.scratch().join("new").display().to_string();
    nobody
        .run(["snapshot", "restore", &file, "--data-dir", &new, "--initial-memory-map-size", "1048576"])
        .ok();
}

fn size(dir: &Path) -> u64 {
    let told = command::sh(dir, "du --summarize --bytes .").ok();
    told.split('\t').next().and_then(|bytes| bytes.parse().ok()).expect("du tells bytes first")
}
