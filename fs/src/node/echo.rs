//! Which changes inotify's listeners are still to hear of: a queue, and the question whose change it was.
//!
//! The kernel tells listeners what happens through the mount; what others change it has to be shown, by an
//! operation that repeats the change (`crate::echo`). So each event of the watch becomes a note, unless nobody can
//! be listening: an inotify watch holds an inode, so a directory or file that the kernel holds no lookup of has
//! none. This mount's own changes make no notes, since the kernel has told of them; which revisions are its own is
//! known when their answers are there, which may be after their events, so that a note waits for the answers of
//! the changes of the same key under way.
//!
//! Notes of one key become one job, in the order in which things happened to it. Nothing waits for this queue.

use std::collections::{BTreeSet, HashMap, VecDeque};

use bytes::Bytes;

use super::NodeId;
use crate::config::Inotify;

/// Jobs that may wait. Past this, notes are dropped and counted: no listener keeps up with that, and the kernel's
/// own queue for one is far shorter.
const JOBS_MAX: usize = 100_000;

/// What may wait to be told of one key. Past this a file that came and went is not told.
const STEPS_MAX: usize = 8;

/// What is to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Job {
    /// Of a key as a file, in this order.
    File { key: Bytes, steps: Vec<FileStep> },
    /// Of a directory, by its key prefix.
    Dir { prefix: Bytes, steps: Vec<DirStep> },
    /// Of a link of the root, by the bare component that it shows: it may have come or gone at the revision.
    Link { component: Bytes, rev: i64 },
    /// One key's value went to another in one revision. `same` where the values are known to be equal or not.
    Move { from: Bytes, to: Bytes, rev: i64, same: Option<bool> },
    /// An inode is open, and must be held to be told of later changes.
    Hold { key: Bytes, id: NodeId },
    /// It is open no more.
    LetGo(NodeId),
}

/// What happened to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileStep {
    Created,
    Modified,
    Deleted,
    /// By this mount, through this inode: older inodes' listeners have not heard of it.
    Own(Option<NodeId>),
}

/// What may have happened to a directory, at a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DirStep {
    /// It has a key or a record; `sure` if it had none before.
    Made { rev: i64, sure: bool },
    /// It has lost one, perhaps the last.
    Lost { rev: i64 },
}

/// What one event says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Note {
    Put { key: Bytes, first: bool, bytes: Bytes },
    Deleted { key: Bytes, bytes: Option<Bytes> },
    Dir { prefix: Bytes, step: DirStep },
    Link { component: Bytes },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Subject {
    File(Bytes),
    Dir(Bytes),
    Link(Bytes),
    Move(Bytes, Bytes),
    Hold(NodeId),
    LetGo(NodeId),
}

/// A change of this mount under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Flight(u64);

/// One revision's notes, until it is known whose it is.
#[derive(Debug)]
struct Revision {
    rev: i64,
    notes: Vec<Note>,
    /// Changes under way that it may be the outcome of.
    waits: Vec<Flight>,
}

/// The queue.
#[derive(Debug)]
pub(crate) struct Echoes {
    pub(super) inotify: Inotify,
    /// Inodes can't be reached by handle: those that are open are held.
    pub(super) holds: bool,
    noting: Option<Revision>,
    parked: Vec<Revision>,
    flights: HashMap<Flight, Vec<Bytes>>,
    next_flight: u64,
    /// Revisions of this mount that the watch has not brought yet.
    own: BTreeSet<i64>,
    seen: i64,
    jobs: HashMap<Subject, Job>,
    order: VecDeque<Subject>,
    dropped: u64,
}

impl Echoes {
    pub(super) fn new(inotify: Inotify) -> Self {
        Self {
            inotify,
            holds: false,
            noting: None,
            parked: Vec::new(),
            flights: HashMap::new(),
            next_flight: 0,
            own: BTreeSet::new(),
            seen: 0,
            jobs: HashMap::new(),
            order: VecDeque::new(),
            dropped: 0,
        }
    }

    /// Nothing is told any more.
    pub(super) fn turn_off(&mut self) {
        *self = Self::new(Inotify::Off);
    }

    pub(super) fn is_on(&self) -> bool {
        self.inotify != Inotify::Off
    }

    /// A change of these keys is sent.
    pub(super) fn begin_flight(&mut self, keys: Vec<Bytes>) -> Flight {
        self.next_flight += 1;
        let flight = Flight(self.next_flight);
        if self.is_on() {
            self.flights.insert(flight, keys);
        }
        flight
    }

