//! A connection's bytes: what comes in as [`BareAuthority`] passes it on, an end for who pings
//! too often, and an end after which the last answers arrive.
//!
//! A socket that is closed while its client still sends answers with a reset. The client
//! then may meet the reset as it writes, before it has read what came earlier: an
//! acknowledged write, and the word that it should go to another member. HTTP/2 clients
//! do still send then (window updates, the ends of their streams). So what comes after
//! the end is read and dropped until the client has closed its side, for a while at most.

use std::{
    future::Future as _,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Notify,
    time::{self, Sleep},
};

use super::{authority::BareAuthority, pings::Pings};

/// A client that takes longer to close its side has had the time to read the answers.
const LINGER_MAX: Duration = Duration::from_secs(1);
const SCRAP_BYTES: usize = 4 * 1024;

#[derive(Debug)]
pub(super) struct Wire<S> {
    input: BareAuthority<S>,
    /// None where pings are nobody's concern.
    pings: Option<Pings>,
    /// To be told of the first that comes.
    heard: Option<Arc<Notify>>,
    /// Nothing more of the client is taken.
    is_deaf: bool,
    /// Set once the stream's own end has been sent.
    patience: Option<Pin<Box<Sleep>>>,
}

impl<S> Wire<S> {
    pub(super) fn new(stream: S, pings: Option<Pings>, heard: Arc<Notify>) -> Self {
        let (input, heard) = (BareAuthority::new(stream), Some(heard));
        Self { input, pings, heard, is_deaf: false, patience: None }
    }

    fn stream(&mut self) -> Pin<&mut S>
    where
        S: Unpin,
    {
        Pin::new(self.input.stream_mut())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Wire<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { input, pings, heard, is_deaf, .. } = self.get_mut();
        if *is_deaf {
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut *input).poll_read(context, buffer))?;
        if let Some(heard) = heard.take() {
            heard.notify_one();
        }
        if let Some(pings) = pings
            && let Err(goodbye) = pings.heard(&buffer.filled()[before..])
        {
            tracing::debug!("a client pings more often than --grpc-keepalive-min-time allows");
            buffer.set_filled(before);
            *is_deaf = true;
            if let Some(goodbye) = goodbye {
                // If it does not fit, the client has not read for long.
                let _told = Pin::new(input.stream_mut()).poll_write(context, &goodbye)?;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(self.stream().poll_write(context, buffer))?;
        if let Some(pings) = &mut self.pings {
            pings.said(&buffer[..written]);
        }
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(self.stream().poll_write_vectored(context, buffers))?;
        if let Some(pings) = &mut self.pings {
            let mut left = written;
            for buffer in buffers {
                let said = left.min(buffer.len());
                pings.said(&buffer[..said]);
                left -= said;
            }
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.input.stream().is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { input, patience, .. } = self.get_mut();
        let stream = input.stream_mut();
        let patience = match patience {
            Some(patience) => patience,
            None => {
                ready!(Pin::new(&mut *stream).poll_shutdown(context))?;
                patience.insert(Box::pin(time::sleep(LINGER_MAX)))
            }
        };
        let mut scrap = [0; SCRAP_BYTES];
        loop {
            if patience.as_mut().poll(context).is_ready() {
                return Poll::Ready(Ok(()));
            }
            let mut scrap = ReadBuf::new(&mut scrap);
            // A client that resets the connection has closed its side as well.
            let read = ready!(Pin::new(&mut *stream).poll_read(context, &mut scrap));
            if read.is_err() || scrap.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::{TcpListener, TcpStream},
    };

    use super::*;

    async fn pair() -> (TcpStream, Wire<TcpStream>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (client, Wire::new(listener.accept().await.unwrap().0, None, Arc::default()))
    }

    #[tokio::test]
    async fn a_client_that_still_sends_reads_the_last_answer() {
        let (mut client, mut server) = pair().await;
        client.write_all(b"not read").await.unwrap();
        server.write_all(b"the answer").await.unwrap();
        let closing = tokio::spawn(async move { server.shutdown().await });
        for _ in 0..100 {
            client.write_all(b"a window update").await.unwrap();
            tokio::task::yield_now().await;
        }
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "the answer");
        client.write_all(b"the end of a stream").await.unwrap();
        drop(client);
        closing.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_never_closes_is_left_after_a_while() {
        let (client, mut server) = tokio::io::duplex(64);
        let mut server = Wire::new(&mut server, None, Arc::default());
        let began = time::Instant::now();
        server.shutdown().await.unwrap();
        assert!(began.elapsed() >= LINGER_MAX, "the client had its time");
        drop(client);
    }
}
