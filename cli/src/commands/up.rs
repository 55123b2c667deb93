//! `etcfs up`: a server and a mount of its keys, in the foreground.
//!
//! The work is done by two children of this binary, so that neither can take
//! the other along; this process only starts them, starts them again, and
//! ends them in order. It keeps one thread: the kernel ends children with the
//! thread that made them.

pub(super) mod child;
mod fuse;
mod part;
mod place;
mod port;

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use clap::Args;
use etcfs_client::{Client, Config};
use tokio::signal::unix::{SignalKind, signal};

use self::{
    part::{Part, Supervised},
    place::{Claim, Place},
};
use crate::error::CliError;

/// Where clients look by themselves.
const USUAL_ENDPOINT: &str = "127.0.0.1:2379";
/// Between two looks whether a child is ready.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// After so long a person is told what is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// Serves keys and mounts them at DIR, until Ctrl-C.
///
/// Starts a server of one member and, at DIR, the file system of its keys. The
/// data lies beside DIR and stays; Ctrl-C unmounts and stops both. What dies in
/// between is started again.
#[derive(Args, Debug)]
pub(crate) struct UpArgs {
    /// Where to mount: an empty directory, made if it is not there
    dir: PathBuf,
    /// Where the data lies [default: DIR.etcd]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Port to serve at, on 127.0.0.1 [default: 2379, or the next free one]
    #[arg(long)]
    port: Option<u16>,
    /// Serve without a mount
    #[arg(long)]
    no_mount: bool,
}

pub(crate) fn run(args: &UpArgs) -> Result<(), CliError> {
    let place = Place::find(&args.dir, args.data_dir.as_deref())?;
    place.refuse_if_held()?;
    if !args.no_mount {
        fuse::check()?;
        place.make_mount_point()?;
    }
    let mut claim = place.claim()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut from = port::USUAL;
    loop {
        let listen = port::choose(args.port, from)?;
        if args.port.is_none() && listen.port() != port::USUAL {
            anstream::println!("Port {} is in use; serving at port {} instead.", port::USUAL, listen.port());
        }
        claim.tell(&listen.to_string())?;
        match runtime.block_on(serve(&place, &claim, &listen.to_string(), args.no_mount))? {
            Served::Stopped => return Ok(()),
            Served::PortTaken => from = listen.port() + 1,
        }
    }
}

/// How serving came to its end.
#[derive(Debug, PartialEq, Eq)]
enum Served {
    Stopped,
    /// Somebody took the port after it was found free.
    PortTaken,
}

/// What a server's log says once it listens: that something answers at its
/// port is not enough, it might be somebody else.
const SERVER_IS_READY: &str = "ready to serve client requests";
const PORT_IS_TAKEN: &str = "Address already in use";

async fn serve(place: &Place, _claim: &Claim, endpoint: &str, no_mount: bool) -> Result<Served, CliError> {
    let mut signals = Signals::listen()?;
    let part = Part::server(place, endpoint)?;
    let log = part.log().to_path_buf();
    let mut server = Supervised::start(part)?;
    tokio::select! {
        ready = ready(&mut server, "the server", async || part::says(&log, SERVER_IS_READY) && answers(endpoint).await) => {
            if let Err(error) = ready {
                server.stop().await;
                return if part::says(&log, PORT_IS_TAKEN) { Ok(Served::PortTaken) } else { Err(error) };
            }
        }
        () = signals.next() => {
            server.stop().await;
            return Ok(Served::Stopped);
        }
    }
    let mut mount = None;
    if !no_mount {
        let mut started = Supervised::start(Part::mount(place, endpoint)?)?;
        let point = place.mount_point();
        let outcome = tokio::select! {
            ready = ready(&mut started, "the mount", async || place::is_mounted(point)) => Some(ready),
            () = signals.next() => None,
        };
        match outcome {
            Some(Ok(())) => mount = Some(started),
            Some(Err(error)) => {
                started.stop().await;
                server.stop().await;
                return Err(error);
            }
            None => {
                started.stop().await;
                server.stop().await;
                return Ok(Served::Stopped);
            }
        }
    }
    announce(place, endpoint, &server, mount.as_ref())?;

    tokio::select! {
        () = server.keep() => {}
        () = async { match &mut mount { Some(mount) => mount.keep().await, None => std::future::pending().await } } => {}
        () = signals.next() => {}
    }
    anstream::println!("\nstopping");
    let stop = async {
        // The mount first: what it still holds goes to the server.
        if let Some(mount) = &mut mount {
            mount.stop().await;
        }
        server.stop().await;
    };
    tokio::select! {
        () = stop => {}
        // Asked twice: children end with us.
        () = signals.next() => anstream::eprintln!("ended at once"),
    }
    anstream::println!("stopped; the keys are in {}", place.data_dir().display());
    Ok(Served::Stopped)
}

