//! Signals that come while a program waits for the server.

use std::{process::Command, time::Duration};

use etcfs_tests::{command::Followed, machine};

use super::Stage;

/// Ticks, and looks of the mount at its callers' signals, for some dozens of either.
const OUTAGE: Duration = Duration::from_secs(2);

/// Saves so many bytes while a timer ticks.
const SAVER: &str = r#"
import signal, sys
ticks = 0
def tick(number, frame):
    global ticks
    ticks += 1
signal.signal(signal.SIGALRM, tick)
size = int(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
file = open("f", "wb", buffering=0)
print("opened", flush=True)
signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
file.write(b"x" * size)
file.close()
signal.setitimer(signal.ITIMER_REAL, 0)
print("saved", "ticks" if ticks else "no tick", flush=True)
"#;

/// Without the server the mount waits
#[test]
fn a_mounted_save_outlives_a_timer_and_an_outage() {
    let s = Stage::new();
    // In write(2), and in close(2).
    for size in [10, 100_000] {
        s.sh("echo old > f; cat f");
        let mut python = Command::new(machine::program("python3"));
        let python = python.args(["-c", SAVER, &size.to_string()]).current_dir(s.mount.path());
        let mut saver = Followed::start_with_input(python);
        saver.expect(&["ready"]);
        s.server.pause();
        saver.type_in("\n");
        saver.expect(&["opened"]);
        saver.expect_silence(OUTAGE);
        s.server.resume();
        saver.expect(&["saved ticks"]);
        assert_eq!(s.api.get("/f").expect("it is there").value.len(), size);
    }
}
