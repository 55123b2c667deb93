//! The replicated state's only writer: log entries in, outcomes and rows out.
//!
//! An entry is applied wholly before any of it is published. Its batch holds
//! all rows that it changes and the meta row with its log id, so that the image
//! never holds data without knowing how far it has come.

use std::sync::Arc;

use bytes::Bytes;
use etcfs_proto::etcfs::{
    command::{self, request::Body},
    record,
};

use super::{
    Alarms, Applied, ApplyError, Cluster, Outcome, Response,
    admit::{admit, permit},
    compaction::compaction,
    error::Failure,
    kv, lease, txn,
};
use crate::{
    auth::{Auth, AuthStore},
    lease::table::{LeaseTable, TableHandle},
    mvcc::{FIRST_REVISION, NEVER_COMPACTED, RevisionEvents, Scrubbed, Store, StoreOptions, Writer},
    storage::{
        Batch, Engine, StorageError, codec, engine,
        keyspace::{LEASES, META},
    },
    version::Version,
};

/// Layout of the rows that this code writes.
const FORMAT: u32 = 1;

/// The state of one member.
#[derive(Debug)]
pub struct Machine {
    writer: Writer,
    leases: LeaseTable,
    cluster: Cluster,
    alarms: Alarms,
    auth: AuthStore,
    meta: record::Meta,
    options: StoreOptions,
}

/// Cheap read handles of what the machine keeps.
#[derive(Clone, Debug)]
pub struct State {
    pub store: Arc<Store>,
    pub leases: TableHandle,
    pub cluster: Cluster,
    pub alarms: Alarms,
    pub auth: Auth,
}

impl Machine {
    /// The state that an image holds; replay the log from behind `meta().applied`.
    pub fn open(engine: Arc<dyn Engine>, options: StoreOptions) -> Result<(Self, State), StorageError> {
        let meta = read_meta(&*engine)?;
        let (store, writer, attachments) = Store::open(Arc::clone(&engine), &meta, &options)?;
        let leases = LeaseTable::new(read_leases(&*engine)?, attachments);
        let (cluster, alarms, auth) = (Cluster::default(), Alarms::default(), AuthStore::default());
        cluster.load(&*engine, &meta)?;
        alarms.load(&*engine)?;
        auth.load(&*engine, &meta)?;
        let state = State {
            store,
            leases: leases.handle(),
            cluster: cluster.clone(),
            alarms: alarms.clone(),
            auth: auth.handle().clone(),
        };
        Ok((Self { writer, leases, cluster, alarms, auth, meta, options }, state))
    }

    /// Replaces everything by what another image holds; the handles stay good.
    pub fn install(&mut self, engine: Arc<dyn Engine>) -> Result<(), StorageError> {
        let meta = read_meta(&*engine)?;
        let leases = read_leases(&*engine)?;
        let attachments = self.writer.install(Arc::clone(&engine), &meta, &self.options)?;
        self.leases.replace(leases, attachments);
        self.cluster.load(&*engine, &meta)?;
        self.alarms.load(&*engine)?;
        self.auth.load(&*engine, &meta)?;
        self.meta = meta;
        Ok(())
    }

    /// Log id, membership and counters as of the last applied entry.
    pub fn meta(&self) -> &record::Meta {
        &self.meta
    }

    /// Names the cluster; stored with the next entry.
    pub fn set_cluster_id(&mut self, cluster_id: u64) {
        self.meta.cluster_id = cluster_id;
        self.cluster.set_cluster_id(cluster_id);
    }

    /// Applies an entry of requests. An error is the image's and ends the node.
    pub fn apply(&mut self, id: &record::LogId, batch: &command::Batch) -> Result<Applied, StorageError> {
        let mut applied = Applied::default();
        for request in &batch.requests {
            match self.request(id.term, request, &mut applied.batch, &mut applied.events) {
                Ok(response) => applied.outcomes.push(Outcome::Ok(response)),
                Err(Failure::Refused(error)) => applied.outcomes.push(Outcome::Err(error)),
                Err(Failure::Storage(error)) => return Err(error),
            }
        }
        Ok(self.seal(id, batch.unix_ms, applied))
    }

    /// Applies an entry that says nothing.
    pub fn apply_blank(&mut self, id: &record::LogId) -> Applied {
        self.seal(id, 0, Applied::default())
    }

    pub fn apply_membership(&mut self, id: &record::LogId, membership: record::Membership) -> Applied {
        let mut applied = Applied::default();
        self.cluster.apply_membership(&membership, &mut applied.batch);
        self.meta.membership = Some(record::StoredMembership { id: Some(*id), membership: Some(membership) });
        self.seal(id, 0, applied)
    }

    /// Lets readers see everything up to `revision`.
    pub fn publish(&self, revision: i64) {
        self.writer.publish(revision);
    }

    /// True while a published compaction's rows are still to be deleted.
    pub fn scrub_pending(&self) -> bool {
        self.writer.scrub_pending()
    }

    /// Deletes one chunk of compacted rows: a batch for the image, to be submitted after those of
    /// the entries applied so far. `None`: nothing to do, or a reader is in the way.
    pub fn scrub(&mut self) -> Option<Batch> {
        match self.writer.scrub() {
            Scrubbed::Idle | Scrubbed::Held => None,
            Scrubbed::Chunk(batch) => Some(batch),
            Scrubbed::Last(mut batch, revision) => {
                self.meta.scrubbed_revision = revision;
                batch.put(Bytes::from_static(META), codec::encode(&self.meta));
                Some(batch)
            }
        }
    }

