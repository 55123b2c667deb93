//! Who calls whom: the ids and the version that every call between members carries.
//!
//! Members of two clusters may meet at one address, and a member at that of
//! another, by a wrong setting or a reused host. A member whose version is below
//! the cluster's can't know all that is said. None of them may then be believed:
//! the [`Guard`] refuses before anything of a call is read.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tonic::{
    Request, Status,
    metadata::{AsciiMetadataValue, MetadataMap},
    service::Interceptor,
};

use crate::{apply::Cluster, storage::Identity, version::Version};

const CLUSTER: &str = "etcfs-cluster";
const FROM: &str = "etcfs-from";
const TO: &str = "etcfs-to";
/// Which the caller has.
const VERSION: &str = "etcfs-version";

/// A peer that is refused is in the log once in this time.
const TELL_INTERVAL: Duration = Duration::from_secs(60);
const TOLD_MAX: usize = 64;

/// What a removed member is told; it knows itself by these words.
const REMOVED: &str = "the member has been permanently removed from the cluster";

/// Put on every call to one member.
#[derive(Clone, Debug)]
pub struct Badge {
    cluster: AsciiMetadataValue,
    from: AsciiMetadataValue,
    to: AsciiMetadataValue,
    version: AsciiMetadataValue,
}

impl Badge {
    pub(super) fn new(own: Identity, to: u64, version: Version) -> Self {
        let hex = |id: u64| format!("{id:016x}").parse().expect("hex digits are ASCII");
        let version = version.to_string().parse().expect("digits and dots are ASCII");
        Self { cluster: hex(own.cluster_id), from: hex(own.member_id), to: hex(to), version }
    }
}

impl Interceptor for Badge {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let metadata = request.metadata_mut();
        metadata.insert(CLUSTER, self.cluster.clone());
        metadata.insert(FROM, self.from.clone());
        metadata.insert(TO, self.to.clone());
        metadata.insert(VERSION, self.version.clone());
        Ok(request)
    }
}

/// Lets in what is meant for this member of this cluster.
#[derive(Clone, Debug)]
pub struct Guard {
    own: Identity,
    cluster: Cluster,
    /// Whom it has told of in the log, and when: peers try again and again.
    told: Arc<Mutex<HashMap<u64, Instant>>>,
}

impl Guard {
    pub(super) fn new(own: Identity, cluster: Cluster) -> Self {
        Self { own, cluster, told: Arc::default() }
    }

    /// True now and then for each caller.
    fn is_to_be_told(&self, from: u64) -> bool {
        let mut told = self.told.lock();
        let recent = told.get(&from).is_some_and(|told| told.elapsed() < TELL_INTERVAL);
        // Whoever makes ids up shall not fill the memory.
        if !recent && told.len() >= TOLD_MAX {
            told.clear();
        }
        if !recent {
            told.insert(from, Instant::now());
        }
        !recent
    }

    fn check(&self, metadata: &MetadataMap) -> Result<(), Status> {
        let (Some(cluster), Some(from), Some(to), Some(version)) =
            (id(metadata, CLUSTER), id(metadata, FROM), id(metadata, TO), version(metadata))
        else {
            return Err(Status::permission_denied(
                "the call does not say which member it is from, of which version, and for which",
            ));
        };
        let Identity { member_id, cluster_id } = self.own;
        if cluster != cluster_id {
            if self.is_to_be_told(from) {
                tracing::warn!(
                    from = format!("{from:x}"),
                    its_cluster = format!("{cluster:x}"),
                    own_cluster = format!("{cluster_id:x}"),
                    "refused a peer of another cluster; compare --initial-cluster-token and the peer URLs of both"
                );
            }
            return Err(Status::permission_denied(format!(
                "cluster ID mismatch: this is a member of {cluster_id:x}, not of {cluster:x}"
            )));
        }
        if to != member_id {
            if self.is_to_be_told(from) {
                tracing::warn!(
                    from = format!("{from:x}"),
                    to = format!("{to:x}"),
                    own = format!("{member_id:x}"),
                    "refused a peer that looks for another member here; its list of peer URLs is wrong or old"
                );
            }
            return Err(Status::permission_denied(format!(
                "member ID mismatch: this is {member_id:x}, not {to:x}"
            )));
        }
        if self.cluster.is_removed(from) {
            return Err(Status::permission_denied(REMOVED));
        }
        if let Err(error) = version.reaches(&self.cluster.version()) {
            if self.is_to_be_told(from) {
                tracing::warn!(
                    from = format!("{from:x}"),
                    its_version = %version,
                    cluster_version = self.cluster.version(),
                    "refused a peer whose version is lower than the cluster's: upgrade that member"
                );
            }
            return Err(Status::permission_denied(error.to_string()));
        }
        Ok(())
    }
}

