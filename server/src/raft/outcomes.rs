//! Who waits for what, from when a batch is on its way until it is applied here.
//!
//! Whoever appends a batch, its proposer finds the outcome in its own state
//! machine: the batch names the process and a number. So a caller is answered
//! only once this member has applied the change, and what became of a batch is
//! known even if the leader that took it is gone.
//!
//! A batch is bound to the term of the leader that it is given to. Once an entry
//! of a later term is applied, a batch not seen until then never will be: every
//! leader from then on holds that entry, and no log has an entry of an earlier
//! term behind it. Then, or when the leader says that it did not take the batch,
//! its requests may go again; never while there is a doubt.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use etcfs_proto::etcfs::command::{Batch, Origin, Request};
use parking_lot::Mutex;

use super::{BatchResult, Outcome, SubmitError, types::Command};

/// Told what became of a batch. Called by the task that applies: it must be quick.
pub(super) type Done = Box<dyn FnOnce(BatchResult) + Send>;

/// The batches of this process that have no outcome yet; clones share them.
#[derive(Clone)]
pub(super) struct Outcomes {
    process: u64,
    next: Arc<AtomicU64>,
    // Never held while a `Done` is called: that may bring the next batch.
    waiting: Arc<Mutex<Waiting>>,
}

#[derive(Default)]
struct Waiting {
    batches: BTreeMap<u64, Pending>,
    /// Newest term of which an entry was applied.
    applied_term: u64,
    closed: bool,
}

struct Pending {
    term: u64,
    command: Command,
    done: Done,
}

impl Pending {
    fn not_appended(self) {
        (self.done)(Err(SubmitError::NotAppended(self.command.into_requests())));
    }
}

impl fmt::Debug for Outcomes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outcomes")
            .field("waiting", &self.waiting.lock().batches.len())
            .finish_non_exhaustive()
    }
}

impl Outcomes {
    pub(super) fn new() -> Self {
        Self { process: rand::random(), next: Arc::default(), waiting: Arc::default() }
    }

