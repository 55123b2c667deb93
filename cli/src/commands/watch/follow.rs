//! One watch's events, printed or handed to a command.

use std::ffi::OsString;

use etcfs_client::{BatchKind, ClientError, WatchBatch, Watcher};
use etcfs_proto::mvccpb::{Event, event::EventType};
use futures_util::StreamExt as _;

use crate::{
    error::{CliError, Kind},
    output::Output,
    words,
};

/// Follows a watch until it ends, which only happens with an error.
pub(super) async fn run(
    mut watcher: Watcher,
    output: Output,
    command: Vec<OsString>,
) -> Result<(), CliError> {
    while let Some(batch) = watcher.next().await {
        match batch {
            Ok(batch) => show(&batch, output, &command).await?,
            Err(error) => return Err(ended(output, error)),
        }
    }
    Ok(())
}

pub(super) async fn show(batch: &WatchBatch, output: Output, command: &[OsString]) -> Result<(), CliError> {
    match batch.kind {
        BatchKind::Created { .. } => return Ok(()),
        BatchKind::Events | BatchKind::Progress | BatchKind::ProgressAnswer => output.watch(batch)?,
    }
    for event in &batch.events {
        execute(batch.header.revision, event, command).await?;
    }
    Ok(())
}

pub(super) fn ended(output: Output, error: ClientError) -> CliError {
    let reason = match error {
        ClientError::Compacted { revision } => {
            if let Err(error) = output.watch_compacted(revision) {
                return error;
            }
            "etcdserver: mvcc: required revision has been compacted".to_owned()
        }
        ClientError::WatchCanceled { reason } => reason,
        other => return other.into(),
    };
    anstream::eprintln!("watch was canceled ({reason})");
    CliError::new(Kind::Interrupted, "watch is canceled by the server")
}

async fn execute(revision: i64, event: &Event, command: &[OsString]) -> Result<(), CliError> {
    let (Some((program, arguments)), Some(kv)) = (command.split_first(), &event.kv) else {
        return Ok(());
    };
    let name = if event.r#type() == EventType::Put { "PUT" } else { "DELETE" };
    let status = tokio::process::Command::new(program)
        .args(arguments)
        .env("ETCD_WATCH_REVISION", revision.to_string())
        .env("ETCD_WATCH_EVENT_TYPE", words::quoted(name.as_bytes()))
        .env("ETCD_WATCH_KEY", words::quoted(&kv.key))
        .env("ETCD_WATCH_VALUE", words::quoted(&kv.value))
        .status()
        .await;
    let failed = |reason: String| CliError::failed(format!("command {program:?} error ({reason})"));
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(failed(status.to_string())),
        Err(error) => Err(failed(error.to_string())),
    }
}
