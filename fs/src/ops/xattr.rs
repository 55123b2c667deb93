//! Leases and history facts as extended attributes, `user.etcfs.*`.

use std::ffi::OsStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::virtuals::is_virtual;
use super::{Fs, key, put_value};
use crate::errno::OpError;
use crate::map::Dir;
use crate::node::{Kind, Known, NodeId, Value};
use crate::remote::{
    Change, Committed, Compare, Freshness, KeyValue, LeaseId, Op, Page, PageRequest, RemoteError, Revision,
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

/// How often they are read again where others change them meanwhile.
const ATTACH_ATTEMPTS: usize = 16;

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

    pub(crate) async fn set_xattr(
        self: &Arc<Self>,
        id: NodeId,
        name: &OsStr,
        text: &[u8],
    ) -> Result<(), OpError> {
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
                    "1" => self.renew(lease).await?,
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

    /// Renews a lease for as long as a key of this mount is attached to it.
    async fn renew(self: &Arc<Self>, lease: LeaseId) -> Result<(), OpError> {
        let facts = self.remote.lease_facts(lease).await?;
        let facts = facts.ok_or(OpError::Remote(RemoteError::NoSuchLease))?;
        if self.renews(lease) {
            return Ok(());
        }
        let renewal = self.remote.keep_alive(lease);
        self.renewals.lock().insert(lease, renewal);
        let (fs, stopped) = (Arc::downgrade(self), self.stopped.clone());
        let pause = Duration::from_secs(facts.granted_seconds.max(1).unsigned_abs());
        self.runtime.spawn(async move {
            loop {
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = stopped.cancelled() => return,
                }
                let Some(fs) = fs.upgrade().filter(|fs| fs.renews(lease)) else { return };
                if !fs.is_needed(lease).await {
                    drop(fs.renewals.lock().remove(&lease));
                    return;
                }
            }
        });
        Ok(())
    }

    /// False once it is known that no key of this mount is attached to a lease.
    async fn is_needed(&self, lease: LeaseId) -> bool {
        match self.remote.lease_keys(lease).await {
            Ok(Some(keys)) => keys.iter().any(|key| self.map.shows(key)),
            Ok(None) => false,
            Err(_) => true,
        }
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
        self.keys_below(&dir).await?;
        let lease = self.remote.lease_grant(seconds).await?;
        let attached = self.attach_all(&dir, lease).await;
        if attached.is_err() {
            self.drop_lease(lease).await;
        }
        attached
    }

    async fn attach_all(&self, dir: &Dir, lease: LeaseId) -> Result<(), OpError> {
        for _ in 0..ATTACH_ATTEMPTS {
            let kvs = self.keys_below(dir).await?;
            let mut turns = Vec::with_capacity(kvs.len());
            let mut change = Change::default();
            // In order of keys, as a rename takes its turns.
            for kv in &kvs {
                turns.push(self.turn(&kv.key.bytes()).await);
                change.compares.push(Compare::Unchanged(kv.key.clone(), kv.mod_revision));
                change.then.push(Op::Attach { key: kv.key.clone(), lease: Some(lease) });
            }
            let Committed { revision, succeeded, .. } = self.commit(change).await?;
            if !succeeded {
                continue;
            }
            let mut puts = Vec::with_capacity(kvs.len());
            for kv in kvs {
                let (name, before) = (kv.key.bytes(), kv.mod_revision.0);
                match self.nodes.with(|table| table.known(&name)) {
                    Known::Present(value) if value.rev == before => {
                        let value = put_value(value.bytes.clone(), revision.0, Some(&value), lease.0);
                        puts.push(self.own_change(&name, revision.0, Some(before), Some(value)));
                    }
                    // Whoever asks for it asks the server.
                    Known::Unknown => {}
                    Known::Present(_) | Known::Absent => self.refresh(&name, revision.0).await?,
                }
            }
            drop(turns);
            for put in puts {
                self.shown(put).await;
            }
            return Ok(());
        }
        Err(OpError::Stale)
    }

    /// The keys below a directory, if one transaction takes them all and they may be written.
    async fn keys_below(&self, dir: &Dir) -> Result<Vec<KeyValue>, OpError> {
        let page = PageRequest {
            range: self.map.key_range(dir),
            limit: ATTACHED_MAX,
            keys_only: true,
            how: Freshness::Linearizable,
        };
        let Page { kvs, more } = self.remote.page(page).await?.found;
        if more {
            return Err(OpError::Remote(RemoteError::TooManyOps));
        }
        let kvs: Vec<KeyValue> = kvs.into_iter().filter(|kv| !self.map.is_own_record(&kv.key)).collect();
        if kvs.is_empty() {
            return Err(OpError::NotFound);
        }
        kvs.iter().try_for_each(|kv| self.writable(&kv.key))?;
        Ok(kvs)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::ROOT;
    use crate::ops::test_mount::mount;
    use crate::remote::Remote as _;
    use crate::remote::memory::Memory;

    async fn attribute(fs: &Fs, id: NodeId, name: &str) -> Option<String> {
        let text = fs.get_xattr(id, OsStr::new(name)).await.ok()?;
        Some(String::from_utf8(text).unwrap())
    }

    async fn set(fs: &Arc<Fs>, id: NodeId, name: &str, text: &str) -> Result<(), OpError> {
        fs.set_xattr(id, OsStr::new(name), text.as_bytes()).await
    }

    /// Only etcfs's own attributes exist
    #[tokio::test]
    async fn a_time_to_live_of_a_directory_is_seen_at_once() {
        let memory = Memory::new();
        for name in ["/d/a", "/d/b/c", "/d"] {
            memory.put(name, "v");
        }
        let fs = mount(&memory).await;
        let dir = fs.lookup(ROOT, OsStr::new("d")).await.unwrap().node;
        let file = fs.lookup(dir, OsStr::new("a")).await.unwrap().node;
        let before = memory.revision();
        set(&fs, dir, TTL, "60").await.unwrap();
        assert_eq!(memory.revision().0, before.0 + 1, "one revision");
        let lease = hex(memory.key_value("/d/a").unwrap().lease.unwrap());
        assert_eq!(attribute(&fs, file, LEASE).await, Some(lease), "the mount's own view of it");
        assert_eq!(memory.key_value("/d/a").unwrap().lease, memory.key_value("/d/b/c").unwrap().lease);
        assert_eq!(memory.key_value("/d").unwrap().lease, None, "its own value is not below it");
        assert_eq!(memory.value("/d/a").unwrap(), "v");
    }

    #[tokio::test]
    async fn a_directory_of_more_keys_than_a_transaction_takes_gets_no_time_to_live() {
        let memory = Memory::new();
        for number in 0..=ATTACHED_MAX {
            memory.put(&format!("/d/{number}"), "v");
        }
        let fs = mount(&memory).await;
        let dir = fs.lookup(ROOT, OsStr::new("d")).await.unwrap().node;
        let before = memory.revision();
        let refused = set(&fs, dir, TTL, "60").await;
        assert!(matches!(refused, Err(OpError::Remote(RemoteError::TooManyOps))), "{refused:?}");
        assert_eq!((memory.revision(), memory.leases().await.unwrap().len()), (before, 0));
        memory.delete("/d/0");
        set(&fs, dir, TTL, "60").await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_is_renewed_until_no_key_of_the_mount_is_attached_to_it() {
        let memory = Memory::new();
        memory.put("/f", "v");
        memory.put("/g", "v");
        let fs = mount(&memory).await;
        let file = fs.lookup(ROOT, OsStr::new("f")).await.unwrap().node;
        set(&fs, file, TTL, "2").await.unwrap();
        let lease = memory.key_value("/f").unwrap().lease.unwrap();
        let other = fs.lookup(ROOT, OsStr::new("g")).await.unwrap().node;
        set(&fs, other, LEASE, &hex(lease)).await.unwrap();
        set(&fs, file, KEEPALIVE, "1").await.unwrap();
        memory.delete("/f");
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert!(memory.is_renewed(lease), "another key needs it");
        assert_eq!(attribute(&fs, other, KEEPALIVE).await.as_deref(), Some("1"));
        fs.remove_xattr(other, OsStr::new(LEASE)).await.unwrap();
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert!(!memory.is_renewed(lease));
    }
}
