//! Many callers, one log entry, one sync.
//!
//! Requests queue up while entries are in flight, and whoever frees a slot sends
//! what has queued as the next entry: the first caller itself when nothing is in
//! flight, and the thread that completes an entry after that. No task sits in
//! between, and nobody waits for a fuller batch.
//!
//! Without a leader, requests wait for one, as long as their callers do. What was
//! surely not appended waits again; what is in doubt is never sent twice.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use etcfs_proto::etcfs::command::Request;
use parking_lot::Mutex;
use prost::Message as _;
use tokio::{
    sync::oneshot,
    time::{self, Instant},
};

use super::{ProposeError, news::news};
use crate::raft::{BatchResult, Node, Response, SubmitError};

/// Requests in one entry.
const BATCH_REQUESTS_MAX: usize = 1024;
/// Bytes of requests in one entry, unless the first alone has more.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// Entries between submission and outcome. More than one, so that the next is
/// written while the last is applied; few, so that batches fill up under load.
const IN_FLIGHT_MAX: usize = 4;
/// Requests that may wait; one more is refused.
const WAITING_MAX: usize = 10_000;
const WAITING_BYTES_MAX: usize = 64 << 20;
/// Pause before requests that no leader took are sent again, unless one is found earlier.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

type Answer = Result<(Response, u64), ProposeError>;

/// Brings requests into the log; clones share the queue.
#[derive(Clone, Debug)]
pub struct Proposer {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    node: Node,
    timeout: Duration,
    max_request_bytes: usize,
    // Held to push or to take a batch; never while one is submitted.
    queue: Mutex<Queue>,
    /// Callers that got no outcome.
    failed: AtomicU64,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    waiting_bytes: usize,
    in_flight: usize,
    /// Requests in those entries.
    in_flight_requests: usize,
    /// There is no leader to send to: all wait.
    stalled: bool,
}

#[derive(Debug)]
struct Waiting {
    request: Request,
    bytes: usize,
    told: oneshot::Sender<Answer>,
}

impl Proposer {
    pub fn new(node: &Node, timeout: Duration, max_request_bytes: usize) -> Self {
        let (node, queue) = (node.clone(), Mutex::default());
        Self {
            shared: Arc::new(Shared { node, timeout, max_request_bytes, queue, failed: AtomicU64::new(0) }),
        }
    }

    /// Requests that have no outcome yet.
    pub fn pending(&self) -> usize {
        let queue = self.shared.queue.lock();
        queue.waiting.len() + queue.in_flight_requests
    }

    /// Requests since the start that got no outcome: nobody led, or it took too long.
    pub fn failed(&self) -> u64 {
        self.shared.failed.load(Ordering::Relaxed)
    }

    /// Has `request` carried out; gives its outcome and the term in which it was.
    ///
    /// After an error that leaves the outcome open, and when the returned future
    /// is dropped, the request may still be carried out.
    pub async fn write(&self, request: Request) -> Result<(Response, u64), ProposeError> {
        let bytes = request.encoded_len();
        if bytes > self.shared.max_request_bytes {
            return Err(ProposeError::TooLarge);
        }
        let (told, answer) = oneshot::channel();
        {
            let mut queue = self.shared.queue.lock();
            // Who is already over may still be let in by a large last one.
            if queue.waiting.len() >= WAITING_MAX || queue.waiting_bytes >= WAITING_BYTES_MAX {
                return Err(ProposeError::TooManyRequests);
            }
            queue.waiting_bytes += bytes;
            queue.waiting.push_back(Waiting { request, bytes, told });
        }
        self.shared.send_on();
        let began = Instant::now();
        let answer = match time::timeout(self.shared.timeout, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(ProposeError::Stopped),
            Err(_) => Err(self.shared.node.why_late(began).into()),
        };
        if !matches!(answer, Ok(_) | Err(ProposeError::Apply(_))) {
            self.shared.failed.fetch_add(1, Ordering::Relaxed);
        }
        answer
    }
}

impl Shared {
    /// Submits what waits, as far as there are free slots.
    fn send_on(self: &Arc<Self>) {
        loop {
            // A statement of its own: the lock is free again while the batch is submitted.
            let next = self.queue.lock().take();
            let Some((requests, callers)) = next else { return };
            let slot = Slot { shared: self.clone(), requests: callers.len() };
            let shared = self.clone();
            self.node.submit(requests, self.timeout, slot, move |result| shared.land(callers, result));
        }
    }

    /// Tells the callers of a batch what became of it, or has it wait for a leader.
    fn land(self: &Arc<Self>, callers: Vec<oneshot::Sender<Answer>>, result: BatchResult) {
        match result {
            Ok((outcomes, term)) => {
                assert_eq!(outcomes.len(), callers.len(), "each request of an entry has one outcome");
                for (told, outcome) in callers.into_iter().zip(outcomes) {
                    let answer = outcome.map(|response| (response, term)).map_err(ProposeError::Apply);
                    // Who has given up needs no answer.
                    drop(told.send(answer));
                }
            }
            Err(SubmitError::NotAppended(requests)) => {
                self.queue.lock().put_back(requests, callers);
                self.wait_for_leader();
            }
            Err(SubmitError::Unknown) => {
                for told in callers {
                    drop(told.send(Err(ProposeError::LeaderChanged)));
                }
            }
        }
    }

    fn wait_for_leader(self: &Arc<Self>) {
        if std::mem::replace(&mut self.queue.lock().stalled, true) {
            return;
        }
        let shared = self.clone();
        let status = self.node.watch();
        tokio::spawn(async move {
            news(status, RETRY_PAUSE).await;
            shared.queue.lock().stalled = false;
            shared.send_on();
        });
    }
}

