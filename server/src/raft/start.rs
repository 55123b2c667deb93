//! From a data directory to a running member.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use openraft::{Config, Raft, ServerState, SnapshotPolicy};
use tokio::{sync::watch, time};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Inner, Node,
    bootstrap::{Bootstrap, BootstrapError},
    contact::Contact,
    dial::Dialer,
    host::Host,
    links::{Links, RoundTripFn},
    log::LogStore,
    membership::{self, MemberRules},
    network::Network,
    outcomes::Outcomes,
    removal, retention,
    snapshots::Snapshots,
    state_machine::{ApplyFn, StateMachine},
    status::{self, MemberStatus},
};
use crate::{
    apply::{Machine, State},
    mvcc::StoreOptions,
    storage::{
        DataDir, DataDirError, DiskEngine, Engine, Image, ImageHooks, ImageOptions, SnapshotFile,
        StorageError, Wal, WalError, WalOptions, Written,
    },
    version::{Incompatible, Version},
    watch::{Hub, HubOptions},
};

/// How a member is to run.
pub struct RaftOptions {
    pub host: Host,
    pub data_dir: PathBuf,
    pub bootstrap: Bootstrap,
    pub dialer: Dialer,
    pub rules: MemberRules,
    /// Makes this member a cluster of its own, with the data it has.
    pub force_new_cluster: bool,
    /// The API's version that this member speaks.
    pub version: &'static str,
    pub heartbeat_interval: Duration,
    pub election_timeout: Duration,
    /// Applied entries between two snapshots.
    pub snapshot_count: u64,
    pub store: StoreOptions,
    pub hub: HubOptions,
    /// Told how long each sync of the log took.
    pub on_fsync: Box<dyn Fn(Duration) + Send + Sync>,
    /// Told how long each answer to a heartbeat took.
    pub on_round_trip: RoundTripFn,
    /// Told of the requests of each entry that has been applied, what came of them, and how long it took.
    pub on_apply: ApplyFn,
    /// An entry that takes longer to apply is logged.
    pub slow_apply: Duration,
    /// Told how long each write and flush of the image took.
    pub on_image_commit: Box<dyn Fn(Duration) + Send>,
}

impl fmt::Debug for RaftOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RaftOptions").field("data_dir", &self.data_dir).finish_non_exhaustive()
    }
}

