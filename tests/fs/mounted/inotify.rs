//! Programs that listen by inotify hear what other clients change, as the kernel's own events.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use etcfs_proto::etcdserverpb::LeaseRevokeRequest;
use etcfs_tests::{
    api::{Op, delete, delete_prefix, put, txn},
    command::{Client, Followed},
    listener::Listener,
    machine,
    mount::{Mount, mounted},
    server::{Kind, Server},
    wait,
};
use rustix::{
    fs::{Mode, OFlags},
    process::{Pid, Signal, kill_process},
};

use super::Stage;

/// Long enough for an event that must not come.
const QUIET: Duration = Duration::from_millis(300);

/// What a file that is written anew looks like to a listener.
const WRITTEN: [&str; 3] = ["OPEN", "MODIFY", "CLOSE_WRITE"];

fn written(name: &str) -> Vec<String> {
    WRITTEN.iter().map(|what| format!("{what} {name}").trim_end().to_owned()).collect()
}

#[track_caller]
fn hears(listener: &Listener, first: &[&str], file: &str) {
    listener.expect(first);
    let rest = written(file);
    listener.expect(&rest.iter().map(String::as_str).collect::<Vec<_>>());
}

fn every_kind_of_change(kind: Kind) {
    let s = Stage::on(kind);
    s.sh("mkdir d");
    let dir = Listener::to(&s.mount.at("d"));
    s.api.set("/d/f", "one");
    hears(&dir, &["CREATE f"], "f");
    s.api.set("/d/f", "another");
    hears(&dir, &[], "f");
    s.api.delete(delete("/d/f")).expect("a delete is accepted");
    dir.expect(&["DELETE f"]);
    // The first key below makes a directory, the last one takes it away.
    s.api.set("/d/sub/x", "v");
    dir.expect(&["CREATE,ISDIR sub"]);
    s.api.set("/d/sub/y", "v");
    s.api.delete(delete_prefix("/d/sub/")).expect("a delete is accepted");
    dir.expect(&["DELETE,ISDIR sub"]);
    // A lease that ends is a delete too.
    let lease = s.api.grant(etcfs_tests::api::grant(5000)).expect("a lease is granted").id;
    s.api.put(etcfs_tests::api::put_on_lease("/d/leased", "v", lease)).expect("a put is accepted");
    hears(&dir, &["CREATE leased"], "leased");
    s.api.revoke(LeaseRevokeRequest { id: lease }).expect("a lease is revoked");
    dir.expect(&["DELETE leased"]);
    dir.expect_silence(QUIET);
    assert_eq!(s.sh("ls -A d"), "");
}

/// inotify hears what other clients change
#[test]
fn every_kind_of_change_is_an_event_of_the_directory_on_etcfsd() {
    every_kind_of_change(Kind::Etcfs);
}

#[test]
fn every_kind_of_change_is_an_event_of_the_directory_on_etcd() {
    every_kind_of_change(Kind::Etcd);
}

#[test]
fn what_another_mount_does_is_heard_as_if_it_were_done_here() {
    let s = Stage::new();
    let other = Mount::root(&s.server.endpoint());
    s.sh("mkdir d d/e");
    wait::until_true("the directories show", || other.at("d/e").exists());
    let (dir, inner) = (Listener::to_changes(&s.mount.at("d")), Listener::to_changes(&s.mount.at("d/e")));
    other.sh("echo v > d/f");
    dir.expect(&["CREATE f", "MODIFY f", "CLOSE_WRITE f"]);
    other.sh("echo more >> d/f");
    dir.expect(&["MODIFY f", "CLOSE_WRITE f"]);
    other.sh("mv d/f d/g");
    let (from, to) = (dir.next().1, dir.next().1);
    assert_eq!((from.what.as_str(), from.name.as_str()), ("MOVED_FROM", "f"));
    assert_eq!((to.what.as_str(), to.name.as_str()), ("MOVED_TO", "g"));
    assert!(from.cookie == to.cookie && from.cookie != 0, "the two belong together");
    assert_eq!(s.sh("ls d; cat d/g"), "e\ng\nv\nmore\n");
    // Into another directory, over a file that is there.
    other.sh("echo old > d/e/g");
    inner.expect(&["CREATE g", "MODIFY g", "CLOSE_WRITE g"]);
    other.sh("mv d/g d/e/g");
    dir.expect(&["MOVED_FROM g"]);
    inner.expect(&["MOVED_TO g"]);
    assert_eq!(s.sh("cat d/e/g; ls d"), "v\nmore\ne\n");
    other.sh("mkdir d/new; rmdir d/new; rm d/e/g");
    dir.expect(&["CREATE,ISDIR new", "DELETE,ISDIR new"]);
    inner.expect(&["DELETE g"]);
    other.sh("rmdir d/e");
    dir.expect(&["DELETE,ISDIR e"]);
    inner.expect(&["DELETE_SELF"]);
    dir.expect_silence(QUIET);
}

