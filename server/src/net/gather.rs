//! Answers that are ready together leave together.
//!
//! HTTP/2 flushes whenever one of a connection's calls has its answer, and the runtime lets the
//! connection run right after each. But calls that wait for one sync of the log all have theirs at
//! once, and a system call costs more than the answer that it carries. So what is small is held
//! until all that was ready before has run, which is at once where nothing was. HTTP/1 has one call
//! at a time, and passes as it is.

use std::{
    io::{self, IoSlice},
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::authority::PREFACE;

/// The most that is held, as much as HTTP/2 holds itself.
const HELD_BYTES_MAX: usize = 16 * 1024;
/// A write of more is not worth a copy.
const SMALL_BYTES_MAX: usize = 4 * 1024;

#[derive(Debug)]
pub(super) struct Gather<S> {
    stream: S,
    /// Taken, and not yet written. Has no room of its own while there is nothing.
    held: BytesMut,
    /// Whoever flushes has let others go first.
    is_due: bool,
    /// How much of HTTP/2's preface has come; None where something else has.
    heard: Option<usize>,
}

impl<S> Gather<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, held: BytesMut::new(), is_due: false, heard: Some(0) }
    }

    fn is_http2(&self) -> bool {
        self.heard == Some(PREFACE.len())
    }

    fn hear(&mut self, bytes: &[u8]) {
        for byte in bytes {
            let Some(heard) = self.heard else { return };
            let Some(expected) = PREFACE.get(heard) else { return };
            self.heard = (byte == expected).then_some(heard + 1);
        }
    }
}

