//! A mirror copies what is there and then repeats what changes, whoever makes it and wherever it leads.

use etcfs_proto::etcdserverpb::RangeRequest;
use etcfs_tests::{
    api::Api,
    command::Client,
    server::{Kind, Server},
    wait,
};

fn pairs(api: &Api) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let every = RangeRequest { key: "\0".into(), range_end: "\0".into(), ..RangeRequest::default() };
    api.range(every)
        .expect("a range of all keys")
        .kvs
        .iter()
        .map(|kv| (text(&kv.key), text(&kv.value)))
        .collect()
}

/// What the destination has in the end, with the keys there that were there before.
fn mirrored(client: fn(&str) -> Client, from: Kind, to: Kind, flags: &[&str]) -> Vec<(String, String)> {
    let (source, destination) = (Server::start(from), Server::start(to));
    let (api, copy) = (source.api(), destination.api());
    for number in 0..200 {
        api.set(&format!("/a/{number:03}"), number.to_string());
    }
    api.set("/other", "x");
    copy.set("/a/stays", "here");
    let endpoint = destination.endpoint();
    let _mirror = client(&source.endpoint())
        .follow(["make-mirror", "--prefix", "/a/"].iter().chain(flags).chain([&endpoint.as_str()]));
    wait::until_true("what is there is copied", || pairs(&copy).len() == 201);
    api.set("/a/000", "changed");
    api.set("/other", "y");
    Client::etcfs(&source.endpoint()).run(["del", "--prefix", "/a/1"]).ok();
    api.set("/a/last", "1");
    wait::until_true("the last change is repeated", || {
        pairs(&copy).iter().any(|(key, _)| key.ends_with("last"))
    });
    pairs(&copy)
}

fn expected(prefix: &str) -> Vec<(String, String)> {
    let numbers = (0..200).filter(|number| !(100..200).contains(number));
    let mut pairs: Vec<_> =
        numbers.map(|number| (format!("{prefix}{number:03}"), number.to_string())).collect();
    pairs[0].1 = "changed".into();
    pairs.extend([(format!("{prefix}last"), "1".into()), ("/a/stays".into(), "here".into())]);
    pairs.sort();
    pairs
}

#[test]
fn a_mirror_has_what_the_source_has() {
    assert_eq!(mirrored(Client::etcfs, Kind::Etcfs, Kind::Etcd, &[]), expected("/a/"));
    assert_eq!(mirrored(Client::etcfs, Kind::Etcd, Kind::Etcfs, &["--dest-prefix", "/b/"]), expected("/b/"));
    assert_eq!(mirrored(Client::etcfs, Kind::Etcfs, Kind::Etcfs, &["--no-dest-prefix"]), expected(""));
}

#[test]
fn etcdctl_mirrors_our_server_likewise() {
    assert_eq!(
        mirrored(Client::etcdctl, Kind::Etcfs, Kind::Etcfs, &["--dest-prefix", "/b/"]),
        expected("/b/")
    );
}

/// A revision with more changes than a transaction takes is repeated in order and whole.
#[test]
fn a_revision_larger_than_a_transaction_is_repeated_whole() {
    let (source, destination) = (Server::start(Kind::Etcfs), Server::start(Kind::Etcfs));
    let (api, copy) = (source.api(), destination.api());
    for number in 0..20 {
        api.set(&format!("k{number:02}"), "x".repeat(200_000));
    }
    let client = Client::etcfs(&source.endpoint());
    let _mirror = client.follow(["make-mirror", "--max-txn-ops", "3", &destination.endpoint()]);
    wait::until_true("what is there is copied", || copy.all("k").len() == 20);
    client.run(["del", "--prefix", "k"]).ok();
    wait::until_true("all deletes are repeated", || copy.all("k").is_empty());
}

#[test]
fn contradictions_are_refused() {
    let client = Client::etcfs("127.0.0.1:1");
    let both = client.run(["make-mirror", "--dest-prefix", "x", "--no-dest-prefix", "127.0.0.1:1"]);
    assert_eq!(both.code, 128, "{both:?}");
    assert!(
        client.run(["make-mirror", "--max-txn-ops", "0", "127.0.0.1:1"]).failed().contains("--max-txn-ops 0")
    );
}

/// The destination's users are its own.
#[test]
fn a_mirror_logs_in_at_its_destination() {
    let (source, destination) = (Server::start(Kind::Etcfs), Server::start(Kind::Etcd));
    source.api().set("k", "v");
    let there = Client::etcfs(&destination.endpoint());
    for line in ["user add root:top", "user grant-role root root", "auth enable"] {
        there.run(line.split(' ')).ok();
    }
    let client = Client::etcfs(&source.endpoint());
    let refused = client.run(["make-mirror", &destination.endpoint()]).failed();
    assert!(refused.contains("user name is empty"), "{refused}");
    let _mirror = client.follow(["make-mirror", "--dest-user", "root:top", &destination.endpoint()]);
    wait::until_true("the key is copied", || there.run(["--user", "root:top", "get", "k"]).ok() == "k\nv\n");
}
