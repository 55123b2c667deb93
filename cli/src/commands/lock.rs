//! `etcfs lock`

use std::{
    ffi::OsString,
    os::unix::{ffi::OsStrExt as _, ffi::OsStringExt as _, process::ExitStatusExt as _},
    process::ExitCode,
};

use bytes::Bytes;
use clap::Args;
use etcfs_client::Client;
use etcfs_proto::etcdserverpb::RangeRequest;
use tokio::process::Command;

use crate::{
    args::Global,
    connect,
    error::CliError,
    output::Output,
    session::{Place, Session, expired, interrupted},
};

/// Takes a lock, and holds it until Ctrl-C or for as long as a command runs.
///
/// The command finds the lock's key in ETCD_LOCK_KEY and its fencing token, which rises from owner to owner, in
/// ETCD_LOCK_REV; its exit code becomes this command's.
#[derive(Args, Debug)]
#[command(after_help = "Example: etcfs lock /project/backup sh -c ./backup")]
pub(crate) struct LockArgs {
    name: Option<OsString>,
    /// What runs under the lock; options are ours up to its first word
    #[arg(value_name = "COMMAND", trailing_var_arg = true)]
    command: Vec<OsString>,
    /// Seconds after which the lock is free, should this command die
    #[arg(long, default_value_t = 10, value_name = "SECONDS")]
    ttl: i64,
}

pub(crate) async fn run(global: &Global, args: LockArgs) -> Result<ExitCode, CliError> {
    let output = Output::new(global)?;
    let Some(name) = args.name else {
        return Err(CliError::arguments(
            "lock takes a lock name argument and an optional command to execute",
        ));
    };
    let client = connect::client(global)?;
    let mut session = Session::open(&client, args.ttl).await?;
    let held = hold(&client, &mut session, name.as_bytes(), args.command, output).await;
    let closed = session.close(&client).await;
    let code = held?;
    closed.map(|()| code)
}

async fn hold(
    client: &Client,
    session: &mut Session,
    name: &[u8],
    command: Vec<OsString>,
    output: Output,
) -> Result<ExitCode, CliError> {
    let lease = session.lease();
    let place = async {
        let place = Place::take(client, name, lease, Bytes::new()).await?;
        place.first(client).await.map(|()| place)
    };
    let place = tokio::select! {
        place = place => place?,
        () = session.lost() => return Err(expired()),
        interrupted = interrupted() => {
            interrupted?;
            return Err(CliError::failed("interrupted while it waited for the lock"));
        }
    };
    let code = match command.split_first() {
        Some((program, arguments)) => run_under(session, &place, program, arguments).await?,
        None => {
            let request = RangeRequest { key: place.key.clone(), ..RangeRequest::default() };
            output.range(&client.kv().range(request.clone()).await?, &request, false)?;
            tokio::select! {
                interrupted = interrupted() => interrupted?,
                () = session.lost() => return Err(expired()),
            }
            ExitCode::SUCCESS
        }
    };
    place.leave(client).await.map(|()| code)
}

/// Runs a command while the lock is held. Signals reach it by themselves: a terminal sends them to both.
async fn run_under(
    session: &mut Session,
    place: &Place,
    program: &OsString,
    arguments: &[OsString],
) -> Result<ExitCode, CliError> {
    let mut command = Command::new(program);
    command.args(arguments);
    command.env("ETCD_LOCK_KEY", OsString::from_vec(place.key.to_vec()));
    command.env("ETCD_LOCK_REV", place.revision.to_string());
    let failed = |error| CliError::failed(format!("{}: {error}", program.to_string_lossy()));
    let mut child = command.spawn().map_err(failed)?;
    let mut lost = false;
    let status = loop {
        tokio::select! {
            status = child.wait() => break status.map_err(failed)?,
            () = session.lost(), if !lost => {
                anstream::eprintln!("Warning: the lock is lost, and the command still runs");
                lost = true;
            }
            // Not the end of this: the lock is given back after the command.
            interrupted = interrupted() => interrupted?,
        }
    };
    if lost {
        return Err(expired().hint("another may have held the lock while the command ran"));
    }
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}
