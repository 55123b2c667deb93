//! Lets in clients that take a URL for the name of a host.
//!
//! etcdctl 3.4 sends `http://host:port` as `:authority` where it asks each endpoint by
//! itself (`endpoint status`, `endpoint hashkv`, always with `--cluster`). etcd does not
//! look; the HTTP/2 library below this server ends the stream, and nobody above it ever
//! sees the call. So the scheme is cut off on the way in, from the first header block of
//! a connection: such a client never has another authority, and names it from then on by
//! its place in HPACK's dynamic table.
//!
//! The entry there is then shorter than the client believes. That is harmless: entries
//! are counted from the newest, and whoever thinks entries longer than they are forgets
//! them sooner, so all that the client can still name is there.
//!
//! Whatever is not understood passes unchanged, and is judged by who reads it. No more
//! than one frame of 16 KiB is ever held back.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, ReadBuf};

mod block;

pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub(super) const FRAME_HEAD_BYTES: usize = 9;
/// What a frame may have until a larger size is agreed on (RFC 9113, 4.2).
const FRAME_BYTES_MAX: usize = 16 * 1024;
const READ_BYTES: usize = 4 * 1024;

pub(super) const HEADERS: u8 = 1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// A connection whose first header block names the host without a scheme.
#[derive(Debug)]
pub(super) struct BareAuthority<S> {
    stream: S,
    stage: Stage,
    /// Read, and not passed on yet.
    held: BytesMut,
    /// So much of `held` may pass.
    free: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Preface,
    /// At the head of a frame, once so much more has passed.
    Frames {
        after: usize,
    },
    /// The first header block has passed, or there is none.
    Done,
}

impl<S> BareAuthority<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, stage: Stage::Preface, held: BytesMut::new(), free: 0 }
    }

    pub(super) fn stream(&self) -> &S {
        &self.stream
    }

    pub(super) fn stream_mut(&mut self) -> &mut S {
        &mut self.stream
    }

    /// Finds out how much of what is held may pass.
    fn look(&mut self) {
        loop {
            let ahead = &self.held[self.free..];
            match self.stage {
                Stage::Preface if ahead.len() < PREFACE.len() && PREFACE.starts_with(ahead) => return,
                Stage::Preface if ahead.starts_with(PREFACE) => {
                    self.stage = Stage::Frames { after: PREFACE.len() };
                }
                Stage::Preface => self.stage = Stage::Done,
                Stage::Frames { after } if after > 0 => {
                    let passing = after.min(ahead.len());
                    self.free += passing;
                    self.stage = Stage::Frames { after: after - passing };
                    if passing < after {
                        return;
                    }
                }
                Stage::Frames { .. } => {
                    let Some(head) = ahead.first_chunk::<FRAME_HEAD_BYTES>() else { return };
                    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
                    let end = FRAME_HEAD_BYTES + length;
                    match head[3] {
                        HEADERS if length > FRAME_BYTES_MAX || head[4] & END_HEADERS == 0 => {
                            self.stage = Stage::Done;
                        }
                        HEADERS if ahead.len() < end => return,
                        HEADERS => {
                            if let Some(frame) = bare(&ahead[..end]) {
                                let rest = self.held.split_off(self.free + end);
                                self.held.truncate(self.free);
                                self.held.extend_from_slice(&frame);
                                self.held.extend_from_slice(&rest);
                            }
                            self.stage = Stage::Done;
                        }
                        _ => self.stage = Stage::Frames { after: end },
                    }
                }
                Stage::Done => {
                    self.free = self.held.len();
                    return;
                }
            }
        }
    }
}

/// The frame HEADERS with the scheme cut off its authority, if there is one.
fn bare(frame: &[u8]) -> Option<Vec<u8>> {
    let (head, payload) = frame.split_at(FRAME_HEAD_BYTES);
    let flags = head[4];
    let mut start = 0;
    let mut end = payload.len();
    if flags & PADDED != 0 {
        end = end.checked_sub(usize::from(*payload.first()?))?;
        start += 1;
    }
    if flags & PRIORITY != 0 {
        start += 5;
    }
    let block = block::without_scheme(payload.get(start..end)?)?;
    let length = payload.len() - (end - start) + block.len();
    let length = u32::try_from(length).ok()?.to_be_bytes();
    Some([&length[1..], &head[3..], &payload[..start], &block, &payload[end..]].concat())
}

