//! The body of an answer.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream::BoxStream};
use http::{HeaderMap, HeaderName, HeaderValue};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tonic::Status;

pub(super) enum Body {
    /// Nothing more: for gRPC an error, whose status stands in the headers.
    Empty,
    /// One gRPC message, framed, then the trailers that say all is well.
    Message(Option<Bytes>),
    /// One gRPC message, framed, in pieces as they come; then the trailers that say how it ended.
    Pieces(BoxStream<'static, Result<Bytes, Status>>),
    /// Plain bytes.
    Plain(Option<Bytes>),
    /// A gRPC stream.
    Stream(tonic::body::Body),
    /// gRPC messages, framed, as they come; then the trailers that say how it ended.
    Messages(BoxStream<'static, Result<Bytes, Status>>),
    /// Plain bytes, as they come.
    Lines(BoxStream<'static, Bytes>),
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Empty => "Empty",
            Self::Message(_) => "Message",
            Self::Pieces(_) => "Pieces",
            Self::Plain(_) => "Plain",
            Self::Stream(_) => "Stream",
            Self::Messages(_) => "Messages",
            Self::Lines(_) => "Lines",
        })
    }
}

impl Body {
    pub(super) fn plain(bytes: impl Into<Bytes>) -> Self {
        Self::Plain(Some(bytes.into()))
    }

    pub(super) fn messages(messages: impl Stream<Item = Result<Bytes, Status>> + Send + 'static) -> Self {
        Self::Messages(messages.boxed())
    }

    pub(super) fn pieces(pieces: impl Stream<Item = Result<Bytes, Status>> + Send + 'static) -> Self {
        Self::Pieces(pieces.boxed())
    }

    pub(super) fn lines(lines: impl Stream<Item = Bytes> + Send + 'static) -> Self {
        Self::Lines(lines.boxed())
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        match this {
            Self::Empty => Poll::Ready(None),
            Self::Message(message) => match message.take() {
                Some(message) => Poll::Ready(Some(Ok(Frame::data(message)))),
                None => {
                    *this = Self::Empty;
                    let mut trailers = HeaderMap::with_capacity(1);
                    trailers.insert(HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"));
                    Poll::Ready(Some(Ok(Frame::trailers(trailers))))
                }
            },
            Self::Plain(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Stream(stream) => Pin::new(stream).poll_frame(cx),
            Self::Lines(lines) => {
                Poll::Ready(ready!(lines.poll_next_unpin(cx)).map(|line| Ok(Frame::data(line))))
            }
            Self::Messages(messages) | Self::Pieces(messages) => {
                let ended = match ready!(messages.poll_next_unpin(cx)) {
                    Some(Ok(message)) => return Poll::Ready(Some(Ok(Frame::data(message)))),
                    Some(Err(status)) => status,
                    None => Status::ok(""),
                };
                *this = Self::Empty;
                let mut trailers = HeaderMap::with_capacity(2);
                if let Err(status) = ended.add_header(&mut trailers) {
                    unreachable!("a status without metadata always fits into trailers: {status}");
                }
                Poll::Ready(Some(Ok(Frame::trailers(trailers))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty | Self::Plain(None) => true,
            Self::Message(_)
            | Self::Pieces(_)
            | Self::Plain(Some(_))
            | Self::Messages(_)
            | Self::Lines(_) => false,
            Self::Stream(stream) => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty | Self::Plain(None) => SizeHint::with_exact(0),
            Self::Plain(Some(bytes)) => SizeHint::with_exact(bytes.len() as u64),
            // gRPC answers and streams carry no content-length.
            Self::Message(_) | Self::Pieces(_) | Self::Stream(_) | Self::Messages(_) | Self::Lines(_) => {
                SizeHint::default()
            }
        }
    }
}
