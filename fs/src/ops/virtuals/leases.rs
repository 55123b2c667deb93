//! `%leases`: each lease as a directory of its times and of links to its keys.

use std::ffi::OsStr;

use super::registry::Found;
use super::{Fs, listed};
use crate::errno::OpError;
use crate::map::{Key, KeyMap};
use crate::node::{Kind, ListingEntry, NodeId};
use crate::remote::{At, Change, Compare, Freshness, LeaseId, Op, Probe, RemoteError, Revision};
use crate::r#virtual::{Place, lease_name, link_name, link_target, parse_lease};

const TTL: &str = "ttl";
const GRANTED_TTL: &str = "granted_ttl";

impl Fs {
    pub(super) async fn found_lease(&self, name: &OsStr) -> Result<Found, OpError> {
        let lease = parse_lease(name).ok_or(OpError::NotFound)?;
        self.remote.lease_facts(lease).await?.ok_or(OpError::NotFound)?;
        Ok(Found::dir(Place::Lease(lease), Revision(0)))
    }

    pub(super) async fn found_of_lease(&self, lease: LeaseId, name: &OsStr) -> Result<Found, OpError> {
        if name == TTL {
            return self.found_text(Place::LeaseTtl(lease)).await;
        }
        if name == GRANTED_TTL {
            return self.found_text(Place::LeaseGranted(lease)).await;
        }
        let key = self.attached(lease, name).await?;
        let dir = KeyMap::dir_of(&key);
        let probe =
            Probe { key: key.clone(), below: self.map.key_range(&dir), records: self.map.record_range(&dir) };
        let At { found, .. } = self.remote.lookup(vec![probe], Freshness::Linearizable).await?;
        let is_dir = found.iter().any(|found| found.below.is_some() || found.record.is_some());
        let target = link_target(&self.map, &key, is_dir).ok_or(OpError::NotFound)?;
        let bytes = target.len();
        Ok(Found::link(Place::LeaseKey { lease, key, target }, bytes, Revision(0)))
    }

    /// The attached key that has this name.
    async fn attached(&self, lease: LeaseId, name: &OsStr) -> Result<Key, OpError> {
        let keys = self.remote.lease_keys(lease).await?.ok_or(OpError::NotFound)?;
        let named = keys.into_iter().find(|key| link_name(&self.map, key).is_some_and(|of| of == name));
        named.ok_or(OpError::NotFound)
    }

    pub(super) async fn list_leases(&self) -> Result<Vec<ListingEntry>, OpError> {
        let mut leases = self.remote.leases().await?;
        leases.sort_unstable();
        Ok(leases.into_iter().map(|lease| listed(lease_name(lease), Kind::Dir)).collect())
    }

    pub(super) async fn list_lease(&self, lease: LeaseId) -> Result<Vec<ListingEntry>, OpError> {
        let keys = self.remote.lease_keys(lease).await?.ok_or(OpError::NotFound)?;
        let times = [TTL, GRANTED_TTL].map(|name| listed(name.into(), Kind::File));
        let links = keys.iter().filter_map(|key| link_name(&self.map, key));
        Ok(times.into_iter().chain(links.map(|name| listed(name, Kind::Link))).collect())
    }

    /// Removing a key's link detaches the key.
    pub(in crate::ops) async fn unlink_virtual(&self, parent: NodeId, name: &OsStr) -> Result<(), OpError> {
        let Place::Lease(lease) = self.virtuals.place(parent).ok_or(OpError::Stale)? else {
            return Err(OpError::ReadOnly);
        };
        if name == TTL || name == GRANTED_TTL {
            return Err(OpError::NotPermitted("a lease's times are there as long as it is"));
        }
        loop {
            let key = self.attached(lease, name).await?;
            self.writable(&key)?;
            let At { found, .. } = self.remote.get(key.clone(), Freshness::Linearizable).await?;
            let Some(kv) = found.filter(|kv| kv.lease == Some(lease)) else { continue };
            let change = Change {
                compares: vec![Compare::Unchanged(key.clone(), kv.mod_revision)],
                then: vec![Op::Attach { key, lease: None }],
                otherwise: Vec::new(),
            };
            if self.commit(change).await?.succeeded {
                return Ok(());
            }
        }
    }

    /// Removing a lease to which nothing is attached revokes it.
    pub(in crate::ops) async fn remove_virtual_dir(
        &self,
        parent: NodeId,
        name: &OsStr,
    ) -> Result<(), OpError> {
        if self.view.read_only || self.virtuals.place(parent) != Some(Place::Leases) {
            return Err(OpError::ReadOnly);
        }
        let lease = parse_lease(name).ok_or(OpError::NotFound)?;
        // Keys that this mount does not show count too: they would go.
        if !self.remote.lease_keys(lease).await?.ok_or(OpError::NotFound)?.is_empty() {
            return Err(OpError::NotEmpty);
        }
        match self.remote.lease_revoke(lease).await {
            Err(RemoteError::NoSuchLease) => Err(OpError::NotFound),
            revoked => Ok(revoked?),
        }
    }
}
