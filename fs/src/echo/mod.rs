//! inotify for remote changes: the kernel's own events, for what other clients change.
//!
//! The kernel tells inotify's listeners what is done through the mount, and nothing that a FUSE daemon can say
//! makes it tell them of anything else. So a helper process repeats each remote change through the mount: it
//! creates, opens and closes, removes, renames. The tree has the change already and takes the repetition for what
//! it is (`node::repeat`); `node::echo` is the queue.
//!
//! A thread takes jobs from the queue, learns what the names are that nobody has asked for yet, and has them
//! repeated one after another. Nothing waits for it: it may be held up in the kernel by any request in the same
//! directory. A helper that dies is started again, and the order that it died of given again if it was not done.

pub(crate) mod child;
pub(crate) mod process;
mod tell;
mod watches;
mod wire;

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

pub use process::Site;

use self::process::Process;
use self::watches::Watched;
use self::wire::{Order, Reply};
use crate::node::{Job, ROOT, Repeat};
use crate::ops::Fs;

/// Jobs that are prepared together.
const BATCH: usize = 64;

/// With more waiting, those that nobody watches are looked for and left out.
const SHED_AT: usize = 512;

/// A helper that can't be started is given up after so many times in a row, and so is an order that it dies of.
const STRIKES_MAX: u32 = 5;
const PAUSE: Duration = Duration::from_millis(200);

/// What is seen of all processes' watches counts for so long while a storm lasts.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Starts telling listeners, until the mount ends. The receiver hears of an end once the helper has been tried, which
/// keeps the mount busy.
pub fn start(fs: Arc<Fs>, site: Site) -> io::Result<oneshot::Receiver<()>> {
    let (tries, tried) = oneshot::channel::<()>();
    std::thread::Builder::new().name("echo".to_owned()).spawn(move || {
        let mut teller = Teller { fs, site, helper: None, looked: None, seen: None };
        // At once: the first change shall not wait for a process to start.
        let able = teller.ready() && teller.try_handles().is_ok();
        drop(tries);
        if able {
            teller.run();
        }
        teller.fs.set_helper(0);
        teller.fs.nodes.with(|table| table.stop_echo());
    })?;
    Ok(tried)
}

struct Teller {
    fs: Arc<Fs>,
    site: Site,
    helper: Option<Process>,
    looked: Option<(Instant, Watched)>,
    /// What is watched, seen since the jobs at hand were taken: who watched before these changes is in it.
    seen: Option<Rc<Watched>>,
}

/// An order that was carried out, as far as the kernel let it.
struct Told {
    reply: Reply,
    /// The inodes that were opened for it.
    opened: Vec<crate::node::NodeId>,
}

/// The mount ends, or nobody can be told any more.
struct Over;

impl Teller {
    fn run(&mut self) {
        while let Some(mut jobs) = self.fs.nodes.wait_echo(BATCH) {
            let (waiting, dropped) =
                self.fs.nodes.with(|table| (table.echo_waiting(), table.take_echo_dropped()));
            if dropped > 0 {
                tracing::warn!(dropped, "inotify's listeners miss changes: too many wait to be told");
            }
            if waiting > SHED_AT {
                let watched = self.watched(LOOK_AGAIN);
                jobs.retain(|job| tell::is_watched(&self.fs, job, &watched));
                self.looked = Some((Instant::now(), watched));
            }
            self.seen = None;
            let Ok(()) = self.prepare(&jobs) else { return };
            for job in jobs {
                let Ok(()) = self.tell(job) else { return };
            }
        }
    }

    /// Asks the server for what a name is where that is not known, for all jobs at once.
    fn prepare(&self, jobs: &[Job]) -> Result<(), Over> {
        let keys = jobs.iter().flat_map(|job| match job {
            Job::File { key, .. } => vec![key.clone()],
            Job::Move { from, to, .. } => vec![from.clone(), to.clone()],
            Job::Dir { .. } | Job::Link { .. } | Job::Hold { .. } | Job::LetGo(_) => Vec::new(),
        });
        let keys: Vec<_> = keys.collect();
        match self.wait(self.fs.learn_names(&keys))? {
            Ok(()) => {}
            Err(error) => {
                tracing::debug!(%error, "names that inotify's listeners are to hear of can't be read");
            }
        }
        Ok(())
    }

