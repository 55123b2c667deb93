//! The clients of a chaos test, and the judgement of all they saw.

use std::collections::HashMap;

use bytes::Bytes;
use etcfs_proto::mvccpb::{Event, event::EventType};
use etcfs_tests::{
    api::event_revision,
    history::{self, Call, Summary, What},
    load::Load,
    process::show,
    server::Server,
};

use crate::{follower::Follower, pairs, pairs::Pairs};

/// Clients that put and read single keys.
const CLIENTS: usize = 4;
/// Where their keys lie.
const PREFIX: &str = "load/";

/// Everything that runs against one server while it suffers.
#[derive(Debug)]
pub(crate) struct Clients {
    pub(crate) load: Load,
    pairs: Pairs,
    follower: Follower,
}

impl Clients {
    /// Starts them on a server with an empty store.
    pub(crate) fn start(server: &Server) -> Self {
        let endpoint = server.endpoint();
        Self {
            load: Load::start(&endpoint, PREFIX, CLIENTS),
            pairs: Pairs::start(&endpoint),
            follower: Follower::start(&endpoint),
        }
    }

    /// Ends them and checks all they saw against the log of `server`, which runs.
    #[track_caller]
    pub(crate) fn check(self, server: &Server) -> Summary {
        let calls = self.load.stop();
        let acknowledged = self.pairs.stop();
        let seen = self.follower.finish();
        let api = server.api();
        let log = api.events_since("", 2);
        let summary =
            history::check(&calls, &of_load(&log)).unwrap_or_else(|complaint| panic!("{complaint}"));
        versions(&calls, &log, server);
        pairs::check(&acknowledged, &log);
        assert_eq!(seen.events.len(), log.len(), "the resumed watch holds exactly the log");
        assert!(seen.events == log, "the resumed watch holds other events than the log");
        let (first, last) = (log.first().map_or(0, event_revision), log.last().map_or(0, event_revision));
        assert_eq!((first, last), (2, api.revision()), "the log is whole");
        show(&format!("{summary:?}, {} events over {} streams", log.len(), seen.streams));
        assert!(summary.acknowledged > 0 && seen.streams > 0, "there was no load");
        summary
    }
}

/// Checks that no start found the image damaged: a process's death must leave it whole.
#[track_caller]
pub(crate) fn image_stood(server: &Server) {
    let log = server.log();
    let found: Vec<&str> = log.lines().filter(|line| line.contains("set aside")).collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// The events of the load's keys.
fn of_load(log: &[Event]) -> Vec<Event> {
    let is_load = |event: &&Event| event.kv.as_ref().is_some_and(|kv| kv.key.starts_with(PREFIX.as_bytes()));
    log.iter().filter(is_load).cloned().collect()
}

/// Each key's version is its acknowledged puts and those lost ones that the log shows.
#[track_caller]
fn versions(calls: &[Call], log: &[Event], server: &Server) {
    let mut made: HashMap<(&Bytes, &Bytes), i64> = HashMap::new();
    for event in log {
        if let (EventType::Put, Some(kv)) = (event.r#type(), &event.kv) {
            *made.entry((&kv.key, &kv.value)).or_default() += 1;
        }
    }
    let mut expected: HashMap<&Bytes, i64> = HashMap::new();
    for call in calls {
        let puts = match &call.what {
            What::Put { .. } => 1,
            What::LostPut { value } => made.get(&(&call.key, value)).copied().unwrap_or(0),
            What::RefusedPut { .. } | What::Read { .. } => 0,
        };
        *expected.entry(&call.key).or_default() += puts;
    }
    let found: HashMap<Bytes, i64> =
        server.api().all(PREFIX).into_iter().map(|kv| (kv.key, kv.version)).collect();
    for (key, puts) in expected {
        assert_eq!(found.get(key).copied().unwrap_or(0), puts, "version of {key:?}");
    }
}
