//! Loops beside the runtime, each on a thread of its own.
//!
//! What a loop does is its [`Work`], one turn after another. A turn may take as
//! long as the disk does, but never waits for anybody: when the next one is due,
//! it tells whoever runs the loop, and its [`Bell`] is how others call it sooner.
//! So the same work can run as a task too, on another clock than the system's.

mod post;

use std::{
    fmt, io,
    pin::pin,
    sync::Arc,
    task::{Context, Wake, Waker},
    thread::{self, Thread},
};

use tokio::{
    sync::{Notify, oneshot},
    time::Instant,
};

pub use self::post::Post;

/// When a loop is to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    Again,
    /// Once its bell is rung.
    Wait,
    /// Once its bell is rung, and at this time if it is not.
    WaitUntil(Instant),
    End,
}

/// What a loop does in one turn.
pub type Work = Box<dyn FnMut() -> Turn + Send>;

/// Waits until a loop has ended.
pub type Join = Box<dyn FnOnce() + Send>;

/// Where loops run.
pub trait Threads: Send + Sync + fmt::Debug + 'static {
    /// Starts a loop that `bell` calls.
    fn start(&self, name: &str, bell: Bell, work: Work) -> io::Result<Join>;

    /// How a loop has something done on the runtime of whoever calls. Loops that are tasks of it do that themselves.
    fn post(&self) -> io::Result<Post> {
        Ok(Post::at_once())
    }

    /// Does something that takes its time, beside everything else.
    fn aside(&self, name: &str, job: Box<dyn FnOnce() + Send>) -> io::Result<()>;
}

/// Calls one loop. A ring while that is at work is heard when it is done.
#[derive(Clone, Debug, Default)]
pub struct Bell(Arc<Notify>);

impl Bell {
    pub fn ring(&self) {
        self.0.notify_one();
    }

    /// Returns once it was rung since it was last heard.
    pub async fn heard(&self) {
        self.0.notified().await;
    }

    /// Blocks until it is heard, or it is `until`. `waker` wakes this thread.
    fn wait(&self, until: Option<Instant>, waker: &Waker) {
        let mut heard = pin!(self.heard());
        while heard.as_mut().poll(&mut Context::from_waker(waker)).is_pending() {
            let Some(until) = until else {
                thread::park();
                continue;
            };
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            thread::park_timeout(left);
        }
    }
}

/// Has `job` done aside; gives what it came to.
pub async fn aside<T: Send + 'static>(
    threads: &dyn Threads,
    name: &str,
    job: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let (told, answer) = oneshot::channel();
    // Should nobody wait any more, nothing is lost by that.
    threads.aside(name, Box::new(move || drop(told.send(job()))))?;
    answer.await.map_err(|_| io::Error::other(format!("{name} came to no end")))
}

/// Threads of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsThreads;

impl Threads for OsThreads {
    fn start(&self, name: &str, bell: Bell, mut work: Work) -> io::Result<Join> {
        let run = move || {
            let waker = Arc::new(Unpark(thread::current())).into();
            loop {
                match work() {
                    Turn::Again => {}
                    Turn::Wait => bell.wait(None, &waker),
                    Turn::WaitUntil(at) => bell.wait(Some(at), &waker),
                    Turn::End => return,
                }
            }
        };
        let thread = thread::Builder::new().name(name.into()).spawn(run)?;
        let name = name.to_owned();
        Ok(Box::new(move || {
            if thread.join().is_err() {
                tracing::error!(name, "a thread panicked");
            }
        }))
    }

    fn post(&self) -> io::Result<Post> {
        Post::start()
    }

    fn aside(&self, name: &str, job: Box<dyn FnOnce() + Send>) -> io::Result<()> {
        thread::Builder::new().name(name.into()).spawn(job).map(drop)
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, time::Duration};

    use super::*;

    /// A loop that tells of each turn, and waits as told by what it reads.
    fn started(bell: &Bell, turns: Vec<Turn>) -> (mpsc::Receiver<usize>, Join) {
        let (told, seen) = mpsc::channel();
        let mut turns = turns.into_iter().enumerate();
        let work = move || {
            let Some((nth, turn)) = turns.next() else { return Turn::End };
            told.send(nth).expect("looked at");
            turn
        };
        let join = OsThreads.start("test", bell.clone(), Box::new(work)).expect("started");
        (seen, join)
    }

    #[test]
    fn a_loop_goes_on_when_its_bell_is_rung_and_not_before() {
        let bell = Bell::default();
        let (seen, join) = started(&bell, vec![Turn::Again, Turn::Wait, Turn::Wait]);
        assert_eq!([seen.recv(), seen.recv()], [Ok(0), Ok(1)]);
        assert_eq!(seen.recv_timeout(Duration::from_millis(20)), Err(mpsc::RecvTimeoutError::Timeout));
        bell.ring();
        assert_eq!(seen.recv(), Ok(2));
        bell.ring();
        join();
        assert_eq!(seen.recv(), Err(mpsc::RecvError));
    }

    #[test]
    fn a_ring_before_the_wait_and_the_time_itself_end_it() {
        let bell = Bell::default();
        bell.ring();
        let soon = Turn::WaitUntil(Instant::now() + Duration::from_millis(1));
        let (seen, join) = started(&bell, vec![Turn::Wait, soon, Turn::Again]);
        join();
        assert_eq!(seen.iter().count(), 3);
    }

    #[tokio::test]
    async fn what_is_done_aside_gives_its_result() {
        assert_eq!(aside(&OsThreads, "test", || 7).await.expect("done"), 7);
        let panics = aside(&OsThreads, "test", || -> u8 { panic!("on purpose") }).await;
        assert!(panics.is_err(), "{panics:?}");
    }
}
