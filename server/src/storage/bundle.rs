//! Rows of successive revisions that the disk engine holds as one.
//!
//! sled takes some 10 us for each row, however short it is, and reads them one
//! by one at a start. So it gets rows of revisions by the handful. A bundle's
//! key is at or above those of its rows, and the next bundle's rows lie above
//! it. The rows stand in it by ascending keys:
//!
//! | part | form |
//! |---|---|
//! | mark | a byte 0, which no message begins with |
//! | for each row: main | varint, less the main of the row before |
//! | sub | varint |
//! | length of the value | varint |
//! | value | |
//!
//! A row that is alone is stored as it is, under its own key. Before there were
//! bundles, all of them were.

use bytes::BufMut as _;
use prost::encoding::{decode_varint, encode_varint};

use super::{StorageError, keyspace::REVISION_KEY_BYTES};

/// Key of a revision's row.
pub(super) type RowKey = [u8; REVISION_KEY_BYTES];

// For one of its rows a bundle is read, and written anew when one goes. And a page of sled's
// has up to 16 of them, all of which are read for one: with bundles of 2.4 KB random reads of a
// million keys took 1.1 to 1.2 times the CPU that they take with 1.2 KB, and puts no less.
const ROWS_MAX: usize = 16;
const BYTES_MAX: usize = 1280;
const MARK: u8 = 0;

/// Gives `put` the bundles of `rows`, which ascend. The last one's key is `bound`, if there is one.
pub(super) fn pack<'a>(
    rows: impl IntoIterator<Item = (RowKey, &'a [u8])>,
    bound: Option<&[u8]>,
    mut put: impl FnMut(&[u8], &[u8]),
) {
    let mut open = Open::default();
    for (key, value) in rows {
        if !open.has_room(value) {
            open.close(None, &mut put);
        }
        open.push(key, value);
    }
    open.close(bound, &mut put);
}

/// A bundle that is being made.
#[derive(Default)]
struct Open<'a> {
    first: Option<(RowKey, &'a [u8])>,
    rows: usize,
    last: RowKey,
    bytes: Vec<u8>,
}

impl<'a> Open<'a> {
    fn has_room(&self, value: &[u8]) -> bool {
        self.rows < ROWS_MAX && self.bytes.len() + value.len() <= BYTES_MAX
    }

    fn push(&mut self, key: RowKey, value: &'a [u8]) {
        let (before, _) = if self.rows == 0 { (0, 0) } else { numbers(&self.last) };
        if self.rows == 0 {
            self.first = Some((key, value));
            self.bytes.put_u8(MARK);
        }
        let (main, sub) = numbers(&key);
        encode_varint(main.wrapping_sub(before), &mut self.bytes);
        encode_varint(sub, &mut self.bytes);
        encode_varint(value.len() as u64, &mut self.bytes);
        self.bytes.put_slice(value);
        self.last = key;
        self.rows += 1;
    }

    fn close(&mut self, bound: Option<&[u8]>, put: &mut impl FnMut(&[u8], &[u8])) {
        let Some((first, value)) = self.first.take() else { return };
        let bound = bound.unwrap_or(&self.last);
        if self.rows == 1 && bound == first && value.first() != Some(&MARK) {
            put(bound, value);
        } else {
            put(bound, &self.bytes);
        }
        self.rows = 0;
        self.bytes.clear();
    }
}

/// The rows of what is stored under `key`, in order.
pub(super) fn unpack<'a>(key: &'a [u8], stored: &'a [u8]) -> Unpack<'a> {
    match stored.split_first() {
        Some((&MARK, rest)) => Unpack { key, alone: None, rest, main: 0 },
        _ => Unpack { key, alone: Some(stored), rest: &[], main: 0 },
    }
}

/// See [`unpack`].
pub(super) struct Unpack<'a> {
    key: &'a [u8],
    alone: Option<&'a [u8]>,
    rest: &'a [u8],
    main: u64,
}

impl<'a> Unpack<'a> {
    fn row(&mut self) -> Option<(RowKey, &'a [u8])> {
        let main = decode_varint(&mut self.rest).ok()?;
        let sub = decode_varint(&mut self.rest).ok()?;
        let bytes = decode_varint(&mut self.rest).ok()?;
        let (value, rest) = self.rest.split_at_checked(usize::try_from(bytes).ok()?)?;
        self.rest = rest;
        self.main = self.main.wrapping_add(main);
        Some((row_key(self.main, sub), value))
    }

