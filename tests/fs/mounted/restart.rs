//! The server dies under the mount and comes back: the mount waits and goes on.

use std::{
    fs,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use etcfs_tests::{machine, wait};

use super::Stage;

/// Without the server the mount waits
#[test]
fn a_mount_goes_on_after_each_restart_of_its_server() {
    let mut s = Stage::new();
    let rounds = machine::setting("ETCFS_TEST_KILLS", 50).min(20);
    let (stop, written) = (AtomicBool::new(false), AtomicU64::new(0));
    let (log, current) = (s.mount.at("log"), s.mount.at("current"));
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut number = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                let line = format!("{number}\n");
                fs::write(&current, &line).expect("a write waits for the server, and succeeds");
                let mut file = fs::OpenOptions::new().create(true).append(true).open(&log).expect("it opens");
                std::io::Write::write_all(&mut file, line.as_bytes()).expect("an append succeeds");
                assert_eq!(fs::read_to_string(&current).expect("it can be read"), line, "our own write");
                number += 1;
                written.store(number, Ordering::Relaxed);
            }
            number
        });
        let progress = |goal: u64| {
            wait::until_true("the mount writes", || {
                assert!(!writer.is_finished() || stop.load(Ordering::Relaxed), "the writer failed");
                written.load(Ordering::Relaxed) >= goal
            });
        };
        for _ in 0..rounds {
            progress(written.load(Ordering::Relaxed) + 5);
            s.server.kill();
            s.server.run();
        }
        progress(written.load(Ordering::Relaxed) + 5);
        stop.store(true, Ordering::Relaxed);
        let count = writer.join().expect("the writer never failed");
        // Every line once and in order: nothing lost, nothing doubled.
        let lines: String = (0..count).map(|number| format!("{number}\n")).collect();
        assert_eq!(s.api.value("/log"), Some(lines));
        let version = s.api.get("/current").expect("it is there").version;
        assert_eq!(version as u64, count, "each write is one version");
    });
}
