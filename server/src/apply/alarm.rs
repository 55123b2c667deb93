//! Alarms: raised and disarmed through the log, so that all members agree.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use etcfs_proto::etcdserverpb::{
    AlarmMember, AlarmRequest, AlarmResponse, AlarmType, alarm_request::AlarmAction,
};
use parking_lot::RwLock;

use crate::{
    mvcc::header,
    storage::{
        Batch, Engine, StorageError,
        keyspace::{self, ALARMS},
    },
};

/// Read handle of the raised alarms.
#[derive(Clone, Debug, Default)]
pub struct Alarms {
    /// `(kind, member)`; held for a few lines, with no other lock taken under it.
    raised: Arc<RwLock<BTreeSet<(i32, u64)>>>,
}

/// More alarms than any cluster has members and kinds.
const ALARMS_MAX: usize = 4096;

impl Alarms {
    pub fn is_raised(&self, kind: AlarmType) -> bool {
        let kind = kind as i32;
        self.raised.read().range((kind, 0)..=(kind, u64::MAX)).next().is_some()
    }

    /// `(member, kind)` of each.
    pub fn list(&self) -> Vec<(u64, AlarmType)> {
        let raised = self.raised.read();
        raised.iter().filter_map(|&(kind, member)| Some((member, AlarmType::try_from(kind).ok()?))).collect()
    }

    pub(super) fn load(&self, engine: &dyn Engine) -> Result<(), StorageError> {
        let rows = engine.range(ALARMS.start, ALARMS.end, ALARMS_MAX)?;
        *self.raised.write() = rows.iter().filter_map(|(key, _)| keyspace::parse_alarm(key)).collect();
        Ok(())
    }

    pub(super) fn apply(&self, request: &AlarmRequest, revision: i64, batch: &mut Batch) -> AlarmResponse {
        let (kind, member) = (request.alarm, request.member_id);
        let row = keyspace::alarm(kind, member);
        let mut raised = self.raised.write();
        let answer = |kind, member| AlarmMember { member_id: member, alarm: kind };
        let alarms = match request.action() {
            AlarmAction::Get => raised
                .iter()
                .filter(|&&(other, _)| kind == AlarmType::None as i32 || other == kind)
                .map(|&(kind, member)| answer(kind, member))
                .collect(),
            AlarmAction::Activate => {
                let new = kind != AlarmType::None as i32 && raised.insert((kind, member));
                if new {
                    batch.put(row, Bytes::new());
                }
                new.then(|| answer(kind, member)).into_iter().collect()
            }
            AlarmAction::Deactivate => {
                let was = raised.remove(&(kind, member));
                if was {
                    batch.delete(row);
                }
                was.then(|| answer(kind, member)).into_iter().collect()
            }
        };
        AlarmResponse { header: header(revision), alarms }
    }
}
