//! A server as a process: ours, or Debian's etcd as the reference. Alone, unless
//! a cluster ([`crate::cluster`]) tells it of others.

use std::{
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    time::Duration,
};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::{api::Api, binary, machine, port::Port, process::Process, proxy::Proxy, wait};

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `etcfsd`, as cargo built it with the tests.
    Etcfs,
    /// Debian's `etcd`: what a client expects, from the thing itself.
    Etcd,
}

impl Kind {
    /// The program, without flags that say where it serves.
    pub(crate) fn command(self) -> Command {
        let mut command = Command::new(match self {
            Self::Etcfs => binary::etcfsd(),
            Self::Etcd => machine::program("etcd"),
        });
        // The tests' own environment must not configure a server; Debian's arm64 build asks for the last one.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("ETCD_") {
                command.env_remove(name);
            }
        }
        if self == Self::Etcd {
            command.args(["--logger", "zap", "--log-outputs", "stderr", "--log-level", "warn"]);
            if cfg!(target_arch = "aarch64") {
                command.env("ETCD_UNSUPPORTED_ARCH", "arm64");
            }
        }
        command
    }
}

/// How to start a server, beyond ports and directories.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub args: Vec<String>,
    pub env: Vec<(String, String)>,
    /// Where its data lies; a temporary directory of its own by default.
    pub data_dir: Option<PathBuf>,
    /// Clients are served over TLS, with what `args` say.
    pub secure: bool,
    /// Other members are spoken to over TLS, with what `args` say.
    pub secure_peers: bool,
    /// Other members reach it through a proxy of its own.
    pub peers_by_proxy: bool,
}

/// A server of one test; killed when dropped.
#[derive(Debug)]
pub struct Server {
    /// First, so that it ends, and shows its log, before its directory goes.
    process: Option<Process>,
    kind: Kind,
    options: Options,
    name: String,
    /// Members at its first start; it alone for `None`.
    initial_cluster: Option<String>,
    /// It is not told of any member, itself among them.
    discovers: bool,
    client: Port,
    peer: Port,
    peer_proxy: Option<Proxy>,
    dir: TempDir,
}

impl Server {
    /// A running `etcfsd`.
    pub fn etcfs() -> Self {
        Self::start(Kind::Etcfs)
    }

    /// A running etcd of Debian's.
    pub fn etcd() -> Self {
        Self::start(Kind::Etcd)
    }

    pub fn start(kind: Kind) -> Self {
        Self::with(kind, Options::default())
    }

    pub fn with(kind: Kind, options: Options) -> Self {
        let mut server = Self::prepared(kind, options);
        server.run();
        server
    }

    /// A server that is not started yet.
    pub fn prepared(kind: Kind, options: Options) -> Self {
        let dir = tempfile::Builder::new().prefix("etcfs-tests-").tempdir().expect("a temporary directory");
        let (client, peer, name) = (Port::take(), Port::take(), "default".to_owned());
        let peer_proxy = options.peers_by_proxy.then(|| Proxy::to(&peer.address()));
        Self {
            kind,
            options,
            name,
            initial_cluster: None,
            discovers: false,
            client,
            peer,
            peer_proxy,
            dir,
            process: None,
        }
    }

    /// Has it start as one of several.
    pub(crate) fn set_cluster(&mut self, name: &str, initial_cluster: String) {
        self.name = name.to_owned();
        self.initial_cluster = Some(initial_cluster);
    }

    /// Has it start as `name`, and find out by itself who is in its cluster.
    pub fn set_discovers(&mut self, name: &str) {
        self.name = name.to_owned();
        self.discovers = true;
    }

    /// Gives the next start a further argument.
    pub fn add_arg(&mut self, arg: &str) {
        self.options.args.push(arg.to_owned());
    }

    /// Leaves an argument out of the next start.
    pub fn remove_arg(&mut self, arg: &str) {
        self.options.args.retain(|had| had != arg);
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// `http://127.0.0.1:PORT`, or https, where other members reach it.
    pub fn peer_url(&self) -> String {
        let address = self.peer_proxy.as_ref().map_or_else(|| self.peer.address(), Proxy::endpoint);
        format!("{}://{address}", self.peer_scheme())
    }

    fn peer_scheme(&self) -> &'static str {
        if self.options.secure_peers { "https" } else { "http" }
    }

    /// Where other members come in, if the options say so.
    pub fn peer_proxy(&self) -> &Proxy {
        self.peer_proxy.as_ref().expect("its options ask for one")
    }

    pub fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// Starts it, again after its end too, on the same ports and data.
    pub fn run(&mut self) {
        self.launch();
        self.wait_until_ready();
    }

    /// Starts it without waiting until it serves.
    pub fn launch(&mut self) {
        let name = format!("{:?} {} on {}", self.kind, self.name, self.client.address());
        let log = self.dir.path().join("log");
        self.process = Some(Process::start(&name, &mut self.command(), &log));
    }

