//! Suites that test file systems, on the mount. tmpfs is the control: what fails there says nothing about us.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
};

use etcfs_tests::{api::Api, command, machine, mount::Mount, server::Server, tmpfs::Tmpfs};

use super::Stage;

/// The cases that fail on a mount, and why.
const LISTED: &str = include_str!("pjdfstest.list");

/// File times are as coarse as the kernel's clock tick, for tmpfs at least. The users are Debian's.
const PJDFSTEST: &str = r#"
[features]
posix_fallocate = {}
rename_ctime = {}
utimensat = {}
utime_now = {}
[settings]
naptime = 0.02
[dummy_auth]
entries = [["nobody", "nogroup"], ["daemon", "daemon"]]
"#;

/// Every operation that fsx knows, but for holes and preallocation, which values don't have.
const FSX: &str = "
[weights]
close_open = 1
read = 10
write = 10
mapread = 10
mapwrite = 10
invalidate = 1
truncate = 5
fsync = 1
fdatasync = 1
sendfile = 5
posix_fadvise = 1
copy_file_range = 1
";

const FSX_OPERATIONS: &str = "20000";
/// They take a minute or two where the programs are not optimized, as here.
const FSX_SECONDS_MAX: u32 = 600;

/// How one case ended.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    Ok,
    Skipped,
    Failed { why: String },
}

/// Runs all of pjdfstest below `dir`.
fn pjdfstest(dir: &Path, other: &Path) -> BTreeMap<String, Verdict> {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let config = scratch.path().join("pjdfstest.toml");
    fs::write(&config, PJDFSTEST).expect("a file of our own");
    let mut command = Command::new(machine::crate_program("pjdfstest"));
    command.env("NO_COLOR", "1").env("RUST_BACKTRACE", "0");
    command.arg("-c").arg(&config).arg("-p").arg(dir).arg("-s").arg(other);
    let output = command::run(&mut command, b"");
    let mut verdicts = BTreeMap::new();
    let mut last = String::new();
    for line in output.stdout.lines() {
        if let Some(Verdict::Failed { why }) = verdicts.get_mut(&last)
            && line.starts_with(['\t', ' '])
        {
            why.push_str(line.trim());
            continue;
        }
        let verdict = match line.split_whitespace().nth(1) {
            Some("ok") => Verdict::Ok,
            Some("skipped") => Verdict::Skipped,
            Some("FAILED") => Verdict::Failed { why: String::new() },
            _ => continue,
        };
        last = line.split_whitespace().next().expect("a second word follows a first").to_owned();
        verdicts.insert(last.clone(), verdict);
    }
    assert!(
        verdicts.len() > 300,
        "{} verdicts; exit code {}: {}",
        verdicts.len(),
        output.code,
        output.stderr
    );
    verdicts
}

/// The cases of the list, each with its errno.
fn listed() -> BTreeMap<&'static str, &'static str> {
    let lines = LISTED.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    // A reason is a word, a colon and a sentence.
    let cases = lines.filter(|line| !line.contains(": "));
    cases.map(|line| line.split_once(' ').unwrap_or_else(|| panic!("no errno: {line}"))).collect()
}

