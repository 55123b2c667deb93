//! The mount's way to the server, without a mount: changes whose answer is lost,
//! late or refused, sessions that end, watches over broken connections. On ours
//! and on Debian's etcd.

use std::sync::Arc;

use bytes::Bytes;
use etcfs_fs::{
    map::Key,
    remote::{
        Answer, Change, Compare, Event, Freshness, Lease, LeaseId, Op, PageRequest, Patience, Probe, Remote,
        RemoteError, Revision, Watched, client,
    },
};
use etcfs_proto::key::KeyRange;
use etcfs_tests::{
    api::{Api, delete, runtime},
    machine,
    proxy::{Cut, Moment, Proxy},
    server::{Kind, Server},
    wait::{self, PATIENCE},
};
use tokio::time::timeout;
use tokio_stream::StreamExt;

const KINDS: [Kind; 2] = [Kind::Etcfs, Kind::Etcd];
const MOMENTS: [Moment; 4] =
    [Moment::BeforeRequest, Moment::AfterRequest, Moment::BeforeAnswer, Moment::Delayed];

fn key(text: &str) -> Key {
    Key::from(Bytes::copy_from_slice(text.as_bytes()))
}

fn range(prefix: &str) -> KeyRange {
    KeyRange::prefix(&Bytes::copy_from_slice(prefix.as_bytes()))
}

fn put(name: &str, value: &str) -> Op {
    Op::put(key(name), Bytes::copy_from_slice(value.as_bytes()))
}

#[track_caller]
fn now<T>(call: impl Future<Output = T>) -> T {
    runtime().block_on(async { timeout(PATIENCE, call).await.expect("every call is answered") })
}

/// A server, a proxy before it, and the mount's client behind that.
struct Stage {
    server: Server,
    api: Api,
    proxy: Proxy,
    remote: Arc<client::Server>,
}

impl Stage {
    fn new(kind: Kind) -> Self {
        let server = Server::start(kind);
        let api = server.api();
        let proxy = Proxy::to(&server.endpoint());
        let _guard = runtime().enter();
        let endpoint = format!("http://{}", proxy.endpoint());
        let remote = client::Server::new(&[endpoint], client::Login::default(), Patience::Hard)
            .expect("it is an endpoint");
        Self { server, api, proxy, remote: Arc::new(remote) }
    }

    /// Loses the next change of `name`.
    fn lose(&self, name: &str, moment: Moment) {
        self.proxy.arm(Cut { holds: vec![b".etcfs/op/".to_vec(), name.as_bytes().to_vec()], moment });
    }

    #[track_caller]
    fn commit(&self, change: Change) -> (bool, i64, Vec<Answer>) {
        let done = now(self.remote.commit(change)).expect("the change is answered");
        (done.succeeded, done.revision.0, done.answers)
    }
}

fn create(name: &str) -> Change {
    Change {
        compares: vec![Compare::Absent(key(name))],
        then: vec![put(name, "mine"), Op::Keys { range: range("/"), limit: 3 }],
        otherwise: vec![Op::Get(key(name))],
    }
}

/// A change is made exactly once, also when its answer is lost
#[test]
fn a_change_is_made_once_wherever_the_connection_breaks() {
    let rounds = machine::setting("ETCFS_TEST_CUTS", 1000) / 5;
    for kind in KINDS {
        let s = Stage::new(kind);
        for round in 0..rounds.max(8) {
            let name = format!("/n{round:05}");
            let moment = MOMENTS[round as usize % MOMENTS.len()];
            s.lose(&name, moment);
            let (succeeded, revision, answers) = s.commit(create(&name));
            assert!(succeeded, "{kind:?} round {round}, {moment:?}: the winner is refused");
            assert!(!s.proxy.disarm(), "nothing was lost");
            if moment == Moment::Delayed {
                s.proxy.release();
            }
            let kv = s.api.get(&name).expect("it is there");
            assert_eq!((kv.version, kv.mod_revision), (1, revision), "{kind:?} round {round}, {moment:?}");
            let [Answer::Done, Answer::Keys(keys)] = &answers[..] else { panic!("{answers:?}") };
            assert_eq!(keys.len() as u64, 3.min(round + 1));
            assert_eq!(s.api.revision(), revision, "{moment:?}: one revision and no more");
        }
    }
}

