//! `etcfs bench fs` measures a mount beside its floor and memory, and leaves nothing behind.

use std::{collections::BTreeSet, fs};

use etcfs_tests::command::Client;
use serde_json::Value;

use super::Stage;

const OPERATIONS: [&str; 14] = [
    "stat",
    "stat-first",
    "open-read-close",
    "create",
    "create-excl",
    "overwrite",
    "readdir",
    "find",
    "grep-warm",
    "grep-cold",
    "put",
    "remote-visible",
    "remote-inotify",
    "memory",
];

#[test]
fn a_mount_is_measured_beside_the_floor_and_memory_and_left_as_it_was() {
    let mut s = Stage::new();
    let memory = tempfile::tempdir().expect("a temporary directory");
    let (mount, pid) = (s.mount.path(), s.mount.process().pid().to_string());
    let words = ["bench", "fs", "--json", "--files=30", "--tree=40", "--calls=10", "--rounds=2"];
    let beside = [mount.as_os_str(), "--beside".as_ref(), memory.path().as_os_str(), "--pid".as_ref()];
    let words = words.map(AsRef::as_ref).into_iter().chain(beside).chain([pid.as_ref()]);
    let printed = Client::etcfs(&s.server.endpoint()).run(words).ok();
    let lines: Vec<Value> =
        printed.lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect();
    let text = |line: &Value, name: &str| line[name].as_str().unwrap_or_default().to_owned();
    let ops: BTreeSet<String> = lines.iter().map(|line| text(line, "op")).collect();
    assert_eq!(ops, OPERATIONS.map(str::to_owned).into());

    for op in &OPERATIONS[..9] {
        let rounds = lines.iter().filter(|line| text(line, "op") == *op && !line["side"].is_null());
        let sides: Vec<String> = rounds.map(|line| text(line, "side")).collect();
        // Each comes first in its turn.
        assert_eq!(sides, ["mount", "floor", "memory", "floor", "memory", "mount"], "{op}");
        let verdict = lines.iter().find(|line| text(line, "op") == *op && line["side"].is_null());
        let ratio = verdict.expect("one for each operation")["over_floor"]["median"].as_f64();
        assert!(ratio.is_some_and(|ratio| ratio > 0.0), "{op}: {verdict:?}");
    }

    assert_eq!(fs::read_dir(mount).expect("the mount stands").count(), 0);
    assert_eq!(s.api.all("/"), []);
    assert_eq!(s.api.all(".etcfs/dir/"), []);
    assert_eq!(fs::read_dir(memory.path()).expect("it stands").count(), 0);
}
