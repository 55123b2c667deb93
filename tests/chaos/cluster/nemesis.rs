//! What is done to a cluster: a schedule of faults, by a seed.

use std::{fmt, time::Duration};

use etcfs_tests::{judge::Moment, partition::Cluster};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    /// SIGKILL, and a start after a while.
    Kill,
    /// SIGSTOP, and SIGCONT after a while.
    Pause,
    /// Cut off from the other members, not from its clients.
    Isolate,
}

/// To whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whom {
    One,
    Leader,
    Majority,
    All,
}

/// One fault that was done.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    /// In a word or two.
    pub(crate) deed: &'static str,
    pub(crate) whom: Whom,
    pub(crate) victims: Vec<usize>,
    pub(crate) from: Moment,
    pub(crate) until: Moment,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { deed, whom, victims, from, until } = self;
        write!(f, "{deed} {whom:?} {victims:?} {from:.2?}..{until:.2?}")
    }
}

/// One entry of the schedule.
#[derive(Clone, Copy, Debug)]
struct Planned {
    deed: Deed,
    whom: Whom,
    lasts: Duration,
    rest: Duration,
}

/// Every deed to everyone, in an order by the seed, again and again.
#[derive(Debug)]
pub(crate) struct Nemesis {
    random: StdRng,
    round: Vec<(Deed, Whom)>,
    pub(crate) faults: Vec<Fault>,
    /// Members that ended by themselves.
    pub(crate) fallen: Vec<String>,
}

impl Nemesis {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            random: StdRng::seed_from_u64(seed),
            round: Vec::new(),
            faults: Vec::new(),
            fallen: Vec::new(),
        }
    }

    fn next(&mut self) -> Planned {
        if self.round.is_empty() {
            for deed in [Deed::Kill, Deed::Pause, Deed::Isolate] {
                self.round
                    .extend([Whom::One, Whom::Leader, Whom::Majority, Whom::All].map(|whom| (deed, whom)));
            }
            self.round.shuffle(&mut self.random);
        }
        let (deed, whom) = self.round.pop().expect("filled above");
        let lasts = match deed {
            Deed::Kill => 0..2000,
            Deed::Pause | Deed::Isolate => 300..4000,
        };
        let mut millis = |range| Duration::from_millis(self.random.random_range(range));
        Planned { deed, whom, lasts: millis(lasts), rest: millis(300..2500) }
    }

    /// Does its worst until `end`; then everything is healed. `now` reads the clients' clock.
    pub(crate) fn run(&mut self, cluster: &mut Cluster, end: Moment, now: impl Fn() -> Moment) {
        std::thread::sleep(Duration::from_millis(500));
        while now() < end {
            let planned = self.next();
            let victims = self.victims(cluster, planned.whom);
            let from = now();
            for &victim in &victims {
                match planned.deed {
                    Deed::Kill => cluster.kill(victim),
                    Deed::Pause => cluster.pause(victim),
                    Deed::Isolate => cluster.isolate(victim),
                }
            }
            std::thread::sleep(planned.lasts);
            for &victim in &victims {
                match planned.deed {
                    Deed::Kill => cluster.launch(victim),
                    Deed::Pause => cluster.resume(victim),
                    Deed::Isolate => cluster.rejoin(victim),
                }
            }
            let Planned { deed, whom, rest, .. } = planned;
            let deed = match deed {
                Deed::Kill => "kill",
                Deed::Pause => "pause",
                Deed::Isolate => "isolate",
            };
            self.faults.push(Fault { deed, whom, victims, from, until: now() });
            std::thread::sleep(rest);
            self.look_for_the_fallen(cluster);
        }
    }

    /// Notes who ended by itself, and starts it again.
    pub(crate) fn look_for_the_fallen(&mut self, cluster: &mut Cluster) {
        for member in 0..cluster.len() {
            if let Some(fallen) = cluster.has_fallen(member) {
                self.fallen.push(fallen);
                cluster.launch(member);
            }
        }
    }

    /// Whom it hits this time.
    pub(crate) fn victims(&mut self, cluster: &Cluster, whom: Whom) -> Vec<usize> {
        let mut members: Vec<usize> = (0..cluster.len()).collect();
        members.shuffle(&mut self.random);
        let count = match whom {
            Whom::One => 1,
            Whom::Leader => return vec![cluster.leader().unwrap_or(members[0])],
            Whom::Majority => cluster.len() / 2 + 1,
            Whom::All => cluster.len(),
        };
        members.truncate(count);
        members
    }
}
