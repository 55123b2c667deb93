//! Assembly: from a command line to a served mount and back to nothing. The only file that knows everything.
//!
//! Start: arguments, fork, the device and the mount point, the server's first answer, the tree, the mount, the
//! word to the caller. End, by a signal or by umount(8): the mount goes away from its path, what is unsaved is
//! put, the session on the server ends. No process and no thread outlives that.

mod grants;

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use fuser::Session;
use sd_notify::NotifyState;
use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use crate::args::{self, ArgsError};
use crate::config::{Config, Inotify, LockScope, access};
use crate::errno::OpError;
use crate::kernel::Kernel;
use crate::mount::fork::{Half, Report, fork};
use crate::mount::{mounts, point};
use crate::ops::Fs;
use crate::remote::client::{Login, Server};
use crate::remote::{Remote, RemoteError};
use crate::{echo, heap, notify, scrape, sync, telemetry};

use self::grants::Mounted;

/// mount(8)'s exit codes for a wrong command line and for a mount that failed.
const EXIT_USAGE: u8 = 1;
const EXIT_FAILED: u8 = 32;

/// However short `retry` is, one attempt gets so long.
const ATTEMPT: Duration = Duration::from_secs(2);

/// Open files keep a mount that is gone from its path; they are not waited for longer.
const DETACH_WITHIN: Duration = Duration::from_secs(1);

/// What is tried for inotify's listeners keeps nobody from a mount for longer.
const TRY_WITHIN: Duration = Duration::from_secs(1);

/// A server that does not answer can't keep a mount from ending.
const FLUSH_WITHIN: Duration = Duration::from_secs(30);
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// What `args` begin with where the binary is `etcfs`, and this its command `mount`.
pub const AS_COMMAND: &str = "etcfs mount";

/// `mount.etcfs`, whole. Call it before there is any thread. `args` begin with the program's name.
pub fn main_with(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    if let [_, flag, rest @ ..] = args.as_slice()
        && flag == echo::process::FLAG
    {
        return echo::child::main(rest);
    }
    let before =
        if args.first().is_some_and(|name| name == AS_COMMAND) { vec!["mount".into()] } else { vec![] };
    let config = match args::parse(args) {
        Ok(config) => config,
        Err(ArgsError::Usage(words)) => {
            // Where nothing can be printed, nobody reads it.
            let _unread = words.print();
            return if words.use_stderr() { ExitCode::from(EXIT_USAGE) } else { ExitCode::SUCCESS };
        }
        Err(error) => return say(&error.to_string(), EXIT_USAGE),
    };
    if config.foreground {
        return match serve(&config, before, &mut Report::to_nobody()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => say(&format!("{error:#}"), EXIT_FAILED),
        };
    }
    match fork() {
        Ok(Half::Caller(Ok(()))) => ExitCode::SUCCESS,
        Ok(Half::Caller(Err(reason))) => say(&reason, EXIT_FAILED),
        Ok(Half::Daemon(mut report)) => match serve(&config, before, &mut report) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                tracing::error!("{error:#}");
                report.failed(&format!("{error:#}"));
                ExitCode::from(EXIT_FAILED)
            }
        },
        Err(error) => say(&format!("no process can be made: {error}"), EXIT_FAILED),
    }
}

#[expect(clippy::print_stderr, reason = "a command's own words to who runs it")]
fn say(text: &str, code: u8) -> ExitCode {
    eprintln!("mount.etcfs: {text}");
    ExitCode::from(code)
}

fn serve(config: &Config, before: Vec<OsString>, report: &mut Report) -> anyhow::Result<()> {
    heap::keep_small();
    telemetry::start(config.foreground, config.verbose);
    point::check_device()?;
    // One thread: what a request does is little, and most of it would be to wake a second. `ops` leaves it while it
    // has much to do.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .thread_name("etcfs-mount")
        .build()
        .context("the runtime can't be started")?;
    let served = runtime.block_on(mounted(config, before, report));
    // A call that still waits for a server that is gone is not waited for.
    runtime.shutdown_background();
    served
}

