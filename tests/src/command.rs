//! Commands that tests run as a user would: to their end, or followed line by line.

use std::{
    ffi::OsStr,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    time::Duration,
};

use crate::{binary, machine, wait};

/// Longest that one command may take before the test fails.
const COMMAND_SECONDS_MAX: u32 = 120;

/// How a command ended and what it printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// Its output, if it succeeded and complained of nothing.
    #[track_caller]
    pub fn ok(self) -> String {
        assert!(self.code == 0, "exit code {}: {}{}", self.code, self.stdout, self.stderr);
        self.stdout
    }

    /// Its complaint, if it failed.
    #[track_caller]
    pub fn failed(self) -> String {
        assert!(self.code != 0, "succeeded, but should not: {}{}", self.stdout, self.stderr);
        self.stderr
    }
}

/// A client program with the endpoint it talks to.
#[derive(Clone, Debug)]
pub struct Client {
    pub name: &'static str,
    program: std::path::PathBuf,
    endpoint: String,
}

impl Client {
    /// Debian's `etcdctl`, as its users run it.
    pub fn etcdctl(endpoint: &str) -> Self {
        Self { name: "etcdctl", program: machine::program("etcdctl"), endpoint: endpoint.into() }
    }

    /// Our own `etcfs`.
    pub fn etcfs(endpoint: &str) -> Self {
        Self { name: "etcfs", program: binary::etcfs(), endpoint: endpoint.into() }
    }

    fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(&self.program);
        // The variable, not the flag: `watch -- cmd` and scripts pass it on so.
        command.env("ETCDCTL_API", "3").env("ETCDCTL_ENDPOINTS", &self.endpoint).args(args);
        command
    }

    /// Runs it to its end.
    pub fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Output {
        run(&mut self.command(args), b"")
    }

    /// Runs it to its end with some variables set.
    pub fn run_in<S: AsRef<OsStr>>(
        &self,
        variables: &[(&str, &str)],
        args: impl IntoIterator<Item = S>,
    ) -> Output {
        run(self.command(args).envs(variables.iter().copied()), b"")
    }

    /// Runs it to its end with `input` on its standard input.
    pub fn run_with<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>, input: &[u8]) -> Output {
        run(&mut self.command(args), input)
    }

    /// Starts it with some variables set and reads its lines as they come.
    pub fn follow_in<S: AsRef<OsStr>>(
        &self,
        variables: &[(&str, &str)],
        args: impl IntoIterator<Item = S>,
    ) -> Followed {
        Followed::start(self.command(args).envs(variables.iter().copied()))
    }

    /// Runs it to its end, with its output to a command of the shell; gives what that prints.
    #[track_caller]
    pub fn run_into(&self, filter: &str, line: &str) -> String {
        let script = format!("exec {} {line} | {filter}", self.program.display());
        let command = self.command::<&str>([]);
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(script);
        for (name, value) in command.get_envs() {
            shell.env(name, value.unwrap_or_default());
        }
        run(&mut shell, b"").ok()
    }

    /// Starts it with an input to [`Followed::type_in`].
    pub fn follow_with_input<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Followed {
        Followed::start_with_input(&mut self.command(args))
    }

    /// Starts it and reads its lines as they come.
    pub fn follow<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Followed {
        Followed::start(&mut self.command(args))
    }
}

/// Runs a shell script in `dir`.
pub fn sh(dir: &Path, script: &str) -> Output {
    run(Command::new("sh").arg("-c").arg(script).current_dir(dir), b"")
}

/// Runs a bash script in `dir`: for what its own redirections do.
pub fn bash(dir: &Path, script: &str) -> Output {
    run(Command::new("bash").arg("-c").arg(script).current_dir(dir), b"")
}

/// Runs `command` to its end; one that hangs is killed and fails.
pub fn run(command: &mut Command, input: &[u8]) -> Output {
    run_within(COMMAND_SECONDS_MAX, command, input)
}

/// The same for one that takes its time.
pub fn run_within(seconds: u32, command: &mut Command, input: &[u8]) -> Output {
    let mut bounded = Command::new("timeout");
    bounded
        .args(["--kill-after=5", &seconds.to_string()])
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => bounded.env(name, value),
            None => bounded.env_remove(name),
        };
    }
    if let Some(dir) = command.get_current_dir() {
        bounded.current_dir(dir);
    }
    let mut child = bounded
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    // Input is small (below a pipe's buffer); a command that ends without reading it is fine.
    if let Some(mut stdin) = child.stdin.take() {
        drop(stdin.write_all(input));
    }
    let output = child.wait_with_output().expect("a child's output can be read");
    Output {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A command that prints for as long as it runs, killed when dropped.
#[derive(Debug)]
pub struct Followed {
    child: Child,
    lines: Receiver<String>,
    shown: String,
}

impl Followed {
    pub fn start(command: &mut Command) -> Self {
        Self::start_on(command, Stdio::null())
    }

    /// The same with a standard input to [`Self::type_in`].
    pub fn start_with_input(command: &mut Command) -> Self {
        Self::start_on(command, Stdio::piped())
    }

    fn start_on(command: &mut Command, stdin: Stdio) -> Self {
        let shown = format!("{command:?}");
        let mut child = command
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap_or_else(|error| panic!("{shown} does not start: {error}"));
        let out = child.stdout.take().expect("its output is a pipe");
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(out).split(b'\n').map_while(Result::ok) {
                if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                    break;
                }
            }
        });
        Self { child, lines, shown }
    }

    /// A command of the shell, in `dir`.
    pub fn sh(dir: &Path, script: &str) -> Self {
        Self::start(Command::new("sh").arg("-c").arg(format!("exec {script}")).current_dir(dir))
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Types something.
    #[track_caller]
    pub fn type_in(&mut self, text: &str) {
        let stdin = self.child.stdin.as_mut().expect("it was started with an input");
        stdin.write_all(text.as_bytes()).and_then(|()| stdin.flush()).expect("it reads");
    }

    /// The next line.
    #[track_caller]
    pub fn line(&mut self) -> String {
        match self.lines.recv_timeout(wait::PATIENCE) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => panic!("{} printed no further line", self.shown),
            Err(RecvTimeoutError::Disconnected) => panic!("{} ended", self.shown),
        }
    }

    /// Checks that these lines come next.
    #[track_caller]
    pub fn expect(&mut self, lines: &[&str]) {
        for (i, wanted) in lines.iter().enumerate() {
            let line = self.line();
            assert_eq!(line, *wanted, "line {i} of what {} prints after the last step", self.shown);
        }
    }

    /// Checks that nothing comes for `time`: for what must not be printed twice.
    #[track_caller]
    pub fn expect_silence(&mut self, time: Duration) {
        if let Ok(line) = self.lines.recv_timeout(time) {
            panic!("{} printed {line:?}, which nothing asked for", self.shown);
        }
    }

    /// Waits until it ends by itself; true for success.
    pub fn end(&mut self) -> bool {
        wait::until(&format!("{} ends", self.shown), || self.child.try_wait().ok().flatten()).success()
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