#[test]
fn a_change_that_was_refused_is_not_made_by_a_late_copy_of_it() {
    for kind in KINDS {
        let s = Stage::new(kind);
        for (round, moment) in MOMENTS.into_iter().enumerate() {
            let name = format!("/r{round}");
            s.api.set(&name, "theirs");
            s.lose(&name, moment);
            let (succeeded, _, answers) = s.commit(create(&name));
            assert!(!succeeded);
            assert!(matches!(&answers[..], [Answer::Got(Some(kv))] if kv.value == "theirs"), "{answers:?}");
            // Now the compares would hold.
            s.api.delete(delete(&name)).expect("a delete is accepted");
            if moment == Moment::Delayed {
                s.proxy.release();
            }
            assert_eq!(s.api.get(&name), None, "{kind:?} {moment:?}: it was made after it had been refused");
            // The slot goes on to serve.
            assert!(s.commit(create(&name)).0);
        }
    }
}

#[test]
fn counters_that_many_raise_at_once_over_a_bad_line_count_right() {
    for kind in KINDS {
        let s = Stage::new(kind);
        let each = 30;
        let writers: Vec<_> = (0..4)
            .map(|_| {
                let remote = s.remote.clone();
                runtime().spawn(async move {
                    for _ in 0..each {
                        raise(&remote).await;
                    }
                })
            })
            .collect();
        let count = || s.api.get("/count").map_or(0, |kv| kv.version);
        // A cut now and then; in between they get on.
        for round in 0..12 {
            let goal = (round + 1) * 8;
            wait::until_true("the counter rises", || count() >= goal);
            s.lose("/count", MOMENTS[round as usize % 3]);
            let cuts = s.proxy.cuts_done();
            s.proxy.wait_for_cuts(cuts + 1);
        }
        for writer in writers {
            now(writer).expect("no writer fails");
        }
        let kv = s.api.get("/count").expect("it counts");
        assert_eq!(kv.value, Bytes::from((4 * each).to_string()), "{kind:?}");
        assert_eq!(kv.version, 4 * each, "{kind:?}");
    }
}

/// Reads, compares, puts one more, until it was the one.
async fn raise(remote: &client::Server) {
    loop {
        let at = remote.get(key("/count"), Freshness::Linearizable).await.expect("a get is answered");
        let (compare, count) = match &at.found {
            None => (Compare::Absent(key("/count")), 0),
            Some(kv) => {
                let count = String::from_utf8_lossy(&kv.value).parse::<i64>().expect("a number");
                (Compare::Unchanged(key("/count"), kv.mod_revision), count)
            }
        };
        let then = vec![put("/count", &(count + 1).to_string())];
        let change = Change { compares: vec![compare], then, otherwise: vec![] };
        if remote.commit(change).await.expect("a change is answered").succeeded {
            return;
        }
    }
}

#[test]
fn a_session_that_ended_on_the_server_is_opened_again() {
    for kind in KINDS {
        let s = Stage::new(kind);
        s.commit(create("/a"));
        let slots = s.api.all(".etcfs/op/");
        assert_eq!(slots.len(), 1, "one change at a time needs one slot");
        let session = slots[0].lease;
        assert_ne!(session, 0, "the slot goes with its session");
        let revoke = etcfs_proto::etcdserverpb::LeaseRevokeRequest { id: session };
        s.api.revoke(revoke).expect("the session's lease can be revoked");
        assert!(s.commit(create("/b")).0);
        // The other branch too, and a slot that was never put.
        let revoke = etcfs_proto::etcdserverpb::LeaseRevokeRequest { id: s.api.all(".etcfs/op/")[0].lease };
        s.api.revoke(revoke).expect("the session's lease can be revoked");
        assert!(!s.commit(create("/b")).0);
        assert!(s.commit(create("/c")).0);
        now(s.remote.close()).expect("the session ends");
        assert_eq!(s.api.all(".etcfs/op/"), [], "{kind:?}: its slots are gone with it");
    }
}

