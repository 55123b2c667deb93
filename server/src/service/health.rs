//! Whether this member can serve, for /health, /livez and /readyz.

use etcfs_proto::etcdserverpb::{AlarmType, RangeRequest};

use super::{Refusal, kv::Kv};
use crate::propose::{Alarms, Members};

/// The checks, each by etcd's name for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    DataCorruption,
    SerializableRead,
    LinearizableRead,
    NonLearner,
}

impl Check {
    /// Whether the process is alive: a restart may help where one fails.
    pub const LIVE: [Self; 1] = [Self::SerializableRead];
    /// Whether clients should come here.
    pub const READY: [Self; 4] =
        [Self::DataCorruption, Self::SerializableRead, Self::LinearizableRead, Self::NonLearner];

    pub fn name(self) -> &'static str {
        match self {
            Self::DataCorruption => "data_corruption",
            Self::SerializableRead => "serializable_read",
            Self::LinearizableRead => "linearizable_read",
            Self::NonLearner => "non_learner",
        }
    }
}

#[derive(Clone, Debug)]
pub struct Health {
    pub kv: Kv,
    pub alarms: Alarms,
    pub members: Members,
}

impl Health {
    /// In etcd's words where there is none yet.
    pub fn cluster_version(&self) -> String {
        let version = self.members.cluster_version();
        if version.is_empty() { "not_decided".to_owned() } else { version }
    }

    /// etcd's `/health`: the reason why not, in its words.
    pub async fn check(&self, exclude: &[String], serializable: bool) -> Result<(), String> {
        for (_, alarm) in self.alarms.list() {
            let name = match alarm {
                AlarmType::None => continue,
                AlarmType::Nospace => "NOSPACE",
                AlarmType::Corrupt => "CORRUPT",
            };
            if !exclude.iter().any(|excluded| excluded == name) {
                return Err(format!("ALARM {name}"));
            }
        }
        if !serializable && self.members.status().leader.is_none() {
            return Err("RAFT NO LEADER".to_owned());
        }
        self.read(serializable).await.map_err(|refusal| format!("RANGE ERROR:{refusal}"))
    }

    pub async fn run(&self, check: Check) -> Result<(), String> {
        match check {
            Check::DataCorruption if self.alarms.is_raised(AlarmType::Corrupt) => {
                Err("alarm activated: CORRUPT".to_owned())
            }
            Check::DataCorruption => Ok(()),
            Check::SerializableRead => self.read(true).await.map_err(|refusal| refusal.to_string()),
            Check::LinearizableRead => self.read(false).await.map_err(|refusal| refusal.to_string()),
            Check::NonLearner if self.members.status().is_learner => Err("server is a learner".to_owned()),
            Check::NonLearner => Ok(()),
        }
    }

    async fn read(&self, serializable: bool) -> Result<(), Refusal> {
        let key = bytes::Bytes::from_static(b"health");
        let request = RangeRequest { key, serializable, limit: 1, keys_only: true, ..Default::default() };
        match self.kv.read(&request).await {
            // It could be answered; the alarm is another check's affair.
            Ok(_) | Err(Refusal::Corrupt) => Ok(()),
            Err(refusal) => Err(refusal),
        }
    }
}
