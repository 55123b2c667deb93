//! The versions that this server tells clients and other members.
//!
//! Clients parse them to learn what a server can do, so they name the etcd
//! whose API this one has; the version of etcfs itself is the crate's. A
//! cluster has the version that all of its members can work with: it is in its
//! log, only ever rises, and is what a member must be able to understand.

use std::{fmt, str::FromStr};

/// The etcd release whose API is spoken.
const API: &str = "3.6.14";
/// etcd's storage schema that goes with it; the files here are our own.
pub const STORAGE: &str = "3.6.0";
/// This program's own version.
pub const OWN: &str = env!("CARGO_PKG_VERSION");

/// The etcd release whose API is spoken. A test of upgrades may have a build with
/// failpoints claim another: `FAILPOINTS=claimed-version=return(3.5.9)`.
pub fn api() -> &'static str {
    #[cfg(feature = "failpoints")]
    {
        static CLAIMED: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
        let claimed = CLAIMED.get_or_init(|| fail::eval("claimed-version", |version| version).flatten());
        if let Some(version) = claimed {
            return version;
        }
    }
    API
}

/// Major and minor version: what members must agree upon. Prints as etcd's cluster version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    major: u64,
    minor: u64,
}

/// Why a member and a cluster can't work together, with the remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Incompatible {
    #[error(
        "invalid downgrade; this server has version {own}, which is lower than the cluster's, {cluster}: \
         start a server of version {cluster} or newer"
    )]
    TooOld { own: Version, cluster: Version },
    #[error(
        "this server has version {own}, which works with clusters from {oldest} on, and the cluster's is \
         {cluster}: upgrade all members to {oldest} first"
    )]
    TooNew { own: Version, oldest: Version, cluster: Version },
}

impl Version {
    /// Of this server.
    pub fn own() -> Self {
        // What a test claims may be no version; it is then the oldest.
        api().parse().unwrap_or(Self { major: 0, minor: 0 })
    }

    /// The oldest cluster that a server of this version works with: as with etcd,
    /// upgrades go from one minor version to the next.
    pub fn oldest(self) -> Self {
        Self { minor: self.minor.saturating_sub(1), ..self }
    }

    /// Whether a server of this version may be in a cluster of version `cluster`, as its
    /// log has it; empty for one whose version is not decided yet.
    pub fn check(self, cluster: &str) -> Result<(), Incompatible> {
        self.reaches(cluster)?;
        let (own, oldest) = (self, self.oldest());
        match cluster.parse() {
            Ok(cluster) if cluster < oldest => Err(Incompatible::TooNew { own, oldest, cluster }),
            _ => Ok(()),
        }
    }

    /// As [`check`](Self::check), of a server that may be newer than that.
    pub fn reaches(self, cluster: &str) -> Result<(), Incompatible> {
        match cluster.parse() {
            Ok(cluster) if self < cluster => Err(Incompatible::TooOld { own: self, cluster }),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.0", self.major, self.minor)
    }
}

/// It is no `MAJOR.MINOR` with anything after a further dot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoVersion;

impl FromStr for Version {
    type Err = NoVersion;

    fn from_str(text: &str) -> Result<Self, NoVersion> {
        let mut parts = text.split('.');
        let mut number = || parts.next().and_then(|part| part.parse().ok()).ok_or(NoVersion);
        Ok(Self { major: number()?, minor: number()? })
    }
}

/// What `--version` prints: etcd's four lines, which scripts read.
pub fn lines() -> String {
    format!(
        "etcd Version: {}\n\
         Git SHA: etcfsd-{OWN}\n\
         Go Version: none (etcfsd is written in Rust)\n\
         Go OS/Arch: {}/{}\n",
        api(),
        std::env::consts::OS,
        std::env::consts::ARCH,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_major_and_minor_alone() {
        let version = |text: &str| text.parse::<Version>().unwrap();
        assert_eq!(version("3.6.14"), version("3.6.0"));
        assert!(version("3.10.0") > version("3.9.9") && version("4.0.0") > version("3.99.0"));
        assert_eq!(version("3.6.14").to_string(), "3.6.0");
        for text in ["", "3", "3.", "x.y", "not_decided"] {
            assert_eq!(text.parse::<Version>(), Err(NoVersion), "{text}");
        }
    }

    #[test]
    fn a_server_works_with_clusters_of_its_own_and_the_last_version() {
        let own: Version = "3.6.14".parse().unwrap();
        for cluster in ["", "3.5.0", "3.6.0"] {
            assert_eq!(own.check(cluster), Ok(()));
        }
        let old = own.check("3.7.0").unwrap_err().to_string();
        assert!(
            old.contains("this server has version 3.6.0, which is lower than the cluster's, 3.7.0"),
            "{old}"
        );
        assert_eq!(own.reaches("3.4.0"), Ok(()), "a log tells of versions that are long past");
        assert!(own.reaches("3.7.0").is_err());
        let new = own.check("3.4.0").unwrap_err().to_string();
        assert!(new.contains("upgrade all members to 3.5.0 first"), "{new}");
    }
}
