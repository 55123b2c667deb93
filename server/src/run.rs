//! Assembly: which part gets which, and in what order they end.
//!
//! The only file that knows every part; nobody but `process` imports it.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
use etcfs_proto::etcfs::{
    command::{MemberAttributes, Request, request::Body},
    peer::errands_server::ErrandsServer,
};
use tokio::{sync::Semaphore, time};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};
use tonic::service::{Routes, interceptor::InterceptedService};

use crate::{
    apply::{op, succeeded},
    auth::{Jwt, JwtKeys},
    background::{Compactor, CorruptionCheck, Inconsistent, RoomKeeper, Strays, Versions},
    config::{AuthToken, Config, Founder, Quota},
    discovery,
    lease::lessor::Lessor,
    maintain::{Backups, Hash, Sizes},
    metrics::{Metrics, PeerReading, Readings},
    mvcc::StoreOptions,
    net::{self, Door, Gateway, Http, Listener, METHODS, Rpc, Rules, Web},
    propose::{Errands, Members, Proposer, ReadBarrier},
    raft::{self, Bootstrap, Dialer, InitialMember, MemberRules, Node, PeerService},
    service::{
        Access, Admission, Auth, Check, Cluster, Election, Errands as ErrandService, Headers, Health, Kv,
        Lease, Lock, Logins, Maintenance, Queues, Services, TokenKind, Tree, Watch,
    },
    storage::{DataDir, failpoint},
    tls::{Acceptor, Connector},
    version,
    watch::HubOptions,
};

/// Pause before something that must happen at the start is tried again.
const START_RETRY: Duration = Duration::from_millis(100);
/// Pause before the data is opened again on a full disk.
const NO_SPACE_RETRY: Duration = Duration::from_secs(1);
/// A sync of the log that takes longer is told, as etcd does: all writes wait for it.
const SLOW_SYNC: Duration = Duration::from_secs(1);
/// What is left of a lease longer than this is noted in the log so often, while nobody renews it.
const LEASE_CHECKPOINT_INTERVAL: Duration = Duration::from_secs(60);
/// Between two looks whether a new cluster has a version.
const VERSION_LOOK: Duration = Duration::from_millis(5);

/// What has to follow when [`run`] has come to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It was told to stop, or has been removed from its cluster.
    Nothing,
    /// The disk was too full for it to go on as it was. A start, best in a process that holds nothing
    /// of it, waits for room and makes what is missing from the log.
    StartAnew,
}

/// Serves until `shutdown` is cancelled; what was acknowledged is on disk.
pub async fn run(config: Config, shutdown: CancellationToken) -> anyhow::Result<Next> {
    tracing::info!(version = version::OWN, api = version::api(), name = config.name, "starting");
    config.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    raise_descriptor_limit();
    // Before the data is opened: a port that is taken should be told at once.
    let tls = config.client_tls.as_ref().map(Acceptor::new).transpose().context("TLS for clients")?;
    let peer_tls = config.peer_tls.as_ref().map(Acceptor::new).transpose().context("TLS for members")?;
    let clients = open_all("--listen-client-urls", &config.listen_client, tls.as_ref()).await?;
    drop(open_all("--listen-peer-urls", &config.listen_peer, peer_tls.as_ref()).await?);
    let plain = open_all("--listen-metrics-urls", &config.listen_metrics, tls.as_ref()).await?;

    let config = with_founders(config).await?;
    let tokens = tokens(&config.auth.token)?;
    let metrics = Arc::new(Metrics::new(METHODS, config.metrics_extensive));
    // A supervisor that has seen this process serve before goes on watching it.
    let is_ready = CancellationToken::new();
    let starting = is_ready.clone().drop_guard();
    tokio::spawn(feed_watchdog_at_start(is_ready));
    let node = start(&config, &metrics, &shutdown).await?;
    // Only now: a port that takes connections and gives no answer holds up its callers.
    let peers = match open_all("--listen-peer-urls", &config.listen_peer, peer_tls.as_ref()).await {
        Ok(peers) => peers,
        Err(error) => {
            node.shutdown().await;
            return Err(error);
        }
    };
    let ports = Ports { clients, peers, plain };
    let (removed, start_anew) = (node.removed(), node.start_anew());
    let ends = either(either(shutdown.clone(), removed.clone()), start_anew.clone());
    let served = serve(&config, &node, metrics, tokens, ports, starting, ends).await;
    // Last: applies what is committed, and flushes the image.
    node.shutdown().await;
    if removed.is_cancelled() {
        let dir = config.data_dir.display();
        tracing::error!(%dir, "the member has been permanently removed from the cluster; its data directory is of no more use");
    }
    served?;
    tracing::info!("stopped");
    if !start_anew.is_cancelled() || shutdown.is_cancelled() || removed.is_cancelled() {
        return Ok(Next::Nothing);
    }
    Ok(Next::StartAnew)
}

