//! `etcfs migrate`
//!
//! One pass over all keys writes what differs, while the source's changes are repeated as they come; after it,
//! only they are left. A pass that finds nothing, on a source that stood still, is the proof that the two are
//! equal. Whatever breaks (a cut connection, a compaction, a lease that ran out, the end of this process) is
//! mended by another pass. So nothing is remembered but in the destination, in [`marker`].
//!
//! [`target`] writes, [`leases`] has the leases of both sides, [`pass`] compares.

mod leases;
mod marker;
mod pass;
mod target;

use std::{path::PathBuf, time::Duration};

use clap::Args;
use etcfs_client::{BatchKind, Client, ClientError, WatchBatch, Watcher};
use etcfs_proto::{
    etcdserverpb::{RangeRequest, WatchCreateRequest},
    key::TO_END,
    mvccpb::{Event, event::EventType},
};
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::time::{Instant, interval, interval_at};

use self::{
    leases::Leases,
    marker::Marker,
    target::{Change, Target, is_passing},
};
use crate::{
    args::{Destination, Global},
    connect,
    error::CliError,
    session,
};

/// How often the leases of the source are looked at.
const LEASES_EVERY: Duration = Duration::from_secs(1);
/// How often it is told how far the destination is.
const REPORT_EVERY: Duration = Duration::from_secs(10);
/// Passes that --finish makes before it says that the source does not stand still.
const FINISH_PASSES: usize = 5;
/// Batches of changes that are put together at most.
const BATCHES_MAX: usize = 32;

/// Copies a live cluster to another one, and follows its changes until clients switch over.
///
/// Keys, values, leases with their ids, and which key hangs on which lease; --endpoints is the source, any etcd v3
/// server. Stopped or broken off, it goes on when it is run again. Once clients have stopped writing, `migrate
/// --finish` makes sure that both are equal, and ends it. Users, roles and revisions are not copied.
#[derive(Args, Debug)]
#[command(
    after_help = "Example: etcfs migrate --endpoints old:2379 new:2379\nThen:    etcfs migrate --endpoints old:2379 --finish new:2379"
)]
pub(crate) struct MigrateArgs {
    /// An endpoint of the cluster to copy to; it has to be empty
    #[arg(required_unless_present_any = ["data_dir", "target_version", "force"])]
    destination: Option<String>,
    /// Repeat what is left, prove that both are equal, and end the migration
    #[arg(long)]
    finish: bool,
    /// Make the destination equal even if it has keys or leases of its own, which are lost
    #[arg(long)]
    overwrite: bool,
    #[command(flatten)]
    there: Destination,
    // Of `etcdutl migrate`, which is another thing.
    #[arg(long, hide = true)]
    data_dir: Option<PathBuf>,
    #[arg(long, hide = true)]
    target_version: Option<String>,
    #[arg(long, hide = true)]
    force: bool,
}

pub(crate) async fn run(global: &Global, args: MigrateArgs) -> Result<(), CliError> {
    let is_etcdutls = args.data_dir.is_some() || args.target_version.is_some() || args.force;
    let Some(destination) = args.destination.filter(|_| !is_etcdutls) else {
        return Err(CliError::arguments("the files of etcd are not changed: that is `etcdutl migrate`")
            .hint("`etcfs migrate DESTINATION` copies a running cluster to another one"));
    };
    let source = connect::client(global)?;
    let target = connect::foreign(global, &args.there.security(), vec![destination.clone()])?;
    let marker = Marker::claim(&source, &target, args.overwrite).await?;
    let target = Target::new(target, marker);
    let mut migration = Migration::new(source, target).await?;
    if args.finish { migration.finish(&destination).await } else { migration.copy_and_follow().await }
}

struct Migration {
    source: Client,
    target: Target,
    leases: Leases,
    leases_due: Instant,
    watcher: Watcher,
    /// Every change up to this revision is in the destination, once a pass is over.
    followed: i64,
    /// Something was lost that only a pass brings back.
    pass_due: bool,
}

impl Migration {
    async fn new(source: Client, target: Target) -> Result<Self, CliError> {
        let followed = revision_of(&source).await?;
        let leases = Leases::of(&target.client).await?;
        let watcher = watch(&source, followed + 1);
        let leases_due = Instant::now();
        Ok(Self { source, target, leases, leases_due, watcher, followed, pass_due: false })
    }

    async fn copy_and_follow(&mut self) -> Result<(), CliError> {
        let copied = self.pass().await?;
        anstream::println!(
            "{} keys and {} leases are at the destination, {} changes made for it, as of revision {}",
            copied.keys,
            self.leases.len(),
            copied.changed,
            self.followed
        );
        anstream::eprintln!("Following. Ctrl-C stops it; the same command goes on, --finish ends it.");
        let mut told = self.followed;
        let mut tick = interval(LEASES_EVERY);
        let mut report = interval_at(Instant::now() + REPORT_EVERY, REPORT_EVERY);
        let mut interrupted = std::pin::pin!(session::interrupted());
        loop {
            tokio::select! {
                batch = self.watcher.next() => self.take(batch).await?,
                _ = tick.tick() => match self.mind_leases().await {
                    // The watch waits for it as well.
                    Err(error) if is_passing(&error) => tracing::debug!(%error, "leases are looked at later"),
                    minded => minded?,
                },
                _ = report.tick() => if self.followed != told {
                    told = self.followed;
                    anstream::println!("revision {told}");
                },
                stop = &mut interrupted => {
                    anstream::println!("stopped at revision {}; the same command goes on", self.followed);
                    return stop;
                }
            }
            if self.pass_due {
                let mended = self.pass().await?;
                anstream::println!(
                    "compared anew: {} changes, as of revision {}",
                    mended.changed,
                    self.followed
                );
            }
        }
    }

