//! A wall clock of a process's own, that can be made to jump while it runs.
//!
//! libfaketime stands between the process and the C library, and reads the
//! offset of the wall clock from a file at each look. The clocks that count time
//! passed are left alone. A program that asks the kernel by itself (Go's do) is
//! not fooled.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::machine;

/// One wall clock; right until it jumps.
#[derive(Debug)]
pub struct Clock {
    offset: PathBuf,
}

impl Clock {
    /// A clock whose offset lies in `dir`.
    pub fn new(dir: &Path) -> Self {
        let clock = Self { offset: dir.join("clock") };
        clock.set(0);
        clock
    }

    /// What a process that shall have it needs in its environment.
    pub fn env(&self) -> Vec<(String, String)> {
        let text = |path: PathBuf| path.into_os_string().into_string().expect("paths of tests are text");
        vec![
            ("LD_PRELOAD".into(), text(machine::faketime())),
            ("FAKETIME_TIMESTAMP_FILE".into(), text(self.offset.clone())),
            ("FAKETIME_NO_CACHE".into(), "1".into()),
            ("DONT_FAKE_MONOTONIC".into(), "1".into()),
        ]
    }

    /// Has it be so many seconds ahead of the true time, or behind.
    pub fn set(&self, seconds: i64) {
        // In one step: nobody reads half an offset.
        let new = self.offset.with_extension("new");
        fs::write(&new, format!("{seconds:+}\n")).expect("a file of the test's own");
        fs::rename(new, &self.offset).expect("a file of the test's own");
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader, Write},
        process::{Command, Stdio},
    };

    use super::*;

    #[test]
    fn the_wall_clock_of_one_process_jumps_and_nothing_else() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let clock = Clock::new(dir.path());
        let script = "import time\nwhile input(): print(time.time(), time.monotonic(), flush=True)";
        let mut python = Command::new(machine::program("python3"))
            .args(["-c", script])
            .envs(clock.env())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python starts");
        let (mut asks, answers) = (python.stdin.take().expect("piped"), python.stdout.take().expect("piped"));
        let mut answers = BufReader::new(answers).lines();
        let mut look = || {
            writeln!(asks, "?").expect("it reads");
            let line = answers.next().expect("it answers").expect("with text");
            let (wall, passed) = line.split_once(' ').expect("two numbers");
            (wall.parse::<f64>().expect("a number"), passed.parse::<f64>().expect("a number"))
        };
        let (wall, passed) = look();
        clock.set(3600);
        let (later, passed_later) = look();
        clock.set(-3600);
        let (before, passed_last) = look();
        assert!((3600.0..3660.0).contains(&(later - wall)), "{wall} {later}");
        assert!((3540.0..=3600.0).contains(&(wall - before)), "{wall} {before}");
        assert!(passed_last >= passed_later && passed_later >= passed && passed_last - passed < 60.0);
        drop(asks);
        python.wait().expect("it ends with its input");
    }
}
