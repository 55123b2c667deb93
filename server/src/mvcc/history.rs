//! Past events, for watchers that are behind.

use std::sync::Arc;

use bytes::Bytes;
use etcfs_proto::mvccpb::KeyValue;

use super::{Previous, ReadError, Revision, RevisionEvents, Store, WatchEvent, row};
use crate::storage::StorageError;

/// A stretch of history.
#[derive(Clone, Debug)]
pub struct History {
    /// Revisions with a wanted event, ascending, each whole.
    pub events: Vec<RevisionEvents>,
    /// First revision not looked at; beyond the newest, there is none yet.
    pub next: i64,
}

/// How much of history to read at once.
#[derive(Clone, Copy, Debug)]
pub struct HistoryLimits {
    pub rows: usize,
    /// Of the wanted rows.
    pub bytes: usize,
}

impl Store {
    /// Published events from revision `from` on whose key is `wanted`. Stops after the revision that
    /// reaches a limit.
    pub fn events_since(
        &self,
        from: i64,
        limits: HistoryLimits,
        mut wanted: impl FnMut(&[u8]) -> bool,
    ) -> Result<History, ReadError> {
        let mut history = History { events: Vec::new(), next: from };
        let (mut rows_left, mut bytes_left) = (limits.rows, limits.bytes);
        while rows_left > 0 && bytes_left > 0 {
            let Some(Stretch { revisions, next }) = self.stretch(history.next, rows_left)? else { break };
            for (main, rows) in revisions {
                rows_left = rows_left.saturating_sub(rows.len());
                let events: Vec<_> = rows.iter().filter(|row| wanted(row::key(row))).map(event).collect();
                if !events.is_empty() {
                    let bytes: usize = rows.iter().map(Bytes::len).sum();
                    bytes_left = bytes_left.saturating_sub(bytes);
                    history.events.push(RevisionEvents { revision: main, events: events.into() });
                }
                history.next = main + 1;
                if bytes_left == 0 || rows_left == 0 {
                    return Ok(history);
                }
            }
            history.next = next;
        }
        Ok(history)
    }

    /// Whole revisions from `from` on with about `rows_max` rows, from memory or else from the image.
    fn stretch(&self, from: i64, rows_max: usize) -> Result<Option<Stretch>, ReadError> {
        let inner = self.inner.read();
        if from < inner.compacted {
            return Err(ReadError::Compacted);
        }
        if from > inner.published {
            return Ok(None);
        }
        let in_memory = inner.recent.first();
        let mut revisions = Vec::new();
        if from >= in_memory {
            let mut rows = 0;
            for main in from..=inner.published {
                // Above the last compaction every revision has a row.
                let Some(of_main) = inner.recent.revision(main) else { continue };
                revisions.push((main, of_main.to_vec()));
                rows += of_main.len();
                if rows >= rows_max {
                    return Ok(Some(Stretch { revisions, next: main + 1 }));
                }
            }
            return Ok(Some(Stretch { revisions, next: inner.published + 1 }));
        }
        let end = in_memory.min(inner.published + 1);
        let engine = Arc::clone(&inner.engine);
        // Nothing from `from` on may be deleted under the scan.
        let pin = self.pins.pin(from);
        let epoch = inner.epoch;
        drop(inner);
        let mut start = row_key(from);
        let mut cut = true;
        while cut {
            let rows = engine.range(&start, &row_key(end), rows_max)?;
            cut = rows.len() == rows_max;
            let Some((last, _)) = rows.last() else { break };
            start = crate::storage::keyspace::successor(last);
            for (key, row) in rows {
                let revision = row::parse_row_key(&key)?;
                check(revision, &row)?;
                match revisions.last_mut() {
                    Some((main, of_main)) if *main == revision.main => of_main.push(row),
                    _ => revisions.push((revision.main, vec![row])),
                }
            }
            // The last revision may go on behind the cut: leave it to the next stretch, if another is whole.
            if cut && revisions.len() > 1 {
                revisions.pop();
                break;
            }
        }
        drop(pin);
        if self.inner.read().epoch != epoch {
            return Err(ReadError::Compacted);
        }
        let next = match revisions.last() {
            Some((main, _)) if cut => main + 1,
            _ => end,
        };
        Ok(Some(Stretch { revisions, next }))
    }

    /// The pair that an event replaced; `None` if it created the key or what it replaced is compacted.
    pub fn previous(&self, event: &WatchEvent) -> Result<Option<KeyValue>, ReadError> {
        let revision = match &event.previous {
            Previous::None => return Ok(None),
            Previous::Row(row) => return Ok(Some(row::decode(row))),
            Previous::At(revision) => Some(*revision),
            Previous::Unknown => None,
        };
        let inner = self.inner.read();
        let before = event.kv.mod_revision - 1;
        if before < inner.compacted {
            return Ok(None);
        }
        let stamp = inner.index.get(&event.kv.key).and_then(|history| history.visible(before));
        let Some(stamp) = stamp.filter(|stamp| revision.is_none_or(|at| at == stamp.revision())) else {
            return Ok(None);
        };
        if let Some(row) = inner.recent.get(stamp.revision()) {
            return Ok(Some(row::decode(row)));
        }
        let engine = Arc::clone(&inner.engine);
        let _pin = self.pins.pin(before);
        drop(inner);
        let row = self.row(&*engine, stamp.revision())?;
        Ok(Some(row::decode_stored(stamp.revision(), row)?))
    }
}

/// Revisions with their rows.
struct Stretch {
    revisions: Vec<(i64, Vec<Bytes>)>,
    next: i64,
}

fn row_key(main: i64) -> Bytes {
    row::row_key(Revision { main, sub: 0 })
}

/// A row from the image must decode before it is taken for one of ours.
fn check(revision: Revision, row: &Bytes) -> Result<(), StorageError> {
    row::decode_stored(revision, row.clone()).map(drop)
}

fn event(row: &Bytes) -> WatchEvent {
    let kv = row::decode(row);
    let created = kv.create_revision == kv.mod_revision && kv.version != 0;
    let previous = if created { Previous::None } else { Previous::Unknown };
    WatchEvent { kind: row::kind(&kv), kv, previous }
}
