//! `etcfs up DIR`: the whole first experience in one command.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use etcfs_tests::{
    api::Api,
    binary,
    command::{self, Client, Followed, Output},
    mount,
    process::Process,
    server::http_get,
    wait,
};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Time in which a child of `up` that died is back.
const BACK: Duration = Duration::from_secs(2);

/// Overwrites one file, appends to another, reads its own write, and says how far it is.
const USER: &str = r#"bash -c '
    number=0
    while [ ! -e "$STOP" ]; do
        echo $number > current && echo $number >> log || exit 1
        [ "$(cat current)" = $number ] || exit 2
        [ "$(ls)" = "$(printf "current\nlog")" ] || exit 3
        echo $number
        number=$((number + 1))
    done
    echo end'"#;

/// A place for one `up`: DIR, and beside it what it keeps.
struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        let dir =
            tempfile::Builder::new().prefix("etcfs-tests-up-").tempdir().expect("a temporary directory");
        Self { dir }
    }

    fn keys(&self) -> PathBuf {
        self.dir.path().join("keys")
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    fn command(&self, options: &[&str]) -> Command {
        let mut command = Command::new(binary::etcfs());
        command.arg("up").arg(self.keys()).args(options);
        command
    }

    /// Runs `up` and returns once it serves.
    fn up(&self, options: &[&str]) -> Up {
        let begun = fs::read_to_string(self.log()).unwrap_or_default().len();
        let mut process = Process::start("etcfs up", &mut self.command(options), &self.log());
        let endpoint = wait::until("up says where it serves, and does", || {
            if let Some(status) = process.has_ended() {
                panic!("up ended with {status}\n{}", process.log_tail());
            }
            let endpoint = endpoint_in(&process.log()[begun..])?;
            http_get(&endpoint, "/health").filter(|body| body.contains("\"true\""))?;
            Some(endpoint)
        });
        Up { process, endpoint }
    }

    /// Runs `up` and returns once it has mounted too.
    fn up_and_mounted(&self) -> Up {
        self.up_and_mounted_with(&[])
    }

    fn up_and_mounted_with(&self, options: &[&str]) -> Up {
        let up = self.up(options);
        wait::until_true("up mounts", || mount::mounted(&self.keys()));
        up
    }

    /// Runs an `up` that ends by itself.
    fn refused(&self, options: &[&str]) -> Output {
        command::run(&mut self.command(options), b"")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if mount::mounted(&self.keys()) {
            drop(command::run(Command::new("umount").arg("--lazy").arg(self.keys()), b""));
        }
    }
}

struct Up {
    process: Process,
    endpoint: String,
}

impl Up {
    /// Ends it as Ctrl-C does.
    fn interrupt(mut self) {
        self.process.signal(Signal::INT);
        let status = self.process.wait_for_end(wait::PATIENCE);
        assert!(status.success(), "{status}\n{}", self.process.log_tail());
    }

    /// The process ids of its children whose command line has `word` in it.
    fn children(&self) -> Vec<(u32, String)> {
        let list = format!("/proc/{0}/task/{0}/children", self.process.pid());
        let pids = fs::read_to_string(list).unwrap_or_default();
        // Threads other than the first may have started them.
        let mut pids: Vec<u32> = pids.split_whitespace().filter_map(|pid| pid.parse().ok()).collect();
        for task in fs::read_dir(format!("/proc/{}/task", self.process.pid())).expect("it runs") {
            let children = task.expect("it runs").path().join("children");
            let more = fs::read_to_string(children).unwrap_or_default();
            pids.extend(more.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        }
        pids.sort_unstable();
        pids.dedup();
        let line = |pid: &u32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).replace('\0', " ")
        };
        pids.iter().map(|pid| (*pid, line(pid))).collect()
    }

    /// The servers among its children, by the directories of their data.
    fn members(&self, place: &Place) -> Vec<(u32, String)> {
        let data = place.dir.path().join("keys.etcd");
        let in_order = (1..=9).map(|nth| data.join(format!("n{nth}")).display().to_string());
        let children = self.children();
        let of = |dir: String| children.iter().find(|(_, line)| line.contains(&format!("{dir} "))).cloned();
        in_order.filter_map(of).collect()
    }

    /// Kills, with SIGKILL, each child for which `which` holds.
    fn kill_children(&self, which: impl Fn(&str) -> bool) -> usize {
        let children: Vec<_> = self.children().into_iter().filter(|(_, line)| which(line)).collect();
        for (pid, _) in &children {
            let pid = Pid::from_raw(i32::try_from(*pid).expect("a pid")).expect("not 0");
            kill_process(pid, Signal::KILL).expect("it runs");
        }
        children.len()
    }
}

