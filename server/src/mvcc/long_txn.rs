//! Transactions that only read, whole or in parts.
//!
//! Like a range's, the answer is read while it is sent if it is long: what is
//! short of it is encoded at once, and each of its long ranges waits as a
//! [`LongRange`]. All of them show one revision.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use etcfs_proto::etcdserverpb::{
    RangeRequest, RangeResponse, ResponseHeader, ResponseOp, TxnRequest, TxnResponse, request_op::Request,
    response_op::Response,
};
use prost::{
    Message,
    encoding::{WireType, encode_key, encode_varint},
};

use super::{
    ANSWER_BYTES_MAX, Branch, LongRange, Ranged, ReadError, Store, View,
    long::WHOLE_BYTES_MAX,
    read::{PAIR_BYTES, header},
};

const CHOSEN: &str = "a branch was chosen for each nested transaction";

/// Field of an operation's answer in `TxnResponse`,
const RESPONSES: u32 = 3;
/// and of what it is in `ResponseOp`.
const RESPONSE_RANGE: u32 = 1;
const RESPONSE_TXN: u32 = 4;

/// What a transaction that only reads has found.
#[derive(Debug)]
pub enum RangedTxn {
    Whole(TxnResponse),
    /// All but the operations' answers, and those, encoded as fields of it.
    Long(TxnResponse, Vec<Part>),
    /// Above what one answer may have.
    TooLong,
}

/// Some of an answer's encoding.
#[derive(Debug)]
pub enum Part {
    Bytes(Bytes),
    Pairs(Box<LongRange>),
}

impl Part {
    /// How many bytes it is.
    pub fn length(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Pairs(pairs) => pairs.left_bytes(),
        }
    }
}

impl Store {
    /// Answers a transaction all of whose operations are ranges, at one revision.
    pub fn ranged_txn(self: &Arc<Self>, request: &TxnRequest) -> Result<RangedTxn, ReadError> {
        self.ranged_txn_above(request, WHOLE_BYTES_MAX)
    }

    fn ranged_txn_above(
        self: &Arc<Self>,
        request: &TxnRequest,
        whole_bytes_max: usize,
    ) -> Result<RangedTxn, ReadError> {
        let view = self.view(0)?;
        let branch = Branch::choose(&view, request)?;
        let header = header(view.current());
        let mut room = Room { whole: whole_bytes_max, all: ANSWER_BYTES_MAX };
        if let Some(response) = self.whole(&view, &branch, &mut room)? {
            return Ok(RangedTxn::Whole(TxnResponse { header, ..response }));
        }
        room.whole = whole_bytes_max;
        let rest = TxnResponse { header, succeeded: branch.succeeded, responses: Vec::new() };
        Ok(match self.responses(&view, &branch, &mut room)? {
            Some(responses) => RangedTxn::Long(rest, responses.into_parts()),
            None => RangedTxn::TooLong,
        })
    }

    /// A branch's answer, if it is short.
    fn whole(
        self: &Arc<Self>,
        view: &View<'_>,
        branch: &Branch<'_>,
        room: &mut Room,
    ) -> Result<Option<TxnResponse>, ReadError> {
        let mut nested = branch.nested.iter();
        let mut responses = Vec::with_capacity(branch.ops.len());
        for op in branch.ops {
            let response = match &op.request {
                Some(Request::RequestRange(range)) => {
                    let Ranged::Whole(found) = self.range_in_txn(view, range, room)? else { return Ok(None) };
                    Some(Response::ResponseRange(found))
                }
                Some(Request::RequestTxn(_)) => {
                    let Some(found) = self.whole(view, nested.next().expect(CHOSEN), room)? else {
                        return Ok(None);
                    };
                    Some(Response::ResponseTxn(found))
                }
                // A transaction with these goes through the log.
                Some(Request::RequestPut(_) | Request::RequestDeleteRange(_)) | None => None,
            };
            responses.push(ResponseOp { response });
        }
        Ok(Some(TxnResponse { responses, ..alone(branch) }))
    }

    /// The answers to a branch's operations. `None`: they are too long.
    fn responses(
        self: &Arc<Self>,
        view: &View<'_>,
        branch: &Branch<'_>,
        room: &mut Room,
    ) -> Result<Option<Encoded>, ReadError> {
        let mut responses = Encoded::default();
        let mut nested = branch.nested.iter();
        for op in branch.ops {
            let mut response = Encoded::default();
            match &op.request {
                Some(Request::RequestRange(range)) => {
                    let found = Encoded::range(self.range_in_txn(view, range, room)?);
                    let Some(left) = room.all.checked_sub(found.length) else { return Ok(None) };
                    room.all = left;
                    response.field(RESPONSE_RANGE, found);
                }
                Some(Request::RequestTxn(_)) => {
                    let inner = nested.next().expect(CHOSEN);
                    let mut of_txn = Encoded::default();
                    of_txn.message(&alone(inner));
                    let Some(found) = self.responses(view, inner, room)? else { return Ok(None) };
                    of_txn.append(found);
                    response.field(RESPONSE_TXN, of_txn);
                }
                Some(Request::RequestPut(_) | Request::RequestDeleteRange(_)) | None => {}
            }
            responses.field(RESPONSES, response);
        }
        Ok(Some(responses))
    }

