//! Ranges that are too much to be held at once, piece by piece.
//!
//! The index knows how long each row is, and a row is the encoding of its pair.
//! So the walk that finds a range's pairs also tells how long the encoded answer
//! will be; if that is long, the pairs are let go of and met again, a piece at a
//! time, by further walks at the same revision, which stays pinned until the
//! [`LongRange`] is dropped. Of an answer in another order than that of keys the
//! places of its rows are held.

use std::{num::NonZeroU32, ops::ControlFlow, sync::Arc};

use bytes::{BufMut as _, Bytes, BytesMut};
use etcfs_proto::{
    etcdserverpb::{RangeRequest, RangeResponse, range_request::SortTarget},
    mvccpb::KeyValue,
};
use prost::{
    Message as _,
    encoding::{WireType, encode_key, encode_varint, encoded_len_varint},
};

use super::{
    ReadError, Revision, Store, View,
    key_index::Facts,
    order::Sort,
    pins::OwnPin,
    read::{Bounds, Found, Need, PAIR_BYTES, Plan, header},
    row,
};
use crate::storage::{Engine, StorageError, keyspace::successor};

/// Memory for the pairs of an answer that is made whole.
pub(super) const WHOLE_BYTES_MAX: usize = 1 << 20;
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
    rest: Rest,
    left: Length,
}

/// What is still to be read.
#[derive(Debug)]
enum Rest {
    /// In the order of keys.
    Keys { start: Bytes, end: Option<Bytes> },
    /// In another.
    Sorted(std::vec::IntoIter<Place>),
}

/// Where a pair's row is, and how long. There is one for every pair, so it is small.
#[derive(Clone, Copy, Debug)]
struct Place {
    revision: Revision,
    row_bytes: u32,
    /// As the pair is in the answer. None: its lease is too, which only the row knows.
    pair_bytes: Option<NonZeroU32>,
}

impl Place {
    fn of(pair: Found, keys_only: bool) -> Self {
        let Facts { revision, leased, row_bytes, .. } = pair.facts;
        let short = |bytes: usize| u32::try_from(bytes).expect("the index tells of no longer row");
        let pair_bytes = match (keys_only, leased) {
            (true, true) => 0,
            (true, false) => pair.with_lease(0).encoded_len(),
            (false, _) => row_bytes,
        };
        Self { revision, row_bytes: short(row_bytes), pair_bytes: NonZeroU32::new(short(pair_bytes)) }
    }

    /// The pair, of which only the row can be had.
    fn found(self) -> Found {
        let Self { revision, row_bytes, .. } = self;
        let facts = Facts { revision, created: 0, version: 0, leased: false, row_bytes: row_bytes as usize };
        Found { facts, key: Bytes::new(), row: None }
    }

    /// What it takes in an answer that is made whole, at most.
    fn held_bytes(self) -> usize {
        PAIR_BYTES + self.pair_bytes.map_or(self.row_bytes, NonZeroU32::get) as usize
    }
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
        if request.range_end.is_empty() || request.count_only {
            return self.range(request).map(Ranged::Whole);
        }
        self.ranged_above(request, WHOLE_BYTES_MAX)
    }

    fn ranged_above(
        self: &Arc<Self>,
        request: &RangeRequest,
        whole_bytes_max: usize,
    ) -> Result<Ranged, ReadError> {
        self.ranged_in(&self.view(request.revision)?, request, whole_bytes_max)
    }

    /// Answers a range at the revision of a reader's view.
    pub(super) fn ranged_in(
        self: &Arc<Self>,
        view: &View<'_>,
        request: &RangeRequest,
        whole_bytes_max: usize,
    ) -> Result<Ranged, ReadError> {
        let bounds = Bounds::of(&request.key, &request.range_end);
        let keys_only = request.keys_only;
        let mut plan = Plan::of(request);
        let looked = match plan.sort {
            _ if request.count_only => Looked::Whole(view.range_here(request)?),
            None => view.look(bounds, &plan, keys_only, whole_bytes_max)?,
            Some(sort) => {
                // Only of those that are in the answer, and later.
                plan.need.row = sort.0 == SortTarget::Value;
                match view.look_sorted(bounds, &plan, sort, keys_only, whole_bytes_max)? {
                    Some(looked) => looked,
                    None => Looked::Whole(view.range_here(request)?),
                }
            }
        };
        let (rest, left, more, count) = match looked {
            Looked::Whole(answer) => return Ok(Ranged::Whole(answer)),
            Looked::Long { rest, left, more, count } => (rest, left, more, count),
        };
        let pin = view.pin.as_ref().expect("a reader's view is pinned");
        let pairs = LongRange {
            pin: OwnPin::beside(pin, Arc::clone(self)),
            engine: Arc::clone(&view.engine),
            at: view.at,
            epoch: view.epoch,
            plan,
            keys_only,
            rest,
            left,
        };
        let rest = RangeResponse { header: header(view.current()), kvs: Vec::new(), more, count };
        Ok(Ranged::Long(rest, Box::new(pairs)))
    }
}