impl<S: AsyncRead + Unpin> AsyncRead for BareAuthority<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.free == 0 {
            if this.stage == Stage::Done {
                return Pin::new(&mut this.stream).poll_read(context, buffer);
            }
            let mut read = [0; READ_BYTES];
            let mut read = ReadBuf::new(&mut read);
            ready!(Pin::new(&mut this.stream).poll_read(context, &mut read))?;
            if read.filled().is_empty() {
                this.stage = Stage::Done;
            }
            this.held.extend_from_slice(read.filled());
            this.look();
        }
        let passing = this.free.min(buffer.remaining());
        buffer.put_slice(&this.held[..passing]);
        this.held.advance(passing);
        this.free -= passing;
        if this.held.is_empty() {
            // A connection lives long, and never needs the room again.
            this.held = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use proptest::prelude::*;
    use tokio::io::AsyncReadExt as _;

    use super::*;

    const SETTINGS: u8 = 4;
    const WINDOW_UPDATE: u8 = 8;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    /// What a client says before its first call.
    fn opening() -> Vec<u8> {
        [PREFACE, &frame(SETTINGS, 0, &[]), &frame(SETTINGS, 1, &[]), &frame(WINDOW_UPDATE, 0, &[0, 0, 1, 0])]
            .concat()
    }

    /// `:method POST`, the authority as it stands, `:scheme http`.
    fn headers(authority: &str) -> Vec<u8> {
        let length = u8::try_from(authority.len()).unwrap();
        [&[0x83, 0x41, length], authority.as_bytes(), &[0x86]].concat()
    }

    /// A connection that brings these pieces, one a read where there is room for it.
    struct Pieces<'a, I> {
        pieces: I,
        at: &'a [u8],
    }

    impl<'a, I: Iterator<Item = &'a [u8]> + Unpin> AsyncRead for Pieces<'a, I> {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            if self.at.is_empty() {
                self.at = self.pieces.find(|piece| !piece.is_empty()).unwrap_or_default();
            }
            let (now, later) = self.at.split_at(self.at.len().min(buffer.remaining()));
            buffer.put_slice(now);
            self.at = later;
            Poll::Ready(Ok(()))
        }
    }

    /// What comes out of it.
    fn passed<'a>(pieces: impl Iterator<Item = &'a [u8]> + Unpin) -> Vec<u8> {
        let mut out = Vec::new();
        BareAuthority::new(Pieces { pieces, at: &[] })
            .read_to_end(&mut out)
            .now_or_never()
            .expect("nothing is waited for")
            .unwrap();
        out
    }

    #[track_caller]
    fn check(from: &[u8], to: &[u8]) {
        for cut in 0..from.len() {
            assert_eq!(passed([&from[..cut], &from[cut..]].into_iter()), to, "cut at {cut}");
        }
        assert_eq!(passed(from.chunks(1)), to);
    }

    #[test]
    fn the_scheme_is_cut_off_however_the_bytes_arrive() {
        let after = frame(0, 1, b"the body, with http:// in it");
        let flags = END_HEADERS;
        for scheme in ["http://", "https://"] {
            check(
                &[opening(), frame(HEADERS, flags, &headers(&format!("{scheme}a:1"))), after.clone()]
                    .concat(),
                &[opening(), frame(HEADERS, flags, &headers("a:1")), after.clone()].concat(),
            );
        }
    }

    #[test]
    fn padding_and_priority_stay() {
        let flags = END_HEADERS | PADDED | PRIORITY;
        let framed = |authority| {
            frame(HEADERS, flags, &[&[2, 0, 0, 0, 0, 16][..], &headers(authority), &[0, 0]].concat())
        };
        check(
            &[opening(), framed("http://[::1]:2379")].concat(),
            &[opening(), framed("[::1]:2379")].concat(),
        );
    }

    #[test]
    fn only_the_first_header_block_is_looked_at() {
        let first = frame(HEADERS, END_HEADERS, &headers("a:1"));
        let second = frame(HEADERS, END_HEADERS, &headers("http://a:1"));
        let sent = [opening(), first, second].concat();
        check(&sent, &sent);
    }

    #[test]
    fn a_block_in_several_frames_passes_unchanged() {
        let sent = [opening(), frame(HEADERS, 0, &headers("http://a:1"))].concat();
        check(&sent, &sent);
    }

    #[test]
    fn http_1_passes_unchanged() {
        let sent = b"PUT http://a:1/ HTTP/1.1\r\nHost: http://a:1\r\n\r\n";
        check(sent, sent);
        check(b"PRI", b"PRI");
    }

    proptest! {
        #[test]
        fn what_is_no_authority_passes_unchanged(
            is_http2: bool,
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            piece in 1_usize..50,
        ) {
            let sent = if is_http2 { [PREFACE, &bytes].concat() } else { bytes };
            prop_assert_eq!(passed(sent.chunks(piece)), sent);
        }

        #[test]
        fn a_frame_of_headers_is_never_cut_short(
            flags: u8,
            block in prop::collection::vec(any::<u8>(), 0..100),
            piece in 1_usize..50,
        ) {
            let after = frame(0, 1, b"after");
            let sent = [opening(), frame(HEADERS, flags, &block), after.clone()].concat();
            let got = passed(sent.chunks(piece));
            prop_assert!(got.ends_with(&after) && got.starts_with(&opening()));
            // At most a scheme is gone.
            prop_assert!(sent.len() - got.len() <= "https://".len());
        }
    }
}
