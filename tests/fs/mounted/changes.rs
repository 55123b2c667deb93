//! Changes by others show; changes of one's own show at once.

use std::{fs, io::ErrorKind};

use etcfs_tests::{
    api::{Op, delete, put, txn},
    mount::Mount,
    wait,
};

use super::Stage;
/// A remote change is seen without asking
#[test]
fn a_remote_change_is_seen_without_asking() {
    let s = Stage::new();
    s.sh("mkdir d; echo one > d/f; cat d/f; ls -l d");
    s.api.set("/d/f", "by another client");
    s.comes_to_print("cat d/f", "by another client");
    assert_eq!(s.sh("stat -c %s d/f"), "17\n");
    s.api.set("/d/new", "v");
    s.comes_to_print("ls d", "f\nnew\n");
    s.api.delete(delete("/d/f")).expect("a delete is accepted");
    s.comes_to_print("ls d", "new\n");
    assert!(!s.mount.at("d/f").exists());
}

#[test]
fn a_name_that_was_missing_appears() {
    let s = Stage::new();
    assert!(!s.mount.at("d/late").exists());
    s.api.set("/d/late", "v");
    s.comes_to_print("cat d/late", "v");
}

#[test]
fn a_bare_key_put_elsewhere_appears_in_rel_and_as_a_link_in_the_root() {
    let s = Stage::new();
    s.api.set("first", "1");
    s.comes_to_print("ls .; ls %rel", "%rel\nfirst\nfirst\n");
    s.api.set("second", "2");
    s.comes_to_print("ls .; ls %rel", "%rel\nfirst\nsecond\nfirst\nsecond\n");
    s.api.delete(delete("first")).expect("a delete is accepted");
    s.comes_to_print("ls .; ls %rel", "%rel\nsecond\nsecond\n");
}

#[test]
fn two_mounts_see_each_others_changes() {
    let s = Stage::new();
    let other = Mount::root(&s.server.endpoint());
    s.sh("mkdir d; echo one > d/f");
    wait::until_true("it shows", || fs::read_to_string(other.at("d/f")).is_ok_and(|v| v == "one\n"));
    other.sh("echo two > d/f; echo g > d/g; mkdir d/empty");
    s.comes_to_print("cat d/f d/g; ls -F d", "two\ng\nempty/\nf\ng\n");
    other.sh("rmdir d/empty; rm d/g");
    s.comes_to_print("ls d", "f\n");
}

/// Every change of one transaction is seen together or in order, never half of one key.
/// A name becomes a directory with the first key below it, and a file again with the last
#[test]
fn a_key_becomes_a_directory_and_a_file_again() {
    let s = Stage::new();
    s.api.set("/a", "file");
    s.comes_to_print("cat a", "file");
    s.api.set("/a/x", "child");
    s.comes_to_print("cat a/%value a/x", "filechild");
    s.api.delete(delete("/a/x")).expect("a delete is accepted");
    s.comes_to_print("cat a", "file");
    s.api
        .txn(txn([Op::Delete(delete("/a")), Op::Put(put("/a/y", "only child"))]))
        .expect("a transaction is accepted");
    s.comes_to_print("ls a; cat a/y", "y\nonly child");
}

/// O_EXCL has exactly one winner
#[test]
fn create_or_fail_has_one_winner_among_mounts() {
    let s = Stage::new();
    let other = Mount::root(&s.server.endpoint());
    for round in 0..100 {
        let name = format!("lock-{round}");
        let (one, two) = (s.mount.at(&name), other.at(&name));
        let (one, two) = std::thread::scope(|scope| {
            let one = scope.spawn(|| fs::File::create_new(&one));
            let two = scope.spawn(|| fs::File::create_new(&two));
            (one.join().expect("no panic"), two.join().expect("no panic"))
        });
        let winners = [&one, &two].into_iter().filter(|result| result.is_ok()).count();
        assert_eq!(winners, 1, "round {round}: {one:?} {two:?}");
        let loser = one.err().or(two.err()).expect("one lost");
        assert_eq!(loser.kind(), ErrorKind::AlreadyExists);
    }
}

/// Concurrent appends lose nobody's bytes
#[test]
fn appends_from_two_mounts_are_all_kept() {
    let s = Stage::new();
    let other = Mount::root(&s.server.endpoint());
    s.sh(": > log");
    wait::until_true("it shows", || other.at("log").exists());
    std::thread::scope(|scope| {
        for mount in [&s.mount, &other] {
            scope.spawn(|| mount.sh("for i in $(seq 100); do echo line $i >> log; done"));
        }
    });
    let value = s.api.value("/log").expect("it is there");
    let mut lines: Vec<&str> = value.lines().collect();
    assert_eq!(lines.len(), 200);
    lines.sort_unstable();
    let mut wanted: Vec<String> =
        (1..=100).flat_map(|i| [format!("line {i}"), format!("line {i}")]).collect();
    wanted.sort_unstable();
    assert_eq!(lines, wanted);
}
