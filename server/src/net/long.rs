//! An answer to a range that is made while it is sent.
//!
//! It is one message for who receives it, and its length comes first; here there
//! are never more than a few pieces of it. The store's revision is held for as
//! long as they are read, so a client that stops reading is given up.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use etcfs_proto::etcdserverpb::RangeResponse;
use futures_util::{Stream, StreamExt as _, stream};
use prost::Message as _;
use tokio::{sync::mpsc, task, time};
use tonic::Status;

use super::unary;
use crate::service::{LongRange, Refusal};

/// Pieces that wait for the client, beside the one that is being made.
const WAITING_MAX: usize = 1;
/// How long a client may take for one piece.
const PATIENCE: Duration = Duration::from_secs(30);

/// The answer's bytes, framed, and how many there will be. `rest` is all but the pairs.
///
/// The first piece is the header, the last what follows the pairs, and each between them is pairs:
/// all three are encodings of a `RangeResponse`.
pub(super) fn answer(
    rest: &RangeResponse,
    pairs: LongRange,
) -> Result<(impl Stream<Item = Result<Bytes, Status>> + Send + 'static, usize), Status> {
    let head = RangeResponse { header: rest.header, ..RangeResponse::default() };
    let tail = RangeResponse { more: rest.more, count: rest.count, ..RangeResponse::default() };
    let length = head.encoded_len() + pairs.left_bytes() + tail.encoded_len();
    let mut first = unary::frame(length, head.encoded_len())?;
    head.encode_raw(&mut first);
    let mut last = BytesMut::with_capacity(tail.encoded_len());
    tail.encode_raw(&mut last);
    let left = pairs.left_bytes();
    let (made, pieces) = mpsc::channel(WAITING_MAX);
    // Ends with the last piece, or soon after the client has gone or has stopped to read.
    tokio::spawn(make(pairs, made));
    let all = stream::once(async move { Ok(first.freeze()) })
        .chain(counted(pieces, left))
        .chain(stream::once(async move { Ok(last.freeze()) }));
    Ok((all, length + unary::FRAME_HEADER_BYTES))
}

async fn make(mut pairs: LongRange, made: mpsc::Sender<Result<Bytes, Status>>) {
    while let Some(piece) = task::block_in_place(|| pairs.next_piece()).transpose() {
        let piece = piece.map_err(|error| Status::from(Refusal::from(error)));
        let is_last = piece.is_err();
        // Late, or nobody is there any more.
        let Ok(Ok(())) = time::timeout(PATIENCE, made.send(piece)).await else { return };
        if is_last {
            return;
        }
    }
}

/// The pieces, which must be `left` bytes: what is cut short ends with an error.
fn counted(
    pieces: mpsc::Receiver<Result<Bytes, Status>>,
    left: usize,
) -> impl Stream<Item = Result<Bytes, Status>> + Send + 'static {
    stream::unfold((pieces, left), |(mut pieces, left)| async move {
        match pieces.recv().await {
            Some(Ok(piece)) => {
                let left = left.saturating_sub(piece.len());
                Some((Ok(piece), (pieces, left)))
            }
            // Nothing is read after an error.
            Some(Err(status)) => Some((Err(status), (pieces, left))),
            None if left == 0 => None,
            None => {
                let late = format!("the answer was not read for {} s", PATIENCE.as_secs());
                Some((Err(Status::deadline_exceeded(late)), (pieces, 0)))
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_cut_short_ends_with_an_error() {
        let (made, pieces) = mpsc::channel(WAITING_MAX);
        let mut counted = std::pin::pin!(counted(pieces, 3));
        made.send(Ok(Bytes::from("ab"))).await.unwrap();
        assert_eq!(counted.next().await.unwrap().unwrap(), "ab");
        drop(made);
        let status = counted.next().await.unwrap().unwrap_err();
        assert_eq!(status.code(), tonic::Code::DeadlineExceeded, "{status}");
    }
}
