//! The Maintenance service: how this member is, and what it holds.

use etcfs_proto::{
    etcdserverpb::{
        AlarmMember, AlarmRequest, AlarmResponse, DefragmentResponse, DowngradeInfo, DowngradeRequest,
        DowngradeResponse, HashKvRequest, HashKvResponse, HashResponse, MoveLeaderRequest,
        MoveLeaderResponse, SnapshotResponse, StatusResponse, alarm_request::AlarmAction,
        downgrade_request::DowngradeAction,
    },
    etcfs::command::{SetDowngrade, request::Body},
};
use futures_util::{Stream, StreamExt as _, stream};

use super::{Access, Headers, Refusal, kv::unexpected};
use crate::{
    auth::Caller,
    config::Quota,
    maintain::{Backups, Hash, Sizes},
    propose::{Alarms, Members, Proposer, Response},
    version,
};

#[derive(Clone, Debug)]
pub struct Maintenance {
    pub members: Members,
    pub alarms: Alarms,
    pub sizes: Sizes,
    pub hash: Hash,
    pub backups: Backups,
    pub proposer: Proposer,
    pub headers: Headers,
    pub access: Access,
    pub quota: Quota,
}

impl Maintenance {
    pub fn status(&self) -> Result<StatusResponse, Refusal> {
        let status = self.members.status();
        let mut errors = Vec::new();
        if status.leader.is_none() {
            errors.push(Refusal::NoLeader.text().to_owned());
        }
        for (member, alarm) in self.alarms.list() {
            errors.push(format!("memberID:{member} alarm:{} ", alarm.as_str_name()));
        }
        let quota = match self.quota {
            Quota::Bytes(bytes) => bytes,
            Quota::Unlimited => 0,
        };
        Ok(StatusResponse {
            header: self.headers.at(self.sizes.revision()),
            version: version::api().to_owned(),
            db_size: signed(self.sizes.allocated()?),
            leader: status.leader.unwrap_or(0),
            raft_index: status.committed_index,
            raft_term: status.term,
            raft_applied_index: status.applied_index,
            errors,
            db_size_in_use: signed(self.sizes.in_use()),
            is_learner: status.is_learner,
            storage_version: version::STORAGE.to_owned(),
            db_size_quota: signed(quota),
            downgrade_info: Some(self.downgrade_info()),
        })
    }

    /// Whoever is logged in may see alarms; root may change them.
    pub async fn alarm(&self, request: AlarmRequest, caller: &Caller) -> Result<AlarmResponse, Refusal> {
        if request.action == AlarmAction::Get as i32 {
            // NONE, which is 0, asks for all kinds.
            let asked = |alarm: i32| request.alarm == 0 || request.alarm == alarm;
            let alarms = self.alarms.list().into_iter();
            let alarms = alarms
                .map(|(member_id, alarm)| AlarmMember { member_id, alarm: alarm as i32 })
                .filter(|member| asked(member.alarm))
                .collect();
            return Ok(AlarmResponse { header: self.headers.at(self.sizes.revision()), alarms });
        }
        self.access.demand(caller, |demand| demand.root())?;
        let request = self.access.sign(caller, Body::Alarm(request));
        let (response, _term) = self.proposer.write(request).await?;
        match response {
            Response::Alarm(mut response) => {
                self.headers.fill(&mut response.header);
                Ok(response)
            }
            other => unexpected(&other),
        }
    }

    /// Of this member's keys; whoever compares members asks each at one revision.
    pub async fn hash_kv(&self, request: HashKvRequest) -> Result<HashKvResponse, Refusal> {
        let hash = self.hash.of_keys(request.revision).await?;
        Ok(HashKvResponse {
            header: self.headers.at(self.sizes.revision()),
            hash: hash.hash,
            compact_revision: hash.compact_revision,
            hash_revision: hash.hash_revision,
        })
    }

