//! `etcfs export` and `etcfs import`: what goes out comes back in, by directory and by archive.

use etcfs_proto::{etcdserverpb::RangeRequest, mvccpb::KeyValue};
use etcfs_tests::{
    api::Api,
    command::{Client, sh},
    server::{Kind, Server},
};

/// Keys of every shape that a path has to spell.
const KEYS: [(&[u8], &[u8]); 8] = [
    (b"/a", b"a value beside a directory"),
    (b"/a/b", b""),
    (b"/a/b-c", b"between b and what is below it"),
    (b"/a/b/c", b"\0\xff binary"),
    (b"/a//%d", b"odd names"),
    (b"/a/..", b"no way out"),
    (b"/z\xff", b"z"),
    (b"bare/key", b"without a slash"),
];

fn load(api: &Api) {
    for (key, value) in KEYS {
        let request = etcfs_proto::etcdserverpb::PutRequest {
            key: key.into(),
            value: value.into(),
            ..Default::default()
        };
        api.put(request).expect("it is put");
    }
    api.set("/a/long", "x".repeat(1_000_000));
    api.set(&format!("/a/{}", "n".repeat(400)), "a name too long for one");
}

fn pairs(api: &Api) -> Vec<(bytes::Bytes, bytes::Bytes)> {
    let every = RangeRequest { key: "\0".into(), range_end: "\0".into(), ..RangeRequest::default() };
    let kvs = api.range(every).expect("a range of all keys").kvs;
    kvs.into_iter().map(|KeyValue { key, value, .. }| (key, value)).collect()
}

#[test]
fn what_is_exported_is_imported_again() {
    for kind in [Kind::Etcfs, Kind::Etcd] {
        let (from, to) = (Server::start(kind), Server::start(Kind::Etcfs));
        load(&from.api());
        let (out, back) = (Client::etcfs(&from.endpoint()), Client::etcfs(&to.endpoint()));
        let all = pairs(&from.api());
        for place in ["tree", "all.tar"] {
            let place = from.scratch().join(place);
            let place = place.to_str().expect("a plain path");
            let told = out.run(["export", "", place]).ok();
            assert_eq!(told, "10 keys exported as of revision 11\n");
            assert_eq!(back.run(["import", place, ""]).ok(), "10 keys imported\n");
            assert_eq!(pairs(&to.api()), all, "by {place}");
            back.run(["del", "--prefix", ""]).ok();
        }
    }
}

#[test]
fn an_export_looks_as_a_mount_does() {
    let server = Server::start(Kind::Etcfs);
    let client = Client::etcfs(&server.endpoint());
    load(&server.api());
    let tree = server.scratch().join("tree");
    let shown = tree.to_str().expect("a plain path");
    client.run(["export", "/a", shown]).ok();
    let listed = sh(&tree, "find . -type f -size -2k | LC_ALL=C sort").ok();
    let name = "n".repeat(250);
    let rest = "n".repeat(150);
    let wanted = format!("./%2E%2E\n./%empty/%25d\n./b-c\n./b/%value\n./b/c\n./{name}%more/{rest}\n");
    assert_eq!(listed, wanted);
    let refused = client.run(["export", "/a", shown]).failed();
    assert!(refused.contains("is not empty"), "{refused}");
    // An archive of a past revision, through a pipe.
    let script = format!("{} export --rev 3 /a - | tar tf - | sort", etcfs_tests::binary::etcfs().display());
    let listed = sh(&tree, &format!("ETCFS_ENDPOINTS={} {script}", server.endpoint())).ok();
    assert_eq!(listed, "b\n");
}

#[test]
fn an_import_takes_other_peoples_files() {
    let server = Server::start(Kind::Etcfs);
    let client = Client::etcfs(&server.endpoint());
    let dir = server.scratch().join("config");
    std::fs::create_dir(&dir).expect("it is made");
    let make = "mkdir sub empty && echo one > sub/50%off && ln -s one link && echo two > two && \
                tar cf ../config.tar . && tar cf ../evil.tar -P ../config.tar";
    sh(&dir, make).ok();
    let told = client.run(["import", dir.to_str().expect("a plain path"), "/etc"]);
    assert_eq!(told.stdout, "2 keys imported\n");
    assert!(told.stderr.contains("Left out: link is no regular file"), "{told:?}");
    let api = server.api();
    assert_eq!(api.value("/etc/sub/50%off").as_deref(), Some("one\n"));
    api.set("/etc/two", "mine");
    let tar = dir.with_extension("tar");
    let told = client.run(["import", "-n", tar.to_str().expect("a plain path"), "/etc"]);
    assert_eq!(told.stdout, "0 keys imported, 2 left as they were\n");
    assert_eq!(api.value("/etc/two").as_deref(), Some("mine"));
    let evil = dir.with_file_name("evil.tar");
    let refused = client.run(["import", evil.to_str().expect("a plain path"), "/etc"]).failed();
    assert!(refused.contains("leads out of the archive"), "{refused}");
    std::fs::write(dir.join("huge"), vec![0; 1_800_000]).expect("it is written");
    let refused = client.run(["import", dir.to_str().expect("a plain path"), "/etc"]).failed();
    assert!(refused.contains("huge: ") && refused.contains("too large"), "{refused}");
}