impl<S: AsyncWrite + Unpin> Gather<S> {
    fn poll_release(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.held.is_empty() {
            match ready!(Pin::new(&mut self.stream).poll_write(context, &self.held))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.held.advance(written),
            }
        }
        self.let_go();
        Poll::Ready(Ok(()))
    }

    /// What is held goes first. Gives how many of `bytes` went with it.
    fn poll_pass(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let both = [IoSlice::new(&self.held), IoSlice::new(bytes)];
            let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(context, &both))?;
            let of_held = written.min(self.held.len());
            self.held.advance(of_held);
            if written > of_held {
                self.let_go();
            }
            if written > of_held || written == 0 {
                return Poll::Ready(Ok(written - of_held));
            }
        }
    }

    /// All that was held is written.
    fn let_go(&mut self) {
        self.held = BytesMut::new();
        self.is_due = false;
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gather<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        self.hear(&buffer.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

/// Not vectored for HTTP/2: so that copies what is below 1 KiB (256 bytes otherwise) behind what it has for
/// others, and flushes for each message above.
impl<S: AsyncWrite + Unpin> AsyncWrite for Gather<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if !this.is_http2() {
            return Pin::new(&mut this.stream).poll_write(context, bytes);
        }
        if bytes.len() > SMALL_BYTES_MAX || this.held.len() + bytes.len() > HELD_BYTES_MAX {
            return this.poll_pass(context, bytes);
        }
        this.held.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if !self.is_http2() {
            return Pin::new(&mut self.get_mut().stream).poll_write_vectored(context, buffers);
        }
        let first = buffers.iter().find(|buffer| !buffer.is_empty()).map_or(&[][..], |buffer| buffer);
        self.poll_write(context, first)
    }

    fn is_write_vectored(&self) -> bool {
        !self.is_http2() && self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.held.is_empty() {
            if !mem::replace(&mut this.is_due, true) {
                // A task that wakes itself goes behind all others that are ready.
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            ready!(this.poll_release(context))?;
        }
        Pin::new(&mut this.stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_release(context))?;
        Pin::new(&mut this.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::{future, sync::Arc};

    use futures_util::FutureExt as _;
    use parking_lot::Mutex;
    use proptest::prelude::*;
    use tokio::{io::AsyncWriteExt as _, sync::mpsc};

    use super::*;

    /// Notes each write; takes so many bytes of each in turn, and is busy where that is 0.
    #[derive(Clone, Default)]
    struct Stream {
        writes: Arc<Mutex<Vec<Vec<u8>>>>,
        takes: Arc<Mutex<Vec<usize>>>,
    }

    impl AsyncWrite for Stream {
        fn poll_write(
            self: Pin<&mut Self>,
            context: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            let taken = bytes.len().min(self.takes.lock().pop().unwrap_or(usize::MAX));
            if taken == 0 {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            self.writes.lock().push(bytes[..taken].to_vec());
            Poll::Ready(Ok(taken))
        }

        fn poll_write_vectored(
            self: Pin<&mut Self>,
            context: &mut Context<'_>,
            buffers: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let bytes = buffers.iter().map(|buffer| &buffer[..]).collect::<Vec<_>>().concat();
            self.poll_write(context, &bytes)
        }

        fn is_write_vectored(&self) -> bool {
            true
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn http2(stream: Stream) -> Gather<Stream> {
        let mut gather = Gather::new(stream);
        gather.hear(&PREFACE[..1]);
        gather.hear(&PREFACE[1..]);
        gather
    }

    /// An answer of HTTP/1 was copied whole where writes were not vectored.
    #[test]
    fn http1_passes_as_it_is() {
        for said in [&b"PRI * HTTP/1.1"[..], b"GET /metrics", b""] {
            let stream = Stream::default();
            let mut gather = Gather::new(stream.clone());
            gather.hear(said);
            assert!(gather.is_write_vectored());
            let context = &mut Context::from_waker(std::task::Waker::noop());
            let both = [IoSlice::new(b"head "), IoSlice::new(b"body")];
            assert!(matches!(Pin::new(&mut gather).poll_write_vectored(context, &both), Poll::Ready(Ok(9))));
            assert_eq!(*stream.writes.lock(), [b"head body"]);
        }
        assert!(!http2(Stream::default()).is_write_vectored());
    }

    /// A worker runs who is woken last first, so that a connection runs right after each answer.
    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn answers_that_are_ready_together_are_one_write() {
        const ANSWERS: u8 = 100;
        let stream = Stream::default();
        let writes = stream.writes.clone();
        let mut gather = http2(stream);
        let (ready, mut answers) = mpsc::unbounded_channel();
        let connection = future::poll_fn(move |context| {
            let mut gather = Pin::new(&mut gather);
            let mut more = answers.poll_recv(context);
            while let Poll::Ready(Some(answer)) = more {
                assert!(gather.as_mut().poll_write(context, &[answer]).is_ready());
                more = answers.poll_recv(context);
            }
            ready!(gather.as_mut().poll_flush(context)).unwrap();
            assert_eq!(gather.held.capacity(), 0, "an idle connection takes no room");
            more.map(drop)
        });
        let calls = async move {
            let connection = tokio::spawn(connection);
            for answer in 0..ANSWERS {
                let ready = ready.clone();
                tokio::spawn(async move { ready.send(answer).unwrap() });
            }
            drop(ready);
            connection.await.unwrap();
        };
        tokio::spawn(calls).await.unwrap();
        let writes = writes.lock();
        assert_eq!(writes.len(), 1, "{writes:?}");
        assert_eq!(writes[0].len(), usize::from(ANSWERS));
    }

    proptest! {
        /// Whatever is written, flushed between or not, to a stream that takes parts or is busy.
        #[test]
        fn bytes_arrive_whole_and_in_order(
            sizes in prop::collection::vec((0..6000_usize, any::<bool>()), 0..40),
            takes in prop::collection::vec(0..5000_usize, 0..80),
        ) {
            let stream = Stream { takes: Arc::new(Mutex::new(takes)), ..Stream::default() };
            let mut gather = http2(stream.clone());
            let mut sent = Vec::new();
            let writing = async {
                for (size, flushes) in sizes {
                    let bytes: Vec<u8> = (0..size).map(|at| (sent.len() + at) as u8).collect();
                    gather.write_all(&bytes).await.unwrap();
                    sent.extend(bytes);
                    assert!(gather.held.len() <= HELD_BYTES_MAX);
                    if flushes {
                        gather.flush().await.unwrap();
                        assert_eq!(stream.writes.lock().concat(), sent);
                    }
                }
                gather.shutdown().await.unwrap();
            };
            tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(writing);
            prop_assert_eq!(stream.writes.lock().concat(), sent);
        }
    }

    #[test]
    fn a_large_write_is_not_held_and_takes_along_what_is() {
        let stream = Stream::default();
        let mut gather = http2(stream.clone());
        let writes = async {
            gather.write_all(b"small").await?;
            gather.write_all(&[7; SMALL_BYTES_MAX + 1]).await
        };
        writes.now_or_never().expect("it need not wait").unwrap();
        assert_eq!(*stream.writes.lock(), [[&b"small"[..], &[7; SMALL_BYTES_MAX + 1]].concat()]);
        assert_eq!(gather.held.capacity(), 0);
    }
}
