//! `etcfs migrate` copies a cluster that is in use, follows it, and proves at the end that both are equal.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
};

use etcfs_proto::{
    etcdserverpb::{
        CompactionRequest, DeleteRangeRequest, LeaseGrantRequest, LeaseLeasesRequest, LeaseRevokeRequest,
        LeaseTimeToLiveRequest, RangeRequest,
    },
    key::TO_END,
};
use etcfs_tests::{
    api::{Api, put_on_lease},
    command::{Client, Followed},
    server::{Kind, Server},
    wait,
};

/// Every key with its value and its lease.
type Store = BTreeMap<Vec<u8>, (Vec<u8>, i64)>;

fn store(api: &Api) -> Store {
    let every = RangeRequest { key: "\0".into(), range_end: TO_END.into(), ..RangeRequest::default() };
    let answer = api.range(every).expect("a range of all keys");
    answer.kvs.into_iter().map(|kv| (kv.key.to_vec(), (kv.value.to_vec(), kv.lease))).collect()
}

fn leases(api: &Api) -> Vec<i64> {
    let mut ids: Vec<i64> =
        api.leases(LeaseLeasesRequest {}).expect("a list").leases.iter().map(|lease| lease.id).collect();
    ids.sort_unstable();
    ids
}

/// What is left of a lease, and its time.
fn ttl(api: &Api, id: i64) -> (i64, i64) {
    let told = api.time_to_live(LeaseTimeToLiveRequest { id, keys: false }).expect("an answer");
    (told.ttl, told.granted_ttl)
}

fn delete(api: &Api, key: String) {
    api.delete(DeleteRangeRequest { key: key.into(), ..DeleteRangeRequest::default() })
        .expect("it is deleted");
}

/// Writers that put, put anew, delete, and hang keys on leases that come and go.
///
/// They write as much as they are asked to: what writes without end on the machine that copies it
/// leaves the copy no time to catch up.
struct Writers {
    /// Writes that may be begun; nothing once they are to stop.
    budget: Arc<(Mutex<Option<u64>>, Condvar)>,
    writes: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

const WHOLE: &str = "no writer panics under the lock";

impl Writers {
    fn start(endpoint: &str) -> Self {
        let budget = Arc::new((Mutex::new(Some(0)), Condvar::new()));
        let writes = Arc::new(AtomicU64::new(0));
        let threads = (0..4).map(|writer| {
            let (api, budget, writes) = (Api::to(endpoint), Arc::clone(&budget), Arc::clone(&writes));
            std::thread::spawn(move || {
                for number in 0.. {
                    let (left, more) = &*budget;
                    let mut left =
                        more.wait_while(left.lock().expect(WHOLE), |left| *left == Some(0)).expect(WHOLE);
                    let Some(left_over) = left.as_mut() else { return };
                    *left_over -= 1;
                    drop(left);
                    write(&api, writer, number);
                    writes.fetch_add(1, Ordering::Relaxed);
                }
            })
        });
        let threads = threads.collect();
        Self { budget, writes, threads }
    }

    fn set_budget(&self, budget: Option<u64>) {
        *self.budget.0.lock().expect(WHOLE) = budget;
        self.budget.1.notify_all();
    }

    /// Lets them go on, and waits until they have.
    #[track_caller]
    fn wait_for_more(&self, count: u64) {
        let goal = self.writes.load(Ordering::Relaxed) + count;
        self.set_budget(Some(count));
        wait::until_true("the writers go on", || self.writes.load(Ordering::Relaxed) >= goal);
    }

    /// Lets them write while `during` runs.
    fn go_on<T>(&self, during: impl FnOnce() -> T) -> T {
        self.set_budget(Some(u64::MAX));
        let done = during();
        self.set_budget(Some(0));
        done
    }