#[test]
fn a_lease_that_is_not_is_the_callers_mistake_and_not_the_sessions() {
    for kind in KINDS {
        let s = Stage::new(kind);
        let attach = |lease| Change {
            compares: vec![],
            then: vec![Op::Put { key: key("/l"), value: "v".into(), lease: Lease::To(lease) }],
            otherwise: vec![],
        };
        let error = now(s.remote.commit(attach(LeaseId(0x1234)))).expect_err("there is no such lease");
        assert_eq!(error, RemoteError::NoSuchLease);
        let lease = now(s.remote.lease_grant(100)).expect("a lease is granted");
        assert!(s.commit(attach(lease)).0);
        let facts = now(s.remote.lease_facts(lease)).expect("it is answered").expect("it is there");
        assert!(facts.granted_seconds == 100 && facts.left_seconds <= 100 && facts.left_seconds > 90);
        let keep = Op::Put { key: key("/l"), value: "w".into(), lease: Lease::Keep };
        let present = vec![Compare::Present(key("/l"))];
        s.commit(Change { compares: present.clone(), then: vec![keep], otherwise: vec![] });
        assert_eq!(s.api.get("/l").map(|kv| (kv.value, kv.lease)), Some(("w".into(), lease.0)));
        let detach = Op::Attach { key: key("/l"), lease: None };
        s.commit(Change { compares: present, then: vec![detach], otherwise: vec![] });
        assert_eq!(s.api.get("/l").map(|kv| (kv.value, kv.lease)), Some(("w".into(), 0)));
        now(s.remote.lease_revoke(lease)).expect("it is revoked");
        assert_eq!(now(s.remote.lease_facts(lease)), Ok(None));
        assert_eq!(now(s.remote.lease_revoke(lease)), Err(RemoteError::NoSuchLease));
    }
}

#[test]
fn what_is_too_large_is_refused_and_the_line_still_serves() {
    for kind in KINDS {
        let s = Stage::new(kind);
        let large = |bytes| Change {
            compares: vec![Compare::Absent(key("/big"))],
            then: vec![Op::put(key("/big"), vec![b'x'; bytes].into())],
            otherwise: vec![],
        };
        assert_eq!(now(s.remote.commit(large(2 << 20))), Err(RemoteError::TooLarge), "{kind:?}");
        assert_eq!(now(s.remote.commit(large(4 << 20))), Err(RemoteError::TooLarge), "{kind:?}");
        assert!(s.commit(large((3 << 19) - 4096)).0, "{kind:?}");
        let at = now(s.remote.get(key("/big"), Freshness::Linearizable)).expect("it is answered");
        assert_eq!(at.found.map(|kv| kv.value.len()), Some((3 << 19) - 4096));
    }
}

