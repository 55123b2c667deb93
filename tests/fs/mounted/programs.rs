//! Programs that know nothing of etcfs, in a mount: they do there what they do on a disk.

use std::{fs, path::Path, process::Command};

use etcfs_tests::{
    api::delete,
    command::{self, Followed},
    machine,
    mount::Mount,
    server::Kind,
};
use tempfile::TempDir;

use super::Stage;

/// Directories and files outside of the mount, as people have them: odd names, an empty file, a large one.
fn tree() -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let script = "mkdir -p a/b/c 'with space' && for i in $(seq 20); do echo line $i > a/f$i; done && \
                  head -c 200000 /dev/urandom > a/b/large && : > a/b/c/nothing && echo x > 'with space/\u{fc}n\u{ef}code' && \
                  echo y > .hidden";
    command::sh(dir.path(), script).ok();
    dir
}

#[track_caller]
fn bash(dir: &Path, script: &str) -> String {
    command::bash(dir, &format!("set -euo pipefail; umask 022; {script}")).ok()
}

fn trees_are_copied_moved_packed_and_searched(s: &Stage) {
    let tree = tree();
    let source = tree.path().display();
    bash(
        &s.mount.path(),
        &format!("cp -r {source} copy; diff -r {source} copy; mv copy moved; diff -r {source} moved"),
    );
    // To a second mount of the same keys it is all the same.
    let other = Mount::root(&s.server.endpoint());
    bash(&other.path(), &format!("diff -r {source} moved"));
    bash(
        &s.mount.path(),
        &format!("tar cf {source}.tar -C moved .; tar tf {source}.tar > /dev/null; mkdir untar"),
    );
    bash(
        &s.mount.path(),
        &format!(
            "tar xf {source}.tar --touch --no-same-permissions -C untar; diff -r {source} untar; rm {source}.tar"
        ),
    );
    assert_eq!(bash(&s.mount.path(), "find moved untar -type f | wc -l"), "48\n");
    assert_eq!(bash(&s.mount.path(), "grep -rl 'line 7' . | sort"), "./moved/a/f7\n./untar/a/f7\n");
    assert_eq!(
        bash(&s.mount.path(), "find . -name '*large' -size +100k | sort"),
        "./moved/a/b/large\n./untar/a/b/large\n"
    );
    bash(&s.mount.path(), "rm -r moved untar");
    assert!(s.api.all("/").is_empty(), "{:?}", s.api.all("/"));
}

#[test]
fn trees_are_copied_moved_packed_and_searched_on_etcfsd() {
    trees_are_copied_moved_packed_and_searched(&Stage::new());
}

#[test]
fn trees_are_copied_moved_packed_and_searched_on_etcd() {
    trees_are_copied_moved_packed_and_searched(&Stage::on(Kind::Etcd));
}

#[test]
fn rsync_has_nothing_to_do_the_second_time() {
    let s = Stage::new();
    machine::program("rsync");
    let tree = tree();
    let source = tree.path().display();
    bash(&s.mount.path(), &format!("rsync -rc {source}/ sync; diff -r {source} sync"));
    let revision = s.api.revision();
    assert_eq!(bash(&s.mount.path(), &format!("rsync -rc --itemize-changes {source}/ sync")), "");
    assert_eq!(s.api.revision(), revision, "looking is no change");
    fs::write(tree.path().join("a/f7"), "changed\n").expect("a file of our own");
    let changed = bash(&s.mount.path(), &format!("rsync -rc --out-format=%n {source}/ sync"));
    assert_eq!(changed, "a/f7\n");
    bash(&s.mount.path(), &format!("diff -r {source} sync"));
}

fn repositories_are_cloned_and_committed_to(s: &Stage) {
    let outside = tempfile::tempdir().expect("a temporary directory");
    let origin = outside.path().display();
    let identity = "git config user.email a@b && git config user.name a";
    bash(
        outside.path(),
        &format!(
            "git init -q . && {identity} && for i in 1 2 3; do echo $i > f$i; done && git add . && git commit -qm one"
        ),
    );
    bash(&s.mount.path(), &format!("git clone -q file://{origin} clone"));
    let clone = s.mount.at("clone");
    assert_eq!(
        bash(&clone, &format!("{identity}; git status --short; echo more > f2; git status --short")),
        " M f2\n"
    );
    bash(&clone, "git commit -qam two; git fsck --strict; git gc -q; git fsck --strict");
    assert_eq!(bash(&clone, "git log --format=%s; git status --short"), "two\none\n");
    let back = bash(outside.path(), &format!("git clone -q {} back; cat back/f2", clone.display()));
    assert_eq!(back, "more\n");
}

