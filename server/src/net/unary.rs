//! One message in, one message out: the way of nearly every call.
//!
//! tonic's codec serves streams; a unary call needs none of their buffers and
//! boxes, and on this path they were most of the cost. The request is gathered
//! into one buffer of its exact size, so that keeping its key keeps no read
//! buffer alive; the answer is encoded once, with its frame, into one buffer.

use std::pin::pin;

use bytes::{BufMut as _, Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Body as HttpBody;
use prost::Message;
use tonic::Status;

use crate::service::ANSWER_BYTES_MAX;

/// A flag for compression and the length.
pub(super) const FRAME_HEADER_BYTES: usize = 5;

/// Reads the one message of a request.
pub(super) async fn read<M, B>(body: B, max_bytes: usize) -> Result<(M, usize), Status>
where
    M: Message + Default,
    B: HttpBody<Data = Bytes>,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    let mut body = pin!(body);
    let mut head = BytesMut::new();
    let mut message: Option<(usize, BytesMut)> = None;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Status::unknown(format!("the request broke off: {error}")))?;
        let Ok(mut data) = frame.into_data() else { continue };
        let (length, gathered) = match &mut message {
            Some(message) => message,
            None => {
                if head.len() + data.len() < FRAME_HEADER_BYTES {
                    head.put(data);
                    continue;
                }
                let rest = data.split_off(FRAME_HEADER_BYTES - head.len());
                head.put(data);
                data = rest;
                let length = length_of(&head, max_bytes)?;
                message.insert((length, BytesMut::with_capacity(length.min(max_bytes))))
            }
        };
        if gathered.len() + data.len() > *length {
            return Err(Status::internal("a unary request must be one message"));
        }
        gathered.put(data);
    }
    let Some((length, gathered)) = message.filter(|(length, gathered)| gathered.len() == *length) else {
        return Err(Status::internal("the request ended before its message did"));
    };
    let message = M::decode(gathered.freeze())
        .map_err(|error| Status::internal(format!("grpc: error unmarshalling request: {error}")))?;
    Ok((message, length))
}

fn length_of(head: &[u8], max_bytes: usize) -> Result<usize, Status> {
    let (flag, length) = (head[0], &head[1..FRAME_HEADER_BYTES]);
    if flag != 0 {
        return Err(Status::unimplemented("grpc: compressed requests are not supported"));
    }
    let length = u32::from_be_bytes(length.try_into().expect("four bytes are cut above")) as usize;
    if length > max_bytes {
        return Err(too_large(length, max_bytes));
    }
    Ok(length)
}

/// grpc-go's words, which etcd's clients know.
pub(super) fn too_large(length: usize, max_bytes: usize) -> Status {
    Status::resource_exhausted(format!("grpc: received message larger than max ({length} vs. {max_bytes})"))
}

/// Encodes an answer with its frame.
pub(super) fn write<M: Message>(message: &M) -> Result<Bytes, Status> {
    let length = message.encoded_len();
    let mut buffer = frame(length, length)?;
    message.encode_raw(&mut buffer);
    Ok(buffer.freeze())
}

/// The frame's beginning, of a message of `length` bytes, with room for `room` bytes of it.
pub(super) fn frame(length: usize, room: usize) -> Result<BytesMut, Status> {
    let Some(framed) = u32::try_from(length).ok().filter(|_| length <= ANSWER_BYTES_MAX) else {
        let text = format!("grpc: trying to send message larger than max ({length} vs. {ANSWER_BYTES_MAX})");
        return Err(Status::resource_exhausted(text));
    };
    let mut buffer = BytesMut::with_capacity(FRAME_HEADER_BYTES + room);
    buffer.put_u8(0);
    buffer.put_u32(framed);
    Ok(buffer)
}

#[cfg(test)]
mod tests {
    use etcfs_proto::etcdserverpb::PutRequest;
    use http_body_util::StreamBody;
    use hyper::body::Frame;
    use tonic::Code;

    use super::*;

    fn put(value: usize) -> PutRequest {
        PutRequest { key: "k".into(), value: vec![7; value].into(), ..Default::default() }
    }

    async fn read_in_parts(bytes: &[u8], part: usize, max: usize) -> Result<PutRequest, Status> {
        let parts: Vec<_> = bytes
            .chunks(part)
            .map(|part| Ok::<_, std::io::Error>(Frame::data(Bytes::copy_from_slice(part))))
            .collect();
        let body = StreamBody::new(futures_util::stream::iter(parts));
        read(body, max).await.map(|(message, _)| message)
    }

    #[tokio::test]
    async fn a_message_is_read_however_it_is_cut() {
        let bytes = write(&put(100)).unwrap();
        for part in 1..=bytes.len() {
            assert_eq!(read_in_parts(&bytes, part, 1000).await.unwrap(), put(100), "{part}");
        }
    }

    #[test]
    fn an_answer_above_etcds_limit_is_refused_in_grpcs_words() {
        assert!(frame(2_147_483_647, 0).is_ok());
        let status = frame(2_147_483_648, 0).unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted);
        let text = "grpc: trying to send message larger than max (2147483648 vs. 2147483647)";
        assert_eq!(status.message(), text);
    }

    #[tokio::test]
    async fn the_empty_message_is_a_message_and_nothing_is_none() {
        let bytes = write(&PutRequest::default()).unwrap();
        assert_eq!(read_in_parts(&bytes, 2, 10).await.unwrap(), PutRequest::default());
        assert_eq!(read_in_parts(&[], 1, 10).await.unwrap_err().code(), Code::Internal);
    }

    #[tokio::test]
    async fn a_message_above_the_limit_is_refused_in_grpcs_words_and_not_read() {
        let bytes = write(&put(100)).unwrap();
        let length = bytes.len() - FRAME_HEADER_BYTES;
        assert!(read_in_parts(&bytes, 7, length).await.is_ok());
        let status = read_in_parts(&bytes, 7, length - 1).await.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted);
        let text = format!("grpc: received message larger than max ({length} vs. {})", length - 1);
        assert_eq!(status.message(), text);
    }

    #[tokio::test]
    async fn what_is_not_one_whole_plain_message_is_refused() {
        let bytes = write(&put(10)).unwrap();
        let cut = read_in_parts(&bytes[..bytes.len() - 1], 99, 99).await.unwrap_err();
        assert_eq!(cut.code(), Code::Internal);
        let twice = read_in_parts(&[&bytes[..], &bytes[..]].concat(), 99, 99).await.unwrap_err();
        assert_eq!(twice.code(), Code::Internal);
        let mut compressed = bytes.to_vec();
        compressed[0] = 1;
        let refused = read_in_parts(&compressed, 99, 99).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unimplemented);
        let garbage = read_in_parts(&[0, 0, 0, 0, 2, 0xff, 0xff], 99, 99).await.unwrap_err();
        assert_eq!(garbage.code(), Code::Internal);
    }
}
