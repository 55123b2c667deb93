//! How old what is shown may be: with the watch cut, compacted away, or asked for each time.

use std::{
    fs,
    time::{Duration, Instant},
};

use etcfs_tests::{
    api::{compact, delete},
    command::{Followed, Output, sh},
    listener::Listener,
    mount::{Mount, mounted},
    proxy::Proxy,
    server::{Kind, Server},
    wait,
};
use rustix::process::{Pid, Signal, kill_process};

use super::Stage;

/// What is cached counts for so long without the server.
const TRUST: Duration = Duration::from_secs(10);

#[track_caller]
fn comes_to_print(mount: &Mount, script: &str, output: &str) {
    let mut last = String::new();
    let holds = wait::poll(wait::PATIENCE, || {
        last = sh(&mount.path(), script).stdout;
        last == output
    });
    assert!(holds, "`{script}` prints {last:?}, not {output:?}\n{}", mount.log());
}

fn after_a_gap(kind: Kind) {
    let server = Server::start(kind);
    let api = server.api();
    let proxy = Proxy::to(&server.endpoint());
    for (key, value) in
        [("/d/f", "one\n"), ("/d/gone", "v"), ("/d/a", "file"), ("/e/x", "v"), ("/d/same", "s")]
    {
        api.set(key, value);
    }
    for (source, has_bare) in
        [(format!("{}:/", proxy.endpoint()), true), (format!("{}:/d", proxy.endpoint()), false)]
    {
        api.set("/d/f", "one\n");
        api.set("/d/gone", "v");
        api.set("/d/a", "file");
        api.delete(delete("/d/new")).expect("a delete is accepted");
        api.delete(delete("/d/a/x")).expect("a delete is accepted");
        let mount = Mount::with(&source, "");
        let at = |path: &str| if has_bare { format!("d/{path}") } else { path.to_owned() };
        let everything = format!("cat {} {} {}; ls {}", at("f"), at("gone"), at("a"), at("."));
        comes_to_print(&mount, &everything, "one\nvfilea\nf\ngone\nsame\n");
        let mut tail = Followed::sh(&mount.path(), &format!("tail -f {}", at("f")));
        tail.expect(&["one"]);
        let dir = Listener::to_changes(&mount.at(at(".")));
        proxy.sever(true);
        for round in 0..50 {
            api.set("/d/f", format!("{round}\n"));
        }
        api.delete(delete("/d/gone")).expect("a delete is accepted");
        api.set("/d/new", "n");
        api.set("/d/a/x", "child");
        api.compact(compact(api.revision())).expect("a compaction is accepted");
        proxy.sever(false);
        let now = format!("cat {} {} {}; ls -F {}", at("f"), at("new"), at("a/x"), at("."));
        comes_to_print(&mount, &now, "49\nnchilda/\nf\nnew\nsame\n");
        assert!(!mount.at(at("gone")).exists());
        // A reader goes on with the newest; a listener hears of the keys that it could know.
        tail.expect(&["49"]);
        let heard = dir.until(|event| event.what == "DELETE" && event.name == "gone");
        assert!(heard.contains(&"MODIFY f".to_owned()) || dir.next().1.name == "f", "{heard:?}");
        assert!(mount.log().contains("the watch has a gap"), "{}", mount.log());
        // And from there on as ever.
        api.set("/d/f", "later\n");
        tail.expect(&["later"]);
        comes_to_print(&mount, &format!("cat {}", at("f")), "later\n");
    }
}

/// After a gap everything is read again
#[test]
fn a_mount_whose_watch_was_compacted_away_shows_what_is_there_now_on_etcfsd() {
    after_a_gap(Kind::Etcfs);
}

#[test]
fn a_mount_whose_watch_was_compacted_away_shows_what_is_there_now_on_etcd() {
    after_a_gap(Kind::Etcd);
}

