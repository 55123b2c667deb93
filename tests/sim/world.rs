//! One run: a cluster in turmoil's single thread, its faults, and its judgement.

use std::{
    path::Path,
    time::{Duration, SystemTime},
};

use etcfs_proto::etcdserverpb::RangeRequest;
use etcfs_tests::judge::{self, MemberEnd, Moment};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use turmoil::Sim;

use crate::{
    clients::{LEASE_PREFIX, TTL_MAX},
    clock::{self, TICK},
    disk::{Honesty, Rest},
    faults::{self, Deed, Fault, Whom},
    member::{self, ELECTION, Order, Place, Ways, name},
    members::{Act, Change},
    report::Report,
    run::Run,
    still::FAST_MAX,
    trace::Trace,
    watchers::HABITS,
};

const LATENCY_MAX: Duration = Duration::from_millis(20);
/// How long the callers go on after the last fault.
const AFTERMATH: Duration = Duration::from_secs(1);
/// How long a healed cluster may take for what it must come to.
const PATIENCE: Duration = Duration::from_secs(30);
/// Steps between two comparisons of what members hold.
const COMPARE_EVERY: u32 = 40;
/// Steps between two looks at how far a change of members is.
const CHANGE_EVERY: u32 = 4;

/// Runs `seed` with its files in `dir`, in a thread that draws from the seed too.
pub(crate) fn run(seed: u64, honesty: Honesty, dir: &Path, trace: &Trace) -> Report {
    trace.hide(dir);
    let mut world = World::new(seed, honesty, dir);
    let faults = faults::draw(&mut world.random);
    world.suffer(&faults);
    world.heal();
    world.come_to_rest();
    let mut report = Report::new(seed, &faults);
    report.simulated = world.sim.elapsed();
    (report.members, report.changes) = (world.size, world.changes);
    let fast = world.places.iter().filter(|place| place.is_fast()).count() as u64;
    report.kinds.extend((fast > 0).then(|| ("fast clock".to_owned(), fast)));
    (report.events, report.trace, report.entries) = (trace.events(), trace.hash(), trace.applied());
    report.breaches.append(&mut world.breaches);
    report.breaches.extend(trace.breaches());
    world.run.with_history(|history| report.judge(history));
    report
}

struct World {
    random: StdRng,
    sim: Sim<'static>,
    run: Run,
    /// Founders of the cluster.
    size: usize,
    /// Theirs, and one more, for a member that comes later.
    places: Vec<Place>,
    /// Of the members, if one is under way, and how many were made.
    change: Option<Change>,
    changes: u64,
    /// What is to be undone, and when.
    undo: Vec<(Moment, Undo)>,
    steps: u32,
    breaches: Vec<String>,
}

#[derive(Clone, Debug)]
enum Undo {
    Start(usize, Rest),
    Repair(Vec<(usize, usize)>),
    Release(Vec<(usize, usize)>),
    NoLoss,
    NoDelay,
}

