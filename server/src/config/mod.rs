//! What a server is told to be: one plain [`Config`], checked before it exists.
//!
//! Flags, environment and a configuration file (`file`) carry etcd's names and
//! defaults (`args`), the rules between them stand in `check`. Whoever holds a `Config` may trust it: no
//! other module looks at a flag, an environment variable or a default again.
//! What is unknown, contradictory or not supported yet is refused by name,
//! value and remedy; nothing is ignored in silence.

mod args;
mod auth;
mod check;
mod embedded;
mod file;
mod gates;
mod idle;
mod names;
mod tls;
mod unsupported;
mod url;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

pub use args::{Invocation, parse};
pub use embedded::EmbeddedMember;
pub use names::Names;
pub use tls::{Allowed, Certificate, Tls, TlsVersion};
pub use url::{ListenUrl, peer_url};

/// Connections to the port for peers: a few of each member, and some that are not closed yet.
const PEER_CONNECTIONS_MAX: usize = 256;

/// Everything a server is told at start.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub name: String,
    pub data_dir: PathBuf,
    pub listen_client: Vec<ListenUrl>,
    /// Of the client port's https URLs, and of those for metrics.
    pub client_tls: Option<Tls>,
    pub advertise_client: Vec<String>,
    pub listen_peer: Vec<ListenUrl>,
    /// Of the peer port's https URLs, and towards the members that have such.
    pub peer_tls: Option<Tls>,
    /// Members at the first start; their IDs derive from their URLs and the token.
    pub founders: Vec<Founder>,
    /// Where to find the founders; they are this member alone until then.
    pub discovery: Option<Discovery>,
    /// The first start is of a member that joins a cluster.
    pub joins: bool,
    pub cluster_token: String,
    /// Refuses changes of members that could cost the cluster its majority.
    pub strict_reconfig_check: bool,
    pub max_learners: usize,
    /// Makes this member a cluster of its own, with the data it has.
    pub force_new_cluster: bool,
    /// Compares its keys with the other members' before it serves.
    pub initial_corrupt_check: bool,
    /// How often it does so while it leads.
    pub corrupt_check_interval: Option<Duration>,
    pub heartbeat_interval: Duration,
    pub election_timeout: Duration,
    /// Applied entries between two snapshots.
    pub snapshot_count: u64,
    pub quota: Quota,
    /// Bytes of recent values kept in memory; older ones are read from disk.
    pub value_cache_bytes: usize,
    pub limits: Limits,
    pub auth: Auth,
    pub web: Web,
    pub auto_compaction: Option<AutoCompaction>,
    pub watch_progress_notify_interval: Duration,
    /// A log entry that takes longer to apply is logged.
    pub slow_apply: Duration,
    /// A unary call that takes longer is logged.
    pub slow_request: Duration,
    /// Also listeners for the plain HTTP endpoints alone.
    pub listen_metrics: Vec<ListenUrl>,
    /// Adds the histograms of request times to the metrics.
    pub metrics_extensive: bool,
    pub log: Log,
    /// Said once the log is open.
    pub warnings: Vec<String>,
}

/// A member as the settings name it; its peer URLs are sorted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Founder {
    pub name: String,
    pub peer_urls: Vec<String>,
}

/// Which SRV records name the members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discovery {
    pub domain: String,
    /// Tells clusters of one domain apart.
    pub service_name: Option<String>,
    /// The DNS server to ask, instead of the system's.
    pub server: Option<SocketAddr>,
}

/// The named limits of what one request or client may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub max_txn_ops: usize,
    pub max_request_bytes: usize,
    pub max_concurrent_streams: u32,
    pub max_client_connections: usize,
    /// How long calls in flight may take to finish once the server is to end: as long as any may.
    pub drain: Duration,
    /// The server pings a silent client after this long ...
    pub keepalive_interval: Duration,
    /// ... and drops it when no answer came within this.
    pub keepalive_timeout: Duration,
    /// A client that pings more often is dropped.
    pub keepalive_min: Option<Duration>,
}

impl Limits {
    /// Room for gRPC's own framing above the largest request.
    pub const GRPC_OVERHEAD_BYTES: usize = 512 * 1024;

    /// The largest message that is read from a client at all.
    pub fn max_receive_bytes(&self) -> usize {
        self.max_request_bytes + Self::GRPC_OVERHEAD_BYTES
    }
}

/// How much the keys and their history may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quota {
    Bytes(u64),
    Unlimited,
}

/// What plain HTTP has beside the probes, and for whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Web {
    /// JSON at /v3.
    pub gateway: bool,
    /// Origins of pages that a browser may show answers to, beside our own.
    pub origins: Option<Names>,
    /// Names that we may be asked by.
    pub hosts: Option<Names>,
}

/// How users prove who they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Auth {
    pub token: AuthToken,
    pub bcrypt_cost: u32,
    pub password_min_bytes: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthToken {
    Simple { ttl: Duration },
    Jwt { method: String, public: Option<PathBuf>, private: Option<PathBuf>, ttl: Duration },
}

/// What the server compacts by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AutoCompaction {
    /// Keeps the history of this long.
    Periodic(Duration),
    /// Keeps this many revisions.
    Revisions(i64),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    pub level: LogLevel,
    pub format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogLevel {
    Debug,
    Info,
    Warn,
    Error,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    Json,
    Console,
}

impl Config {
    /// The shortest lease: a leader must have been lost for longer than an
    /// election takes before a lease may end for want of a keep-alive.
    pub fn min_lease_ttl(&self) -> i64 {
        let election_millis = i64::try_from(self.election_timeout.as_millis()).unwrap_or(i64::MAX);
        // Rounded up to a whole second.
        (election_millis.saturating_mul(3) + 1999) / 2000
    }

    /// Takes the founders that were discovered, as `--initial-cluster` has them.
    pub fn found(&mut self, initial_cluster: &str) -> Result<(), ConfigError> {
        self.founders = check::members("--discovery-srv", initial_cluster, &self.name)?;
        Ok(())
    }

    /// The limits of the port for peers, which are few and busy.
    pub fn peer_limits(&self) -> Limits {
        let ping = (self.election_timeout / 2).max(Duration::from_millis(100));
        let keepalive =
            Limits { keepalive_interval: ping, keepalive_timeout: ping, keepalive_min: None, ..self.limits };
        Limits { max_client_connections: PEER_CONNECTIONS_MAX, max_concurrent_streams: u32::MAX, ..keepalive }
    }

    /// How long a request may wait inside the server.
    pub fn request_timeout(&self) -> Duration {
        request_timeout(self.election_timeout)
    }
}

/// etcd's: time for two elections and a slow disk.
fn request_timeout(election: Duration) -> Duration {
    Duration::from_secs(5) + 2 * election
}

/// Why the settings were refused; each message says what to do.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    #[error("{0}")]
    Usage(String),
    #[error("{setting}={value}: {remedy}")]
    Refused { setting: String, value: String, remedy: String },
    #[error(
        "{variable}={value}: --{flag} is given on the command line too; \
         unset the environment variable or drop the flag"
    )]
    Shadowed { variable: String, value: String, flag: String },
    #[error("{first} and {second} say different things for --{flag}; unset one of them")]
    Contradiction { first: String, second: String, flag: String },
    #[error("--config-file={}: {reason}", path.display())]
    File { path: PathBuf, reason: String },
    #[error("{setting}: {reason}; remove it")]
    NotSupported { setting: String, reason: &'static str },
}

#[cfg(test)]
mod tests;