    /// It is answered, with the revision that it made; or given up.
    pub(super) fn end_flight(
        &mut self,
        flight: Flight,
        made: Option<i64>,
        own_steps: impl Fn(&Bytes) -> Option<FileStep>,
    ) {
        if self.flights.remove(&flight).is_none() {
            return;
        }
        if let Some(made) = made.filter(|&made| made > self.seen) {
            self.own.insert(made);
        }
        let mut parked = std::mem::take(&mut self.parked);
        parked.retain_mut(|revision| {
            if made == Some(revision.rev) {
                self.own_revision(std::mem::take(&mut revision.notes), &own_steps);
                return false;
            }
            revision.waits.retain(|&other| other != flight);
            if revision.waits.is_empty() {
                self.told(revision.rev, std::mem::take(&mut revision.notes));
                return false;
            }
            true
        });
        self.parked = parked;
    }

    /// An event of `key` at `rev` is being taken in.
    pub(super) fn note(&mut self, key: &Bytes, rev: i64, note: Note) {
        let revision =
            self.noting.get_or_insert_with(|| Revision { rev, notes: Vec::new(), waits: Vec::new() });
        for (&flight, keys) in &self.flights {
            if keys.contains(key) && !revision.waits.contains(&flight) {
                revision.waits.push(flight);
            }
        }
        revision.notes.push(note);
    }

    /// Everything up to `rev` has been taken in.
    pub(super) fn saw(&mut self, rev: i64, own_steps: impl Fn(&Bytes) -> Option<FileStep>) {
        self.seen = self.seen.max(rev);
        if let Some(revision) = self.noting.take() {
            if self.own.contains(&revision.rev) {
                self.own_revision(revision.notes, &own_steps);
            } else if revision.waits.is_empty() {
                self.told(revision.rev, revision.notes);
            } else {
                self.parked.push(revision);
            }
        }
        self.own = self.own.split_off(&(rev + 1));
    }

    fn own_revision(&mut self, notes: Vec<Note>, own_steps: &impl Fn(&Bytes) -> Option<FileStep>) {
        for note in notes {
            if let Note::Put { key, .. } | Note::Deleted { key, .. } = note
                && let Some(step) = own_steps(&key)
            {
                self.file(key, step);
            }
        }
    }

    /// Somebody else's revision: directories come before what they hold, and go after it, inner ones first.
    fn told(&mut self, rev: i64, notes: Vec<Note>) {
        let mut lost: Vec<Bytes> = Vec::new();
        let mut files = Vec::new();
        for note in notes {
            match note {
                Note::Dir { prefix, step: DirStep::Lost { .. } } => {
                    if !lost.contains(&prefix) {
                        lost.push(prefix);
                    }
                }
                Note::Dir { prefix, step } => self.dir(prefix, step),
                note => files.push(note),
            }
        }
        if let Some((from, to, same)) = moved(&files)
            && !self.jobs.contains_key(&Subject::File(from.clone()))
            && !self.jobs.contains_key(&Subject::File(to.clone()))
        {
            let subject = Subject::Move(from.clone(), to.clone());
            self.push(subject, || Job::Move { from, to, rev, same });
            files.retain(|note| matches!(note, Note::Link { .. }));
        }
        for note in files {
            match note {
                Note::Put { key, first, .. } => {
                    self.file(key, if first { FileStep::Created } else { FileStep::Modified });
                }
                Note::Deleted { key, .. } => self.file(key, FileStep::Deleted),
                Note::Link { component } => {
                    self.push(Subject::Link(component.clone()), || Job::Link { component, rev });
                }
                Note::Dir { .. } => {}
            }
        }
        lost.sort_by_key(|prefix| std::cmp::Reverse(prefix.len()));
        for prefix in lost {
            self.dir(prefix, DirStep::Lost { rev });
        }
    }

    fn push(&mut self, subject: Subject, job: impl FnOnce() -> Job) -> Option<&mut Job> {
        if !self.jobs.contains_key(&subject) {
            if self.jobs.len() >= JOBS_MAX {
                self.dropped += 1;
                return None;
            }
            self.order.push_back(subject.clone());
        }
        Some(self.jobs.entry(subject).or_insert_with(job))
    }

    pub(super) fn file(&mut self, key: Bytes, step: FileStep) {
        let job = self.push(Subject::File(key.clone()), || Job::File { key, steps: Vec::new() });
        if let Some(Job::File { steps, .. }) = job {
            add(steps, step);
        }
    }