/// Waits until a child is ready; an error if it ends instead.
async fn ready(child: &mut Supervised, name: &str, look: impl AsyncFn() -> bool) -> Result<(), CliError> {
    let begin = Instant::now();
    let mut told = false;
    loop {
        if look().await {
            return Ok(());
        }
        if let Some(status) = child.has_ended()? {
            let reason = child.last_words();
            return Err(CliError::failed(format!("{name} did not start ({status})\n{reason}"))
                .hint(format!("all it said is in {}", child.log().display())));
        }
        if !told && begin.elapsed() > PATIENCE {
            told = true;
            anstream::println!("waiting for {name}; it says what it does in {}", child.log().display());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// True once the server answers requests that need its log.
async fn answers(endpoint: &str) -> bool {
    let config = Config {
        endpoints: vec![endpoint.to_owned()],
        connect_timeout: Duration::from_secs(1),
        request_timeout: Duration::from_secs(1),
        ..Config::default()
    };
    let key = || etcfs_proto::etcdserverpb::RangeRequest { key: "health".into(), ..Default::default() };
    match Client::connect(config) {
        Ok(client) => client.kv().range(key()).await.is_ok(),
        Err(_) => false,
    }
}

/// Says what runs where, and how to try it.
fn announce(
    place: &Place,
    endpoint: &str,
    server: &Supervised,
    mount: Option<&Supervised>,
) -> Result<(), CliError> {
    let mut rows = vec![("serves", endpoint.to_owned(), format!("etcd v3 API (process {})", server.pid()))];
    if let Some(mount) = mount {
        let point = place.mount_point().display().to_string();
        rows.push(("mounts", point, format!("every key a file (process {})", mount.pid())));
    }
    rows.push(("data", place.data_dir().display().to_string(), "stays when this stops".to_owned()));
    let width = rows.iter().map(|(_, what, _)| what.chars().count()).max().unwrap_or(0);
    let bold = clap::builder::styling::Style::new().bold();
    let mut out = anstream::stdout().lock();
    for (name, what, note) in rows {
        writeln!(out, "  {name:7} {bold}{what:width$}{bold:#}  {note}")?;
    }
    let flag = if endpoint == USUAL_ENDPOINT { String::new() } else { format!(" --endpoints {endpoint}") };
    let lines = match mount {
        Some(_) => {
            let shown = shorter(place.mount_point());
            [
                format!("echo hello > {shown}/greeting"),
                format!("etcfs{flag} get /greeting"),
                format!("tail -f {shown}/greeting"),
            ]
        }
        None => [
            format!("etcfs{flag} put /greeting hello"),
            format!("etcfs{flag} get /greeting"),
            format!("etcfs{flag} watch --prefix /"),
        ],
    };
    writeln!(out, "\nTry it in another terminal (etcdctl works as well as etcfs):")?;
    for line in lines {
        writeln!(out, "  {line}")?;
    }
    let unmounts = if mount.is_some() { "unmounts and stops" } else { "stops" };
    writeln!(out, "\nCtrl-C {unmounts}.")?;
    out.flush()?;
    Ok(())
}

/// The path from where we are, if it is below.
fn shorter(path: &Path) -> String {
    let here = std::env::current_dir().ok();
    let below = here.and_then(|here| path.strip_prefix(here).ok().map(Path::to_path_buf));
    below
        .filter(|below| !below.as_os_str().is_empty())
        .unwrap_or_else(|| path.to_path_buf())
        .display()
        .to_string()
}

/// What asks a process in the foreground to end.
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

impl Signals {
    fn listen() -> Result<Self, CliError> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}