/// Mode, owner and times come from the mount
#[test]
fn a_repository_is_cloned_from_a_path_without_the_times_of_its_files() {
    let s = Stage::new();
    let outside = tempfile::tempdir().expect("a temporary directory");
    let origin = outside.path().display();
    bash(
        outside.path(),
        "git init -q . && git config user.email a@b && git config user.name a && echo v > f && \
         git add . && git commit -qm one && touch -d '1 hour ago' .git/objects/*/*",
    );
    let refused = command::bash(&s.mount.path(), &format!("git clone -q {origin} clone")).failed();
    assert!(refused.contains("Operation not permitted"), "{refused}");
    let quiet = Mount::with(&format!("{}:/", s.server.endpoint()), "quiet");
    for (mount, how) in [(&s.mount, "--no-local"), (&quiet, "--local --no-hardlinks")] {
        let script = format!(
            "git clone -q {how} {origin} clone; git -C clone fsck --strict; cat clone/f; rm -r clone"
        );
        assert_eq!(bash(&mount.path(), &script), "v\n");
    }
}

/// A process reads what it has written
fn a_pack_with_deltas_is_read_by_several_threads_while_it_is_written(s: &Stage) {
    let outside = tempfile::tempdir().expect("a temporary directory");
    let origin = outside.path().display();
    bash(
        outside.path(),
        "git init -q . && git config user.email a@b && git config user.name a && \
         for i in $(seq 40); do \
             for f in 1 2 3 4 5; do seq $((i * f)) $((i * f + 900)) > f$f; done; \
             head -c 20000 /dev/urandom > large; git add . && git commit -qm $i; \
         done && git gc -q",
    );
    let deltas = bash(outside.path(), "git verify-pack -v .git/objects/pack/*.idx | grep -c '^chain length'");
    assert!(deltas.trim().parse::<u32>().is_ok_and(|chains| chains > 1), "{deltas}");
    for threads in ["", "-c pack.threads=4"] {
        bash(
            &s.mount.path(),
            &format!(
                "git {threads} clone -q file://{origin} clone; git -C clone fsck --strict --full; \
                 diff -r --exclude=.git {origin} clone; git -C clone log --format=%s | sort -n | tail -1; \
                 rm -r clone"
            ),
        );
    }
}

#[test]
fn a_pack_with_deltas_is_cloned_into_a_mount_on_etcfsd() {
    a_pack_with_deltas_is_read_by_several_threads_while_it_is_written(&Stage::new());
}

#[test]
fn a_pack_with_deltas_is_cloned_into_a_mount_on_etcd() {
    a_pack_with_deltas_is_read_by_several_threads_while_it_is_written(&Stage::on(Kind::Etcd));
}

#[test]
fn repositories_are_cloned_and_committed_to_on_etcfsd() {
    repositories_are_cloned_and_committed_to(&Stage::new());
}

#[test]
fn repositories_are_cloned_and_committed_to_on_etcd() {
    repositories_are_cloned_and_committed_to(&Stage::on(Kind::Etcd));
}

/// Locks hold among all mounts
#[test]
fn a_data_base_has_four_writers_on_two_mounts() {
    let s = Stage::new();
    machine::program("sqlite3");
    let other = Mount::root(&s.server.endpoint());
    bash(&s.mount.path(), "sqlite3 db 'pragma journal_mode=delete; create table t(w, i)'");
    let insert =
        "for i in 1 2 3 4 5; do sqlite3 -cmd '.timeout 100000' db \"insert into t values($w, $i)\"; done";
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let dir = if writer % 2 == 0 { s.mount.path() } else { other.path() };
            scope.spawn(move || bash(&dir, &format!("w={writer}; {insert}")));
        }
    });
    for mount in [s.mount.path(), other.path()] {
        let checked =
            "sqlite3 db 'pragma integrity_check; select count(*), count(distinct w * 10 + i) from t'";
        assert_eq!(bash(&mount, checked), "ok\n20|20\n");
        assert_eq!(bash(&mount, "ls"), "db\n");
    }
}

