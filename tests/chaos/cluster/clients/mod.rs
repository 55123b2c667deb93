//! Everything that runs against a cluster while it suffers, all by one seed.
//!
//! A seed decides what each client asks for, not when: two runs of one seed are
//! alike, not equal.

pub(crate) mod compactor;
pub(crate) mod keys;
pub(crate) mod leases;
mod session;
pub(crate) mod watcher;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use etcfs_proto::mvccpb::KeyValue;
use etcfs_tests::{
    api::{prefix, put, runtime},
    judge::{Call, History, Moment, Operation, Outcome, Stream},
    partition::Cluster,
    wait,
};
use tokio::task::JoinHandle;

use session::{Session, Shared};
use watcher::Habit;

/// Clients of keys.
const KEY_CLIENTS: usize = 4;
/// Clients of leases.
const LEASE_CLIENTS: usize = 8;

/// How long clients may take to go on after a fault, on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The running clients.
#[derive(Debug)]
pub(crate) struct Clients {
    shared: Arc<Shared>,
    askers: Vec<JoinHandle<Vec<Operation>>>,
    watchers: Vec<JoinHandle<Vec<Stream>>>,
    /// For what is asked when the others are silent.
    last: Session,
}

impl Clients {
    /// Starts them on a cluster with an empty store.
    pub(crate) fn start(cluster: &Cluster, seed: u64) -> Self {
        let shared = Arc::new(Shared::new());
        let endpoints: Vec<String> = (0..cluster.len()).map(|member| cluster.endpoint(member)).collect();
        let mut number = 0;
        let mut session = |name: String| {
            number += 1;
            Session::new(&shared, &endpoints, name, seed.wrapping_mul(1000).wrapping_add(number))
        };
        let mut watchers = vec![("recorder".to_owned(), Habit::Recorder)];
        for member in 0..cluster.len() {
            watchers.push((format!("pinned-{member}"), Habit::Pinned(member)));
        }
        watchers.extend((0..2).map(|number| (format!("roaming-{number}"), Habit::Roaming)));
        watchers.push(("slow".into(), Habit::Slow(seed as usize % cluster.len())));
        watchers.extend([("narrow".into(), Habit::Narrow), ("edge".into(), Habit::Edge)]);
        let watchers = watchers
            .into_iter()
            .map(|(name, habit)| runtime().spawn(watcher::work(session(name), habit)))
            .collect();
        let mut askers = Vec::new();
        for number in 0..KEY_CLIENTS {
            askers.push(runtime().spawn(keys::work(session(format!("keys-{number}")))));
        }
        for number in 0..LEASE_CLIENTS {
            askers.push(runtime().spawn(leases::work(session(format!("leases-{number}")))));
        }
        askers.push(runtime().spawn(compactor::work(session("compactor".into()))));
        let last = session("last".into());
        Self { shared, askers, watchers, last }
    }

    /// Time since they began.
    pub(crate) fn now(&self) -> Moment {
        self.shared.now()
    }

    /// Waits until one of them has seen `count` more revisions.
    #[track_caller]
    pub(crate) fn wait_for_more(&self, count: i64) {
        let recorded = || self.shared.recorded.load(Ordering::Relaxed);
        let goal = recorded() + count;
        wait::within(PATIENCE, "the clients have made more revisions", || (recorded() >= goal).then_some(()));
    }

    /// Ends all, once the cluster is whole again, and returns what they saw.
    ///
    /// What is left of keys on leases is waited for until `lease_patience` from now.
    pub(crate) fn finish(mut self, lease_patience: Moment) -> (History, i64) {
        self.shared.stop();
        let mut history = History::default();
        for client in self.askers.drain(..) {
            history.operations.extend(runtime().block_on(client).expect("a client does not panic"));
        }
        let until = self.now() + lease_patience;
        history.end.outlived = self.what_outlives(until);
        let goal = self.last_revision();
        self.shared.goal.store(goal, Ordering::Relaxed);
        for watcher in self.watchers.drain(..) {
            history.streams.extend(runtime().block_on(watcher).expect("a watcher does not panic"));
        }
        history.operations.extend(self.last.into_operations());
        (history, goal)
    }

    /// The keys on leases that are still there at `until`.
    fn what_outlives(&mut self, until: Moment) -> Vec<KeyValue> {
        loop {
            let found = runtime().block_on(self.last.range(prefix(leases::PREFIX)));
            match found {
                Outcome::Answered(answer) if answer.kvs.is_empty() => return Vec::new(),
                Outcome::Answered(answer) if self.shared.now() > until => return answer.kvs,
                _ => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    /// Puts until one is acknowledged; it makes the last revision of the run.
    fn last_revision(&mut self) -> i64 {
        wait::until("the last put is acknowledged", || {
            let value = self.last.value();
            let outcome = runtime().block_on(self.last.put(put("kv/1-the-end", value)));
            outcome.answer()?.header.as_ref().map(|header| header.revision)
        })
    }
}

/// How many calls of each kind came to what.
pub(crate) fn counts(history: &History) -> std::collections::BTreeMap<String, u64> {
    let mut counts = std::collections::BTreeMap::new();
    for operation in &history.operations {
        let kind = match &operation.call {
            Call::Put(..) => "put",
            Call::Delete(..) => "delete",
            Call::Range(request, _) if request.serializable => "serializable range",
            Call::Range(..) => "range",
            Call::Txn(..) => "txn",
            Call::Compact(..) => "compaction",
            Call::Grant(..) => "lease grant",
            Call::KeepAlive(..) => "lease renewal",
            Call::Revoke(..) => "lease revocation",
            Call::TimeToLive(..) => "lease time to live",
            Call::Leases(..) => "list of leases",
        };
        let came = match (operation.call.is_lost(), operation.call.refusal()) {
            (true, _) => "lost",
            (_, Some(_)) => "refused",
            _ => "answered",
        };
        *counts.entry(format!("{kind} {came}")).or_default() += 1;
    }
    counts
}
