//! One member: what stays of it over its lives, and one life.

use std::{
    collections::{BTreeMap, VecDeque},
    future::pending,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use etcfs_proto::{
    etcdserverpb::PutRequest,
    etcfs::command::{MemberAttributes, Request, request::Body},
};
use etcfs_server::{
    config::Quota,
    lease::lessor::Lessor,
    maintain::{Hash, Sizes},
    metrics::Metrics,
    mvcc::StoreOptions,
    net::METHODS,
    propose::{Errands, Members, Proposer, ReadBarrier},
    raft::{
        self, Bootstrap, Dialer, Host, InitialMember, MemberChange, MemberRules, Node, RaftOptions,
        StartError,
    },
    service::{Access, Admission, Errands as ErrandService, Headers, Kv, Lease},
    watch::HubOptions,
};
use etcfs_tests::judge::{Moment, Outcome};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::{
    clients::{self, Client},
    clock,
    disk::{Honesty, Rest, SimDisk},
    rows::SimRows,
    run::Run,
    still,
    tasks::Tasks,
    watchers::{self, HABITS, Habit},
    wire::{self, PORT, Wire},
};

const HEARTBEAT: Duration = Duration::from_millis(100);
pub(crate) const ELECTION: Duration = Duration::from_millis(500);
/// Leases of two seconds are noted, too.
const CHECKPOINT_INTERVAL: Duration = Duration::from_millis(700);
/// More than the members' loops take for their last turns.
const CLOSING: Duration = Duration::from_millis(500);
/// Pause before it is tried again to join, or to be known.
const JOIN_PAUSE: Duration = Duration::from_millis(300);
const REQUEST_TIMEOUT: Duration = Duration::from_millis(1500);
/// Small, so that a run has many of each.
const SEGMENT_BYTES: usize = 16 << 10;
const SNAPSHOT_COUNT: u64 = 40;
/// When a run begins, in milliseconds since 1970.
const EPOCH_MS: u64 = 1_700_000_000_000;
const STREAM_BYTES_MAX: usize = 2 << 10;

/// What stays of a member over its lives; clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) number: usize,
    ways: Ways,
    stays: Arc<Stays>,
}

/// How a member is set up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ways {
    /// Founders of the cluster.
    pub(crate) size: usize,
    pub(crate) honesty: Honesty,
    /// Whether changes of members are refused as with `--strict-reconfig-check`.
    pub(crate) strict: bool,
    /// How much faster its clock is than the simulation's, in thousandths.
    pub(crate) fast: u32,
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
    /// What an operator has told it to do.
    orders: Mutex<VecDeque<Order>>,
    /// True once it has ended in order.
    stopped: AtomicBool,
    /// True once the cluster has told it that it is none of its members any more.
    left: AtomicBool,
    /// True while no member lives here.
    vacant: AtomicBool,
    /// Whom it joins, if it is no founder.
    joins: Mutex<Option<Vec<InitialMember>>>,
    /// How far each watcher has been told, and its newest stream.
    told: Mutex<BTreeMap<Habit, (i64, usize)>>,
}

/// What an operator has a member do.
#[derive(Clone, Debug)]
pub(crate) enum Order {
    /// Have the member of this id lead.
    Transfer(u64),
    /// Have the members changed.
    Change(MemberChange),
    /// Do nothing until then.
    Hold(Moment),
    Stop,
}

pub(crate) fn name(number: usize) -> String {
    format!("m{number}")
}

pub(crate) fn peer_urls(number: usize) -> Vec<String> {
    vec![format!("http://{}:{PORT}", name(number))]
}

impl Place {
    pub(crate) fn new(number: usize, ways: Ways, dir: PathBuf) -> Self {
        let stays = Stays {
            disk: SimDisk::new(ways.honesty),
            rows: SimRows::default(),
            dir,
            node: Mutex::default(),
            dying: AtomicBool::new(false),
            orders: Mutex::default(),
            stopped: AtomicBool::new(false),
            left: AtomicBool::new(false),
            vacant: AtomicBool::new(number >= ways.size),
            joins: Mutex::default(),
            told: Mutex::default(),
        };
        Self { number, ways, stays: Arc::new(stays) }
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

    /// True if it has ended in order.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stays.stopped.load(Ordering::Relaxed)
    }

    /// True if it knows that it was removed.
    pub(crate) fn has_left(&self) -> bool {
        self.stays.left.load(Ordering::Relaxed)
    }

    pub(crate) fn is_fast(&self) -> bool {
        self.ways.fast > 0
    }

    fn joins(&self) -> bool {
        self.stays.joins.lock().is_some()
    }

    pub(crate) fn is_vacant(&self) -> bool {
        self.stays.vacant.load(Ordering::Relaxed)
    }

    /// Loses all that stays here, so that another member may come.
    pub(crate) fn vacate(&self) {
        let Stays { disk, rows, dir, left, vacant, orders, .. } = &*self.stays;
        disk.replace();
        rows.empty();
        if dir.exists() {
            std::fs::remove_dir_all(dir).expect("files of a member that has ended");
        }
        orders.lock().clear();
        left.store(false, Ordering::Relaxed);
        vacant.store(true, Ordering::Relaxed);
    }

    /// Has a new member live here, which joins a cluster of these.
    pub(crate) fn settle(&self, members: Vec<InitialMember>) {
        *self.stays.joins.lock() = Some(members);
        self.stays.vacant.store(false, Ordering::Relaxed);
    }

