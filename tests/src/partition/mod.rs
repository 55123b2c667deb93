//! A cluster whose members can be cut off: each in a network namespace of its own.
//!
//! Our `etcfsd` and Debian's `etcd` are started with the same flags, so every
//! test of a cluster can be pointed at either. What is done to a member is done
//! to its process or its links; nobody asks the member.

mod network;

use std::{
    fs,
    path::PathBuf,
    process::{Command, ExitStatus},
    time::Duration,
};

use etcfs_proto::etcdserverpb::{StatusRequest, StatusResponse};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::time::timeout;

use crate::{
    api::{Api, runtime},
    process::Process,
    server::{Kind, http_get},
    wait,
};
use network::Network;

/// Every member has its addresses to itself, so all use etcd's ports.
const CLIENT_PORT: u16 = 2379;
const PEER_PORT: u16 = 2380;
/// How long a member may take to tell of its state.
const STATUS_TIMEOUT: Duration = Duration::from_millis(500);

/// How to start the members, beyond addresses and directories.
#[derive(Clone, Debug)]
pub struct Shape {
    pub members: usize,
    pub args: Vec<String>,
    /// Where each member's data lies, by its number; directories of the cluster's own by default.
    pub data_dirs: Vec<PathBuf>,
    /// Each member's environment, by its number; nothing added by default.
    pub env: Vec<Vec<(String, String)>>,
}

impl Default for Shape {
    fn default() -> Self {
        Self { members: 3, args: Vec::new(), data_dirs: Vec::new(), env: Vec::new() }
    }
}

/// A cluster of one test; killed when dropped.
#[derive(Debug)]
pub struct Cluster {
    /// First, so that they end, and show their logs, before their directory goes.
    members: Vec<Option<Process>>,
    network: Network,
    kind: Kind,
    shape: Shape,
    /// Of each place, how many members it has had before this one.
    replaced: Vec<usize>,
    dir: TempDir,
}

impl Cluster {
    /// A running cluster whose members all serve.
    pub fn start(kind: Kind, shape: Shape) -> Self {
        let dir = tempfile::Builder::new().prefix("etcfs-tests-").tempdir().expect("a temporary directory");
        let network = Network::of(shape.members);
        let members = (0..shape.members).map(|_| None).collect();
        let replaced = vec![0; shape.members];
        let mut cluster = Self { members, network, kind, shape, replaced, dir };
        (0..cluster.len()).for_each(|member| cluster.launch(member));
        cluster.wait_until_ready();
        cluster
    }

