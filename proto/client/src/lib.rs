//! The etcd v3 client of etcfs, used by the mount and the command line.
//!
//! [`Client`] is cheap to clone and connects when first used. Requests and
//! answers are the protocol's own messages; one file here per service.
//!
//! What it promises:
//! - A write that may have reached a server is never sent again: the caller
//!   gets [`ClientError::Unknown`] and has to look. A write that surely was
//!   not sent is retried until its deadline, then fails as
//!   [`ClientError::Unsent`]. Reads are retried over all endpoints.
//! - A [`Watcher`] goes on over broken connections without a gap or a double.
//!
//! It must not print, read the environment, or keep state outside a [`Client`].

mod auth;
mod backoff;
mod call;
mod cluster;
mod connection;
mod discovery;
mod election;
mod endpoint;
mod error;
mod failover;
mod kv;
mod lease;
mod lock;
mod maintenance;
mod metrics;
mod task;
mod tls;
mod tree;
mod watch;

use std::{sync::Arc, time::Duration};

pub use auth::Auth;
pub use cluster::Cluster;
pub use discovery::{Discovery, DiscoveryError};
pub use election::{Election, Observation};
pub use endpoint::Endpoint;
pub use error::{ClientError, Lost, Outcome, Unsent};
pub use kv::Kv;
pub use lease::{KeepAlive, Lease};
pub use lock::Lock;
pub use maintenance::{Maintenance, Snapshot};
pub use metrics::metrics;
pub use tls::Tls;
pub use tonic::Code;
pub use tree::Tree;
pub use watch::{BatchKind, WatchBatch, WatchState, WatchStream, Watcher};

use crate::failover::Failover;

/// Largest answer that is taken unless told otherwise, etcd clients' own bound.
pub const ANSWER_BYTES_MAX: usize = i32::MAX as usize;

/// Where the servers are and how long to wait for them.
#[derive(Clone, Debug)]
pub struct Config {
    /// `host:port`, `http://host:port` or `https://host:port`, tried in this order.
    pub endpoints: Vec<String>,
    /// For `https` endpoints, and for those without a scheme.
    pub tls: Option<Tls>,
    /// Who to log in as, with each connection that is made.
    pub credentials: Option<Credentials>,
    /// Asked for the password before each login; without an answer it is that of `credentials`.
    pub password: Option<PasswordSource>,
    /// How long one attempt to connect to one endpoint may take.
    pub connect_timeout: Duration,
    /// How long a request may take, with all its retries.
    pub request_timeout: Duration,
    /// A connection silent for this long is asked for a sign of life. A server
    /// of etcd's default settings hangs up on clients that ask more often than
    /// every 5 s.
    pub keepalive_interval: Duration,
    /// A connection that gives no sign of life for this long is broken.
    pub keepalive_timeout: Duration,
    /// Largest request that is sent; without, the server alone decides.
    pub request_bytes_max: Option<usize>,
    /// Largest answer that is taken.
    pub answer_bytes_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            endpoints: vec!["127.0.0.1:2379".to_owned()],
            tls: None,
            credentials: None,
            password: None,
            connect_timeout: Duration::from_secs(2),
            request_timeout: Duration::from_secs(5),
            keepalive_interval: Duration::from_secs(10),
            keepalive_timeout: Duration::from_secs(6),
            request_bytes_max: None,
            answer_bytes_max: ANSWER_BYTES_MAX,
        }
    }
}

/// A user's name and password.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    pub user: String,
    pub password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// Where a password is found that may change.
#[derive(Clone)]
pub struct PasswordSource(Arc<dyn Fn() -> Option<String> + Send + Sync>);

impl PasswordSource {
    pub fn new(ask: impl Fn() -> Option<String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(ask))
    }

    fn ask(&self) -> Option<String> {
        (self.0)()
    }
}

impl std::fmt::Debug for PasswordSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PasswordSource")
    }
}

/// A handle on a cluster; clones share one connection.
#[derive(Clone, Debug)]
pub struct Client {
    failover: Arc<Failover>,
    request_timeout: Duration,
    request_bytes_max: Option<usize>,
}

impl Client {
    /// Checks the endpoints' spelling; connects with the first request.
    pub fn connect(config: Config) -> Result<Self, ClientError> {
        let Config { request_timeout, request_bytes_max, .. } = config;
        Ok(Self { failover: Arc::new(Failover::new(config)?), request_timeout, request_bytes_max })
    }

    /// The same connection with another deadline for requests.
    #[must_use]
    pub fn with_request_timeout(&self, request_timeout: Duration) -> Self {
        Self { failover: Arc::clone(&self.failover), request_timeout, ..*self }
    }

    /// The endpoints as given, in order.
    pub fn endpoints(&self) -> &[Endpoint] {
        self.failover.endpoints()
    }

    /// Keys: range, put, delete, transactions, compaction.
    pub fn kv(&self) -> Kv<'_> {
        Kv::new(self)
    }

    /// Leases.
    pub fn lease(&self) -> Lease<'_> {
        Lease::new(self)
    }

    /// Members.
    pub fn cluster(&self) -> Cluster<'_> {
        Cluster::new(self)
    }

    /// Users, roles and rights.
    pub fn auth(&self) -> Auth<'_> {
        Auth::new(self)
    }

    /// Locks.
    pub fn lock(&self) -> Lock<'_> {
        Lock::new(self)
    }

    /// Elections.
    pub fn election(&self) -> Election<'_> {
        Election::new(self)
    }

    /// Keys as a tree, where the server has that.
    pub fn tree(&self) -> Tree<'_> {
        Tree::new(self)
    }

    /// Status, hashes and alarms of the member that the client is connected to.
    pub fn maintenance(&self) -> Maintenance<'_> {
        Maintenance::new(self)
    }
}