    /// Completes an entry's batch with the news of how far the state has come.
    fn seal(&mut self, id: &record::LogId, unix_ms: u64, mut applied: Applied) -> Applied {
        self.writer.time(self.meta.revision + 1, unix_ms, &mut applied.batch);
        self.meta.applied = Some(*id);
        self.meta.revision = self.writer.revision();
        self.meta.times_revision = self.meta.revision;
        self.meta.times_unix_ms = self.writer.newest_time_ms();
        applied.batch.put(Bytes::from_static(META), codec::encode(&self.meta));
        applied.batch.applied_index = id.index;
        applied.batch.revision = self.meta.revision;
        applied.revision = self.meta.revision;
        applied
    }

    fn request(
        &mut self,
        term: u64,
        request: &command::Request,
        batch: &mut Batch,
        events: &mut Vec<RevisionEvents>,
    ) -> Result<Response, Failure> {
        let mut body = request.body.as_ref().ok_or(ApplyError::UnknownCommand)?;
        let mut caller = None;
        if let Body::OnBehalf(on_behalf) = body {
            let of_caller = on_behalf.request.as_ref().and_then(|request| request.body.as_ref());
            caller = Some(on_behalf.as_ref());
            body = of_caller.ok_or(ApplyError::UnknownCommand)?;
        }
        permit(self.auth.handle(), &self.leases, caller, body)?;
        admit(&self.alarms, body)?;
        if let Some(done) = self.auth.apply(body, batch, &mut self.meta) {
            done?;
            return Ok(Response::Done);
        }
        let Self { writer, leases, meta, .. } = self;
        Ok(match body {
            Body::Put(put) => {
                kv::check_put(&writer.view(), leases, put)?;
                let mut txn = writer.begin(batch);
                let response = kv::put(&mut txn, leases, put)?;
                events.extend(txn.finish());
                Response::Put(response)
            }
            Body::DeleteRange(delete) => {
                let mut txn = writer.begin(batch);
                let response = kv::delete_range(&mut txn, leases, delete)?;
                events.extend(txn.finish());
                Response::DeleteRange(response)
            }
            Body::Txn(request) => {
                let mut txn = writer.begin(batch);
                let response = txn::txn(&mut txn, leases, request)?;
                events.extend(txn.finish());
                Response::Txn(response.ok_or(ApplyError::AnswerTooLong)?)
            }
            Body::Compaction(request) => Response::Compaction(compaction(writer, meta, request)?),
            Body::LeaseGrant(request) => {
                Response::LeaseGrant(lease::grant(leases, batch, writer.revision(), request)?)
            }
            Body::LeaseRevoke(request) => {
                Response::LeaseRevoke(lease::revoke(writer, leases, batch, events, request)?)
            }
            Body::LeaseExpire(request) => {
                lease::expire(writer, leases, batch, events, request, term)?;
                Response::Done
            }
            Body::LeaseCheckpoint(request) => {
                lease::checkpoint(leases, batch, request, term)?;
                Response::Done
            }
            Body::Alarm(request) => Response::Alarm(self.alarms.apply(request, writer.revision(), batch)),
            Body::MemberAttributes(attributes) => {
                self.cluster.apply_attributes(attributes, batch)?;
                Response::Done
            }
            Body::ClusterVersion(request) => {
                let version = request.version.parse::<Version>().map_err(|_| ApplyError::BadVersion)?;
                // Members count on it: what they may write stays readable to all.
                if meta.cluster_version.parse().is_ok_and(|known| version < known) {
                    return Err(ApplyError::BadVersion.into());
                }
                meta.cluster_version.clone_from(&request.version);
                self.cluster.set_version(&request.version);
                Response::Done
            }
            Body::SetDowngrade(request) => {
                meta.downgrade_target.clone_from(&request.target_version);
                self.cluster.set_downgrade(request.target_version.clone());
                Response::Done
            }
            // One on behalf of another's behalf, and what `auth` has done above.
            Body::OnBehalf(_)
            | Body::IssueToken(_)
            | Body::AuthEnable(_)
            | Body::AuthDisable(_)
            | Body::UserAdd(_)
            | Body::UserDelete(_)
            | Body::UserChangePassword(_)
            | Body::UserGrantRole(_)
            | Body::UserRevokeRole(_)
            | Body::RoleAdd(_)
            | Body::RoleDelete(_)
            | Body::RoleGrantPermission(_)
            | Body::RoleRevokePermission(_) => return Err(ApplyError::UnknownCommand.into()),
        })
    }
}

fn read_meta(engine: &dyn Engine) -> Result<record::Meta, StorageError> {
    let Some(row) = engine.get(META)? else {
        return Ok(record::Meta {
            format: FORMAT,
            revision: FIRST_REVISION,
            times_revision: FIRST_REVISION,
            compact_revision: NEVER_COMPACTED,
            scrubbed_revision: NEVER_COMPACTED,
            ..record::Meta::default()
        });
    };
    let meta: record::Meta = codec::decode(META, row)?;
    if meta.format != FORMAT {
        return Err(StorageError::Corrupt {
            what: "the image's meta row".into(),
            reason: format!("it is of format {}, this version reads {FORMAT}", meta.format),
        });
    }
    Ok(meta)
}

fn read_leases(engine: &dyn Engine) -> Result<Vec<record::Lease>, StorageError> {
    engine::all(engine, LEASES).map(|row| row.and_then(|(key, row)| codec::decode(&key, row))).collect()
}
