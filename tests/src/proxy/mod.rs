//! A TCP proxy that loses exactly the answer it is told to lose.
//!
//! It reads the HTTP/2 frames of both directions. A [`Cut`] names bytes that a
//! request holds (a key, say) and the moment: before the request reaches the
//! server, as it does, or once the server has answered it, and so surely
//! executed it, with the answer withheld. Then both ends of the connection are
//! closed. A client can't tell the three apart, and must be right in each.

mod frame;

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::Notify,
};

use crate::{api::runtime, port::Port, wait};
use frame::{Frame, Frames};

/// When the connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The server never sees the request.
    BeforeRequest,
    /// The server has the request's bytes; nobody knows what it makes of them.
    AfterRequest,
    /// The server has executed the request; its answer is lost.
    BeforeAnswer,
    /// The connection closes for the client, and the request reaches the server later, with
    /// [`Proxy::release`]: after whatever the client has sent meanwhile.
    Delayed,
}

/// What to lose, once.
#[derive(Clone, Debug)]
pub struct Cut {
    /// The request's message holds each of these.
    pub holds: Vec<Vec<u8>>,
    pub moment: Moment,
}

/// A proxy in front of one server; it ends with its value.
#[derive(Debug)]
pub struct Proxy {
    port: Port,
    shared: Arc<Shared>,
    accepting: tokio::task::JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    server: String,
    state: Mutex<State>,
    /// Told when every connection is to close.
    sever: Notify,
    /// Told when a delayed request goes on its way.
    release: Notify,
}

#[derive(Debug, Default)]
struct State {
    armed: Option<Cut>,
    cuts_done: u64,
    messages: u64,
    refusing: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }
}

impl Proxy {
    /// Listens for the server at `server`.
    pub fn to(server: &str) -> Self {
        let port = Port::take();
        let shared = Arc::new(Shared {
            server: server.into(),
            state: Mutex::default(),
            sever: Notify::new(),
            release: Notify::new(),
        });
        let listener = runtime().block_on(TcpListener::bind(port.address())).expect("the port is ours");
        let accepting = runtime().spawn(accept(listener, shared.clone()));
        Self { port, shared, accepting }
    }

    /// `127.0.0.1:PORT`, where clients connect.
    pub fn endpoint(&self) -> String {
        self.port.address()
    }

    /// Loses the next request that fits `cut`.
    pub fn arm(&self, cut: Cut) {
        self.shared.state().armed = Some(cut);
    }

    /// Loses nothing any more; true if the last cut was still waiting for its request.
    pub fn disarm(&self) -> bool {
        self.shared.state().armed.take().is_some()
    }

    /// Cuts made so far.
    pub fn cuts_done(&self) -> u64 {
        self.shared.state().cuts_done
    }

    /// Messages that clients have sent so far, or parts of them: not what keeps the connection alive.
    pub fn messages(&self) -> u64 {
        self.shared.state().messages
    }

    /// Waits until `count` cuts were made in all.
    #[track_caller]
    pub fn wait_for_cuts(&self, count: u64) {
        wait::until_true("the proxy has cut the connection", || self.cuts_done() >= count);
    }

    /// Lets a delayed request go on to the server, and waits until that has answered it.
    #[track_caller]
    pub fn release(&self) {
        let before = self.cuts_done();
        self.shared.release.notify_one();
        self.wait_for_cuts(before + 1);
    }

    /// Closes every connection and, while `refusing`, takes no new one.
    pub fn sever(&self, refusing: bool) {
        self.shared.state().refusing = refusing;
        self.shared.sever.notify_waiters();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.shared.sever.notify_waiters();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        if shared.state().refusing {
            continue;
        }
        let shared = shared.clone();
        tokio::spawn(async move {
            let Ok(server) = TcpStream::connect(&shared.server).await else { return };
            // Small frames are whole requests: none may wait for an acknowledgement.
            if client.set_nodelay(true).is_err() || server.set_nodelay(true).is_err() {
                return;
            }
            relay(client, server, &shared).await;
        });
    }
}

