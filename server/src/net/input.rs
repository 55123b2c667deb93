//! The body of a gRPC request: off the wire, or made by the gateway.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream::BoxStream};
use hyper::body::{Body as HttpBody, Frame, Incoming};
use tonic::Status;

pub(super) enum Input {
    Wire(Incoming),
    /// gRPC messages, framed.
    Made(BoxStream<'static, Result<Bytes, Status>>),
}

impl Input {
    pub(super) fn made(messages: impl Stream<Item = Result<Bytes, Status>> + Send + 'static) -> Self {
        Self::Made(messages.boxed())
    }
}

impl HttpBody for Input {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match self.get_mut() {
            Self::Wire(incoming) => {
                let frame = ready!(Pin::new(incoming).poll_frame(cx));
                Poll::Ready(frame.map(|frame| frame.map_err(|error| Status::from_error(Box::new(error)))))
            }
            Self::Made(messages) => {
                let message = ready!(messages.poll_next_unpin(cx));
                Poll::Ready(message.map(|message| message.map(Frame::data)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Wire(incoming) => incoming.is_end_stream(),
            Self::Made(_) => false,
        }
    }
}
