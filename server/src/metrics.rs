//! What /metrics says, by etcd's names where the thing exists here.
//!
//! Every metric stands in server/docs/metrics.md. Counters on the way of a
//! request are resolved once and cost one atomic add; what another part knows
//! anyway is read when somebody asks ([`Readings`]).

mod applies;

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use prometheus::{
    Encoder as _, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, TextEncoder,
};
use tonic::Code;

pub use self::applies::Applies;

/// What the other parts know, read at the time of asking.
#[derive(Clone, Debug, Default)]
pub struct Readings {
    pub has_leader: bool,
    pub is_leader: bool,
    pub is_learner: bool,
    pub leader_changes: u64,
    pub committed_index: u64,
    pub applied_index: u64,
    pub proposals_pending: u64,
    pub proposals_failed: u64,
    pub db_size_bytes: u64,
    pub db_size_in_use_bytes: u64,
    pub keys: u64,
    pub revision: i64,
    pub compact_revision: i64,
    pub watchers: u64,
    pub watch_streams: u64,
    pub slow_watchers: u64,
    pub pending_events: u64,
    pub events: u64,
    pub leases: u64,
    pub image_lag_bytes: u64,
    pub cluster_version: String,
    pub peers: Vec<PeerReading>,
    pub slow_applies: u64,
    pub slow_read_indexes: u64,
    pub read_indexes_failed: u64,
}

/// How another member is reached.
#[derive(Clone, Debug)]
pub struct PeerReading {
    /// In hex, as etcd's metrics have it.
    pub id: String,
    /// It answered its last call.
    pub up: bool,
    /// How often it stopped answering.
    pub losses: u64,
    /// Calls that it did not answer.
    pub failures: u64,
    /// Of these, heartbeats.
    pub heartbeat_failures: u64,
    pub sent_bytes: u64,
    pub received_bytes: u64,
}

/// Reads what the other parts know.
pub type Source = Box<dyn Fn() -> Readings + Send + Sync>;

/// The counters of one RPC.
#[derive(Debug)]
pub struct MethodMetrics {
    pub started: IntCounter,
    ok: IntCounter,
    /// By code, for the calls that failed.
    handled: IntCounterVec,
    names: [&'static str; 3],
    /// Calls of clients that say no version of the API, which most do not.
    unversioned: IntCounter,
    seconds: Option<Histogram>,
}

impl MethodMetrics {
    pub fn handled(&self, code: Code) {
        if code == Code::Ok {
            self.ok.inc();
        } else {
            let [kind, service, method] = self.names;
            self.handled.with_label_values(&[code_name(code), method, service, kind]).inc();
        }
    }

    pub fn took(&self, time: Duration) {
        if let Some(seconds) = &self.seconds {
            seconds.observe(time.as_secs_f64());
        }
    }
}

/// All metrics of one server.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    source: OnceLock<SourceBox>,
    gauges: Gauges,
    /// By the position of the RPC in the list given to `new`.
    pub methods: Vec<MethodMetrics>,
    client_requests: IntCounterVec,
    pub puts: IntCounter,
    pub ranges: IntCounter,
    pub deletes: IntCounter,
    pub txns: IntCounter,
    pub received_bytes: IntCounter,
    pub sent_bytes: IntCounter,
    /// By API and by what failed, which is `receive` here: what is sent is not ours any more.
    stream_failures: IntCounterVec,
    pub connections: IntGauge,
    pub connections_refused: IntCounter,
    pub health_success: IntCounter,
    pub health_failures: IntCounter,
    pub lease_granted: IntCounter,
    pub lease_revoked: IntCounter,
    pub lease_renewed: IntCounter,
    pub lease_expired: IntCounter,
    pub wal_fsync_seconds: Histogram,
    pub image_commit_seconds: Histogram,
    pub defragment_seconds: Histogram,
    defragments_inflight: IntGauge,
    pub snapshot_seconds: Histogram,
    /// By member, in hex.
    pub peer_round_trip_seconds: HistogramVec,
    pub applies: Arc<Applies>,
}

struct SourceBox(Source);

impl std::fmt::Debug for SourceBox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Source")
    }
}