/// A watch of the file itself hears too, and goes on hearing while the file is read
#[test]
fn a_watch_of_the_file_hears_every_change_while_somebody_reads_it() {
    let s = Stage::new();
    s.api.set("/d/f", "start\n");
    s.comes_to_print("cat d/f", "start\n");
    let mut tail = Followed::sh(&s.mount.path(), "tail -f d/f");
    tail.expect(&["start"]);
    let file = Listener::to_changes(&s.mount.at("d/f"));
    let dir = Listener::to_changes(&s.mount.at("d"));
    let changed = ["MODIFY", "CLOSE_WRITE"];
    for value in ["other", "same.", "again", "a longer one", "s"] {
        s.api.set("/d/f", format!("{value}\n"));
        tail.expect(&[value]);
        file.expect(&changed);
        dir.expect(&["MODIFY f", "CLOSE_WRITE f"]);
    }
    // This mount's own writes go through another inode by now.
    s.sh("echo own > d/f");
    tail.expect(&["own"]);
    file.expect(&changed);
    drop(tail);
    s.api.set("/d/f", "without a reader\n");
    file.expect(&changed);
    s.api.delete(delete("/d/f")).expect("a delete is accepted");
    file.expect(&["DELETE_SELF"]);
}

/// None is lost and none doubled for a listener that keeps up
#[test]
fn a_file_that_was_found_and_is_not_opened_yet_is_heard_to_change_once() {
    let s = Stage::new();
    s.sh("mkdir d; echo 0 > d/f");
    let dir = Listener::to_changes(&s.mount.at("d"));
    for is_watched in [false, true] {
        let file = is_watched.then(|| Listener::to_changes(&s.mount.at("d/f")));
        for number in 0..50 {
            // The kernel was told of this inode just now, so that the change gives the name another one.
            let found =
                rustix::fs::open(s.mount.at("d/f"), OFlags::PATH, Mode::empty()).expect("it is there");
            s.api.set("/d/f", number.to_string());
            dir.expect(&["MODIFY f", "CLOSE_WRITE f"]);
            if let Some(file) = &file {
                file.expect(&["MODIFY", "CLOSE_WRITE"]);
            }
            drop(found);
        }
        dir.expect_silence(QUIET);
    }
}

#[test]
fn without_the_right_to_open_handles_a_file_that_is_read_is_heard_of_all_the_same() {
    let mut s = Stage::new();
    s.mount = Mount::without_handles(&s.server.endpoint());
    s.api.set("/d/f", "start\n");
    s.comes_to_print("cat d/f", "start\n");
    let file = Listener::to_changes(&s.mount.at("d/f"));
    s.api.set("/d/f", "without a reader\n");
    file.expect(&["MODIFY", "CLOSE_WRITE"]);
    let mut tail = Followed::sh(&s.mount.path(), "tail -f d/f");
    tail.expect(&["without a reader"]);
    let helper = wait::until("there is a helper", || helpers(&s.mount.path()).first().copied());
    wait::until_true("the helper holds the file", || {
        let open = fs::read_dir(format!("/proc/{helper}/fd")).into_iter().flatten().flatten();
        let path = s.mount.at("d/f");
        open.into_iter().any(|fd| fs::read_link(fd.path()).is_ok_and(|target| target == path))
    });
    for value in ["one", "two", "three"] {
        s.api.set("/d/f", format!("{value}\n"));
        tail.expect(&[value]);
        file.expect(&["MODIFY", "CLOSE_WRITE"]);
    }
    drop(tail);
    s.api.set("/d/f", "without a reader again\n");
    file.expect(&["MODIFY", "CLOSE_WRITE"]);
    wait::until_true("the helper lets go", || {
        fs::read_dir(format!("/proc/{helper}/fd")).is_ok_and(|open| open.count() == 1)
    });
}