    fn dir(&mut self, prefix: Bytes, step: DirStep) {
        let job = self.push(Subject::Dir(prefix.clone()), || Job::Dir { prefix, steps: Vec::new() });
        if let Some(Job::Dir { steps, .. }) = job {
            match (steps.last(), step) {
                (Some(DirStep::Lost { .. }), DirStep::Lost { .. }) => {
                    steps.pop();
                    steps.push(step);
                }
                _ if steps.len() < STEPS_MAX => steps.push(step),
                _ => {}
            }
        }
    }

    pub(super) fn opened(&mut self, key: &[u8], id: NodeId) {
        if self.holds {
            self.push(Subject::Hold(id), || Job::Hold { key: Bytes::copy_from_slice(key), id });
        }
    }

    pub(super) fn closed(&mut self, id: NodeId) {
        if self.holds {
            self.push(Subject::LetGo(id), || Job::LetGo(id));
        }
    }

    pub(super) fn is_due(&self) -> bool {
        !self.order.is_empty()
    }

    /// Jobs that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.order.len()
    }

    /// The next jobs, oldest first.
    pub(super) fn take(&mut self, most: usize) -> Vec<Job> {
        let count = self.order.len().min(most);
        self.order.drain(..count).filter_map(|subject| self.jobs.remove(&subject)).collect()
    }

    /// Notes that found no room, since it was last asked.
    pub(super) fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }
}

/// True of one revision that takes one file away and puts one: how a rename looks.
fn moved(notes: &[Note]) -> Option<(Bytes, Bytes, Option<bool>)> {
    let mut puts = notes.iter().filter_map(|note| match note {
        Note::Put { key, bytes, .. } => Some((key, bytes)),
        _ => None,
    });
    let mut deletes = notes.iter().filter_map(|note| match note {
        Note::Deleted { key, bytes } => Some((key, bytes)),
        _ => None,
    });
    let ((to, new), (from, old)) = (puts.next()?, deletes.next()?);
    if puts.next().is_some() || deletes.next().is_some() {
        return None;
    }
    let same = old.as_ref().map(|old| old == new);
    (same != Some(false)).then(|| (from.clone(), to.clone(), same))
}

