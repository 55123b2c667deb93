//! The server dies under the mount and comes back: the mount waits and goes on.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
};

use etcfs_tests::{machine, wait};

use super::Stage;

/// Writes between two kills.
const WRITES: u64 = 5;

/// A program that writes numbers through the mount until it is told to stop.
///
/// A thread of its own and no scope: where the test fails, the mount goes, and
/// with it whatever this waits for.
struct Writer {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    thread: JoinHandle<u64>,
}

impl Writer {
    fn start(log: PathBuf, current: PathBuf) -> Self {
        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (told, done) = (stop.clone(), written.clone());
        let thread = std::thread::spawn(move || {
            let mut number = 0_u64;
            while !told.load(Ordering::Relaxed) {
                write(&log, &current, number);
                number += 1;
                done.store(number, Ordering::Relaxed);
            }
            number
        });
        Self { stop, written, thread }
    }

    /// Waits until it has written some more.
    fn goes_on(&self) {
        let goal = self.written.load(Ordering::Relaxed) + WRITES;
        wait::until_true("the mount writes on", || {
            assert!(!self.thread.is_finished(), "the writer failed");
            self.written.load(Ordering::Relaxed) >= goal
        });
    }

    /// Stops it; returns how often it wrote.
    fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the writer never failed")
    }
}

/// Overwrites one file and appends to another; both succeed, whatever the server does.
fn write(log: &Path, current: &Path, number: u64) {
    let line = format!("{number}\n");
    fs::write(current, &line).expect("a write waits for the server, and succeeds");
    let mut file = fs::OpenOptions::new().create(true).append(true).open(log).expect("it opens");
    file.write_all(line.as_bytes()).expect("an append succeeds");
    assert_eq!(fs::read_to_string(current).expect("it can be read"), line, "our own write");
}

/// Without the server the mount waits
#[test]
fn a_mount_goes_on_after_each_restart_of_its_server() {
    let mut s = Stage::new();
    let writer = Writer::start(s.mount.at("log"), s.mount.at("current"));
    for _ in 0..machine::setting("ETCFS_TEST_KILLS", 50) {
        writer.goes_on();
        s.server.kill();
        s.server.run();
    }
    writer.goes_on();
    let count = writer.stop();
    // Every line once and in order: nothing lost, nothing doubled.
    let lines: String = (0..count).map(|number| format!("{number}\n")).collect();
    assert_eq!(s.api.value("/log"), Some(lines));
    let version = s.api.get("/current").expect("it is there").version;
    assert_eq!(version as u64, count, "each write is one version");
}
