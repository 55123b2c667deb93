//! `etcfs bench` measures whatever speaks the API, and counts what it was told to.

use etcfs_tests::{
    command::Client,
    server::{Kind, Server},
};

/// The lines of a round, as a program reads them.
#[track_caller]
fn measured(client: &Client, line: &str) -> Vec<serde_json::Value> {
    let small =
        ["--total", "40", "--keys", "20", "--clients", "4", "--watchers", "3", "--leases", "3", "--json"];
    let said = client.run(line.split(' ').chain(small)).ok();
    said.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

#[test]
fn each_kind_of_request_is_measured() {
    for kind in [Kind::Etcfs, Kind::Etcd] {
        let server = Server::start(kind);
        let client = Client::etcfs(&server.endpoint());
        for line in [
            "bench run put range-s",
            "bench put",
            "bench range --consistency s",
            "bench txn",
            "bench watch",
            "bench run watch-keys",
            "bench lease-grant",
            "bench lease-keep-alive",
            "bench mixed",
        ] {
            for round in measured(&client, line) {
                let wanted = if round["op"] == "watch" { 120 } else { 40 };
                assert_eq!(round["ops"], wanted, "{line}: {round}");
                assert_eq!(round["errors"], 0, "{line}: {round}");
                assert!(round["p50_us"].as_f64().is_some_and(|micros| micros > 0.0), "{line}: {round}");
            }
        }
        client.run(["bench", "load", "--total", "300", "--prefix", "loaded/"]).ok();
        assert_eq!(server.api().all("loaded/").len(), 300);
    }
}

#[test]
fn two_servers_are_compared() {
    let servers = [Server::start(Kind::Etcfs), Server::start(Kind::Etcd)];
    let [a, b] = servers.each_ref().map(Server::endpoint);
    let client = Client::etcfs(&a);
    let compared = measured(&client, &format!("bench compare {a} {b} --ops put --rounds 2"));
    assert!(!compared.is_empty());
}

#[test]
fn a_directory_is_measured_beside_another() {
    let (one, two) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let (one, two) = (one.path().display().to_string(), two.path().display().to_string());
    let client = Client::etcfs("127.0.0.1:1");
    let said =
        client.run(["bench", "fs", &one, "--beside", &two, "--files", "20", "--calls", "20", "--json"]).ok();
    assert!(said.contains("stat") && said.contains("readdir"), "{said}");
}
