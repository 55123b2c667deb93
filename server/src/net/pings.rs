//! How often a client may ping.
//!
//! gRPC's servers end a connection whose client pings over and over: answering costs the
//! server something and the client nothing. The HTTP/2 library answers pings by itself and
//! tells nobody; so the heads of frames are looked at as they pass, both ways. What has been
//! answered in between is no offence: clients measure a line by pings while answers come in.
//!
//! The rule is grpc-go's, but for a client without a call, which there may hardly ping at all.

use std::time::Duration;

use tokio::time::Instant;

use super::authority::{FRAME_HEAD_BYTES, HEADERS, PREFACE};

const DATA: u8 = 0;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const ACK: u8 = 1;
const ENHANCE_YOUR_CALM: u32 = 11;
/// The word that clients know, and ping less often for.
const REASON: &[u8] = b"too_many_pings";
/// Pings that come too early one after the other, before the connection is ended.
const STRIKES_MAX: u32 = 2;

/// Both directions of a connection.
#[derive(Debug)]
pub(super) struct Pings {
    /// Between two pings of the client.
    min: Duration,
    stage: Stage,
    input: Frames,
    output: Frames,
    /// When it has pinged last.
    last: Option<Instant>,
    strikes: u32,
    /// Something was answered since.
    answered: bool,
    /// The newest that the client has begun.
    stream: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// So much of HTTP/2's preface has come.
    Preface(usize),
    Http2,
    /// It is something else, or has been ended.
    Done,
}

impl Pings {
    pub(super) fn new(min: Duration) -> Self {
        Self {
            min,
            stage: Stage::Preface(0),
            input: Frames::default(),
            output: Frames::default(),
            last: None,
            strikes: 0,
            answered: false,
            stream: 0,
        }
    }

    /// Looks at what has come from the client. `Err`, once it has pinged too often: none of these
    /// bytes may be taken any more, and the client be told this, unless a frame to it has been begun.
    pub(super) fn heard(&mut self, mut bytes: &[u8]) -> Result<(), Option<Vec<u8>>> {
        if let Stage::Preface(have) = self.stage {
            let (now, later) = bytes.split_at(bytes.len().min(PREFACE.len() - have));
            if PREFACE[have..].starts_with(now) {
                let have = have + now.len();
                self.stage = if have == PREFACE.len() { Stage::Http2 } else { Stage::Preface(have) };
                bytes = later;
            } else {
                self.stage = Stage::Done;
            }
        }
        if self.stage != Stage::Http2 {
            return Ok(());
        }
        let (mut pings, mut stream) = (0, self.stream);
        self.input.pass(bytes, |kind, flags, of| match kind {
            PING if flags & ACK == 0 => pings += 1,
            HEADERS => stream = stream.max(of),
            _ => {}
        });
        for _ in 0..pings {
            self.pinged();
        }
        if self.strikes <= STRIKES_MAX {
            self.stream = stream;
            return Ok(());
        }
        self.stage = Stage::Done;
        Err(self.output.is_between().then(|| goodbye(self.stream)))
    }

    /// Looks at what has been sent to the client.
    pub(super) fn said(&mut self, bytes: &[u8]) {
        if self.stage == Stage::Http2 {
            let answered = &mut self.answered;
            self.output.pass(bytes, |kind, _, _| *answered |= matches!(kind, DATA | HEADERS));
        }
    }

    fn pinged(&mut self) {
        let now = Instant::now();
        let last = self.last.replace(now);
        if std::mem::take(&mut self.answered) {
            self.strikes = 0;
        } else if last.is_some_and(|last| now - last < self.min) {
            self.strikes += 1;
        }
    }
}

/// GOAWAY, for a client whose calls up to `stream` may have been carried out.
fn goodbye(stream: u32) -> Vec<u8> {
    let payload = [&stream.to_be_bytes()[..], &ENHANCE_YOUR_CALM.to_be_bytes(), REASON].concat();
    let length = u8::try_from(payload.len()).expect("it is short");
    [&[0, 0, length, GOAWAY, 0, 0, 0, 0, 0][..], &payload].concat()
}