    fn corrupt(&mut self) -> StorageError {
        self.rest = &[];
        StorageError::Corrupt {
            what: format!("rows under {}", self.key.escape_ascii()),
            reason: "they end in the middle of one".into(),
        }
    }
}

impl<'a> Iterator for Unpack<'a> {
    type Item = Result<(RowKey, &'a [u8]), StorageError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(value) = self.alone.take() {
            let key = self.key.try_into();
            return Some(key.map(|key| (key, value)).map_err(|_| self.corrupt()));
        }
        if self.rest.is_empty() {
            return None;
        }
        Some(self.row().ok_or_else(|| self.corrupt()))
    }
}

fn numbers(key: &RowKey) -> (u64, u64) {
    let [_, numbers @ ..] = key;
    let number = u128::from_be_bytes(*numbers);
    ((number >> 64) as u64, number as u64)
}

fn row_key(main: u64, sub: u64) -> RowKey {
    let mut key = [b'r'; REVISION_KEY_BYTES];
    key[1..9].copy_from_slice(&main.to_be_bytes());
    key[9..].copy_from_slice(&sub.to_be_bytes());
    key
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Stored = Vec<(Vec<u8>, Vec<u8>)>;

    fn packed(rows: &[(RowKey, Vec<u8>)], bound: Option<&[u8]>) -> Stored {
        let mut stored = Stored::new();
        let rows = rows.iter().map(|(key, value)| (*key, value.as_slice()));
        pack(rows, bound, |key, bundle| stored.push((key.to_vec(), bundle.to_vec())));
        stored
    }

    fn unpacked(stored: &Stored) -> Vec<(RowKey, Vec<u8>)> {
        let rows = stored.iter().flat_map(|(key, bundle)| unpack(key, bundle));
        rows.map(|row| row.map(|(key, value)| (key, value.to_vec())).expect("whole")).collect()
    }

    fn revisions() -> impl Strategy<Value = Vec<(RowKey, Vec<u8>)>> {
        let number = prop_oneof![0..40_u64, any::<u64>()];
        let value = prop_oneof![
            prop::collection::vec(any::<u8>(), 0..12),
            (0..2 * BYTES_MAX).prop_map(|bytes| vec![MARK; bytes]),
        ];
        prop::collection::btree_map((number, 0..3_u64), value, 0..60).prop_map(|rows| {
            rows.into_iter().map(|((main, sub), value)| (row_key(main, sub), value)).collect()
        })
    }

    proptest! {
        #[test]
        fn rows_come_back_and_lie_at_or_below_their_keys_and_above_the_key_before(rows in revisions()) {
            let stored = packed(&rows, None);
            prop_assert_eq!(unpacked(&stored), rows.clone());
            let mut below: &[u8] = b"";
            for (key, bundle) in &stored {
                for (row, _) in unpack(key, bundle).map(|row| row.expect("whole")) {
                    prop_assert!(below < &row[..] && row[..] <= key[..]);
                }
                prop_assert!(bundle.len() <= BYTES_MAX + 64 || unpack(key, bundle).count() == 1);
                below = key;
            }
            let last = row_key(u64::MAX, u64::MAX);
            let bounded = packed(&rows, Some(&last));
            prop_assert_eq!(unpacked(&bounded), rows);
            prop_assert!(bounded.last().is_none_or(|(key, _)| *key == last));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..40), cut in any::<usize>()) {
            let key = row_key(1, 0);
            unpack(&key, &bytes).for_each(drop);
            unpack(&bytes, &bytes).for_each(drop);
            let marked = [&[MARK], &bytes[..]].concat();
            unpack(&key, &marked).for_each(drop);
            // A bundle without its end says so, unless it ends with a row.
            let rows: Vec<_> = (1..4).map(|main| (row_key(main, 0), bytes.clone())).collect();
            let (_, whole) = packed(&rows, None).remove(0);
            let cut = &whole[..cut % whole.len()];
            let found = unpack(&key, cut).collect::<Result<Vec<_>, _>>();
            let left = found.map_or(0, |rows| rows.len());
            prop_assert!(left < rows.len());
        }
    }

    #[test]
    fn a_row_alone_is_stored_as_it_is() {
        let rows = [(row_key(7, 1), b"a pair".to_vec())];
        assert_eq!(packed(&rows, None), [(row_key(7, 1).to_vec(), b"a pair".to_vec())]);
        let short = [(row_key(7, 1), vec![1]), (row_key(9, 0), vec![2, 3])];
        assert_eq!(packed(&short, None), [(row_key(9, 0).to_vec(), vec![MARK, 7, 1, 1, 1, 2, 0, 2, 2, 3])]);
    }
}
