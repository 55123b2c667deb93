//! Ranges that are too much to be held at once, piece by piece.
//!
//! The index knows how long each row is, and a row is the encoding of its pair.
//! So the walk that finds a range's pairs also tells how long the encoded answer
//! will be; if that is long, the pairs are let go of and met again, a piece at a
//! time, by further walks at the same revision, which stays pinned until the
//! [`LongRange`] is dropped. Only answers in the order of keys come like this.

use std::{ops::ControlFlow, sync::Arc};

use bytes::{BufMut as _, Bytes, BytesMut};
use etcfs_proto::{
    etcdserverpb::{RangeRequest, RangeResponse},
    mvccpb::KeyValue,
};
use prost::{
    Message as _,
    encoding::{WireType, encode_key, encode_varint, encoded_len_varint},
};

use super::{
    ReadError, Store, View,
    pins::OwnPin,
    read::{Bounds, Found, Need, Plan, header},
    row,
};
use crate::storage::{Engine, StorageError, keyspace::successor};

/// Memory for the pairs of an answer that is made whole.
const WHOLE_BYTES_MAX: usize = 8 << 20;
/// What a pair takes in such an answer beside its key and value.
const PAIR_BYTES: usize = size_of::<Found>() + size_of::<KeyValue>();
/// A piece ends with the pair that reaches it.
const PIECE_BYTES: usize = 256 << 10;
/// Field of a pair in `RangeResponse`.
const KVS: u32 = 2;

/// What a range found.
#[derive(Debug)]
pub enum Ranged {
    Whole(RangeResponse),
    /// All but the pairs, and the pairs.
    Long(RangeResponse, Box<LongRange>),
}

/// The pairs of a range, encoded as fields of its answer, in pieces.
#[derive(Debug)]
pub struct LongRange {
    pin: OwnPin,
    engine: Arc<dyn Engine>,
    at: i64,
    epoch: u64,
    plan: Plan,
    keys_only: bool,
    /// What is still to be read.
    start: Bytes,
    end: Option<Bytes>,
    left: Length,
}

/// Of pairs, encoded as fields.
#[derive(Clone, Copy, Debug, Default)]
struct Length {
    pairs: usize,
    bytes: usize,
}

impl Store {
    /// Answers a range, in pieces if it is long; the header holds the revision alone.
    pub fn ranged(self: &Arc<Self>, request: &RangeRequest) -> Result<Ranged, ReadError> {
        let plan = Plan::of(request);
        if request.range_end.is_empty() || request.count_only || plan.sort.is_some() {
            return self.range(request).map(Ranged::Whole);
        }
        self.ranged_above(request, plan, WHOLE_BYTES_MAX)
    }

    fn ranged_above(
        self: &Arc<Self>,
        request: &RangeRequest,
        plan: Plan,
        whole_bytes_max: usize,
    ) -> Result<Ranged, ReadError> {
        let view = self.view(request.revision)?;
        let bounds = Bounds::of(&request.key, &request.range_end);
        let keys_only = request.keys_only;
        let (mut found, mut held, mut pairs) = (Vec::new(), 0, 0);
        let mut long: Option<Length> = None;
        let count = view.take(bounds, &plan, |pair| {
            pairs += 1;
            if let Some(length) = &mut long {
                return length.add(&view, pair, &plan, keys_only);
            }
            held += PAIR_BYTES + if keys_only { pair.key.len() } else { pair.facts.row_bytes };
            found.push(pair);
            if held > whole_bytes_max {
                let mut length = Length::default();
                for pair in std::mem::take(&mut found) {
                    length.add(&view, pair, &plan, keys_only)?;
                }
                long = Some(length);
            }
            Ok(())
        })?;
        let Some(left) = long else {
            return view.answer(found, &plan, keys_only, count).map(Ranged::Whole);
        };
        let more = plan.limit.is_some_and(|limit| pairs > limit);
        let rest = RangeResponse { header: header(view.current()), kvs: Vec::new(), more, count };
        let Bounds::Between(start, end) = bounds else { unreachable!("one key has no range_end") };
        let pin = view.pin.as_ref().expect("a reader's view is pinned");
        let pairs = LongRange {
            pin: OwnPin::beside(pin, Arc::clone(self)),
            engine: Arc::clone(&view.engine),
            at: view.at,
            epoch: view.epoch,
            plan,
            keys_only,
            start: Bytes::copy_from_slice(start),
            end: end.map(Bytes::copy_from_slice),
            left,
        };
        Ok(Ranged::Long(rest, Box::new(pairs)))
    }
}