fn add(steps: &mut Vec<FileStep>, step: FileStep) {
    use FileStep::{Created, Deleted, Modified, Own};
    match (steps.last(), step) {
        (Some(Created | Modified), Modified | Own(_)) | (Some(Deleted), Deleted) => {}
        (Some(Modified | Own(_)), Deleted | Modified) | (Some(Own(_)), Own(_)) => {
            steps.pop();
            add(steps, step);
        }
        _ => steps.push(step),
    }
    if steps.len() > STEPS_MAX
        && let Some(at) = steps.windows(2).position(|pair| pair == [Created, Deleted])
    {
        steps.drain(at..at + 2);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(name: &str) -> Bytes {
        Bytes::copy_from_slice(name.as_bytes())
    }

    fn put(name: &str, first: bool) -> Note {
        Note::Put { key: key(name), first, bytes: key(name) }
    }

    fn gone(name: &str) -> Note {
        Note::Deleted { key: key(name), bytes: None }
    }

    fn nothing(_: &Bytes) -> Option<FileStep> {
        None
    }

    fn event(echoes: &mut Echoes, rev: i64, name: &str, note: Note) {
        echoes.note(&key(name), rev, note);
        echoes.saw(rev, nothing);
    }

    fn steps(echoes: &mut Echoes) -> Vec<(Bytes, Vec<FileStep>)> {
        let jobs = echoes.take(usize::MAX).into_iter();
        jobs.map(|job| match job {
            Job::File { key, steps } => (key, steps),
            other => panic!("{other:?}"),
        })
        .collect()
    }

    /// This mount's own changes are heard once
    #[test]
    fn an_own_change_is_no_job_whichever_comes_first_its_answer_or_its_event() {
        let mut echoes = Echoes::new(Inotify::Auto);
        let flight = echoes.begin_flight(vec![key("a")]);
        echoes.end_flight(flight, Some(5), nothing);
        event(&mut echoes, 5, "a", put("a", true));
        let flight = echoes.begin_flight(vec![key("a")]);
        event(&mut echoes, 6, "a", put("a", false));
        assert!(!echoes.is_due(), "whose it is can't be known yet");
        echoes.end_flight(flight, Some(6), nothing);
        assert!(!echoes.is_due());
        // The other client's change of the same key that came between is told.
        let flight = echoes.begin_flight(vec![key("a")]);
        event(&mut echoes, 7, "a", put("a", false));
        event(&mut echoes, 8, "b", put("b", false));
        assert_eq!(steps(&mut echoes), [(key("b"), vec![FileStep::Modified])], "another key does not wait");
        echoes.end_flight(flight, Some(9), nothing);
        assert_eq!(steps(&mut echoes), [(key("a"), vec![FileStep::Modified])]);
        event(&mut echoes, 9, "a", put("a", false));
        assert!(!echoes.is_due());
        // One that was given up half-way counts as somebody else's.
        let flight = echoes.begin_flight(vec![key("a")]);
        event(&mut echoes, 10, "a", put("a", false));
        echoes.end_flight(flight, None, nothing);
        assert!(echoes.is_due());
    }

    #[test]
    fn a_revision_that_takes_one_key_and_puts_the_same_elsewhere_is_a_rename() {
        let mut echoes = Echoes::new(Inotify::Auto);
        let old = Note::Deleted { key: key("a"), bytes: Some(key("v")) };
        let new = |bytes| Note::Put { key: key("b"), first: true, bytes };
        echoes.note(&key("a"), 3, old.clone());
        echoes.note(&key("b"), 3, new(key("v")));
        echoes.saw(3, nothing);
        let moved = Job::Move { from: key("a"), to: key("b"), rev: 3, same: Some(true) };
        assert_eq!(echoes.take(9), [moved]);
        echoes.note(&key("a"), 4, old);
        echoes.note(&key("b"), 4, new(key("other")));
        echoes.saw(4, nothing);
        let apart = [(key("a"), vec![FileStep::Deleted]), (key("b"), vec![FileStep::Created])];
        assert_eq!(steps(&mut echoes), apart);
    }

    #[test]
    fn directories_come_before_what_they_hold_and_go_after_it() {
        let mut echoes = Echoes::new(Inotify::Auto);
        let dir = |prefix: &str, step| Note::Dir { prefix: key(prefix), step };
        let lost = DirStep::Lost { rev: 2 };
        for note in [dir("/a/", lost), dir("/a/b/", lost), gone("/a/b/x"), dir("/a/", lost), gone("/a/y")] {
            echoes.note(&key("/a"), 2, note);
        }
        echoes.saw(2, nothing);
        let order: Vec<Bytes> = echoes
            .take(9)
            .into_iter()
            .map(|job| match job {
                Job::File { key, .. } => key,
                Job::Dir { prefix, .. } => prefix,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(order, ["/a/b/x", "/a/y", "/a/b/", "/a/"]);
    }

    proptest! {
        /// However long a key's changes wait, what is told ends as the key does, stays short, and never tells of a
        /// file that is there that it was made, or of one that is not that it changed.
        #[test]
        fn what_waits_for_one_key_is_a_history_that_can_be(
            exists in any::<bool>(),
            choices in prop::collection::vec(0..3u8, 1..60),
        ) {
            let mut echoes = Echoes::new(Inotify::Auto);
            let mut there = exists;
            for (rev, choice) in (2..).zip(&choices) {
                let note = match (there, choice) {
                    (true, 0) => { there = false; gone("k") }
                    (true, _) => put("k", false),
                    (false, _) => { there = true; put("k", true) }
                };
                event(&mut echoes, rev, "k", note);
            }
            let told = steps(&mut echoes).pop().map(|(_, steps)| steps).unwrap_or_default();
            prop_assert!(!told.is_empty() && told.len() <= STEPS_MAX + 1, "{:?}", told);
            let mut shown = exists;
            for step in &told {
                match step {
                    FileStep::Created => { prop_assert!(!shown); shown = true; }
                    FileStep::Modified => prop_assert!(shown),
                    FileStep::Deleted => { prop_assert!(shown); shown = false; }
                    FileStep::Own(_) => prop_assert!(false, "nothing of our own"),
                }
            }
            prop_assert_eq!(shown, there);
        }
    }

    #[test]
    fn a_queue_that_nobody_empties_stays_bounded() {
        let mut echoes = Echoes::new(Inotify::Auto);
        for rev in 0..JOBS_MAX as i64 + 10 {
            let name = rev.to_string();
            event(&mut echoes, rev + 2, &name, put(&name, true));
        }
        assert_eq!((echoes.waiting(), echoes.take_dropped(), echoes.take_dropped()), (JOBS_MAX, 10, 0));
    }
}
