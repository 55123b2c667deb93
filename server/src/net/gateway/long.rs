//! The JSON of an answer that comes in pieces, a range's or that of a transaction
//! of such: never more of it is held than a piece.
//!
//! The pieces are cut anywhere. What may be long is opened as soon as it begins,
//! and its fields are written as they come; all else is written whole, as the one
//! field of a message by itself.

use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::{
    Stream, StreamExt as _,
    stream::{self, BoxStream},
};
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};
use tonic::Status;

use super::{super::unary::FRAME_HEADER_BYTES, answer::error_line, json};

/// Messages that may be long.
const LONG: [&str; 3] = ["etcdserverpb.RangeResponse", "etcdserverpb.ResponseOp", "etcdserverpb.TxnResponse"];
/// Elements of one list are written together until they are so many bytes.
const RUN_BYTES: usize = 256 << 10;

/// One object. If the answer is cut short, so is the object, and the reason follows.
pub(super) fn text(
    pieces: BoxStream<'static, Result<Bytes, Status>>,
    output: MessageDescriptor,
) -> impl Stream<Item = Bytes> + Send {
    stream::unfold(Some((pieces, Writer::new(output))), |state| async move {
        let (mut pieces, mut writer) = state?;
        match pieces.next().await?.and_then(|piece| writer.write(&piece)) {
            Ok(text) => Some((text, Some((pieces, writer)))),
            Err(status) => Some((error_line(&status), None)),
        }
    })
}

#[derive(Debug)]
struct Writer {
    /// Of the whole, until its frame has come.
    output: Option<MessageDescriptor>,
    /// What has come and is not written yet.
    come: BytesMut,
    /// Messages that have begun and not ended, outermost first.
    open: Vec<Open>,
    text: Vec<u8>,
}

#[derive(Debug)]
struct Open {
    message: MessageDescriptor,
    /// Bytes of it that are still to be written.
    left: usize,
    /// Whether anything stands in its object.
    is_empty: bool,
    /// The field whose list has begun and not ended.
    list: Option<u32>,
}

impl Writer {
    fn new(output: MessageDescriptor) -> Self {
        Self { output: Some(output), come: BytesMut::new(), open: Vec::new(), text: Vec::new() }
    }

    /// The text of what a piece adds.
    fn write(&mut self, piece: &[u8]) -> Result<Bytes, Status> {
        self.come.extend_from_slice(piece);
        if let Some([_, length @ ..]) = self.come.first_chunk::<FRAME_HEADER_BYTES>()
            && let Some(output) = self.output.take()
        {
            let length = u32::from_be_bytes(*length) as usize;
            self.come.advance(FRAME_HEADER_BYTES);
            self.begin(output, length);
        }
        while let Some(open) = self.open.last_mut() {
            if open.left == 0 {
                open.end_list(&mut self.text);
                self.text.push(b'}');
                self.open.pop();
                continue;
            }
            let Some(next) = Field::first(&self.come, open)? else { break };
            if next.is_long() {
                open.left = open.left.checked_sub(next.bytes).ok_or_else(unlike)?;
                self.come.advance(next.head_bytes);
                open.member(&next.field, &mut self.text);
                if let Kind::Message(message) = next.field.kind() {
                    self.begin(message, next.bytes - next.head_bytes);
                }
            } else {
                let Some(run) = run(&self.come, open, &next)? else { break };
                open.left = open.left.checked_sub(run).ok_or_else(unlike)?;
                let text = json::write(&open.message, self.come.split_to(run).freeze())?;
                open.fields(&next.field, &text, &mut self.text)?;
            }
        }
        Ok(std::mem::take(&mut self.text).into())
    }

    fn begin(&mut self, message: MessageDescriptor, left: usize) {
        self.text.push(b'{');
        self.open.push(Open { message, left, is_empty: true, list: None });
    }
}

impl Open {
    /// What stands before a value of a field.
    fn member(&mut self, field: &FieldDescriptor, text: &mut Vec<u8>) {
        if self.list == Some(field.number()) {
            text.push(b',');
            return;
        }
        self.end_list(text);
        if !std::mem::replace(&mut self.is_empty, false) {
            text.push(b',');
        }
        text.extend_from_slice(format!("\"{}\":", field.name()).as_bytes());
        if field.is_list() {
            text.push(b'[');
            self.list = Some(field.number());
        }
    }

    fn end_list(&mut self, text: &mut Vec<u8>) {
        if self.list.take().is_some() {
            text.push(b']');
        }
    }

    /// Adds the values of a field, of which `object` is the JSON of a message that has nothing else.
    fn fields(&mut self, field: &FieldDescriptor, object: &[u8], text: &mut Vec<u8>) -> Result<(), Status> {
        if object == b"{}" {
            // Zero, which is not written.
            return Ok(());
        }
        let (begin, end) = if field.is_list() { ("[", "]}") } else { ("", "}") };
        let begin = format!("{{\"{}\":{begin}", field.name());
        let values = object
            .strip_prefix(begin.as_bytes())
            .and_then(|object| object.strip_suffix(end.as_bytes()))
            .ok_or_else(unlike)?;
        self.member(field, text);
        text.extend_from_slice(values);
        Ok(())
    }
}

/// A field at the begin of what has come.
#[derive(Debug)]
struct Field {
    field: FieldDescriptor,
    /// Its tag and, if it has one, its length.
    head_bytes: usize,
    /// All of it.
    bytes: usize,
}

