//! A long-running process of a test: its log, its signals, its end.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Mutex, OnceLock,
        mpsc::{Sender, channel},
    },
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
        let mut bound = bound(command);
        bound.stdin(Stdio::null()).stdout(out).stderr(err);
        let child = spawn(bound).unwrap_or_else(|error| panic!("{name} does not start: {error}"));
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

/// The same command, killed by the kernel when the test process ends, however it ends.
fn bound(command: &Command) -> Command {
    let mut bound = Command::new("setpriv");
    bound.args(["--pdeathsig", "KILL"]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => bound.env(name, value),
            None => bound.env_remove(name),
        };
    }
    if let Some(dir) = command.get_current_dir() {
        bound.current_dir(dir);
    }
    bound
}

/// Spawns from a thread that lives as long as the test process.
///
/// The kernel takes the end of the thread that spawned for the parent's death,
/// and a server may outlive the test, and so the thread, that started it.
fn spawn(command: Command) -> io::Result<Child> {
    type Order = (Command, Sender<io::Result<Child>>);
    static SPAWNER: OnceLock<Mutex<Sender<Order>>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (orders, queue) = channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, reply) in queue {
                let _asker_gone = reply.send(command.spawn());
            }
        });
        Mutex::new(orders)
    });
    let (reply, child) = channel();
    let orders = spawner.lock().expect("no holder of this lock panics");
    orders.send((command, reply)).expect("the spawner never ends");
    drop(orders);
    child.recv().expect("the spawner answers each order")
}

/// Prints to what the test runner captures and shows with a failure.
#[expect(clippy::print_stderr, reason = "a test's own words")]
pub fn show(text: &str) {
    eprintln!("{text}");
}