/// This mount's own changes are heard once
#[test]
fn own_changes_are_heard_once() {
    let s = Stage::new();
    s.sh("mkdir d; echo 0 > d/f; cat d/f");
    let dir = Listener::to_changes(&s.mount.at("d"));
    // No `echo 1 > d/f`: of the two equal events of cutting and writing, the kernel tells one if none is read between.
    let script =
        "echo 1 >> d/f; echo 2 >> d/f; echo new > d/n; mv d/n d/m; mkdir d/s; rmdir d/s; rm d/m; touch d/t";
    s.sh(script);
    let own: Vec<&str> = "MODIFY f,CLOSE_WRITE f,MODIFY f,CLOSE_WRITE f,CREATE n,MODIFY n,CLOSE_WRITE n,\
                          MOVED_FROM n,MOVED_TO m,CREATE;ISDIR s,DELETE;ISDIR s,DELETE m,CREATE t,CLOSE_WRITE t"
        .split(',')
        .collect();
    let own: Vec<String> = own.iter().map(|event| event.replace(';', ",")).collect();
    dir.expect(&own.iter().map(String::as_str).collect::<Vec<_>>());
    // Also where many are under way while others change the same keys' neighbours.
    let api = s.api.clone();
    let remote = std::thread::spawn(move || (0..200).for_each(|i| _ = api.set(&format!("/d/r{i}"), "v")));
    s.sh("for i in $(seq 200); do echo v > d/l$i; done");
    remote.join().expect("no panic");
    let mut heard: HashMap<String, usize> = HashMap::new();
    for _ in 0..3 * 400 {
        *heard.entry(dir.next().1.name).or_default() += 1;
    }
    dir.expect_silence(QUIET);
    assert!(heard.len() == 400 && heard.values().all(|&count| count == 3), "{heard:?}");
}

#[test]
fn a_name_that_turns_from_file_to_directory_goes_and_comes() {
    let s = Stage::new();
    s.api.set("/d/a", "file");
    s.comes_to_print("cat d/a", "file");
    let dir = Listener::to_changes(&s.mount.at("d"));
    s.api.set("/d/a/x", "child");
    dir.expect(&["DELETE a", "CREATE,ISDIR a"]);
    s.comes_to_print("cat d/a/x d/a/%value", "childfile");
    let inner = Listener::to_changes(&s.mount.at("d/a"));
    s.api.set("/d/a", "changed");
    inner.expect(&["MODIFY %value", "CLOSE_WRITE %value"]);
    s.api.delete(delete("/d/a/x")).expect("a delete is accepted");
    inner.expect(&["DELETE x", "DELETE_SELF"]);
    dir.expect(&["DELETE,ISDIR a", "CREATE a", "MODIFY a", "CLOSE_WRITE a"]);
    s.comes_to_print("cat d/a", "changed");
    dir.expect_silence(QUIET);
}

#[test]
fn a_bare_key_is_heard_in_rel_and_its_link_in_the_root() {
    let s = Stage::new();
    let (root, rel) = (Listener::to_changes(&s.mount.path()), Listener::to_changes(&s.mount.at("%rel")));
    s.api.set("first", "1");
    root.expect(&["CREATE first"]);
    rel.expect(&["CREATE first", "MODIFY first", "CLOSE_WRITE first"]);
    s.api.set("name", "v");
    root.expect(&["CREATE name"]);
    rel.expect(&["CREATE name", "MODIFY name", "CLOSE_WRITE name"]);
    s.api.delete(delete("name")).expect("a delete is accepted");
    root.expect(&["DELETE name"]);
    rel.expect(&["DELETE name"]);
    // One transaction, several keys.
    s.api.txn(txn([Op::Put(put("/x", "1")), Op::Put(put("/y", "2"))])).expect("a transaction is accepted");
    let mut seen = root.until(|event| event.what == "CLOSE_WRITE" && event.name == "y");
    seen.sort();
    assert_eq!(seen, ["CLOSE_WRITE x", "CLOSE_WRITE y", "CREATE x", "CREATE y", "MODIFY x", "MODIFY y"]);
}

/// Changes of this test: each of a third of the keys is made, changed and removed.
const STORM: u64 = 10_000;

