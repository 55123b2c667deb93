//! When revisions were made, as far as one mount can know: the one source of every mtime.
//!
//! The etcd API has no times, so the table notes when this mount first heard of a revision. What it answers for a
//! revision never depends on which key asks, rises strictly with the revision, and stays: a revision's time is
//! that of the last sample at or before it plus one nanosecond for each revision since.
//!
//! What was there before the mount has the times that the server tells ([`Times::learn`]), if it was made before the
//! mount heard of it by the mount's own clock too. Where the server tells none, it lies before the first sample, a
//! millisecond for each revision, as far as what was told of later ones allows. A mount that has once told such a time
//! with none from the server stays with its own: what they would be between is not known.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use super::Revision;

/// A new sample is taken only where the last one's answer would be wrong by more than this.
const RESOLUTION_NANOS: u64 = 10_000_000;

/// Before the first sample, revisions lie so far apart.
const BEFORE_STEP_NANOS: u64 = 1_000_000;

/// Samples kept: 16 MiB, or three hours of changes without a pause. Past it, every second one of the older half
/// goes, which makes times in it earlier by up to a sample's distance.
const SAMPLES_MAX: usize = 1 << 20;

/// Times kept of revisions before the first sample: some 24 MiB. Past it, every second one of the older half goes, and
/// lies close before the next.
const OLDER_MAX: usize = 1 << 20;

/// Revision -> time, for one mount.
#[derive(Debug, Default)]
pub struct Times {
    heard: Mutex<Heard>,
}

#[derive(Debug, Default)]
struct Heard {
    /// Newest revision heard of; its time may have been told, so it gets no sample any more.
    head: i64,
    /// Sorted by both.
    samples: Vec<Sample>,
    /// What was told, or is to be told, of revisions up to the first sample's; rises by a nanosecond for each revision
    /// at least.
    older: BTreeMap<i64, u64>,
    /// The server's times are not asked for any more.
    is_own: bool,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    revision: i64,
    nanos: u64,
}

impl Sample {
    fn answer(self, revision: i64) -> u64 {
        self.nanos.saturating_add(revision.abs_diff(self.revision))
    }

    /// Of a revision that was there before, as the first one.
    fn answer_before(self, revision: i64) -> u64 {
        let step = BEFORE_STEP_NANOS.min(self.nanos / self.revision.unsigned_abs().max(1));
        self.nanos.saturating_sub(step.saturating_mul(self.revision.abs_diff(revision)))
    }
}

impl Heard {
    fn note(&mut self, revision: Revision, nanos: u64) {
        if revision.0 <= self.head {
            return;
        }
        self.head = revision.0;
        match self.samples.last() {
            Some(last) if nanos <= last.answer(revision.0) + RESOLUTION_NANOS => {}
            _ => self.samples.push(Sample { revision: revision.0, nanos }),
        }
        if self.samples.len() > SAMPLES_MAX {
            let mut keep = thinning(self.samples.len());
            self.samples.retain(|_| keep());
        }
    }

    /// Settles the time of a revision before the first sample, or of its own.
    fn settle(&mut self, revision: i64, nanos: u64) -> u64 {
        let first = self.samples.first().expect("a revision was heard of");
        let (next, latest) = self
            .older
            .range(revision..)
            .next()
            .map_or((first.revision, first.nanos), |(&at, &nanos)| (at, nanos));
        let latest = latest.saturating_sub(next.abs_diff(revision));
        let before = self.older.range(..revision).next_back();
        let earliest = before.map_or(0, |(at, nanos)| nanos.saturating_add(at.abs_diff(revision)));
        let nanos = nanos.max(earliest).min(latest);
        self.older.insert(revision, nanos);
        if self.older.len() > OLDER_MAX {
            let mut keep = thinning(self.older.len());
            self.older.retain(|_, _| keep());
        }
        nanos
    }
}

/// Says of each one whether it stays: every second one of the older half goes.
fn thinning(count: usize) -> impl FnMut() -> bool {
    let mut at = 0;
    move || {
        at += 1;
        at > count / 2 || at % 2 == 1
    }
}

