//! `etcfs run`

mod place;
mod state;

use std::{ffi::OsString, process::ExitStatus, time::Duration};

use bytes::Bytes;
use clap::Args;
use etcfs_client::{BatchKind, ClientError, WatchBatch, Watcher};
use etcfs_proto::{
    etcdserverpb::WatchCreateRequest,
    key::{TO_END, prefix_end},
};
use futures_util::StreamExt as _;
use tokio::{process::Command, time::Instant};

use self::{place::Place, state::Changes};
use crate::{
    args::{self, Global, duration},
    connect,
    error::{CliError, Kind},
    session::interrupted,
};

/// Runs a command after a key, or the keys of a prefix, have changed.
///
/// Changes that come close together make one run, and so do those that come during a run. A command that fails is run
/// again, at first after a second and at most after a minute. With --state, changes made while this was not running
/// count too: each is followed by at least one run that began after it. The command finds the newest revision in
/// ETCFS_RUN_REVISION.
#[derive(Args, Debug)]
#[command(after_help = "Example: etcfs run --prefix /nginx/ -- systemctl reload nginx")]
pub(crate) struct RunArgs {
    key: OsString,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
    /// All keys that start with KEY
    #[arg(long)]
    prefix: bool,
    /// How long it has to be quiet before the command runs; it waits ten times that long at most
    #[arg(long, default_value = "100ms", value_parser = duration, value_name = "TIME")]
    debounce: Duration,
    /// Run once at the start, whether or not something changed
    #[arg(long)]
    first: bool,
    /// Remember in this file up to which revision the command has run
    #[arg(long, value_name = "FILE")]
    state: Option<std::path::PathBuf>,
}

pub(crate) async fn run(global: &Global, args: RunArgs) -> Result<(), CliError> {
    let client = connect::client(global)?;
    let place = Place::at(args.state)?;
    let key = args::bytes(args.key);
    let (key, range_end) = match args.prefix {
        true if key.is_empty() => (Bytes::from_static(b"\0"), Bytes::from_static(TO_END)),
        true => (key.clone(), prefix_end(&key)),
        false => (key, Bytes::new()),
    };
    let mut request = WatchCreateRequest { key, range_end, ..WatchCreateRequest::default() };
    let mut runner = Runner { changes: Changes::new(args.debounce), command: args.command, place };
    if args.first {
        runner.changes.seen(0, Instant::now().into_std());
    }
    let mut from = runner.place.read()?.map_or(0, |revision| revision + 1);
    loop {
        request.start_revision = from;
        match runner.follow(client.watch(request.clone())).await {
            // What was missed can't be told any more, but that something may have been.
            Err(Ended::Compacted(revision)) => {
                anstream::eprintln!(
                    "Changes before revision {revision} are compacted; the command runs for them"
                );
                runner.changes.seen(revision - 1, Instant::now().into_std());
                from = revision;
            }
            Err(Ended::Failed(error)) => return Err(error),
            Ok(()) => return Ok(()),
        }
    }
}

/// Why there are no more changes.
enum Ended {
    Compacted(i64),
    Failed(CliError),
}

impl<E: Into<CliError>> From<E> for Ended {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

struct Runner {
    changes: Changes,
    command: Vec<OsString>,
    place: Place,
}

impl Runner {
    /// Runs the command for what a watch tells, until somebody interrupts.
    async fn follow(&mut self, mut watcher: Watcher) -> Result<(), Ended> {
        let mut interrupt = std::pin::pin!(interrupted());
        loop {
            let due = self.changes.due().map(Instant::from_std);
            tokio::select! {
                batch = watcher.next() => self.note(batch)?,
                () = sleep_until(due) => {
                    let revision = self.changes.begin();
                    let mut child = self.spawn(revision)?;
                    let (status, interrupted) = loop {
                        tokio::select! {
                            status = child.wait() => break (status?, false),
                            batch = watcher.next() => self.note(batch)?,
                            // A terminal interrupts both; what the command does about it is its own affair.
                            interrupted = &mut interrupt => {
                                interrupted?;
                                break (child.wait().await?, true);
                            }
                        }
                    };
                    self.ended(revision, status)?;
                    if interrupted {
                        return Ok(());
                    }
                }
                interrupted = &mut interrupt => return Ok(interrupted?),
            }
        }
    }

    fn note(&mut self, batch: Option<Result<WatchBatch, ClientError>>) -> Result<(), Ended> {
        let batch = match batch {
            Some(Ok(batch)) => batch,
            Some(Err(ClientError::Compacted { revision })) => return Err(Ended::Compacted(revision)),
            Some(Err(error)) => return Err(error.into()),
            None => return Err(CliError::new(Kind::Interrupted, "the watch ended").into()),
        };
        match batch.kind {
            BatchKind::Events => self.changes.seen(batch.revision, Instant::now().into_std()),
            // From here on nothing is missed, even if this ends before anything happens.
            BatchKind::Created { resumed: false }
                if !self.place.is_known() && self.changes.due().is_none() =>
            {
                self.place.write(batch.revision)?;
            }
            BatchKind::Created { .. } | BatchKind::Progress | BatchKind::ProgressAnswer => {}
        }
        Ok(())
    }

    fn spawn(&self, revision: i64) -> Result<tokio::process::Child, CliError> {
        let (program, arguments) = self.command.split_first().expect("the arguments require a command");
        let mut command = Command::new(program);
        command.args(arguments).env("ETCFS_RUN_REVISION", revision.to_string());
        let failed = |error| CliError::failed(format!("{}: {error}", program.to_string_lossy()));
        command.spawn().map_err(failed)
    }

    fn ended(&mut self, revision: i64, status: ExitStatus) -> Result<(), CliError> {
        if status.success() {
            self.changes.succeeded();
            if revision > 0 {
                self.place.write(revision)?;
            }
            return Ok(());
        }
        let wait = self.changes.failed(Instant::now().into_std());
        anstream::eprintln!("Warning: {} ({status}); again in {wait:?}", self.command[0].to_string_lossy());
        Ok(())
    }
}

/// Never returns where nothing is due.
async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
