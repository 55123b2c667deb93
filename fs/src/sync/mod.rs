//! Changes made elsewhere, on their way in: one watch of all that the mount shows.
//!
//! Each event goes into the table in order of revisions; what the kernel must be
//! told follows from there. Nothing here waits for the kernel.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, OptionFuture, try_join_all};
use futures_util::{FutureExt as _, StreamExt as _, stream};
use tokio::time::{Instant, sleep_until};

use crate::errno::OpError;
use crate::node::{Trust, Value};
use crate::ops::Fs;
use crate::remote::{At, Changed, Event, Freshness, PageRequest, Patience, RemoteError, Revision, Watched};

/// Learns the current revision and watches from there on. Returns once the first is
/// known, so that nothing is cached that the watch would not change.
pub async fn start(fs: &Arc<Fs>) -> Result<(), OpError> {
    let from = current(fs).await?;
    let fs = fs.clone();
    fs.nodes.with(|table| table.saw(from.0));
    fs.runtime.clone().spawn(async move { follow(fs, from).await });
    Ok(())
}

/// The revision that the server is at; an error unless the user may read all that is watched.
async fn current(fs: &Fs) -> Result<Revision, OpError> {
    let pages = fs.map.watch_ranges().into_iter().map(|range| {
        fs.remote.page(PageRequest { range, limit: 1, keys_only: true, how: Freshness::Linearizable })
    });
    let pages = try_join_all(pages).await?;
    // That of the keys: what is known of records may be kept by the mount, without a revision of its own.
    Ok(pages.first().expect("a mount watches its keys").revision)
}

async fn follow(fs: Arc<Fs>, from: Revision) {
    let mut from = from;
    while !fs.is_stopping() {
        let began = Instant::now();
        let error = bring(&fs, &mut from).await;
        if error == OpError::Remote(RemoteError::Closed) {
            return;
        }
        tracing::warn!(%error, "the watch has a gap; everything is read again");
        // What is shown until that is done waits, unless anything will do.
        distrust(&fs);
        // A server that refuses each watch is not asked for everything without a pause.
        sleep_until(began + RETRY).await;
        from = loop {
            let error = match resync(&fs, from).await {
                Ok(revision) => break revision,
                Err(error) => error,
            };
            tracing::error!(%error, "the mount can't follow changes");
            if is_refusal(&error) {
                fs.set_trust(Trust::Refused);
            }
            tokio::time::sleep(RETRY).await;
            if fs.is_stopping() {
                return;
            }
        };
        fs.journal_gap(from);
        fs.set_trust(Trust::Given);
    }
}

/// One watch, from the revision after `from` to its end, which is an error.
async fn bring(fs: &Fs, from: &mut Revision) -> OpError {
    let mut watch = fs.remote.watch(fs.map.watch_ranges(), Revision(from.0 + 1));
    let mut heard = Instant::now();
    let mut trusted_until = None;
    // Asks how far the server is, once it is back: it may know less than before; and once it has refused something.
    let ask = |from: Revision| current(fs).map(move |now| (from, now)).boxed();
    let mut check: Option<BoxFuture<'_, _>> = None;
    loop {
        let watched = tokio::select! {
            watched = watch.next() => watched,
            () = fs.refusal(), if check.is_none() && !fs.is_lost() => {
                check = Some(ask(*from));
                continue;
            }
            Some((known, revision)) = OptionFuture::from(check.as_mut()) => {
                check = None;
                match revision {
                    Ok(revision) if revision < known => return RemoteError::FutureRevision.into(),
                    Ok(_) => {
                        trusted_until = None;
                        fs.set_trust(Trust::Given);
                    }
                    Err(error) if is_refusal(&error) => return error,
                    Err(error) => {
                        tracing::warn!(%error, "the server that answers again does not say how far it is");
                        check = Some(ask(*from));
                    }
                }
                continue;
            }
            () = sleep_until(trusted_until.unwrap_or(heard)), if trusted_until.is_some() => {
                trusted_until = None;
                tracing::warn!("no server for {} s: what is cached waits for it", TRUST.as_secs());
                distrust(fs);
                continue;
            }
        };
        match watched {
            Some(Ok(Watched::Lost)) => {
                tracing::warn!("the server can't be reached; cached files get old");
                fs.note_lost(true);
                check = None;
                let sign = Instant::now().checked_sub(UNNOTICED).map_or(heard, |before| before.max(heard));
                trusted_until = trusted_until.or(fs.is_trusted().then_some(sign + TRUST));
                continue;
            }
            Some(Ok(Watched::Back)) => {
                tracing::info!("the server answers again");
                fs.note_lost(false);
                check = Some(ask(*from));
            }
            Some(Ok(Watched::Changed(changed))) => {
                *from = changed.revision;
                fs.journal(&changed);
                take(fs, changed);
            }
            Some(Ok(Watched::UpTo(revision))) => {
                *from = revision.max(*from);
                fs.nodes.with(|table| table.saw(revision.0));
            }
            Some(Err(error)) => return error.into(),
            // A watch has no other end than an error.
            None => return RemoteError::Closed.into(),
        }
        heard = Instant::now();
    }
}

/// What is cached waits for the server, unless the mount was told that older will do.
fn distrust(fs: &Fs) {
    if !matches!(fs.view.patience, Patience::Stale(_)) {
        fs.set_trust(Trust::Waits);
    }
}

fn is_refusal(error: &OpError) -> bool {
    matches!(error, OpError::Remote(error) if error.is_refusal())
}

/// So long after the server's last sign what is cached is shown.
const TRUST: Duration = Duration::from_secs(10);

/// So long a connection may have been dead when that is noticed.
const UNNOTICED: Duration = Duration::from_secs(9);

/// Between two attempts to begin again after a watch that failed for good.
const RETRY: Duration = Duration::from_secs(1);

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

/// After a gap (the events were compacted away, or the server has lost revisions): every key that the mount knows
/// is read again, every fact about directories forgotten. What was made, unknown to the mount, in the gap shows
/// when it is looked for.
async fn resync(fs: &Fs, from: Revision) -> Result<Revision, OpError> {
    let revision = current(fs).await?;
    if revision < from {
        tracing::error!(%revision, seen = %from, "the server has lost revisions that this mount has seen");
    }
    let keys = fs.nodes.with(|table| {
        table.distrust(revision.0);
        table.known_keys()
    });
    let reads = stream::iter(keys).map(|key| async move {
        let read = match fs.remote.get(key.clone().into(), Freshness::AtLeast(revision)).await {
            // Who looks for it is told.
            Err(RemoteError::PermissionDenied) => Ok(None),
            read => read.map(Some),
        };
        read.map(|read| (key, read))
    });
    let mut reads = reads.buffer_unordered(READS);
    while let Some(read) = reads.next().await {
        let (key, read) = read?;
        let Some(At { revision, found }) = read else {
            fs.nodes.with(|table| table.withhold(&key));
            continue;
        };
        let value = found.as_ref().map(Value::from);
        let rev = value.as_ref().map_or(revision.0, |value| value.rev);
        fs.nodes.with(|table| table.caught_up(&key, rev, value));
    }
    fs.nodes.with(|table| table.saw(revision.0));
    Ok(revision)
}

/// Reads at a time.
const READS: usize = 32;
