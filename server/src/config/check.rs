//! The rules of single settings and between settings: flags in, `Config` out.

use std::time::Duration;

use super::{
    AutoCompaction, Config, ConfigError, Discovery, Founder, Limits, ListenUrl, Log, Names, Quota, Web,
    args::{Args, ClusterState, CompactionMode, Given, MetricsLevel},
    gates::Gates,
};

/// etcd's quota where none is given.
const QUOTA_DEFAULT_BYTES: u64 = 2 * 1024 * 1024 * 1024;
/// Above it etcd itself warns: memory and restarts suffer.
const QUOTA_ADVISED_BYTES: u64 = 8 * 1024 * 1024 * 1024;
const REQUEST_ADVISED_BYTES: u32 = 10 * 1024 * 1024;
const REQUEST_MAX_BYTES: u32 = 512 * 1024 * 1024;
const ELECTION_MAX_MILLIS: i64 = 50_000;
/// More cost speed and gain nothing; etcd advises as many.
const MEMBERS_MAX: usize = 7;
const PROGRESS_MIN: Duration = Duration::from_millis(100);

pub(super) fn config(args: Args, given: &Given) -> Result<Config, ConfigError> {
    let mut warnings = Vec::new();

    if args.name.is_empty() {
        return Err(refuse("--name", "", "a member needs a name"));
    }
    let listen_client = listen_urls("--listen-client-urls", &args.listen_client_urls)?;
    let listen_peer = listen_urls("--listen-peer-urls", &args.listen_peer_urls)?;
    let listen_metrics = match args.listen_metrics_urls.as_str() {
        "" => Vec::new(),
        urls => listen_urls("--listen-metrics-urls", urls)?,
    };
    if given.contains_key("listen-client-urls") && !given.contains_key("advertise-client-urls") {
        return Err(refuse(
            "--listen-client-urls",
            &args.listen_client_urls,
            "--advertise-client-urls is required when --listen-client-urls is set explicitly",
        ));
    }
    let advertise_client = advertise_urls("--advertise-client-urls", &args.advertise_client_urls)?;
    let advertise_peer = advertise_urls("--initial-advertise-peer-urls", &args.initial_advertise_peer_urls)?;
    let founders = initial_cluster(&args, &advertise_peer)?;
    let joins = args.initial_cluster_state == ClusterState::Existing;
    let discovery = discovery(&args)?;
    if joins && founders.len() == 1 && discovery.is_none() {
        return Err(refuse(
            "--initial-cluster-state",
            "existing",
            "--initial-cluster must name the members that are there, too",
        ));
    }

    let (heartbeat, election) = (args.heartbeat_interval, args.election_timeout);
    if heartbeat <= 0 {
        return Err(refuse("--heartbeat-interval", heartbeat, "must be at least 1 (milliseconds)"));
    }
    if election <= 0 || election > ELECTION_MAX_MILLIS {
        return Err(refuse("--election-timeout", election, "must be between 1 and 50000 (milliseconds)"));
    }
    if heartbeat.saturating_mul(5) > election {
        let remedy = format!(
            "must be at least 5 times --heartbeat-interval={heartbeat}; raise it to {}",
            heartbeat.saturating_mul(5)
        );
        return Err(refuse("--election-timeout", election, &remedy));
    }
    if args.snapshot_count == 0 {
        return Err(refuse("--snapshot-count", 0, "must be at least 1"));
    }

    let quota = match args.quota_backend_bytes {
        0 => Quota::Bytes(QUOTA_DEFAULT_BYTES),
        bytes => u64::try_from(bytes).map_or(Quota::Unlimited, Quota::Bytes),
    };
    if let Quota::Bytes(bytes) = quota
        && bytes > QUOTA_ADVISED_BYTES
    {
        warnings.push(format!("--quota-backend-bytes={bytes} exceeds the advised 8 GiB"));
    }
    if args.max_txn_ops == 0 {
        return Err(refuse("--max-txn-ops", 0, "must be at least 1"));
    }
    if args.max_request_bytes == 0 || args.max_request_bytes > REQUEST_MAX_BYTES {
        return Err(refuse("--max-request-bytes", args.max_request_bytes, "must be between 1 and 536870912"));
    }
    if args.max_request_bytes > REQUEST_ADVISED_BYTES {
        warnings.push(format!("--max-request-bytes={} exceeds the advised 10 MiB", args.max_request_bytes));
    }
    if args.max_concurrent_streams == 0 {
        return Err(refuse("--max-concurrent-streams", 0, "must be at least 1"));
    }
    if args.max_client_connections == 0 {
        return Err(refuse("--max-client-connections", 0, "must be at least 1"));
    }
    for (flag, value) in [
        ("--grpc-keepalive-interval", args.grpc_keepalive_interval),
        ("--grpc-keepalive-timeout", args.grpc_keepalive_timeout),
    ] {
        if value < Duration::from_secs(1) {
            return Err(refuse(flag, humantime::format_duration(value), "must be at least 1s"));
        }
    }
    if args.watch_progress_notify_interval < PROGRESS_MIN {
        let value = humantime::format_duration(args.watch_progress_notify_interval);
        return Err(refuse("--watch-progress-notify-interval", value, "must be at least 100ms"));
    }

    let client_tls = super::tls::clients(&args.tls, &listen_client, &listen_metrics, &mut warnings)?;
    let peer_tls = super::tls::peers(&args.peer_tls, &args.tls, &listen_peer, &founders, &mut warnings)?;
    let auth = super::auth::auth(&args)?;
    let gates = Gates::parse(&args.feature_gates)?;
    let auto_compaction = auto_compaction(args.auto_compaction_mode, &args.auto_compaction_retention)?;
    let data_dir = args.data_dir.unwrap_or_else(|| format!("{}.etcd", args.name).into());
    let millis = |millis: i64| Duration::from_millis(millis.unsigned_abs());
    Ok(Config {
        data_dir,
        name: args.name,
        listen_client,
        client_tls,
        advertise_client,
        listen_peer,
        peer_tls,
        founders,
        discovery,
        joins,
        cluster_token: args.initial_cluster_token,
        strict_reconfig_check: args.strict_reconfig_check,
        max_learners: args.max_learners as usize,
        force_new_cluster: args.force_new_cluster,
        initial_corrupt_check: gates.initial_corrupt_check(args.initial_corrupt_check),
        corrupt_check_interval: Some(args.corrupt_check_time).filter(|time| !time.is_zero()),
        heartbeat_interval: millis(heartbeat),
        election_timeout: millis(election),
        snapshot_count: args.snapshot_count,
        quota,
        value_cache_bytes: usize::try_from(args.value_cache_bytes).unwrap_or(usize::MAX),
        limits: Limits {
            max_txn_ops: args.max_txn_ops as usize,
            max_request_bytes: args.max_request_bytes as usize,
            max_concurrent_streams: args.max_concurrent_streams,
            max_client_connections: args.max_client_connections as usize,
            drain: super::request_timeout(millis(election)),
            keepalive_interval: args.grpc_keepalive_interval,
            keepalive_timeout: args.grpc_keepalive_timeout,
            keepalive_min: Some(args.grpc_keepalive_min_time).filter(|time| !time.is_zero()),
        },
        auth,
        web: Web {
            gateway: args.enable_grpc_gateway,
            origins: Names::of(&args.cors),
            hosts: Names::of(&args.host_whitelist),
        },
        auto_compaction,
        watch_progress_notify_interval: args.watch_progress_notify_interval,
        slow_apply: args.warning_apply_duration,
        slow_request: args.warning_unary_request_duration,
        listen_metrics,
        metrics_extensive: args.metrics == MetricsLevel::Extensive,
        log: Log { level: args.log_level, format: args.log_format },
        warnings,
    })
}

