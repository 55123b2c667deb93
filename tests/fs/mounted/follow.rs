//! Read handles: a snapshot each, that follows later values once it is at its end.

use std::{
    fs,
    io::{Read, Seek, SeekFrom},
    path::Path,
    process::Command,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use etcfs_proto::mvccpb::Event;
use etcfs_tests::{command::Followed, machine, process::show, wait};

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

/// How long others change what is read, how often, and what of that a loaded machine must reach.
const STORM: Duration = Duration::from_secs(8);
const PACE: Duration = Duration::from_millis(1);
const CHANGES_MIN: u64 = 200 * STORM.as_secs();
/// Clients at a time: what one changes is not faster than its answers.
const WRITERS: usize = 8;

/// Programs that read `f` and `g` again and again until there is a file `$STOP`. What they print is values, and sizes
/// of a value between the two beside it.
const READERS: [&str; 5] = [
    "while [ ! -e $STOP ]; do cat f; done",
    "while [ ! -e $STOP ]; do cat f; echo size $(wc -c < f); done",
    "while [ ! -e $STOP ]; do cat f; echo size $(stat -c %s f); done",
    "while [ ! -e $STOP ]; do cp f $STOP.copy; cat $STOP.copy; done",
    "while [ ! -e $STOP ]; do cat g; echo size $(wc -c < g); done",
];
/// The one of them that reads `g`.
const OF_G: usize = 4;

/// The same by sendfile(2); what it sees cut, or with zeros behind it, it says.
const SENDFILE: &str = r#"
import os
out = os.memfd_create("out")
while not os.path.exists(os.environ["STOP"]):
    file = os.open("f", os.O_RDONLY)
    os.ftruncate(out, 0)
    os.lseek(out, 0, os.SEEK_SET)
    os.sendfile(out, file, 0, 1 << 20)
    os.close(file)
    text = os.pread(out, 1 << 20, 0).decode()
    print(text if text.endswith("\n") else "cut " + text.strip("\0").strip("\n") + "\n", end="")
print("end", flush=True)
"#;

/// The length of a value of the storm.
fn length(number: u64) -> usize {
    40 + number as usize % 200
}

/// A value that says which one it is, and how long.
fn numbered(number: u64) -> String {
    let head = format!("{number} {} ", length(number));
    let fill = char::from(b'a' + (number % 26) as u8).to_string();
    head.clone() + &fill.repeat(length(number) - head.len() - 1) + "\n"
}

/// The number of a value that is shown whole.
fn whole(line: &str) -> Option<u64> {
    let number = line.split(' ').next()?.parse().ok()?;
    (numbered(number).trim_end() == line).then_some(number)
}

/// The numbers of a file's values, in the order of their revisions.
struct Order(Vec<u64>);

impl Order {
    /// Of what was put since a revision.
    fn since(s: &Stage, key: &str, revision: i64) -> Self {
        let text =
            |event: &Event| event.kv.as_ref().map(|kv| String::from_utf8_lossy(&kv.value).into_owned());
        let events = s.api.events_since(key, revision);
        let numbers =
            events.iter().map(|event| text(event).as_deref().and_then(|text| whole(text.trim_end())));
        Self(numbers.map(|number| number.expect("nobody else puts it")).collect())
    }

    fn last(&self) -> u64 {
        self.0.last().copied().unwrap_or_default()
    }

    /// The place of a value that is shown whole, and is none of those before `last`.
    #[track_caller]
    fn place(&self, line: &str, last: usize) -> usize {
        let place = whole(line).and_then(|number| self.0.iter().position(|other| *other == number));
        let Some(place) = place else { panic!("{line:?} after {} is no value", self.0[last]) };
        assert!(place >= last, "{line:?} after {}", self.0[last]);
        place
    }
}

/// Reads all that a reader has printed: whole values, none older than one before, and sizes that fit. Gives how many
/// there were, and how many were cut.
fn judged(reader: &mut Followed, order: &Order) -> (usize, usize) {
    let (mut last, mut sizes, mut count, mut cut) = (0, Vec::new(), 0, 0);
    loop {
        let line = reader.line();
        if line == "end" {
            return (count, cut);
        }
        if let Some(size) = line.strip_prefix("size ") {
            sizes.push(size.parse::<usize>().expect("a number"));
            continue;
        }
        if let Some(begin) = line.strip_prefix("cut ") {
            let number = begin.split_once(' ').and_then(|(number, _)| number.parse().ok());
            assert!(number.is_some_and(|number| numbered(number).starts_with(begin)), "{begin:?}");
            cut += 1;
            continue;
        }
        let place = order.place(&line, last);
        for size in sizes.drain(..) {
            let fits = order.0[last..=place].iter().any(|number| length(*number) == size);
            assert!(fits, "{size} between {} and {line:?}", order.0[last]);
        }
        (last, count) = (place, count + 1);
    }
}

/// Puts values of `/f` elsewhere and writes others to `g` here, for as long as the storm lasts. Gives how many of each.
fn storm(s: &Stage) -> (u64, u64) {
    let began = Instant::now();
    let numbers = AtomicU64::new(0);
    let next = || numbers.fetch_add(1, Ordering::Relaxed) + 1;
    let local = std::thread::scope(|scope| {
        for _ in 0..WRITERS {
            scope.spawn(|| {
                while began.elapsed() < STORM {
                    let number = next();
                    s.api.set("/f", numbered(number));
                    wait::poll(STORM, || began.elapsed() >= PACE * number as u32);
                }
            });
        }
        let local = scope.spawn(|| {
            let mut number = 0;
            while began.elapsed() < STORM {
                number += 1;
                fs::write(s.mount.at("g"), numbered(number)).expect("it is written");
            }
            number
        });
        local.join().expect("the local writer goes on")
    });
    (numbers.into_inner(), local)
}

/// A remote change is seen without asking
/// `tail -f KEY` prints every new value whole, in order, each once
/// A reader by sendfile(2) or by a map may see a value cut
#[test]
fn readers_beside_a_storm_of_changes_see_whole_values_and_none_older_than_before() {
    let s = Stage::new();
    let before = s.api.set("/f", numbered(0));
    fs::write(s.mount.at("g"), numbered(0)).expect("it is written");
    s.comes_to_print("cat f", &numbered(0));
    let dir = s.mount.path();
    let stop = s.server.scratch().join("stop");
    // The storm goes first.
    let start = |program: &Path, args: [&str; 2]| {
        let mut command = Command::new("nice");
        command.arg(program).args(args).env("STOP", &stop).current_dir(&dir);
        Followed::start(&mut command)
    };
    let shell = machine::program("bash");
    let mut readers: Vec<Followed> =
        READERS.iter().map(|script| start(&shell, ["-c", &format!("{script}; echo end")])).collect();
    readers.push(start(&machine::program("python3"), ["-c", SENDFILE]));
    let mut tails = [Followed::sh(&dir, "tail -f f"), Followed::sh(&dir, "tail -F f")];
    for tail in &mut tails {
        tail.expect(&[numbered(0).trim_end()]);
    }
    let (remote, local) = storm(&s);
    fs::write(&stop, "").expect("outside the mount");
    assert!(remote >= CHANGES_MIN, "only {remote} changes in {STORM:?}");
    let order = Order::since(&s, "/f", before);
    let of_g = Order((0..=local).collect());
    let mut seen = Vec::new();
    for (number, reader) in readers.iter_mut().enumerate() {
        seen.push(judged(reader, if number == OF_G { &of_g } else { &order }));
    }
    for tail in &mut tails {
        let (mut last, mut count) = (0, 0);
        while last < order.0.len() - 1 {
            let place = order.place(&tail.line(), last);
            assert!(place > last, "{} twice", order.0[last]);
            (last, count) = (place, count + 1);
        }
        seen.push((count, 0));
    }
    assert_eq!(s.sh("cat f g"), numbered(order.last()) + &numbered(local));
    assert!(seen.iter().all(|(count, _)| *count > 20), "{seen:?}");
    assert!(
        seen.iter().enumerate().all(|(number, (_, cut))| number == READERS.len() || *cut == 0),
        "{seen:?}"
    );
    show(&format!("{remote} remote and {local} local changes in {STORM:?}; read and cut by each: {seen:?}"));
}