/// Opens the data and joins in, once the disk has room for that.
async fn start(config: &Config, metrics: &Metrics, shutdown: &CancellationToken) -> anyhow::Result<Node> {
    loop {
        match raft::start(raft_options(config, metrics)?).await {
            Err(error) if error.is_no_space() => {
                tracing::error!(%error, "the disk is full: waiting for room to start in");
                if shutdown.run_until_cancelled(time::sleep(NO_SPACE_RETRY)).await.is_none() {
                    return Err(error.into());
                }
            }
            started => return started.context("the server could not start"),
        }
    }
}

async fn serve(
    config: &Config,
    node: &Node,
    metrics: Arc<Metrics>,
    tokens: TokenKind,
    ports: Ports,
    starting: DropGuard,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let Ports { clients, peers, plain } = ports;
    let proposer = Proposer::new(node, config.request_timeout(), config.limits.max_request_bytes);
    let barrier = ReadBarrier::new(node, config.request_timeout());
    let errands = Errands::new(node, config.request_timeout());
    let members = Members::new(node, errands.clone(), config.request_timeout());
    let state = node.state();
    let hub = node.hub();
    let sizes = Sizes::new(state.store.clone(), node.engine(), node.image(), config.data_dir.clone());
    let lessor = Lessor::new(
        state.leases.clone(),
        proposer.clone(),
        barrier.clone(),
        metrics.lease_renewed.clone(),
        metrics.lease_expired.clone(),
        // A test does not wait for a minute.
        failpoint::time("lease-checkpoint-interval", LEASE_CHECKPOINT_INTERVAL),
    );
    let hash = Hash::new(state.store.clone());

    // Ends with `shutdown`, in no order: each only asks things of the node.
    let tasks = TaskTracker::new();
    // The members' port goes on for a while after all else: a member that ends hands its
    // leadership over first.
    let (peers_end, peer_tasks) = (CancellationToken::new(), TaskTracker::new());
    let peer_service = PeerService::new(node, peers_end.clone());
    let errand_service = ErrandService {
        lessor: lessor.clone(),
        barrier: barrier.clone(),
        members: members.clone(),
        hash: hash.clone(),
        auth: state.auth.clone(),
    };
    let errand_service = InterceptedService::new(ErrandsServer::new(errand_service), node.guard());
    let routes =
        Routes::new(peer_service.transport()).add_service(peer_service.roster()).add_service(errand_service);
    let peer_slots = Arc::new(Semaphore::new(config.peer_limits().max_client_connections));
    for listener in peers {
        let address = listener.address().context("a listener lost its address")?;
        let secure = listener.is_secure();
        tracing::info!(%address, secure, "serving peer traffic");
        let (door, slots) = (Door::Peers(routes.clone()), peer_slots.clone());
        let limits = config.peer_limits();
        peer_tasks.spawn(net::serve(listener, door, limits, slots, metrics.clone(), peers_end.clone()));
    }
    tasks.spawn(lessor.clone().run(members.watch(), shutdown.clone()));
    let versions = Versions { members: members.clone(), proposer: proposer.clone() };
    tasks.spawn(versions.run(shutdown.clone()));
    let keeper = RoomKeeper {
        quota: config.quota,
        sizes: sizes.clone(),
        alarms: state.alarms.clone(),
        members: members.clone(),
        proposer: proposer.clone(),
    };
    tasks.spawn(keeper.run(shutdown.clone()));

    let strays =
        Strays { alarms: state.alarms.clone(), members: members.clone(), proposer: proposer.clone() };
    tasks.spawn(strays.run(shutdown.clone()));

    let headers = Headers::new(members.clone());
    let admission = Admission {
        quota: config.quota,
        sizes: sizes.clone(),
        members: members.clone(),
        proposer: proposer.clone(),
    };
    let access = Access { auth: state.auth.clone(), leases: state.leases.clone() };
    let logins = Logins::new(
        state.auth.clone(),
        proposer.clone(),
        barrier.clone(),
        members.clone(),
        tokens,
        config.auth.bcrypt_cost,
        config.auth.password_min_bytes,
    );
    tasks.spawn(logins.clone().sweep(shutdown.clone()));
    let (changed, changes) = tokio::sync::watch::channel(());
    state.auth.follow(Box::new(move || {
        changed.send_replace(());
    }));
    let kv = Kv {
        store: state.store.clone(),
        alarms: state.alarms.clone(),
        proposer: proposer.clone(),
        barrier: barrier.clone(),
        headers: headers.clone(),
        admission: admission.clone(),
        access: access.clone(),
        max_txn_ops: config.limits.max_txn_ops,
    };
    let watch = Watch { hub: hub.clone(), headers: headers.clone(), access: access.clone(), changes };
    tasks.spawn(watch.clone().tell_progress(config.watch_progress_notify_interval, shutdown.clone()));
    let lease = Lease {
        store: state.store.clone(),
        lessor,
        proposer: proposer.clone(),
        barrier: barrier.clone(),
        errands: errands.clone(),
        timeout: config.request_timeout(),
        headers: headers.clone(),
        admission,
        access: access.clone(),
        min_ttl: config.min_lease_ttl(),
    };
    let queues = Queues { kv: kv.clone(), lease: lease.clone(), hub: hub.clone() };
    let services = Services {
        watch,
        lease,
        lock: Lock { queues: queues.clone() },
        election: Election { queues, headers: headers.clone() },
        cluster: Cluster { members: members.clone(), barrier: barrier.clone(), headers: headers.clone() },
        maintenance: Maintenance {
            members: members.clone(),
            alarms: state.alarms.clone(),
            sizes: sizes.clone(),
            hash: hash.clone(),
            backups: Backups::new(
                node.image(),
                config.data_dir.join("member/outgoing"),
                metrics.snapshot_seconds.clone(),
            ),
            proposer: proposer.clone(),
            headers: headers.clone(),
            access: access.clone(),
            quota: config.quota,
        },
        auth: Auth {
            store: state.store.clone(),
            headers,
            access,
            logins,
            proposer: proposer.clone(),
            barrier: barrier.clone(),
        },
        tree: Tree { kv: kv.clone(), max_request_bytes: config.limits.max_request_bytes },
        election_timeout: config.election_timeout,
        health: Health { kv: kv.clone(), alarms: state.alarms.clone(), members: members.clone() },
        kv,
    };
    describe(&metrics, node, &members, &sizes, &proposer, &barrier, config);

    let check = CorruptionCheck {
        hash: hash.clone(),
        auth: state.auth.clone(),
        members: members.clone(),
        errands: errands.clone(),
        proposer: proposer.clone(),
        alarms: state.alarms.clone(),
    };
    let begun = async {
        publish(config, &members, &proposer, &barrier).await;
        if config.initial_corrupt_check {
            check.at_start().await?;
        }
        Ok::<_, Inconsistent>(())
    };
    let begun = shutdown.run_until_cancelled(begun).await.transpose();
    if matches!(begun, Ok(Some(()))) {
        if let Some(rule) = config.auto_compaction {
            let (store, members, proposer) = (state.store.clone(), members.clone(), proposer.clone());
            tasks.spawn(Compactor { rule, store, members, proposer }.run(shutdown.clone()));
        }
        if let Some(interval) = config.corrupt_check_interval {
            tasks.spawn(check.run(interval, shutdown.clone()));
        }
        let health = services.health.clone();
        let http = Arc::new(Http::new(health.clone(), metrics.clone()));
        let rpc = Arc::new(Rpc::new(
            services,
            metrics.clone(),
            &config.limits,
            shutdown.clone(),
            config.slow_request,
        ));
        let gateway = config.web.gateway.then(|| {
            let gateway = Gateway::new(rpc.clone(), config.limits.max_receive_bytes());
            Arc::new(gateway)
        });
        let slots = Arc::new(Semaphore::new(config.limits.max_client_connections));
        tracing::info!("ready to serve client requests");
        for listener in clients {
            let address = listener.address().context("a listener lost its address")?;
            if listener.is_secure() {
                tracing::info!(%address, "serving client traffic securely");
            } else {
                tracing::info!(%address, "serving client traffic insecurely; this is strongly discouraged!");
            }
            let rules = Rules {
                origins: config.web.origins.clone(),
                hosts: config.web.hosts.clone(),
                // A page that has a name point here has no certificate for it.
                is_loopback: address.ip().is_loopback() && !listener.is_secure(),
            };
            let web = Arc::new(Web::new(rules, http.clone(), gateway.clone()));
            let door = Door::Clients(rpc.clone(), web);
            let slots = slots.clone();
            tasks.spawn(net::serve(listener, door, config.limits, slots, metrics.clone(), shutdown.clone()));
        }
        for listener in plain {
            let address = listener.address().context("a listener lost its address")?;
            tracing::info!(%address, "serving metrics and health");
            let (door, slots) = (Door::Metrics(http.clone()), slots.clone());
            tasks.spawn(net::serve(listener, door, config.limits, slots, metrics.clone(), shutdown.clone()));
        }
        notify_supervisor(&[sd_notify::NotifyState::Ready]);
        drop(starting);
        if let Some(interval) = sd_notify::watchdog_enabled() {
            tasks.spawn(feed_watchdog(interval, health, shutdown.clone()));
        }
        shutdown.cancelled().await;
        if !node.start_anew().is_cancelled() {
            notify_supervisor(&[sd_notify::NotifyState::Stopping]);
        }
    }
    // Whatever it was that ended it.
    shutdown.cancel();
    node.hand_over().await;
    // Watch streams end only when told to; the other calls finish by themselves.
    hub.shutdown();
    tasks.close();
    tasks.wait().await;
    peers_end.cancel();
    peer_tasks.close();
    peer_tasks.wait().await;
    begun?;
    Ok(())
}

