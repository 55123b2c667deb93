//! One server for many tests: over the threads of one process, and over the
//! processes that nextest makes of one run.
//!
//! Starting a server takes longer than most tests. Tests take turns on it, so
//! that each may count revisions; it ends with the run, however that ends, and
//! one that has died is replaced for the next test.

use std::{
    env,
    fs::{self, File},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use rustix::fs::{FlockOperation, flock};

use crate::{
    api::Api,
    server::{Kind, Options, Server, http_get},
    wait,
};

/// Runs the server beside it, ends it with the run's owner, and cleans up.
const KEEPER: &str = r#"
owner=$1 dir=$2; shift 2
"$@" >>"$dir/log" 2>&1 &
tail --pid="$owner" -f /dev/null
kill -9 $!
rm -rf -- "$dir"
"#;

/// The run's server of one kind, for this test alone until it is dropped.
#[derive(Debug)]
pub struct Shared {
    kind: Kind,
    endpoint: String,
    dir: PathBuf,
    /// Locked: whose turn it is.
    _turn: File,
}

impl Shared {
    /// Waits for a turn on the server, which the first one starts.
    pub fn take(kind: Kind) -> Self {
        let own = std::process::id();
        let (run, owner) = match env::var("NEXTEST_RUN_ID") {
            Ok(run) => (run, rustix::process::getppid().map_or(own, |pid| pid.as_raw_pid().cast_unsigned())),
            Err(_) => (own.to_string(), own),
        };
        let dir = env::temp_dir().join(format!("etcfs-tests-run-{run}-{kind:?}"));
        fs::create_dir_all(&dir).expect("a directory for the run");
        let turn = File::create(dir.join("turn")).expect("a file of our own");
        flock(&turn, FlockOperation::LockExclusive).expect("a lock of our own");
        let noted = dir.join("endpoint");
        let endpoint = match fs::read_to_string(&noted) {
            Ok(endpoint) if is_healthy(&endpoint) => endpoint,
            _ => start(kind, &dir, owner),
        };
        fs::write(noted, &endpoint).expect("a file of our own");
        Self { kind, endpoint, dir, _turn: turn }
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// `127.0.0.1:PORT`, where clients are served.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    pub fn api(&self) -> Api {
        Api::to(&self.endpoint)
    }

    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.dir.join("log")).unwrap_or_default()).into_owned()
    }
}

fn is_healthy(endpoint: &str) -> bool {
    http_get(endpoint, "/health").is_some_and(|body| body.contains("\"true\""))
}

fn start(kind: Kind, dir: &Path, owner: u32) -> String {
    let data_dir = dir.join(format!("data-{:x}", rand::random::<u32>()));
    let server = Server::prepared(kind, Options { data_dir: Some(data_dir), ..Default::default() });
    let command = server.command();
    let mut keeper = Command::new("sh");
    keeper.args(["-c", KEEPER, "sh", &owner.to_string()]).arg(dir);
    keeper.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => keeper.env(name, value),
            None => keeper.env_remove(name),
        };
    }
    // A group of its own: what ends a test, or a terminal, must not end it.
    let mut keeper = keeper
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("there is a shell");
    let endpoint = server.endpoint();
    wait::until(&format!("the shared server is healthy; its log is in {}", dir.display()), || {
        assert!(keeper.try_wait().is_ok_and(|ended| ended.is_none()), "the server's keeper ended");
        is_healthy(&endpoint).then_some(())
    });
    endpoint
}
