//! The body of an answer.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tonic::Status;

#[derive(Debug)]
pub(super) enum Body {
    /// Nothing more: for gRPC an error, whose status stands in the headers.
    Empty,
    /// One gRPC message, framed, then the trailers that say all is well.
    Message(Option<Bytes>),
    /// Plain bytes.
    Plain(Option<Bytes>),
    /// A gRPC stream.
    Stream(tonic::body::Body),
}

impl Body {
    pub(super) fn plain(bytes: impl Into<Bytes>) -> Self {
        Self::Plain(Some(bytes.into()))
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
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty | Self::Plain(None) => true,
            Self::Message(_) | Self::Plain(Some(_)) => false,
            Self::Stream(stream) => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty | Self::Plain(None) => SizeHint::with_exact(0),
            Self::Plain(Some(bytes)) => SizeHint::with_exact(bytes.len() as u64),
            // gRPC answers carry no content-length.
            Self::Message(_) | Self::Stream(_) => SizeHint::default(),
        }
    }
}