/// Finds out who founds the cluster, where that is not in the settings. A member
/// that has been started before keeps who it is: it need not wait for DNS.
async fn with_founders(mut config: Config) -> anyhow::Result<Config> {
    let Some(discovery) = &config.discovery else { return Ok(config) };
    let own = config.founders.iter().find(|founder| founder.name == config.name);
    let advertised = own.map(|own| own.peer_urls.as_slice()).unwrap_or_default();
    match discovery::initial_cluster(discovery, &config.name, advertised).await {
        Ok(members) => config.found(&members)?,
        Err(error) if DataDir::has_identity(&config.data_dir) => {
            tracing::warn!(%error, "the members of the first start are not known; they are not needed any more");
        }
        Err(error) => return Err(error).context("--discovery-srv"),
    }
    Ok(config)
}

/// Reads the keys, if tokens are signed with any.
fn tokens(settings: &AuthToken) -> anyhow::Result<TokenKind> {
    let (method, public, private, ttl) = match settings {
        AuthToken::Simple { ttl } => return Ok(TokenKind::Simple { ttl: *ttl }),
        AuthToken::Jwt { method, public, private, ttl } => (method, public, private, *ttl),
    };
    let read = |path: &Option<PathBuf>| -> anyhow::Result<Option<Vec<u8>>> {
        let Some(path) = path else { return Ok(None) };
        let key =
            std::fs::read(path).with_context(|| format!("--auth-token: can't read {}", path.display()))?;
        Ok(Some(key))
    };
    let (public, private) = (read(public)?, read(private)?);
    let keys = JwtKeys { method, private: private.as_deref(), public: public.as_deref(), ttl };
    let jwt = Jwt::new(&keys).map_err(|reason| anyhow::anyhow!("--auth-token: {reason}"))?;
    Ok(TokenKind::Jwt(Arc::new(jwt)))
}