    /// Asked of the leader itself, as etcd has it.
    pub async fn move_leader(&self, request: MoveLeaderRequest) -> Result<MoveLeaderResponse, Refusal> {
        let own = self.members.member_id();
        if self.members.status().leader != Some(own) {
            return Err(Refusal::NotLeader);
        }
        if !self.members.is_voter(request.target_id) {
            return Err(Refusal::BadLeaderTransferee);
        }
        if request.target_id != own && !self.members.move_leader(request.target_id).await {
            return Err(Refusal::LeaderTransferTimeout);
        }
        Ok(MoveLeaderResponse { header: None })
    }

    /// etcd hashes its whole file here, for tests; what members share is keys, users and roles.
    pub async fn hash(&self) -> Result<HashResponse, Refusal> {
        let keys = self.hash.of_keys(0).await?.hash;
        let hash = keys.rotate_left(1) ^ self.access.auth.hash();
        Ok(HashResponse { header: self.headers.at(self.sizes.revision()), hash })
    }
}

impl Maintenance {
    /// Gives back the space of what was deleted; reads and writes go on.
    pub async fn defragment(&self) -> Result<DefragmentResponse, Refusal> {
        let before = self.sizes.allocated()?;
        self.sizes.defragment().await?;
        let after = self.sizes.allocated()?;
        tracing::info!(before, after, "defragmented");
        // As etcd has it, without a header.
        Ok(DefragmentResponse { header: None })
    }

    /// All that is stored here, in parts; the last is the hash of those before.
    pub fn snapshot(&self) -> impl Stream<Item = Result<SnapshotResponse, Refusal>> + Send + use<> {
        let backups = self.backups.clone();
        let header = self.headers.at(self.sizes.revision());
        let parts = async move {
            match backups.take().await {
                Ok(parts) => parts.map(|part| Ok(part?)).boxed(),
                Err(error) => stream::once(async { Err(error.into()) }).boxed(),
            }
        };
        stream::once(parts).flatten().map(move |part: Result<crate::maintain::Part, Refusal>| {
            let part = part?;
            let (remaining_bytes, blob) = (part.remaining, part.bytes);
            Ok(SnapshotResponse { header, remaining_bytes, blob, version: version::STORAGE.to_owned() })
        })
    }

    /// To the version before, and no other. What a cluster is told is kept and shown;
    /// there is no older etcfsd that could take its place.
    pub async fn downgrade(
        &self,
        request: DowngradeRequest,
        caller: &Caller,
    ) -> Result<DowngradeResponse, Refusal> {
        let info = self.downgrade_info();
        let target = match request.action() {
            DowngradeAction::Cancel if !info.enabled => return Err(Refusal::NoInflightDowngrade),
            DowngradeAction::Cancel => String::new(),
            DowngradeAction::Validate | DowngradeAction::Enable => {
                let target = Version::parse(&request.version).ok_or(Refusal::WrongDowngradeVersion)?;
                let cluster = Version::parse(&self.members.cluster_version())
                    .ok_or(Refusal::ClusterVersionUnavailable)?;
                if (target.major, target.minor + 1) != (cluster.major, cluster.minor) {
                    return Err(Refusal::InvalidDowngradeVersion);
                }
                if info.enabled {
                    return Err(Refusal::DowngradeInProcess);
                }
                format!("{}.{}.0", target.major, target.minor)
            }
        };
        if request.action() != DowngradeAction::Validate {
            let body = Body::SetDowngrade(SetDowngrade { target_version: target });
            self.proposer.write(self.access.sign(caller, body)).await?;
        }
        let header = self.headers.at(self.sizes.revision());
        Ok(DowngradeResponse { header, version: self.members.cluster_version() })
    }

    fn downgrade_info(&self) -> DowngradeInfo {
        let target_version = self.members.downgrade();
        DowngradeInfo { enabled: !target_version.is_empty(), target_version }
    }
}

struct Version {
    major: u64,
    minor: u64,
}

impl Version {
    /// `3.5`, or `3.5.` and anything that is a number.
    fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split('.').map(|number| number.parse::<u64>().ok());
        let (major, minor) = (numbers.next()??, numbers.next()??);
        numbers.all(|number| number.is_some()).then_some(Self { major, minor })
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