/// Without the server what is cached is shown for ten seconds
/// A soft mount gives up after its time
/// A stale mount shows what it has and writes nothing
#[test]
fn mounts_without_their_server_wait_give_up_or_show_what_they_have() {
    let server = Server::etcfs();
    let api = server.api();
    let proxy = Proxy::to(&server.endpoint());
    api.set("/f", "old\n");
    let source = format!("{}:/", proxy.endpoint());
    let hard = Mount::with(&source, "");
    let soft = Mount::with(&source, "soft,timeo=1");
    let stale = Mount::with(&source, "stale,timeo=1");
    let cat = |mount: &Mount| sh(&mount.path(), "timeout 3 cat f");
    for mount in [&hard, &soft, &stale] {
        comes_to_print(mount, "cat f; ls", "old\nf\n");
    }
    proxy.sever(true);
    let cut = Instant::now();
    api.set("/f", "new\n");
    let is = |output: &Output, text: &str| output.code != 0 && output.stderr.contains(text);
    wait::within(TRUST * 2, "the hard mount waits", || (cat(&hard).code == 124).then_some(()));
    assert!(cut.elapsed() < TRUST + Duration::from_secs(8), "after {:?}", cut.elapsed());
    let says = |mount: &Mount, line: &str| {
        let status = mount.sh("cat %status");
        assert!(status.contains("without a server since") && status.contains(line), "{status}");
    };
    says(&hard, "\nnames: wait for the server\n");
    says(&soft, "\nwithout a server: fails after 1 s\n");
    says(&stale, "\nwithout a server: shows what it has, changes nothing\nnames: are shown as cached\n");
    let began = Instant::now();
    let (read, write) = (cat(&soft), sh(&soft.path(), "timeout 20 /bin/echo x > g"));
    assert!(is(&read, "Connection timed out") && is(&write, "Connection timed out"), "{read:?} {write:?}");
    assert!(began.elapsed() < Duration::from_secs(8), "one second each, not {:?}", began.elapsed());
    let began = Instant::now();
    let (read, write) = (cat(&stale), sh(&stale.path(), "/bin/echo x > f"));
    assert_eq!(read.ok(), "old\n");
    assert!(is(&write, "Read-only file system"), "{write:?}");
    assert!(began.elapsed() < Duration::from_secs(2), "at once, not after {:?}", began.elapsed());
    // Nothing older than what the server has is shown once it is back.
    let mut waiting = Followed::sh(&hard.path(), "cat f");
    proxy.sever(false);
    waiting.expect(&["new"]);
    for mount in [&hard, &soft, &stale] {
        comes_to_print(mount, "cat f", "new\n");
    }
    assert_eq!(stale.sh("echo mine > f; cat f"), "mine\n");
    assert_eq!(api.value("/f").as_deref(), Some("mine\n"));
}

/// A strict mount asks for every name
#[test]
fn a_strict_mount_shows_what_was_put_before_it_was_asked() {
    let server = Server::etcfs();
    let api = server.api();
    let mount = Mount::with(&format!("{}:/", server.endpoint()), "strict");
    for round in 0..300 {
        let value = format!("{round}\n").repeat(round % 5 + 1);
        api.set("/d/f", value.clone());
        assert_eq!(fs::read_to_string(mount.at("d/f")).expect("it was put"), value, "round {round}");
        assert_eq!(fs::metadata(mount.at("d/f")).expect("it was put").len(), value.len() as u64);
        let name = format!("g{round}");
        api.set(&format!("/d/{name}"), "v");
        let listed = fs::read_dir(mount.at("d")).expect("it is there").flatten();
        assert!(listed.into_iter().any(|entry| *entry.file_name() == *name), "{name} is not listed");
        api.delete(delete(&format!("/d/{name}"))).expect("a delete is accepted");
        assert!(!mount.at("d").join(&name).exists(), "{name} was deleted");
    }
}

/// A mount whose daemon hangs can be taken away, and who waits for it goes on
#[test]
fn a_stopped_daemon_keeps_nobody_for_ever_and_its_mount_can_be_removed() {
    let mut s = Stage::new();
    s.sh("echo v > f; mkdir d");
    let path = s.mount.path();
    let mut tail = Followed::sh(&path, "tail -f f");
    tail.expect(&["v"]);
    s.mount.process().signal(Signal::STOP);
    let mut waiting =
        [Followed::sh(&path, "cat f"), Followed::sh(&path, "ls d"), Followed::sh(&path, "touch d/x")];
    let pids: Vec<u32> = waiting.iter().map(Followed::pid).collect();
    wait::until_true("they wait", || pids.iter().all(|&pid| state(pid).is_some_and(|state| state != 'R')));
    s.mount.process().signal(Signal::CONT);
    s.mount.process().signal(Signal::STOP);
    s.mount.kill();
    for one in &mut waiting {
        one.end();
    }
    drop(tail);
    etcfs_tests::command::run(std::process::Command::new("umount").arg("--lazy").arg(&path), b"").ok();
    assert!(!mounted(&path));
    wait::until_true("none is left in the kernel", || pids.iter().all(|&pid| state(pid) != Some('D')));
    // A server that hangs, and a reader who has enough of it.
    s.mount.run();
    let server = i32::try_from(s.server.pid()).ok().and_then(Pid::from_raw).expect("it runs");
    kill_process(server, Signal::STOP).expect("it is ours");
    let write = sh(&path, "timeout --signal=INT 2 sh -c 'echo late > new'");
    assert!(write.code != 0, "{write:?}");
    kill_process(server, Signal::CONT).expect("it is ours");
    s.comes_to_print("cat f", "v\n");
}

/// What a process does, as ps(1) has it.
pub(super) fn state(pid: u32) -> Option<char> {
    let status = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    status.rsplit(") ").next()?.chars().next()
}
