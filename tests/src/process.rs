//! A long-running process of a test: its log, its signals, its end.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::wait;

/// Lines of the log that a failure shows.
const TAIL: usize = 60;

/// A running child, killed when dropped. Its output goes to a file.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command`, its output appended to `log`.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> Self {
        let out = File::options().create(true).append(true).open(log).expect("a log in the test's directory");
        let err = out.try_clone().expect("a second handle on the log");
        let child = command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        Self { name: name.into(), child, log: log.into() }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends `signal`; a process that has ended is no error.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        // Not reaped yet, so the number is still this child's.
        let _ended = kill_process(pid, signal);
    }

    /// Kills it with SIGKILL and reaps it.
    pub fn kill(&mut self) {
        drop(self.child.kill());
        self.child.wait().expect("a child can be waited for");
    }

    /// Asks it to stop with SIGTERM and waits for its end.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait_for_end(wait::PATIENCE)
    }

    pub fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    pub fn wait_for_end(&mut self, patience: Duration) -> ExitStatus {
        let what = format!("{} ends\n{}", self.name, self.log_tail());
        wait::within(patience, &what, || self.has_ended())
    }

    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The end of the log, under a headline.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let tail = &lines[lines.len().saturating_sub(TAIL)..];
        format!("--- end of the log of {}:\n{}\n---", self.name, tail.join("\n"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            show(&self.log_tail());
        }
        self.kill();
    }
}

/// Prints to what the test runner captures and shows with a failure.
#[expect(clippy::print_stderr, reason = "a failing test's words")]
pub fn show(text: &str) {
    eprintln!("{text}");
}