/// Each `127.0.0.1:PORT` at the beginning of what a line says after "serves".
fn endpoints_in(text: &str) -> Vec<String> {
    let lines = text.lines().filter_map(|line| line.trim_start().strip_prefix("serves"));
    lines.filter_map(|line| Some(line.split_whitespace().next()?.to_owned())).collect()
}

/// The first `127.0.0.1:PORT` of a text.
fn endpoint_in(text: &str) -> Option<String> {
    let (_, rest) = text.split_once("127.0.0.1:")?;
    let port: String = rest.chars().take_while(char::is_ascii_digit).collect();
    // A line may be half written.
    (port.len() < rest.len() && !port.is_empty()).then(|| format!("127.0.0.1:{port}"))
}

mod mounted {
    use super::*;

    #[test]
    fn files_keys_and_both_clients_are_the_same_data_and_stay() {
        let place = Place::new();
        let up = place.up_and_mounted();
        fs::create_dir(place.keys().join("project")).expect("it is made");
        fs::write(place.keys().join("project/job1"), "one\n").expect("it is written");
        for client in [Client::etcdctl(&up.endpoint), Client::etcfs(&up.endpoint)] {
            assert_eq!(client.run(["get", "/project/job1"]).ok(), "/project/job1\none\n\n");
            client.run(["put", "/project/job2", client.name]).ok();
            wait::until_true("the file shows it", || {
                fs::read_to_string(place.keys().join("project/job2")).is_ok_and(|value| value == client.name)
            });
        }
        up.interrupt();
        assert!(!mount::mounted(&place.keys()), "Ctrl-C unmounts");
        assert!(
            fs::read_dir(place.keys()).expect("it is there").next().is_none(),
            "nothing below the mount point"
        );
        assert!(place.dir.path().join("keys.etcd").is_dir(), "the data lies beside the mount point");
        let up = place.up_and_mounted();
        assert_eq!(fs::read_to_string(place.keys().join("project/job1")).expect("the keys stay"), "one\n");
        up.interrupt();
    }

    /// Always back, and in time at the best of three: another test may have the disk just then.
    #[test]
    fn a_child_that_dies_is_back_within_two_seconds() {
        let place = Place::new();
        let up = place.up_and_mounted();
        let file = place.keys().join("f");
        fs::write(&file, "v").expect("it is written");
        let children = up.children();
        assert_eq!(children.len(), 2, "a server and a mount: {children:?}");
        for (victim, _) in children {
            let line = |(pid, line): (u32, String)| (pid == victim).then_some(line);
            let line = up.children().into_iter().find_map(line).expect("it runs");
            let in_time = (0..3).any(|_| {
                let died = Instant::now();
                assert_eq!(up.kill_children(|other| other == line), 1, "{line}");
                wait::until("what died is back", || {
                    let served = http_get(&up.endpoint, "/health").filter(|body| body.contains("\"true\""));
                    let read = fs::read_to_string(&file).ok();
                    (served.is_some() && read.is_some()).then_some(())
                });
                died.elapsed() < BACK
            });
            assert!(in_time, "not back within {BACK:?}: {line}");
        }
        up.interrupt();
    }