/// One RPC: service, method, and whether it is `unary` or a kind of stream.
pub type MethodNames = (&'static str, &'static str, &'static str);

impl Metrics {
    pub fn new(methods: &[MethodNames], extensive: bool) -> Self {
        let registry = Registry::new();
        let make = Make(&registry);
        let started = make.counters(
            "grpc_server_started_total",
            "RPCs that began.",
            &["grpc_method", "grpc_service", "grpc_type"],
        );
        let handled = make.counters(
            "grpc_server_handled_total",
            "RPCs that ended, by code.",
            &["grpc_code", "grpc_method", "grpc_service", "grpc_type"],
        );
        let seconds = extensive.then(|| {
            make.histograms(
                "grpc_server_handling_seconds",
                "Time that unary RPCs took.",
                &["grpc_method", "grpc_service", "grpc_type"],
                prometheus::DEFAULT_BUCKETS.to_vec(),
            )
        });
        let client_requests = make.counters(
            "etcd_server_client_requests_total",
            "Calls, by kind and by the version of the API that the client says.",
            &["client_api_version", "type"],
        );
        let methods = methods
            .iter()
            .map(|&(service, method, kind)| MethodMetrics {
                unversioned: client_requests.with_label_values(&[UNVERSIONED, call_type(kind)]),
                started: started.with_label_values(&[method, service, kind]),
                ok: handled.with_label_values(&["OK", method, service, kind]),
                handled: handled.clone(),
                names: [kind, service, method],
                seconds: seconds
                    .as_ref()
                    .filter(|_| kind == "unary")
                    .map(|seconds| seconds.with_label_values(&[method, service, kind])),
            })
            .collect();
        Self {
            source: OnceLock::new(),
            gauges: Gauges::new(&make),
            methods,
            client_requests,
            puts: make.counter("etcd_mvcc_put_total", "Put calls, transactions' included."),
            ranges: make.counter("etcd_mvcc_range_total", "Range calls."),
            deletes: make.counter("etcd_mvcc_delete_total", "DeleteRange calls."),
            txns: make.counter("etcd_mvcc_txn_total", "Txn calls."),
            received_bytes: make.counter(
                "etcd_network_client_grpc_received_bytes_total",
                "Bytes of requests received from clients.",
            ),
            sent_bytes: make
                .counter("etcd_network_client_grpc_sent_bytes_total", "Bytes of answers sent to clients."),
            stream_failures: make.counters(
                "etcd_network_server_stream_failures_total",
                "Streams of clients that broke off with an error.",
                &["API", "Type"],
            ),
            connections: make.gauge("etcfs_client_connections", "Client connections open now."),
            connections_refused: make
                .counter("etcfs_client_connection_errors_total", "Connections that could not be accepted."),
            health_success: make.counter("etcd_server_health_success", "Health checks that passed."),
            health_failures: make.counter("etcd_server_health_failures", "Health checks that failed."),
            lease_granted: make.counter("etcd_debugging_lease_granted_total", "Leases granted here."),
            lease_revoked: make
                .counter("etcd_debugging_lease_revoked_total", "Leases revoked by clients here."),
            lease_renewed: make
                .counter("etcd_debugging_lease_renewed_total", "Keep-alives that renewed a lease."),
            lease_expired: make
                .counter("etcd_debugging_server_lease_expired_total", "Leases that this leader saw expire."),
            wal_fsync_seconds: make
                .histogram("etcd_disk_wal_fsync_duration_seconds", "Time that the log's fdatasync took."),
            image_commit_seconds: make.histogram(
                "etcd_disk_backend_commit_duration_seconds",
                "Time that writing a batch to the image, or flushing it to disk, took.",
            ),
            defragment_seconds: make.histogram_from(
                "etcd_disk_backend_defrag_duration_seconds",
                "Time that giving back deleted space took.",
                0.1,
            ),
            defragments_inflight: make
                .gauge("etcd_disk_defrag_inflight", "1 while deleted space is given back."),
            snapshot_seconds: make.histogram_from(
                "etcd_disk_backend_snapshot_duration_seconds",
                "Time that writing a snapshot for a client took.",
                0.01,
            ),
            peer_round_trip_seconds: make.histograms(
                "etcd_network_peer_round_trip_time_seconds",
                "Time in which a member answered a heartbeat.",
                &["To"],
                // As etcd's: 0.1 ms doubling up to 3 s.
                prometheus::exponential_buckets(0.0001, 2.0, 16).expect(VALID),
            ),
            applies: Arc::new(Applies::new(&make)),
            registry,
        }
    }

    /// Counts the streams of an API of etcd's that break off.
    pub fn broken_streams(&self, api: &str) -> IntCounter {
        self.stream_failures.with_label_values(&[api, "receive"])
    }

    /// A defragmentation goes on until what this gives is dropped.
    pub fn defragmenting(&self) -> impl Drop + use<> {
        struct Inflight(IntGauge);
        impl Drop for Inflight {
            fn drop(&mut self) {
                self.0.dec();
            }
        }
        self.defragments_inflight.inc();
        Inflight(self.defragments_inflight.clone())
    }

    /// A call has come from a client that says this version of the API, if any.
    pub fn asked(&self, method: usize, client_version: Option<&str>) {
        let method = &self.methods[method];
        match client_version.filter(|version| is_version(version)) {
            None => method.unversioned.inc(),
            Some(version) => {
                self.client_requests.with_label_values(&[version, call_type(method.names[0])]).inc();
            }
        }
    }

    /// Says where the readings come from; once, when the parts stand.
    pub fn read_from(&self, source: Source) {
        if self.source.set(SourceBox(source)).is_err() {
            unreachable!("the source of readings is given once, at assembly");
        }
    }

    /// Facts that don't change while the server runs.
    pub fn describe(&self, member_id: u64, version: &str, quota_bytes: u64) {
        let id = self.gauges.own.get_or_init(|| format!("{member_id:x}"));
        self.gauges.id.with_label_values(&[id.as_str()]).set(1);
        self.gauges.version.with_label_values(&[version]).set(1);
        self.gauges.go_version.with_label_values(&["none"]).set(1);
        self.gauges.quota.set(signed(quota_bytes));
    }

    /// The text that Prometheus reads.
    pub fn render(&self) -> Vec<u8> {
        if let Some(source) = self.source.get() {
            self.gauges.take(&(source.0)());
        }
        self.gauges.take_process();
        let mut text = Vec::new();
        TextEncoder::new()
            .encode(&self.registry.gather(), &mut text)
            .expect("writing to memory does not fail");
        text
    }
}

/// What is set at the time of asking.
#[derive(Debug)]
struct Gauges {
    has_leader: IntGauge,
    is_leader: IntGauge,
    is_learner: IntGauge,
    leader_changes: IntCounter,
    committed: IntGauge,
    applied: IntGauge,
    pending: IntGauge,
    failed: IntCounter,
    quota: IntGauge,
    id: IntGaugeVec,
    version: IntGaugeVec,
    go_version: IntGaugeVec,
    cluster_version: IntGaugeVec,
    db_size: IntGauge,
    db_size_in_use: IntGauge,
    keys: IntGauge,
    revision: IntGauge,
    compact_revision: IntGauge,
    watchers: IntGauge,
    watch_streams: IntGauge,
    slow_watchers: IntGauge,
    pending_events: IntGauge,
    events: IntCounter,
    leases: IntGauge,
    peers: IntGauge,
    /// This member's ID, for what names both ends.
    own: OnceLock<String>,
    active_peers: IntGaugeVec,
    disconnected_peers: IntCounterVec,
    heartbeat_failures: IntCounter,
    sent_failures: IntCounterVec,
    peer_sent: IntCounterVec,
    peer_received: IntCounterVec,
    slow_applies: IntCounter,
    slow_read_indexes: IntCounter,
    read_indexes_failed: IntCounter,
    image_lag: IntGauge,
    fd_used: IntGauge,
    fd_limit: IntGauge,
    open_fds: IntGauge,
    max_fds: IntGauge,
    resident: IntGauge,
    cpu_seconds: prometheus::Counter,
    start_time: prometheus::Gauge,
}

impl Gauges {
    fn new(make: &Make<'_>) -> Self {
        Self {
            has_leader: make.gauge("etcd_server_has_leader", "1 if this member knows a leader."),
            is_leader: make.gauge("etcd_server_is_leader", "1 if this member leads."),
            is_learner: make.gauge("etcd_server_is_learner", "1 if this member is a learner."),
            leader_changes: make.counter("etcd_server_leader_changes_seen_total", "Changes of leader seen."),
            committed: make
                .gauge("etcd_server_proposals_committed_total", "Index of the last committed entry."),
            applied: make.gauge("etcd_server_proposals_applied_total", "Index of the last applied entry."),
            pending: make.gauge("etcd_server_proposals_pending", "Proposals without an outcome yet."),
            failed: make.counter("etcd_server_proposals_failed_total", "Proposals that got no outcome."),
            quota: make.gauge("etcd_server_quota_backend_bytes", "The quota; 0 for none."),
            id: make.gauges("etcd_server_id", "This member's ID, as a label.", &["server_id"]),
            version: make.gauges(
                "etcd_server_version",
                "The API's version, as a label.",
                &["server_version"],
            ),
            cluster_version: make.gauges(
                "etcd_cluster_version",
                "The cluster's version, as a label.",
                &["cluster_version"],
            ),
            db_size: make.gauge("etcd_mvcc_db_total_size_in_bytes", "Bytes that the store takes on disk."),
            db_size_in_use: make.gauge(
                "etcd_mvcc_db_total_size_in_use_in_bytes",
                "Bytes of keys and history; the quota's measure.",
            ),
            keys: make.gauge("etcd_debugging_mvcc_keys_total", "Keys that exist."),
            revision: make.gauge("etcd_debugging_mvcc_current_revision", "Newest revision."),
            compact_revision: make.gauge("etcd_debugging_mvcc_compact_revision", "Revision compacted at."),
            watchers: make.gauge("etcd_debugging_mvcc_watcher_total", "Watchers."),
            watch_streams: make.gauge("etcd_debugging_mvcc_watch_stream_total", "Watch streams."),
            slow_watchers: make
                .gauge("etcd_debugging_mvcc_slow_watcher_total", "Watchers that catch up from the store."),
            pending_events: make
                .gauge("etcd_debugging_mvcc_pending_events_total", "Events queued for watchers."),
            events: make.counter("etcd_debugging_mvcc_events_total", "Events sent to watchers."),
            leases: make.gauge("etcfs_leases", "Leases granted and not ended."),
            peers: make.gauge("etcfs_peers_in_contact", "Other members that answered their last call."),
            own: OnceLock::new(),
            go_version: make.gauges(
                "etcd_server_go_version",
                "1; for dashboards that ask for it: this server has none.",
                &["server_go_version"],
            ),
            disconnected_peers: make.counters(
                "etcd_network_disconnected_peers_total",
                "How often the member stopped answering.",
                &["Local", "Remote"],
            ),
            heartbeat_failures: make.counter(
                "etcd_server_heartbeat_send_failures_total",
                "Heartbeats of this leader that were not answered in time.",
            ),
            active_peers: make.gauges(
                "etcd_network_active_peers",
                "1 for a member that answered its last call.",
                &["Local", "Remote"],
            ),
            sent_failures: make.counters(
                "etcd_network_peer_sent_failures_total",
                "Calls that a member did not answer.",
                &["To"],
            ),
            peer_sent: make.counters(
                "etcd_network_peer_sent_bytes_total",
                "Bytes of messages sent to a member.",
                &["To"],
            ),
            peer_received: make.counters(
                "etcd_network_peer_received_bytes_total",
                "Bytes of messages received from a member.",
                &["From"],
            ),
            slow_applies: make
                .counter("etcd_server_slow_apply_total", "Log entries that took long to apply."),
            slow_read_indexes: make.counter(
                "etcd_server_slow_read_indexes_total",
                "Rounds for linearizable reads that took over 500 ms.",
            ),
            read_indexes_failed: make.counter(
                "etcd_server_read_indexes_failed_total",
                "Rounds for linearizable reads that came to nothing.",
            ),
            image_lag: make.gauge("etcfs_image_lag_bytes", "Bytes applied that the image on disk lacks yet."),
            fd_used: make.gauge("os_fd_used", "File descriptors in use."),
            fd_limit: make.gauge("os_fd_limit", "File descriptors allowed."),
            open_fds: make.gauge("process_open_fds", "File descriptors in use."),
            max_fds: make.gauge("process_max_fds", "File descriptors allowed."),
            resident: make.gauge("process_resident_memory_bytes", "Resident memory."),
            cpu_seconds: make.float_counter("process_cpu_seconds_total", "CPU time used, user and system."),
            start_time: make.float("process_start_time_seconds", "Start of the process, in Unix time."),
        }
    }

    fn take(&self, now: &Readings) {
        self.has_leader.set(now.has_leader.into());
        self.is_leader.set(now.is_leader.into());
        self.is_learner.set(now.is_learner.into());
        raise(&self.leader_changes, now.leader_changes);
        self.committed.set(signed(now.committed_index));
        self.applied.set(signed(now.applied_index));
        self.pending.set(signed(now.proposals_pending));
        raise(&self.failed, now.proposals_failed);
        self.db_size.set(signed(now.db_size_bytes));
        self.db_size_in_use.set(signed(now.db_size_in_use_bytes));
        self.keys.set(signed(now.keys));
        self.revision.set(now.revision);
        self.compact_revision.set(now.compact_revision);
        self.watchers.set(signed(now.watchers));
        self.watch_streams.set(signed(now.watch_streams));
        self.slow_watchers.set(signed(now.slow_watchers));
        self.pending_events.set(signed(now.pending_events));
        raise(&self.events, now.events);
        self.leases.set(signed(now.leases));
        self.image_lag.set(signed(now.image_lag_bytes));
        self.peers.set(signed(now.peers.iter().filter(|peer| peer.up).count() as u64));
        self.take_peers(&now.peers);
        raise(&self.slow_applies, now.slow_applies);
        raise(&self.slow_read_indexes, now.slow_read_indexes);
        raise(&self.read_indexes_failed, now.read_indexes_failed);
        self.cluster_version.reset();
        self.cluster_version.with_label_values(&[now.cluster_version.as_str()]).set(1);
    }

    fn take_peers(&self, peers: &[PeerReading]) {
        let own = self.own.get().map(String::as_str).unwrap_or_default();
        // Of members that were removed they are not known any more.
        let beats: u64 = peers.iter().map(|peer| peer.heartbeat_failures).sum();
        raise(&self.heartbeat_failures, beats.max(self.heartbeat_failures.get()));
        // Of a member that was removed nothing shall stay.
        self.active_peers.reset();
        for peer in peers {
            let id = peer.id.as_str();
            self.active_peers.with_label_values(&[own, id]).set(peer.up.into());
            raise(&self.disconnected_peers.with_label_values(&[own, id]), peer.losses);
            raise(&self.sent_failures.with_label_values(&[id]), peer.failures);
            raise(&self.peer_sent.with_label_values(&[id]), peer.sent_bytes);
            raise(&self.peer_received.with_label_values(&[id]), peer.received_bytes);
        }
    }

    /// From /proc, where there is one.
    fn take_process(&self) {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let limit = limit.map_or(i64::MAX, signed);
        self.fd_limit.set(limit);
        self.max_fds.set(limit);
        if let Ok(entries) = std::fs::read_dir("/proc/self/fd") {
            // One of them is the directory just opened.
            let used = signed(entries.count().saturating_sub(1) as u64);
            self.fd_used.set(used);
            self.open_fds.set(used);
        }
        if let Some(process) = Process::read() {
            self.resident.set(signed(process.resident_bytes));
            self.cpu_seconds.inc_by((process.cpu_seconds - self.cpu_seconds.get()).max(0.0));
            self.start_time.set(process.start_time);
        }
    }
}

/// The unit of times in /proc, fixed in Linux's interface to programs.
const CLOCK_TICKS_PER_SECOND: f64 = 100.0;
/// The unit of memory there, on the machines that we build for.
const PAGE_BYTES: u64 = 4096;

/// What the kernel says of this process.
struct Process {
    cpu_seconds: f64,
    resident_bytes: u64,
    start_time: f64,
}

impl Process {
    fn read() -> Option<Self> {
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        // Behind the name, which may hold anything, and its parenthesis.
        let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        let boot = std::fs::read_to_string("/proc/stat").ok()?;
        let boot: f64 = boot.lines().find_map(|line| line.strip_prefix("btime "))?.parse().ok()?;
        let ticks = CLOCK_TICKS_PER_SECOND;
        Some(Self {
            cpu_seconds: (field(14)? + field(15)?) as f64 / ticks,
            resident_bytes: field(24)? * PAGE_BYTES,
            start_time: boot + field(22)? as f64 / ticks,
        })
    }
}

/// Makes metrics and registers them; names are constants, so it can't fail.
struct Make<'a>(&'a Registry);

