//! Many callers, one log entry, one sync.
//!
//! Requests queue up while entries are in flight, and whoever frees a slot sends
//! what has queued as the next entry: the first caller itself when nothing is in
//! flight, and the thread that completes an entry after that. No task sits in
//! between, and nobody waits for a fuller batch.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use etcfs_proto::etcfs::command::{Batch, Request};
use parking_lot::Mutex;
use prost::Message as _;
use tokio::{sync::oneshot, time};

use super::ProposeError;
use crate::raft::{BatchResult, Node, Response};

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
        let answer = match time::timeout(self.shared.timeout, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(ProposeError::Stopped),
            Err(_) => Err(ProposeError::Timeout),
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
            let Some((batch, callers)) = next else { return };
            let flight = Flight { shared: self.clone(), requests: callers.len(), callers };
            self.node.submit(batch, move |result| flight.land(result));
        }
    }
}

impl Queue {
    /// The next entry, if there is a slot for it and something to put in.
    fn take(&mut self) -> Option<(Batch, Vec<oneshot::Sender<Answer>>)> {
        if self.in_flight >= IN_FLIGHT_MAX {
            return None;
        }
        let mut bytes = 0;
        let (mut requests, mut callers) = (Vec::new(), Vec::new());
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
        Some((Batch { requests }, callers))
    }
}

/// An entry on its way. Dropped with the outcome open, it tells its callers by
/// dropping their channels, and frees its slot all the same.
struct Flight {
    shared: Arc<Shared>,
    requests: usize,
    callers: Vec<oneshot::Sender<Answer>>,
}

impl Flight {
    fn land(mut self, result: BatchResult) {
        let callers = std::mem::take(&mut self.callers);
        match result {
            Ok((outcomes, term)) => {
                assert_eq!(outcomes.len(), callers.len(), "each request of an entry has one outcome");
                for (told, outcome) in callers.into_iter().zip(outcomes) {
                    let answer = outcome.map(|response| (response, term)).map_err(ProposeError::Apply);
                    // Who has given up needs no answer.
                    drop(told.send(answer));
                }
            }
            Err(error) => {
                for told in callers {
                    drop(told.send(Err(error.into())));
                }
            }
        }
    }
}

impl Drop for Flight {
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
        queue.take().map(|(batch, _)| batch.requests.len())
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
}