    /// Each member in turn dies while a program goes on writing and reading files.
    #[test]
    fn a_cluster_of_three_is_used_on_while_one_of_them_is_killed() {
        let place = Place::new();
        let up = place.up_and_mounted_with(&["--nodes", "3"]);
        let endpoints = wait::until("up says what serves", || {
            let endpoints = endpoints_in(&up.process.log());
            (endpoints.len() == 3 && up.process.log().contains("Ctrl-C")).then_some(endpoints)
        });
        let members = up.members(&place);
        assert_eq!(members.len(), 3, "{:?}", up.children());
        assert_eq!(up.children().len(), 4, "and a mount: {:?}", up.children());
        let stop = place.dir.path().join("stop");
        let mut user = Followed::sh(&place.keys(), &USER.replace("$STOP", &stop.display().to_string()));
        let mut count = 0;
        let mut goes_on = || {
            for _ in 0..20 {
                user.expect(&[&count.to_string()]);
                count += 1;
            }
        };
        goes_on();
        for (nth, (_, line)) in members.iter().enumerate() {
            assert_eq!(up.kill_children(|other| other == line), 1, "{line}");
            goes_on();
            wait::until_true("the member that died is back", || {
                http_get(&endpoints[nth], "/health").is_some_and(|body| body.contains("\"true\""))
            });
            goes_on();
        }
        fs::write(&stop, "").expect("outside the mount");
        let mut last = user.line();
        while last != "end" {
            assert_eq!(last, count.to_string());
            count += 1;
            last = user.line();
        }
        let lines: String = (0..count).map(|number| format!("{number}\n")).collect();
        for endpoint in &endpoints {
            assert_eq!(Api::to(endpoint).value("/log").as_ref(), Some(&lines), "at {endpoint}");
        }
        up.interrupt();
        assert!(!mount::mounted(&place.keys()), "Ctrl-C unmounts");

        // Without a number it is what it was; with another it is refused, and nothing is harmed.
        for (other, wrong) in [("1", "is of 3 nodes, not of 1 node"), ("5", "is of 3 nodes, not of 5 nodes")]
        {
            assert!(place.refused(&["--nodes", other]).failed().contains(wrong));
        }
        let up = place.up_and_mounted();
        assert_eq!(up.members(&place).len(), 3);
        assert_eq!(fs::read_to_string(place.keys().join("log")).expect("the keys stay"), lines);
        up.interrupt();
    }

    #[test]
    fn a_second_up_says_who_holds_the_directory() {
        let place = Place::new();
        let up = place.up_and_mounted();
        let refused = place.refused(&[]);
        assert_ne!(refused.code, 0, "{refused:?}");
        let holder = format!("{}", up.process.pid());
        let children: Vec<String> = up.children().into_iter().map(|(pid, _)| pid.to_string()).collect();
        let said = refused.stdout + &refused.stderr;
        assert!(std::iter::once(&holder).chain(&children).any(|pid| said.contains(pid)), "{said}");
        up.interrupt();
    }

    #[test]
    fn a_dead_mount_is_cleared_first() {
        let place = Place::new();
        let mut up = place.up_and_mounted();
        fs::write(place.keys().join("f"), "v").expect("it is written");
        // The supervisor first, so that nobody puts the others back.
        let children = up.children();
        up.process.kill();
        for (pid, _) in children {
            let pid = Pid::from_raw(i32::try_from(pid).expect("a pid")).expect("not 0");
            // They may have ended with their parent.
            let _ended = kill_process(pid, Signal::KILL);
        }
        let up = place.up_and_mounted();
        assert_eq!(fs::read_to_string(place.keys().join("f")).expect("it is mounted"), "v");
        up.interrupt();
    }
}

/// A number that no cluster should have, and one node that would be three.
#[test]
fn a_number_of_nodes_that_can_not_be_is_refused() {
    let place = Place::new();
    for number in ["0", "2", "4", "8"] {
        assert!(place.refused(&["--no-mount", "--nodes", number]).failed().contains("1, 3, 5 or 7"));
    }
    assert!(!place.dir.path().join("keys.etcd").exists(), "nothing was made");
    place.up(&["--no-mount"]).interrupt();
    let refused = place.refused(&["--no-mount", "--nodes", "3"]);
    assert!(refused.failed().contains("is of 1 node, not of 3 nodes"));
    place.up(&["--no-mount", "--nodes", "1"]).interrupt();
}

#[test]
fn a_directory_that_is_not_empty_is_refused() {
    let place = Place::new();
    fs::create_dir(place.keys()).expect("it is made");
    fs::write(place.keys().join("mine"), "v").expect("it is written");
    let refused = place.refused(&[]);
    assert!(refused.failed().contains("empty"));
    assert_eq!(fs::read_to_string(place.keys().join("mine")).expect("untouched"), "v");
}

#[test]
fn no_mount_serves_alone_and_takes_the_next_free_port() {
    let (one, two) = (Place::new(), Place::new());
    let (first, second) = (one.up(&["--no-mount"]), two.up(&["--no-mount"]));
    assert_ne!(first.endpoint, second.endpoint);
    Api::to(&first.endpoint).set("/whose", "first");
    assert_eq!(Api::to(&second.endpoint).value("/whose"), None);
    assert!(!mount::mounted(&one.keys()));
    first.interrupt();
    second.interrupt();
}

#[test]
fn an_endpoint_is_found_in_a_line() {
    assert_eq!(endpoint_in("serves 127.0.0.1:2379, data"), Some("127.0.0.1:2379".to_owned()));
    assert_eq!(endpoint_in("serves 127.0.0.1:23"), None);
    assert!(Path::new("/proc/self/task").is_dir());
}