impl Queue {
    /// The next entry, if there is a slot for it and something to put in.
    fn take(&mut self) -> Option<(Vec<Request>, Vec<oneshot::Sender<Answer>>)> {
        if self.stalled || self.in_flight >= IN_FLIGHT_MAX {
            return None;
        }
        // The log keeps the requests for a while: as much room as they are likely to take.
        let bytes_each = self.waiting_bytes / self.waiting.len().max(1);
        let likely = self.waiting.len().min(BATCH_REQUESTS_MAX).min(1 + BATCH_BYTES_MAX / bytes_each.max(1));
        let (mut requests, mut callers) = (Vec::with_capacity(likely), Vec::with_capacity(likely));
        let mut bytes = 0;
        while requests.len() < BATCH_REQUESTS_MAX {
            let fits = |next: &mut Waiting| bytes == 0 || bytes + next.bytes <= BATCH_BYTES_MAX;
            let Some(next) = self.waiting.pop_front_if(fits) else { break };
            self.waiting_bytes -= next.bytes;
            // Nobody waits any more, and nothing was promised: not worth an entry.
            if next.told.is_closed() {
                continue;
            }
            bytes += next.bytes;
            requests.push(next.request);
            callers.push(next.told);
        }
        if requests.is_empty() {
            return None;
        }
        self.in_flight += 1;
        self.in_flight_requests += requests.len();
        Some((requests, callers))
    }

    /// Before all others, in their order.
    fn put_back(&mut self, requests: Vec<Request>, callers: Vec<oneshot::Sender<Answer>>) {
        for (request, told) in requests.into_iter().zip(callers).rev() {
            let bytes = request.encoded_len();
            self.waiting_bytes += bytes;
            self.waiting.push_front(Waiting { request, bytes, told });
        }
    }
}

/// A place among the entries in flight, free again when dropped.
struct Slot {
    shared: Arc<Shared>,
    requests: usize,
}

impl Drop for Slot {
    fn drop(&mut self) {
        {
            let mut queue = self.shared.queue.lock();
            queue.in_flight -= 1;
            queue.in_flight_requests -= self.requests;
        }
        self.shared.send_on();
    }
}

#[cfg(test)]
mod tests {
    use etcfs_proto::{etcdserverpb::PutRequest, etcfs::command::request::Body};

    use super::*;

    fn waiting(value_bytes: usize) -> (Waiting, oneshot::Receiver<Answer>) {
        let put = PutRequest { key: "k".into(), value: vec![0; value_bytes].into(), ..PutRequest::default() };
        let request = Request { body: Some(Body::Put(put)) };
        let (told, answer) = oneshot::channel();
        (Waiting { bytes: request.encoded_len(), request, told }, answer)
    }

    fn queue(value_bytes: impl IntoIterator<Item = usize>) -> (Queue, Vec<oneshot::Receiver<Answer>>) {
        let (waiting, answers): (VecDeque<_>, Vec<_>) = value_bytes.into_iter().map(waiting).unzip();
        let waiting_bytes = waiting.iter().map(|waiting| waiting.bytes).sum();
        (Queue { waiting, waiting_bytes, ..Queue::default() }, answers)
    }

    fn taken(queue: &mut Queue) -> Option<usize> {
        queue.take().map(|(requests, _)| requests.len())
    }

    #[test]
    fn entries_fill_up_to_their_limits_and_no_further() {
        let (mut small, _answers) = queue(std::iter::repeat_n(1, 1500));
        assert_eq!([taken(&mut small), taken(&mut small), taken(&mut small)], [Some(1024), Some(476), None]);
        assert_eq!((small.waiting_bytes, small.in_flight), (0, 2));
        let (mut large, _answers) = queue([400 << 10, 400 << 10, 400 << 10, 1400 << 10, 10]);
        let sizes: Vec<_> = std::iter::from_fn(|| taken(&mut large)).collect();
        assert_eq!(sizes, [2, 1, 1, 1], "one larger than the limit goes alone");
    }

    #[test]
    fn only_so_many_entries_are_in_flight() {
        let (mut queue, _answers) = queue(std::iter::repeat_n(600 << 10, 8));
        let first: Vec<_> = std::iter::from_fn(|| taken(&mut queue)).collect();
        assert_eq!(first, [1; IN_FLIGHT_MAX]);
        queue.in_flight -= 1;
        assert_eq!([taken(&mut queue), taken(&mut queue)], [Some(1), None]);
    }

    #[test]
    fn who_gave_up_while_waiting_is_left_out() {
        let (mut queue, mut answers) = queue([1, 1, 1]);
        drop(answers.swap_remove(1));
        assert_eq!([taken(&mut queue), taken(&mut queue)], [Some(2), None]);
    }

    #[test]
    fn what_no_leader_took_goes_first_once_there_is_one() {
        let (mut queue, _answers) = queue([1, 2, 3]);
        let (requests, callers) = queue.take().unwrap();
        let bytes: usize = requests.iter().map(|request| request.encoded_len()).sum();
        let (late, _answer) = waiting(4);
        queue.waiting.push_back(late);
        queue.put_back(requests, callers);
        queue.stalled = true;
        assert_eq!((taken(&mut queue), queue.waiting_bytes), (None, bytes));
        queue.stalled = false;
        let sizes: Vec<_> = queue.waiting.iter().map(|waiting| waiting.bytes).collect();
        assert!(sizes.is_sorted() && sizes.len() == 4, "{sizes:?}");
    }
}