fn nanos(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

impl Times {
    /// Takes note that `revision` exists at `now`.
    pub fn note(&self, revision: Revision, now: SystemTime) {
        self.heard.lock().note(revision, nanos(now));
    }

    /// Of these revisions, and the newest that there was when the mount began, those whose time the server may know
    /// and has not been asked for.
    pub fn unknown(&self, revisions: impl IntoIterator<Item = Revision>) -> Vec<i64> {
        let heard = self.heard.lock();
        let Some(first) = heard.samples.first().filter(|_| !heard.is_own) else { return Vec::new() };
        // The store begins with revision 1, which nobody made.
        let asked =
            |revision: &i64| (2..=first.revision).contains(revision) && !heard.older.contains_key(revision);
        let revisions = revisions.into_iter().map(|revision| revision.0).chain([first.revision]);
        let mut unknown: Vec<i64> = revisions.filter(asked).collect();
        unknown.sort_unstable();
        unknown.dedup();
        unknown
    }

    /// True for a revision that was there when the mount began.
    pub fn is_past(&self, revision: Revision) -> bool {
        self.heard.lock().samples.first().is_some_and(|first| revision.0 <= first.revision)
    }

    /// Takes what the server knows of revisions, in nanoseconds since 1970; `None` for one whose time it will never know.
    pub fn learn(&self, told: impl IntoIterator<Item = (i64, Option<u64>)>) {
        let mut heard = self.heard.lock();
        if heard.is_own {
            return;
        }
        let Some(first) = heard.samples.first().copied() else { return };
        for (revision, nanos) in told {
            if revision <= first.revision && !heard.older.contains_key(&revision) {
                heard.settle(revision, nanos.unwrap_or_else(|| first.answer_before(revision)));
            }
        }
    }

    /// The server tells no times: they are this mount's own.
    pub fn be_own(&self) {
        self.heard.lock().is_own = true;
    }

    /// The newest revision heard of.
    pub fn newest(&self) -> Revision {
        Revision(self.heard.lock().head)
    }

    /// When a revision was made, were the next one made at `now`.
    pub fn time_of_next(&self, now: SystemTime) -> SystemTime {
        let nanos = nanos(now);
        let heard = self.heard.lock();
        let earliest = heard.samples.last().map(|last| last.answer(heard.head + 1));
        let nanos = earliest.filter(|&earliest| nanos <= earliest + RESOLUTION_NANOS).unwrap_or(nanos);
        UNIX_EPOCH + Duration::from_nanos(nanos)
    }

    /// When `revision` was made, if it exists at `now`.
    pub fn time_of(&self, revision: Revision, now: SystemTime) -> SystemTime {
        let mut heard = self.heard.lock();
        heard.note(revision, nanos(now));
        let next = heard.samples.partition_point(|sample| sample.revision <= revision.0);
        let first = *heard.samples.first().expect("note has put one");
        let nanos = match heard.older.get(&revision.0) {
            Some(&nanos) => nanos,
            // The first sample's own may have come from the server.
            None if revision > Revision(first.revision) => heard.samples[next - 1].answer(revision.0),
            None => {
                let nanos = first.answer_before(revision.0);
                heard.is_own |= heard.older.is_empty();
                if heard.is_own && heard.older.is_empty() { nanos } else { heard.settle(revision.0, nanos) }
            }
        };
        UNIX_EPOCH + Duration::from_nanos(nanos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(millis: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(1_700_000_000_000 + millis)
    }

    #[test]
    fn a_revision_has_the_time_at_which_it_was_heard_of() {
        let times = Times::default();
        times.note(Revision(10), at(0));
        times.note(Revision(11), at(5000));
        assert_eq!(times.time_of(Revision(10), at(9000)), at(0));
        assert_eq!(times.time_of(Revision(11), at(9000)), at(5000));
        assert_eq!(times.time_of(Revision(7), at(9000)), at(0) - Duration::from_millis(3));
        assert_eq!(times.time_of(Revision(12), at(9000)), at(9000));
    }

    #[test]
    fn what_is_not_saved_yet_is_newer_than_all_that_is_and_no_newer_than_its_revision() {
        let times = Times::default();
        assert_eq!(times.time_of_next(at(0)), at(0));
        times.note(Revision(10), at(0));
        for (millis, head) in [(0, 11), (3, 12), (5000, 13), (5001, 20)] {
            let saved = times.time_of(Revision(head - 1), at(millis));
            let unsaved = times.time_of_next(at(millis));
            assert!(saved < unsaved && unsaved <= times.time_of(Revision(head), at(millis)));
        }
    }

    #[test]
    fn what_was_there_before_the_mount_has_the_times_that_the_server_tells() {
        let times = Times::default();
        let nanos = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
        assert!(times.unknown([Revision(3)]).is_empty(), "nothing is heard of yet");
        times.note(Revision(10), at(9000));
        let asked = [3, 7, 3, 11, 1, 0].map(Revision);
        assert_eq!(times.unknown(asked), [3, 7, 10]);
        // A server's clock that is ahead: what exists was made.
        times.learn(
            [(3, 10), (7, 20), (10, 60_000)].map(|(revision, millis)| (revision, Some(nanos(at(millis))))),
        );
        assert!(times.unknown(asked).is_empty());
        let told = [3, 7, 10].map(|revision| times.time_of(Revision(revision), at(9500)));
        assert_eq!(told, [at(10), at(20), at(9000)]);
        // One that the server did not tell lies between those that it did.
        let between = times.time_of(Revision(5), at(9500));
        assert!(at(10) < between && between < at(20));
        times.learn([(5, Some(nanos(at(15))))]);
        assert_eq!(times.time_of(Revision(5), at(9500)), between, "a time told stays");
        assert!(times.time_of(Revision(11), at(9500)) > at(9000));
    }

    #[test]
    fn a_mount_that_has_told_a_time_of_its_own_stays_with_those() {
        let (asked, plain) = (Times::default(), Times::default());
        for times in [&asked, &plain] {
            times.note(Revision(10), at(9000));
            times.time_of(Revision(4), at(9000));
        }
        assert!(asked.unknown([Revision(5)]).is_empty());
        asked.learn([(5, Some(1))]);
        for revision in 2..12 {
            let [one, other] = [&asked, &plain].map(|times| times.time_of(Revision(revision), at(9500)));
            assert_eq!(one, other);
        }
    }

    proptest! {
        /// Times rise with revisions
        #[test]
        fn times_rise_with_revisions_and_stay(
            steps in prop::collection::vec((0i64..5, 0u64..40, 1i64..100), 1..60),
            server in prop::collection::vec((1i64..60, 0u64..3000), 0..40),
            knows in 0usize..40,
        ) {
            let times = Times::default();
            let (mut head, mut now) = (50, 0);
            let mut told = BTreeMap::new();
            // What the server tells rises too; it may not know all, and its clock may be far off.
            let mut of_server = server.clone();
            of_server.sort_by_key(|&(revision, _)| revision);
            let mut millis: Vec<u64> = server.iter().map(|&(_, millis)| millis).collect();
            millis.sort_unstable();
            let made = |millis| at(millis).duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
            let of_server = of_server.into_iter().zip(millis);
            let mut of_server: Vec<_> =
                of_server.map(|((revision, _), millis)| (revision, made(millis) + revision as u64)).collect();
            of_server.rotate_left(knows.min(server.len()));
            for (revisions, millis, ask) in steps {
                if let Some((revision, nanos)) = of_server.pop() {
                    times.learn([(revision, (nanos % 5 > 0).then_some(nanos))]);
                }
                head += revisions;
                now += millis;
                times.note(Revision(head), at(now));
                let asked = ask.min(head);
                told.entry(asked).or_insert_with(|| times.time_of(Revision(asked), at(now)));
            }
            let again: Vec<_> = told.keys().map(|&rev| times.time_of(Revision(rev), at(now + 1000))).collect();
            prop_assert!(again.iter().eq(told.values()), "a time that was told has changed");
            prop_assert!(again.windows(2).all(|pair| pair[0] < pair[1]));
        }
    }
}
