//! How long what is cached may be shown without the server.
//!
//! The watch keeps it true. Without the watch it gets old: after a bounded time names and listings wait for the
//! server, as everything else does. A file that is open is its revision, and stays readable. With `strict` nothing
//! is shown by name that the server was not asked for.

use std::ffi::OsStr;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::Fs;
use crate::errno::OpError;
use crate::map::{Entry as Name, KeyMap, Step};
use crate::node::{Known, NodeId};
use crate::remote::{Patience, RemoteError};

/// What the server has shown comes by the watch a moment later; past this it is taken in as it was read.
const WATCH_PATIENCE: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_millis(1);

impl Fs {
    pub(crate) fn is_trusted(&self) -> bool {
        *self.trust.borrow()
    }

    /// The watch stands, or has been gone for too long.
    pub(crate) fn set_trusted(&self, trusted: bool) {
        self.nodes.with(|table| table.set_trusted(trusted));
        self.trust.send_if_modified(|before| std::mem::replace(before, trusted) != trusted);
    }

    /// Tells each time that what the kernel has been told begins or ends to count.
    pub(crate) fn trust_changes(&self) -> watch::Receiver<bool> {
        self.trust.subscribe()
    }

    /// Waits for the watch, as long as the mount waits for its server.
    pub(super) async fn until_trusted(&self) -> Result<(), OpError> {
        if self.is_trusted() {
            return Ok(());
        }
        let mut trust = self.trust.subscribe();
        let trusted = async {
            // The sender lives as long as the tree.
            trust.wait_for(|&trusted| trusted).await.ok();
        };
        match self.view.patience {
            Patience::Hard | Patience::Stale(_) => trusted.await,
            Patience::Soft(limit) => {
                let waited = timeout(limit, trusted).await;
                waited.map_err(|_| OpError::Remote(RemoteError::TimedOut(limit)))?;
            }
        }
        Ok(())
    }

    /// Asks the server for a name and takes in what it says.
    pub(super) async fn ask_for(&self, parent: NodeId, name: &OsStr) -> Result<(), OpError> {
        let dir = self.dir_of(parent)?;
        let asked = match self.map.step(&dir, name).map_err(OpError::in_lookup)? {
            Step::Entry(name) => name,
            Step::Value(key) => Name { dir: KeyMap::dir_of(&key), key, canonical: true },
            Step::More(_) | Step::Rel(_) | Step::Reserved(_) => return Ok(()),
        };
        self.ask_strictly(&asked).await
    }

    async fn ask_strictly(&self, name: &Name) -> Result<(), OpError> {
        let key = name.key.bytes();
        let (revision, value) = self.ask_name(name).await?;
        let deadline = Instant::now() + WATCH_PATIENCE;
        let is_known = || {
            self.nodes.with(|table| {
                let facts = table.facts(&key);
                facts.local
                    || match (&facts.known, &value) {
                        (Known::Present(known), Some(value)) => known.rev >= value.rev,
                        (Known::Absent, None) => true,
                        (Known::Absent, Some(value)) => table.known_at(&key) > value.rev,
                        (Known::Present(known), None) => known.rev > revision.0,
                        (Known::Unknown, _) => false,
                    }
            })
        };
        while !is_known() {
            if Instant::now() >= deadline {
                let rev = value.as_ref().map_or(revision.0, |value| value.rev);
                self.nodes.with(|table| table.change(&key, rev, value));
                return Ok(());
            }
            sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }
}
