//! What a mount was asked to be: plain data, checked by `args`, read everywhere.

pub(crate) mod access;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;

use crate::map::{Percent, Rel};
use crate::remote::Patience;

/// Largest value by default: what etcd takes in one request by default, less what the rest of it needs.
pub const VALUE_BYTES_MAX: u64 = 3 * 512 * 1024 - 4096;

/// Names of scratch files by default: sed's and emacs's.
pub const SCRATCH: &[&str] = &["sed??????", "#*#", ".#*"];

/// Cached values and names, by default.
pub const CACHE_BYTES: u64 = 64 * 1024 * 1024;

/// The lease of a mount's locks, by default: a mount that is cut off or killed holds them for so long.
pub const LOCK_SECONDS: i64 = 15;

/// One mount.
#[derive(Clone, Debug)]
pub struct Config {
    pub source: Source,
    pub access: Access,
    pub mount_point: PathBuf,
    pub view: View,
    pub percent: Percent,
    pub rel: Rel,
    /// Shows what the user may read of the keys, instead of nothing where he may not read all.
    pub visible_mine: bool,
    /// Goes on trying for so long where the server is not there at the start.
    pub retry: Duration,
    /// And after that without an end, in the background.
    pub background: bool,
    pub foreground: bool,
    /// Logs what happens in detail.
    pub verbose: bool,
    /// Other users may look, each as mode and owner say.
    pub allow_other: bool,
    /// No program in the mount can be run.
    pub no_exec: bool,
    /// Where the mount's figures may be asked for.
    pub metrics: Option<SocketAddr>,
}

/// Who the mount is towards its servers, and whom it trusts there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// The file with a user's name and password.
    pub credentials: Option<PathBuf>,
    /// The file with the certificates of those whose servers are trusted; the system's if there is none.
    pub ca: Option<PathBuf>,
    /// The files with our own certificate and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Which keys of which server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// As given, for the mount table.
    pub text: String,
    /// As URLs.
    pub endpoints: Vec<String>,
    /// Raw key bytes; empty or ending in a slash.
    pub prefix: Bytes,
}

/// How the tree shows and takes files: all that `ops` needs to know of the options.
#[derive(Clone, Debug)]
pub struct View {
    pub read_only: bool,
    pub uid: u32,
    pub gid: u32,
    /// Permission bits of files and of directories, umask applied.
    pub file_mode: u16,
    pub dir_mode: u16,
    /// A reader that has come to the end gets each later value.
    pub follow: bool,
    pub put: Put,
    /// File name patterns (`*`, `?`) whose files are not put before they are renamed or outlive their writer.
    pub scratch: Vec<String>,
    pub value_bytes_max: u64,
    /// Changes of mode, owner and times that can't be kept are ignored, not refused.
    pub quiet: bool,
    pub cache_bytes: u64,
    pub inotify: Inotify,
    /// Each lookup and listing asks the server.
    pub strict: bool,
    pub patience: Patience,
    pub locks: LockScope,
    /// The lease that locks are bound to.
    pub lock_seconds: i64,
}

/// How far a lock on a file reaches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LockScope {
    /// All mounts of the same keys.
    #[default]
    Cluster,
    /// This host, by its kernel.
    Local,
    /// There are none: ENOLCK.
    Off,
}

/// When a small write of a fresh handle is put.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Put {
    /// In write(2), so that its error is seen.
    #[default]
    Write,
    /// At close(2).
    Close,
}

/// Whether inotify's listeners hear of what others change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Inotify {
    /// Where somebody may be listening.
    #[default]
    Auto,
    /// Everywhere: fanotify's marks of a whole mount hold nothing that could be seen.
    Always,
    Off,
}

impl Default for View {
    fn default() -> Self {
        Self {
            read_only: false,
            uid: 0,
            gid: 0,
            file_mode: 0o644,
            dir_mode: 0o755,
            follow: true,
            put: Put::Write,
            scratch: SCRATCH.iter().map(|&pattern| pattern.to_owned()).collect(),
            value_bytes_max: VALUE_BYTES_MAX,
            quiet: false,
            cache_bytes: CACHE_BYTES,
            locks: LockScope::Cluster,
            lock_seconds: LOCK_SECONDS,
            inotify: Inotify::Auto,
            strict: false,
            patience: Patience::Hard,
        }
    }
}
