//! Leases and history facts as extended attributes, `user.etcfs.*`.

use std::ffi::OsStr;

use bytes::Bytes;

use super::virtuals::is_virtual;
use super::{Fs, key, put_value};
use crate::errno::OpError;
use crate::node::{Kind, Known, NodeId, Value};
use crate::remote::{
    At, Change, Committed, Compare, Freshness, LeaseId, Op, PageRequest, RemoteError, Revision,
};

const LEASE: &str = "user.etcfs.lease";
const TTL: &str = "user.etcfs.ttl";
const GRANTED_TTL: &str = "user.etcfs.granted_ttl";
const KEEPALIVE: &str = "user.etcfs.keepalive";
const KEY: &str = "user.etcfs.key";
const CREATE_REVISION: &str = "user.etcfs.create_revision";
const REVISION: &str = "user.etcfs.revision";
const VERSION: &str = "user.etcfs.version";
const LOCK_REVISION: &str = "user.etcfs.lock_revision";

/// Keys below a directory that one setfattr may attach: etcd's limit of a transaction
/// less the mount's own record.
const ATTACHED_MAX: u32 = 120;

impl Fs {
    pub(crate) fn list_xattr(&self, id: NodeId) -> Result<Vec<&'static str>, OpError> {
        let Some((key, value)) = self.xattr_file(id)? else { return Ok(Vec::new()) };
        let mut names = vec![KEY, CREATE_REVISION, REVISION, VERSION];
        names.extend(self.locks.revision_of(&key).map(|_| LOCK_REVISION));
        if value.lease != 0 {
            names.extend([LEASE, TTL, GRANTED_TTL]);
            if self.renews(LeaseId(value.lease)) {
                names.push(KEEPALIVE);
            }
        }
        Ok(names)
    }

    /// `None` if the server must be asked.
    pub(crate) fn get_xattr_now(&self, id: NodeId, name: &OsStr) -> Option<Result<Vec<u8>, OpError>> {
        let name = match name.to_str() {
            Some(name) if name.starts_with("user.etcfs.") => name,
            // ACLs: said so, or every copy would ask what else there is.
            Some(name) if name.starts_with("system.posix_acl_") => return Some(Err(OpError::NotSupported)),
            _ => return Some(Err(OpError::NoAttribute)),
        };
        let (key, value) = match self.xattr_file(id) {
            Ok(Some(file)) => file,
            Ok(None) => return Some(Err(OpError::NoAttribute)),
            Err(error) => return Some(Err(error)),
        };
        let lease = LeaseId(value.lease);
        Some(Ok(match name {
            KEY => key.to_vec(),
            CREATE_REVISION => value.create.to_string().into_bytes(),
            REVISION => value.rev.to_string().into_bytes(),
            VERSION => value.version.to_string().into_bytes(),
            LEASE if value.lease != 0 => hex(lease).into_bytes(),
            KEEPALIVE if value.lease != 0 && self.renews(lease) => b"1".to_vec(),
            TTL | GRANTED_TTL if value.lease != 0 => return None,
            LOCK_REVISION if let Some(revision) = self.locks.revision_of(&key) => {
                revision.to_string().into_bytes()
            }
            _ => return Some(Err(OpError::NoAttribute)),
        }))
    }

    pub(crate) async fn get_xattr(&self, id: NodeId, name: &OsStr) -> Result<Vec<u8>, OpError> {
        if let Some(answer) = self.get_xattr_now(id, name) {
            return answer;
        }
        let (_, value) = self.xattr_file(id)?.ok_or(OpError::NoAttribute)?;
        let facts = self.remote.lease_facts(LeaseId(value.lease)).await?.ok_or(OpError::NoAttribute)?;
        let seconds = if name == GRANTED_TTL { facts.granted_seconds } else { facts.left_seconds };
        Ok(seconds.to_string().into_bytes())
    }

    pub(crate) async fn set_xattr(&self, id: NodeId, name: &OsStr, text: &[u8]) -> Result<(), OpError> {
        let name = own_name(name)?;
        if self.view.read_only {
            return Err(OpError::ReadOnly);
        }
        let text =
            std::str::from_utf8(text).map(str::trim).map_err(|_| OpError::Malformed("not a number"))?;
        match name {
            LEASE => {
                let lease = parse_lease(text)?;
                let facts = self.remote.lease_facts(lease).await?;
                facts.ok_or(OpError::Remote(RemoteError::NoSuchLease))?;
                self.attach(id, Some(lease)).await
            }
            TTL => {
                let seconds: i64 = text.parse().map_err(|_| OpError::Malformed("not a number of seconds"))?;
                if seconds < 1 {
                    return Err(OpError::Malformed("a lease lasts at least a second"));
                }
                if self.kind_of(id)? == Kind::Dir {
                    return self.attach_below(id, seconds).await;
                }
                self.xattr_file(id)?.ok_or(OpError::NotFound)?;
                let lease = self.remote.lease_grant(seconds).await?;
                let attached = self.attach(id, Some(lease)).await;
                if attached.is_err() {
                    self.drop_lease(lease).await;
                }
                attached
            }
            KEEPALIVE => {
                let (_, value) = self.xattr_file(id)?.ok_or(OpError::NoAttribute)?;
                let lease = LeaseId(value.lease);
                match text {
                    "0" => drop(self.renewals.lock().remove(&lease)),
                    "1" if value.lease == 0 => return Err(OpError::NoAttribute),
                    "1" => {
                        let renewal = self.remote.keep_alive(lease);
                        self.renewals.lock().insert(lease, renewal);
                    }
                    _ => return Err(OpError::Malformed("keepalive is 1 or 0")),
                }
                Ok(())
            }
            _ => Err(OpError::NotPermitted("a fact of the key, not to be set")),
        }
    }

    pub(crate) async fn remove_xattr(&self, id: NodeId, name: &OsStr) -> Result<(), OpError> {
        let name = own_name(name)?;
        if self.view.read_only {
            return Err(OpError::ReadOnly);
        }
        let (_, value) = self.xattr_file(id)?.ok_or(OpError::NoAttribute)?;
        match name {
            LEASE | TTL if value.lease == 0 => Err(OpError::NoAttribute),
            LEASE => self.attach(id, None).await,
            KEEPALIVE => match self.renewals.lock().remove(&LeaseId(value.lease)) {
                Some(_) => Ok(()),
                None => Err(OpError::NoAttribute),
            },
            _ => Err(OpError::NotPermitted("a fact of the key, not to be removed")),
        }
    }

    fn renews(&self, lease: LeaseId) -> bool {
        self.renewals.lock().contains_key(&lease)
    }

    /// The key and value behind an inode; `None` for what has none on the server.
    fn xattr_file(&self, id: NodeId) -> Result<Option<(Bytes, Value)>, OpError> {
        if is_virtual(id) {
            return Ok(None);
        }
        self.nodes.with(|table| match table.kind(id).ok_or(OpError::Stale)? {
            Kind::Dir | Kind::Link => Ok(None),
            Kind::File => {
                let name = table.key_of(id).ok_or(OpError::Stale)?;
                let facts = table.facts(&name);
                match facts.known {
                    Known::Present(_) if facts.local => Ok(None),
                    Known::Present(value) => Ok(Some((name, value))),
                    Known::Absent | Known::Unknown => Ok(None),
                }
            }
        })
    }

    /// Puts the same value again under another lease, or none.
    async fn attach(&self, id: NodeId, lease: Option<LeaseId>) -> Result<(), OpError> {
        let (name, _) = self.xattr_file(id)?.ok_or(OpError::NotFound)?;
        self.writable(&name)?;
        let turn = self.turn(&name).await;
        loop {
            let (_, value) = self.xattr_file(id)?.ok_or(OpError::NotFound)?;
            let change = Change {
                compares: vec![Compare::Unchanged(key(&name), Revision(value.rev))],
                then: vec![Op::Attach { key: key(&name), lease }],
                otherwise: Vec::new(),
            };
            let Committed { revision, succeeded, .. } = self.commit(change).await?;
            if !succeeded {
                self.refresh(&name, revision.0).await?;
                continue;
            }
            let held = lease.map_or(0, |lease| lease.0);
            let before = Some(value.rev);
            let value = put_value(value.bytes.clone(), revision.0, Some(&value), held);
            let put = self.own_change(&name, revision.0, before, Some(value));
            drop(turn);
            self.shown(put).await;
            return Ok(());
        }
    }

    /// One new lease for every key below a directory, in one transaction or not at all.
    async fn attach_below(&self, id: NodeId, seconds: i64) -> Result<(), OpError> {
        let dir = self.dir_of(id)?;
        let page = PageRequest {
            range: self.map.key_range(&dir),
            limit: ATTACHED_MAX,
            keys_only: true,
            how: Freshness::Linearizable,
        };
        let At { found, .. } = self.remote.page(page).await?;
        if found.more {
            return Err(OpError::Remote(RemoteError::TooManyOps));
        }
        if found.kvs.is_empty() {
            return Err(OpError::NotFound);
        }
        let lease = self.remote.lease_grant(seconds).await?;
        let mut change = Change::default();
        for kv in found.kvs {
            if self.map.is_own_record(&kv.key) {
                continue;
            }
            change.compares.push(Compare::Unchanged(kv.key.clone(), kv.mod_revision));
            change.then.push(Op::Attach { key: kv.key, lease: Some(lease) });
        }
        match self.commit(change).await {
            Ok(Committed { succeeded: true, .. }) => Ok(()),
            Ok(_) => {
                self.drop_lease(lease).await;
                Err(OpError::Stale)
            }
            Err(error) => {
                self.drop_lease(lease).await;
                Err(error)
            }
        }
    }

    /// A lease that came to nothing.
    async fn drop_lease(&self, lease: LeaseId) {
        if let Err(error) = self.remote.lease_revoke(lease).await {
            tracing::warn!(%lease, %error, "a lease that was granted for nothing could not be revoked");
        }
    }
}

fn own_name(name: &OsStr) -> Result<&'static str, OpError> {
    let known = [LEASE, TTL, GRANTED_TTL, KEEPALIVE, KEY, CREATE_REVISION, REVISION, VERSION, LOCK_REVISION];
    let own = known.into_iter().find(|&known| name == known);
    own.ok_or(OpError::NotSupported)
}

/// As etcdctl prints it: sixteen digits.
fn hex(lease: LeaseId) -> String {
    format!("{:016x}", lease.0)
}

fn parse_lease(text: &str) -> Result<LeaseId, OpError> {
    let text = text.strip_prefix("0x").unwrap_or(text);
    let id = i64::from_str_radix(text, 16).map_err(|_| OpError::Malformed("not a lease id in hex"))?;
    if id == 0 { Err(OpError::Malformed("lease 0 is none; remove the attribute")) } else { Ok(LeaseId(id)) }
}