    /// Makes a command of `requests`, with the time if this member is to append it itself,
    /// to be appended in `term` or never, and has `done` told of it. `None`: the term is over, or this member is.
    pub(super) fn expect(
        &self,
        term: u64,
        requests: Vec<Request>,
        unix_ms: u64,
        done: Done,
    ) -> Option<(u64, Command)> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let origin = Some(Origin { process: self.process, number });
        let command = Command::new(Batch { requests, origin, unix_ms });
        let pending = Pending { term, command: command.clone(), done };
        let mut waiting = self.waiting.lock();
        if waiting.closed {
            return None;
        }
        if waiting.applied_term > term {
            drop((waiting, command));
            pending.not_appended();
            return None;
        }
        waiting.batches.insert(number, pending);
        Some((number, command))
    }

    /// An entry was applied. Answers who waits for it, and who waits for what can
    /// be no more.
    pub(super) fn applied(&self, term: u64, origin: Option<&Origin>, outcomes: Vec<Outcome>) {
        let own = origin.filter(|origin| origin.process == self.process).map(|origin| origin.number);
        let (answered, never) = {
            let mut waiting = self.waiting.lock();
            let answered = own.and_then(|number| waiting.batches.remove(&number));
            let mut never = Vec::new();
            if term > waiting.applied_term {
                waiting.applied_term = term;
                let over = waiting.batches.extract_if(.., |_, pending| pending.term < term);
                never.extend(over.map(|(_, pending)| pending));
            }
            (answered, never)
        };
        if let Some(pending) = answered {
            (pending.done)(Ok((outcomes, term)));
        }
        never.into_iter().for_each(Pending::not_appended);
    }

    /// The leader did not take the batch.
    pub(super) fn refused(&self, number: u64) {
        let pending = self.waiting.lock().batches.remove(&number);
        if let Some(pending) = pending {
            pending.not_appended();
        }
    }

    /// Nobody waits for the batch any more.
    pub(super) fn give_up(&self, number: u64) {
        let pending = self.waiting.lock().batches.remove(&number);
        if let Some(pending) = pending {
            (pending.done)(Err(SubmitError::Unknown));
        }
    }

    /// A snapshot took the place of entries that were never seen here one by one.
    pub(super) fn skipped(&self) {
        let unseen = std::mem::take(&mut self.waiting.lock().batches);
        unseen.into_values().for_each(|pending| (pending.done)(Err(SubmitError::Unknown)));
    }

    /// The member has ended: everyone is dropped, and nobody waits from here on.
    pub(super) fn close(&self) {
        let dropped = {
            let mut waiting = self.waiting.lock();
            waiting.closed = true;
            std::mem::take(&mut waiting.batches)
        };
        drop(dropped);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};

    use super::*;

    fn requests(count: usize) -> Vec<Request> {
        vec![Request::default(); count]
    }

    fn expect(outcomes: &Outcomes, term: u64) -> (Option<(u64, Command)>, Receiver<BatchResult>) {
        let (told, result) = channel();
        let done = Box::new(move |result| drop(told.send(result)));
        (outcomes.expect(term, requests(3), 0, done), result)
    }

    fn is_not_appended(result: BatchResult) -> bool {
        matches!(result, Err(SubmitError::NotAppended(requests)) if requests.len() == 3)
    }

    #[test]
    fn a_batch_is_answered_where_its_own_process_applies_it() {
        let (own, other) = (Outcomes::new(), Outcomes::new());
        let (command, result) = expect(&own, 1);
        let (_, command) = command.unwrap();
        let origin = command.batch().origin.as_ref();
        other.applied(1, origin, Vec::new());
        result.try_recv().unwrap_err();
        own.applied(1, origin, Vec::new());
        assert_eq!(result.recv().unwrap(), Ok((Vec::new(), 1)));
        own.applied(1, origin, Vec::new());
        result.recv().unwrap_err();
    }

    #[test]
    fn what_a_later_term_has_passed_never_comes() {
        let outcomes = Outcomes::new();
        let (_, of_1) = expect(&outcomes, 1);
        let (_, of_2) = expect(&outcomes, 2);
        outcomes.applied(1, None, Vec::new());
        of_1.try_recv().unwrap_err();
        outcomes.applied(2, None, Vec::new());
        assert!(is_not_appended(of_1.recv().unwrap()));
        of_2.try_recv().unwrap_err();
        let (late, of_1) = expect(&outcomes, 1);
        assert!(late.is_none() && is_not_appended(of_1.recv().unwrap()));
    }

    #[test]
    fn the_first_entry_of_a_later_term_may_itself_be_an_answer() {
        let outcomes = Outcomes::new();
        let (_, before) = expect(&outcomes, 4);
        let (command, own) = expect(&outcomes, 5);
        let origin = command.unwrap().1.batch().origin;
        outcomes.applied(5, origin.as_ref(), Vec::new());
        assert_eq!(own.recv().unwrap(), Ok((Vec::new(), 5)));
        assert!(is_not_appended(before.recv().unwrap()));
    }

    #[test]
    fn a_refused_batch_gives_its_requests_back_and_a_skipped_one_does_not() {
        let outcomes = Outcomes::new();
        let (command, refused) = expect(&outcomes, 1);
        outcomes.refused(command.unwrap().0);
        assert!(is_not_appended(refused.recv().unwrap()));
        let (_, skipped) = expect(&outcomes, 1);
        outcomes.skipped();
        assert_eq!(skipped.recv().unwrap(), Err(SubmitError::Unknown));
        let (command, doubtful) = expect(&outcomes, 1);
        outcomes.give_up(command.unwrap().0);
        assert_eq!(doubtful.recv().unwrap(), Err(SubmitError::Unknown));
    }

    #[test]
    fn the_end_drops_who_waits_and_who_comes() {
        let outcomes = Outcomes::new();
        let (_, waiting) = expect(&outcomes, 1);
        outcomes.close();
        waiting.recv().unwrap_err();
        let (late, result) = expect(&outcomes, 1);
        assert!(late.is_none());
        result.recv().unwrap_err();
    }
}
