//! Rows in sled: the durable image. The only file that names sled.
//!
//! sled 0.34's own flush leaves data in the kernel's hands, so [`flush`] syncs
//! its files besides. The rows live in a directory of their own per generation,
//! `image/<generation>`, named by the file `image/CURRENT`: replacing all rows
//! fills a new generation and then renames one small file.
//!
//! sled may refuse, or die of, its own files after an abrupt stop, and it passes
//! over damaged parts of them in silence: [`scan`] finds the rows that are then
//! missing. Each is an error here, and the caller sets the image aside: it can be
//! rebuilt.
//!
//! [`flush`]: DiskEngine::flush
//! [`scan`]: DiskEngine::scan

use std::{
    collections::{BTreeMap, HashSet},
    ffi::OsString,
    fmt,
    fs::{self, File},
    io::{self, Write as _},
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

use super::{
    Batch, Engine, Space, StorageError,
    bundle::{self, RowKey},
    engine::{RowIter, Take},
    fingerprint::{self, Fingerprint},
    keyspace::{self, REVISIONS},
};

/// sled's page cache. It reckons with bytes on disk, of which each takes many in
/// memory: after 500,000 rows of 300 bytes a process held 1009 MB with 16 MiB
/// here and 219 MB with 1 MiB, for writes that took 1.7 times as long. Nobody
/// waits for those, and hot rows are cached above.
const CACHE_BYTES: u64 = 1 << 20;
/// sled lets go of a page only as accesses are noted, 64 for one of 256 parts of all pages. So
/// 16,384 large ones may stay that were read once each, which was all there were of a million
/// rows. They go in time if who reads so many bytes makes one access for them.
const BYTES_PER_ACCESS: usize = 400;
const ACCESSES_MAX: usize = 64;
const CURRENT: &str = "CURRENT";
/// Counts openings that nobody lived to see verified.
const OPENING: &str = "OPENING";
const OPENINGS_MAX: u32 = 3;
/// In its place: what a full disk did not take is missing.
const FULL: &str = "full";
/// A batch, while all rows are replaced or copied.
const COPY_ROWS: usize = 1000;
const COPY_BYTES: usize = 1 << 20;
/// Copied rows are brought to the disk each time there are so many: all at the end would hold up writes.
const COPY_SYNC_BYTES: u64 = 32 << 20;

/// An engine on disk.
pub struct DiskEngine {
    dir: PathBuf,
    // Held to clone the handle, and to swap it; never during a call of sled.
    current: RwLock<Generation>,
    /// Held by the one writer, for as long as it writes.
    rewrite: Mutex<Rewrite>,
}

/// Whether a fresh generation is being filled with the rows of the current one.
#[derive(Default)]
enum Rewrite {
    #[default]
    No,
    Going(Rewriting),
    /// A write could not be made there too; the current generation has it.
    Failed(Generation, StorageError),
}

struct Rewriting {
    generation: Generation,
    /// The first row that is not in it yet.
    next: Bytes,
    unsynced_bytes: u64,
}

#[derive(Clone)]
struct Generation {
    number: u64,
    path: PathBuf,
    rows: Rows,
    /// Held by the one writer, for as long as it writes.
    written: Arc<Mutex<Written>>,
    /// Blob files never change once written, so each is synced once.
    synced_blobs: Arc<Mutex<HashSet<OsString>>>,
    /// A write or a flush has met a full disk.
    was_full: Arc<AtomicBool>,
}

/// Of the rows as written.
struct Written {
    fingerprint: Fingerprint,
    /// No bundle of revisions lies behind it.
    newest: ::sled::IVec,
}

impl Drop for Generation {
    fn drop(&mut self) {
        if self.was_full.load(Ordering::Relaxed) {
            // sled would wait at its end, for ever, for what it could not write.
            std::mem::forget(self.rows.clone());
        }
    }
}

impl fmt::Debug for DiskEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskEngine").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl DiskEngine {
    /// Opens the rows in `dir`, which exists; none in an empty directory. Not to
    /// be relied on until a [`scan`](Self::scan) has read them all.
    pub fn open(dir: &Path) -> Result<Self, StorageError> {
        let opening = dir.join(OPENING);
        let found = fs::read_to_string(&opening).unwrap_or_default();
        if found.trim() == FULL {
            return Err(unwritten(dir));
        }
        let openings = found.trim().parse().unwrap_or(0);
        if openings >= OPENINGS_MAX {
            return Err(StorageError::Corrupt {
                what: format!("image in {}", dir.display()),
                reason: format!("{openings} attempts to open it ended the process"),
            });
        }
        fs::write(&opening, format!("{}\n", openings + 1)).map_err(StorageError::io("write", &opening))?;
        let current = match fs::read_to_string(dir.join(CURRENT)) {
            Ok(number) => number.trim().parse().map_err(|_| StorageError::Corrupt {
                what: dir.join(CURRENT).display().to_string(),
                reason: "it names no generation".into(),
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                write_current(dir, 1)?;
                1
            }
            Err(error) => return Err(StorageError::io("read", dir.join(CURRENT))(error)),
        };
        remove_other_generations(dir, current)?;
        let generation = Generation::open(dir, current)?;
        Ok(Self { dir: dir.to_owned(), current: RwLock::new(generation), rewrite: Mutex::default() })
    }

    /// Has the next opening of `dir` fail after `error`, because its rows can't be trusted.
    pub fn distrust(dir: &Path, error: &StorageError) -> io::Result<()> {
        let opening = match error {
            StorageError::Unwritten { .. } => FULL.to_owned(),
            _ => OPENINGS_MAX.to_string(),
        };
        fs::write(dir.join(OPENING), opening + "\n")
    }

    fn generation(&self) -> Generation {
        self.current.read().clone()
    }

    fn rows(&self) -> Rows {
        self.current.read().rows.clone()
    }

    /// Refuses to go on after a full disk, where sled can't be relied on: it answers ENOSPC for good, may wait for
    /// ever for what it could not write, and can't read all of that. Once there is room, a start makes the rows anew.
    fn check_disk(&self) -> Result<(), StorageError> {
        if !self.current.read().was_full.load(Ordering::Relaxed) {
            return Ok(());
        }
        if !Space::of(&self.dir).is_roomy() {
            return Err(StorageError::io("write in", &self.dir)(io::ErrorKind::StorageFull.into()));
        }
        Err(unwritten(&self.dir))
    }

    /// Has a whole generation, all of it on disk, take the current one's place.
    fn take_over(&self, generation: Generation) -> Result<(), StorageError> {
        write_current(&self.dir, generation.number)?;
        std::mem::replace(&mut *self.current.write(), generation).remove()
    }
}

impl Generation {
    fn open(dir: &Path, number: u64) -> Result<Self, StorageError> {
        let path = dir.join(number.to_string());
        let db = ::sled::Config::new()
            .path(&path)
            .cache_capacity(CACHE_BYTES)
            // The image says when; a timer of sled's would only add work.
            .flush_every_ms(None)
            .open()
            .map_err(failed("open"))?;
        let stored = db.get(keyspace::FINGERPRINT).map_err(failed("read its fingerprint"))?;
        // Without one there must be no rows either, which is what the default says.
        let fingerprint = stored.and_then(|stored| Fingerprint::decode(&stored)).unwrap_or_default();
        let newest = db.range(REVISIONS.start..REVISIONS.end).next_back();
        let newest = newest.transpose().map_err(failed("read its newest row"))?;
        let newest = newest.map_or_else(::sled::IVec::default, |(bound, _)| bound);
        let written = Arc::new(Mutex::new(Written { fingerprint, newest }));
        Ok(Self {
            number,
            path,
            rows: Rows(db),
            written,
            synced_blobs: Arc::default(),
            was_full: Arc::default(),
        })
    }

    /// An empty one, whatever an earlier attempt has left there.
    fn fresh(dir: &Path, number: u64) -> Result<Self, StorageError> {
        remove_dir(&dir.join(number.to_string()))?;
        Self::open(dir, number)
    }

    /// Gives back the room that it takes.
    fn remove(self) -> Result<(), StorageError> {
        let path = self.path.clone();
        if self.was_full.load(Ordering::Relaxed) {
            // It stays open.
            let db = path.join("db");
            let emptied = File::options().write(true).open(&db).and_then(|file| file.set_len(0));
            emptied.map_err(StorageError::io("empty", db))?;
        }
        drop(self);
        remove_dir(&path)
    }

    fn flush(&self) -> Result<(), StorageError> {
        self.noted(self.rows.0.flush().map(drop).map_err(failed("flush")))?;
        self.noted(self.sync_files().map_err(StorageError::io("sync", &self.path)))
    }

    /// Notes whether the disk was full.
    fn noted(&self, result: Result<(), StorageError>) -> Result<(), StorageError> {
        if result.as_ref().is_err_and(StorageError::is_no_space) {
            self.was_full.store(true, Ordering::Relaxed);
        }
        result
    }

    fn sync_files(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let name = entry.file_name();
            if name == "db" || name.as_encoded_bytes().starts_with(b"snap.") {
                sync_if_there(&entry.path())?;
            }
        }
        let blobs = self.path.join("blobs");
        let mut new = Vec::new();
        match fs::read_dir(&blobs) {
            Ok(entries) => {
                for entry in entries {
                    let name = entry?.file_name();
                    if !self.synced_blobs.lock().contains(&name) {
                        sync_if_there(&blobs.join(&name))?;
                        new.push(name);
                    }
                }
                if !new.is_empty() {
                    File::open(&blobs)?.sync_all()?;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        self.synced_blobs.lock().extend(new);
        File::open(&self.path)?.sync_all()
    }

    fn write(&self, batch: &Batch) -> Result<(), StorageError> {
        self.noted(self.try_to_write(batch))
    }

    fn try_to_write(&self, batch: &Batch) -> Result<(), StorageError> {
        let mut written = self.written.lock();
        let stored = |key: &[u8]| Ok(self.rows.get(key)?.map(|value| fingerprint::hash(key, &value)));
        let after = written.fingerprint.after(batch, stored)?;
        let mut changes = ::sled::Batch::default();
        let mut revisions = Vec::with_capacity(batch.len());
        for (key, change) in batch.ops() {
            match (RowKey::try_from(key.as_ref()), change) {
                (Ok(row), change) if keyspace::is_revision(key) => revisions.push((row, change.as_deref())),
                (_, Some(value)) => changes.insert(key.as_ref(), value.as_ref()),
                (_, None) => changes.remove(key.as_ref()),
            }
        }
        let newest = self.bundle(revisions, &written.newest, &mut changes)?;
        changes.insert(keyspace::FINGERPRINT, after.encode().as_slice());
        self.rows.0.apply_batch(changes).map_err(failed("write a batch"))?;
        written.fingerprint = after;
        if let Some(newest) = newest {
            written.newest = newest;
        }
        Ok(())
    }

    /// Adds to `changes` what becomes of the bundles; gives the newest one's key, if it is another.
    fn bundle(
        &self,
        mut rows: Vec<(RowKey, Option<&[u8]>)>,
        newest: &[u8],
        changes: &mut ::sled::Batch,
    ) -> Result<Option<::sled::IVec>, StorageError> {
        // Several changes of a row stay in order.
        rows.sort_by_key(|(key, _)| *key);
        let mut rows = rows.into_iter().peekable();
        while let Some(&(first, _)) = rows.peek() {
            let found = if first[..] > *newest { None } else { self.rows.bundle_of(&first)? };
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

/// The rows of a generation, whether alone or in bundles.
#[derive(Clone)]
struct Rows(::sled::Db);

impl Rows {
    /// What has the row of a revision, if there is such a row: key and rows.
    fn bundle_of(&self, row: &[u8]) -> Result<Option<(::sled::IVec, ::sled::IVec)>, StorageError> {
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

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
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
    fn walk(
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
}

impl Engine for DiskEngine {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        self.rows().get(key)
    }

    fn range(&self, start: &[u8], end: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, StorageError> {
        let mut rows = Vec::new();
        if start >= end || limit == 0 {
            return Ok(rows);
        }
        self.rows().walk(start, end, |key, value| {
            rows.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
            if rows.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        Ok(rows)
    }

    fn write(&self, batch: &Batch) -> Result<(), StorageError> {
        self.check_disk()?;
        let generation = self.generation();
        generation.write(batch)?;
        let mut slot = self.rewrite.lock();
        if let Rewrite::Going(rewriting) = &mut *slot
            && let Err(error) = rewriting.follow(batch)
        {
            *slot = Rewrite::Failed(rewriting.generation.clone(), error);
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), StorageError> {
        self.check_disk()?;
        let generation = self.generation();
        generation.flush()
    }

    fn size_on_disk(&self) -> Result<u64, StorageError> {
        self.rows().0.size_on_disk().map_err(failed("tell its size"))
    }

    fn replace(&self, rows: RowIter<'_>) -> Result<(), StorageError> {
        // Of rows that are to go, no copy is needed.
        *self.rewrite.lock() = Rewrite::No;
        let generation = Generation::fresh(&self.dir, self.current.read().number + 1)?;
        let mut batch = Batch::default();
        for row in rows {
            let (key, value) = row?;
            batch.put(key, value);
            if batch.len() >= COPY_ROWS || batch.bytes() >= COPY_BYTES {
                generation.write(&std::mem::take(&mut batch))?;
            }
        }
        generation.write(&batch)?;
        generation.flush()?;
        self.take_over(generation)
    }

    fn rewrite(&self) -> Result<bool, StorageError> {
        let mut slot = self.rewrite.lock();
        let current = self.generation();
        let mut rewriting = match std::mem::take(&mut *slot) {
            Rewrite::No => Rewriting::begin(&self.dir, current.number + 1)?,
            Rewrite::Going(rewriting) => rewriting,
            Rewrite::Failed(generation, error) => {
                // What was copied takes room that somebody may wait for.
                generation.remove()?;
                return Err(error);
            }
        };
        let copied = rewriting.go_on(&current);
        // Its files are removed in the end, which nobody may hold then.
        drop(current);
        match copied {
            Ok(true) => self.take_over(rewriting.generation).map(|()| true),
            Ok(false) => {
                *slot = Rewrite::Going(rewriting);
                Ok(false)
            }
            Err(error) => {
                rewriting.generation.remove()?;
                Err(error)
            }
        }
    }

    fn scan(&self, take: Take<'_>) -> Result<(), StorageError> {
        let generation = self.generation();
        let written = generation.written.lock().fingerprint;
        let mut found = Fingerprint::default();
        let mut flow = ControlFlow::Continue(());
        generation.rows.walk(keyspace::ALL.start, keyspace::ALL.end, |key, value| {
            found.add(key, value);
            flow = take(key, value);
            flow
        })?;
        if flow.is_break() {
            return Ok(());
        }
        if found == written {
            return match fs::remove_file(self.dir.join(OPENING)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    Err(StorageError::io("remove", self.dir.join(OPENING))(error))
                }
                _ => Ok(()),
            };
        }
        Err(StorageError::Corrupt {
            what: format!("image in {}", generation.path.display()),
            reason: format!("of {} rows written, {} are found", written.rows(), found.rows()),
        })
    }
}

impl Rewriting {
    fn begin(dir: &Path, number: u64) -> Result<Self, StorageError> {
        let next = Bytes::from_static(keyspace::ALL.start);
        Ok(Self { generation: Generation::fresh(dir, number)?, next, unsynced_bytes: 0 })
    }

    /// Copies the next rows; true once there are no more and all is on disk.
    fn go_on(&mut self, from: &Generation) -> Result<bool, StorageError> {
        let mut batch = Batch::default();
        let mut is_end = true;
        let mut next = self.next.clone();
        from.rows.walk(&self.next, keyspace::ALL.end, |key, value| {
            batch.put(Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
            next = keyspace::successor(key);
            is_end = batch.len() < COPY_ROWS && batch.bytes() < COPY_BYTES;
            if is_end { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        self.next = next;
        self.generation.write(&batch)?;
        self.unsynced_bytes += batch.bytes() as u64;
        if is_end || self.unsynced_bytes >= COPY_SYNC_BYTES {
            self.generation.flush()?;
            self.unsynced_bytes = 0;
        }
        Ok(is_end)
    }

    /// Makes the changes of a batch to rows that are in it already; the others are yet to be copied.
    fn follow(&mut self, batch: &Batch) -> Result<(), StorageError> {
        let mut changes = Batch::default();
        for (key, change) in batch.ops().iter().filter(|(key, _)| *key < self.next) {
            match change {
                Some(value) => changes.put(key.clone(), value.clone()),
                None => changes.delete(key.clone()),
            }
        }
        if changes.is_empty() { Ok(()) } else { self.generation.write(&changes) }
    }
}

fn write_current(dir: &Path, number: u64) -> Result<(), StorageError> {
    let (temporary, path) = (dir.join("CURRENT.tmp"), dir.join(CURRENT));
    let write = || {
        let mut file = File::create(&temporary)?;
        writeln!(file, "{number}")?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        File::open(dir)?.sync_all()
    };
    write().map_err(StorageError::io("write", &path))
}

fn remove_other_generations(dir: &Path, current: u64) -> Result<(), StorageError> {
    for entry in fs::read_dir(dir).map_err(StorageError::io("list", dir))? {
        let entry = entry.map_err(StorageError::io("list", dir))?;
        let number: Option<u64> = entry.file_name().to_str().and_then(|name| name.parse().ok());
        if number.is_some_and(|number| number != current) {
            remove_dir(&entry.path())?;
        }
    }
    Ok(())
}

fn unwritten(dir: &Path) -> StorageError {
    StorageError::Unwritten { what: format!("the image in {}", dir.display()) }
}

fn remove_dir(path: &Path) -> Result<(), StorageError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StorageError::io("remove", path)(error)),
        _ => Ok(()),
    }
}

/// sled drops files on its own; one that is gone needs no sync.
fn sync_if_there(path: &Path) -> io::Result<()> {
    match File::open(path) {
        Ok(file) => file.sync_data(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn failed(doing: &'static str) -> impl Fn(::sled::Error) -> StorageError {
    move |error| StorageError::Engine { doing, source: error.into() }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use super::*;
    use crate::storage::{MemoryEngine, SnapshotFile};

    fn row(nth: u32) -> (Bytes, Bytes) {
        (nth.to_be_bytes().to_vec().into(), format!("value {nth}").into())
    }

    fn put_all(engine: &DiskEngine, rows: impl Iterator<Item = (Bytes, Bytes)>) {
        let mut batch = Batch::default();
        rows.for_each(|(key, value)| batch.put(key, value));
        engine.write(&batch).expect("written");
    }

    #[test]
    fn rows_survive_reopening_and_come_in_order() {
        let dir = tempfile::tempdir().expect("temp dir");
        let engine = DiskEngine::open(dir.path()).expect("opened");
        put_all(&engine, (0..100).map(row));
        let mut batch = Batch::default();
        batch.delete(row(7).0);
        // Beyond sled's inline size, so that it makes a blob file.
        batch.put("big".into(), vec![7; 1 << 20].into());
        engine.write(&batch).expect("written");
        engine.flush().expect("flushed");
        drop(engine);
        let engine = DiskEngine::open(dir.path()).expect("opened");
        assert_eq!(engine.get(&row(3).0).expect("read"), Some(row(3).1));
        assert_eq!(engine.get(&row(7).0).expect("read"), None);
        assert_eq!(engine.get(b"big").expect("read").map(|value| value.len()), Some(1 << 20));
        let page = engine.range(&row(5).0, &row(50).0, 3).expect("read");
        assert_eq!(page, [row(5), row(6), row(8)]);
        let rest = engine.range(&keyspace::successor(&page[2].0), &row(50).0, 1000).expect("read");
        assert_eq!((rest.len(), &rest[0]), (41, &row(9)));
    }

    #[test]
    fn replacing_all_rows_leaves_no_old_one_and_survives_reopening() {
        let dir = tempfile::tempdir().expect("temp dir");
        let engine = DiskEngine::open(dir.path()).expect("opened");
        put_all(&engine, (0..10).map(row));
        engine.replace(&mut (100..COPY_ROWS as u32 + 200).map(|nth| Ok(row(nth)))).expect("replaced");
        assert_eq!(engine.get(&row(3).0).expect("read"), None);
        drop(engine);
        let engine = DiskEngine::open(dir.path()).expect("opened");
        let rows = engine.range(b"", b"\xff", usize::MAX).expect("read");
        assert_eq!((rows.len(), &rows[0]), (COPY_ROWS + 100, &row(100)));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Write(Vec<(i64, i64, Option<Vec<u8>>)>),
        Read(i64, i64, usize),
        Rewrite,
        Reopen,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let value = prop_oneof![Just(vec![0; 3]), (1..700_usize).prop_map(|bytes| vec![7; bytes])];
        let change = (0..60_i64, 0..2_i64, prop::option::weighted(0.7, value));
        let step = prop_oneof![
            6 => prop::collection::vec(change, 1..40).prop_map(Step::Write),
            6 => (0..62_i64, 0..62_i64, 1..50_usize).prop_map(|(from, to, limit)| Step::Read(from, to, limit)),
            1 => Just(Step::Rewrite),
            1 => Just(Step::Reopen),
        ];
        prop::collection::vec(step, 1..30)
    }

    /// sled lets go of its file on a thread of its own, some time after its end.
    fn reopen(dir: &Path) -> DiskEngine {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            match DiskEngine::open(dir) {
                Err(error)
                    if error.to_string().contains("could not acquire lock") && Instant::now() < deadline =>
                {
                    // So many attempts would make it refuse its rows.
                    fs::remove_file(dir.join(OPENING)).expect("removed");
                    std::thread::yield_now();
                }
                opened => return opened.expect("opened"),
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Whatever is bundled with what, and though revisions never come in this order.
        #[test]
        fn rows_of_revisions_are_those_of_an_ordered_map(steps in steps()) {
            let dir = tempfile::tempdir().expect("temp dir");
            let mut engine = DiskEngine::open(dir.path()).expect("opened");
            let model = MemoryEngine::new();
            for step in steps {
                match step {
                    Step::Write(changes) => {
                        let mut batch = Batch::default();
                        for (main, sub, value) in changes {
                            let key = keyspace::revision(main, sub);
                            // Revisions are written once.
                            let is_new = model.get(&key).expect("read").is_none()
                                && batch.ops().iter().all(|(other, _)| *other != key);
                            match value {
                                Some(value) if is_new => batch.put(key, value.into()),
                                Some(_) => batch.put(keyspace::lease(main), "lease".into()),
                                None => batch.delete(key),
                            }
                        }
                        engine.write(&batch).expect("written");
                        model.write(&batch).expect("written");
                    }
                    Step::Read(from, to, limit) => {
                        let (from, to) = (keyspace::revision(from, 1), keyspace::revision(to, 1));
                        prop_assert_eq!(engine.get(&from).expect("read"), model.get(&from).expect("read"));
                        let expected = model.range(&from, &to, limit).expect("read");
                        prop_assert_eq!(engine.range(&from, &to, limit).expect("read"), expected);
                    }
                    Step::Rewrite => while !engine.rewrite().expect("copied") {},
                    Step::Reopen => {
                        engine.flush().expect("flushed");
                        drop(engine);
                        engine = reopen(dir.path());
                        engine.verify().expect("whole");
                    }
                }
            }
            engine.verify().expect("whole");
            prop_assert_eq!(all(&engine), model.rows());
        }
    }

    /// As all were stored before there were bundles.
    #[test]
    fn rows_that_stand_alone_are_read_deleted_and_bundled_by_a_rewrite() {
        let dir = tempfile::tempdir().expect("temp dir");
        let engine = DiskEngine::open(dir.path()).expect("opened");
        let rows: Vec<_> =
            (1..40).map(|n| (keyspace::revision(n, 0), Bytes::from(format!("\n{n}")))).collect();
        let sled = || engine.rows().0;
        for (key, value) in &rows {
            let mut batch = Batch::default();
            batch.put(key.clone(), value.clone());
            engine.write(&batch).expect("written");
            assert_eq!(sled().get(key).expect("read").as_deref(), Some(&value[..]));
        }
        let mut batch = Batch::default();
        batch.delete(keyspace::revision(3, 0));
        engine.write(&batch).expect("written");
        let expected: Vec<_> = rows.into_iter().filter(|(key, _)| *key != keyspace::revision(3, 0)).collect();
        let revisions = || engine.range(REVISIONS.start, REVISIONS.end, 100).expect("read");
        assert_eq!((revisions(), sled().len()), (expected.clone(), 38 + 1));
        while !engine.rewrite().expect("copied") {}
        engine.verify().expect("whole");
        assert_eq!((revisions(), sled().len()), (expected, 3 + 1));
    }

    /// What sled does with a damaged part of its file: rows go missing in silence.
    #[test]
    fn a_row_that_went_missing_or_came_back_is_found() {
        let dir = tempfile::tempdir().expect("temp dir");
        let engine = DiskEngine::open(dir.path()).expect("opened");
        engine.verify().expect("nothing is whole");
        let revisions =
            |from: i64| (from..from + 100).map(|n| (keyspace::revision(n, 0), format!("{n}").into()));
        put_all(&engine, revisions(0));
        put_all(&engine, revisions(100).chain((0..10).map(row)));
        let mut batch = Batch::default();
        batch.delete(keyspace::revision(50, 0));
        batch.delete(keyspace::revision(5000, 0));
        batch.put(row(3).0, "another value".into());
        engine.write(&batch).expect("written");
        engine.verify().expect("whole");
        drop(engine);
        let engine = DiskEngine::open(dir.path()).expect("opened");
        engine.verify().expect("whole");
        let key = keyspace::revision(60, 0);
        let (key, value) = engine.rows().bundle_of(&key).expect("read").expect("is there");
        engine.rows().0.remove(&key).expect("removed");
        let error = engine.verify().expect_err("rows are missing");
        assert!(error.to_string().contains("of 209 rows written, 194 are found"), "{error}");
        engine.rows().0.insert(&key, value).expect("inserted");
        engine.verify().expect("whole again");
        engine.rows().0.insert(keyspace::revision(50, 0), "50").expect("inserted");
        engine.verify().expect_err("a deleted row is back");
        engine.replace(&mut revisions(0).map(Ok)).expect("replaced");
        engine.verify().expect("whole again");
    }

    #[test]
    fn no_snapshot_is_built_of_rows_that_are_not_all_there() {
        let dir = tempfile::tempdir().expect("temp dir");
        let snapshots = tempfile::tempdir().expect("temp dir");
        let engine = DiskEngine::open(dir.path()).expect("opened");
        let meta = (Bytes::from_static(keyspace::META), Bytes::new());
        put_all(&engine, (1..100).map(|n| (keyspace::revision(n, 0), "value".into())).chain([meta]));
        SnapshotFile::build(&engine, snapshots.path()).expect("built").verify().expect("whole");
        let (bound, _) =
            engine.rows().bundle_of(&keyspace::revision(50, 0)).expect("read").expect("is there");
        engine.rows().0.remove(bound).expect("removed");
        let refused = SnapshotFile::build(&engine, snapshots.path());
        assert!(matches!(refused, Err(StorageError::Corrupt { .. })), "{refused:?}");
        assert!(SnapshotFile::newest(snapshots.path()).expect("listed").is_some(), "the older one stays");
    }

    #[test]
    fn a_replacement_that_fails_leaves_the_old_rows() {
        let dir = tempfile::tempdir().expect("temp dir");
        let engine = DiskEngine::open(dir.path()).expect("opened");
        put_all(&engine, (0..10).map(row));
        let broken = [Ok(row(50)), Err(StorageError::Closed)];
        engine.replace(&mut broken.into_iter()).expect_err("broken");
        assert_eq!(engine.range(b"", b"\xff", 100).expect("read").len(), 10);
    }

    fn all(engine: &DiskEngine) -> Vec<(Bytes, Bytes)> {
        engine.range(keyspace::ALL.start, keyspace::ALL.end, usize::MAX).expect("read")
    }

    /// What is written between two parts of the copy lies before, at or behind the place it has come to.
    #[test]
    fn a_rewrite_keeps_every_row_also_those_that_change_meanwhile() {
        let dir = tempfile::tempdir().expect("temp dir");
        let engine = DiskEngine::open(dir.path()).expect("opened");
        let last = 3 * COPY_ROWS as u32;
        put_all(&engine, (0..last).map(row));
        let mut parts = 0;
        while !engine.rewrite().expect("copied") {
            parts += 1;
            let mut batch = Batch::default();
            for nth in [0, 7, 1500, last - 1] {
                batch.put(row(nth).0, format!("changed {parts}").into());
            }
            batch.delete(row(parts).0);
            batch.delete(row(last - 10 - parts).0);
            batch.put(row(last + parts).0, "new".into());
            engine.write(&batch).expect("written");
        }
        assert_eq!(parts, 3);
        let rows = all(&engine);
        let value =
            |nth: u32| rows.iter().find(|(key, _)| *key == row(nth).0).map(|(_, value)| value.clone());
        assert_eq!(rows.len() as u32, last - 3);
        for nth in [0, 7, 1500, last - 1] {
            assert_eq!(value(nth), Some(format!("changed {parts}").into()), "{nth}");
        }
        assert_eq!((value(1), value(last - 11), value(last + 3)), (None, None, Some("new".into())));
        engine.verify().expect("whole");
        put_all(&engine, (0..3).map(row));
        engine.flush().expect("flushed");
        let expected = all(&engine);
        drop(engine);
        let engine = DiskEngine::open(dir.path()).expect("opened");
        engine.verify().expect("whole");
        assert_eq!(all(&engine), expected);
    }

    #[test]
    fn a_rewrite_gives_back_what_deleted_rows_took() {
        let dir = tempfile::tempdir().expect("temp dir");
        let engine = DiskEngine::open(dir.path()).expect("opened");
        let large = |nth: u32| (row(nth).0, Bytes::from(vec![nth as u8; 500_000]));
        (0..40).for_each(|nth| put_all(&engine, std::iter::once(large(nth))));
        let mut batch = Batch::default();
        (0..30).for_each(|nth| batch.delete(row(nth).0));
        engine.write(&batch).expect("written");
        engine.flush().expect("flushed");
        let before = engine.size_on_disk().expect("told");
        while !engine.rewrite().expect("copied") {}
        let after = engine.size_on_disk().expect("told");
        // Of large values sled keeps some copies, also of those that were never deleted.
        assert!(before > 20_000_000 && (5_000_000..before / 2).contains(&after), "{before} {after}");
        assert_eq!(fs::read_dir(dir.path()).expect("listed").count(), 3, "CURRENT, OPENING, one generation");
    }

    #[test]
    fn an_image_that_kills_its_openers_is_refused_after_some() {
        let dir = tempfile::tempdir().expect("temp dir");
        for _ in 0..OPENINGS_MAX {
            drop(DiskEngine::open(dir.path()).expect("one more try"));
        }
        assert!(matches!(DiskEngine::open(dir.path()), Err(StorageError::Corrupt { .. })));
        fs::remove_file(dir.path().join(OPENING)).expect("removed");
        for _ in 0..2 * OPENINGS_MAX {
            DiskEngine::open(dir.path()).expect("opened").verify().expect("whole");
        }
        let error = StorageError::Closed;
        DiskEngine::distrust(dir.path(), &error).expect("written");
        assert!(matches!(DiskEngine::open(dir.path()), Err(StorageError::Corrupt { .. })));
    }
}
