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
use crate::node::{Known, NodeId, Trust};
use crate::remote::{Patience, RemoteError};

/// What the server has shown comes by the watch a moment later; past this it is taken in as it was read.
const WATCH_PATIENCE: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_millis(1);

impl Fs {
    pub(super) fn trust(&self) -> Trust {
        *self.trust.borrow()
    }

    pub(crate) fn is_trusted(&self) -> bool {
        self.trust() == Trust::Given
    }

    /// The watch stands, has been gone for too long, or is not the user's any more.
    pub(crate) fn set_trust(&self, trust: Trust) {
        self.nodes.with(|table| table.set_trusted(trust == Trust::Given));
        self.trust.send_if_modified(|before| std::mem::replace(before, trust) != trust);
    }

    /// The server has refused the user something: a right may be gone, while a watch of etcd's goes on.
    pub(super) fn doubt_rights(&self) {
        self.refused.notify_one();
    }

    /// Waits until the server refuses something.
    pub(crate) async fn refusal(&self) {
        self.refused.notified().await;
    }

    /// Tells each time that what the kernel has been told begins or ends to count.
    pub(crate) fn trust_changes(&self) -> watch::Receiver<Trust> {
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
            match trust.wait_for(|&trust| trust != Trust::Waits).await.as_deref() {
                Ok(Trust::Refused) => Err(RemoteError::PermissionDenied),
                _ => Ok(()),
            }
        };
        let decided = match self.view.patience {
            Patience::Hard | Patience::Stale(_) => trusted.await,
            Patience::Soft(limit) => {
                timeout(limit, trusted).await.unwrap_or(Err(RemoteError::TimedOut(limit)))
            }
        };
        Ok(decided?)
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