    fn stop(self) {
        self.set_budget(None);
        for thread in self.threads {
            thread.join().expect("a writer does not panic");
        }
    }
}

fn write(api: &Api, writer: usize, number: u64) {
    let name = |number: u64| format!("/w{writer}/{:03}", number % 200);
    match number % 10 {
        3 => delete(api, name(number / 2)),
        5 => {
            let id = api.grant(LeaseGrantRequest { ttl: 600, id: 0 }).expect("a lease is granted").id;
            api.put(put_on_lease(&name(number), format!("leased {number}"), id)).expect("it is put");
        }
        7 => {
            let id = api.grant(LeaseGrantRequest { ttl: 600, id: 0 }).expect("a lease is granted").id;
            api.put(put_on_lease(&format!("/gone{writer}/{number}"), "x", id)).expect("it is put");
            api.revoke(LeaseRevokeRequest { id }).expect("it is revoked");
        }
        _ => drop(api.set(&name(number), format!("value {number}"))),
    }
}

fn start(source: &Server, target: &Server) -> Followed {
    Client::etcfs(&source.endpoint()).follow(["migrate", &target.endpoint()])
}

/// Waits until the first comparison is through.
#[track_caller]
fn copied(migration: &mut Followed) {
    let line = migration.line();
    assert!(line.contains(" are at the destination, "), "{line}");
}

fn finish(source: &Server, target: &Server) -> String {
    Client::etcfs(&source.endpoint()).run(["migrate", "--finish", &target.endpoint()]).ok()
}

fn a_cluster_in_use_is_copied_and_followed(from: Kind, to: Kind) {
    let (source, target) = (Server::start(from), Server::start(to));
    let (api, copy) = (source.api(), target.api());
    for number in 0..1500 {
        api.set(&format!("/old/{number:04}"), format!("{number}"));
    }
    api.set("\u{1}odd\n", "\u{7f}");
    // Held by a client that keeps it alive at the source, for longer than its time.
    let held = api.grant(LeaseGrantRequest { ttl: 8, id: 0x1234 }).expect("a lease is granted").id;
    api.put(put_on_lease("/held", "here", held)).expect("it is put");
    let holder = Client::etcfs(&source.endpoint()).follow(["lease", "keep-alive", "1234"]);
    // Nobody keeps this one.
    let short = api.grant(LeaseGrantRequest { ttl: 3, id: 0x77 }).expect("a lease is granted").id;
    api.put(put_on_lease("/short", "here", short)).expect("it is put");
    let lone = api.grant(LeaseGrantRequest { ttl: 900, id: 0x99 }).expect("a lease is granted").id;

    let writers = Writers::start(&source.endpoint());
    writers.wait_for_more(200);
    let mut migration = start(&source, &target);
    writers.go_on(|| copied(&mut migration));
    writers.wait_for_more(500);
    // Killed in the middle, and compacted while it is away: what was deleted meanwhile is in no history any more.
    drop(migration);
    for number in 0..50 {
        delete(&api, format!("/old/{number:04}"));
    }
    let revision = api.revision();
    api.compact(CompactionRequest { revision, physical: false }).expect("it is compacted");
    writers.wait_for_more(200);
    let mut migration = start(&source, &target);
    copied(&mut migration);
    let finish_early = || Client::etcfs(&source.endpoint()).run(["migrate", "--finish", &target.endpoint()]);
    let unfinished = writers.go_on(finish_early).failed();
    assert!(unfinished.contains("the source goes on changing"), "{unfinished}");
    assert!(!migration.end(), "two runs on one destination");
    let mut migration = start(&source, &target);
    copied(&mut migration);
    wait::until_true("the short lease ends at the source", || !store(&api).contains_key(&b"/short"[..]));
    writers.wait_for_more(500);
    writers.stop();
    // Also without another comparison the two become equal.
    let without_mark = |mut keys: Store| {
        keys.remove(&b"etcfs-migrate"[..]).expect("the mark of a migration");
        keys
    };
    wait::until_true("every change is followed", || without_mark(store(&copy)) == store(&api));
    wait::until_true("every lease is followed", || leases(&copy) == leases(&api));
    drop(migration);

    let said = finish(&source, &target);
    assert!(said.starts_with("equal as of revision "), "{said}");
    let kept = store(&api);
    assert_eq!(store(&copy), kept);
    assert!(kept.len() > 1450 && !kept.contains_key(&b"/old/0007"[..]), "{}", kept.len());
    assert_eq!(leases(&copy), leases(&api));
    assert_eq!(kept[&b"/held"[..]].1, held);
    let (left, granted) = ttl(&copy, lone);
    assert!(granted == 900 && left <= 900 && left >= ttl(&api, lone).0, "{left} of {granted}");
    // Its holder goes on at the destination, by the same id.
    drop(holder);
    let renewed = copy.keep_alive(held).expect("it is renewed");
    assert_eq!(renewed.ttl, 8);
}

fn a_destination_with_keys_is_refused_or_made_equal(from: Kind, to: Kind) {
    let (source, target) = (Server::start(from), Server::start(to));
    let (api, copy) = (source.api(), target.api());
    api.set("a", "1");
    let of_target = copy.grant(LeaseGrantRequest { ttl: 600, id: 5 }).expect("a lease is granted").id;
    let client = Client::etcfs(&source.endpoint());
    let migrate = |flags: &[&str]| {
        let endpoint = target.endpoint();
        client.run(["migrate"].iter().chain(flags).chain([&endpoint.as_str()]))
    };
    assert!(migrate(&[]).failed().contains("not empty: 0 keys, 1 leases"));
    copy.set("b", "own");
    copy.put(put_on_lease("c", "own", of_target)).expect("it is put");
    let refused = migrate(&["--finish"]).failed();
    assert!(refused.contains("not empty: 2 keys, 1 leases") && refused.contains("--overwrite"), "{refused}");
    assert_eq!(store(&copy).len(), 2, "nothing was touched");
    migrate(&["--finish", "--overwrite"]).ok();
    assert_eq!(store(&copy), store(&api));
    assert!(leases(&copy).is_empty());
}

#[test]
fn a_cluster_is_not_migrated_to_itself_or_to_half_a_copy_of_another() {
    let (one, two, target) =
        (Server::start(Kind::Etcfs), Server::start(Kind::Etcfs), Server::start(Kind::Etcfs));
    one.api().set("k", "v");
    let itself = ["migrate", "--overwrite", "--finish", &one.endpoint()];
    let refused = Client::etcfs(&one.endpoint()).run(itself).failed();
    assert!(refused.contains("are the same cluster"), "{refused}");
    assert_eq!(store(&one.api()).len(), 1);

    copied(&mut start(&one, &target));
    let refused = Client::etcfs(&two.endpoint()).run(["migrate", "--finish", &target.endpoint()]).failed();
    assert!(refused.contains("half a copy of another cluster"), "{refused}");
    let refused = Client::etcfs(&target.endpoint()).run(["migrate", "--finish", &two.endpoint()]).failed();
    assert!(refused.contains("a migration to it is not finished"), "{refused}");
    finish(&one, &target);
    assert_eq!(store(&target.api()), store(&one.api()));
}

/// The destination's end is waited for, and nothing is written twice or out of order over it.
#[test]
fn a_destination_that_restarts_is_waited_for() {
    let (source, mut target) = (Server::start(Kind::Etcfs), Server::start(Kind::Etcfs));
    let api = source.api();
    api.set("k", "0");
    let mut migration = start(&source, &target);
    copied(&mut migration);
    target.process().kill();
    for number in 1..100 {
        api.set("k", number.to_string());
    }
    target.run();
    let copy = target.api();
    wait::until_true("the changes arrive", || copy.get("k").is_some_and(|kv| kv.value == "99"));
    drop(migration);
    finish(&source, &target);
    assert_eq!(store(&copy), store(&api));
}

mod from_etcd_to_etcfsd {
    use super::*;

    #[test]
    fn a_cluster_in_use_is_copied_and_followed() {
        super::a_cluster_in_use_is_copied_and_followed(Kind::Etcd, Kind::Etcfs);
    }
    #[test]
    fn a_destination_with_keys_is_refused_or_made_equal() {
        super::a_destination_with_keys_is_refused_or_made_equal(Kind::Etcd, Kind::Etcfs);
    }
}

mod from_etcfsd_to_etcd {
    use super::*;

    #[test]
    fn a_cluster_in_use_is_copied_and_followed() {
        super::a_cluster_in_use_is_copied_and_followed(Kind::Etcfs, Kind::Etcd);
    }
}
