//! HTTP/2 by hand: what no library would send.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, channel},
    },
    time::Duration,
};

use etcfs_tests::wait::PATIENCE;

pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
const GOAWAY: u8 = 7;
pub(super) const CONTINUATION: u8 = 9;
/// Flag of HEADERS: the block is whole.
pub(super) const END_HEADERS: u8 = 4;
/// Code of RST_STREAM.
pub(super) const CANCEL: u32 = 8;

/// A connection that has said hello.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    end: Receiver<End>,
    /// Pings that the server has answered.
    pongs: Arc<AtomicUsize>,
}

/// How the server ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// By GOAWAY, with its code.
    GoAway(u32),
    /// Without a word.
    HungUp,
}

impl Connection {
    pub(super) fn open(endpoint: &str) -> Self {
        let mut stream = TcpStream::connect(endpoint).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
        let hello = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &frame(SETTINGS, 0, 0, &[])].concat();
        stream.write_all(&hello).unwrap();
        let (told, end) = channel();
        let mut reader = stream.try_clone().unwrap();
        let pongs = Arc::<AtomicUsize>::default();
        let counted = pongs.clone();
        std::thread::spawn(move || {
            let _nobody_waits = told.send(read_to_end(&mut reader, &counted));
        });
        Self { stream, end, pongs }
    }

    /// Fails once the server has hung up.
    pub(super) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    pub(super) fn has_ended(&self) -> Option<End> {
        self.end.try_recv().ok()
    }

    pub(super) fn pongs(&self) -> usize {
        self.pongs.load(Ordering::Relaxed)
    }

    /// Waits for the end.
    #[track_caller]
    pub(super) fn end(&self) -> End {
        self.end.recv_timeout(PATIENCE).expect("the server ends the connection")
    }
}

/// Reads frames until the server says goodbye or hangs up.
fn read_to_end(stream: &mut TcpStream, pongs: &AtomicUsize) -> End {
    let mut read = || -> io::Result<Option<u32>> {
        let mut head = [0; 9];
        stream.read_exact(&mut head)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload)?;
        if head[3] == PING {
            pongs.fetch_add(1, Ordering::Relaxed);
        }
        let code = |bytes: &[u8]| u32::from_be_bytes(bytes[4..8].try_into().expect("four bytes"));
        // An orderly end has no error, and is none here.
        Ok((head[3] == GOAWAY).then(|| code(&payload)).filter(|code| *code != 0))
    };
    loop {
        match read() {
            Ok(Some(code)) => return End::GoAway(code),
            Ok(None) => {}
            Err(_) => return End::HungUp,
        }
    }
}

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a frame is short").to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The headers of a gRPC call, without a table: HPACK's literals.
pub(super) fn call_headers(path: &str) -> Vec<u8> {
    // :method POST, :scheme http.
    let mut block = vec![0x83, 0x86];
    let mut literal = |index: &[u8], value: &str| {
        block.extend(index);
        block.push(u8::try_from(value.len()).expect("a header is short"));
        block.extend(value.as_bytes());
    };
    literal(&[0x04], path);
    literal(&[0x01], "localhost");
    // content-type, whose index is above what four bits hold.
    literal(&[0x0f, 0x10], "application/grpc");
    block
}
