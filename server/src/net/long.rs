//! An answer to a range, or to a transaction of such, that is made while it is sent.
//!
//! It is one message for who receives it, and its length comes first; here there
//! are never more than a few pieces of it. The store's revision is held for as
//! long as they are read, so a client that stops reading is given up.

use std::time::Duration;

use bytes::{BufMut as _, Bytes};
use etcfs_proto::etcdserverpb::{RangeResponse, TxnResponse};
use futures_util::{Stream, StreamExt as _, stream};
use prost::Message as _;
use tokio::{sync::mpsc, task, time};
use tonic::Status;

use super::unary;
use crate::service::{LongRange, Part, Refusal};

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
    pairs: Box<LongRange>,
) -> Result<(impl Stream<Item = Result<Bytes, Status>> + Send + 'static, usize), Status> {
    let head = RangeResponse { header: rest.header, ..RangeResponse::default() };
    let tail = RangeResponse { more: rest.more, count: rest.count, ..RangeResponse::default() };
    framed(&head.encode_to_vec(), vec![Part::Pairs(pairs), Part::Bytes(tail.encode_to_vec().into())])
}

/// The same for a transaction, of which `rest` is all but the operations' answers.
pub(super) fn txn_answer(
    rest: &TxnResponse,
    parts: Vec<Part>,
) -> Result<(impl Stream<Item = Result<Bytes, Status>> + Send + 'static, usize), Status> {
    framed(&rest.encode_to_vec(), parts)
}

fn framed(
    head: &[u8],
    parts: Vec<Part>,
) -> Result<(impl Stream<Item = Result<Bytes, Status>> + Send + use<>, usize), Status> {
    let left = parts.iter().map(Part::length).sum();
    let length = head.len() + left;
    let mut first = unary::frame(length, head.len())?;
    first.put_slice(head);
    let (made, pieces) = mpsc::channel(WAITING_MAX);
    // Ends with the last piece, or soon after the client has gone or has stopped to read.
    tokio::spawn(make(parts, made));
    let all = stream::once(async move { Ok(first.freeze()) }).chain(counted(pieces, left));
    Ok((all, length + unary::FRAME_HEADER_BYTES))
}

async fn make(parts: Vec<Part>, made: mpsc::Sender<Result<Bytes, Status>>) {
    for mut part in parts {
        while let Some(piece) = next_piece(&mut part) {
            let is_last = piece.is_err();
            // Late, or nobody is there any more.
            let Ok(Ok(())) = time::timeout(PATIENCE, made.send(piece)).await else { return };
            if is_last {
                return;
            }
        }
    }
}

fn next_piece(part: &mut Part) -> Option<Result<Bytes, Status>> {
    match part {
        Part::Bytes(bytes) if bytes.is_empty() => None,
        Part::Bytes(bytes) => Some(Ok(std::mem::take(bytes))),
        Part::Pairs(pairs) => {
            let piece = task::block_in_place(|| pairs.next_piece()).transpose()?;
            Some(piece.map_err(|error| Status::from(Refusal::from(error))))
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
