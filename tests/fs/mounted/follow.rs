//! Read handles: a snapshot each, that follows later values once it is at its end.

use std::{
    fs,
    io::{Read, Seek, SeekFrom},
};

use etcfs_tests::{command::Followed, machine, wait};

use super::Stage;

/// `tail -f KEY` prints every new value whole, in order, each once
#[test]
fn tail_prints_each_value_of_a_storm_once_and_in_order() {
    let s = Stage::new();
    s.api.set("/f", "start\n");
    s.comes_to_print("cat f", "start\n");
    let mut tail = Followed::sh(&s.mount.path(), "tail -f f");
    tail.expect(&["start"]);
    for number in 0..300 {
        // Longer, shorter and of the same size by turns.
        s.api.set("/f", format!("value {number} {}\n", "x".repeat(number % 7 * 5)));
    }
    for number in 0..300 {
        let wanted = format!("value {number} {}", "x".repeat(number % 7 * 5));
        tail.expect(&[&wanted]);
    }
}

#[test]
fn every_way_of_tailing_prints_each_value_once() {
    let s = Stage::new();
    s.api.set("/f", "start\n");
    s.comes_to_print("cat f", "start\n");
    let dir = s.mount.path();
    let mut tails = [
        Followed::sh(&dir, "tail -F f"),
        Followed::sh(&dir, "tail -c+1 -f f"),
        Followed::sh(&dir, &format!("{} tail -f f", machine::program("busybox").display())),
        Followed::sh(
            &dir,
            "python3 -u -c '
import threading
f = open(\"f\")
while True:
    line = f.readline()
    if line: print(line, end=\"\")
    else: threading.Event().wait(0.02)
'",
        ),
    ];
    for tail in &mut tails {
        tail.expect(&["start"]);
    }
    // Of others and of this mount by turns.
    for (number, value) in ["same.", "short", "a longer value", "s", "same.", "same."].iter().enumerate() {
        put_by_turns(&s, number, value);
        for tail in &mut tails {
            tail.expect(&[value]);
        }
    }
}

/// Puts a line elsewhere, or here.
fn put_by_turns(s: &Stage, number: usize, value: &str) {
    if number.is_multiple_of(2) {
        s.api.set("/f", format!("{value}\n"));
    } else {
        s.sh(&format!("echo {value} > f"));
    }
}

#[test]
fn tail_of_no_lines_prints_the_values_that_come() {
    let s = Stage::new();
    s.sh("echo start > f");
    let mut tail = Followed::sh(&s.mount.path(), "tail -n0 -f f");
    let facts = format!("/proc/{}/fdinfo/3", tail.pid());
    wait::until_true("tail stands at the end", || {
        fs::read_to_string(&facts).is_ok_and(|facts| facts.lines().any(|line| line == "pos:\t6"))
    });
    for (number, value) in ["same.", "longer than that", "s"].iter().enumerate() {
        put_by_turns(&s, number, value);
        tail.expect(&[value]);
    }
}

#[test]
fn tail_of_two_files_prints_each_value_under_its_name() {
    let s = Stage::new();
    s.sh("echo start > f; echo other > g");
    let mut tail = Followed::sh(&s.mount.path(), "tail -f f g");
    tail.expect(&["==> f <==", "start", "", "==> g <==", "other"]);
    for (number, value) in ["one", "two2", "thr"].iter().enumerate() {
        put_by_turns(&s, number, value);
        tail.expect(&["", "==> f <==", value]);
        s.api.set("/g", format!("{value}\n"));
        tail.expect(&["", "==> g <==", value]);
    }
}

#[test]
fn less_follows_a_file() {
    let s = Stage::new();
    s.sh("echo start > f");
    let less = machine::program("less").display().to_string();
    let script = machine::program("script").display().to_string();
    let mut less = Followed::sh(
        &s.mount.path(),
        &format!("env TERM=dumb LESS= {script} --quiet --command '{less} +F f' /dev/null"),
    );
    let mut shows = |value: &str| while !less.line().contains(value) {};
    shows("start");
    for (number, value) in ["same.", "longer than that", "s!"].iter().enumerate() {
        put_by_turns(&s, number, value);
        shows(value);
    }
}

/// An open file is its revision
#[test]
fn an_open_file_shows_the_value_it_was_opened_at() {
    let s = Stage::new();
    s.sh("echo old > f");
    assert_eq!(s.sh("exec 3<f; echo new > f; cat <&3; cat f"), "old\nnew\n");
    let mut file = fs::File::open(s.mount.at("f")).expect("f is there");
    let mut begin = [0; 1];
    file.read_exact(&mut begin).expect("it can be read");
    s.sh("echo entirely different > f");
    let mut rest = String::new();
    file.read_to_string(&mut rest).expect("it can be read");
    assert!(rest.starts_with("ew\n"), "{rest:?}");
    assert_eq!(begin, *b"n");
    // From the start again, at the end and after a change, it is the newest.
    file.seek(SeekFrom::Start(0)).expect("it can be rewound");
    let mut again = String::new();
    file.read_to_string(&mut again).expect("it can be read");
    assert_eq!(again, "entirely different\n");
}

/// One stable st_ino
#[test]
fn a_followed_file_keeps_its_inode_and_its_exact_size() {
    let s = Stage::new();
    s.sh("echo one > f");
    let inode = s.sh("stat -c %i f");
    let mut tail = Followed::sh(&s.mount.path(), "tail -f f");
    tail.expect(&["one"]);
    for value in ["three", "seventeen", "v", "three"] {
        s.sh(&format!("echo {value} > f"));
        tail.expect(&[value]);
        assert_eq!(s.sh("stat -c %i f"), inode);
        assert_eq!(s.sh("stat -c %s f"), format!("{}\n", value.len() + 1));
        assert_eq!(s.sh("cp f /dev/stdout"), format!("{value}\n"));
        assert_eq!(s.sh("wc -c < f"), format!("{}\n", value.len() + 1));
    }
}

#[test]
fn readers_see_whole_values_under_a_storm_of_changes() {
    let s = Stage::new();
    let value = |number: usize| format!("{number} ").repeat(number % 40 + 1);
    s.api.set("/f", value(0));
    wait::until_true("the file is there", || s.mount.at("f").exists());
    let api = s.api.clone();
    let writer = std::thread::spawn(move || {
        for number in 0..2000 {
            api.set("/f", format!("{number} ").repeat(number % 40 + 1));
        }
    });
    let mut seen = 0;
    let mut reads = 0_u32;
    while !writer.is_finished() {
        let text = fs::read_to_string(s.mount.at("f")).expect("it can be read");
        let number: usize = text.split(' ').next().and_then(|word| word.parse().ok()).expect("a number");
        assert_eq!(text, value(number), "a torn value");
        assert!(number >= seen, "{number} after {seen}");
        seen = number;
        reads += 1;
    }
    writer.join().expect("the writer puts all its values");
    assert!(reads > 50, "{reads} reads while 2,000 values were put");
    s.comes_to_print("cat f", &value(1999));
}
