//! The way back from a loop's thread to the runtime's tasks.
//!
//! Where another thread wakes a task, two threads of the runtime wake: one that comes to find it, and one that the
//! first calls to look for more. Input wakes just the one that waits for it, so what a loop has to tell is sent as a
//! byte in a pipe. A put by one client alone waits that much less.

use std::{
    fmt,
    io::{self, PipeWriter, Write as _},
    os::fd::OwnedFd,
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::{io::AsyncReadExt as _, net::unix::pipe};

type Job = Box<dyn FnOnce() + Send>;

/// Has something done on the runtime; clones share it.
#[derive(Clone)]
pub struct Post(Option<Arc<Sender>>);

struct Sender {
    waiting: Waiting,
    bell: PipeWriter,
}

/// What is to be done; none once nobody comes for it any more.
type Waiting = Arc<Mutex<Option<Vec<Job>>>>;

impl Post {
    /// What is sent is done at once, by the sender.
    pub fn at_once() -> Self {
        Self(None)
    }

    /// On the runtime of whoever calls.
    pub fn start() -> io::Result<Self> {
        let (ear, bell) = io::pipe()?;
        let ear = pipe::Receiver::from_owned_fd(OwnedFd::from(ear))?;
        let waiting = Waiting::new(Mutex::new(Some(Vec::new())));
        tokio::spawn(carry(ear, Carrier(waiting.clone())));
        Ok(Self(Some(Arc::new(Sender { waiting, bell }))))
    }

    /// Does `job` soon, and while the runtime lasts after all that was sent before. It should wake others and not take
    /// long.
    pub fn send(&self, job: impl FnOnce() + Send + 'static) {
        let Some(sender) = &self.0 else { return job() };
        let mut waiting = sender.waiting.lock();
        let Some(jobs) = waiting.as_mut() else {
            drop(waiting);
            return job();
        };
        jobs.push(Box::new(job));
        let is_first = jobs.len() == 1;
        drop(waiting);
        // Never two bytes before all that waits is taken, so there is always room. Who can't be reached has
        // done it himself.
        if is_first && let Err(error) = (&sender.bell).write_all(&[0]) {
            tracing::debug!(%error, "the runtime is gone");
        }
    }
}

impl fmt::Debug for Post {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Post").field(&self.0.is_some()).finish()
    }
}

/// Until nobody can send any more.
async fn carry(mut ear: pipe::Receiver, carrier: Carrier) {
    let mut rings = [0; 16];
    while let Ok(1..) = ear.read(&mut rings).await {
        carrier.deliver(Some(Vec::new()));
    }
}

/// Leaves nothing undone, however the runtime ends.
struct Carrier(Waiting);

impl Carrier {
    fn deliver(&self, next: Option<Vec<Job>>) {
        let jobs = std::mem::replace(&mut *self.0.lock(), next);
        jobs.into_iter().flatten().for_each(|job| job());
    }
}

impl Drop for Carrier {
    fn drop(&mut self) {
        self.deliver(None);
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread};

    use tokio::{runtime::Runtime, sync::Notify};

    use super::*;

    fn runtime() -> Runtime {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("started")
    }

    #[test]
    fn what_a_thread_sends_is_done_on_the_runtime_in_order_and_all_of_it() {
        let runtime = runtime();
        let post = runtime.block_on(async { Post::start() }).expect("started");
        let (done, seen) = mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(|| {
                for nth in 0..10_000 {
                    let done = done.clone();
                    let runs_there = || tokio::runtime::Handle::try_current().is_ok();
                    post.send(move || done.send((nth, runs_there())).expect("heard"));
                }
            });
        });
        let all: Vec<_> = seen.iter().take(10_000).collect();
        assert!(all.into_iter().eq((0..10_000).map(|nth| (nth, true))));
    }

    #[test]
    fn what_is_sent_is_done_though_the_runtime_ends() {
        for _ in 0..100 {
            let runtime = runtime();
            let post = runtime.block_on(async { Post::start() }).expect("started");
            let (done, seen) = mpsc::channel();
            let sender = thread::spawn(move || {
                for nth in 0..100 {
                    let done = done.clone();
                    post.send(move || done.send(nth).expect("heard"));
                }
            });
            runtime.shutdown_background();
            sender.join().expect("no panic");
            let mut all: Vec<_> = seen.iter().collect();
            all.sort_unstable();
            assert!(all.into_iter().eq(0..100));
        }
    }

    /// How often the runtime's threads wake while a task is told something 500 times, each time when all of them sleep.
    fn wakes(runtime: &Runtime, tell: impl Fn(Arc<Notify>) + Send + Clone + 'static) -> u64 {
        let metrics = runtime.metrics();
        let counts = move || [0, 1].map(|worker| metrics.worker_park_unpark_count(worker));
        let begin = counts();
        let asleep = counts.clone();
        let task = runtime.spawn(async move {
            for _ in 0..500 {
                let told = Arc::new(Notify::new());
                let (tell, asleep, teller) = (tell.clone(), asleep.clone(), told.clone());
                thread::spawn(move || {
                    // Counted at both its ends, a sleep is one that has begun where the count is odd.
                    while asleep().iter().any(|count| count.is_multiple_of(2)) {
                        thread::yield_now();
                    }
                    tell(teller);
                });
                told.notified().await;
            }
        });
        runtime.block_on(task).expect("no panic");
        counts().iter().zip(begin).map(|(end, begin)| (end - begin) / 2).sum()
    }

    /// By a waker it is two, 1002 in all where nothing else runs.
    #[test]
    fn who_is_told_by_post_wakes_one_thread() {
        let runtime = runtime();
        let post = runtime.block_on(async { Post::start() }).expect("started");
        let woken = wakes(&runtime, move |told| post.send(move || told.notify_one()));
        assert!(woken < 600, "{woken} for 500");
    }
}
