//! What the judge finds: which rule a history breaks, where, and how much was judged.

use std::{collections::BTreeMap, fmt};

/// Violations that a failure prints at most.
const SHOWN_MAX: usize = 20;

/// What a store must keep to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// An acknowledged change is made, at the revision that was answered.
    AcknowledgedIsMade,
    /// A change that was asked for once is made once.
    MadeOnce,
    /// A change that was refused is not made.
    RefusedIsNotMade,
    /// Every change was asked for by somebody.
    NothingInvented,
    /// A revision is one change only.
    RevisionIsUnique,
    /// Every revision reaches the watchers.
    RevisionIsSeen,
    /// A change does what was asked, given the state before it.
    ChangeIsRight,
    /// The answer to a change tells what it did.
    AnswerIsRight,
    /// A read tells the state of the revision that it names.
    ReadIsRight,
    /// A call sees what was seen before it was made, and nothing from its future.
    RealTime,
    /// What is refused is what must be.
    RefusalIsRight,
    /// No event is left out between two others of a stream.
    EventIsDelivered,
    /// Nor the first one of a stream that begins at a compacted revision.
    EventAtCompactionIsDelivered,
    /// No event comes twice.
    EventIsDeliveredOnce,
    /// Events come in the order of their revisions, none from before the stream's start.
    EventsAreInOrder,
    /// An event tells what the revision changed, and what was there before.
    EventIsRight,
    /// The events of one revision come together.
    RevisionIsWhole,
    /// The header of a response is at least as new as its events.
    HeaderCoversEvents,
    /// Progress is told only of what has been delivered.
    ProgressIsTrue,
    /// A watch is cancelled only if what it needs is compacted.
    WatchGoesOn,
    /// Every watch comes to the end once all is quiet.
    WatchCatchesUp,
    /// A lease ends no earlier than its time to live after its last acknowledged renewal.
    LeaseLivesOn,
    /// What is told of a lease is so: its time, its keys, and that it is there.
    LeaseIsToldRight,
    /// A lease that nobody renews ends.
    LeaseEnds,
    /// An ended lease stays so, and leaves no keys.
    LeaseStaysEnded,
    /// All members hold the same in the end.
    MembersAgree,
    /// A member ends only when it is made to.
    MemberRuns,
}

/// One breach.
#[derive(Clone, Debug)]
pub struct Violation {
    pub rule: Rule,
    pub text: String,
}

/// What came of a trial.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    pub violations: Vec<Violation>,
    /// How many of each thing were judged.
    pub judged: BTreeMap<&'static str, u64>,
}

impl Verdict {
    pub(super) fn breach(&mut self, rule: Rule, text: impl Into<String>) {
        self.violations.push(Violation { rule, text: text.into() });
    }

    pub(super) fn count(&mut self, what: &'static str) {
        *self.judged.entry(what).or_default() += 1;
    }

    /// How often each rule was broken.
    pub fn breaches(&self) -> BTreeMap<Rule, u64> {
        let mut breaches = BTreeMap::new();
        for violation in &self.violations {
            *breaches.entry(violation.rule).or_default() += 1;
        }
        breaches
    }

    /// The verdict without the breaches of `rules`, and those.
    pub fn tolerating(self, rules: &[Rule]) -> (Self, Vec<Violation>) {
        let (tolerated, violations) = self.violations.into_iter().partition(|v| rules.contains(&v.rule));
        (Self { violations, judged: self.judged }, tolerated)
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.rule, self.text)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} violations {:?}; judged {:?}", self.violations.len(), self.breaches(), self.judged)?;
        self.violations.iter().take(SHOWN_MAX).try_for_each(|violation| write!(f, "\n  {violation}"))
    }
}