    fn range_in_txn(
        self: &Arc<Self>,
        view: &View<'_>,
        request: &RangeRequest,
        room: &mut Room,
    ) -> Result<Ranged, ReadError> {
        let older = view.older(request.revision)?;
        let found = self.ranged_in(older.as_ref().unwrap_or(view), request, room.whole)?;
        if let Ranged::Whole(answer) = &found {
            let held = answer.encoded_len() + answer.kvs.len() * PAIR_BYTES;
            room.whole = room.whole.saturating_sub(held);
        }
        Ok(found)
    }
}

/// A branch's answer without those of its operations. Like etcd's, a nested one has no revision.
fn alone(branch: &Branch<'_>) -> TxnResponse {
    let header = Some(ResponseHeader::default());
    TxnResponse { header, succeeded: branch.succeeded, responses: Vec::new() }
}

/// Bytes that answers may still take.
struct Room {
    /// Those that are made at once.
    whole: usize,
    all: usize,
}

/// An encoding in the making.
#[derive(Default)]
struct Encoded {
    parts: Vec<Part>,
    /// What follows them.
    last: BytesMut,
    length: usize,
}

impl Encoded {
    fn range(found: Ranged) -> Self {
        let mut encoded = Self::default();
        match found {
            Ranged::Whole(answer) => encoded.message(&answer),
            Ranged::Long(rest, pairs) => {
                encoded.message(&RangeResponse { header: rest.header, ..RangeResponse::default() });
                encoded.pairs(pairs);
                encoded.message(&RangeResponse { header: None, ..rest });
            }
        }
        encoded
    }

    fn message(&mut self, message: &impl Message) {
        self.length += message.encoded_len();
        message.encode_raw(&mut self.last);
    }

    fn pairs(&mut self, pairs: Box<LongRange>) {
        self.length += pairs.left_bytes();
        self.parts.push(Part::Bytes(self.last.split().freeze()));
        self.parts.push(Part::Pairs(pairs));
    }

    /// Appends a field that is itself a message.
    fn field(&mut self, tag: u32, inner: Self) {
        let before = self.last.len();
        encode_key(tag, WireType::LengthDelimited, &mut self.last);
        encode_varint(inner.length as u64, &mut self.last);
        self.length += self.last.len() - before;
        self.append(inner);
    }

    fn append(&mut self, inner: Self) {
        self.length += inner.length;
        if inner.parts.is_empty() {
            self.last.extend_from_slice(&inner.last);
        } else {
            self.parts.push(Part::Bytes(self.last.split().freeze()));
            self.parts.extend(inner.parts);
            self.last = inner.last;
        }
    }

    fn into_parts(mut self) -> Vec<Part> {
        self.parts.push(Part::Bytes(self.last.freeze()));
        self.parts.retain(|part| part.length() > 0);
        self.parts
    }
}

#[cfg(test)]
mod tests {
    use etcfs_proto::etcdserverpb::{Compare, RequestOp, compare::TargetUnion, range_request::SortOrder};

    use super::*;
    use crate::mvcc::long::tests::{all, filled};

    fn op(request: Request) -> RequestOp {
        RequestOp { request: Some(request) }
    }

    fn range(request: RangeRequest) -> RequestOp {
        op(Request::RequestRange(request))
    }

    fn txn(success: Vec<RequestOp>) -> TxnRequest {
        TxnRequest { success, ..TxnRequest::default() }
    }

    fn bytes(rest: &TxnResponse, parts: Vec<Part>) -> Vec<u8> {
        let mut bytes = rest.encode_to_vec();
        for part in parts {
            let (before, length) = (bytes.len(), part.length());
            match part {
                Part::Bytes(part) => bytes.extend(part),
                Part::Pairs(mut pairs) => {
                    while let Some(piece) = pairs.next_piece().unwrap() {
                        bytes.extend(piece);
                    }
                }
            }
            assert_eq!(bytes.len() - before, length);
        }
        bytes
    }

    #[test]
    fn a_long_answer_in_parts_is_the_whole_answer() {
        let (store, writer, _) = filled();
        let one = RangeRequest { key: "k00003".into(), ..RangeRequest::default() };
        let ranges = [
            all(),
            one.clone(),
            RangeRequest { key: "none".into(), ..one.clone() },
            RangeRequest { count_only: true, ..all() },
            RangeRequest { limit: 5, sort_order: SortOrder::Descend.into(), ..all() },
            RangeRequest { keys_only: true, ..all() },
            RangeRequest { sort_target: 3, sort_order: SortOrder::Descend.into(), ..all() },
            RangeRequest { revision: writer.revision() / 2, ..all() },
            RangeRequest { keys_only: true, ..one },
        ];
        // It fails, so the other branch is taken: of `failure` there is none.
        let never =
            Compare { key: "none".into(), target_union: Some(TargetUnion::Version(1)), ..Compare::default() };
        let failing = TxnRequest { compare: vec![never], ..txn(vec![range(all())]) };
        let ops: Vec<_> = ranges.into_iter().map(range).collect();
        let nested = txn(vec![op(Request::RequestTxn(txn(ops.clone()))), op(Request::RequestTxn(failing))]);
        for request in [txn(ops), nested] {
            let RangedTxn::Whole(expected) = store.ranged_txn_above(&request, usize::MAX).unwrap() else {
                panic!("there is room")
            };
            for whole_bytes_max in [0, 1000, 100_000, 500_000] {
                let answer = store.ranged_txn_above(&request, whole_bytes_max).unwrap();
                let RangedTxn::Long(rest, parts) = answer else { panic!("it is long") };
                assert!(parts.len() > 2);
                assert!(bytes(&rest, parts) == expected.encode_to_vec(), "{whole_bytes_max}: {request:?}");
            }
        }
    }
}