/// None is lost and none doubled for a listener that keeps up
#[test]
fn a_storm_of_changes_is_heard_whole() {
    let s = Stage::new();
    s.sh("mkdir d");
    let dir = Listener::to_changes(&s.mount.at("d"));
    let count = machine::setting("ETCFS_TEST_EVENTS", STORM) as usize / 3;
    let began = Instant::now();
    let keys: Vec<String> = (0..count).map(|number| format!("/d/key-{number:05}")).collect();
    let each = |change: &(dyn Fn(&str) + Sync)| {
        std::thread::scope(|scope| {
            for part in keys.chunks(count.div_ceil(4)) {
                scope.spawn(move || part.iter().for_each(|key| change(key)));
            }
        });
    };
    // Of each key in its order, and nothing else.
    let hear = |wanted: &[&str]| {
        let mut heard: HashMap<String, Vec<String>> = HashMap::new();
        for _ in 0..wanted.len() * count {
            let event = dir.next().1;
            heard.entry(event.name).or_default().push(event.what);
        }
        assert_eq!(heard.len(), count);
        heard.iter().for_each(|(name, events)| assert_eq!(events, wanted, "{name}"));
    };
    each(&|key| _ = s.api.set(key, "one"));
    hear(&["CREATE", "MODIFY", "CLOSE_WRITE"]);
    each(&|key| _ = s.api.set(key, "changed"));
    hear(&["MODIFY", "CLOSE_WRITE"]);
    each(&|key| drop(s.api.delete(delete(key)).expect("a delete is accepted")));
    hear(&["DELETE"]);
    dir.expect_silence(QUIET);
    etcfs_tests::process::show(&format!("{} changes heard in {:?}", 3 * count, began.elapsed()));
    assert_eq!(s.sh("ls d"), "");
}

/// The processes that are the helper of a mount on `path`.
fn helpers(path: &Path) -> Vec<i32> {
    let path = path.display().to_string();
    let processes = fs::read_dir("/proc").expect("/proc can be read").flatten();
    processes
        .filter_map(|process| {
            let line = fs::read(process.path().join("cmdline")).ok()?;
            let line = String::from_utf8_lossy(&line).into_owned();
            let words: Vec<&str> = line.split('\0').collect();
            let ours = words.contains(&"--inotify-helper") && words.contains(&path.as_str());
            process.file_name().to_str()?.parse().ok().filter(|_| ours)
        })
        .collect()
}

#[test]
fn a_helper_that_is_killed_is_started_again_and_no_change_goes_unheard() {
    let s = Stage::new();
    s.sh("mkdir d");
    let dir = Listener::to_changes(&s.mount.at("d"));
    let path = s.mount.path();
    let old = wait::until("there is a helper", || helpers(&path).first().copied());
    let api = s.api.clone();
    let writer = std::thread::spawn(move || (0..1000).for_each(|i| _ = api.set(&format!("/d/f{i}"), "v")));
    let mut killed = 0;
    while !writer.is_finished() {
        if let Some(helper) = helpers(&path).first().copied().and_then(Pid::from_raw) {
            let _gone_already = kill_process(helper, Signal::KILL);
            killed += 1;
        }
        // One a few milliseconds, not as fast as they come.
        wait::poll(Duration::from_millis(20), || writer.is_finished());
    }
    writer.join().expect("no panic");
    s.api.set("/d/last", "v");
    let seen = dir.until(|event| event.what == "CLOSE_WRITE" && event.name == "last");
    let created = seen.iter().filter(|event| event.starts_with("CREATE ")).count();
    assert_eq!(created, 1001, "each file once, with {killed} helpers killed");
    let now = wait::until("there is a helper", || helpers(&path).first().copied());
    assert!(killed > 3 && now != old, "{killed} helpers were killed");
}

/// A copy of the daemon's descriptors, made too late, kept the helper's own end of its socket open: the daemon waited
/// for ever for the answer of a helper that was dead.
#[test]
fn no_thread_of_a_mounted_daemon_keeps_the_helpers_end_of_the_socket() {
    let server = Server::etcfs();
    for _ in 0..5 {
        let mut mount = Mount::root(&server.endpoint());
        let helper = wait::until("there is a helper", || helpers(&mount.path()).first().copied());
        let sockets = |of: &Path| -> Vec<PathBuf> {
            let open = fs::read_dir(of.join("fd")).into_iter().flatten().flatten();
            let targets = open.filter_map(|fd| fs::read_link(fd.path()).ok());
            targets.filter(|target| target.to_string_lossy().starts_with("socket:")).collect()
        };
        let [theirs] = wait::until("the helper has its socket alone", || {
            <[PathBuf; 1]>::try_from(sockets(Path::new(&format!("/proc/{helper}")))).ok()
        });
        let tasks = format!("/proc/{}/task", mount.process().pid());
        // Who starts it has it for a moment.
        wait::until_true("the daemon has let go of the helper's end", || {
            let mut tasks = fs::read_dir(&tasks).expect("the daemon runs").flatten();
            tasks.all(|task| !sockets(&task.path()).contains(&theirs))
        });
    }
}

