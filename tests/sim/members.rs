//! A change of the cluster's members as an operator makes it: one step after
//! another, each asked for again and again until the cluster shows that it is made.

use std::time::Duration;

use etcfs_proto::etcfs::record::Member;
use etcfs_server::raft::{InitialMember, MemberChange};
use etcfs_tests::judge::Moment;

use crate::member::{name, peer_urls};

/// Pause before a step is asked for once more.
const ASK_EVERY: Duration = Duration::from_millis(300);

/// One that is under way: a place gets a member, whose predecessor there is removed first.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) place: usize,
    learner: bool,
    /// Who was here before: a member that has just started again may list it still.
    removed: Option<u64>,
    /// How long a removed member is left alone before its data is lost.
    grace: Duration,
    step: Step,
    ask_at: Moment,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// The member of this id must go.
    Remove(u64),
    /// It has gone.
    Clear {
        at: Moment,
    },
    Add,
    /// The new one must get its vote; a learner waits to be promoted.
    Raise(u64),
}

/// What the operator does next.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    Ask(MemberChange),
    /// Ends whatever runs there, with all its data.
    Clear,
    /// Starts a member, with these in its `--initial-cluster`.
    Start(Vec<InitialMember>),
    Done,
}

impl Change {
    /// A new member at a place that has none.
    pub(crate) fn grow(place: usize, learner: bool) -> Self {
        Self { place, learner, removed: None, grace: Duration::ZERO, step: Step::Add, ask_at: Duration::ZERO }
    }

    /// A new member in place of that with this id.
    pub(crate) fn replace(place: usize, id: u64, learner: bool, grace: Duration) -> Self {
        Self { removed: Some(id), grace, step: Step::Remove(id), ..Self::grow(place, learner) }
    }

    /// True while a member there may learn that it is removed.
    pub(crate) fn removes(&self, place: usize) -> bool {
        self.place == place && matches!(self.step, Step::Remove(_) | Step::Clear { .. })
    }

    /// What to do now, with a cluster of these members.
    pub(crate) fn next(
        &mut self,
        members: &[Member],
        is_voter: impl Fn(u64) -> bool,
        now: Moment,
    ) -> Option<Act> {
        let peer_urls = peer_urls(self.place);
        match self.step {
            Step::Remove(id) if members.iter().any(|member| member.id == id) => {
                self.ask(MemberChange::Remove { id }, now)
            }
            Step::Remove(_) => {
                self.step = Step::Clear { at: now + self.grace };
                None
            }
            Step::Clear { at } => (now >= at).then(|| {
                self.step = Step::Add;
                Act::Clear
            }),
            Step::Add => {
                match members.iter().find(|m| m.peer_urls == peer_urls && Some(m.id) != self.removed) {
                    None => self.ask(MemberChange::Add { peer_urls, learner: self.learner }, now),
                    Some(member) => {
                        self.step = Step::Raise(member.id);
                        Some(Act::Start(members.iter().map(|member| self.initial(member)).collect()))
                    }
                }
            }
            Step::Raise(id) => match members.iter().find(|member| member.id == id) {
                Some(member) if member.is_learner => self.ask(MemberChange::Promote { id }, now),
                _ => is_voter(id).then_some(Act::Done),
            },
        }
    }

    fn ask(&mut self, change: MemberChange, now: Moment) -> Option<Act> {
        (now >= self.ask_at).then(|| {
            self.ask_at = now + ASK_EVERY;
            Act::Ask(change)
        })
    }

    fn initial(&self, member: &Member) -> InitialMember {
        let peer_urls = member.peer_urls.clone();
        let name =
            if peer_urls == self::peer_urls(self.place) { name(self.place) } else { member.name.clone() };
        InitialMember { name, peer_urls }
    }
}