    #[expect(clippy::len_without_is_empty, reason = "a cluster has members")]
    pub fn len(&self) -> usize {
        self.members.len()
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// `HOST:PORT`, where a member serves clients.
    pub fn endpoint(&self, member: usize) -> String {
        format!("{}:{CLIENT_PORT}", self.network.client_host(member))
    }

    pub fn api(&self, member: usize) -> Api {
        Api::to(&self.endpoint(member))
    }

    pub fn data_dir(&self, member: usize) -> PathBuf {
        let own = || self.dir.path().join(format!("data-{member}-{}", self.replaced[member]));
        self.shape.data_dirs.get(member).cloned().unwrap_or_else(own)
    }

    /// Changes where the data of a member's next start lies.
    pub fn set_data_dir(&mut self, member: usize, dir: PathBuf) {
        self.shape.data_dirs = (0..self.len()).map(|number| self.data_dir(number)).collect();
        self.shape.data_dirs[member] = dir;
    }

    /// `http://HOST:PORT`, where the other members reach one.
    pub fn peer_url(&self, member: usize) -> String {
        format!("http://{}:{PEER_PORT}", self.network.peer_host(member))
    }

    /// Starts a new member, with nothing on its disk, in the place of a removed one.
    pub fn join(&mut self, place: usize) {
        self.kill(place);
        self.replaced[place] += 1;
        self.launch(place);
    }

    /// Starts a member without waiting until it serves.
    pub fn launch(&mut self, member: usize) {
        let name = format!("{:?} {member} on {}", self.kind, self.endpoint(member));
        let mut command = self.network.inside(member, &self.command(member));
        self.members[member] = Some(Process::start(&name, &mut command, &self.log_file(member)));
    }

    fn command(&self, member: usize) -> Command {
        let client = format!("http://{}", self.endpoint(member));
        let peer = self.peer_url(member);
        let all: Vec<String> =
            (0..self.len()).map(|number| format!("m{number}={}", self.peer_url(number))).collect();
        let mut command = self.kind.command();
        command
            .args(["--name", &format!("m{member}"), "--data-dir"])
            .arg(self.data_dir(member))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &all.join(",")])
            .args(["--initial-cluster-state", if self.replaced[member] > 0 { "existing" } else { "new" }])
            .args(&self.shape.args);
        for (name, value) in self.shape.env.get(member).into_iter().flatten() {
            command.env(name, value);
        }
        command
    }

    /// Returns once every member says that it is healthy.
    #[track_caller]
    pub fn wait_until_ready(&mut self) {
        for member in 0..self.len() {
            let address = self.endpoint(member);
            let process = self.members[member].as_mut().expect("it was launched");
            wait::until("the member is healthy (its log is below)", || {
                if let Some(status) = process.has_ended() {
                    panic!("a member ended with {status} before it served\n{}", process.log_tail());
                }
                http_get(&address, "/health").filter(|body| body.contains("\"true\"")).map(drop)
            });
        }
    }

    /// What a member tells of itself, if it answers.
    pub fn status(&self, member: usize) -> Option<StatusResponse> {
        self.statuses().swap_remove(member)
    }

    fn statuses(&self) -> Vec<Option<StatusResponse>> {
        let ask = |member| {
            let api = self.api(member);
            runtime().spawn(async move {
                let mut maintenance = api.maintenance();
                let answer = timeout(STATUS_TIMEOUT, maintenance.status(StatusRequest {})).await;
                answer.ok()?.ok().map(tonic::Response::into_inner)
            })
        };
        let asked: Vec<_> = (0..self.len()).map(ask).collect();
        asked.into_iter().map(|task| runtime().block_on(task).expect("asking does not panic")).collect()
    }

    /// The member that takes itself for the leader, of the newest term where there are two.
    pub fn leader(&self) -> Option<usize> {
        let leads = |status: &StatusResponse| {
            status.leader != 0
                && status.header.as_ref().is_some_and(|header| header.member_id == status.leader)
        };
        let statuses = self.statuses().into_iter().enumerate();
        statuses
            .filter_map(|(member, status)| Some((status.filter(leads)?.raft_term, member)))
            .max()
            .map(|(_, member)| member)
    }

    /// Ends a member with SIGKILL, if it runs.
    pub fn kill(&mut self, member: usize) {
        if let Some(mut process) = self.members[member].take() {
            process.kill();
        }
    }

    /// Stops a member with SIGTERM, if it runs, and tells how it ended.
    pub fn stop(&mut self, member: usize) -> Option<ExitStatus> {
        self.members[member].take().map(|mut process| process.stop())
    }

    /// Waits until a member has ended by itself.
    #[track_caller]
    pub fn wait_for_end(&mut self, member: usize, patience: Duration) -> ExitStatus {
        self.members[member].take().expect("the member runs").wait_for_end(patience)
    }

    /// The process of a member that runs.
    pub fn pid(&self, member: usize) -> u32 {
        self.members[member].as_ref().expect("the member runs").pid()
    }

    pub fn pause(&self, member: usize) {
        self.signal(member, Signal::STOP);
    }

    pub fn resume(&self, member: usize) {
        self.signal(member, Signal::CONT);
    }

    fn signal(&self, member: usize, signal: Signal) {
        if let Some(process) = &self.members[member] {
            process.signal(signal);
        }
    }

    /// Cuts a member off from the others; clients still reach it.
    pub fn isolate(&self, member: usize) {
        self.network.cut(member);
    }

    pub fn rejoin(&self, member: usize) {
        self.network.mend(member);
    }

    /// How a member ended that nobody made end; it counts as not running from then on.
    pub fn has_fallen(&mut self, member: usize) -> Option<String> {
        let process = self.members[member].as_mut()?;
        let status = process.has_ended()?;
        let fallen = format!("member {member}: {status}\n{}", process.log_tail());
        self.members[member] = None;
        Some(fallen)
    }

    /// All that a member has logged since its first start.
    pub fn log(&self, member: usize) -> String {
        fs::read(self.log_file(member))
            .map(|log| String::from_utf8_lossy(&log).into_owned())
            .unwrap_or_default()
    }

    fn log_file(&self, member: usize) -> PathBuf {
        self.dir.path().join(format!("log-{member}"))
    }
}