#[test]
fn a_daemon_that_is_killed_under_a_storm_leaves_nothing_hanging() {
    let mut s = Stage::new();
    s.sh("mkdir d; echo v > d/f");
    for _ in 0..5 {
        let _dir = Listener::to(&s.mount.at("d"));
        let _file = Listener::to(&s.mount.at("d/f"));
        let mut tail = Followed::sh(&s.mount.path(), "tail -f d/f");
        tail.line();
        let api = s.api.clone();
        let writer = std::thread::spawn(move || {
            for number in 0..300 {
                api.set("/d/f", format!("{number}\n"));
                api.set(&format!("/d/g{}", number % 7), "v");
            }
        });
        wait::until_true("the storm goes on", || tail.line().parse::<u32>().is_ok_and(|number| number > 20));
        s.mount.kill();
        wait::until_true("the helper is gone", || helpers(&s.mount.path()).is_empty());
        writer.join().expect("the server goes on");
        s.mount.run();
        s.comes_to_print("cat d/f", "299\n");
    }
    let path = s.mount.path();
    s.mount.unmount();
    assert!(!mounted(&path));
    wait::until_true("the helper is gone", || helpers(&path).is_empty());
}

/// Nothing is repeated where nobody can be listening
#[test]
fn nothing_is_repeated_where_nobody_can_listen() {
    let s = Stage::new();
    s.api.set("/quiet/f", "v");
    s.sh("mkdir d");
    let dir = Listener::to(&s.mount.at("d"));
    let helper = wait::until("there is a helper", || helpers(&s.mount.path()).first().copied());
    let woken = || {
        let status = fs::read_to_string(format!("/proc/{helper}/status")).expect("it lives");
        let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        count.and_then(|count| count.trim().parse::<u64>().ok()).expect("a number")
    };
    // So that it has started.
    s.api.set("/d/first", "v");
    hears(&dir, &["CREATE first"], "first");
    let before = woken();
    // Of a directory that was never looked up, the kernel holds nothing; of this one it holds the watch.
    for number in 0..20 {
        s.api.set("/quiet/f", format!("{number}"));
        s.api.set(&format!("/quiet/g{number}"), "v");
    }
    s.api.set("/d/last", "v");
    hears(&dir, &["CREATE last"], "last");
    let woken = woken() - before;
    assert!(woken < 10, "the helper was woken {woken} times for one change that somebody can hear, of 41");
    let off = Mount::with(&format!("{}:/", s.server.endpoint()), "inotify=off");
    let dir = Listener::to(&off.at("d"));
    assert!(helpers(&off.path()).is_empty());
    s.api.set("/d/last", "changed");
    wait::until_true("it shows", || fs::read_to_string(off.at("d/last")).is_ok_and(|text| text == "changed"));
    let seen = dir.until(|event| event.what == "OPEN");
    assert_eq!(seen.last().map(String::as_str), Some("OPEN last"), "by the reader alone");
}

/// Prints the path of each file that was written in the mount where it stands, by a mark of the whole mount.
const FANOTIFY: &str = r#"python3 -u -c 'import ctypes, os, struct, sys
ADD, MOUNT, CLOSE_WRITE, AT_FDCWD = 1, 16, 8, -100
libc = ctypes.CDLL(None)
events = libc.fanotify_init(0, os.O_RDONLY)
assert libc.fanotify_mark(events, ADD | MOUNT, ctypes.c_uint64(CLOSE_WRITE), AT_FDCWD, b".") == 0
print("listens")
while True:
    left = os.read(events, 4096)
    while left:
        length, _, _, _, _, file, _ = struct.unpack("=IBBHQii", left[:24])
        print(os.path.relpath(os.readlink(f"/proc/self/fd/{file}").removesuffix(sys.argv[1])))
        os.close(file)
        left = left[length:]'"#;