async fn mounted(config: &Config, before: Vec<OsString>, report: &mut Report) -> anyhow::Result<()> {
    let mut ends = Ends::new()?;
    let mount_point = point::prepare(config)?;
    let (tls, credentials) = access::read(&config.access, &config.source.endpoints)?;
    let password = credentials.as_ref().and_then(|found| access::password(&config.access, &found.user));
    let login = Login { tls, credentials, password };
    let server = Arc::new(Server::new(&config.source.endpoints, login, config.view.patience)?);
    let asked = Instant::now();
    let rights = tokio::select! {
        rights = grants::rights(config, &server) => rights,
        () = ends.signal() => bail!("interrupted"),
    };
    let waited = Duration::from_secs(asked.elapsed().as_secs());
    let Mounted { map, remote, missing } = grants::mounted(config, &server, rights)?;
    let mut view = config.view.clone();
    if missing.locks {
        view.locks = LockScope::Off;
    }
    let fs = Fs::new(map, remote, view, Handle::current());
    if !missing.told.is_empty() {
        let lacking = missing.told.join("; ");
        tracing::warn!(lacking, "the mount's user has not all rights that a mount needs");
        fs.note_rights(lacking);
    }
    if let Some(address) = config.metrics {
        scrape::start(&fs, address).await.with_context(|| format!("metrics={address}"))?;
    }
    tokio::select! {
        begun = begin(config, &server, &fs, waited, report) => begun?,
        () = ends.signal() => bail!("interrupted"),
    }

    let kernel = Kernel::new(fs.clone());
    let notifier = kernel.notifier();
    let (at, options) = (mount_point.clone(), point::options(config));
    // mount(2) and the first request of the kernel: both block.
    let session = tokio::task::spawn_blocking(move || Session::new(kernel, at, &options)).await?;
    let session = session.map_err(|error| point::explain(error, config))?;
    notifier.get_or_init(|| session.notifier());
    let device = session.as_fd().try_clone_to_owned().context("the device can't be opened twice")?;
    let notifier = notify::start(fs.clone(), device).context("the notifier can't be started")?;
    let mut served = spawn(session)?;
    if let Some(tried) = listen(config, &fs, &mount_point, before) {
        // Else the mount could not be unmounted at once: it would be busy. Nothing is sent.
        drop(timeout(TRY_WITHIN, tried).await);
    }

    report.mounted().context("who asked for the mount is gone")?;
    tell(&[NotifyState::Ready]);
    tracing::info!(source = config.source.text, point = %mount_point.display(), "mounted");

    let ended = tokio::select! {
        ended = &mut served => ended.unwrap_or_else(|_| Err(io::Error::other("the session's thread panicked"))),
        () = ends.signal() => {
            tell(&[NotifyState::Stopping]);
            if let Err(error) = point::detach(&mount_point) {
                tracing::warn!(%error, "the mount can't be taken from its path");
            }
            // Files that are still open end with this process.
            timeout(DETACH_WITHIN, &mut served).await.map_or(Ok(()), |ended| ended.unwrap_or(Ok(())))
        }
    };
    tracing::info!(point = %mount_point.display(), "unmounted");

    let flushed = tokio::select! {
        flushed = timeout(FLUSH_WITHIN, fs.shutdown()) => flushed.is_ok(),
        () = ends.signal() => false,
    };
    if !flushed {
        bail!("ended while the server did not answer: what was written and not yet saved is lost");
    }
    // The session ends by itself some minutes later if this fails.
    if !matches!(timeout(CLOSE_WITHIN, server.close()).await, Ok(Ok(()))) {
        tracing::debug!("the session was left to end by itself");
    }
    if notifier.join().is_err() {
        tracing::error!("the notifier's thread panicked");
    }
    ended.context("the kernel's requests can't be read any more")
}

/// Reads the tree's first revision, or says which server does not answer; with `bg` it goes on trying instead, and
/// who asked for the mount is let go.
async fn begin(
    config: &Config,
    server: &Server,
    fs: &Arc<Fs>,
    waited: Duration,
    report: &mut Report,
) -> anyhow::Result<()> {
    let limit = config.retry.saturating_sub(waited).max(ATTEMPT);
    let is_late = |error: &OpError| matches!(error, OpError::Remote(RemoteError::TimedOut(_)));
    let failed = |error: OpError| anyhow!("{}: {error}", config.source.text);
    match timeout(limit, sync::start(fs)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error @ OpError::Remote(RemoteError::PermissionDenied))) => {
            let why = timeout(ATTEMPT, grants::denied(config, server)).await.ok().flatten();
            Err(why.map_or_else(|| failed(error), |why| anyhow!("{}: {why}", config.source.text)))
        }
        Ok(Err(error)) if !config.background || !is_late(&error) => Err(failed(error)),
        Err(_) if !config.background => {
            let trouble = server.trouble().await;
            bail!(
                "no etcd server at {} within {} s: {trouble}",
                config.source.endpoints.join(", "),
                (limit + waited).as_secs_f32()
            )
        }
        Ok(Err(_)) | Err(_) => {
            tracing::warn!(source = config.source.text, "no server answers yet; mounted as soon as one does");
            report.mounted().context("who asked for the mount is gone")?;
            loop {
                match sync::start(fs).await {
                    // A soft mount's calls end by themselves.
                    Err(error) if is_late(&error) => {}
                    begun => return begun.map_err(failed),
                }
            }
        }
    }
}

/// Lets inotify's listeners hear of remote changes, as far as that can be.
///
/// The receiver hears of an end when the helper for that has been in the mount for the first time.
fn listen(
    config: &Config,
    fs: &Arc<Fs>,
    mount_point: &Path,
    before: Vec<OsString>,
) -> Option<oneshot::Receiver<()>> {
    let site = mounts::at(mount_point)
        .map(|mounted| echo::Site { point: mount_point.to_path_buf(), device: mounted.device, before })
        .filter(|_| config.view.inotify != Inotify::Off && !config.view.read_only);
    match site.map(|site| echo::start(fs.clone(), site)) {
        Some(Ok(tried)) => return Some(tried),
        Some(Err(error)) => {
            tracing::warn!(%error, "inotify's listeners hear nothing of remote changes");
        }
        None => {}
    }
    fs.nodes.with(|table| table.stop_echo());
    None
}

/// Runs the session on a thread of its own; the answer comes when the mount is gone.
fn spawn(session: Session<Kernel>) -> io::Result<oneshot::Receiver<io::Result<()>>> {
    let (ended, served) = oneshot::channel();
    std::thread::Builder::new().name("etcfs-session".to_owned()).spawn(move || {
        // Nobody listens where the process is ending already.
        let _unheard = ended.send(session.run());
    })?;
    Ok(served)
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager can't be told");
    }
}

/// The signals that end a mount.
struct Ends {
    term: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Ends {
    fn new() -> io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn signal(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}