/// The members of the first start; this one alone where none are given.
fn initial_cluster(args: &Args, advertise_peer: &[String]) -> Result<Vec<Founder>, ConfigError> {
    let sorted = |urls: &[String]| {
        let mut urls = urls.to_vec();
        urls.sort();
        urls
    };
    let Some(cluster) = &args.initial_cluster else {
        let own = Founder { name: args.name.clone(), peer_urls: sorted(advertise_peer) };
        return Ok(vec![own]);
    };
    let members = members("--initial-cluster", cluster, &args.name)?;
    let refuse = |remedy: &str| Err(refuse("--initial-cluster", cluster, remedy));
    let own = members.iter().find(|member| member.name == args.name).expect("it was looked for");
    let missing = |urls: &[String], from: &[String]| {
        let missing = urls.iter().filter(|url| !from.contains(url)).map(|url| format!("{}={url}", own.name));
        missing.collect::<Vec<_>>().join(",")
    };
    let (unadvertised, unlisted) =
        (missing(&own.peer_urls, advertise_peer), missing(advertise_peer, &own.peer_urls));
    if !unadvertised.is_empty() {
        let advertised = sorted(advertise_peer).join(",");
        return refuse(&format!(
            "--initial-cluster has {unadvertised} but missing from --initial-advertise-peer-urls={advertised}"
        ));
    }
    if !unlisted.is_empty() {
        return refuse(&format!(
            "--initial-advertise-peer-urls has {unlisted} but missing from --initial-cluster"
        ));
    }
    Ok(members)
}

