//! Rows as sled holds them, those of revisions in bundles.

use std::{collections::BTreeMap, ops::ControlFlow};

use bytes::Bytes;

use super::failed;
use crate::storage::{
    StorageError,
    bundle::{self, RowKey},
    keyspace::{self, REVISIONS},
};

/// sled lets go of a page only as accesses are noted, 64 for one of 256 parts of all pages. So
/// 16,384 large ones may stay that were read once each, which was all there were of a million
/// rows. They go in time if who reads so many bytes makes one access for them.
const BYTES_PER_ACCESS: usize = 400;
const ACCESSES_MAX: usize = 64;

/// The rows of a generation, whether alone or in bundles.
#[derive(Clone)]
pub(super) struct Rows(pub(super) ::sled::Db);

impl Rows {
    /// What has the row of a revision, if there is such a row: key and rows.
    pub(super) fn bundle_of(&self, row: &[u8]) -> Result<Option<(::sled::IVec, ::sled::IVec)>, StorageError> {
        let found = self.0.range(row..REVISIONS.end).next().transpose().map_err(failed("read a row"))?;
        if let Some((bound, stored)) = &found {
            self.touch(bound, stored.len())?;
        }
        Ok(found)
    }

    /// Has sled's page cache keep its bounds after a read of `bytes` under `key`.
    fn touch(&self, key: &[u8], bytes: usize) -> Result<(), StorageError> {
        for _ in 1..(bytes / BYTES_PER_ACCESS).min(ACCESSES_MAX) {
            self.0.contains_key(key).map_err(failed("read a row"))?;
        }
        Ok(())
    }

    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        if !keyspace::is_revision(key) {
            let value = self.0.get(key).map_err(failed("read a row"))?;
            return Ok(value.map(|value| Bytes::copy_from_slice(&value)));
        }
        let Some((bound, stored)) = self.bundle_of(key)? else { return Ok(None) };
        for row in bundle::unpack(&bound, &stored) {
            let (found, value) = row?;
            if found == *key {
                return Ok(Some(Bytes::copy_from_slice(value)));
            }
        }
        Ok(None)
    }

    /// Calls `take` with the rows of `[start, end)` in order, until it has enough.
    pub(super) fn walk(
        &self,
        start: &[u8],
        end: &[u8],
        mut take: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), StorageError> {
        // The last bundle's key may lie beyond those of its rows.
        let ends_in_revisions = REVISIONS.start < end && end < REVISIONS.end;
        let end_of_bundles = if ends_in_revisions { REVISIONS.end } else { end };
        for stored in self.0.range(start..end_of_bundles) {
            let (bound, stored) = stored.map_err(failed("read a range"))?;
            if !keyspace::is_revision(&bound) {
                if take(&bound, &stored).is_break() {
                    return Ok(());
                }
                continue;
            }
            self.touch(&bound, stored.len())?;
            for row in bundle::unpack(&bound, &stored) {
                let (key, value) = row?;
                if key[..] >= *end {
                    return Ok(());
                }
                if key[..] >= *start && take(&key, value).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Adds to `changes` what becomes of the bundles; gives the newest one's key, if it is another.
    pub(super) fn bundle(
        &self,
        mut rows: Vec<(RowKey, Option<&[u8]>)>,
        newest: &[u8],
        changes: &mut ::sled::Batch,
    ) -> Result<Option<::sled::IVec>, StorageError> {
        // Several changes of a row stay in order.
        rows.sort_by_key(|(key, _)| *key);
        let mut rows = rows.into_iter().peekable();
        while let Some(&(first, _)) = rows.peek() {
            let found = if first[..] > *newest { None } else { self.bundle_of(&first)? };
            let (bound, stored) = found.as_ref().map(|(bound, stored)| (&**bound, &**stored)).unzip();
            let mut bundled = BTreeMap::new();
            if let (Some(bound), Some(stored)) = (bound, stored) {
                for row in bundle::unpack(bound, stored) {
                    let (key, value) = row?;
                    bundled.insert(key, value);
                }
                changes.remove(bound);
            }
            while let Some((key, change)) =
                rows.next_if(|(key, _)| bound.is_none_or(|bound| key[..] <= *bound))
            {
                match change {
                    Some(value) => bundled.insert(key, value),
                    None => bundled.remove(&key),
                };
            }
            let mut last = None;
            bundle::pack(bundled, bound, |key, bundle| {
                changes.insert(key, bundle);
                last = Some(key.into());
            });
            if bound.is_none() {
                return Ok(last);
            }
        }
        Ok(None)
    }
}