impl Interceptor for Guard {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        self.check(request.metadata())?;
        Ok(request)
    }
}

/// Which member calls.
pub(super) fn from(metadata: &MetadataMap) -> u64 {
    id(metadata, FROM).unwrap_or_default()
}

fn id(metadata: &MetadataMap, key: &str) -> Option<u64> {
    u64::from_str_radix(metadata.get(key)?.to_str().ok()?, 16).ok()
}

fn version(metadata: &MetadataMap) -> Option<Version> {
    metadata.get(VERSION)?.to_str().ok()?.parse().ok()
}

/// True if the other side says that this member is none any more.
pub(super) fn says_removed(status: &Status) -> bool {
    status.code() == tonic::Code::PermissionDenied && status.message() == REMOVED
}

/// True if the guard turned a call away: nothing of it was carried out.
pub(super) fn is_turned_away(status: &Status) -> bool {
    status.code() == tonic::Code::PermissionDenied
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(from: Identity, to: u64, guard: &Guard) -> Result<(), String> {
        call_of(Version::own(), from, to, guard)
    }

    fn call_of(version: Version, from: Identity, to: u64, guard: &Guard) -> Result<(), String> {
        let request = Badge::new(from, to, version).call(Request::new(())).unwrap();
        guard.clone().call(request).map(drop).map_err(|status| status.message().to_owned())
    }

    #[test]
    fn only_calls_between_members_of_one_cluster_get_in() {
        let id = |member_id, cluster_id| Identity { member_id, cluster_id };
        let cluster = Cluster::default();
        let guard = Guard::new(id(1, 0xc1), cluster);
        assert_eq!(call(id(2, 0xc1), 1, &guard), Ok(()));
        assert_eq!(
            call(id(2, 0xc2), 1, &guard).unwrap_err(),
            "cluster ID mismatch: this is a member of c1, not of c2"
        );
        assert_eq!(call(id(2, 0xc1), 3, &guard).unwrap_err(), "member ID mismatch: this is 1, not 3");
        let nobody = guard.clone().call(Request::new(())).unwrap_err();
        assert!(is_turned_away(&nobody) && !says_removed(&nobody), "{nobody}");
    }

    #[test]
    fn a_member_of_a_version_below_the_clusters_is_refused() {
        let id = |member_id| Identity { member_id, cluster_id: 0xc1 };
        let version = |text: &str| text.parse::<Version>().unwrap();
        let cluster = Cluster::default();
        let guard = Guard::new(id(1), cluster.clone());
        assert_eq!(call_of(version("3.5.9"), id(2), 1, &guard), Ok(()), "the cluster's is not decided yet");
        cluster.set_version("3.5.0");
        assert_eq!(call_of(version("3.5.9"), id(2), 1, &guard), Ok(()));
        cluster.set_version("3.6.0");
        assert_eq!(call_of(version("3.6.0"), id(3), 1, &guard), Ok(()));
        assert_eq!(call_of(version("3.7.0"), id(3), 1, &guard), Ok(()), "it is upgraded first");
        let refused = call_of(version("3.5.9"), id(2), 1, &guard).unwrap_err();
        assert!(
            refused.contains("this server has version 3.5.0, which is lower than the cluster's, 3.6.0"),
            "{refused}"
        );
    }
}