impl Field {
    /// `None`: more of it must come.
    fn first(come: &[u8], open: &Open) -> Result<Option<Self>, Status> {
        const VARINT: u64 = 0;
        const LENGTH_DELIMITED: u64 = 2;
        let Some((tag, tag_bytes)) = varint(come)? else { return Ok(None) };
        let Some((value, value_bytes)) = varint(&come[tag_bytes..])? else { return Ok(None) };
        let head_bytes = tag_bytes + value_bytes;
        let bytes = match tag & 7 {
            VARINT => head_bytes,
            LENGTH_DELIMITED => head_bytes + usize::try_from(value).map_err(|_| unlike())?,
            _ => return Err(unlike()),
        };
        let number = u32::try_from(tag >> 3).map_err(|_| unlike())?;
        let field = open.message.get_field(number).ok_or_else(unlike)?;
        Ok(Some(Self { field, head_bytes, bytes }))
    }

    fn is_long(&self) -> bool {
        matches!(self.field.kind(), Kind::Message(message) if LONG.contains(&message.full_name()))
    }
}

/// How many bytes the first field and others of its list that follow are, as far as they have come.
fn run(come: &[u8], open: &Open, first: &Field) -> Result<Option<usize>, Status> {
    let mut bytes = 0;
    while bytes < RUN_BYTES
        && bytes < open.left
        && let Some(next) = Field::first(&come[bytes..], open)?
        && next.field.number() == first.field.number()
        && come.len() - bytes >= next.bytes
    {
        bytes += next.bytes;
    }
    Ok(Some(bytes).filter(|&bytes| bytes > 0))
}

/// A number and how many bytes it takes; `None` if more of it must come.
fn varint(bytes: &[u8]) -> Result<Option<(u64, usize)>, Status> {
    const BYTES_MAX: usize = 10;
    match bytes.iter().take(BYTES_MAX).position(|byte| byte & 0x80 == 0) {
        Some(last) => {
            let value = prost::encoding::decode_varint(&mut &bytes[..=last]).map_err(|_| unlike())?;
            Ok(Some((value, last + 1)))
        }
        None if bytes.len() < BYTES_MAX => Ok(None),
        None => Err(unlike()),
    }
}

fn unlike() -> Status {
    Status::internal("the answer is not as its message says")
}

#[cfg(test)]
mod tests {
    use etcfs_proto::{
        etcdserverpb::{
            PutResponse, RangeResponse, ResponseHeader, ResponseOp, TxnResponse, response_op::Response,
        },
        mvccpb::KeyValue,
    };
    use prost::Message;

    use super::{super::super::unary, *};

    fn kvs(keys: &[&'static str]) -> RangeResponse {
        let pair =
            |key: &&'static str| KeyValue { key: (*key).into(), value: "]}".into(), ..Default::default() };
        RangeResponse { kvs: keys.iter().map(pair).collect(), ..Default::default() }
    }

    async fn written(pieces: Vec<Result<Bytes, Status>>, path: &str) -> String {
        let output = json::Json::new().route(path).expect("it has a path").output.clone();
        let parts: Vec<Bytes> = text(stream::iter(pieces).boxed(), output).collect().await;
        String::from_utf8(parts.concat()).unwrap()
    }

    async fn is_the_json_of_the_whole<M: Message>(message: &M, path: &str) {
        let output = json::Json::new().route(path).unwrap().output.clone();
        let expected = json::write(&output, message.encode_to_vec().into()).unwrap();
        let framed = unary::write(message).unwrap();
        for piece_bytes in 1..=framed.len() {
            let pieces = framed.chunks(piece_bytes).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
            assert_eq!(written(pieces, path).await.as_bytes(), &*expected, "{piece_bytes}");
        }
    }

    #[tokio::test]
    async fn the_pieces_make_the_json_of_the_whole_however_they_are_cut() {
        let header = Some(ResponseHeader { revision: 7, ..Default::default() });
        let range = RangeResponse { header, more: true, count: 500, ..kvs(&["a", "b", "c"]) };
        is_the_json_of_the_whole(&range, "/v3/kv/range").await;
        is_the_json_of_the_whole(&RangeResponse { header: None, ..range.clone() }, "/v3/kv/range").await;
        is_the_json_of_the_whole(&kvs(&[]), "/v3/kv/range").await;
        let op = |response| ResponseOp { response };
        let ranged = |range: &RangeResponse| op(Some(Response::ResponseRange(range.clone())));
        let nested = TxnResponse {
            header: Some(ResponseHeader::default()),
            succeeded: false,
            responses: vec![ranged(&range), op(None), ranged(&RangeResponse::default())],
        };
        let put = PutResponse { header, prev_kv: kvs(&["d"]).kvs.pop() };
        let txn = TxnResponse {
            header,
            succeeded: true,
            responses: vec![
                ranged(&kvs(&["a"])),
                op(Some(Response::ResponsePut(put))),
                op(Some(Response::ResponseTxn(nested))),
                ranged(&range),
            ],
        };
        is_the_json_of_the_whole(&txn, "/v3/kv/txn").await;
        is_the_json_of_the_whole(&TxnResponse::default(), "/v3/kv/txn").await;
    }

    #[tokio::test]
    async fn an_answer_that_breaks_off_is_no_json() {
        let framed = unary::write(&kvs(&["a", "b"])).unwrap();
        for come in 0..framed.len() {
            let pieces = vec![Ok(framed.slice(..come)), Err(Status::unavailable("gone"))];
            let text = written(pieces, "/v3/kv/range").await;
            let is_json = serde_json::from_str::<serde_json::Value>(&text).is_ok();
            assert!(is_json == (come < FRAME_HEADER_BYTES) && text.contains("gone"), "{text}");
        }
    }
}
