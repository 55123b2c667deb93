//! Arbitrary bytes as clients may send them: read, or refused.

use bytes::Bytes;
use etcfs_proto::{
    etcdserverpb::{
        AlarmRequest, AuthRoleGrantPermissionRequest, AuthUserAddRequest, LeaseGrantRequest,
        MemberAddRequest, TxnRequest, WatchRequest,
    },
    etcfs::command::Batch,
    v3electionpb::ProclaimRequest,
};
use futures_util::{FutureExt as _, stream};
use http_body_util::StreamBody;
use hyper::body::Frame;
use prost::Message;

pub use super::gateway::gateway;
use super::unary;

const MESSAGE_BYTES_MAX: usize = 64 << 10;

/// Decodes messages of the kinds that there are, and one with its frame, in pieces.
pub fn decode(data: &[u8]) {
    is_decoded_or_refused::<TxnRequest>(data);
    is_decoded_or_refused::<WatchRequest>(data);
    is_decoded_or_refused::<LeaseGrantRequest>(data);
    is_decoded_or_refused::<MemberAddRequest>(data);
    is_decoded_or_refused::<AlarmRequest>(data);
    is_decoded_or_refused::<AuthUserAddRequest>(data);
    is_decoded_or_refused::<AuthRoleGrantPermissionRequest>(data);
    is_decoded_or_refused::<ProclaimRequest>(data);
    is_decoded_or_refused::<Batch>(data);
    let part = usize::from(data.first().copied().unwrap_or_default()) + 1;
    let parts =
        data.chunks(part).map(|part| Ok::<_, std::io::Error>(Frame::data(Bytes::copy_from_slice(part))));
    let body = StreamBody::new(stream::iter(parts.collect::<Vec<_>>()));
    let read = unary::read::<TxnRequest, _>(body, MESSAGE_BYTES_MAX).now_or_never();
    if let Ok((_, length)) = read.expect("all of it is there") {
        assert_eq!(length + unary::FRAME_HEADER_BYTES, data.len());
    }
}

/// What was decoded is the same when it is encoded and decoded again.
fn is_decoded_or_refused<M: Message + Default + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    if let Ok(message) = M::decode(bytes) {
        assert_eq!(M::decode(&*message.encode_to_vec()), Ok(message));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Bytes in the shape of fields: a key, a number or a length, and what may be behind it.
    fn fields() -> impl Strategy<Value = Vec<u8>> {
        let field = (1_u8..16, 0_u8..6, any::<u64>(), 0..64_u32, any::<Vec<u8>>()).prop_map(
            |(tag, kind, number, shift, rest)| {
                let mut field = vec![tag << 3 | kind];
                prost::encoding::encode_varint(number >> shift, &mut field);
                field.extend(rest);
                field
            },
        );
        prop::collection::vec(field, 0..6).prop_map(|fields| fields.concat())
    }

    /// The same as the one message of a call.
    fn framed() -> impl Strategy<Value = Vec<u8>> {
        (fields(), 0..3_u32).prop_map(|(fields, off)| {
            let length = u32::try_from(fields.len()).expect("a few fields are short") + off / 2;
            [&[0], &length.to_be_bytes()[..], &fields[..]].concat()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn any_bytes_are_decoded_or_refused(bytes in prop_oneof![any::<Vec<u8>>(), fields(), framed()]) {
            decode(&bytes);
        }
    }
}
