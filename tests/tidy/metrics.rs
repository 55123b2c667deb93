//! Each metric that the server shows stands in its document, and each of etcd's that dashboards and alerts use is
//! shown, or stands there with the reason why not.

use std::fs;

use etcfs_tests::server::{Kind, Options, Server, http_get};

use crate::{none, root};

/// etcd's names that dashboards and alerts ask for.
const ETCDS: [&str; 63] = [
    "etcd_cluster_version",
    "etcd_debugging_lease_granted_total",
    "etcd_debugging_lease_renewed_total",
    "etcd_debugging_lease_revoked_total",
    "etcd_debugging_mvcc_compact_revision",
    "etcd_debugging_mvcc_current_revision",
    "etcd_debugging_mvcc_events_total",
    "etcd_debugging_mvcc_keys_total",
    "etcd_debugging_mvcc_pending_events_total",
    "etcd_debugging_mvcc_slow_watcher_total",
    "etcd_debugging_mvcc_watch_stream_total",
    "etcd_debugging_mvcc_watcher_total",
    "etcd_debugging_server_lease_expired_total",
    "etcd_debugging_store_*",
    "etcd_disk_backend_commit_duration_seconds",
    "etcd_disk_backend_defrag_duration_seconds",
    "etcd_disk_defrag_inflight",
    "etcd_disk_wal_fsync_duration_seconds",
    "etcd_mvcc_db_total_size_in_bytes",
    "etcd_mvcc_db_total_size_in_use_in_bytes",
    "etcd_mvcc_delete_total",
    "etcd_mvcc_put_total",
    "etcd_mvcc_range_total",
    "etcd_mvcc_txn_total",
    "etcd_network_active_peers",
    "etcd_network_client_grpc_received_bytes_total",
    "etcd_network_client_grpc_sent_bytes_total",
    "etcd_network_disconnected_peers_total",
    "etcd_network_peer_received_bytes_total",
    "etcd_network_peer_round_trip_time_seconds",
    "etcd_network_peer_sent_bytes_total",
    "etcd_network_server_stream_failures_total",
    "etcd_server_apply_duration_seconds",
    "etcd_server_client_requests_total",
    "etcd_server_go_version",
    "etcd_server_has_leader",
    "etcd_server_health_failures",
    "etcd_server_health_success",
    "etcd_server_heartbeat_send_failures_total",
    "etcd_server_id",
    "etcd_server_is_leader",
    "etcd_server_is_learner",
    "etcd_server_leader_changes_seen_total",
    "etcd_server_proposals_applied_total",
    "etcd_server_proposals_committed_total",
    "etcd_server_proposals_failed_total",
    "etcd_server_proposals_pending",
    "etcd_server_quota_backend_bytes",
    "etcd_server_read_indexes_failed_total",
    "etcd_server_slow_apply_total",
    "etcd_server_slow_read_indexes_total",
    "etcd_server_version",
    "etcd_snap_fsync_duration_seconds",
    "go_*",
    "grpc_server_handled_total",
    "grpc_server_handling_seconds",
    "grpc_server_started_total",
    "os_fd_limit",
    "os_fd_used",
    "process_cpu_seconds_total",
    "process_open_fds",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
];
/// These come with other members alone.
const OF_PEERS: [&str; 5] = [
    "etcd_network_active_peers",
    "etcd_network_disconnected_peers_total",
    "etcd_network_peer_received_bytes_total",
    "etcd_network_peer_round_trip_time_seconds",
    "etcd_network_peer_sent_bytes_total",
];

#[test]
fn every_metric_stands_in_its_document() {
    let document = fs::read_to_string(root().join("server/docs/metrics.md")).expect("server/docs/metrics.md");
    let args = vec!["--metrics=extensive".to_owned()];
    let server = Server::with(Kind::Etcfs, Options { args, ..Default::default() });
    // Some appear with the first call of their kind.
    server.api().set("/a", "v");
    server.api().keep_alive(1).expect("it is answered that there is none");
    drop(server.api().watch(etcfs_tests::api::watch_key("/a", 0)));
    let text = http_get(&server.endpoint(), "/metrics").expect("the server answers");
    let names: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .filter_map(|line| line.split(' ').next())
        .collect();
    assert!(names.len() > 10, "metrics are found:\n{text}");
    let missing = names.iter().filter(|name| !document.contains(&format!("`{name}`")));
    none(missing.map(|name| format!("server/docs/metrics.md lacks `{name}`")).collect());
    let (served, left_out) = document.split_once("## What etcd has").expect("what is left out stands apart");
    let is_there = |name: &&&str| {
        let shown =
            names.contains(*name) || OF_PEERS.contains(*name) && served.contains(&format!("`{name}`"));
        shown != left_out.contains(&format!("| `{name}` |"))
    };
    let lacking = ETCDS.iter().filter(|name| !is_there(name));
    none(lacking.map(|name| format!("`{name}` must be shown, or left out with a reason")).collect());
}