#[test]
fn make_builds_what_is_older_than_its_source() {
    let s = Stage::new();
    machine::program("make");
    machine::program("cc");
    let makefile =
        "OBJS = f1.o f2.o f3.o f4.o main.o\nprog: $(OBJS)\n\tcc -o $@ $(OBJS)\n%.o: %.c\n\tcc -c -o $@ $<\n";
    fs::write(s.mount.at("Makefile"), makefile).expect("it is written");
    bash(&s.mount.path(), "for i in 1 2 3 4; do echo \"int f$i(void) { return $i; }\" > f$i.c; done");
    let main =
        "int f1(void), f2(void), f3(void), f4(void);\nint main(void) { return f1() + f2() + f3() + f4(); }\n";
    fs::write(s.mount.at("main.c"), main).expect("it is written");
    bash(&s.mount.path(), "make -s -j4");
    let outside = tempfile::tempdir().expect("a temporary directory");
    let run = |status: &str| {
        let program = outside.path().join(format!("prog{status}"));
        // Files of the mount have no right to be run by default.
        bash(&s.mount.path(), &format!("install -m 755 prog {0}; {0} || echo $?", program.display()))
    };
    assert_eq!(run("1"), "10\n");
    assert_eq!(bash(&s.mount.path(), "make -j4"), "make: 'prog' is up to date.\n");
    bash(&s.mount.path(), "echo 'int f3(void) { return 30; }' > f3.c");
    assert_eq!(
        bash(&s.mount.path(), "make -j4"),
        "cc -c -o f3.o f3.c\ncc -o prog f1.o f2.o f3.o f4.o main.o\n"
    );
    assert_eq!(run("2"), "37\n");
}

/// Types into nano as a person does, who waits for what it shows.
const NANO: &str = r#"
import os, pty, sys
pid, tty = pty.fork()
if pid == 0:
    os.execvpe("nano", ["nano", "-I", sys.argv[1]], {**os.environ, "TERM": "xterm", "LC_ALL": "C"})
seen = b""
def wait_for(text):
    global seen
    while text not in seen:
        seen += os.read(tty, 4096)
    seen = b""
wait_for(b"two")
os.write(tty, b"zero \x0f")
wait_for(b"Write:")
os.write(tty, b"\r")
wait_for(b"Wrote")
os.write(tty, b"\x18")
try:
    while os.read(tty, 4096):
        pass
except OSError:
    pass
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"#;

/// One save is one revision
#[test]
fn a_save_in_nano_is_one_revision() {
    let s = Stage::new();
    machine::program("nano");
    s.api.set("/f", "one\ntwo\n");
    s.comes_to_print("cat f", "one\ntwo\n");
    let mut nano = Command::new(machine::program("python3"));
    command::run(nano.args(["-c", NANO, "f"]).current_dir(s.mount.path()), b"").ok();
    let kv = s.api.get("/f").expect("it is there");
    assert_eq!((kv.value.as_ref(), kv.version), (b"zero one\ntwo\n".as_ref(), 2));
    assert_eq!(s.sh("ls -A"), "f\n");
}

#[test]
fn a_private_mapping_changes_nothing_and_a_shared_one_is_put() {
    let s = Stage::new();
    let script = r#"
import errno, mmap, sys
open("f", "wb").write(b"hello world")
with open("f", "r+b") as file:
    own = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    own[0:5] = b"HELLO"
    print(own[:].decode(), open("f").read())
    if sys.argv[1] == "refused":
        try:
            mmap.mmap(file.fileno(), 0)
        except OSError as error:
            sys.exit(error.errno != errno.ENODEV)
        sys.exit("it is mapped")
    shared = mmap.mmap(file.fileno(), 0)
    shared[0:5] = b"there"
    shared.flush()
    shared.close()
"#;
    let (shared, written) =
        if s.mount.maps_shared() { ("taken", "there world") } else { ("refused", "hello world") };
    let mut python = Command::new(machine::program("python3"));
    let printed = command::run(python.args(["-c", script, shared]).current_dir(s.mount.path()), b"").ok();
    assert_eq!(printed, "HELLO world hello world\n");
    s.comes_to_print("cat f", written);
    assert_eq!(s.api.value("/f").as_deref(), Some(written));
}

