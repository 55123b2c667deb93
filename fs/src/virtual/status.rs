//! `%status`: the mount in words, a line each, for people and for scripts that cut at the colon.

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use super::line::utc;
use crate::remote::{Patience, RemoteError, Revision, ServerFacts};

/// What there is to say.
#[derive(Debug)]
pub(crate) struct Status {
    pub(crate) endpoints: Vec<String>,
    /// Why there is no answer, or what it says.
    pub(crate) server: Result<ServerFacts, RemoteError>,
    /// Up to which the watch has brought everything.
    pub(crate) watched: Revision,
    /// Since when the watch has no server.
    pub(crate) lost: Option<SystemTime>,
    /// What the mount does without one.
    pub(crate) patience: Patience,
    /// What becomes of names that are asked for.
    pub(crate) names: &'static str,
    pub(crate) cached_bytes: usize,
    pub(crate) cached_bytes_max: usize,
    pub(crate) keys: usize,
    pub(crate) dirs: usize,
    pub(crate) inodes: usize,
    pub(crate) open_files: usize,
    pub(crate) log_bytes: usize,
    pub(crate) locks: usize,
    pub(crate) locks_lost: usize,
    /// What this kernel does not offer.
    pub(crate) lacks: Option<String>,
    /// What the mount's user may not do.
    pub(crate) rights: Option<String>,
    /// The keys that are shown, where it is not all of them.
    pub(crate) shown: Option<String>,
    /// The root shows no links to keys without a leading slash.
    pub(crate) too_many_links: bool,
    pub(crate) last_error: Option<(SystemTime, String)>,
    /// Where the mount's figures are asked for.
    pub(crate) metrics: Option<SocketAddr>,
    pub(crate) up: Duration,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "version: {}", env!("CARGO_PKG_VERSION"))?;
        writeln!(f, "up: {} s", self.up.as_secs())?;
        writeln!(f, "endpoints: {}", self.endpoints.join(", "))?;
        match &self.server {
            Ok(server) => {
                writeln!(f, "server: version {}, member {:x}", server.version, server.member)?;
                match server.leader {
                    0 => writeln!(f, "leader: none")?,
                    leader => writeln!(f, "leader: {leader:x}")?,
                }
                writeln!(f, "revision: {}", server.revision)?;
                let behind = (server.revision.0 - self.watched.0).max(0);
                write!(f, "watch: at revision {}, {behind} behind", self.watched)?;
            }
            Err(error) => {
                writeln!(f, "server: {error}")?;
                write!(f, "watch: at revision {}", self.watched)?;
            }
        }
        match self.lost {
            None => writeln!(f, ", connected")?,
            Some(since) => writeln!(f, ", without a server since {}", utc(since))?,
        }
        match self.patience {
            Patience::Hard => writeln!(f, "without a server: waits")?,
            Patience::Soft(limit) => writeln!(f, "without a server: fails after {} s", limit.as_secs_f32())?,
            Patience::Stale(_) => writeln!(f, "without a server: shows what it has, changes nothing")?,
        }
        writeln!(f, "names: {}", self.names)?;
        writeln!(
            f,
            "cache: {} of {} bytes, {} keys, {} directories",
            self.cached_bytes, self.cached_bytes_max, self.keys, self.dirs
        )?;
        writeln!(f, "log: {} bytes", self.log_bytes)?;
        writeln!(f, "inodes: {}, {} open", self.inodes, self.open_files)?;
        writeln!(f, "locks: {} held, {} lost", self.locks, self.locks_lost)?;
        writeln!(f, "kernel lacks: {}", self.lacks.as_deref().unwrap_or("nothing"))?;
        writeln!(f, "rights lacking: {}", self.rights.as_deref().unwrap_or("none"))?;
        if let Some(shown) = &self.shown {
            writeln!(f, "visible: {shown}")?;
        }
        if self.too_many_links {
            writeln!(f, "links in the root: none, since they would be too many")?;
        }
        match self.metrics {
            None => writeln!(f, "metrics: none")?,
            Some(address) => writeln!(f, "metrics: http://{address}/metrics")?,
        }
        match &self.last_error {
            None => writeln!(f, "last error: none"),
            Some((time, error)) => writeln!(f, "last error: {} {error}", utc(*time)),
        }
    }
}
