//! What a run suffers, drawn from its seed before it begins.

use std::{fmt, time::Duration};

use etcfs_tests::judge::Moment;
use rand::{RngExt as _, rngs::StdRng, seq::IndexedRandom as _};

use crate::disk::Rest;

/// One thing done to the cluster, and for how long.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) from: Moment,
    pub(crate) until: Moment,
    pub(crate) deed: Deed,
}

#[derive(Clone, Debug)]
pub(crate) enum Deed {
    /// Members end at once, and with them what the rest does not keep of their disks.
    Crash { whom: Whom, rest: Rest },
    /// The power of a member's disk fails at the so-manieth write from now.
    PowerFails { whom: Whom, after_writes: u64 },
    /// Nothing passes between these members and the others.
    Isolate { whom: Whom },
    /// Nothing passes from these members; to them it does.
    Mute { whom: Whom },
    /// What is sent between these members and the others arrives at the end, all at once.
    Hold { whom: Whom },
    /// Links break at a message, and come back at a later one.
    Loss { rate: f64 },
    /// Messages take up to so long.
    Delay { max: Duration },
    /// The leader is told to have another member lead.
    Transfer,
    /// Members are told to end in order, and come back.
    Stop { whom: Whom },
    /// Members do nothing for a while, and time passes.
    Pause { whom: Whom },
    /// A member is removed, and another comes in its place, at first as a learner or not.
    Replace { whom: Whom, learner: bool, grace: Duration },
    /// A further member comes, where there is none already.
    Grow { learner: bool },
}

/// Who suffers; known only when it is time.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Whom {
    Leader,
    Follower,
    Minority,
    Majority,
    All,
}

/// When the faults begin, for a leader to be found before.
const BEGIN: Moment = Duration::from_millis(1000);

/// The faults of a run, in order of their beginning.
pub(crate) fn draw(random: &mut StdRng) -> Vec<Fault> {
    let mut at = BEGIN;
    let count = random.random_range(2..=5);
    let draw = |_| {
        at += Duration::from_millis(random.random_range(50..1000));
        let lasts = Duration::from_millis(random.random_range(100..2000));
        Fault { from: at, until: at + lasts, deed: deed(random) }
    };
    (0..count).map(draw).collect()
}

fn deed(random: &mut StdRng) -> Deed {
    let whom = *[Whom::Leader, Whom::Leader, Whom::Follower, Whom::Minority, Whom::Majority, Whom::All]
        .choose(random)
        .expect("some");
    match random.random_range(0..100) {
        0..14 => {
            let rest = *[Rest::Nothing, Rest::SomeSectors, Rest::SomeSectors, Rest::Everything]
                .choose(random)
                .expect("some");
            Deed::Crash { whom, rest }
        }
        14..28 => Deed::PowerFails { whom, after_writes: random.random_range(0..40) },
        28..38 => Deed::Isolate { whom },
        38..45 => Deed::Mute { whom },
        45..51 => Deed::Hold { whom },
        51..57 => Deed::Loss { rate: random.random_range(0.002..0.05) },
        57..63 => Deed::Delay { max: Duration::from_millis(random.random_range(50..600)) },
        63..69 => Deed::Transfer,
        69..75 => Deed::Stop { whom },
        75..86 => Deed::Pause { whom },
        86..95 => Deed::Replace {
            whom: *[Whom::Leader, Whom::Follower].choose(random).expect("some"),
            learner: random.random(),
            grace: Duration::from_millis(random.random_range(0..1000)),
        },
        _ => Deed::Grow { learner: random.random() },
    }
}

impl Deed {
    /// In one word.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Crash { rest: Rest::Everything, .. } => "kill",
            Self::Crash { .. } => "power cut",
            Self::PowerFails { .. } => "power cut in a write",
            Self::Isolate { .. } => "partition",
            Self::Mute { .. } => "one-way partition",
            Self::Hold { .. } => "hold",
            Self::Loss { .. } => "loss",
            Self::Delay { .. } => "delay",
            Self::Transfer => "leader transfer",
            Self::Stop { .. } => "stop",
            Self::Pause { .. } => "pause",
            Self::Replace { .. } => "member replaced",
            Self::Grow { .. } => "member added",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} from {:?} until {:?}", self.deed, self.from, self.until)
    }
}