    /// Ends the migration, if the source lets it: no pass proves anything while clients go on writing.
    async fn finish(&mut self, destination: &str) -> Result<(), CliError> {
        for _ in 0..FINISH_PASSES {
            let before = revision_of(&self.source).await?;
            let found = self.pass().await?;
            let leases = leases::ids(&self.source).await?;
            let equal = found.changed == 0 && leases::ids(&self.target.client).await? == leases;
            if equal && revision_of(&self.source).await? == before {
                self.target.release().await?;
                anstream::println!(
                    "equal as of revision {before}: {} keys, {} leases; clients may go to {destination} now",
                    found.keys,
                    leases.len()
                );
                return Ok(());
            }
        }
        Err(CliError::failed("the source goes on changing")
            .hint("stop its writers, then run --finish again; what was copied stays"))
    }

    /// Compares all keys and writes what differs, while what changes meanwhile is repeated.
    async fn pass(&mut self) -> Result<pass::Found, CliError> {
        loop {
            self.pass_due = false;
            let found = pass::run(self).await?;
            if !self.pass_due {
                return Ok(found);
            }
        }
    }

    /// Repeats what has come so far, without waiting for more. Between the steps of a pass.
    async fn keep_up(&mut self) -> Result<(), CliError> {
        for _ in 0..BATCHES_MAX {
            let Some(batch) = self.watcher.next().now_or_never() else { break };
            self.take(batch).await?;
        }
        if self.leases_due <= Instant::now() {
            self.mind_leases().await?;
        }
        Ok(())
    }

    async fn mind_leases(&mut self) -> Result<(), ClientError> {
        self.leases_due = Instant::now() + LEASES_EVERY;
        self.leases.mirror(&self.source, &self.target.client).await?;
        self.pass_due |= self.leases.take_lost();
        Ok(())
    }

    /// Repeats a batch of changes, and those that wait behind it.
    async fn take(&mut self, first: Option<Result<WatchBatch, ClientError>>) -> Result<(), CliError> {
        let mut batches = Vec::new();
        let mut next = first;
        while let Some(batch) = next {
            match batch {
                Ok(batch) => batches.push(batch),
                // What happened since is gone from the history; a comparison finds it.
                Err(ClientError::Compacted { .. }) => {
                    self.pass_due = true;
                    let now = revision_of(&self.source).await?;
                    self.watcher = watch(&self.source, now + 1);
                    self.followed = now;
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            }
            if batches.len() == BATCHES_MAX {
                break;
            }
            next = self.watcher.next().now_or_never().flatten();
        }
        if batches.is_empty() {
            return Err(CliError::failed("the watch of the source ended"));
        }
        let changes = batches.iter().filter(|batch| batch.kind == BatchKind::Events);
        let mut events: Vec<Event> = changes.flat_map(|batch| batch.events.clone()).collect();
        // One revision is one chunk: what was changed together is changed together.
        let revision = |event: &Event| event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
        events.sort_by_key(revision);
        // All at once: one after the other they would take longer than the source takes to grant them.
        let of_events = events.iter().filter_map(|event| event.kv.as_ref()).map(|kv| kv.lease);
        self.leases.ensure(&self.source, &self.target.client, of_events.filter(|id| *id != 0)).await?;
        for together in events.chunk_by(|a, b| revision(a) == revision(b)) {
            let mut changes = Vec::with_capacity(together.len());
            for event in together {
                let Some(kv) = event.kv.clone() else { continue };
                changes.push(match event.r#type() {
                    EventType::Put => Change::Put(kv),
                    EventType::Delete => Change::Delete(kv.key),
                });
            }
            self.write(changes).await?;
        }
        self.flush().await?;
        let last = batches.iter().filter(|batch| {
            // Before 3.4.25 and 3.5.8 the answer to a progress request runs ahead of the events.
            matches!(batch.kind, BatchKind::Events | BatchKind::Progress)
        });
        self.followed = last.map(|batch| batch.revision).fold(self.followed, i64::max);
        Ok(())
    }

    /// Changes that belong together; they may wait for [`Self::flush`].
    async fn write(&mut self, changes: Vec<Change>) -> Result<(), CliError> {
        self.leases
            .ensure(&self.source, &self.target.client, changes.iter().filter_map(Change::lease))
            .await?;
        let lost = self.target.write(changes, &mut self.leases, &self.source).await?;
        self.pass_due |= lost;
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), CliError> {
        let lost = self.target.flush(&mut self.leases, &self.source).await?;
        self.pass_due |= lost;
        Ok(())
    }
}

fn watch(source: &Client, start_revision: i64) -> Watcher {
    source.watch(WatchCreateRequest {
        key: b"\0".as_slice().into(),
        range_end: TO_END.into(),
        start_revision,
        progress_notify: true,
        ..WatchCreateRequest::default()
    })
}

/// The newest revision, confirmed by the cluster.
async fn revision_of(client: &Client) -> Result<i64, CliError> {
    let nothing = RangeRequest { key: marker::KEY.into(), count_only: true, ..RangeRequest::default() };
    Ok(client.kv().range(nothing).await?.header.unwrap_or_default().revision)
}