/// Cancelled once one of the two is.
fn either(one: CancellationToken, other: CancellationToken) -> CancellationToken {
    let either = one.child_token();
    let cancelled = either.clone();
    tokio::spawn(async move {
        if cancelled.run_until_cancelled(other.cancelled()).await.is_some() {
            cancelled.cancel();
        }
    });
    either
}

/// What is open before anything is served.
struct Ports {
    clients: Vec<Listener>,
    peers: Vec<Listener>,
    /// For the plain endpoints alone.
    plain: Vec<Listener>,
}

async fn open_all(
    flag: &str,
    urls: &[crate::config::ListenUrl],
    tls: Option<&Acceptor>,
) -> anyhow::Result<Vec<Listener>> {
    let mut listeners = Vec::new();
    for url in urls {
        let listener = Listener::open(url, tls).await.with_context(|| {
            format!("{flag}={url}: can't listen there; end what uses the port or name another")
        })?;
        listeners.push(listener);
    }
    Ok(listeners)
}

/// Catches up with the leader, and tells the cluster this member's name and
/// client URLs, where it says otherwise.
async fn publish(config: &Config, members: &Members, proposer: &Proposer, barrier: &ReadBarrier) {
    loop {
        if let Err(error) = barrier.wait().await {
            tracing::info!(%error, "waiting for a leader and its log");
            continue;
        }
        let own = members.list().into_iter().find(|member| member.id == members.member_id());
        let known = own.is_some_and(|member| {
            member.name == config.name && member.client_urls == config.advertise_client
        });
        let body = if !known {
            Body::MemberAttributes(MemberAttributes {
                member_id: members.member_id(),
                name: config.name.clone(),
                client_urls: config.advertise_client.clone(),
            })
        } else if members.cluster_version().is_empty() {
            // The leader is about to decide it.
            time::sleep(VERSION_LOOK).await;
            continue;
        } else {
            // Harnesses wait for etcd's words.
            tracing::info!(name = config.name, "published local member to cluster through raft");
            return;
        };
        if let Err(error) = proposer.write(Request { body: Some(body) }).await {
            tracing::debug!(%error, "could not publish this member yet");
            time::sleep(START_RETRY).await;
        }
    }
}