const VALID: &str = "metric names are valid and given once";

impl Make<'_> {
    fn register<C: prometheus::core::Collector + Clone + 'static>(&self, made: prometheus::Result<C>) -> C {
        let made = made.expect(VALID);
        self.0.register(Box::new(made.clone())).expect(VALID);
        made
    }

    fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.register(IntCounter::new(name, help))
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.register(IntCounterVec::new(Opts::new(name, help), labels))
    }

    fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.register(IntGauge::new(name, help))
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.register(IntGaugeVec::new(Opts::new(name, help), labels))
    }

    fn float(&self, name: &str, help: &str) -> prometheus::Gauge {
        self.register(prometheus::Gauge::new(name, help))
    }

    fn float_counter(&self, name: &str, help: &str) -> prometheus::Counter {
        self.register(prometheus::Counter::new(name, help))
    }

    /// As etcd's: 1 ms doubling up to 8 s.
    fn histogram(&self, name: &str, help: &str) -> Histogram {
        self.histogram_from(name, help, 0.001)
    }

    /// Buckets from `first` seconds, doubling 13 times.
    fn histogram_from(&self, name: &str, help: &str, first: f64) -> Histogram {
        let buckets = prometheus::exponential_buckets(first, 2.0, 14).expect(VALID);
        self.register(Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets)))
    }

    fn histograms(&self, name: &str, help: &str, labels: &[&str], buckets: Vec<f64>) -> HistogramVec {
        self.register(HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets), labels))
    }
}

