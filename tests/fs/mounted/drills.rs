//! What goes wrong while programs are busy in the mount; and every change of thousands heard once.

use std::{
    collections::BTreeMap,
    fs,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use etcfs_tests::{
    api::{Api, delete},
    cluster::Cluster,
    command::{Client, Followed, sh},
    listener::Listener,
    machine,
    mount::{Mount, mounted},
    process::show,
    server::Server,
    wait,
};
use rustix::process::Signal;

use super::{Stage, consistency::state};

/// Long enough for an event that must not come.
const QUIET: Duration = Duration::from_millis(300);

/// Files that change in one go.
const FILES: u64 = 40;

/// What one kind of change looks like to a listener, its end last.
const CREATED: [&str; 3] = ["CREATE", "MODIFY", "CLOSE_WRITE"];
const MODIFIED: [&str; 2] = ["MODIFY", "CLOSE_WRITE"];
const DELETED: [&str; 1] = ["DELETE"];

/// Changes all files, each by `change`, and checks that each was heard as `events` and nothing else was. Gives how
/// long after it was asked for each change was heard.
fn heard_once(listener: &Listener, events: &[&str], change: impl Fn(u64)) -> Vec<Duration> {
    let mut asked = BTreeMap::new();
    let mut heard: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in 0..FILES {
        asked.insert(format!("f{file}"), Instant::now());
        change(file);
    }
    let mut took = Vec::new();
    while took.len() < FILES as usize {
        let (at, event) = listener.next();
        if Some(&event.what.as_str()) == events.last() {
            took.push(at.duration_since(asked[&event.name]));
        }
        heard.entry(event.name).or_default().push(event.what);
    }
    for name in asked.keys() {
        assert_eq!(heard[name], events, "{name}");
    }
    took
}

/// None is lost and none doubled for a listener that keeps up
#[test]
fn each_of_thousands_of_mounted_changes_is_heard_once() {
    let s = Stage::new();
    let other = Mount::root(&s.server.endpoint());
    let etcdctl = Client::etcdctl(&s.server.endpoint());
    s.sh("mkdir d");
    wait::until_true("the directory shows", || other.at("d").exists());
    let listener = Listener::to_changes(&s.mount.at("d"));
    let key = |file: u64| format!("/d/f{file}");
    let remove = |api: &Api, file: u64| drop(api.delete(delete(&key(file))).expect("a delete is accepted"));
    let mut took = Vec::new();
    while (took.len() as u64) < machine::setting("ETCFS_TEST_EVENTS", 10_000) {
        // By the API, by etcdctl and by another mount.
        took.extend(heard_once(&listener, &CREATED, |file| {
            s.api.set(&key(file), "one");
        }));
        took.extend(heard_once(&listener, &MODIFIED, |file| match file % 2 {
            0 => {
                s.api.set(&key(file), "two");
            }
            _ => fs::write(other.at(format!("d/f{file}")), "two").expect("it is written"),
        }));
        took.extend(heard_once(&listener, &DELETED, |file| match file {
            0 => drop(etcdctl.run(["del", &key(file)]).ok()),
            _ if file % 2 == 0 => remove(&s.api, file),
            _ => fs::remove_file(other.at(format!("d/f{file}"))).expect("it is removed"),
        }));
    }
    listener.expect_silence(QUIET);
    took.sort();
    let at = |percent: usize| took[took.len() * percent / 100];
    show(&format!(
        "{} changes, each heard once: p50 {:?}, p99 {:?} after it was asked for",
        took.len(),
        at(50),
        at(99)
    ));
}

/// None is lost and none doubled for a listener that keeps up
#[test]
fn a_mounted_file_that_is_opened_again_and_again_is_heard_to_change_once_each_time() {
    let s = Stage::new();
    s.sh("mkdir d; echo 0 > d/f");
    let listener = Listener::to_changes(&s.mount.at("d"));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                fs::read(s.mount.at("d/f")).expect("it is there");
            }
        });
        let heard = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for number in 0..machine::setting("ETCFS_TEST_EVENTS", 10_000) / 20 {
                s.api.set("/d/f", number.to_string());
                listener.expect(&["MODIFY f", "CLOSE_WRITE f"]);
            }
            listener.expect_silence(QUIET);
        }));
        stop.store(true, Ordering::Relaxed);
        heard.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

/// Programs that do nothing but use the mount, until it fails them. All by the shell's own means, so that who uses
/// it is one process each; and none by what the kernel may have kept.
const BUSY: [&str; 5] = [
    "while read -r x < f; do :; done",
    "while echo line > g; do :; done",
    "while echo line >> log; do :; done",
    "while : > d/$(((n = n + 1) % 50)); do :; done",
    "while set -- d/*; [ -e \"$1\" ]; do :; done",
];

