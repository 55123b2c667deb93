//! What one write handle has done since its last put, as something that can be
//! done again to a newer value.
//!
//! A put that meets another client's put does not win by sending its old copy:
//! the edits are applied to the newest value and sent again, so that the bytes
//! which this handle never touched are the other client's. The edits are kept
//! in a normal form (a cut, a floor, disjoint ranges, a tail), so that a program
//! which writes one place a million times costs one range. No clock, no I/O.

use std::collections::BTreeMap;

use bytes::Bytes;

/// Changes to a value, not yet put.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Edits {
    /// Bytes of the base at and past this offset are gone.
    cut: Option<u64>,
    /// The result is at least this long (ftruncate upwards fills with zeros).
    floor: u64,
    /// Disjoint, not adjacent, by offset.
    ranges: BTreeMap<u64, Vec<u8>>,
    /// Bytes that go to the end, wherever that is by then (O_APPEND).
    tail: Vec<u8>,
}

impl Edits {
    /// The edits of a handle that was opened with O_TRUNC: the base is gone.
    pub(crate) fn truncated() -> Self {
        Self { cut: Some(0), ..Self::default() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// True iff the result does not depend on the base.
    pub(crate) fn replaces(&self) -> bool {
        self.cut == Some(0)
    }

    /// Bytes that it holds.
    pub(crate) fn bytes(&self) -> usize {
        self.ranges.values().map(Vec::len).sum::<usize>() + self.tail.len()
    }

    /// Forgets everything; the base is now what the handle shows.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(crate) fn write(&mut self, offset: u64, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        let end = offset + data.len() as u64;
        // The range before that touches this one takes it in.
        let before = self.ranges.range(..=offset).next_back().map(|(&start, old)| (start, old.len() as u64));
        let start = match before {
            Some((start, len)) if start + len >= offset => start,
            _ => {
                self.ranges.insert(offset, Vec::with_capacity(data.len()));
                offset
            }
        };
        let mut merged = self.ranges.remove(&start).unwrap_or_default();
        let at = (offset - start) as usize;
        let needed = at + data.len();
        if merged.len() < needed {
            merged.resize(needed, 0);
        }
        merged[at..needed].copy_from_slice(data);
        // Ranges that begin inside or right at the end are swallowed.
        while let Some((&next, _)) = self.ranges.range(start..=end.max(start + merged.len() as u64)).next() {
            let bytes = self.ranges.remove(&next).unwrap_or_default();
            let have = start + merged.len() as u64;
            let next_end = next + bytes.len() as u64;
            if next_end > have {
                merged.extend_from_slice(&bytes[(have - next) as usize..]);
            }
        }
        self.ranges.insert(start, merged);
    }

    pub(crate) fn append(&mut self, data: &[u8]) {
        self.tail.extend_from_slice(data);
    }

    /// True while appended bytes wait; a truncate must not overtake them.
    pub(crate) fn has_tail(&self) -> bool {
        !self.tail.is_empty()
    }

    pub(crate) fn truncate(&mut self, len: u64) {
        debug_assert!(self.tail.is_empty(), "a truncate would overtake appended bytes");
        self.cut = Some(self.cut.map_or(len, |cut| cut.min(len)));
        self.floor = len;
        let beyond = self.ranges.split_off(&len);
        drop(beyond);
        if let Some((&start, bytes)) = self.ranges.iter_mut().next_back() {
            bytes.truncate((len - start) as usize);
        }
    }

    /// How long the value would be on a base of `base` bytes.
    pub(crate) fn len_on(&self, base: u64) -> u64 {
        let kept = self.cut.map_or(base, |cut| base.min(cut));
        let written = self.ranges.iter().next_back().map_or(0, |(&start, bytes)| start + bytes.len() as u64);
        kept.max(written).max(self.floor) + self.tail.len() as u64
    }

    /// What a read at `offset` finds in the value that these edits make of `base`, without making all of it.
    pub(crate) fn read(&self, base: &Bytes, offset: u64, size: usize) -> Bytes {
        let len = self.len_on(base.len() as u64);
        let start = offset.min(len);
        let end = start.saturating_add(size as u64).min(len);
        if self.is_empty() {
            return base.slice(start as usize..end as usize);
        }
        let mut found = vec![0; (end - start) as usize];
        let mut lay = |at: u64, bytes: &[u8]| {
            let (from, to) = (at.max(start), (at + bytes.len() as u64).min(end));
            if from < to {
                let piece = &bytes[(from - at) as usize..(to - at) as usize];
                found[(from - start) as usize..(to - start) as usize].copy_from_slice(piece);
            }
        };
        let kept = self.cut.map_or(base.len() as u64, |cut| cut.min(base.len() as u64));
        lay(0, &base[..kept as usize]);
        for (&at, bytes) in self.ranges.range(..end).rev() {
            if at + bytes.len() as u64 <= start {
                break;
            }
            lay(at, bytes);
        }
        lay(len - self.tail.len() as u64, &self.tail);
        found.into()
    }

    /// The value that these edits make of `base`.
    pub(crate) fn apply(&self, base: &Bytes) -> Bytes {
        if self.is_empty() {
            return base.clone();
        }
        let kept =
            self.cut.map_or(base.len(), |cut| base.len().min(usize::try_from(cut).unwrap_or(usize::MAX)));
        let mut value = Vec::with_capacity(self.len_on(base.len() as u64) as usize);
        value.extend_from_slice(&base[..kept]);
        for (&start, bytes) in &self.ranges {
            let (start, end) = (start as usize, start as usize + bytes.len());
            if value.len() < end {
                value.resize(end, 0);
            }
            value[start..end].copy_from_slice(bytes);
        }
        if (value.len() as u64) < self.floor {
            value.resize(self.floor as usize, 0);
        }
        value.extend_from_slice(&self.tail);
        value.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Op {
        Write(u64, Vec<u8>),
        Truncate(u64),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            4 => (0..40u64, prop::collection::vec(1..=255u8, 0..12)).prop_map(|(at, data)| Op::Write(at, data)),
            1 => (0..50u64).prop_map(Op::Truncate),
        ]
    }

    proptest! {
        #[test]
        fn edits_do_what_the_writes_did_one_by_one(
            base in prop::collection::vec(1..=255u8, 0..40),
            ops in prop::collection::vec(op(), 0..12),
            tail in prop::collection::vec(1..=255u8, 0..5),
            (offset, size) in (0..60u64, 0..60usize),
        ) {
            let mut plain = base.clone();
            let mut edits = Edits::default();
            for op in &ops {
                match op {
                    Op::Write(at, data) => {
                        edits.write(*at, data);
                        if !data.is_empty() {
                            let end = *at as usize + data.len();
                            if plain.len() < end { plain.resize(end, 0); }
                            plain[*at as usize..end].copy_from_slice(data);
                        }
                    }
                    Op::Truncate(len) => {
                        edits.truncate(*len);
                        plain.resize(*len as usize, 0);
                    }
                }
            }
            edits.append(&tail);
            plain.extend_from_slice(&tail);
            let base = Bytes::from(base);
            prop_assert_eq!(edits.len_on(base.len() as u64), plain.len() as u64);
            let read = plain.iter().skip(offset as usize).take(size).copied().collect::<Vec<u8>>();
            prop_assert_eq!(edits.read(&base, offset, size), Bytes::from(read));
            prop_assert_eq!(edits.apply(&base), Bytes::from(plain));
        }
    }

    #[test]
    fn bytes_never_touched_are_the_newest_values() {
        let mut edits = Edits::default();
        edits.write(2, b"XY");
        assert_eq!(edits.apply(&Bytes::from_static(b"abcdef")), "abXYef");
        assert_eq!(edits.apply(&Bytes::from_static(b"ABCDEFGH")), "ABXYEFGH");
    }

    #[test]
    fn an_append_goes_to_the_newest_end() {
        let mut edits = Edits::default();
        edits.append(b"new\n");
        assert_eq!(edits.apply(&Bytes::from_static(b"theirs\n")), "theirs\nnew\n");
    }
}