    /// The command that runs it.
    pub(crate) fn command(&self) -> Command {
        let scheme = if self.options.secure { "https" } else { "http" };
        let client = format!("{scheme}://{}", self.client.address());
        let peer = self.peer_url();
        let listens = format!("{}://{}", self.peer_scheme(), self.peer.address());
        let alone = || format!("{}={peer}", self.name);
        let cluster = self.initial_cluster.clone().unwrap_or_else(alone);
        let mut command = self.kind.command();
        command
            .args(["--name", &self.name, "--data-dir"])
            .arg(self.data_dir())
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &listens, "--initial-advertise-peer-urls", &peer])
            .args(if self.discovers { vec![] } else { vec!["--initial-cluster", &cluster] })
            .args(&self.options.args)
            .envs(self.options.env.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Returns once it answers that it is healthy.
    pub fn wait_until_ready(&mut self) {
        let process = self.process.as_mut().expect("it was launched");
        let address = self.client.address();
        let secure = self.options.secure;
        wait::until("the server is healthy (its log is below)", || {
            if let Some(status) = process.has_ended() {
                panic!("the server ended with {status} before it served\n{}", process.log_tail());
            }
            // It tells nobody in its log; its first answer is waited for by its first client.
            if secure && self.kind == Kind::Etcd {
                return TcpStream::connect(&address).ok().map(drop);
            }
            if secure {
                return process.log().contains("serving client traffic securely").then_some(());
            }
            http_get(&address, "/health").filter(|body| body.contains("\"true\"")).map(drop)
        });
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// `127.0.0.1:PORT`, where clients are served.
    pub fn endpoint(&self) -> String {
        self.client.address()
    }

    /// `host:port` of the port for other members.
    pub fn peer_endpoint(&self) -> String {
        self.peer.address()
    }

    pub fn api(&self) -> Api {
        Api::to(&self.endpoint())
    }

    pub fn data_dir(&self) -> PathBuf {
        self.options.data_dir.clone().unwrap_or_else(|| self.dir.path().join("data"))
    }

    /// A directory of this test's own, beside the data.
    pub fn scratch(&self) -> &Path {
        self.dir.path()
    }

    pub fn pid(&self) -> u32 {
        self.running().pid()
    }

    /// Bytes of memory that it holds now.
    pub fn resident_bytes(&self) -> u64 {
        self.memory("VmRSS")
    }

    /// The most that it has held.
    pub fn peak_bytes(&self) -> u64 {
        self.memory("VmHWM")
    }

    /// Has [`Self::peak_bytes`] begin anew with what it holds now.
    pub fn reset_peak(&self) {
        // proc(5): 5 resets the peak.
        std::fs::write(format!("/proc/{}/clear_refs", self.pid()), "5").expect("a process of our own");
    }

    fn memory(&self, field: &str) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("a running process");
        let line = status.lines().find(|line| line.starts_with(field)).expect("the kernel says it");
        let kilobytes: u64 =
            line.split_whitespace().nth(1).and_then(|word| word.parse().ok()).expect("a number");
        kilobytes * 1024
    }

    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("the server runs")
    }

    fn running(&self) -> &Process {
        self.process.as_ref().expect("the server runs")
    }

    /// Changes the environment of the next start.
    pub fn set_env(&mut self, name: &str, value: &str) {
        self.options.env.retain(|(had, _)| had != name);
        self.options.env.push((name.into(), value.into()));
    }

    /// Leaves a variable out of the environment of the next start.
    pub fn unset_env(&mut self, name: &str) {
        self.options.env.retain(|(had, _)| had != name);
    }

    /// Changes where the data of the next start lies.
    pub fn set_data_dir(&mut self, dir: PathBuf) {
        self.options.data_dir = Some(dir);
    }

    /// Ends it as a power loss of the process does: SIGKILL.
    pub fn kill(&mut self) {
        self.process.take().expect("the server runs").kill();
    }

    /// Ends it in order, with SIGTERM.
    pub fn stop(&mut self) -> ExitStatus {
        self.process.take().expect("the server runs").stop()
    }

    /// Waits until it has ended by itself.
    pub fn wait_for_end(&mut self, patience: Duration) -> ExitStatus {
        self.process.take().expect("the server runs").wait_for_end(patience)
    }

    pub fn pause(&self) {
        self.running().signal(Signal::STOP);
    }

    pub fn resume(&self) {
        self.running().signal(Signal::CONT);
    }

    /// Everything it has printed, in all its runs.
    pub fn log(&self) -> String {
        let log = std::fs::read(self.dir.path().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// What it has printed since it was last started.
    pub fn log_of_last_run(&self) -> String {
        let log = self.log();
        let began = log.rfind("\"message\":\"starting\"").unwrap_or(0);
        log[began..].to_owned()
    }

    /// The value of a metric, summed over its labels; `None` where it is missing.
    pub fn metric(&self, name: &str) -> Option<f64> {
        let text = http_get(&self.endpoint(), "/metrics")?;
        let values: Vec<f64> = text
            .lines()
            .filter(|line| line.split(['{', ' ']).next() == Some(name))
            .filter_map(|line| line.rsplit(' ').next()?.parse().ok())
            .collect();
        (!values.is_empty()).then(|| values.iter().sum())
    }

    /// Waits until the server holds `count` watchers: for clients that don't say when theirs is set.
    #[track_caller]
    pub fn wait_for_watchers(&self, count: f64) {
        wait::until_true("the watch is registered", || {
            self.metric("etcd_debugging_mvcc_watcher_total").is_some_and(|watchers| watchers >= count)
        });
    }
}

/// The body of a plain HTTP answer, whatever its status; `None` while nobody listens.
pub fn http_get(address: &str, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let text = String::from_utf8_lossy(&answer).into_owned();
    text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
}
