//! Whether the members still hold the same: hashes of their keys and history, and of
//! their users and roles, compared.
//!
//! At the start, before clients are let in, a member compares itself with the
//! others, and ends if it is the one that differs. While it leads, it compares all
//! of them now and then, and raises the alarm CORRUPT for those that a majority
//! speaks against; where there is no majority, for none of them by name. The alarm
//! refuses all that clients do with keys, until an operator has put things right.

use std::{collections::HashMap, time::Duration};

use etcfs_proto::{
    etcdserverpb::{AlarmRequest, AlarmType, alarm_request::AlarmAction},
    etcfs::command::{Request, request::Body},
};
use futures_util::future;
use tokio::time;
use tokio_util::sync::CancellationToken;

use super::NOBODY;
use crate::{
    auth::Auth,
    maintain::Hash,
    mvcc::ReadError,
    propose::{Alarms, Errands, Members, Proposer},
};

#[derive(Debug)]
pub struct CorruptionCheck {
    pub hash: Hash,
    pub auth: Auth,
    pub members: Members,
    pub errands: Errands,
    pub proposer: Proposer,
    pub alarms: Alarms,
}

/// Why a member must not serve.
#[derive(Debug, thiserror::Error)]
pub enum Inconsistent {
    #[error(
        "found data inconsistency with peers: at revision {revision} {what} of this member ({own:x}) differ \
         from those of {others}; if a majority agrees without it, remove it with `etcdctl member remove` and \
         add it again without data"
    )]
    Differs { what: &'static str, revision: u64, own: u64, others: String },
    #[error("the keys could not be read for a comparison with the other members: {0}")]
    Read(#[from] ReadError),
}

/// What members that can be compared hold of one thing, at one revision of it.
#[derive(Debug)]
struct Compared {
    what: &'static str,
    revision: u64,
    /// By member, this one among them.
    hashes: HashMap<u64, u32>,
}

impl CorruptionCheck {
    /// Returns once this member has been compared with those that answer. They must have caught up.
    pub async fn at_start(&self) -> Result<(), Inconsistent> {
        let own = self.members.member_id();
        for Compared { what, revision, hashes } in self.compare().await? {
            match judge(&hashes, self.members.list().len()) {
                Verdict::Agree => {
                    let compared = hashes.len() - 1;
                    tracing::info!(revision, compared, "{what} are those of the other members");
                }
                Verdict::Differ(ids) if !ids.contains(&own) => {
                    let members = hex(ids);
                    tracing::warn!(revision, ?members, "a majority agrees; {what} of these members differ");
                }
                Verdict::Differ(_) | Verdict::Undecided => {
                    let held = hashes[&own];
                    let others = hashes.into_iter().filter(|&(_, other)| other != held).map(|(id, _)| id);
                    let others = hex(others).join(", ");
                    return Err(Inconsistent::Differs { what, revision, own, others });
                }
            }
        }
        Ok(())
    }

    /// Compares all every `interval` while this member leads, until `shutdown`.
    pub async fn run(self, interval: Duration, shutdown: CancellationToken) {
        let mut ticks = time::interval_at(time::Instant::now() + interval, interval);
        ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
            if self.members.status().leader == Some(self.members.member_id()) {
                shutdown.run_until_cancelled(self.check()).await;
            }
        }
    }

    async fn check(&self) {
        match self.compare().await {
            Ok(compared) => {
                for one in compared {
                    self.look_at(one).await;
                }
            }
            Err(error) => tracing::warn!(%error, "the members could not be compared"),
        }
    }

    async fn look_at(&self, Compared { what, revision, hashes }: Compared) {
        let suspects = match judge(&hashes, self.members.list().len()) {
            Verdict::Agree => {
                return tracing::debug!(revision, what, members = hashes.len(), "the members hold the same");
            }
            Verdict::Differ(ids) => ids,
            Verdict::Undecided => vec![NOBODY],
        };
        let raised = self.alarms.list();
        for member in suspects {
            if raised.contains(&(member, AlarmType::Corrupt)) {
                continue;
            }
            tracing::error!(
                revision,
                member = format!("{member:x}"),
                hashes = ?hashes.iter().map(|(id, hash)| format!("{id:x}: {hash:08x}")).collect::<Vec<_>>(),
                "{what} differ between the members; raising the alarm CORRUPT"
            );
            let alarm = AlarmType::Corrupt as i32;
            let raise = AlarmRequest { action: AlarmAction::Activate as i32, member_id: member, alarm };
            if let Err(error) = self.proposer.write(Request { body: Some(Body::Alarm(raise)) }).await {
                tracing::warn!(%error, "the alarm could not be raised; it will be tried again");
            }
        }
    }

    /// What this member holds, and what all others do at the same revisions.
    async fn compare(&self) -> Result<[Compared; 2], ReadError> {
        let own = self.members.member_id();
        let hash = self.hash.of_keys(0).await?;
        let (auth_revision, auth_hash) = self.auth.fingerprint();
        let others: Vec<u64> =
            self.members.list().into_iter().map(|member| member.id).filter(|&id| id != own).collect();
        let asked = others.into_iter().map(|id| async move {
            match self.errands.hash_keys(id, hash.hash_revision).await {
                Ok(told) => Some((id, told)),
                Err(status) => {
                    let member = format!("{id:x}");
                    tracing::info!(member, error = status.message(), "a member could not be compared");
                    None
                }
            }
        });
        let told: Vec<_> = future::join_all(asked).await.into_iter().flatten().collect();
        // What the one has compacted and the other has not is in one hash only.
        let keys = told.iter().filter(|(_, told)| told.compact_revision == hash.compact_revision);
        let keys = keys.map(|(id, told)| (*id, told.hash)).chain([(own, hash.hash)]).collect();
        let auth = told.iter().filter(|(_, told)| told.auth_revision == Some(auth_revision));
        let auth = auth.filter_map(|(id, told)| Some((*id, told.auth_hash?)));
        let auth = auth.chain([(own, auth_hash)]).collect();
        let revision = hash.hash_revision.unsigned_abs();
        Ok([
            Compared { what: "the keys and history", revision, hashes: keys },
            Compared { what: "the users and roles", revision: auth_revision, hashes: auth },
        ])
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Agree,
    /// Those that a majority of all members speaks against, by id.
    Differ(Vec<u64>),
    /// Members differ, and no majority agrees.
    Undecided,
}

/// What the hashes of some of `size` members say.
fn judge(told: &HashMap<u64, u32>, size: usize) -> Verdict {
    let mut counts: HashMap<u32, usize> = HashMap::new();
    told.values().for_each(|&hash| *counts.entry(hash).or_default() += 1);
    if counts.len() <= 1 {
        return Verdict::Agree;
    }
    let Some((&right, _)) = counts.iter().find(|(_, count)| 2 * **count > size) else {
        return Verdict::Undecided;
    };
    let mut ids: Vec<u64> = told.iter().filter(|(_, hash)| **hash != right).map(|(&id, _)| id).collect();
    ids.sort_unstable();
    Verdict::Differ(ids)
}

fn hex(ids: impl IntoIterator<Item = u64>) -> Vec<String> {
    ids.into_iter().map(|id| format!("{id:x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(hashes: &[u32], size: usize) -> Verdict {
        judge(&(1..).zip(hashes.iter().copied()).collect(), size)
    }

    #[test]
    fn a_majority_of_all_members_says_who_is_wrong() {
        assert_eq!(of(&[7], 3), Verdict::Agree, "nobody speaks against it");
        assert_eq!(of(&[7, 7, 7], 3), Verdict::Agree);
        assert_eq!(of(&[7, 8, 7], 3), Verdict::Differ(vec![2]));
        assert_eq!(of(&[8, 7, 7], 3), Verdict::Differ(vec![1]), "the leader itself may be wrong");
        assert_eq!(of(&[7, 8, 9, 7, 7], 5), Verdict::Differ(vec![2, 3]));
        assert_eq!(of(&[7, 8], 3), Verdict::Undecided, "one did not answer");
        assert_eq!(of(&[7, 7, 8], 5), Verdict::Undecided, "two of five are no majority");
        assert_eq!(of(&[7, 7, 8, 8], 4), Verdict::Undecided);
    }
}
