//! Raises NOSPACE when the disk runs full, and clears it when there is room again.
//!
//! etcd leaves clearing to a person. Here each member takes back the alarm that
//! it raised itself: once the keys and their history are well below the quota,
//! and the disk has room. Well below, so that the next put does not raise it
//! anew.

use std::time::Duration;

use etcfs_proto::{
    etcdserverpb::{AlarmRequest, AlarmType, alarm_request::AlarmAction},
    etcfs::command::{Request, request::Body},
};
use tokio::time;
use tokio_util::sync::CancellationToken;

use crate::{
    config::Quota,
    maintain::{Sizes, Space},
    propose::{Alarms, Members, Proposer},
};

/// How often it looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// Of the quota, what may be in use for the alarm to be cleared, in percent.
const CLEAR_BELOW_PERCENT: u64 = 95;
#[derive(Debug)]
pub struct RoomKeeper {
    pub quota: Quota,
    pub sizes: Sizes,
    pub alarms: Alarms,
    pub members: Members,
    pub proposer: Proposer,
}

impl RoomKeeper {
    pub async fn run(self, shutdown: CancellationToken) {
        let mut ticks = time::interval(LOOK_INTERVAL);
        ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        let mut verdict = Verdict::default();
        while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
            let own = (self.members.member_id(), AlarmType::Nospace);
            let raised = self.alarms.list().contains(&own);
            let (in_use, disk) = (self.sizes.in_use(), self.sizes.disk());
            let short = self.sizes.is_short();
            let action = verdict.next(Look { raised, short, in_use, disk }, self.quota);
            if verdict.is_over {
                self.sizes.note_shortage(false);
            }
            let Some(action) = action else { continue };
            let free = disk.free;
            if action == AlarmAction::Activate {
                tracing::warn!(free, "the disk is nearly full: raising the NOSPACE alarm");
            } else {
                tracing::info!(in_use, free, "there is room again: clearing the NOSPACE alarm");
            }
            self.change(action).await;
        }
    }

    async fn change(&self, action: AlarmAction) {
        let alarm = AlarmRequest {
            action: action as i32,
            member_id: self.members.member_id(),
            alarm: AlarmType::Nospace as i32,
        };
        if let Err(error) = self.proposer.write(Request { body: Some(Body::Alarm(alarm)) }).await {
            tracing::debug!(%error, "could not change the NOSPACE alarm yet");
        }
    }
}

/// What there is to see.
#[derive(Clone, Copy, Debug)]
struct Look {
    /// This member's alarm stands.
    raised: bool,
    /// Something did not fit.
    short: bool,
    in_use: u64,
    disk: Space,
}

/// Whether to raise or to clear, from one look to the next.
#[derive(Debug)]
struct Verdict {
    /// The alarm that stands was raised by need, not by hand. One from before a restart counts as
    /// such: the need may have ended while the member was down.
    by_need: bool,
    was_raised: bool,
    /// The alarm has gone since the last look, whoever cleared it.
    is_over: bool,
}

impl Default for Verdict {
    fn default() -> Self {
        Self { by_need: true, was_raised: false, is_over: false }
    }
}

impl Verdict {
    fn next(&mut self, look: Look, quota: Quota) -> Option<AlarmAction> {
        let Look { raised, short, in_use, disk } = look;
        self.is_over = self.was_raised && !raised;
        self.was_raised = raised;
        let roomy = match quota {
            Quota::Bytes(quota) => in_use < quota / 100 * CLEAR_BELOW_PERCENT,
            Quota::Unlimited => true,
        };
        if !roomy || disk.is_full() {
            self.by_need = true;
            return (!raised && disk.is_full()).then_some(AlarmAction::Activate);
        }
        if !raised {
            // The next to come with room all round is somebody's own.
            self.by_need = false;
            return None;
        }
        // All may have been made between two looks: the need, its alarm, and room.
        self.by_need |= short;
        (self.by_need && disk.is_roomy()).then_some(AlarmAction::Deactivate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUOTA: Quota = Quota::Bytes(1000);
    const PLENTY: Space = Space { free: 1 << 40, total: 1 << 40 };

    fn look(raised: bool, in_use: u64, disk: Space) -> Look {
        Look { raised, short: false, in_use, disk }
    }

    #[test]
    fn an_alarm_of_need_goes_with_the_need() {
        let mut verdict = Verdict::default();
        assert_eq!(verdict.next(look(false, 10, PLENTY), QUOTA), None);
        assert_eq!(
            verdict.next(look(false, 990, PLENTY), QUOTA),
            None,
            "the put that does not fit raises it"
        );
        assert_eq!(verdict.next(look(true, 990, PLENTY), QUOTA), None);
        assert_eq!(verdict.next(look(true, 951, PLENTY), QUOTA), None, "not at once, or it comes again");
        assert_eq!(verdict.next(look(true, 900, PLENTY), QUOTA), Some(AlarmAction::Deactivate));
    }

    #[test]
    fn one_of_a_need_that_no_look_has_seen_goes_as_well() {
        let mut verdict = Verdict::default();
        assert_eq!(verdict.next(look(false, 10, PLENTY), QUOTA), None);
        let short = Look { short: true, ..look(false, 10, PLENTY) };
        assert_eq!(verdict.next(short, QUOTA), None, "it is on its way");
        let cleared = Some(AlarmAction::Deactivate);
        assert_eq!(verdict.next(Look { raised: true, ..short }, QUOTA), cleared);
        assert!(!verdict.is_over);
        assert_eq!(verdict.next(look(false, 10, PLENTY), QUOTA), None);
        assert!(verdict.is_over);
    }

    #[test]
    fn one_raised_by_hand_stays_until_a_hand_clears_it() {
        let mut verdict = Verdict::default();
        assert_eq!(verdict.next(look(false, 10, PLENTY), QUOTA), None);
        assert_eq!(verdict.next(look(true, 10, PLENTY), QUOTA), None);
    }

    #[test]
    fn a_full_disk_raises_it_and_room_clears_it() {
        const MIB: u64 = 1 << 20;
        for (total, full, little, roomy) in [(100_000, 95, 100, 128), (256, 63, 65, 86), (64, 15, 17, 22)] {
            let free = |free: u64| Space { free: free * MIB, total: total * MIB };
            let mut verdict = Verdict::default();
            assert_eq!(verdict.next(look(false, 10, free(total / 2)), QUOTA), None);
            assert_eq!(
                verdict.next(look(false, 10, free(full)), QUOTA),
                Some(AlarmAction::Activate),
                "{total}"
            );
            assert_eq!(verdict.next(look(true, 10, free(little)), QUOTA), None, "too little to be sure");
            assert_eq!(verdict.next(look(true, 10, free(roomy)), QUOTA), Some(AlarmAction::Deactivate));
            assert_eq!(verdict.next(look(false, 10, free(0)), Quota::Unlimited), Some(AlarmAction::Activate));
        }
    }
}
