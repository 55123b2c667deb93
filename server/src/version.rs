//! The versions that this server tells clients.
//!
//! Clients parse them to learn what a server can do, so they name the etcd
//! whose API this one has; the version of etcfs itself is the crate's.

/// The etcd release whose API is spoken.
pub const API: &str = "3.6.14";
/// What the cluster as a whole speaks.
pub const CLUSTER: &str = "3.6.0";
/// etcd's storage schema that goes with it; the files here are our own.
pub const STORAGE: &str = "3.6.0";
/// This program's own version.
pub const OWN: &str = env!("CARGO_PKG_VERSION");

/// What `--version` prints: etcd's four lines, which scripts read.
pub fn lines() -> String {
    format!(
        "etcd Version: {API}\n\
         Git SHA: etcfsd-{OWN}\n\
         Go Version: none (etcfsd is written in Rust)\n\
         Go OS/Arch: {}/{}\n",
        std::env::consts::OS,
        std::env::consts::ARCH,
    )
}