fn describe(
    metrics: &Metrics,
    node: &Node,
    members: &Members,
    sizes: &Sizes,
    proposer: &Proposer,
    barrier: &ReadBarrier,
    config: &Config,
) {
    let quota = match config.quota {
        Quota::Bytes(bytes) => bytes,
        Quota::Unlimited => 0,
    };
    metrics.describe(members.member_id(), version::api(), quota);
    let (state, hub, members, sizes) = (node.state(), node.hub(), members.clone(), sizes.clone());
    let (image, proposer, barrier, peers) = (node.image(), proposer.clone(), barrier.clone(), node.clone());
    metrics.read_from(Box::new(move || {
        let status = members.status();
        let watch = hub.metrics();
        Readings {
            has_leader: status.leader.is_some(),
            is_leader: status.leader == Some(members.member_id()),
            is_learner: status.is_learner,
            leader_changes: members.leader_changes(),
            committed_index: status.committed_index,
            applied_index: status.applied_index,
            proposals_pending: proposer.pending() as u64,
            proposals_failed: proposer.failed(),
            db_size_bytes: sizes.allocated().unwrap_or(0),
            db_size_in_use_bytes: sizes.in_use(),
            keys: state.store.keys(),
            revision: state.store.revision(),
            compact_revision: state.store.compact_revision(),
            watchers: watch.watchers,
            watch_streams: watch.streams,
            slow_watchers: watch.slow_watchers,
            pending_events: watch.pending_events,
            events: watch.events_total,
            leases: state.leases.ids().len() as u64,
            image_lag_bytes: image.lag_bytes(),
            cluster_version: members.cluster_version(),
            peers: peers.peers().into_iter().map(peer_reading).collect(),
            slow_applies: peers.slow_applies(),
            slow_read_indexes: barrier.slow(),
            read_indexes_failed: barrier.failed(),
        }
    }));
}

