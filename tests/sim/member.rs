//! One member: what stays of it over its lives, and one life.

use std::{
    collections::BTreeMap,
    future::pending,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use etcfs_proto::etcdserverpb::PutRequest;
use etcfs_server::{
    config::Quota,
    lease::lessor::Lessor,
    maintain::{Hash, Sizes},
    metrics::Metrics,
    mvcc::StoreOptions,
    net::METHODS,
    propose::{Errands, Members, Proposer, ReadBarrier},
    raft::{self, Bootstrap, Dialer, Host, InitialMember, MemberRules, Node, RaftOptions},
    service::{Access, Admission, Errands as ErrandService, Headers, Kv, Lease},
    watch::HubOptions,
};
use etcfs_tests::judge::Outcome;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::{
    clients::{self, Client},
    disk::{Honesty, Rest, SimDisk},
    rows::SimRows,
    run::Run,
    tasks::Tasks,
    watchers::{self, HABITS, Habit},
    wire::{self, PORT, Wire},
};

const HEARTBEAT: Duration = Duration::from_millis(100);
pub(crate) const ELECTION: Duration = Duration::from_millis(500);
const REQUEST_TIMEOUT: Duration = Duration::from_millis(1500);
/// Small, so that a run has many of each.
const SEGMENT_BYTES: usize = 16 << 10;
const SNAPSHOT_COUNT: u64 = 40;
const STREAM_BYTES_MAX: usize = 2 << 10;

/// What stays of a member over its lives; clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) number: usize,
    size: usize,
    stays: Arc<Stays>,
}

#[derive(Debug)]
struct Stays {
    disk: SimDisk,
    rows: SimRows,
    /// For what is always synced before it is used: the identity, and snapshots.
    dir: PathBuf,
    /// The present life.
    node: Mutex<Option<Node>>,
    dying: AtomicBool,
    /// How far each watcher has been told, and its newest stream.
    told: Mutex<BTreeMap<Habit, (i64, usize)>>,
}

pub(crate) fn name(number: usize) -> String {
    format!("m{number}")
}

impl Place {
    pub(crate) fn new(number: usize, size: usize, dir: PathBuf, honesty: Honesty) -> Self {
        let stays = Stays {
            disk: SimDisk::new(honesty),
            rows: SimRows::default(),
            dir,
            node: Mutex::default(),
            dying: AtomicBool::new(false),
            told: Mutex::default(),
        };
        Self { number, size, stays: Arc::new(stays) }
    }

    pub(crate) fn node(&self) -> Option<Node> {
        self.stays.node.lock().clone()
    }

    pub(crate) fn disk(&self) -> &SimDisk {
        &self.stays.disk
    }

    /// True if it has ended by itself.
    pub(crate) fn is_dying(&self) -> bool {
        self.stays.dying.load(Ordering::Relaxed) || self.stays.disk.is_off()
    }

    pub(crate) fn told(&self, habit: Habit) -> i64 {
        self.stays.told.lock().get(&habit).map_or(0, |told| told.0)
    }

    pub(crate) fn tell(&self, habit: Habit, revision: i64) {
        let mut told = self.stays.told.lock();
        let told = &mut told.entry(habit).or_default().0;
        *told = revision.max(*told);
    }

    pub(crate) fn set_stream(&self, habit: Habit, stream: usize) {
        self.stays.told.lock().entry(habit).or_default().1 = stream;
    }

    pub(crate) fn stream(&self, habit: Habit) -> Option<usize> {
        self.stays.told.lock().get(&habit).map(|told| told.1)
    }

    /// Lets go of a life that is about to be ended.
    pub(crate) fn let_go(&self) {
        drop(self.stays.node.lock().take());
    }

    /// What the next life finds.
    pub(crate) fn restore(&self, rest: Rest, random: &mut impl rand::Rng) {
        // A life that was cut off may still be named by what it left behind; its lock is not.
        let lock = self.stays.dir.join("member/lock");
        if lock.exists() {
            std::fs::remove_file(lock).expect("a lock that nobody holds");
        }
        self.stays.disk.restore(rest, random);
        if !matches!(rest, Rest::Everything) {
            self.stays.rows.restore(random);
        }
        self.stays.dying.store(false, Ordering::Relaxed);
    }

