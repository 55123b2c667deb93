//! When revisions were made, as far as one mount can know: the one source of every mtime.
//!
//! The etcd API has no times, so the table notes when this mount first heard of a revision. What it answers for a
//! revision never depends on which key asks, rises strictly with the revision, and stays: a revision's time is
//! that of the last sample at or before it plus one nanosecond for each revision since. What was there before the
//! mount lies before its first sample, a millisecond for each revision.

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
}

impl Times {
    /// Takes note that `revision` exists at `now`.
    pub fn note(&self, revision: Revision, now: SystemTime) {
        let nanos = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
        let mut heard = self.heard.lock();
        if revision.0 <= heard.head {
            return;
        }
        heard.head = revision.0;
        match heard.samples.last() {
            Some(last) if nanos <= last.answer(revision.0) + RESOLUTION_NANOS => {}
            _ => heard.samples.push(Sample { revision: revision.0, nanos }),
        }
        if heard.samples.len() > SAMPLES_MAX {
            let mut at = 0;
            heard.samples.retain(|_| {
                at += 1;
                at > SAMPLES_MAX / 2 || at % 2 == 1
            });
        }
    }

    /// The newest revision heard of.
    pub fn newest(&self) -> Revision {
        Revision(self.heard.lock().head)
    }

    /// When a revision was made, were the next one made at `now`.
    pub fn time_of_next(&self, now: SystemTime) -> SystemTime {
        let nanos = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
        let heard = self.heard.lock();
        let earliest = heard.samples.last().map(|last| last.answer(heard.head + 1));
        let nanos = earliest.filter(|&earliest| nanos <= earliest + RESOLUTION_NANOS).unwrap_or(nanos);
        UNIX_EPOCH + Duration::from_nanos(nanos)
    }

    /// When `revision` was made, if it exists at `now`.
    pub fn time_of(&self, revision: Revision, now: SystemTime) -> SystemTime {
        self.note(revision, now);
        let samples = &self.heard.lock().samples;
        let next = samples.partition_point(|sample| sample.revision <= revision.0);
        let nanos = match next.checked_sub(1) {
            Some(at) => samples[at].answer(revision.0),
            None => {
                let first = samples.first().expect("note has put one");
                let step = BEFORE_STEP_NANOS.min(first.nanos / first.revision.unsigned_abs().max(1));
                first.nanos.saturating_sub(step.saturating_mul(first.revision.abs_diff(revision.0)))
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

    proptest! {
        /// Times rise with revisions
        #[test]
        fn times_rise_with_revisions_and_stay(
            steps in prop::collection::vec((0i64..5, 0u64..40, 1i64..100), 1..60)
        ) {
            let times = Times::default();
            let (mut head, mut now) = (50, 0);
            let mut told = std::collections::BTreeMap::new();
            for (revisions, millis, ask) in steps {
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
