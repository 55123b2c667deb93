//! Members that come and go under load: removed, lost and replaced, promoted, deposed, restarted.

use std::{os::unix::process::ExitStatusExt as _, time::Duration};

use etcfs_proto::etcdserverpb::{
    Member, MemberAddRequest, MemberListRequest, MemberPromoteRequest, MemberRemoveRequest, MoveLeaderRequest,
};
use etcfs_tests::{
    api::{Answer, Api},
    judge::{Moment, Rule},
    machine::setting,
    partition::Cluster,
    server::Kind,
    wait,
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};

use super::{
    KNOWN_OF_ETCD, Setup,
    clients::Clients,
    nemesis::{Fault, Nemesis, Whom},
    under,
};

/// Changes to a cluster of ours: each of them once.
const CHANGES: u64 = 6;
/// Changes to the reference.
const REFERENCE_CHANGES: u64 = 2;
/// Revisions between two changes, and in the middle of one.
const REVISIONS: i64 = 60;
/// How long a change may be refused: etcd's own rule waits for 5 s of health.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a removed member says, in etcd's words.
const REMOVED: &str = "the member has been permanently removed from the cluster";

/// What is done to the membership.
#[derive(Clone, Copy, Debug)]
enum Change {
    /// A member's data is lost: it is removed, and a new one takes its place.
    Replace,
    /// A member is removed while it runs, and ends by itself; a new one takes its place.
    Remove,
    /// The leadership goes to another by request.
    MoveLeader,
    /// Each member stops in order and comes back.
    Restart,
}

fn members_change(kind: Kind, changes: u64, known: &[Rule]) {
    let setup = Setup::new(kind, 3);
    let random = StdRng::seed_from_u64(setup.seed);
    under(setup, known, |cluster, clients, nemesis| {
        let mut run = Run { cluster, clients, nemesis, random };
        let mut left = setting("ETCFS_TEST_CHANGES", changes) as usize;
        while left > 0 {
            let mut changes = [
                (Change::Replace, Whom::One),
                (Change::Replace, Whom::Leader),
                (Change::Remove, Whom::One),
                (Change::Remove, Whom::Leader),
                (Change::MoveLeader, Whom::Leader),
                (Change::Restart, Whom::All),
            ];
            changes.shuffle(&mut run.random);
            changes.into_iter().take(left).for_each(|(change, whom)| run.make(change, whom));
            left = left.saturating_sub(changes.len());
        }
    });
}

#[test]
fn a_cluster_keeps_its_word_while_members_come_and_go() {
    members_change(Kind::Etcfs, CHANGES, &[]);
}

/// What is demanded is what etcd does.
#[test]
fn the_reference_keeps_its_word_while_members_come_and_go() {
    members_change(Kind::Etcd, REFERENCE_CHANGES, KNOWN_OF_ETCD);
}

struct Run<'a> {
    cluster: &'a mut Cluster,
    clients: &'a Clients,
    nemesis: &'a mut Nemesis,
    random: StdRng,
}

impl Run<'_> {
    fn make(&mut self, change: Change, whom: Whom) {
        self.clients.wait_for_more(REVISIONS);
        let from = self.clients.now();
        let victims = self.nemesis.victims(self.cluster, whom);
        let deed = match change {
            Change::Replace => {
                self.cluster.kill(victims[0]);
                self.clients.wait_for_more(REVISIONS);
                self.remove(victims[0]);
                self.join(victims[0])
            }
            Change::Remove => {
                let told = |cluster: &Cluster| cluster.log(victims[0]).matches(REMOVED).count();
                let before = told(self.cluster);
                self.remove(victims[0]);
                self.cluster.wait_for_end(victims[0], PATIENCE);
                assert!(told(self.cluster) > before, "it says why it ends: {}", self.cluster.log(victims[0]));
                self.clients.wait_for_more(REVISIONS);
                self.join(victims[0])
            }
            Change::MoveLeader => self.move_leader(victims[0]),
            Change::Restart => self.restart(&victims),
        };
        self.cluster.wait_until_ready();
        self.done(deed, whom, victims, from);
    }

    fn done(&mut self, deed: &'static str, whom: Whom, victims: Vec<usize>, from: Moment) {
        self.nemesis.faults.push(Fault { deed, whom, victims, from, until: self.clients.now() });
        self.nemesis.look_for_the_fallen(self.cluster);
    }

    /// Asks the members but `spared` in turn until `done` is told by one.
    fn until<T>(&self, spared: usize, what: &str, mut done: impl FnMut(&Api) -> Option<T>) -> T {
        let apis: Vec<Api> = (0..self.cluster.len())
            .filter(|&member| member != spared)
            .map(|member| self.cluster.api(member))
            .collect();
        wait::within(PATIENCE, what, || apis.iter().find_map(&mut done))
    }

    fn remove(&self, victim: usize) {
        let url = self.cluster.peer_url(victim);
        self.until(victim, "the member is removed", |api| {
            let Some(member) = listed(api, &url).ok()? else { return Some(()) };
            let request = MemberRemoveRequest { id: member.id };
            api.wait(api.cluster().member_remove(request)).ok().map(drop)
        });
    }

    /// Has a new member take a removed one's place, at times as a learner first.
    fn join(&mut self, place: usize) -> &'static str {
        let (url, is_learner) = (self.cluster.peer_url(place), self.random.random());
        self.until(place, "the new member is added", |api| match listed(api, &url).ok()? {
            Some(_) => Some(()),
            None => {
                let request = MemberAddRequest { peer_ur_ls: vec![url.clone()], is_learner };
                api.wait(api.cluster().member_add(request)).ok().map(drop)
            }
        });
        self.cluster.join(place);
        if !is_learner {
            return "replaced";
        }
        self.clients.wait_for_more(REVISIONS);
        self.until(place, "the learner is promoted", |api| {
            let member = listed(api, &url).ok()??;
            if !member.is_learner {
                return Some(());
            }
            let request = MemberPromoteRequest { id: member.id };
            api.wait(api.cluster().member_promote(request)).ok().map(drop)
        });
        "replaced by a learner"
    }

    fn move_leader(&mut self, leader: usize) -> &'static str {
        let target = (leader + self.random.random_range(1..self.cluster.len())) % self.cluster.len();
        let id =
            wait::until("the target tells its id", || Some(self.cluster.status(target)?.header?.member_id));
        let api = self.cluster.api(leader);
        let moved = api.wait(api.maintenance().move_leader(MoveLeaderRequest { target_id: id }));
        // It may have been deposed meanwhile, or the target be behind; never both leaders.
        if moved.is_ok() {
            wait::until_true("the other one leads", || {
                self.cluster.leader().is_some_and(|now| now != leader)
            });
        }
        "moved leader"
    }

    fn restart(&mut self, members: &[usize]) -> &'static str {
        for &member in members {
            let status = self.cluster.stop(member).expect("it ran");
            // etcd raises the signal again.
            assert!(status.success() || status.signal() == Some(15), "{status}");
            self.cluster.launch(member);
            self.cluster.wait_until_ready();
            self.clients.wait_for_more(REVISIONS);
        }
        "rolling restart"
    }
}

/// The member that others reach at `url`, as `api` lists it.
fn listed(api: &Api, url: &String) -> Answer<Option<Member>> {
    let list = api.wait(api.cluster().member_list(MemberListRequest { linearizable: true }))?;
    Ok(list.into_inner().members.into_iter().find(|member| member.peer_ur_ls.contains(url)))
}
