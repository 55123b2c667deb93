//! `etcfs up`: a server, or a cluster of some, and a mount of its keys, in the foreground.
//!
//! The work is done by children of this binary, so that none can take another
//! along; this process only starts them, starts them again, and ends them in
//! order. It keeps one thread: the kernel ends children with the thread that
//! made them.

mod announce;
pub(super) mod child;
mod fuse;
mod nodes;
mod part;
mod place;
mod port;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use clap::Args;
use etcfs_client::{Client, Config};
use futures_util::future::{join_all, try_join_all};
use tokio::signal::unix::{SignalKind, signal};

use self::{
    nodes::Nodes,
    part::{Part, Supervised},
    place::{Claim, Place},
};
use crate::error::CliError;

/// Between two looks whether a child is ready.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// After so long a person is told what is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// Serves keys and mounts them at DIR, until Ctrl-C.
///
/// Starts a server, or with --nodes a cluster of some, and, at DIR, the file
/// system of its keys. The data lies beside DIR and stays; Ctrl-C unmounts and
/// stops all. What dies in between is started again.
#[derive(Args, Debug)]
#[command(after_help = "Example: etcfs up --nodes 3 ./keys")]
pub(crate) struct UpArgs {
    /// Where to mount: an empty directory, made if it is not there
    dir: PathBuf,
    /// Servers of the cluster: 1, 3, 5 or 7 [default: as many as DIR had, at first 1]
    #[arg(long, value_parser = nodes::count, value_name = "COUNT")]
    nodes: Option<u8>,
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
    let nodes = Nodes::of(place.data_dir(), args.nodes)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut from = port::USUAL;
    loop {
        let ports = port::choose_all(args.port, from, nodes.count())?;
        let first = ports[0].port();
        if args.port.is_none() && first != port::USUAL {
            anstream::println!("Port {} is in use; serving at port {first} instead.", port::USUAL);
        }
        nodes.check_peers()?;
        let endpoints: Vec<String> = ports.iter().map(ToString::to_string).collect();
        claim.tell(&endpoints.join(","))?;
        match runtime.block_on(serve(&place, &claim, &nodes, &endpoints, args.no_mount))? {
            Served::Stopped => return Ok(()),
            Served::PortTaken => from = first + 1,
        }
    }
}

/// How serving came to its end.
#[derive(Debug, PartialEq, Eq)]
enum Served {
    Stopped,
    /// Somebody took a port after it was found free.
    PortTaken,
}

/// What a server's log says once it listens: that something answers at its
/// port is not enough, it might be somebody else.
const SERVER_IS_READY: &str = "ready to serve client requests";
/// What it says if it can't; the ports for peers have been looked at before.
const PORT_IS_TAKEN: [&str; 2] = ["--listen-client-urls", "Address already in use"];

async fn serve(
    place: &Place,
    _claim: &Claim,
    nodes: &Nodes,
    endpoints: &[String],
    no_mount: bool,
) -> Result<Served, CliError> {
    let mut signals = Signals::listen()?;
    let mut running = Running::default();
    let started = tokio::select! {
        started = running.start(place, nodes, endpoints, no_mount) => Some(started),
        () = signals.next() => None,
    };
    match started {
        Some(Ok(())) => {}
        Some(Err(error)) => {
            running.stop().await;
            return if running.lacks_a_port() { Ok(Served::PortTaken) } else { Err(error) };
        }
        None => {
            running.stop().await;
            return Ok(Served::Stopped);
        }
    }
    announce::announce(place, endpoints, &running)?;

    tokio::select! {
        () = running.keep() => {}
        () = signals.next() => {}
    }
    anstream::println!("\nstopping");
    tokio::select! {
        () = running.stop() => {}
        // Asked twice: children end with us.
        () = signals.next() => anstream::eprintln!("ended at once"),
    }
    anstream::println!("stopped; the keys are in {}", place.data_dir().display());
    Ok(Served::Stopped)
}

/// The children of one `up`.
#[derive(Debug, Default)]
struct Running {
    servers: Vec<Supervised>,
    mount: Option<Supervised>,
}

impl Running {
    /// Starts the servers, beside each other as members of a cluster wait for one another, and then the mount.
    async fn start(
        &mut self,
        place: &Place,
        nodes: &Nodes,
        endpoints: &[String],
        no_mount: bool,
    ) -> Result<(), CliError> {
        for (node, endpoint) in nodes.list(place.data_dir()).iter().zip(endpoints) {
            self.servers.push(Supervised::start(Part::server(place, node, endpoint)?)?);
        }
        // All at once: who waits for the others must hear that one of them has ended.
        let all_ready = self.servers.iter_mut().zip(endpoints).map(async |(server, endpoint)| {
            let log = server.log().to_path_buf();
            ready(server, async || part::says(&log, SERVER_IS_READY) && answers(endpoint).await).await
        });
        try_join_all(all_ready).await?;
        if !no_mount {
            let part = Part::mount(place, &endpoints.join(","))?;
            let mount = self.mount.insert(Supervised::start(part)?);
            ready(mount, async || place::is_mounted(place.mount_point())).await?;
        }
        Ok(())
    }

    fn lacks_a_port(&self) -> bool {
        let lacks = |server: &Supervised| PORT_IS_TAKEN.iter().all(|words| part::says(server.log(), words));
        self.servers.iter().any(lacks)
    }

    /// Starts again whatever dies; never returns.
    async fn keep(&mut self) {
        join_all(self.servers.iter_mut().chain(&mut self.mount).map(Supervised::keep)).await;
    }

    async fn stop(&mut self) {
        // The mount first: what it still holds goes to the servers.
        if let Some(mount) = &mut self.mount {
            mount.stop().await;
        }
        join_all(self.servers.iter_mut().map(Supervised::stop)).await;
    }
}

/// Waits until a child is ready; an error if it ends instead.
async fn ready(child: &mut Supervised, look: impl AsyncFn() -> bool) -> Result<(), CliError> {
    let name = child.name().to_owned();
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