fn peer_reading(peer: raft::PeerReading) -> PeerReading {
    let raft::PeerReading { member_id, up, losses, failures, heartbeat_failures, sent_bytes, received_bytes } =
        peer;
    let id = format!("{member_id:x}");
    PeerReading { id, up, losses, failures, heartbeat_failures, sent_bytes, received_bytes }
}

/// As many open files as the system lets us have: each client takes one.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::debug!(%error, "could not raise the limit of open files");
    }
}

/// Tells systemd, twice in its time, that this member answers: it is started anew otherwise.
/// What a member without the others can answer is asked, as no restart brings them back.
async fn feed_watchdog(interval: Duration, health: Health, shutdown: CancellationToken) {
    let mut ticks = time::interval(interval / 2);
    while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
        match health.run(Check::SerializableRead).await {
            Ok(()) => notify_supervisor(&[sd_notify::NotifyState::Watchdog]),
            Err(reason) => tracing::warn!(reason, "not well: the watchdog is not fed"),
        }
    }
}

/// Tells that it lives until it can be asked how it is.
async fn feed_watchdog_at_start(is_ready: CancellationToken) {
    let Some(interval) = sd_notify::watchdog_enabled() else { return };
    let mut ticks = time::interval(interval / 2);
    while is_ready.run_until_cancelled(ticks.tick()).await.is_some() {
        notify_supervisor(&[sd_notify::NotifyState::Watchdog]);
    }
}

/// systemd, where it is there and wants to know.
fn notify_supervisor(state: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "could not notify the supervisor");
    }
}

fn founder(founder: &Founder) -> InitialMember {
    InitialMember { name: founder.name.clone(), peer_urls: founder.peer_urls.clone() }
}

fn raft_options(config: &Config, metrics: &Metrics) -> anyhow::Result<raft::RaftOptions> {
    let fsync = metrics.wal_fsync_seconds.clone();
    let commit = metrics.image_commit_seconds.clone();
    let round_trip = metrics.peer_round_trip_seconds.clone();
    let applies = metrics.applies.clone();
    let tls = config.peer_tls.as_ref().map(Connector::new).transpose().context("TLS for members")?;
    Ok(raft::RaftOptions {
        host: raft::Host::default(),
        data_dir: config.data_dir.clone(),
        bootstrap: Bootstrap {
            name: config.name.clone(),
            members: config.founders.iter().map(founder).collect(),
            token: config.cluster_token.clone(),
            existing: config.joins,
        },
        dialer: Dialer::new(config.election_timeout, tls),
        rules: MemberRules { strict: config.strict_reconfig_check, max_learners: config.max_learners },
        force_new_cluster: config.force_new_cluster,
        version: version::api(),
        heartbeat_interval: config.heartbeat_interval,
        election_timeout: config.election_timeout,
        snapshot_count: config.snapshot_count,
        store: StoreOptions { value_cache_bytes: config.value_cache_bytes as u64 },
        hub: HubOptions { fragment_bytes: config.limits.max_receive_bytes(), ..HubOptions::default() },
        on_fsync: Box::new(move |time| {
            fsync.observe(time.as_secs_f64());
            if time >= SLOW_SYNC {
                tracing::warn!(took = ?time, expected = ?SLOW_SYNC, "slow fdatasync");
            }
        }),
        on_round_trip: Box::new(move |member, time| {
            round_trip.with_label_values(&[format!("{member:x}")]).observe(time.as_secs_f64());
        }),
        on_image_commit: Box::new(move |time| commit.observe(time.as_secs_f64())),
        on_apply: Box::new(move |requests, outcomes, took| {
            let requests = requests.iter().zip(outcomes);
            applies.applied(requests.map(|(request, outcome)| (op(request), succeeded(outcome))), took);
        }),
        slow_apply: config.slow_apply,
    })
}
