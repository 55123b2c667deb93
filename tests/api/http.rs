//! Plain HTTP on the client port: health, version, metrics.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use etcfs_proto::etcdserverpb::PutRequest;
use etcfs_tests::api::put;
use serde_json::{Value, json};

use crate::subject::{Subject, delete_span};

on_both! {
    health_is_true,
    the_version_is_told,
    metrics_tell_what_dashboards_ask_for,
    metrics_follow_what_happens,
    what_is_not_there_is_not_found,
    grpc_and_http_share_the_port,
}
on_ours! {
    health_follows_3_6,
    probes_answer_ok,
    head_and_post_are_answered_in_order,
    requests_of_the_log_are_timed_by_what_they_do,
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

fn request(s: &Subject, method: &str, path: &str) -> Answer {
    let address = s.endpoint();
    let mut stream = TcpStream::connect(&address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    let head = head.to_ascii_lowercase();
    let body = if head.contains("transfer-encoding: chunked") { unchunked(body) } else { body.to_owned() };
    Answer { status, head, body }
}

fn unchunked(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).expect("a chunk's size");
        if size == 0 {
            break;
        }
        whole.push_str(&rest[..size]);
        body = &rest[size + 2..];
    }
    whole
}

fn get(s: &Subject, path: &str) -> Answer {
    request(s, "GET", path)
}

fn health_is_true(s: &Subject) {
    let answer = get(s, "/health");
    let body: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!((answer.status, &body["health"]), (200, &json!("true")));
}

/// 3.4's answer has no reason.
fn health_follows_3_6(s: &Subject) {
    for path in ["/health", "/health?serializable=true", "/health?exclude=NOSPACE"] {
        let answer = get(s, path);
        assert_eq!((answer.status, answer.body.trim()), (200, r#"{"health":"true","reason":""}"#));
    }
}

fn probes_answer_ok(s: &Subject) {
    for path in ["/livez", "/readyz", "/readyz?exclude=non_learner", "/readyz/linearizable_read"] {
        let answer = get(s, path);
        assert_eq!((answer.status, answer.body.trim()), (200, "ok"), "{path}");
    }
    let verbose = get(s, "/readyz?verbose");
    assert!(verbose.body.contains("[+]linearizable_read ok"), "{}", verbose.body);
}

fn the_version_is_told(s: &Subject) {
    let answer = get(s, "/version");
    let body: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(answer.status, 200);
    let (server, cluster) = (body["etcdserver"].as_str().unwrap(), body["etcdcluster"].as_str().unwrap());
    assert!(server.starts_with(s.by_version("3.4.", "3.6.")), "{server}");
    assert_eq!(cluster, s.by_version("3.4.0", "3.6.0"));
    if !s.is_v3_4() {
        assert_eq!(body["storage"], "3.6.0");
    }
}

/// The value of a metric without labels.
fn metric(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

fn metrics_tell_what_dashboards_ask_for(s: &Subject) {
    s.set("a", "1");
    let answer = get(s, "/metrics");
    assert_eq!(answer.status, 200);
    assert!(answer.head.contains("content-type: text/plain"), "{}", answer.head);
    let missing: Vec<&str> = [
        "etcd_server_has_leader",
        "etcd_server_is_leader",
        "etcd_server_leader_changes_seen_total",
        "etcd_server_proposals_committed_total",
        "etcd_server_proposals_applied_total",
        "etcd_server_proposals_pending",
        "etcd_server_proposals_failed_total",
        "etcd_server_quota_backend_bytes",
        "etcd_mvcc_db_total_size_in_bytes",
        "etcd_mvcc_db_total_size_in_use_in_bytes",
        "etcd_debugging_mvcc_keys_total",
        "etcd_debugging_mvcc_watcher_total",
        "etcd_debugging_mvcc_watch_stream_total",
        "etcd_debugging_mvcc_slow_watcher_total",
        "etcd_debugging_mvcc_events_total",
        "etcd_debugging_lease_granted_total",
        "etcd_debugging_lease_revoked_total",
        "etcd_disk_wal_fsync_duration_seconds_count",
        "etcd_disk_backend_commit_duration_seconds_count",
        "etcd_disk_backend_defrag_duration_seconds_count",
        "etcd_disk_backend_snapshot_duration_seconds_count",
        "process_resident_memory_bytes",
        "process_cpu_seconds_total",
        "process_open_fds",
    ]
    .into_iter()
    .filter(|name| metric(&answer.body, name).is_none())
    .collect();
    assert_eq!(missing, [""; 0]);
    assert!(answer.body.contains("grpc_server_handled_total{"), "calls are counted by method and code");
    assert!(answer.body.contains("etcd_server_client_requests_total{"), "and by version and kind");
    assert_eq!(metric(&answer.body, "etcd_server_has_leader"), Some(1.0));
    assert!(answer.body.contains("# TYPE etcd_server_has_leader gauge"));
}

fn metrics_follow_what_happens(s: &Subject) {
    let read = |name| metric(&get(s, "/metrics").body, name).unwrap();
    let watchers = "etcd_debugging_mvcc_watcher_total";
    let (keys, watching) = (read("etcd_debugging_mvcc_keys_total"), read(watchers));
    let committed = read("etcd_server_proposals_committed_total");
    s.set("metrics/a", "1");
    s.set("metrics/b", "1");
    assert_eq!(read("etcd_debugging_mvcc_keys_total"), keys + 2.0);
    // It is told a moment after the answers.
    etcfs_tests::wait::until_true("two more entries are committed", || {
        read("etcd_server_proposals_committed_total") >= committed + 2.0
    });
    let watch = s.watch(etcfs_tests::api::watch_key("a", 0));
    assert!(read(watchers) >= watching.min(1.0));
    drop(watch);
    etcfs_tests::wait::until_true("an abandoned stream's watcher is gone", || read(watchers) == 0.0);
}

fn requests_of_the_log_are_timed_by_what_they_do(s: &Subject) {
    let count = |op: &str, success: bool| {
        let labels = format!("{{op=\"{op}\",success=\"{success}\",version=\"v3\"}}");
        let name = format!("etcd_server_apply_duration_seconds_count{labels}");
        metric(&get(s, "/metrics").body, &name).unwrap_or_default()
    };
    let (puts, failures, deletes) = (count("Put", true), count("Put", false), count("DeleteRange", true));
    s.set("a", "1");
    s.set("a", "2");
    s.put(PutRequest { lease: 404, ..put("a", "3") }).unwrap_err();
    s.delete(delete_span("a", "b")).unwrap();
    assert_eq!(count("Put", true), puts + 2.0);
    assert_eq!(count("Put", false), failures + 1.0);
    assert_eq!(count("DeleteRange", true), deletes + 1.0);
}

fn what_is_not_there_is_not_found(s: &Subject) {
    for path in ["/nothing", "/metrics/x", "/v3/no/such/path"] {
        assert_eq!(get(s, path).status, 404, "{path}");
    }
}

fn head_and_post_are_answered_in_order(s: &Subject) {
    let head = request(s, "HEAD", "/health");
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert_eq!(request(s, "POST", "/version").status, 405);
}

fn grpc_and_http_share_the_port(s: &Subject) {
    for value in ["1", "2", "3"] {
        s.set("a", value);
        assert_eq!(get(s, "/health").status, 200);
        assert_eq!(s.value("a").as_deref(), Some(value));
    }
}