/// Members written as NAME=URL; `own` is one of them.
pub(super) fn members(setting: &str, cluster: &str, own: &str) -> Result<Vec<Founder>, ConfigError> {
    let refuse = |remedy: &str| Err(refuse(setting, cluster, remedy));
    let mut members: Vec<Founder> = Vec::new();
    for member in cluster.split(',').map(str::trim).filter(|member| !member.is_empty()) {
        let Some((name, url)) = member.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            return refuse("write each member as NAME=URL");
        };
        let url = match ListenUrl::parse(url) {
            Ok(url) => url.to_string(),
            Err(remedy) => return refuse(&format!("{url}: {remedy}")),
        };
        if members.iter().any(|member| member.peer_urls.contains(&url)) {
            return refuse(&format!("initial cluster has duplicated url: {url}"));
        }
        match members.iter_mut().find(|member| member.name == name) {
            // A member with several URLs is named with each.
            Some(member) => member.peer_urls.push(url),
            None => members.push(Founder { name: name.to_owned(), peer_urls: vec![url] }),
        }
    }
    members.iter_mut().for_each(|member| member.peer_urls.sort());
    if members.len() > MEMBERS_MAX {
        return refuse(&format!("names {} members; at most {MEMBERS_MAX} make sense", members.len()));
    }
    if !members.iter().any(|member| member.name == own) {
        return refuse(&format!(
            "couldn't find local name \"{own}\" in the initial cluster configuration; add {own}=URL or change --name"
        ));
    }
    Ok(members)
}

/// Where members are found at the first start, if they are not named.
fn discovery(args: &Args) -> Result<Option<Discovery>, ConfigError> {
    let Some(domain) = args.discovery_srv.clone() else {
        let orphan = [
            ("--discovery-srv-name", args.discovery_srv_name.clone()),
            ("--discovery-srv-server", args.discovery_srv_server.map(|server| server.to_string())),
        ];
        return match orphan.into_iter().find_map(|(flag, value)| Some((flag, value?))) {
            Some((flag, value)) => Err(refuse(flag, value, "means nothing without --discovery-srv")),
            None => Ok(None),
        };
    };
    if args.initial_cluster.is_some() {
        return Err(refuse(
            "--discovery-srv",
            domain,
            "multiple discovery or bootstrap flags are set. Choose one of \"initial-cluster\" or \"discovery-srv\"",
        ));
    }
    if domain.trim_end_matches('.').is_empty() {
        return Err(refuse("--discovery-srv", domain, "must be a domain"));
    }
    Ok(Some(Discovery {
        domain,
        service_name: args.discovery_srv_name.clone(),
        server: args.discovery_srv_server,
    }))
}

fn auto_compaction(mode: CompactionMode, retention: &str) -> Result<Option<AutoCompaction>, ConfigError> {
    let refuse = |remedy| Err(refuse("--auto-compaction-retention", retention, remedy));
    match (mode, retention.parse::<i64>()) {
        (_, Ok(0)) => Ok(None),
        (_, Ok(..0)) => refuse("must not be negative; 0 keeps all history"),
        (CompactionMode::Revision, Ok(keep)) => Ok(Some(AutoCompaction::Revisions(keep))),
        (CompactionMode::Revision, Err(_)) => refuse("must be a number of revisions"),
        (CompactionMode::Periodic, Ok(hours)) => {
            let seconds = hours.unsigned_abs().saturating_mul(3600);
            Ok(Some(AutoCompaction::Periodic(Duration::from_secs(seconds))))
        }
        (CompactionMode::Periodic, Err(_)) => match humantime::parse_duration(retention) {
            Ok(Duration::ZERO) => Ok(None),
            Ok(keep) if keep < Duration::from_secs(1) => refuse("must be at least 1s; 0 keeps all history"),
            Ok(keep) => Ok(Some(AutoCompaction::Periodic(keep))),
            Err(_) => refuse("must be a number of hours or a duration like 10m or 72h"),
        },
    }
}

fn listen_urls(flag: &str, text: &str) -> Result<Vec<ListenUrl>, ConfigError> {
    let urls: Result<Vec<_>, _> =
        split(text).map(|url| ListenUrl::parse(url).map_err(|remedy| refuse(flag, url, remedy))).collect();
    non_empty(flag, text, urls?)
}

fn advertise_urls(flag: &str, text: &str) -> Result<Vec<String>, ConfigError> {
    let mut urls = Vec::new();
    for url in split(text) {
        let parsed = ListenUrl::parse(url).map_err(|remedy| refuse(flag, url, remedy))?;
        if parsed.is_port_chosen_by_system() {
            return Err(refuse(flag, url, "port 0 can't be told to others; name the port"));
        }
        urls.push(parsed.to_string());
    }
    non_empty(flag, text, urls)
}

fn split(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|url| !url.is_empty())
}

fn non_empty<T>(flag: &str, text: &str, urls: Vec<T>) -> Result<Vec<T>, ConfigError> {
    if urls.is_empty() {
        return Err(refuse(flag, text, "needs at least one URL like http://localhost:2379"));
    }
    Ok(urls)
}

pub(super) fn refuse(setting: &str, value: impl ToString, remedy: &str) -> ConfigError {
    ConfigError::Refused { setting: setting.to_owned(), value: value.to_string(), remedy: remedy.to_owned() }
}