/// Where one frame ends and the next begins.
#[derive(Debug, Default)]
struct Frames {
    /// What is left of a frame whose head has passed.
    payload: usize,
    head: [u8; FRAME_HEAD_BYTES],
    /// So much of the next head has passed.
    have: usize,
}

impl Frames {
    /// Shows each frame's kind, flags and stream to `seen`, once its head has passed.
    fn pass(&mut self, mut bytes: &[u8], mut seen: impl FnMut(u8, u8, u32)) {
        loop {
            let skipped = self.payload.min(bytes.len());
            self.payload -= skipped;
            let taken = (FRAME_HEAD_BYTES - self.have).min(bytes.len() - skipped);
            let (head, rest) = bytes[skipped..].split_at(taken);
            self.head[self.have..][..taken].copy_from_slice(head);
            self.have += taken;
            if self.have < FRAME_HEAD_BYTES {
                return;
            }
            self.have = 0;
            let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = self.head;
            self.payload = u32::from_be_bytes([0, l0, l1, l2]) as usize;
            seen(kind, flags, u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]));
            bytes = rest;
        }
    }

    fn is_between(&self) -> bool {
        self.payload == 0 && self.have == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: u8 = 4;
    const MIN: Duration = Duration::from_secs(5);

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).unwrap();
        [&[0, 0, length, kind, flags], &stream.to_be_bytes()[..], payload].concat()
    }

    fn ping(flags: u8) -> Vec<u8> {
        frame(PING, flags, 0, &[7; 8])
    }

    /// A connection that has begun.
    fn begun() -> Pings {
        let mut pings = Pings::new(MIN);
        for byte in [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat() {
            pings.heard(&[byte]).unwrap();
        }
        pings.said(&frame(SETTINGS, 0, 0, &[0; 6]));
        pings
    }

    #[test]
    fn the_fourth_ping_without_an_answer_is_the_last() {
        let mut pings = begun();
        pings.heard(&frame(HEADERS, 4, 5, b"headers")).unwrap();
        for _ in 0..3 {
            pings.heard(&ping(0)).unwrap();
            pings.said(&ping(ACK));
        }
        // What comes with it is not taken.
        let more = [frame(HEADERS, 4, 7, b"headers"), ping(0)].concat();
        let told = pings.heard(&more).unwrap_err().unwrap();
        assert_eq!(told, frame(GOAWAY, 0, 0, b"\0\0\0\x05\0\0\0\x0btoo_many_pings"));
    }

    #[test]
    fn many_at_once_are_many() {
        let sent = ping(0).repeat(4);
        assert!(begun().heard(&sent).is_err());
        assert!(begun().heard(&sent[..sent.len() - 9]).is_ok());
        let mut pings = begun();
        assert!(sent.iter().any(|&byte| pings.heard(&[byte]).is_err()), "however they come");
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_its_time_may_ping_for_ever() {
        let mut pings = begun();
        for _ in 0..20 {
            pings.heard(&ping(0)).unwrap();
            tokio::time::advance(MIN).await;
        }
    }

    #[test]
    fn answers_in_between_make_it_good() {
        let mut pings = begun();
        for _ in 0..20 {
            pings.heard(&ping(0).repeat(3)).unwrap();
            pings.said(&frame(DATA, 0, 1, b"an answer"));
        }
    }

    #[test]
    fn acknowledgements_are_no_pings() {
        let mut pings = begun();
        pings.heard(&ping(ACK).repeat(20)).unwrap();
    }

    #[test]
    fn a_frame_that_is_on_its_way_is_not_broken_into() {
        let mut pings = begun();
        pings.said(&frame(DATA, 0, 1, b"an answer")[..12]);
        pings.heard(&ping(0)).unwrap();
        assert_eq!(pings.heard(&ping(0).repeat(3)), Err(None));
    }

    #[test]
    fn what_is_not_http_2_is_left_alone() {
        let mut pings = Pings::new(MIN);
        pings.heard(b"PRI * HTTP/1.1\r\n\r\n").unwrap();
        pings.said(b"HTTP/1.1 404 Not Found\r\n\r\n");
        pings.heard(&ping(0).repeat(20)).unwrap();
    }
}
