//! Watches on one member: one that reads everything at once, one that dawdles,
//! and one that begins where it likes.

use std::time::Duration;

use etcfs_proto::etcdserverpb::WatchCreateRequest;
use etcfs_server::watch::Hub;
use futures_util::StreamExt as _;
use tokio::time;

use crate::{member::Place, run::Run};

/// What kind of watcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Habit {
    /// Misses nothing, over all lives of its member.
    Recorder,
    /// As the recorder, with pauses that have it fall behind.
    Slow,
    /// Begins at the compacted revision, or from now on, or where the recorder is.
    Edge,
}

pub(crate) const HABITS: [Habit; 3] = [Habit::Recorder, Habit::Slow, Habit::Edge];

impl Habit {
    /// True if it is to come to the end of the run.
    pub(crate) fn goes_on(self) -> bool {
        self != Self::Edge
    }

    fn start(self, run: &Run, place: &Place) -> i64 {
        match (self, rand::random_range(0..3)) {
            (Self::Recorder | Self::Slow, _) => place.told(self) + 1,
            (Self::Edge, 0) => 0,
            (Self::Edge, 1) => run.compacted(),
            (Self::Edge, _) => place.told(Self::Recorder) + 1,
        }
    }
}

/// Watches until its member dies.
pub(crate) async fn watch(run: Run, place: Place, hub: Hub, habit: Habit) {
    loop {
        let (control, mut answers) = hub.open();
        let request = WatchCreateRequest {
            key: "\0".into(),
            range_end: "\0".into(),
            start_revision: habit.start(&run, &place),
            prev_kv: rand::random(),
            ..Default::default()
        };
        control.create(request.clone());
        let stream = run.watches(format!("{habit:?} of {}", place.number), place.number, request);
        place.set_stream(habit, stream);
        // A short one, or one to the end.
        let mut left = if rand::random() { rand::random_range(1..40) } else { u32::MAX };
        while left > 0 {
            let Some(answer) = answers.next().await else { return };
            left = if run.is_quiet() { u32::MAX } else { left - 1 };
            if let Some(kv) = answer.events.iter().filter_map(|event| event.kv.as_ref()).next_back() {
                place.tell(habit, kv.mod_revision);
            }
            if answer.canceled {
                place.tell(habit, answer.compact_revision - 1);
                left = 0;
            }
            run.hears(stream, answer);
            if habit == Habit::Slow && !run.is_quiet() {
                time::sleep(Duration::from_millis(rand::random_range(0..300))).await;
            }
        }
        time::sleep(Duration::from_millis(rand::random_range(1..30))).await;
    }
}