/// Nothing is repeated where nobody can be listening
#[test]
fn a_mark_of_the_whole_mount_hears_of_everything_where_that_is_asked_for() {
    machine::program("python3");
    let s = Stage::new();
    let source = format!("{}:/", s.server.endpoint());
    let (always, auto) = (Mount::with(&source, "inotify=always"), Mount::with(&source, "inotify=auto"));
    // A name that the kernel heard of for this alone is soon dropped, unless that is asked for.
    let mut listeners = [(&always, ""), (&auto, " (deleted)")]
        .map(|(mount, suffix)| Followed::sh(&mount.path(), &format!("{FANOTIFY} '{suffix}'")));
    for listener in &mut listeners {
        listener.expect(&["listens"]);
    }
    // The kernel knows nothing of this directory.
    s.api.set("/deep/down/f", "one");
    listeners[0].expect(&["deep/down/f"]);
    s.api.set("/deep/down/f", "another");
    listeners[0].expect(&["deep/down/f"]);
    // The mount point itself is always held.
    s.api.set("/top", "v");
    for listener in &mut listeners {
        listener.expect(&["top"]);
    }
}

#[test]
fn inotifywait_and_a_loop_of_it_work() {
    let s = Stage::new();
    s.sh("mkdir d");
    let inotifywait = machine::program("inotifywait").display().to_string();
    let mut monitor = Followed::sh(
        &s.mount.path(),
        &format!("{inotifywait} -m -q --format '%e %f' -e create,close_write,delete d"),
    );
    wait::until_true("inotifywait has its watch", || watches(monitor.pid()));
    let etcdctl = Client::etcdctl(&s.server.endpoint());
    etcdctl.run(["put", "/d/f", "one"]).ok();
    monitor.expect(&["CREATE f", "CLOSE_WRITE,CLOSE f"]);
    // The usual loop: wait for a change, then read.
    let script = format!(
        "sh -c 'while {inotifywait} -qq -e close_write d/f; do cat d/f; [ \"$(cat d/f)\" != end ] || exit 0; done'"
    );
    let mut reader = Followed::sh(&s.mount.path(), &script);
    for value in ["two", "three", "end"] {
        wait::until_true("the loop waits", || children(reader.pid()).into_iter().any(watches));
        etcdctl.run_with(["put", "/d/f"], format!("{value}\n").as_bytes()).ok();
        monitor.expect(&["CLOSE_WRITE,CLOSE f"]);
        reader.expect(&[value]);
    }
    assert!(reader.end());
    etcdctl.run(["del", "/d/f"]).ok();
    monitor.expect(&["DELETE f"]);
}

/// A watcher as a Python program has it, by the C library's own calls.
const WATCHER: &str = r"
import ctypes, os, struct
libc = ctypes.CDLL(None, use_errno=True)
fd = libc.inotify_init()
assert libc.inotify_add_watch(fd, b'd', 0x8 | 0x100 | 0x200 | 0xc0) > 0
print('ready', flush=True)
while True:
    data = os.read(fd, 65536)
    while data:
        _, mask, _, length = struct.unpack('iIII', data[:16])
        name = data[16:16 + length].rstrip(b'\0').decode()
        data = data[16 + length:]
        text = open('d/' + name).read().strip() if mask == 0x8 and os.path.exists('d/' + name) else ''
        print(mask, name, text, flush=True)
";

#[test]
fn a_python_watcher_reads_what_it_hears_of() {
    let s = Stage::new();
    s.sh("mkdir d");
    let script = s.server.scratch().join("watcher.py");
    fs::write(&script, WATCHER).expect("a file outside the mount");
    let mut watcher = Followed::sh(&s.mount.path(), &format!("python3 {}", script.display()));
    watcher.expect(&["ready"]);
    for value in ["one", "two", "three"] {
        s.api.set("/d/config", format!("{value}\n"));
        if value == "one" {
            watcher.expect(&["256 config "]);
        }
        watcher.expect(&[&format!("8 config {value}")]);
    }
    s.api.delete(delete("/d/config")).expect("a delete is accepted");
    watcher.expect(&["512 config "]);
}

/// True if a process has an inotify watch.
fn watches(pid: u32) -> bool {
    let Ok(facts) = fs::read_dir(format!("/proc/{pid}/fdinfo")) else { return false };
    facts.flatten().any(|fd| fs::read_to_string(fd.path()).is_ok_and(|text| text.contains("inotify wd:")))
}

fn children(pid: u32) -> Vec<u32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}
