//! Clears the alarms of members that were removed: nobody else would, and one of them
//! refuses clients' writes for ever.

use std::time::Duration;

use etcfs_proto::{
    etcdserverpb::{AlarmRequest, AlarmType, alarm_request::AlarmAction},
    etcfs::command::{Request, request::Body},
};
use tokio::time;
use tokio_util::sync::CancellationToken;

use super::NOBODY;
use crate::propose::{Alarms, Members, Proposer};

/// How often the leader looks.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct Strays {
    pub alarms: Alarms,
    pub members: Members,
    pub proposer: Proposer,
}

impl Strays {
    pub async fn run(self, shutdown: CancellationToken) {
        let mut ticks = time::interval(LOOK_INTERVAL);
        ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
            if self.members.status().leader != Some(self.members.member_id()) {
                continue;
            }
            let members: Vec<u64> = self.members.list().iter().map(|member| member.id).collect();
            for (member, kind) in strays(self.alarms.list(), &members) {
                tracing::info!(
                    member = format!("{member:x}"),
                    alarm = kind.as_str_name(),
                    "clearing the alarm of a member that was removed"
                );
                let action = AlarmAction::Deactivate as i32;
                let alarm = AlarmRequest { action, member_id: member, alarm: kind as i32 };
                if let Err(error) = self.proposer.write(Request { body: Some(Body::Alarm(alarm)) }).await {
                    tracing::debug!(%error, "could not clear it yet");
                }
            }
        }
    }
}

fn strays(alarms: Vec<(u64, AlarmType)>, members: &[u64]) -> Vec<(u64, AlarmType)> {
    let is_stray = |id: u64| id != NOBODY && !members.contains(&id);
    alarms.into_iter().filter(|(id, _)| is_stray(*id)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_alarms_of_members_that_are_gone_are_strays() {
        let alarms = vec![(NOBODY, AlarmType::Corrupt), (1, AlarmType::Nospace), (2, AlarmType::Nospace)];
        assert_eq!(strays(alarms, &[1, 3]), [(2, AlarmType::Nospace)]);
    }
}