    pub(crate) fn order(&self, order: Order) {
        self.stays.orders.lock().push_back(order);
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
        self.stays.stopped.store(false, Ordering::Relaxed);
        self.stays.orders.lock().clear();
    }

    fn options(&self) -> RaftOptions {
        let founder = |number| InitialMember { name: name(number), peer_urls: peer_urls(number) };
        let founders = || (0..self.ways.size).map(founder).collect();
        let joins = self.stays.joins.lock().clone();
        let rows = self.stays.rows.clone();
        let dying = self.stays.clone();
        let behind_ms = 700 * self.number as u64;
        RaftOptions {
            host: Host {
                threads: Arc::new(Tasks),
                disk: Arc::new(self.stays.disk.clone()),
                segment_bytes: SEGMENT_BYTES,
                open_engine: Arc::new(move |_| Ok(Arc::new(rows.clone()))),
                // Each a bit behind the one before; none may have times go back.
                clock: Arc::new(move || EPOCH_MS + clock::now().as_millis() as u64 - behind_ms),
                die: Arc::new(move || {
                    dying.disk.cut();
                    dying.dying.store(true, Ordering::Relaxed);
                }),
            },
            data_dir: self.stays.dir.clone(),
            bootstrap: Bootstrap {
                name: name(self.number),
                existing: joins.is_some(),
                members: joins.unwrap_or_else(founders),
                token: "simulation".into(),
            },
            dialer: Dialer::new(ELECTION, None).over(Arc::new(Wire)),
            rules: MemberRules { strict: self.ways.strict, max_learners: 1 },
            force_new_cluster: false,
            version: "3.6.0",
            heartbeat_interval: HEARTBEAT,
            election_timeout: ELECTION,
            snapshot_count: SNAPSHOT_COUNT,
            store: StoreOptions { value_cache_bytes: 4 << 10 },
            hub: HubOptions { stream_bytes_max: STREAM_BYTES_MAX, ..HubOptions::default() },
            on_fsync: Box::new(|_| ()),
            on_round_trip: Box::new(|_, _| ()),
            on_apply: Box::new(|_, _, _| ()),
            slow_apply: Duration::from_millis(100),
            on_image_commit: Box::new(|_| ()),
        }
    }
}

/// Lives until the host is crashed.
pub(crate) async fn live(run: Run, place: Place) -> turmoil::Result {
    if place.is_vacant() {
        return pending().await;
    }
    tokio::spawn(still::run_fast(place.ways.fast));
    let node = loop {
        match raft::start(place.options()).await {
            Ok(node) => break node,
            Err(error) if place.is_dying() => {
                tracing::info!(target: "etcfs_sim", %error, "the power failed while it started");
                return pending().await;
            }
            // Whom it joins can't be reached just now.
            Err(StartError::Bootstrap(_)) if place.joins() => tokio::time::sleep(JOIN_PAUSE).await,
            Err(error) => {
                tracing::info!(target: "etcfs_sim", %error, "it did not start");
                let text = format!("member {} did not start: {error}", place.number);
                run.with_history(|history| history.end.fallen.push(text));
                return pending().await;
            }
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
        CHECKPOINT_INTERVAL,
    );
    tokio::spawn(lessor.clone().run(members.watch(), CancellationToken::new()));
    let errand_service = ErrandService {
        lessor: lessor.clone(),
        barrier: barrier.clone(),
        members: members.clone(),
        hash: Hash::new(state.store.clone()),
        auth: state.auth.clone(),
    };
    tokio::spawn(wire::serve(node.clone(), errand_service, ELECTION / 2));
    let headers = Headers::new(members.clone());
    tokio::spawn(obey(place.clone(), node.clone(), members.clone()));
    tokio::spawn(tell_name(place.number, members.clone(), proposer.clone()));
    tokio::spawn(leave(place.clone(), node.clone()));
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

/// Has the cluster know this member's name: by that it counts as one that has started.
async fn tell_name(number: usize, members: Members, proposer: Proposer) {
    let attributes =
        MemberAttributes { member_id: members.member_id(), name: name(number), client_urls: Vec::new() };
    while !members.list().iter().any(|member| member.name == attributes.name) {
        let body = Some(Body::MemberAttributes(attributes.clone()));
        if proposer.write(Request { body }).await.is_err() {
            tokio::time::sleep(JOIN_PAUSE).await;
        }
    }
}

/// Does what an operator tells this member to do, one thing after another.
async fn obey(place: Place, node: Node, members: Members) {
    loop {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let order = place.stays.orders.lock().pop_front();
        match order {
            None => {}
            Some(Order::Transfer(to)) => {
                node.transfer_leadership(to, ELECTION).await;
            }
            Some(Order::Change(change)) => {
                let members = members.clone();
                tokio::spawn(async move {
                    let changed = members.change(&change).await;
                    tracing::info!(target: "etcfs_sim", ?change, ?changed, "a change of members");
                });
            }
            Some(Order::Hold(until)) => still::hold(until),
            Some(Order::Stop) => {
                node.hand_over().await;
                node.shutdown().await;
                // Its loops see to the end of their files; here nothing can block until they have.
                tokio::time::sleep(CLOSING).await;
                place.stays.stopped.store(true, Ordering::Relaxed);
                return;
            }
        }
    }
}

/// Ends once the cluster says that it has no such member any more.
async fn leave(place: Place, node: Node) {
    node.removed().cancelled().await;
    node.shutdown().await;
    tokio::time::sleep(CLOSING).await;
    place.stays.left.store(true, Ordering::Relaxed);
}