    fn options(&self) -> RaftOptions {
        let member = |number| InitialMember {
            name: name(number),
            peer_urls: vec![format!("http://{}:{PORT}", name(number))],
        };
        let rows = self.stays.rows.clone();
        let dying = self.stays.clone();
        RaftOptions {
            host: Host {
                threads: Arc::new(Tasks),
                disk: Arc::new(self.stays.disk.clone()),
                segment_bytes: SEGMENT_BYTES,
                open_engine: Arc::new(move |_| Ok(Arc::new(rows.clone()))),
                die: Arc::new(move || {
                    dying.disk.cut();
                    dying.dying.store(true, Ordering::Relaxed);
                }),
            },
            data_dir: self.stays.dir.clone(),
            bootstrap: Bootstrap {
                name: name(self.number),
                members: (0..self.size).map(member).collect(),
                token: "simulation".into(),
                existing: false,
            },
            dialer: Dialer::new(ELECTION, None).over(Arc::new(Wire)),
            rules: MemberRules { strict: true, max_learners: 1 },
            force_new_cluster: false,
            version: "3.6.0",
            heartbeat_interval: HEARTBEAT,
            election_timeout: ELECTION,
            snapshot_count: SNAPSHOT_COUNT,
            store: StoreOptions { value_cache_bytes: 4 << 10 },
            hub: HubOptions { stream_bytes_max: STREAM_BYTES_MAX, ..HubOptions::default() },
            on_fsync: Box::new(|_| ()),
            on_round_trip: Box::new(|_, _| ()),
            slow_apply: Duration::from_millis(100),
            on_image_commit: Box::new(|_| ()),
        }
    }
}

/// Lives until the host is crashed.
pub(crate) async fn live(run: Run, place: Place) -> turmoil::Result {
    let node = match raft::start(place.options()).await {
        Ok(node) => node,
        Err(error) if place.is_dying() => {
            tracing::info!(target: "etcfs_sim", %error, "the power failed while it started");
            return pending().await;
        }
        Err(error) => {
            tracing::info!(target: "etcfs_sim", %error, "it did not start");
            let text = format!("member {} did not start: {error}", place.number);
            run.with_history(|history| history.end.fallen.push(text));
            return pending().await;
        }
    };
    *place.stays.node.lock() = Some(node.clone());

    let metrics = Metrics::new(METHODS, false);
    let state = node.state();
    let proposer = Proposer::new(&node, REQUEST_TIMEOUT, 1 << 20);
    let barrier = ReadBarrier::new(&node, REQUEST_TIMEOUT);
    let errands = Errands::new(&node, REQUEST_TIMEOUT);
    let members = Members::new(&node, errands.clone(), REQUEST_TIMEOUT);
    let lessor = Lessor::new(
        state.leases.clone(),
        proposer.clone(),
        barrier.clone(),
        metrics.lease_renewed.clone(),
        metrics.lease_expired.clone(),
    );
    tokio::spawn(lessor.clone().run(members.watch(), CancellationToken::new()));
    let errand_service = ErrandService {
        lessor: lessor.clone(),
        barrier: barrier.clone(),
        members: members.clone(),
        hash: Hash::new(state.store.clone()),
    };
    tokio::spawn(wire::serve(node.clone(), errand_service, ELECTION / 2));
    let headers = Headers::new(members.clone());
    let admission = Admission {
        quota: Quota::Unlimited,
        sizes: Sizes::new(state.store.clone(), node.engine(), node.image(), place.stays.dir.clone()),
        members,
        proposer: proposer.clone(),
    };
    let access = Access { auth: state.auth.clone(), leases: state.leases.clone() };
    let kv = Kv {
        store: state.store.clone(),
        alarms: state.alarms.clone(),
        proposer: proposer.clone(),
        barrier: barrier.clone(),
        headers: headers.clone(),
        admission: admission.clone(),
        access: access.clone(),
        max_txn_ops: 128,
    };
    let lease = Lease {
        store: state.store,
        lessor,
        proposer,
        barrier,
        errands,
        timeout: REQUEST_TIMEOUT,
        headers,
        admission,
        access,
        min_ttl: 1,
    };
    let client = Client { run: run.clone(), member: place.number, kv, lease };
    for habit in HABITS {
        tokio::spawn(watchers::watch(run.clone(), place.clone(), node.hub(), habit));
    }
    tokio::spawn(clients::keys(client.clone()));
    tokio::spawn(clients::keys(client.clone()));
    tokio::spawn(clients::leases(client.clone()));
    tokio::spawn(close(client));
    pending().await
}

/// Makes the last revision of the run, once it is time.
async fn close(client: Client) {
    loop {
        tokio::time::sleep(Duration::from_millis(20)).await;
        if client.run.closer() != Some(client.member) || client.run.goal().is_some() {
            continue;
        }
        let put = PutRequest { key: "kv/the-end".into(), value: client.value(), ..Default::default() };
        if let Outcome::Answered(answer) = client.put(put).await {
            client.run.set_goal(answer.header.expect("filled").revision);
        }
    }
}
