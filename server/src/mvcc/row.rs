//! The bytes that stand for one change, in memory and in the image alike.
//!
//! A row is the encoded `mvccpb.KeyValue`; a deletion is one with version 0.
//! Key and value of a decoded pair share the row's buffer.

use bytes::Bytes;
use etcfs_proto::mvccpb::KeyValue;
use prost::Message;

use super::{EventKind, Revision};
use crate::storage::{StorageError, codec, keyspace};

pub(crate) fn encode(kv: &KeyValue) -> Bytes {
    codec::encode(kv)
}

pub(crate) fn tombstone(key: Bytes, main: i64) -> KeyValue {
    KeyValue { key, mod_revision: main, ..KeyValue::default() }
}

/// Reads a row that this process made, or that was among the rows of a whole image.
pub(crate) fn decode(row: &Bytes) -> KeyValue {
    KeyValue::decode(row.clone()).expect("the row was encoded here, or is one of rows whose sum was right")
}

/// Reads a row from the image.
pub(crate) fn decode_stored(revision: Revision, row: Bytes) -> Result<KeyValue, StorageError> {
    KeyValue::decode(row).map_err(|source| codec::undecodable(&row_key(revision), source))
}

/// A pair but for its value, which need not be copied to know the rest.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Head {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) key: Bytes,
    #[prost(int64, tag = "2")]
    pub(crate) create_revision: i64,
    #[prost(int64, tag = "3")]
    pub(crate) mod_revision: i64,
    #[prost(int64, tag = "4")]
    pub(crate) version: i64,
    #[prost(int64, tag = "6")]
    pub(crate) lease: i64,
}

/// Reads a row from the image, but for its value.
pub(crate) fn decode_head(revision: Revision, row: &[u8]) -> Result<Head, StorageError> {
    Head::decode(row).map_err(|source| codec::undecodable(&row_key(revision), source))
}

pub(crate) fn kind(kv: &KeyValue) -> EventKind {
    if kv.version == 0 { EventKind::Delete } else { EventKind::Put }
}

/// The key of an encoded pair, without decoding the rest.
///
/// Fields are encoded by number and a key is never empty, so it comes first.
pub(crate) fn key(row: &[u8]) -> &[u8] {
    const KEY_FIELD: u8 = 1 << 3 | 2;
    debug_assert_eq!(row.first(), Some(&KEY_FIELD));
    let mut rest = &row[1..];
    let length = prost::encoding::decode_varint(&mut rest).expect("a row starts with its key's length");
    &rest[..usize::try_from(length).expect("a key fits in memory")]
}

pub(crate) fn row_key(revision: Revision) -> Bytes {
    keyspace::revision(revision.main, i64::from(revision.sub))
}

pub(crate) fn parse_row_key(row_key: &[u8]) -> Result<Revision, StorageError> {
    keyspace::parse_revision(row_key)
        .and_then(|(main, sub)| Some(Revision { main, sub: u32::try_from(sub).ok()? }))
        .ok_or_else(|| StorageError::Corrupt {
            what: format!("row {}", row_key.escape_ascii()),
            reason: "its key is no revision".into(),
        })
}

/// How long the value of a pair is whose row has `row_bytes`; `pair` is that pair without it.
pub(crate) fn value_bytes(row_bytes: usize, pair: &KeyValue) -> usize {
    let Some(field) = row_bytes.checked_sub(pair.encoded_len()).filter(|&field| field > 0) else { return 0 };
    // A tag, the length, the value.
    let value = |width: usize| field.saturating_sub(1 + width);
    let widths = 1..=prost::encoding::encoded_len_varint(field as u64);
    let mut fitting =
        widths.filter(|&width| prost::encoding::encoded_len_varint(value(width) as u64) == width);
    value(fitting.next().expect("a row is encoded in one way"))
}

/// What one change counts towards the quota.
pub(crate) fn size(row_bytes: usize) -> u64 {
    (keyspace::REVISION_KEY_BYTES + row_bytes) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_a_row_is_found_without_decoding_it() {
        for length in [1, 127, 128, 40_000] {
            let key: Bytes = vec![7; length].into();
            let row = encode(&KeyValue { key: key.clone(), value: "v".into(), ..KeyValue::default() });
            assert_eq!(super::key(&row), key);
            assert_eq!(decode(&row).value, "v");
        }
    }

    #[test]
    fn the_head_of_a_row_is_its_pair_without_the_value() {
        let kv = KeyValue {
            key: "k".into(),
            create_revision: 3,
            mod_revision: 300,
            version: 7,
            value: "value".into(),
            lease: 5,
        };
        let revision = Revision { main: 300, sub: 0 };
        let head = decode_head(revision, &encode(&kv)).unwrap();
        let pair = KeyValue { value: Bytes::new(), ..kv.clone() };
        assert_eq!(head.encode_to_vec(), pair.encode_to_vec());
        let whole = encode(&kv);
        decode_head(revision, &whole[..whole.len() - 1]).unwrap_err();
    }

    #[test]
    fn the_length_of_a_value_is_known_from_that_of_its_row() {
        let pair = KeyValue { key: "k".into(), mod_revision: 300, version: 1, ..KeyValue::default() };
        for length in [0, 1, 126, 127, 128, 129, 16_383, 16_384, 16_385, 2_097_151, 2_097_152] {
            let row = encode(&KeyValue { value: vec![7; length].into(), ..pair.clone() });
            assert_eq!(value_bytes(row.len(), &pair), length);
        }
    }
}