    /// Waits for the server or the notifier, but not longer than the mount lives.
    fn wait<T>(&self, future: impl Future<Output = T>) -> Result<T, Over> {
        self.fs.runtime.block_on(async {
            tokio::select! {
                done = future => Ok(done),
                () = self.fs.stopped.cancelled() => Err(Over),
            }
        })
    }

    /// A look at everybody's watches that is not older than `age`.
    fn watched(&mut self, age: Duration) -> Watched {
        match self.looked.take() {
            Some((at, watched)) if at.elapsed() < age => watched,
            _ => Watched::look(self.site.device),
        }
    }

    /// A look at everybody's watches that counts for the jobs at hand.
    fn seen(&mut self) -> Rc<Watched> {
        self.seen.get_or_insert_with(|| Rc::new(Watched::look(self.site.device))).clone()
    }

    /// Finds out whether the helper may open inodes by their handles. If not, it holds those that are open.
    fn try_handles(&mut self) -> Result<(), Over> {
        let told = self.carry_out(&Repeat::Inode, &Order::Look { node: ROOT.0 })?;
        if told.reply.errno == libc::EPERM {
            self.fs.nodes.with(|table| table.hold_open_nodes());
        }
        Ok(())
    }

    /// Makes sure that there is a helper.
    fn ready(&mut self) -> bool {
        for strike in 0..STRIKES_MAX {
            if self.helper.is_some() {
                return true;
            }
            if strike > 0 {
                std::thread::sleep(PAUSE);
            }
            match Process::start(&self.site) {
                Ok(helper) => {
                    self.fs.set_helper(helper.pid());
                    self.helper = Some(helper);
                }
                Err(error) => tracing::warn!(%error, "the helper for inotify can't be started"),
            }
        }
        let ready = self.helper.is_some();
        if !ready {
            tracing::error!("inotify's listeners hear nothing of remote changes from now on");
        }
        ready
    }

    /// Has one order carried out; again by another helper if the first one died before it was done.
    fn carry_out(&mut self, repeat: &Repeat, order: &Order) -> Result<Told, Over> {
        let mut opened = Vec::new();
        let (mut strikes, mut killed) = (0, 0);
        while strikes < STRIKES_MAX {
            if self.fs.is_stopping() || !self.ready() {
                return Err(Over);
            }
            let Some(mut helper) = self.helper.take() else { return Err(Over) };
            self.fs.nodes.with(|table| table.repeat(repeat.clone()));
            let answered = helper.order(order);
            let repeating = self.fs.nodes.with(|table| table.repeated());
            let done = repeating.as_ref().is_some_and(|repeating| repeating.done);
            opened.extend(repeating.into_iter().flat_map(|repeating| repeating.opened));
            match answered {
                Ok(reply) => {
                    self.helper = Some(helper);
                    if reply.errno != 0 {
                        tracing::debug!(errno = reply.errno, ?order, "a change can't be told to listeners");
                    }
                    return Ok(Told { reply, opened });
                }
                Err(error) if self.fs.is_stopping() => {
                    tracing::debug!(%error, "the helper for inotify is gone with the mount");
                    return Err(Over);
                }
                Err(error) => {
                    tracing::warn!(%error, "the helper for inotify died; starting it again");
                    self.fs.set_helper(0);
                    if done {
                        return Ok(Told { reply: Reply::default(), opened });
                    }
                    if helper.was_killed() {
                        killed += 1;
                        if killed > STRIKES_MAX {
                            std::thread::sleep(PAUSE);
                        }
                    } else {
                        strikes += 1;
                    }
                }
            }
        }
        tracing::warn!("a change can't be told to inotify's listeners: the helper dies of it");
        Ok(Told { reply: Reply::default(), opened })
    }
}