/// Why a member did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
    #[error(transparent)]
    Version(#[from] Incompatible),
    #[error(transparent)]
    Wal(#[from] WalError),
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(
        "the image can't be read, and without a snapshot that reaches log entry {purged} it can't be rebuilt: \
         restore the data directory from a backup"
    )]
    Lost { purged: u64 },
    #[error("{setting} is refused: {reason}")]
    Setting { setting: &'static str, reason: String },
    #[error("raft did not start: {0}")]
    Raft(String),
    #[error("no leader within {0:?}")]
    NoLeader(Duration),
}

impl StartError {
    /// True where freeing space on the disk would cure it.
    pub fn is_no_space(&self) -> bool {
        let mut error: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(found) = error {
            let io = found.downcast_ref::<std::io::Error>();
            if io.is_some_and(|io| io.kind() == std::io::ErrorKind::StorageFull) {
                return true;
            }
            error = found.source();
        }
        false
    }
}

/// How often the member looks whether openraft has ended by itself.
const END_LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// Pause between two chunks of deleted rows: others use the state machine too.
const SCRUB_PAUSE: Duration = Duration::from_millis(10);
/// A member alone elects itself within some syncs of the log; a disk that takes longer is broken.
const ALONE_TIMEOUT: Duration = Duration::from_secs(60);
/// Messages of callers that may wait for openraft's core.
const API_QUEUE: u64 = 4096;

/// Opens what lies in the data directory, replays the log, and joins in. A sole
/// member leads when this returns; others find each other once they are served.
pub async fn start(options: RaftOptions) -> Result<Node, StartError> {
    let mut data_dir = DataDir::open(&options.data_dir)?;
    let own_version = Version::own();
    let identity = match data_dir.identity() {
        Some(identity) => identity,
        None => {
            let identity = options.bootstrap.identity(&options.dialer, own_version).await?;
            data_dir.set_identity(identity)?;
            identity
        }
    };
    tracing::info!(
        member = format!("{:x}", identity.member_id),
        cluster = format!("{:x}", identity.cluster_id),
        "this member's ids"
    );

    let (engine, mut machine, state) = open_image(&data_dir, &options.host, &options.store)?;
    machine.set_cluster_id(identity.cluster_id);
    let cluster_version = state.cluster.version();
    own_version.check(&cluster_version)?;
    if !cluster_version.is_empty() {
        tracing::info!(cluster_version, "enabled capabilities for version");
    }
    let host = options.host;
    let die = host.die.clone();
    let wal_options = WalOptions {
        segment_bytes: host.segment_bytes,
        disk: host.disk.clone(),
        threads: host.threads.clone(),
        on_sync: options.on_fsync.into(),
        // After a failed sync the kernel may have dropped the pages: trying
        // again could succeed without the data being there.
        on_failure: Arc::new(move |_| die()),
        ..WalOptions::default()
    };
    let wal = Wal::open(&data_dir.wal(), wal_options)?;
    let applied = machine.meta().applied.map(|id| id.index);
    if options.force_new_cluster {
        let urls = &options.bootstrap.own().peer_urls;
        membership::force_alone(&wal, machine.meta(), identity.member_id, urls).await?;
    }
    check_reach(&wal, applied, &data_dir.snapshots())?;

    let store = state.store.clone();
    let image_dir = data_dir.image();
    let die = host.die.clone();
    let start_anew = CancellationToken::new();
    let unwritten = start_anew.clone();
    let hooks = ImageHooks {
        on_written: Box::new(move |written| store.written(written.revision)),
        on_commit: options.on_image_commit,
        on_failure: Box::new(move |error| {
            // What it can't write it may not read either; the log and the newest snapshot have it all.
            if let Err(error) = DiskEngine::distrust(&image_dir, error) {
                tracing::error!(%error, "cannot mark the image as broken");
            }
            match error {
                StorageError::Unwritten { .. } => unwritten.cancel(),
                _ => die(),
            }
        }),
        ..ImageHooks::default()
    };
    let written = Written { applied_index: applied.unwrap_or(0), revision: machine.meta().revision };
    let image_options = ImageOptions { threads: host.threads.clone(), ..ImageOptions::default() };
    let image = Image::start(engine.clone(), written, image_options, hooks)?;
    let hub = Hub::new(state.store.clone(), HubOptions { threads: host.threads.clone(), ..options.hub });
    let snapshots = Snapshots::new(data_dir.snapshots(), image.clone());
    let scrub = Arc::new(tokio::sync::Notify::new());
    let scrub_waits = machine.scrub_pending();
    let outcomes = Outcomes::new();
    let slow_applies = Arc::new(AtomicU64::new(0));
    let state_machine = StateMachine {
        machine,
        outcomes: outcomes.clone(),
        engine: engine.clone(),
        image: image.clone(),
        wal: Some(wal.clone()),
        hub: hub.clone(),
        snapshots: snapshots.clone(),
        slow: slow_applies.clone(),
        slow_from: options.slow_apply,
        scrub: scrub.clone(),
        on_apply: options.on_apply,
        start_anew: start_anew.clone(),
    };
    let raft_error = |error: &dyn fmt::Display| StartError::Raft(error.to_string());
    let post = host.threads.post().map_err(|error| raft_error(&error))?;
    let log = LogStore::new(wal.clone(), Some(image.clone()), post);
    let config = config(options.heartbeat_interval, options.election_timeout)?;
    let shutdown = CancellationToken::new();
    let removed = CancellationToken::new();
    let on_removed = Box::new({
        let removed = removed.clone();
        move || removed.cancel()
    });
    let links = Links::new(identity, options.dialer.clone(), on_removed, options.on_round_trip);
    let network = Network { links: links.clone() };
    let raft = Raft::new(identity.member_id, Arc::new(config), network, log, state_machine)
        .await
        .map_err(|error| raft_error(&error))?;

    let tasks = TaskTracker::new();
    let member = MemberStatus { member_id: identity.member_id, ..MemberStatus::default() };
    let (told, member_status) = watch::channel(member);
    let leader_changes = Arc::new(AtomicU64::new(0));
    let contact = Contact::new(options.election_timeout);
    tasks.spawn(status::follow(
        raft.server_metrics(),
        raft.metrics(),
        contact.clone(),
        told,
        leader_changes.clone(),
        options.heartbeat_interval,
        shutdown.clone(),
    ));
    let metrics = raft.metrics();
    let inner = Inner {
        identity,
        version: options.version,
        rules: options.rules,
        token: options.bootstrap.token.clone(),
        changing: tokio::sync::Mutex::default(),
        raft,
        metrics,
        contact,
        election_timeout: options.election_timeout,
        links,
        outcomes,
        removed,
        start_anew,
        member_status,
        leader_changes,
        slow_applies,
        host,
        wal,
        engine,
        image,
        state,
        hub,
        snapshots: snapshots.clone(),
        shutdown: shutdown.clone(),
        tasks: tasks.clone(),
        _data_dir: data_dir,
    };
    let node = Node { inner: Arc::new(inner) };
    tasks.spawn(watch_for_an_end(node.clone()));
    tasks.spawn(removal::watch(node.clone(), options.bootstrap.clone(), options.dialer.clone()));
    tasks.spawn(membership::raise_voters(node.clone()));
    tasks.spawn(scrub_when_told(node.clone(), scrub.clone()));
    tasks.spawn(retention::run(node.clone(), snapshots, options.snapshot_count, shutdown));
    if scrub_waits {
        scrub.notify_one();
    }

    if let Err(error) = take_part(&node, &options.bootstrap).await {
        node.shutdown().await;
        return Err(error);
    }
    Ok(node)
}

/// Opens the rows and reads the state from them. An image that can't be read is
/// set aside: the log and the newest snapshot hold all that was in it.
fn open_image(
    data_dir: &DataDir,
    host: &Host,
    options: &StoreOptions,
) -> Result<(Arc<dyn Engine>, Machine, State), StartError> {
    let open = || {
        let engine = (host.open_engine)(&data_dir.image())?;
        let (machine, state) = Machine::open(engine.clone(), options.clone())?;
        Ok::<_, StorageError>((engine, machine, state))
    };
    match open() {
        Ok(opened) => Ok(opened),
        Err(error) if error.is_no_space() => Err(error.into()),
        Err(StorageError::Unwritten { .. }) => {
            tracing::warn!(
                "the image lacks what a full disk did not take: it is rebuilt from snapshot and log"
            );
            data_dir.remove_image()?;
            Ok(open()?)
        }
        Err(error) => {
            let aside = data_dir.set_image_aside()?;
            let aside = aside.display();
            tracing::error!(%error, %aside, "the image can't be read: set aside, and rebuilt from snapshot and log");
            Ok(open()?)
        }
    }
}

/// Refuses to go on with a state that the log can't be joined to.
fn check_reach(wal: &Wal, applied: Option<u64>, snapshots: &Path) -> Result<(), StartError> {
    let Some(purged) = wal.purged().map(|id| id.index) else { return Ok(()) };
    if applied.is_some_and(|applied| applied >= purged) {
        return Ok(());
    }
    match SnapshotFile::newest(snapshots)? {
        Some(snapshot) if snapshot.index() >= purged => Ok(()),
        _ => Err(StartError::Lost { purged }),
    }
}

/// Times in openraft's terms. There a follower waits for the lease of its leader
/// and then for a time drawn between the two timeouts; etcd's draws between one
/// and two election timeouts. Ours waits for one and up to four tenths more: so
/// the first to wake finds the others asleep, and the election is short.
fn config(heartbeat: Duration, election: Duration) -> Result<Config, StartError> {
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let config = Config {
        cluster_name: "etcfs".into(),
        heartbeat_interval: millis(heartbeat),
        election_timeout_min: millis(election.mul_f64(0.3)),
        election_timeout_max: millis(election.mul_f64(0.7)),
        // A leader that hears nobody goes quiet for a while, lest it hold up those who hear it.
        quorum_loss_probe_interval: Some(2 * millis(election)),
        // Snapshots and purging are `retention`'s.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        replication_lag_threshold: u64::MAX,
        api_channel_size: Some(API_QUEUE),
        enable_pre_vote: Some(true),
        // A former leader may not go on as one: what is committed is known only
        // once an entry of its own new term is.
        enable_leader_restore: Some(false),
        ..Config::default()
    };
    config.validate().map_err(|error| StartError::Setting {
        setting: "heartbeat or election timeout",
        reason: error.to_string(),
    })
}

/// Makes fresh founders a cluster, and a sole voter the leader at once.
async fn take_part(node: &Node, bootstrap: &Bootstrap) -> Result<(), StartError> {
    let raft = &node.inner.raft;
    let own = node.inner.identity.member_id;
    let raft_error = |error: &dyn fmt::Display| StartError::Raft(error.to_string());
    if !raft.is_initialized().await.map_err(|error| raft_error(&error))? {
        let (identity, founders) = bootstrap.founders();
        // Who joins waits for the leader to bring its log: so does one that was
        // started with other settings before.
        if bootstrap.existing || identity != node.inner.identity {
            return Ok(());
        }
        let alone = founders.len() == 1;
        raft.initialize(founders).await.map_err(|error| raft_error(&error))?;
        if !alone {
            return Ok(());
        }
    } else if raft.voter_ids().eq([own]) {
        // Nobody else could win, so there is no timeout to wait for.
        raft.trigger().elect(false).await.map_err(|error| raft_error(&error))?;
    } else {
        return Ok(());
    }
    let wait = raft.wait(Some(ALONE_TIMEOUT));
    let ready = wait.metrics(
        |metrics| {
            metrics.state == ServerState::Leader
                && metrics.current_leader == Some(metrics.id)
                && metrics.last_applied.is_some_and(|id| id.leader_id.term == metrics.current_term)
        },
        "the sole member leads and has applied its log",
    );
    ready.await.map(drop).map_err(|error| match error {
        openraft::metrics::WaitError::Timeout(..) => StartError::NoLeader(ALONE_TIMEOUT),
        openraft::metrics::WaitError::ShuttingDown => raft_error(&error),
    })
}

/// openraft that has failed stays failed: the member starts anew, from its disk.
async fn watch_for_an_end(node: Node) {
    let mut ticks = time::interval(END_LOOK_INTERVAL);
    while node.inner.shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
        let failed = node.fatal();
        if let Some(error) = failed
            && !node.inner.shutdown.is_cancelled()
        {
            if node.inner.start_anew.is_cancelled() {
                tracing::error!(error, "raft has failed for want of room on the disk");
                return;
            }
            tracing::error!(error, "raft has failed; ending the process");
            (node.inner.host.die)();
            return;
        }
    }
}

/// Deletes compacted rows in small chunks between other work.
async fn scrub_when_told(node: Node, told: Arc<tokio::sync::Notify>) {
    let work = async {
        loop {
            told.notified().await;
            loop {
                let chunk = node.inner.raft.with_state_machine(|machine| {
                    let more = machine.scrub();
                    Box::pin(async move { more })
                });
                match chunk.await {
                    Ok(true) => time::sleep(SCRUB_PAUSE).await,
                    Ok(false) => break,
                    Err(_stopped) => return,
                }
            }
        }
    };
    // Cut short, it goes on after the next start.
    let (None | Some(())) = node.inner.shutdown.run_until_cancelled(work).await;
}