impl Length {
    /// Counts a pair, if it is within the limit.
    fn add(&mut self, view: &View<'_>, pair: Found, plan: &Plan, keys_only: bool) -> Result<(), ReadError> {
        if plan.limit == Some(self.pairs) {
            return Ok(());
        }
        let pair_bytes =
            if keys_only { view.without_value(pair)?.encoded_len() } else { pair.facts.row_bytes };
        self.pairs += 1;
        self.bytes += 1 + encoded_len_varint(pair_bytes as u64) + pair_bytes;
        Ok(())
    }
}

impl LongRange {
    /// Bytes of all pieces that are still to come.
    pub fn left_bytes(&self) -> usize {
        self.left.bytes
    }

    /// The next pairs; `None` after the last. Blocks while values are read.
    pub fn next_piece(&mut self) -> Result<Option<Bytes>, ReadError> {
        if self.left.pairs == 0 {
            return Ok(None);
        }
        let view = View {
            store: self.pin.store(),
            engine: Arc::clone(&self.engine),
            at: self.at,
            current: self.at,
            compacted: self.at,
            epoch: self.epoch,
            pin: None,
        };
        let typical = (self.left.bytes / self.left.pairs).max(1);
        let need = Need { pairs: PIECE_BYTES / typical + 1, ..self.plan.need };
        let bounds = Bounds::Between(&self.start, self.end.as_deref());
        let (mut found, mut bytes) = (Vec::new(), 0);
        view.walk(bounds, self.plan.descending_walk, need, |pair| {
            if !self.plan.keeps(&pair.facts) {
                return Ok(ControlFlow::Continue(()));
            }
            bytes += if self.keys_only { pair.key.len() } else { pair.facts.row_bytes };
            found.push(pair);
            let is_enough = bytes >= PIECE_BYTES || found.len() == self.left.pairs;
            Ok(if is_enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        let pairs = found.len();
        let mut piece = BytesMut::with_capacity(bytes + pairs * 16);
        let mut last = Bytes::new();
        if self.keys_only {
            for pair in found {
                let kv = view.without_value(pair)?;
                prost::encoding::message::encode(KVS, &kv, &mut piece);
                last = kv.key;
            }
        } else {
            view.fill_keeping(&mut found, false)?;
            for pair in &found {
                let row = pair.row.as_ref().expect("each row was filled in or its lack reported");
                encode_key(KVS, WireType::LengthDelimited, &mut piece);
                encode_varint(row.len() as u64, &mut piece);
                piece.put_slice(row);
            }
            if let Some(row) = found.last().and_then(|pair| pair.row.as_ref()) {
                last = Bytes::copy_from_slice(row::key(row));
            }
        }
        let left = Length {
            pairs: self.left.pairs - pairs,
            bytes: self.left.bytes.checked_sub(piece.len()).ok_or_else(|| self.unlike())?,
        };
        if pairs == 0 || (left.pairs == 0) != (left.bytes == 0) {
            return Err(self.unlike());
        }
        self.left = left;
        if self.plan.descending_walk {
            self.end = Some(last);
        } else {
            self.start = successor(&last);
        }
        Ok(Some(piece.freeze()))
    }

    /// The rows are not those whose lengths the index has told.
    fn unlike(&self) -> ReadError {
        let what = format!("rows of a range at revision {}", self.at);
        StorageError::Corrupt { what, reason: "they are longer or shorter than the index says".into() }.into()
    }
}

#[cfg(test)]
mod tests {
    use etcfs_proto::{etcdserverpb::range_request::SortOrder, etcfs::record};
    use prost::Message as _;

    use super::*;
    use crate::{
        mvcc::{StoreOptions, Writer},
        storage::{Batch, MemoryEngine},
    };

    const KEYS: usize = 3000;

    /// Keys of many lengths, every third changed and every seventh deleted; nearly all in the image.
    fn filled() -> (Arc<Store>, Writer, Arc<MemoryEngine>) {
        let engine = Arc::new(MemoryEngine::new());
        let meta =
            record::Meta { revision: 1, compact_revision: -1, scrubbed_revision: -1, ..Default::default() };
        let options = StoreOptions { value_cache_bytes: 20_000 };
        let (store, mut writer, _) = Store::open(engine.clone(), &meta, &options).unwrap();
        let mut batch = Batch::default();
        for nth in 0..KEYS {
            let mut txn = writer.begin(&mut batch);
            let lease = if nth.is_multiple_of(5) { 1 << (nth % 60) } else { 0 };
            txn.put(format!("k{nth:05}").into(), vec![b'v'; nth % 700].into(), lease);
            if nth.is_multiple_of(3) {
                txn.put(format!("k{:05}", nth / 2).into(), "changed".into(), 0);
            }
            if nth.is_multiple_of(7) {
                txn.delete_range(format!("k{:05}", nth / 3).as_bytes(), b"", false).unwrap();
            }
            let revision = txn.finish().unwrap().revision;
            writer.publish(revision);
        }
        engine.write(&batch).unwrap();
        store.written(writer.revision());
        (store, writer, engine)
    }

    fn all() -> RangeRequest {
        RangeRequest { key: "k".into(), range_end: "l".into(), ..RangeRequest::default() }
    }

    #[track_caller]
    fn ranged(store: &Arc<Store>, request: &RangeRequest, whole_bytes_max: usize) -> Ranged {
        store.ranged_above(request, Plan::of(request), whole_bytes_max).unwrap()
    }

    /// Its pieces are the answer's encoding, byte by byte.
    #[track_caller]
    fn is_the_same_in_pieces(store: &Arc<Store>, request: &RangeRequest) {
        let expected = store.range(request).unwrap();
        let Ranged::Long(rest, mut pairs) = ranged(store, request, 20_000) else {
            panic!("{request:?} is long")
        };
        let head = RangeResponse { header: rest.header, ..RangeResponse::default() };
        let tail = RangeResponse { header: None, ..rest };
        let mut bytes = head.encode_to_vec();
        let told = bytes.len() + pairs.left_bytes() + tail.encoded_len();
        while let Some(piece) = pairs.next_piece().unwrap() {
            bytes.extend_from_slice(&piece);
        }
        bytes.extend(tail.encode_to_vec());
        assert_eq!(bytes.len(), told, "{request:?}");
        assert!(bytes == expected.encode_to_vec(), "{request:?}");
    }

    #[test]
    fn a_long_range_in_pieces_is_the_whole_range() {
        let (store, writer, _) = filled();
        let old = writer.revision() / 2;
        for request in [
            all(),
            RangeRequest { sort_order: SortOrder::Descend.into(), ..all() },
            RangeRequest { revision: old, ..all() },
            RangeRequest { keys_only: true, ..all() },
            RangeRequest { keys_only: true, sort_order: SortOrder::Descend.into(), revision: old, ..all() },
            RangeRequest { limit: 2000, ..all() },
            RangeRequest { limit: 2000, sort_order: SortOrder::Descend.into(), ..all() },
            RangeRequest { min_mod_revision: 500, max_create_revision: 2000, ..all() },
            RangeRequest { limit: 300, min_create_revision: 1000, ..all() },
            RangeRequest { key: [0].as_slice().into(), range_end: [0].as_slice().into(), ..all() },
        ] {
            is_the_same_in_pieces(&store, &request);
        }
    }

    #[test]
    fn what_is_read_stays_as_it_was_until_the_last_piece() {
        let (store, mut writer, engine) = filled();
        let expected = store.range(&all()).unwrap();
        let Ranged::Long(_, mut pairs) = ranged(&store, &all(), 20_000) else { panic!("it is long") };
        let mut batch = Batch::default();
        let mut txn = writer.begin(&mut batch);
        txn.delete_range(b"k", b"l", false).unwrap();
        let revision = txn.finish().unwrap().revision;
        writer.publish(revision);
        writer.compact(revision).unwrap();
        writer.publish(revision);
        assert!(matches!(writer.scrub(), super::super::Scrubbed::Held));
        engine.write(&batch).unwrap();
        store.written(revision);
        let mut bytes = Vec::new();
        while let Some(piece) = pairs.next_piece().unwrap() {
            bytes.extend_from_slice(&piece);
        }
        assert_eq!(RangeResponse::decode(&*bytes).unwrap().kvs, expected.kvs);
        drop(pairs);
        assert!(!matches!(writer.scrub(), super::super::Scrubbed::Held));
    }

    #[test]
    fn what_is_short_comes_whole() {
        let (store, ..) = filled();
        let few = RangeRequest { limit: 10, ..all() };
        assert!(
            matches!(ranged(&store, &few, 20_000), Ranged::Whole(answer) if answer == store.range(&few).unwrap())
        );
        assert!(matches!(store.ranged(&all()), Ok(Ranged::Whole(_))), "it is below the limit");
    }
}