#[test]
fn reads_are_of_one_revision_and_as_new_as_they_must_be() {
    for kind in KINDS {
        let s = Stage::new(kind);
        for number in 0..40 {
            s.api.set(&format!("/d/{number:02}"), format!("v{number}"));
        }
        s.api.set(".etcfs/dir//e/", "");
        let probe = |name: &str| Probe {
            key: key(name),
            below: range(&format!("{name}/")),
            records: range(&format!(".etcfs/dir/{name}/")),
        };
        let mut probes: Vec<Probe> = (0..40).map(|number| probe(&format!("/d/{number:02}"))).collect();
        probes.extend([probe("/d"), probe("/e"), probe("/none")]);
        let found = now(s.remote.lookup(probes, Freshness::Linearizable)).expect("it is answered");
        assert_eq!(found.revision.0, s.api.revision());
        let (names, rest) = found.found.split_at(40);
        assert!(names.iter().zip(0..).all(|(lookup, number)| {
            lookup.kv.as_ref().is_some_and(|kv| kv.value == format!("v{number}")) && lookup.below.is_none()
        }));
        assert_eq!((rest[0].kv.is_some(), rest[0].below.as_deref()), (false, Some(b"/d/00".as_ref())));
        assert_eq!(rest[1].record.as_deref(), Some(b".etcfs/dir//e/".as_ref()));
        assert_eq!(rest[2], Default::default());

        let first = found.revision;
        s.api.set("/d/00", "newer");
        let page = |start: &str, how| {
            let all = range("/d/");
            let range = KeyRange { start: Bytes::copy_from_slice(start.as_bytes()), ..all };
            now(s.remote.page(PageRequest { range, limit: 30, keys_only: false, how }))
                .expect("it is answered")
        };
        let one = page("/d/", Freshness::Exactly(first));
        assert!(one.found.more && one.revision == first && one.found.kvs[0].value == "v0");
        let two = page("/d/30", Freshness::Exactly(first));
        assert_eq!((two.found.more, two.found.kvs.len()), (false, 10));
        let newest = Revision(s.api.revision());
        let at = now(s.remote.get(key("/d/00"), Freshness::AtLeast(newest))).expect("it is answered");
        assert!(at.revision >= newest && at.found.is_some_and(|kv| kv.value == "newer"));
        assert_eq!(now(s.remote.get(key(""), Freshness::Linearizable)).map(|at| at.found), Ok(None));
        let future = now(s.remote.get(key("/d"), Freshness::Exactly(Revision(newest.0 + 100))));
        assert_eq!(future.map(|at| at.found), Err(RemoteError::FutureRevision));
        s.api
            .compact(etcfs_proto::etcdserverpb::CompactionRequest { revision: newest.0, physical: true })
            .ok();
        let gone = now(s.remote.get(key("/d"), Freshness::Exactly(first)));
        assert!(matches!(gone, Err(RemoteError::Compacted(_))), "{gone:?}");
        let usage = now(s.remote.usage(vec![range("/d/")])).expect("it is answered");
        assert!(usage.keys == 40 && usage.in_use_bytes > 0, "{usage:?}");
        assert!(s.remote.time_of(first) < s.remote.time_of(newest));
    }
}

#[test]
fn a_watch_of_two_ranges_brings_whole_revisions_over_broken_connections() {
    for kind in KINDS {
        let s = Stage::new(kind);
        let from = Revision(s.api.set("/p/start", "v"));
        let ranges = vec![range("/p/"), range(".etcfs/dir//p/")];
        let mut watch = {
            let _guard = runtime().enter();
            s.remote.watch(ranges, from)
        };
        let rounds = 60;
        let mut made = vec![(from.0, 1)];
        for round in 0..rounds {
            if round % 10 == 5 {
                s.proxy.sever(false);
            }
            let mut then = vec![put(&format!("/p/{round}"), "v"), put("/elsewhere", "v")];
            if round % 2 == 0 {
                then.push(put(&format!(".etcfs/dir//p/{round}/"), ""));
            }
            let events = then.len() as i64 - 1;
            let (_, revision, _) = s.commit(Change { compares: vec![], then, otherwise: vec![] });
            made.push((revision, events));
        }
        let mut seen: Vec<(i64, i64)> = Vec::new();
        let mut lost = 0;
        while seen.iter().map(|(_, events)| events).sum::<i64>() < made.iter().map(|(_, events)| events).sum()
        {
            match now(watch.next()).expect("a watch does not end").expect("and does not fail") {
                Watched::Changed(changed) => {
                    let ours = changed.events.iter().filter(|event| matches!(event, Event::Put(_))).count();
                    seen.push((changed.revision.0, ours as i64));
                }
                Watched::UpTo(revision) => assert!(seen.iter().all(|(at, _)| *at <= revision.0)),
                Watched::Lost => lost += 1,
                Watched::Back => assert!(lost > 0, "back from where?"),
            }
        }
        assert_eq!(seen, made, "{kind:?}");
        drop(watch);
        assert!(s.server.endpoint().contains(':'));
    }
}