fn busy(mount: &Mount) -> Vec<Followed> {
    BUSY.iter().map(|script| Followed::sh(&mount.path(), &format!("sh -c '{script}' 2> /dev/null"))).collect()
}

/// They end by themselves, with the mount, and none of them is held in the kernel.
#[track_caller]
fn all_end(busy: &mut [Followed]) {
    for one in busy.iter_mut() {
        one.end();
        assert_ne!(state(one.pid()), Some('D'));
    }
}

fn stage() -> Stage {
    let s = Stage::new();
    s.sh("echo v > f; mkdir d; : > d/0");
    s
}

fn is_in_use(s: &Stage) {
    let before = s.api.revision();
    wait::until_true("the programs are at it", || s.api.revision() > before + 50);
}

/// A new mount over a dead one works
#[test]
fn a_busy_daemon_that_is_killed_is_mounted_over_at_once() {
    let mut s = stage();
    for _ in 0..5 {
        let mut programs = busy(&s.mount);
        is_in_use(&s);
        // Not waited for: the kernel still shows the mount point as it was.
        s.mount.process().signal(Signal::KILL);
        s.mount.run();
        all_end(&mut programs);
        s.comes_to_print("cat f", "v\n");
        assert!(s.mount.process().has_ended().is_none());
    }
}

/// SIGTERM unmounts and leaves no process
#[test]
fn a_busy_mount_is_not_unmounted_by_the_way_and_ends_with_its_daemon() {
    let mut s = stage();
    let mut programs = busy(&s.mount);
    is_in_use(&s);
    let path = s.mount.path();
    let refused = sh(path.parent().expect("a directory of ours"), "umount mnt").failed();
    assert!(refused.contains("busy"), "{refused}");
    is_in_use(&s);
    s.mount.process().signal(Signal::TERM);
    let status = s.mount.process().wait_for_end(wait::PATIENCE);
    assert!(status.success(), "{status}");
    assert!(!mounted(&path));
    all_end(&mut programs);
    // Each line that was written and answered is there, whole.
    let log = s.api.value("/log").expect("it was written");
    assert!(log.lines().all(|line| line == "line") && log.ends_with('\n'), "{log:?}");
}

/// Without the server the mount waits
/// A soft mount gives up after its time
#[test]
fn programs_in_a_mount_go_on_after_all_its_servers_were_away() {
    const WRITER: &str = "sh -c 'n=0; while [ ! -e \"$STOP\" ]; do \
        echo $n > current && echo $n >> log || exit 1; echo $n; n=$((n + 1)); done; echo end'";
    let timeo = Duration::from_secs(2);
    let mut cluster = Cluster::etcfs(3);
    let (hard, soft) = (
        Mount::root(&cluster.endpoints()),
        Mount::with(&format!("{}:/", cluster.endpoints()), &format!("soft,timeo={}", timeo.as_secs())),
    );
    let stop = cluster.members[0].scratch().join("stop");
    let mut writer = Followed::sh(&hard.path(), &WRITER.replace("$STOP", &stop.display().to_string()));
    soft.sh("/bin/echo before > soft");
    for number in 0..20 {
        writer.expect(&[&number.to_string()]);
    }
    cluster.members.iter_mut().for_each(Server::kill);
    let away = Instant::now();
    while away.elapsed() < Duration::from_secs(machine::setting("ETCFS_TEST_OUTAGE_SECONDS", 30)) {
        let asked = Instant::now();
        let complaint = sh(&soft.path(), "/bin/echo lost > soft").failed();
        let took = asked.elapsed();
        assert!(complaint.contains("Connection timed out"), "{complaint}");
        // One wait for the name, one for the change, and a loaded machine.
        assert!(took >= timeo / 2 && took < timeo * 4, "after {took:?}");
    }
    cluster.run();
    fs::write(stop, "").expect("outside the mount");
    let mut count = 20;
    loop {
        let line = writer.line();
        if line == "end" {
            break;
        }
        assert_eq!(line, count.to_string());
        count += 1;
    }
    let lines: String = (0..count).map(|number| format!("{number}\n")).collect();
    assert_eq!(cluster.api(0).value("/log"), Some(lines), "each once and in order");
    wait::until_true("the soft mount goes on", || sh(&soft.path(), "/bin/echo after > soft").code == 0);
    assert_eq!(cluster.api(1).value("/soft").as_deref(), Some("after\n"));
}
