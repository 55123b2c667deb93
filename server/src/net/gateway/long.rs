//! The JSON of an answer to a range that comes in pieces: never more of it is
//! held than a piece.

use bytes::{Bytes, BytesMut};
use futures_util::{
    Stream, StreamExt as _,
    stream::{self, BoxStream},
};
use prost_reflect::MessageDescriptor;
use tonic::Status;

use super::{super::unary::FRAME_HEADER_BYTES, answer::error_line, json};

/// How the JSON of a piece with pairs begins and ends.
const PAIRS: (&str, &str) = ("{\"kvs\":[", "]}");

/// One object, spliced of the objects that the pieces are by themselves.
///
/// If the answer is cut short, so is the object, and the reason follows.
pub(super) fn text(
    pieces: BoxStream<'static, Result<Bytes, Status>>,
    output: MessageDescriptor,
) -> impl Stream<Item = Bytes> + Send {
    stream::unfold(Some((pieces, Place::Header)), move |state| {
        let output = output.clone();
        async move {
            let (mut pieces, place) = state?;
            match pieces.next().await?.and_then(|piece| splice(&output, piece, place)) {
                Ok((text, next)) => Some((text, next.map(|next| (pieces, next)))),
                Err(status) => Some((error_line(&status), None)),
            }
        }
    })
}

/// Which piece comes next.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// The first, which alone is framed.
    Header,
    FirstPairs,
    MorePairs,
}

/// The text of a piece, and what comes then.
fn splice(
    output: &MessageDescriptor,
    mut piece: Bytes,
    place: Place,
) -> Result<(Bytes, Option<Place>), Status> {
    if let Place::Header = place {
        let framed = piece.split_to(FRAME_HEADER_BYTES.min(piece.len()));
        debug_assert_eq!(framed.len(), FRAME_HEADER_BYTES);
    }
    let text = json::write(output, piece)?;
    let inner = |from: &str, to: &str| {
        text.strip_prefix(from.as_bytes()).and_then(|text| text.strip_suffix(to.as_bytes()))
    };
    let object = || inner("{", "}").expect("a message is an object");
    Ok(match (place, inner(PAIRS.0, PAIRS.1)) {
        (Place::Header, _) => (joined(&[b"{", object(), b",\"kvs\":["]), Some(Place::FirstPairs)),
        (Place::FirstPairs, Some(pairs)) => (joined(&[pairs]), Some(Place::MorePairs)),
        (Place::MorePairs, Some(pairs)) => (joined(&[b",", pairs]), Some(Place::MorePairs)),
        // What follows the pairs: at least their number.
        (Place::FirstPairs | Place::MorePairs, None) => (joined(&[b"],", object(), b"}"]), None),
    })
}

fn joined(parts: &[&[u8]]) -> Bytes {
    let mut all = BytesMut::with_capacity(parts.iter().map(|part| part.len()).sum());
    parts.iter().for_each(|part| all.extend_from_slice(part));
    all.freeze()
}

#[cfg(test)]
mod tests {
    use etcfs_proto::{
        etcdserverpb::{RangeResponse, ResponseHeader},
        mvccpb::KeyValue,
    };
    use prost::Message as _;

    use super::{super::super::unary, *};

    fn kvs(keys: &[&'static str]) -> RangeResponse {
        let pair =
            |key: &&'static str| KeyValue { key: (*key).into(), value: "]}".into(), ..Default::default() };
        RangeResponse { kvs: keys.iter().map(pair).collect(), ..Default::default() }
    }

    async fn spliced(pieces: Vec<Result<Bytes, Status>>) -> String {
        let output = json::Json::new().route("/v3/kv/range").expect("it has a path").output.clone();
        let parts: Vec<Bytes> = text(stream::iter(pieces).boxed(), output).collect().await;
        String::from_utf8(parts.concat()).unwrap()
    }

    #[tokio::test]
    async fn the_pieces_make_the_json_of_the_whole() {
        let header = Some(ResponseHeader { revision: 7, ..Default::default() });
        let whole = RangeResponse { header, more: true, count: 5, ..kvs(&["a", "b", "c"]) };
        let output = json::Json::new().route("/v3/kv/range").unwrap().output.clone();
        let expected = json::write(&output, whole.encode_to_vec().into()).unwrap();
        let head = unary::write(&RangeResponse { header, ..Default::default() }).unwrap();
        let tail = RangeResponse { more: true, count: 5, ..Default::default() };
        let encoded = |response: &RangeResponse| Ok(response.encode_to_vec().into());
        let pieces = vec![Ok(head), encoded(&kvs(&["a", "b"])), encoded(&kvs(&["c"])), encoded(&tail)];
        assert_eq!(spliced(pieces).await, String::from_utf8(expected.to_vec()).unwrap());
    }

    #[tokio::test]
    async fn an_answer_that_breaks_off_is_no_json() {
        let head = unary::write(&RangeResponse::default()).unwrap();
        let text = spliced(vec![Ok(head), Err(Status::unavailable("gone"))]).await;
        assert!(serde_json::from_str::<serde_json::Value>(&text).is_err() && text.contains("gone"), "{text}");
    }
}