/// etcd's word where a client says no version.
const UNVERSIONED: &str = "unknown";

/// etcd's names for the two kinds of calls.
fn call_type(kind: &'static str) -> &'static str {
    if kind == "unary" { "unary" } else { "stream" }
}

/// Few enough that clients can't fill the memory with labels: `3.6`, `3.6.14`.
fn is_version(text: &str) -> bool {
    let mut numbers = text.split('.');
    let is_small =
        |number: &str| (1..=2).contains(&number.len()) && number.bytes().all(|digit| digit.is_ascii_digit());
    numbers.next() == Some("3") && (1..=2).contains(&numbers.clone().count()) && numbers.all(is_small)
}

fn raise(counter: &IntCounter, to: u64) {
    counter.inc_by(to.saturating_sub(counter.get()));
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// grpc-go's names, which dashboards select by.
fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_appear_by_etcds_names() {
        let metrics = Metrics::new(&[("etcdserverpb.KV", "Put", "unary")], true);
        metrics.describe(0x8e9e, "3.6.14", 0);
        metrics.read_from(Box::new(|| Readings {
            has_leader: true,
            keys: 7,
            slow_applies: 3,
            peers: vec![PeerReading {
                id: "ab".into(),
                up: false,
                losses: 2,
                failures: 9,
                heartbeat_failures: 4,
                sent_bytes: 7,
                received_bytes: 5,
            }],
            ..Default::default()
        }));
        metrics.methods[0].started.inc();
        metrics.methods[0].handled(Code::InvalidArgument);
        metrics.methods[0].took(Duration::from_millis(2));
        for version in [None, Some("3.6.1"), Some("3.6.1"), Some("nonsense"), Some("3.6.1.7")] {
            metrics.asked(0, version);
        }
        let text = String::from_utf8(metrics.render()).unwrap();
        for line in [
            "etcd_server_has_leader 1",
            "etcd_debugging_mvcc_keys_total 7",
            "etcd_server_id{server_id=\"8e9e\"} 1",
            "etcd_server_slow_apply_total 3",
            "etcd_server_client_requests_total{client_api_version=\"unknown\",type=\"unary\"} 3",
            "etcd_server_client_requests_total{client_api_version=\"3.6.1\",type=\"unary\"} 2",
            "etcd_network_active_peers{Local=\"8e9e\",Remote=\"ab\"} 0",
            "etcd_network_peer_sent_failures_total{To=\"ab\"} 9",
            "etcd_network_disconnected_peers_total{Local=\"8e9e\",Remote=\"ab\"} 2",
            "etcd_server_heartbeat_send_failures_total 4",
            "etcd_server_go_version{server_go_version=\"none\"} 1",
            "etcd_network_peer_sent_bytes_total{To=\"ab\"} 7",
            "etcd_network_peer_received_bytes_total{From=\"ab\"} 5",
            "grpc_server_started_total{grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"} 1",
            "grpc_server_handled_total{grpc_code=\"InvalidArgument\",grpc_method=\"Put\",\
             grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(text.contains("process_resident_memory_bytes "));
    }
}
