//! A process that is a server: arguments, log, signals, exit code.
//!
//! What is the process's alone stands here, so that `run` can serve inside a
//! test or another program.

use std::{
    io::{self, Write as _},
    os::unix::process::CommandExt as _,
    process::{Command, ExitCode},
};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::{
    config::{self, Config, Invocation},
    heap,
    run::{Next, run},
    telemetry, version,
};

/// Bad arguments, as clap and most Unix programs have it.
const EXIT_USAGE: u8 = 2;

/// In the environment of a process that executed itself anew after it had forced a new cluster.
const FORCED: &str = "_ETCFSD_NEW_CLUSTER_IS_FORCED";

/// What etcfsd does with its command line and environment.
pub fn main() -> ExitCode {
    // What is not Unicode can't be one of our names.
    let env = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let printed = match config::parse(std::env::args_os(), env) {
        Ok(Invocation::Serve(config)) => return serve(*config),
        Ok(Invocation::Version) => io::stdout().write_all(version::lines().as_bytes()),
        Ok(Invocation::Help(text) | Invocation::Print(text)) => io::stdout().write_all(text.as_bytes()),
        Err(error) => {
            let _unheard = writeln!(io::stderr(), "etcfsd: {error}");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    if printed.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Serves until SIGTERM or SIGINT; a second one ends the process at once. A server that has to start anew does so
/// in the same process, with the same command line and environment.
pub fn serve(mut config: Config) -> ExitCode {
    heap::give_back();
    telemetry::open(&config.log);
    let forces = config.force_new_cluster;
    if forces && std::env::var_os(FORCED).is_some() {
        // Members that have come since would be thrown out.
        tracing::info!("a new cluster was forced before the disk was full; it is not forced again");
        config.force_new_cluster = false;
    }
    telemetry::abort_on_panic();
    #[cfg(feature = "failpoints")]
    let _failpoints = fail::FailScenario::setup();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "could not start the runtime");
            return ExitCode::FAILURE;
        }
    };
    let served = runtime.block_on(async {
        let shutdown = CancellationToken::new();
        tokio::spawn(cancel_on_signal(shutdown.clone()));
        run(config, shutdown).await
    });
    // Nothing that matters runs any more: what is left must not hold us up.
    runtime.shutdown_background();
    match served {
        Ok(Next::Nothing) => ExitCode::SUCCESS,
        Ok(Next::StartAnew) => {
            tracing::warn!("starting anew after a full disk");
            let error = execute_again(forces);
            tracing::error!(%error, "could not start anew");
            ExitCode::FAILURE
        }
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Has this process execute its own program once more; returns only if that fails. A new cluster that was forced
/// stays as it is.
fn execute_again(forced: bool) -> io::Error {
    let mut args = std::env::args_os();
    // The program that runs, even where a newer one lies in its place by now.
    let mut again = Command::new("/proc/self/exe");
    if let Some(name) = args.next() {
        again.arg0(name);
    }
    if forced {
        again.env(FORCED, "1");
    }
    again.args(args).exec()
}

async fn cancel_on_signal(shutdown: CancellationToken) {
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::warn!("signals can't be caught; they end the process at once");
        return;
    };
    let mut next = async || {
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        }
    };
    let signal = next().await;
    tracing::info!(signal, "shutting down");
    shutdown.cancel();
    let signal = next().await;
    tracing::warn!(signal, "a second signal: ending at once");
    // The log on disk is whole at any moment; this is a kill that says so.
    std::process::exit(1);
}
