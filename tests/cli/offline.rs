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

fn size(dir: &Path) -> u64 {
    let told = command::sh(dir, "du --summarize --bytes .").ok();
    told.split('\t').next().and_then(|bytes| bytes.parse().ok()).expect("du tells bytes first")
}