/// What a first look at a range has found.
enum Looked {
    Whole(RangeResponse),
    Long { rest: Rest, left: Length, more: bool, count: i64 },
}

impl View<'_> {
    fn look(
        &self,
        bounds: Bounds<'_>,
        plan: &Plan,
        keys_only: bool,
        whole_bytes_max: usize,
    ) -> Result<Looked, ReadError> {
        let (mut found, mut held, mut pairs) = (Vec::new(), 0, 0);
        let mut long: Option<Length> = None;
        let count = self.take(bounds, plan, |pair| {
            pairs += 1;
            if let Some(length) = &mut long {
                return length.add(self, pair, plan, keys_only);
            }
            held += pair.held_bytes(keys_only);
            found.push(pair);
            if held > whole_bytes_max {
                let mut length = Length::default();
                for pair in std::mem::take(&mut found) {
                    length.add(self, pair, plan, keys_only)?;
                }
                long = Some(length);
            }
            Ok(())
        })?;
        let Some(left) = long else {
            return self.answer(found, plan, keys_only, count).map(Looked::Whole);
        };
        let more = plan.limit.is_some_and(|limit| pairs > limit);
        let start = match bounds {
            Bounds::One(key) | Bounds::Between(key, _) => Bytes::copy_from_slice(key),
        };
        let end = match bounds {
            Bounds::One(_) => Some(successor(&start)),
            Bounds::Between(_, end) => end.map(Bytes::copy_from_slice),
        };
        let rest = Rest::Keys { start, end };
        Ok(Looked::Long { rest, left, more, count })
    }

    /// `None`: it is short, and has no values, which the places of its rows are not worth.
    fn look_sorted(
        &self,
        bounds: Bounds<'_>,
        plan: &Plan,
        sort: Sort,
        keys_only: bool,
        whole_bytes_max: usize,
    ) -> Result<Option<Looked>, ReadError> {
        let (mut places, count) = self.sorted(bounds, plan, sort, |pair| Place::of(pair, keys_only))?;
        let held: usize = places.iter().map(|place| place.held_bytes()).sum();
        if held <= whole_bytes_max {
            if keys_only {
                return Ok(None);
            }
            let mut found: Vec<_> = places.into_iter().map(Place::found).collect();
            self.recall(&mut found)?;
            return self.answer(found, plan, false, count).map(Looked::Whole).map(Some);
        }
        let more = plan.limit.is_some_and(|limit| places.len() > limit);
        places.truncate(plan.limit.unwrap_or(usize::MAX));
        let mut left = Length::default();
        for place in &places {
            left.count(match place.pair_bytes {
                Some(bytes) => bytes.get() as usize,
                None => self.stripped(*place)?.encoded_len(),
            });
        }
        Ok(Some(Looked::Long { rest: Rest::Sorted(places.into_iter()), left, more, count }))
    }

    /// The pair at a place without its value.
    fn stripped(&self, place: Place) -> Result<KeyValue, ReadError> {
        let mut one = [place.found()];
        self.recall(&mut one)?;
        self.fill_keeping(&mut one, false)?;
        let [pair] = one;
        Ok(without_value(&pair))
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
        self.count(pair_bytes);
        Ok(())
    }

    fn count(&mut self, pair_bytes: usize) {
        self.pairs += 1;
        self.bytes += 1 + encoded_len_varint(pair_bytes as u64) + pair_bytes;
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
        let (mut found, mut bytes) = (Vec::new(), 0);
        match &mut self.rest {
            Rest::Keys { start, end } => {
                let typical = (self.left.bytes / self.left.pairs).max(1);
                let need = Need { pairs: PIECE_BYTES / typical + 1, ..self.plan.need };
                let bounds = Bounds::Between(start, end.as_deref());
                view.walk(bounds, self.plan.descending_walk, need, |pair| {
                    if !self.plan.keeps(&pair.facts) {
                        return Ok(ControlFlow::Continue(()));
                    }
                    bytes += if self.keys_only { pair.key.len() } else { pair.facts.row_bytes };
                    found.push(pair);
                    let is_enough = bytes >= PIECE_BYTES || found.len() == self.left.pairs;
                    Ok(if is_enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
                })?;
            }
            Rest::Sorted(places) => {
                while bytes < PIECE_BYTES
                    && let Some(place) = places.next()
                {
                    bytes += place.row_bytes as usize;
                    found.push(place.found());
                }
                view.recall(&mut found)?;
            }
        }
        let pairs = found.len();
        let is_sorted = matches!(self.rest, Rest::Sorted(_));
        let mut piece =
            BytesMut::with_capacity(if self.keys_only && is_sorted { 0 } else { bytes + pairs * 16 });
        let mut last = Bytes::new();
        if self.keys_only && is_sorted {
            view.fill_keeping(&mut found, false)?;
            for pair in &found {
                prost::encoding::message::encode(KVS, &without_value(pair), &mut piece);
            }
        } else if self.keys_only {
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
        match &mut self.rest {
            Rest::Keys { end, .. } if self.plan.descending_walk => *end = Some(last),
            Rest::Keys { start, .. } => *start = successor(&last),
            Rest::Sorted(_) => {}
        }
        Ok(Some(piece.freeze()))
    }

    /// The rows are not those whose lengths the index has told.
    fn unlike(&self) -> ReadError {
        let what = format!("rows of a range at revision {}", self.at);
        StorageError::Corrupt { what, reason: "they are longer or shorter than the index says".into() }.into()
    }
}

/// A pair whose row was read, without its value.
fn without_value(pair: &Found) -> KeyValue {
    let row = pair.row.as_ref().expect("each row was filled in or its lack reported");
    KeyValue { value: Bytes::new(), ..row::decode(row) }
}

#[cfg(test)]
pub(super) mod tests {
    use etcfs_proto::{etcdserverpb::range_request::SortOrder, etcfs::record};
    use prost::Message as _;

    use super::*;
    use crate::{
        mvcc::{StoreOptions, Writer},
        storage::{Batch, MemoryEngine},
    };

    const KEYS: usize = 3000;

    /// Keys of many lengths, every third changed and every seventh deleted; nearly all in the image.
    pub(in crate::mvcc) fn filled() -> (Arc<Store>, Writer, Arc<MemoryEngine>) {
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

    pub(in crate::mvcc) fn all() -> RangeRequest {
        RangeRequest { key: "k".into(), range_end: "l".into(), ..RangeRequest::default() }
    }

    #[track_caller]
    fn ranged(store: &Arc<Store>, request: &RangeRequest, whole_bytes_max: usize) -> Ranged {
        store.ranged_above(request, whole_bytes_max).unwrap()
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
    fn so_is_one_in_another_order() {
        let (store, writer, _) = filled();
        let old = writer.revision() / 2;
        for target in [SortTarget::Version, SortTarget::Create, SortTarget::Mod, SortTarget::Value] {
            let sorted = RangeRequest { sort_target: target.into(), ..all() };
            for request in [
                RangeRequest { sort_order: SortOrder::Ascend.into(), ..sorted.clone() },
                RangeRequest { sort_order: SortOrder::Descend.into(), ..sorted.clone() },
                RangeRequest { limit: 1500, ..sorted.clone() },
                RangeRequest { limit: 300, sort_order: SortOrder::Descend.into(), ..sorted.clone() },
                RangeRequest { min_mod_revision: 500, revision: writer.revision() - 100, ..sorted.clone() },
                RangeRequest { keys_only: true, ..sorted.clone() },
                RangeRequest { keys_only: true, limit: 1500, revision: old, ..sorted.clone() },
            ] {
                is_the_same_in_pieces(&store, &request);
            }
            let few = RangeRequest { keys_only: true, limit: 10, ..sorted.clone() };
            let answer = ranged(&store, &few, 20_000);
            assert!(matches!(answer, Ranged::Whole(answer) if answer == store.range(&few).unwrap()));
            let few = RangeRequest { limit: 10, sort_order: SortOrder::Descend.into(), ..sorted };
            let answer = ranged(&store, &few, 20_000);
            assert!(matches!(answer, Ranged::Whole(answer) if answer == store.range(&few).unwrap()));
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
        assert!(matches!(store.ranged(&few), Ok(Ranged::Whole(_))), "it is below the limit");
    }
}