/// Moves frames both ways until either side ends, or a cut closes both.
async fn relay(client: TcpStream, server: TcpStream, shared: &Shared) {
    let (client_in, client_out) = client.into_split();
    let (server_in, server_out) = server.into_split();
    let withheld = Mutex::new(HashSet::new());
    let hang_up = Notify::new();
    // Whichever ends first drops the other, and with it both sockets.
    tokio::select! {
        () = requests(client_in, server_out, shared, &withheld, &hang_up) => {}
        () = answers(server_in, client_out, shared, &withheld, &hang_up) => {}
        () = shared.sever.notified() => {}
    }
}

async fn requests(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    shared: &Shared,
    withheld: &Mutex<HashSet<u32>>,
    hang_up: &Notify,
) {
    let mut frames = Frames::of_client();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let Ok(read @ 1..) = from.read(&mut buffer).await else { return };
        frames.feed(&buffer[..read]);
        while let Some(frame) = frames.next() {
            let moment = {
                let mut state = shared.state();
                state.messages += u64::from(frame.is_data());
                let fits = state.armed.as_ref().is_some_and(|cut| frame.is_data() && frame.holds(&cut.holds));
                if fits { state.armed.take().map(|cut| cut.moment) } else { None }
            };
            match moment {
                None => {}
                Some(Moment::BeforeRequest) => return done(shared),
                Some(Moment::AfterRequest) => {
                    let _sent = to.write_all(&frame.bytes).await;
                    return done(shared);
                }
                Some(Moment::BeforeAnswer) => {
                    let stream = frame.stream();
                    withheld.lock().expect("no holder of this lock panics").insert(stream);
                }
                Some(Moment::Delayed) => {
                    withheld.lock().expect("no holder of this lock panics").insert(frame.stream());
                    hang_up.notify_one();
                    let held = rest_of(frame, &mut frames, &mut from, &mut buffer).await;
                    shared.release.notified().await;
                    let _sent = to.write_all(&held).await;
                    // The answer, or the server's end, ends the relay.
                    return std::future::pending().await;
                }
            }
            if to.write_all(&frame.bytes).await.is_err() {
                return;
            }
        }
    }
}

/// The request that `first` belongs to, to its end, as far as the client has sent it before it hung up.
async fn rest_of(first: Frame, frames: &mut Frames, from: &mut OwnedReadHalf, buffer: &mut [u8]) -> Vec<u8> {
    let stream = first.stream();
    let mut held = first.bytes;
    loop {
        while let Some(frame) = frames.next() {
            if frame.is_data() && frame.stream() == stream {
                held.extend_from_slice(&frame.bytes);
            }
        }
        let Ok(read @ 1..) = from.read(buffer).await else { return held };
        frames.feed(&buffer[..read]);
    }
}

async fn answers(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    shared: &Shared,
    withheld: &Mutex<HashSet<u32>>,
    hang_up: &Notify,
) {
    let mut frames = Frames::of_server();
    let mut buffer = vec![0; 64 * 1024];
    let mut hung_up = false;
    loop {
        let read = tokio::select! {
            read = from.read(&mut buffer) => read,
            () = hang_up.notified() => {
                hung_up = true;
                let _gone = to.shutdown().await;
                continue;
            }
        };
        let Ok(read @ 1..) = read else { return };
        frames.feed(&buffer[..read]);
        while let Some(frame) = frames.next() {
            if is_withheld(&frame, withheld) {
                return done(shared);
            }
            if !hung_up && to.write_all(&frame.bytes).await.is_err() {
                return;
            }
        }
    }
}

fn is_withheld(frame: &Frame, withheld: &Mutex<HashSet<u32>>) -> bool {
    let withheld = withheld.lock().expect("no holder of this lock panics");
    frame.is_answer() && withheld.contains(&frame.stream())
}

fn done(shared: &Shared) {
    shared.state().cuts_done += 1;
}