impl World {
    fn new(seed: u64, honesty: Honesty, dir: &Path) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let size = *[1, 3, 3, 3, 3, 5].choose(&mut random).expect("some");
        let mut sim = turmoil::Builder::new()
            .epoch(SystemTime::UNIX_EPOCH)
            .rng_seed(random.random())
            .tick_duration(TICK)
            .simulation_duration(Duration::from_secs(3600))
            .min_message_latency(Duration::from_millis(1))
            .max_message_latency(LATENCY_MAX)
            .tcp_capacity(1 << 16)
            .enable_random_order()
            .build();
        let run = Run::default();
        let (strict, differ) = (random.random_ratio(1, 4), random.random());
        let mut place = |number| {
            let fast = if differ { random.random_range(0..=FAST_MAX) } else { 0 };
            Place::new(number, Ways { size, honesty, strict, fast }, dir.join(name(number)))
        };
        let places: Vec<Place> = (0..=size).map(&mut place).collect();
        for place in &places {
            let (run, place) = (run.clone(), place.clone());
            sim.host(name(place.number), move || member::live(run.clone(), place.clone()));
        }
        Self {
            random,
            sim,
            run,
            size,
            places,
            change: None,
            changes: 0,
            undo: Vec::new(),
            steps: 0,
            breaches: Vec::new(),
        }
    }

    /// Goes on for a tick, and sees to what is due.
    fn step(&mut self) {
        clock::begin_step();
        let stepped = self.sim.step();
        let now = self.sim.elapsed();
        clock::end_step(now);
        if let Err(error) = stepped {
            self.breaches.push(format!("a member's software failed: {error}"));
        }
        for number in 0..self.places.len() {
            if self.places[number].is_dying() && self.is_up(number) {
                let lasts = Duration::from_millis(self.random.random_range(50..1500));
                self.crash(number);
                self.undo.push((now + lasts, Undo::Start(number, Rest::SomeSectors)));
            } else if self.places[number].is_stopped() && self.is_up(number) {
                let lasts = Duration::from_millis(self.random.random_range(50..1500));
                self.crash(number);
                self.undo.push((now + lasts, Undo::Start(number, Rest::Everything)));
            } else if self.places[number].has_left() && self.is_up(number) {
                if !self.change.as_ref().is_some_and(|change| change.removes(number)) {
                    self.breaches.push(format!("member {number} was told that it is removed"));
                }
                self.crash(number);
            }
        }
        let due: Vec<Undo> = self.undo.extract_if(.., |(at, _)| *at <= now).map(|(_, undo)| undo).collect();
        due.into_iter().for_each(|undo| self.undo(undo));
        self.steps += 1;
        if self.steps.is_multiple_of(COMPARE_EVERY) {
            self.compare();
        }
        if self.steps.is_multiple_of(CHANGE_EVERY) {
            self.change_members();
        }
    }

    /// Does what the change of members takes next.
    fn change_members(&mut self) {
        let Some(change) = &mut self.change else { return };
        let nodes = self.places.iter().filter_map(Place::node);
        let Some(foremost) = nodes.max_by_key(|node| node.status().applied_index) else { return };
        let members = foremost.state().cluster.members();
        let number = change.place;
        match change.next(&members, |id| foremost.is_voter(id), self.sim.elapsed()) {
            None => {}
            Some(Act::Ask(change)) => {
                let asked = self.leader().or_else(|| self.members().choose(&mut self.random).copied());
                asked.into_iter().for_each(|asked| self.places[asked].order(Order::Change(change.clone())));
            }
            Some(Act::Clear) => {
                self.crash(number);
                self.places[number].vacate();
            }
            Some(Act::Start(members)) => {
                self.places[number].settle(members);
                self.sim.bounce(name(number));
            }
            Some(Act::Done) => {
                self.change = None;
                self.changes += 1;
            }
        }
    }

    /// Places with a member, as far as the operator knows.
    fn members(&self) -> Vec<usize> {
        (0..self.places.len()).filter(|&number| !self.places[number].is_vacant()).collect()
    }

    fn present(&self) -> impl Iterator<Item = &Place> {
        self.places.iter().filter(|place| !place.is_vacant())
    }

    fn step_until(&mut self, patience: Duration, what: &str, done: impl Fn(&Self) -> bool) -> bool {
        let until = self.sim.elapsed() + patience;
        while !done(self) {
            if self.sim.elapsed() > until {
                self.breaches.push(format!("{what}: not within {patience:?} of a healed cluster"));
                return false;
            }
            self.step();
        }
        true
    }

    fn is_up(&mut self, number: usize) -> bool {
        self.sim.is_host_running(name(number))
    }

    fn crash(&mut self, number: usize) {
        self.places[number].let_go();
        self.sim.crash(name(number));
    }

    fn leader(&self) -> Option<usize> {
        self.places
            .iter()
            .position(|place| place.node().is_some_and(|node| node.status().leader == Some(node.member_id())))
    }

    fn victims(&mut self, whom: Whom) -> Vec<usize> {
        let mut all = self.members();
        let count = all.len();
        rand::seq::SliceRandom::shuffle(&mut all[..], &mut self.random);
        let leader = self.leader().unwrap_or(all[0]);
        match whom {
            Whom::Leader => vec![leader],
            Whom::Follower => all.into_iter().find(|&number| number != leader).into_iter().collect(),
            Whom::Minority => all.into_iter().take(count.div_ceil(2) - 1).collect(),
            Whom::Majority => all.into_iter().take(count / 2 + 1).collect(),
            Whom::All => all,
        }
    }

    /// The links between `victims` and the others.
    fn links(&self, victims: &[usize]) -> Vec<(usize, usize)> {
        let others = || (0..self.places.len()).filter(|number| !victims.contains(number));
        victims.iter().flat_map(|&victim| others().map(move |other| (victim, other))).collect()
    }

    /// Does one thing after another, and waits until all is over.
    fn suffer(&mut self, faults: &[Fault]) {
        for fault in faults {
            while self.sim.elapsed() < fault.from {
                self.step();
            }
            self.begin(fault);
        }
        let end = faults.iter().map(|fault| fault.until).max().unwrap_or_default();
        while self.sim.elapsed() < end {
            self.step();
        }
    }

    fn begin(&mut self, fault: &Fault) {
        tracing::info!(target: "etcfs_sim", deed = ?fault.deed, "a fault");
        match fault.deed {
            Deed::Crash { whom, rest } => {
                for number in self.victims(whom) {
                    if self.is_up(number) {
                        self.crash(number);
                        self.undo.push((fault.until, Undo::Start(number, rest)));
                    }
                }
            }
            Deed::PowerFails { whom, after_writes } => {
                for number in self.victims(whom) {
                    self.places[number].disk().fail_after(after_writes);
                }
            }
            Deed::Transfer => {
                let leader = self.leader();
                let others: Vec<usize> = self.members().into_iter().filter(|&n| Some(n) != leader).collect();
                let to = others.choose(&mut self.random).and_then(|&number| self.places[number].node());
                if let (Some(leader), Some(to)) = (self.leader(), to) {
                    self.places[leader].order(Order::Transfer(to.member_id()));
                }
            }
            Deed::Stop { whom } => {
                for number in self.victims(whom) {
                    self.places[number].order(Order::Stop);
                }
            }
            Deed::Pause { whom } => {
                let victims = self.victims(whom);
                for &number in &victims {
                    self.places[number].order(Order::Hold(fault.until));
                }
                // What is sent to them waits, that among themselves too.
                let all = (0..self.places.len()).flat_map(|a| (0..a).map(move |b| (a, b)));
                let links: Vec<_> = all.filter(|(a, b)| victims.contains(a) || victims.contains(b)).collect();
                links.iter().for_each(|&(a, b)| self.sim.hold(name(a), name(b)));
                self.undo.push((fault.until, Undo::Release(links)));
            }
            Deed::Replace { whom, learner, grace } if self.members().len() > 1 => {
                let replaced = self.victims(whom).into_iter().next();
                let node = replaced.and_then(|number| Some((number, self.places[number].node()?)));
                if let Some((number, node)) = node.filter(|_| self.change.is_none()) {
                    self.change = Some(Change::replace(number, node.member_id(), learner, grace));
                }
            }
            Deed::Replace { learner, .. } | Deed::Grow { learner } => {
                let vacant = (0..self.places.len()).find(|&number| self.places[number].is_vacant());
                if let Some(number) = vacant.filter(|_| self.change.is_none()) {
                    self.change = Some(Change::grow(number, learner));
                }
            }
            Deed::Isolate { whom } => {
                let links = self.victims(whom);
                let links = self.links(&links);
                links.iter().for_each(|&(a, b)| self.sim.partition(name(a), name(b)));
                self.undo.push((fault.until, Undo::Repair(links)));
            }
            Deed::Mute { whom } => {
                let links = self.victims(whom);
                let links = self.links(&links);
                links.iter().for_each(|&(a, b)| self.sim.partition_oneway(name(a), name(b)));
                self.undo.push((fault.until, Undo::Repair(links)));
            }
            Deed::Hold { whom } => {
                let links = self.victims(whom);
                let links = self.links(&links);
                links.iter().for_each(|&(a, b)| self.sim.hold(name(a), name(b)));
                self.undo.push((fault.until, Undo::Release(links)));
            }
            Deed::Loss { rate } => {
                self.sim.set_fail_rate(rate);
                self.undo.push((fault.until, Undo::NoLoss));
            }
            Deed::Delay { max } => {
                self.sim.set_max_message_latency(max);
                self.undo.push((fault.until, Undo::NoDelay));
            }
        }
    }

    fn undo(&mut self, undo: Undo) {
        match undo {
            Undo::Start(number, rest) => {
                let place = &self.places[number];
                if !place.is_vacant() && !place.has_left() && !self.is_up(number) {
                    self.places[number].restore(rest, &mut self.random);
                    self.sim.bounce(name(number));
                }
            }
            Undo::Repair(links) => links.iter().for_each(|&(a, b)| self.sim.repair(name(a), name(b))),
            Undo::Release(links) => links.iter().for_each(|&(a, b)| self.sim.release(name(a), name(b))),
            Undo::NoLoss => self.sim.set_fail_rate(0.0),
            Undo::NoDelay => self.sim.set_max_message_latency(LATENCY_MAX),
        }
    }

    /// Makes the cluster whole again, and lets its callers go on for a while.
    fn heal(&mut self) {
        let undo = std::mem::take(&mut self.undo);
        undo.into_iter().for_each(|(_, undo)| self.undo(undo));
        // Overlapping faults may have left a link in another state than either's end.
        let links: Vec<(usize, usize)> =
            (0..self.places.len()).flat_map(|a| (0..a).map(move |b| (a, b))).collect();
        for (a, b) in links {
            self.sim.release(name(a), name(b));
            self.sim.repair(name(a), name(b));
        }
        self.places.iter().for_each(|place| place.disk().fail_never());
        let until = self.sim.elapsed() + AFTERMATH;
        while self.sim.elapsed() < until {
            self.step();
        }
        self.step_until(PATIENCE, "the members are changed", |world| world.change.is_none());
    }

    /// Waits for what must come to pass in a healed cluster once its callers are silent.
    fn come_to_rest(&mut self) {
        self.run.hush();
        // The last renewals may be under way still; a leader may just have been found.
        self.await_lease_ends();
        let closer = self.members().choose(&mut self.random).copied();
        self.run.have_closed(closer.expect("there is a cluster"));
        if !self.step_until(PATIENCE, "a write is acknowledged", |world| world.run.goal().is_some()) {
            return;
        }
        let goal = self.run.goal().expect("just seen");
        let at = |place: &Place| place.node().map_or(0, |node| node.state().store.revision());
        self.step_until(PATIENCE, "every member has applied all", |world| {
            world.present().all(|place| at(place) >= goal)
        });
        self.step_until(PATIENCE, "no change of the members is half done", |world| {
            world.present().all(|place| place.node().is_some_and(|node| node.is_membership_whole()))
        });
        let until = self.sim.elapsed() + PATIENCE;
        while self.sim.elapsed() < until && !self.are_told(goal) {
            self.step();
        }
        self.note_end(goal);
    }

    /// No lease is renewed any more: each ends in its time, and that of two elections, since then
    /// or since the leader changed, whichever is later.
    fn await_lease_ends(&mut self) {
        let lasts = Duration::from_secs(TTL_MAX.unsigned_abs()) + 2 * ELECTION;
        let give_up = self.sim.elapsed() + lasts + PATIENCE;
        let (mut since, mut term) = (self.sim.elapsed(), None);
        let runs_on = |place: &Place| place.node().is_some_and(|node| !node.state().leases.ids().is_empty());
        while self.run.has_open_calls() || self.present().any(runs_on) {
            let leads = self.leader().and_then(|number| self.places[number].node()).map(|node| node.term());
            if self.run.has_open_calls() || leads.is_none() || leads != term {
                (since, term) = (self.sim.elapsed(), leads);
            }
            let elapsed = self.sim.elapsed();
            if elapsed > since + lasts || elapsed > give_up {
                self.breaches.push(format!("leases are there {:?} after the last renewal", elapsed - since));
                return;
            }
            self.step();
        }
    }

    fn are_told(&self, goal: i64) -> bool {
        let going_on = || HABITS.into_iter().filter(|habit| habit.goes_on());
        self.present().all(|place| going_on().all(|habit| place.told(habit) >= goal))
    }

    fn note_end(&mut self, goal: i64) {
        let all = RangeRequest { key: "\0".into(), range_end: "\0".into(), ..Default::default() };
        let held = |place: &Place| {
            let store = place.node()?.state().store;
            let hash = store.hash_kv(goal).ok()?;
            Some(MemberEnd {
                revision: store.revision(),
                keys: store.range(&all).ok()?.kvs,
                hash: hash.hash,
                compact_revision: hash.compact_revision,
            })
        };
        let members: Vec<MemberEnd> = self.present().map(|place| held(place).unwrap_or_default()).collect();
        let outlived = members[0].keys.iter().filter(|kv| kv.key.starts_with(LEASE_PREFIX.as_bytes()));
        let outlived = outlived.cloned().collect();
        let places: Vec<&Place> = self.present().collect();
        self.run.with_history(|history| {
            history.end.members = members;
            history.end.outlived = outlived;
            for place in places {
                for habit in HABITS.into_iter().filter(|habit| habit.goes_on()) {
                    if place.told(habit) < goal
                        && let Some(stream) = place.stream(habit)
                    {
                        history.streams[stream].stalled_before = Some(goal);
                    }
                }
            }
        });
    }

    /// Members that have come equally far hold the same.
    fn compare(&mut self) {
        let stores: Vec<_> =
            self.places.iter().filter_map(|place| Some(place.node()?.state().store)).collect();
        let Some(revision) = stores.iter().map(|store| store.revision()).min() else { return };
        // Of those that have forgotten equally much; a read of what is compacted gives none.
        let mut hashes: Vec<(i64, u32)> = stores
            .iter()
            .filter_map(|store| store.hash_kv(revision).ok())
            .map(|hash| (hash.compact_revision, hash.hash))
            .collect();
        hashes.sort_unstable();
        hashes.dedup();
        if hashes.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            self.breaches.push(format!("members differ at revision {revision}: {hashes:x?}"));
        }
    }
}

impl Report {
    /// Adds what the judge finds.
    fn judge(&mut self, history: &judge::History) {
        let verdict = judge::judge(history);
        self.operations = history.operations.len();
        self.answered = history.operations.iter().filter(|operation| !operation.call.is_lost()).count();
        self.breaches.extend(verdict.violations.iter().map(ToString::to_string));
        self.judged = verdict.judged.into_iter().map(|(what, count)| (what.to_owned(), count)).collect();
    }
}
