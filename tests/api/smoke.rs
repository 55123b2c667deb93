//! The harness itself, on the reference server.

use etcfs_tests::{api::watch_prefix, command::Client, server::Server};

#[test]
fn a_put_is_read_and_watched_on_the_reference() {
    let server = Server::etcd();
    let api = server.api();
    let revision = api.set("/a", "v");
    assert_eq!(api.value("/a").as_deref(), Some("v"));
    assert_eq!(Client::etcdctl(&server.endpoint()).run(["get", "/a"]).ok(), "/a\nv\n");
    let mut watch = api.watch(watch_prefix("/", revision));
    assert_eq!(watch.events(1)[0].kv.as_ref().unwrap().mod_revision, revision);
    assert_eq!(api.events_since("/", 2).len(), 1);
}