/// Prints each event of a watcher of Python's package watchdog.
const WATCHDOG: &str = r#"
import sys
from watchdog.events import FileSystemEventHandler
from watchdog.observers import Observer
from watchdog.observers.inotify import InotifyObserver
class Tell(FileSystemEventHandler):
    def on_any_event(self, event):
        if not (event.is_directory and event.event_type == "modified"):
            print(event.event_type, event.src_path, flush=True)
assert Observer is InotifyObserver
observer = Observer()
observer.schedule(Tell(), ".", recursive=True)
observer.start()
print("ready", flush=True)
observer.join()
"#;

/// inotify hears what other clients change
#[test]
fn a_watcher_in_python_hears_of_remote_changes() {
    let s = Stage::new();
    s.api.set("/d/f", "1");
    s.comes_to_print("ls d", "f\n");
    // Debian's Python is the one that has Debian's packages.
    let mut python = Command::new("/usr/bin/python3");
    let mut watcher = Followed::start(python.args(["-c", WATCHDOG]).current_dir(s.mount.at("d")));
    watcher.expect(&["ready"]);
    s.api.set("/d/f", "2");
    watcher.expect(&["modified ./f", "closed ./f"]);
    s.api.set("/d/g", "1");
    watcher.expect(&["created ./g", "modified ./g", "closed ./g"]);
    s.api.delete(delete("/d/f")).expect("a delete is accepted");
    watcher.expect(&["deleted ./f"]);
    s.sh("mv d/g d/h");
    watcher.expect(&["moved ./g"]);
}

/// Prints each event of a watcher of the package chokidar, on which most of Node's tools build. Of what appears it may
/// tell a change too, when it sets its watch on it before the write's end: only `f` is there before.
const CHOKIDAR: &str = r#"
const watcher = require("chokidar").watch(".", {ignoreInitial: true});
watcher.on("ready", () => console.log("ready"));
watcher.on("all", (event, path) => {
    if (event !== "change" || path === "f") console.log(event, path);
});
"#;

/// inotify hears what other clients change
#[test]
fn a_watcher_in_node_hears_of_remote_changes() {
    let s = Stage::new();
    s.api.set("/d/f", "1");
    s.comes_to_print("ls d", "f\n");
    let mut node = Command::new(machine::program("node"));
    // Where Debian's packages are, whosever Node it is.
    node.env("NODE_PATH", "/usr/share/nodejs:/usr/lib/nodejs");
    let mut watcher = Followed::start(node.args(["-e", CHOKIDAR]).current_dir(s.mount.at("d")));
    watcher.expect(&["ready"]);
    s.api.set("/d/f", "22");
    watcher.expect(&["change f"]);
    s.api.set("/d/g", "1");
    watcher.expect(&["add g"]);
    s.api.set("/d/sub/x", "1");
    watcher.expect(&["addDir sub", "add sub/x"]);
    s.api.delete(delete("/d/f")).expect("a delete is accepted");
    watcher.expect(&["unlink f"]);
}

/// What a path unit of systemd.path(5) with PathChanged= sets a watch for: a write that is closed, not its middle.
#[test]
fn a_path_unit_hears_of_each_remote_change_once() {
    let s = Stage::new();
    s.api.set("/f", "1");
    s.comes_to_print("cat f", "1");
    machine::program("inotifywait");
    let script = "inotifywait -m -e delete_self,move_self,attrib,close_write --format %e f 2>&1";
    let mut unit = Followed::sh(&s.mount.path(), script);
    unit.expect(&["Setting up watches.", "Watches established."]);
    for change in 2..5 {
        s.api.set("/f", change.to_string());
        unit.expect(&["CLOSE_WRITE,CLOSE"]);
    }
    s.sh("echo local > f");
    unit.expect(&["CLOSE_WRITE,CLOSE"]);
}
