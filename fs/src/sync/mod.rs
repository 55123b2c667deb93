//! Changes made elsewhere, on their way in: one watch of all that the mount shows.
//!
//! Each event goes into the table in order of revisions; what the kernel must be
//! told follows from there. Nothing here waits for the kernel.

use std::sync::Arc;

use futures_util::StreamExt as _;

use crate::errno::OpError;
use crate::node::Value;
use crate::ops::Fs;
use crate::remote::{At, Changed, Event, Freshness, PageRequest, RemoteError, Revision, Watched};

/// Learns the current revision and watches from there on. Returns once the first is
/// known, so that nothing is cached that the watch would not change.
pub async fn start(fs: &Arc<Fs>) -> Result<(), OpError> {
    let from = current(fs).await?;
    let fs = fs.clone();
    fs.nodes.with(|table| table.saw(from.0));
    fs.runtime.clone().spawn(async move { follow(fs, from).await });
    Ok(())
}

/// The revision that the server is at.
async fn current(fs: &Fs) -> Result<Revision, OpError> {
    let range = fs.map.key_range(&fs.map.root());
    let page = PageRequest { range, limit: 1, keys_only: true, how: Freshness::Linearizable };
    let At { revision, .. } = fs.remote.page(page).await?;
    Ok(revision)
}

async fn follow(fs: Arc<Fs>, from: Revision) {
    let mut from = from;
    while !fs.is_stopping() {
        let next = Revision(from.0 + 1);
        let mut watch = fs.remote.watch(fs.map.watch_ranges(), next);
        let error = loop {
            match watch.next().await {
                Some(Ok(Watched::Changed(changed))) => {
                    from = changed.revision;
                    fs.journal(&changed);
                    take(&fs, changed);
                }
                Some(Ok(Watched::UpTo(revision))) => {
                    from = from.max(revision);
                    fs.nodes.with(|table| table.saw(revision.0));
                }
                Some(Ok(Watched::Lost)) => {
                    tracing::warn!("the server can't be reached; cached files get old");
                    fs.note_lost(true);
                }
                Some(Ok(Watched::Back)) => {
                    tracing::info!("the server answers again");
                    fs.note_lost(false);
                }
                Some(Err(error)) => break error,
                None => return,
            }
        };
        match error {
            RemoteError::Closed => return,
            error => {
                tracing::warn!(%error, "the watch has a gap; everything is read again");
                match resync(&fs).await {
                    Ok(revision) => {
                        fs.journal_gap(revision);
                        from = revision;
                    }
                    Err(error) => {
                        tracing::error!(%error, "the mount can't follow changes");
                        tokio::time::sleep(RETRY).await;
                    }
                }
            }
        }
    }
}

/// Between two attempts to begin again after a watch that failed for good.
const RETRY: std::time::Duration = std::time::Duration::from_secs(1);

fn take(fs: &Fs, changed: Changed) {
    let Changed { revision, events } = changed;
    fs.nodes.with(|table| {
        for event in events {
            match event {
                Event::Put(kv) => table.event(&kv.key.bytes(), revision.0, Some(Value::from(&kv))),
                Event::Delete(key) => table.event(&key.bytes(), revision.0, None),
            }
        }
        table.saw(revision.0);
    });
}

/// After a gap (the events were compacted away): every key that the mount knows is
/// read again, every fact about directories forgotten.
async fn resync(fs: &Fs) -> Result<Revision, OpError> {
    let revision = current(fs).await?;
    fs.nodes.with(|table| table.distrust(revision.0));
    for key in fs.nodes.with(|table| table.known_keys()) {
        let At { revision, found } = fs.remote.get(key.clone().into(), Freshness::AtLeast(revision)).await?;
        let value = found.as_ref().map(Value::from);
        let rev = value.as_ref().map_or(revision.0, |value| value.rev);
        fs.nodes.with(|table| table.change(&key, rev, value));
    }
    Ok(revision)
}