/// What POSIX asks of files and directories holds; what of it does not is listed, with its reason.
#[test]
fn what_posix_asks_holds_but_for_what_is_listed() {
    machine::needs_root("runs a suite that changes users");
    let (control, other) = (Tmpfs::mount(), Tmpfs::mount());
    let control = pjdfstest(&control.path(), &other.path());
    let failed = control.iter().filter(|(_, verdict)| matches!(verdict, Verdict::Failed { .. }));
    assert_eq!(failed.collect::<Vec<_>>(), [], "the control fails");

    let server = Server::etcfs();
    let mount = Mount::for_all(&server.endpoint());
    let found = pjdfstest(&mount.path(), &other.path());
    assert_eq!(found.keys().collect::<Vec<_>>(), control.keys().collect::<Vec<_>>(), "cases");
    let mut listed = listed();
    let mut wrong = Vec::new();
    for (case, verdict) in &found {
        let errno = listed.remove(case.as_str());
        match (verdict, errno) {
            (Verdict::Ok, None) => {}
            (Verdict::Skipped, None) if control[case] == Verdict::Skipped => {}
            (Verdict::Failed { why }, Some(errno)) => {
                let told = why.split_once("value: ").map(|(_, told)| told.split(' ').next().unwrap_or(told));
                if told.is_some_and(|told| told.starts_with('E') && !told.starts_with(errno)) {
                    wrong.push(format!("{case} is listed with {errno}: {why}"));
                }
            }
            (verdict, None) => wrong.push(format!("{case} is not listed: {verdict:?}")),
            (verdict, Some(_)) => wrong.push(format!("{case} is listed, but: {verdict:?}")),
        }
    }
    wrong.extend(listed.keys().map(|case| format!("{case} is listed, and there is no such case")));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Set when it goes out of scope, by a panic too.
struct Done<'d>(&'d AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs fsx on a new file in `dir`.
#[track_caller]
fn fsx(dir: &Path, maps_shared: bool, seed: u64) {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let config = scratch.path().join("fsx.toml");
    let mut weights = FSX.to_owned();
    if !maps_shared {
        let mapping = ["mapread = 10", "mapwrite = 10", "invalidate = 1"];
        for line in mapping {
            let (name, _) = line.split_once(" = ").expect("a name and a weight");
            weights = weights.replace(line, &format!("{name} = 0"));
        }
    }
    fs::write(&config, weights).expect("a file of our own");
    let mut command = Command::new(machine::crate_program("fsx"));
    command.args(["-N", FSX_OPERATIONS, "-S", &seed.to_string()]).arg("-f").arg(&config);
    command.arg("-P").arg(scratch.path()).arg(dir.join("fsx"));
    let output = command::run_within(FSX_SECONDS_MAX, &mut command, b"");
    assert!(output.code == 0, "seed {seed}: exit code {}\n{}", output.code, output.stderr);
}

/// Changes files until it is done, and reads them here: each shows what was put, and nothing older than before.
fn change_others(api: &Api, dir: &Path, done: &AtomicBool) -> u64 {
    let mut shown = [0; 7];
    for change in 1.. {
        if done.load(Ordering::Relaxed) {
            return change;
        }
        let file = change as usize % shown.len();
        api.set(&format!("/other{file}"), format!("{change}"));
        let Ok(text) = fs::read_to_string(dir.join(format!("other{file}"))) else {
            assert_eq!(shown[file], 0, "other{file} is gone");
            continue;
        };
        let value: u64 = text.parse().unwrap_or_else(|_| panic!("other{file} is {text:?}"));
        assert!((shown[file]..=change).contains(&value), "{value} after {}, of {change}", shown[file]);
        assert_eq!(value as usize % shown.len(), file, "another file's value");
        shown[file] = value;
    }
    unreachable!("it ends when it is done")
}

/// Random reads, writes, truncations and mappings of a file, against what they must show; while another client
/// changes the files beside it.
#[test]
fn what_is_written_is_read_through_every_system_call() {
    let seed = machine::setting("ETCFS_TEST_SEED", rand::random::<u32>().into());
    fsx(&Tmpfs::mount().path(), true, seed);

    let s = Stage::new();
    let done = AtomicBool::new(false);
    let changes = std::thread::scope(|scope| {
        let changes = scope.spawn(|| change_others(&s.api, &s.mount.path(), &done));
        let until_here = Done(&done);
        fsx(&s.mount.path(), s.mount.maps_shared(), seed);
        drop(until_here);
        changes.join().expect("the other client goes on")
    });
    assert!(changes > 100, "only {changes} changes by the other client");
    let kept = s.api.get("/fsx").expect("it is put").value;
    assert_eq!(kept, fs::read(s.mount.at("fsx")).expect("it is there"), "what is put is what is shown");
}
