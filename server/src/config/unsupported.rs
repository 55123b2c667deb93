//! etcd's settings that this server does not have yet.
//!
//! A start script written for etcd may carry any of them. Taking one in
//! silence could drop a protection that its author counts on, so each is
//! refused with its reason.

const DISCOVERY: &str = "members are found by --initial-cluster or --discovery-srv";
const TUNING: &str = "there is nothing to tune here: the consensus is not etcd's";
const ELSEWHERE: &str = "there is nothing to tune here: the storage is not etcd's";
const CHECKPOINTS: &str = "what is left of long leases is always noted in the log";

/// Names without dashes in front, with the reason.
const SETTINGS: &[(&str, &str)] = &[
    ("wal-dir", "the log lives in the data directory, which --data-dir puts on the fast disk"),
    ("client-cert-file", "the server is no client of itself"),
    ("client-key-file", "the server is no client of itself"),
    ("discovery", DISCOVERY),
    ("discovery-token", DISCOVERY),
    ("discovery-endpoints", DISCOVERY),
    ("pre-vote", "members always ask before they stand for election"),
    ("initial-election-tick-advance", TUNING),
    ("snapshot-catchup-entries", TUNING),
    (
        "listen-client-http-urls",
        "gRPC and HTTP share each port of --listen-client-urls; --listen-metrics-urls has HTTP alone",
    ),
    ("enable-lease-checkpoint", CHECKPOINTS),
    ("enable-lease-checkpoint-persist", CHECKPOINTS),
    ("txn-mode-write-with-shared-buffer", ELSEWHERE),
    ("stop-grpc-service-on-defrag", "defragmentation does not stop the server: there is nothing to wait for"),
    ("max-snapshots", ELSEWHERE),
    ("max-wals", ELSEWHERE),
    ("backend-batch-interval", ELSEWHERE),
    ("backend-batch-limit", ELSEWHERE),
    ("backend-bbolt-freelist-type", ELSEWHERE),
    ("compaction-batch-limit", ELSEWHERE),
    ("compaction-sleep-interval", ELSEWHERE),
    ("bootstrap-defrag-threshold-megabytes", ELSEWHERE),
    ("memory-mlock", ELSEWHERE),
    ("unsafe-no-fsync", "what is acknowledged is on disk, always"),
    ("compact-hash-check-enabled", "use --corrupt-check-time, which compares all of history"),
    ("compact-hash-check-time", "use --corrupt-check-time, which compares all of history"),
    ("enable-pprof", "there is no profiling endpoint"),
    ("logger", "there is one logger"),
    ("log-outputs", "the log goes to standard error; redirect it"),
    ("enable-log-rotation", "the log goes to standard error; redirect it"),
    ("log-rotation-config-json", "the log goes to standard error; redirect it"),
    ("socket-reuse-port", "sockets are not shared"),
    ("socket-reuse-address", "sockets are always opened with SO_REUSEADDR"),
    ("enable-distributed-tracing", "tracing is not supported yet"),
];

/// Why etcd's setting `name` is not available, if it is one of etcd's.
pub(super) fn reason(name: &str) -> Option<&'static str> {
    let name = name.strip_prefix("experimental-").unwrap_or(name);
    SETTINGS.iter().find(|(known, _)| *known == name).map(|(_, reason)| *reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn no_setting_is_both_supported_and_unsupported() {
        for arg in super::super::args::Args::command().get_arguments() {
            assert_eq!(arg.get_long().and_then(reason), None);
        }
    }
}
