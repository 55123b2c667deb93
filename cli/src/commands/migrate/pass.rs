//! One pass over all keys: a page of the source at a time is compared with the same stretch of the destination.
//!
//! A page is read as of its own moment, not of the pass': no compaction can break it off. What changes after that
//! is repeated in order, and ends as the source has it, for the repetition began before the first page was read.

use std::collections::HashMap;

use bytes::Bytes;
use etcfs_client::Client;
use etcfs_proto::{key::TO_END, mvccpb::KeyValue};

use super::{Change, Migration, marker};
use crate::{error::CliError, output::progress, pages::Pages};

/// What a pass has found.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Found {
    pub(super) keys: u64,
    /// Keys that had to be put or deleted at the destination.
    pub(super) changed: u64,
}

pub(super) async fn run(migration: &mut Migration) -> Result<Found, CliError> {
    migration.mind_leases().await?;
    let mut found = Found::default();
    let progress = progress::counting("keys compared");
    let mut start = Bytes::from_static(b"\0");
    let source = migration.source.clone();
    let mut pages = Pages::between(&source, start.clone(), TO_END.into(), false, 0);
    loop {
        pages.renew();
        let page = pages.next().await?.unwrap_or_default();
        let end = page.last().map_or(TO_END.into(), |kv| Bytes::from([&kv.key[..], b"\0"].concat()));
        let changes = differences(&page, stretch(&migration.target.client, &start, &end).await?);
        found.keys += page.len() as u64;
        found.changed += changes.len() as u64;
        progress.set_position(found.keys);
        let ids = changes.iter().filter_map(Change::lease);
        migration.leases.ensure(&migration.source, &migration.target.client, ids).await?;
        for change in changes {
            migration.write(vec![change]).await?;
        }
        migration.flush().await?;
        migration.keep_up().await?;
        if end == TO_END {
            break;
        }
        start = end;
    }
    progress.finish_and_clear();
    Ok(found)
}

/// What the destination has from `start` up to `end`: values, and leases.
async fn stretch(
    target: &Client,
    start: &Bytes,
    end: &Bytes,
) -> Result<HashMap<Bytes, (Bytes, i64)>, CliError> {
    let mut pages = Pages::between(target, start.clone(), end.clone(), false, 0);
    let mut pairs = HashMap::new();
    while let Some(page) = pages.next().await? {
        pairs.extend(page.into_iter().map(|kv| (kv.key, (kv.value, kv.lease))));
    }
    pairs.remove(marker::KEY);
    Ok(pairs)
}

fn differences(page: &[KeyValue], mut there: HashMap<Bytes, (Bytes, i64)>) -> Vec<Change> {
    let mut changes = Vec::new();
    for kv in page {
        let same = there.remove(&kv.key).is_some_and(|(value, lease)| value == kv.value && lease == kv.lease);
        if !same {
            changes.push(Change::Put(kv.clone()));
        }
    }
    changes.extend(there.into_keys().map(Change::Delete));
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_other_or_too_much_is_a_difference() {
        let pair = |key: &'static str, value: &'static str, lease| KeyValue {
            key: key.into(),
            value: value.into(),
            lease,
            ..KeyValue::default()
        };
        let page = [pair("a", "1", 0), pair("b", "1", 0), pair("c", "1", 7), pair("d", "1", 0)];
        let there = [("a", "1", 0), ("b", "2", 0), ("c", "1", 0), ("e", "1", 0)];
        let there = there.map(|(key, value, lease)| (Bytes::from(key), (Bytes::from(value), lease)));
        let shown: Vec<String> = differences(&page, there.into_iter().collect())
            .into_iter()
            .map(|change| match change {
                Change::Put(kv) => format!("put {}", String::from_utf8_lossy(&kv.key)),
                Change::Delete(key) => format!("delete {}", String::from_utf8_lossy(&key)),
            })
            .collect();
        assert_eq!(shown, ["put b", "put c", "put d", "delete e"]);
    }
}
